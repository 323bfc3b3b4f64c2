"""The examples of README and docs run as tests, and what they name exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_npuconf.cards import find_card
from pytest_npuconf.checks import CHECKS, required_ids
from pytest_npuconf.options import CACHE_VARIABLE, OPTIONS, PREFIXED_ONLY, WEIGHTS_VARIABLE
from tests.told_server import ToldServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "README.zh.md"]
EXAMPLES = [  # those of the Chinese README are the English one's: tests/unit/test_guide.py
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES[:-1]
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
]


def answered(body):
    """A streamed answer of as many tokens as were asked for; a whole one where it is not to be streamed."""
    usage = {"prompt_tokens": 1, "completion_tokens": body["max_tokens"]}
    if body.get("stream"):
        return [{"choices": [{"text": "a"}]}, {"choices": [], "usage": usage}]
    return {"choices": [{"text": "a", "token_ids": [1], "finish_reason": "length"}], "usage": usage}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_run(run, pytester, example):
    pytester.makepyfile(test_example=example)
    needs_model = (
        ("--model", "card.toml", "--npuconf-precision", "float32") if re.search("npu_engine|npu_load", example) else ()
    )
    served = {"/v1/models": {"data": [{"id": "tiny", "max_model_len": 512}]}, "/v1/completions": answered}
    with ToldServer(served) as server:
        at = ("--npuconf-engine", "server", "--npuconf-endpoint", server.url) if "npu_load" in example else ()
        result = run(*needs_model, *at, "test_example.py")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] == len(re.findall(r"^def test_", example, re.M))


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


def test_the_ten_line_card_of_the_readme_loads(tmp_path):
    from pytest_npuconf.cards import load_card

    block = re.search(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S).group(1)
    (tmp_path / "card.toml").write_text(block)
    assert load_card(tmp_path / "card.toml").name == "my-model"


def test_options_page_names_every_option_and_variable():
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    for name in [*(option.flag for option in OPTIONS), PREFIXED_ONLY, WEIGHTS_VARIABLE, CACHE_VARIABLE]:
        assert f"`{name}" in page


def test_baselines_page_has_the_errors_of_the_shipped_references():
    from tests.benchmarks.compact_form import table

    lines = table()
    assert len(lines) >= 2 + 4  # two models at two dtypes
    page = (ROOT / "docs" / "baselines.md").read_text(encoding="utf-8")
    assert "\n".join(lines) in page


def test_readme_names_every_check():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in CHECKS)


def test_readme_counts_the_required_checks_of_the_demo():
    card = find_card("tiny-qwen3")
    count = len(required_ids(card, "transformers", card.precisions))
    assert f": {count} of {count} required checks passed\n" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_thresholds_page_has_every_constant_with_its_value():
    from pytest_npuconf import thresholds

    page = (ROOT / "docs" / "thresholds.md").read_text(encoding="utf-8")
    constants = {name: c for name, c in vars(thresholds).items() if isinstance(c, thresholds.Constant)}
    assert constants
    for name, constant in constants.items():
        assert f"| `{name}` | {constant.value} |" in page


# -----------------------------------------------------------------------------------------------------------------------------
# The guide's commands, and what it quotes of them

GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", GUIDE, re.M | re.S))
WALKED = ("First verdict", "Reading a failure", "Your own model", "Your own check", "Publishing evidence")
# half a minute each where they pass, which a card with an error in it keeps them from
WHOLE = {"pytest --model tiny-qwen3", "pytest --model my-model/card.toml"}
ELSEWHERE = ("pip install", "--npu ", "--device npu", "--npuconf-engine server")  # a package index, an NPU, vLLM
EXACT = ("CONFORMANT", "NOT CONFORMANT", "SUBSET", "CLAIMS", "ERROR")  # whose counts are the page's own


def spoken(line):
    """A line of output without what varies from host to host: figures that stand alone, hashes, and widths of columns."""
    line = re.sub(r"\b[0-9a-f]{12,64}\b", "HASH", line.rstrip())
    if not line.startswith(EXACT):
        line = re.sub(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?", "#", line)
    return re.sub(r"(?<=\S)\s+", " ", line)


def quoted(line):
    """A quoted line as a pattern; the dots stand for anything."""
    return re.compile(".*".join(map(re.escape, spoken(line).split("…"))))


class Walk:
    """One section of the guide, block by block, in an empty folder."""

    def __init__(self, folder, *, whole):
        self.folder, self.whole, self.output, self.status = folder, whole, None, 0
        (folder / "my-model").mkdir()
        hidden = ("PYTEST_", "NPUCONF_")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)} | {
            "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NPUCONF_CACHE": str(folder / "cache"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip

    def shell(self, command):
        done = subprocess.run(
            command, shell=True, executable=shutil.which("bash"), cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=600,
        )  # fmt: skip
        return done.returncode, done.stdout

    def run(self, script, expected):
        """Runs what can be run here, and whole runs that pass only when asked to; ``output`` is None where nothing was run."""
        self.output, self.status = None, 0
        for command in script.replace("\\\n", " ").splitlines():
            if any(word in command for word in ELSEWHERE) or (command in WHOLE and expected == 0 and not self.whole):
                continue
            assert self.status == 0, self.output
            self.status, said = self.shell(command)
            self.output = (self.output or "") + said

    def compare(self, quote):
        found = {spoken(line) for line in self.output.splitlines()}
        for line in quote.splitlines():
            pattern = quoted(line)
            assert any(pattern.fullmatch(one) for one in found), f"{line}\nis not in\n{self.output}"


def walk(section, folder, *, whole=False):
    """How many commands were run and how many lines were found."""
    walker, quotes = Walk(folder, whole=whole), 0
    if section == "Publishing evidence":  # what the run on the NPU leaves, of a shorter one
        walker.shell("pytest --model tiny-qwen3 -k finite --junitxml=out/junit.xml --npuconf-results=out/results.json")
    blocks = re.split(r"^```(\w+)\n(.*?)^```$", SECTIONS[section], flags=re.M | re.S)
    runs = 0
    for place in range(1, len(blocks), 3):
        kind, text = blocks[place : place + 2]
        if kind == "toml":
            (folder / "my-model" / "card.toml").write_text(text, encoding="utf-8")
        elif kind == "python":
            (folder / "test_mine.py").write_text(text, encoding="utf-8")
        elif kind == "sh":
            expected = status_after(blocks[place:])
            walker.run(text, expected)
            if walker.output is not None:
                runs += 1
                assert walker.status == expected, walker.output
        elif walker.output is not None:
            walker.compare(text)
            quotes += len(text.splitlines())
    return runs, quotes


def status_after(blocks):
    """The exit status that the page says between this command and the next; 0 where it says none."""
    said = []
    for place in range(0, len(blocks), 3):
        if place and blocks[place] == "sh":
            break
        said.append(blocks[place + 2])
    found = re.search(r"^Exit status (\d)", "".join(said), re.M)
    return int(found.group(1)) if found else 0


@pytest.mark.parametrize("section", WALKED)
def test_the_commands_of_the_guide_give_what_it_quotes(section, tmp_path):
    runs, quotes = walk(section, tmp_path)
    assert runs >= 1
    assert quotes >= 1


@pytest.mark.slow
@pytest.mark.parametrize("section", ["First verdict", "Your own model"])
def test_the_whole_runs_of_the_guide_give_what_it_quotes(section, tmp_path):
    runs, quotes = walk(section, tmp_path, whole=True)
    assert runs >= 2
    assert quotes >= 5


def test_every_section_of_the_guide_is_walked_or_has_nothing_to_run():
    here = "test_speed_mine.py"  # its example runs above; what it compares, seconds, is another each time
    assert set(WALKED) <= set(SECTIONS)
    for section, text in SECTIONS.items():
        if section not in WALKED:
            scripts = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)).splitlines()
            assert all(any(word in command for word in (*ELSEWHERE, here)) for command in scripts), section
