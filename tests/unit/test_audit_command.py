"""``npuconf audit``: files, options, exit status, speed, the worked examples."""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_npuconf.audit import command, engine
from pytest_npuconf.audit.engine import Audit
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.rules import RULES, Context, Rule
from pytest_npuconf.audit.text import parse_card
from pytest_npuconf.cli import main
from tests.benchmarks import audit_examples
from tests.seeds import seed_or_skip

WRONG = "# M\n\n| text | NPU |\n|---|---|\n| a | 1.00 |\n| b | 3.00 |\n| mean | 9.00 |\n"


def _rule(level):
    def check(context):
        return [context.finding("x", level, 1, "said", "1 = 1")]

    return Rule("x", "a rule", check)


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(WRONG, encoding="utf-8")
    return path


@pytest.fixture
def only(monkeypatch):
    """All rules but one that finds a given level taken away."""

    def use(level):
        monkeypatch.setattr(engine, "RULES", {"x": _rule(level)})

    return use


@pytest.mark.parametrize(
    ("level", "status"),
    [("contradiction", 1), ("implausible", 1), ("unsupported", 3), ("ambiguous", 0), ("fine", 0)],
)
def test_exit_status_by_level(card, only, level, status, capsys):
    only(Level(level))
    assert main(["audit", str(card)]) == status
    assert f"{level}  x  line 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("level", "fail_on", "status"),
    [
        ("implausible", "contradiction", 0),
        ("unsupported", "implausible", 0),
        ("ambiguous", "ambiguous", 3),
        ("fine", "fine", 0),
        ("contradiction", "contradiction", 1),
    ],
)
def test_fail_on(card, only, level, fail_on, status):
    only(Level(level))
    assert main(["audit", str(card), "--fail-on", fail_on]) == status


def test_a_planted_mean_is_found_with_its_line(card, capsys):
    assert main(["audit", "--json", str(card)]) == 1
    (found,) = json.loads(capsys.readouterr().out)["cards"]
    worst = found["findings"][0]
    assert (worst["rule"], worst["level"], worst["line"]) == ("aggregate", "contradiction", 7)
    assert worst["quote"] == "| mean | 9.00 |"


def test_a_rule_that_fails_is_said_and_hides_no_other(card, monkeypatch, capsys):
    def fail(_context):
        raise KeyError("no such thing")

    monkeypatch.setattr(engine, "RULES", {"y": Rule("y", "", fail), "x": _rule(Level.FINE)})
    assert main(["audit", str(card)]) == 2
    out = capsys.readouterr().out
    assert "the rule y failed: KeyError: 'no such thing'" in out
    assert "fine  x  line 1" in out


def test_a_file_that_cannot_be_read_does_not_hide_the_others(card, tmp_path, only, capsys):
    only(Level.FINE)
    assert main(["audit", str(tmp_path / "nothing.md"), str(card), str(card)]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("fine  x") == 1
    assert "cannot read" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no file to audit"),
        (["a.md", "--json", "--format", "junit"], "exclude each other"),
        (["--explain", "agregate"], "did you mean 'aggregate'"),
        (["a.md", "b.md", "--config", "c.json"], "belongs to one card"),
        (["a.md", "--config", "no-such.json"], "cannot read"),
    ],
)
def test_wrong_command_lines(arguments, message, capsys):
    assert main(["audit", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("text", "message"), [("[1]", "no object"), ("{", "not JSON"), ("[" * 100_000, "not JSON")])
def test_a_config_that_is_none(card, tmp_path, text, message, capsys):
    (tmp_path / "config.json").write_text(text)
    assert main(["audit", str(card), "--config", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_the_config_reaches_the_rules(card, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(engine, "RULES", {"x": Rule("x", "", lambda context: seen.append(context.config) or [])})
    (tmp_path / "config.json").write_text('{"hidden_size": 64}')
    assert main(["audit", str(card), "--config", str(tmp_path)]) == 0
    assert seen == [{"hidden_size": 64}]


def test_a_config_for_several_cards_is_refused(tmp_path, capsys):
    (tmp_path / "README.md").write_text("# a-1b\n\n- Parameters: 1B\n\n# b-7b\n\n- Parameters: 7B\n")
    (tmp_path / "config.json").write_text("{}")
    assert main(["audit", str(tmp_path / "README.md"), "--config", str(tmp_path)]) == 2
    assert "holds 2 cards" in capsys.readouterr().err


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_explained(rule, capsys):
    assert main(["audit", "--explain", rule]) == 0
    assert rule in capsys.readouterr().out


def test_rules_are_named_as_they_are_kept():
    assert all(name == rule.id and rule.title for name, rule in RULES.items())


def test_findings_are_sorted_worst_first_and_never_twice(monkeypatch):
    found = [Finding("x", level, line, "", "") for level in (Level.FINE, Level.CONTRADICTION) for line in (2, 1, 1)]
    monkeypatch.setattr(engine, "RULES", {"x": Rule("x", "", lambda _context: found)})
    kept = engine.check(Context(parse_card("a\nb")), ["x"])
    assert [(f.level, f.line) for f in kept] == [
        (Level.CONTRADICTION, 1),
        (Level.CONTRADICTION, 2),
        (Level.FINE, 1),
        (Level.FINE, 2),
    ]


TOML = '[gates."logits.cosine"]\nbound = 0.5\nreason = "as documented"\n\n# 输出吞吐：-3 tok/s\n'


@pytest.mark.parametrize("name", ["card.toml", "CARD.TOML"])
def test_the_gates_of_a_card_in_toml_are_linted_and_nothing_else(tmp_path, name, capsys):
    path = tmp_path / name
    path.write_text(TOML, encoding="utf-8")
    assert main(["audit", "--json", str(path)]) == 1
    (card,) = json.loads(capsys.readouterr().out)["cards"]
    assert card["file"] == str(path)
    assert [(f["rule"], f["level"], f["line"], f["quote"]) for f in card["findings"]] == [
        ("gate", "implausible", 2, "bound = 0.5")
    ]
    assert main(["audit", "--format", "junit", str(path)]) == 1
    assert capsys.readouterr().out.count("<testcase") == 1


def test_a_waiver_in_toml_is_compared_with_the_fixed_day(tmp_path, monkeypatch, capsys):
    (tmp_path / "card.toml").write_text(
        '[[waivers]]\ncheck = "ppl.delta"\nreason = "r"\nlink = "l"\nexpires = 1970-01-05\nconditions = {device = "npu"}\n'
    )
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert main(["audit", str(tmp_path / "card.toml")]) == 0
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "864000")
    assert main(["audit", str(tmp_path / "card.toml")]) == 1
    assert "lapsed on 1970-01-05" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["a = ", "a = " + "[" * 100_000, None])
def test_toml_that_cannot_be_read_does_not_hide_the_others(card, tmp_path, only, capsys, text):
    only(Level.FINE)
    if text is not None:
        (tmp_path / "card.toml").write_text(text)
    assert main(["audit", str(tmp_path / "card.toml"), str(card)]) == 2
    captured = capsys.readouterr()
    assert "fine  x" in captured.out
    assert "cannot be read as TOML" in captured.err


def test_toml_takes_no_config(tmp_path, capsys):
    (tmp_path / "card.toml").write_text(TOML, encoding="utf-8")
    (tmp_path / "config.json").write_text("{}")
    assert main(["audit", str(tmp_path / "card.toml"), "--config", str(tmp_path)]) == 2
    assert "is TOML" in capsys.readouterr().err


def test_status_of_nothing():
    assert command.exit_status([], Level.UNSUPPORTED) == 0
    assert command.exit_status([Audit(parse_card("x"), ())], Level.FINE) == 0


def test_the_date_can_be_fixed(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert command._today() == datetime.date(1970, 1, 2)


def _run(*arguments, **environment):
    script = [
        sys.executable,
        "-X",
        "importtime",
        "-c",
        "import sys; from pytest_npuconf.cli import main; sys.exit(main())",
    ]
    return subprocess.run(
        [*script, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_neither_torch_nor_numpy_is_imported_and_any_terminal_will_do(card):
    card.write_text("# 卡片\n\n✅ 平均 1.5%\n", encoding="utf-8")
    done = _run("audit", str(card), PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {
        line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "import time:" in line
    }
    assert "markdown_it" in imported
    assert not imported & {"torch", "numpy", "scipy", "transformers", "pytest"}


def test_a_card_takes_less_than_two_seconds_with_the_start():
    longest = max((Path(__file__).parents[1] / "data" / "audit").glob("*.md"), key=lambda path: path.stat().st_size)
    script = [
        sys.executable,
        "-c",
        "import sys; from pytest_npuconf.cli import main; sys.exit(main())",
        "audit",
        longest,
    ]
    before = os.times()
    subprocess.run(script, capture_output=True, check=False)
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2


# ---------------------------------------------------------------------------------------------------------------- docs


def test_the_list_of_rules_in_the_docs_is_current():
    assert audit_examples.with_rules(
        audit_examples.INDEX.read_text(encoding="utf-8")
    ) == audit_examples.INDEX.read_text(encoding="utf-8")


def test_the_worked_examples_are_current():
    for path, text in audit_examples.pages(seed_or_skip("000").parent).items():
        assert path.read_text(encoding="utf-8") == text, (
            f"python -m tests.benchmarks.audit_examples writes {path.name} anew"
        )
