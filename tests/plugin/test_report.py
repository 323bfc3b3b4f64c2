"""``--npuconf-report`` in real runs: the page stands at the end, whatever the end was."""

from __future__ import annotations

import json
import re

import pytest

MODEL = ("--model", "card.toml")
FLOAT32 = (*MODEL, "--npuconf-precision", "float32")
REPORT = ("--npuconf-report", "out/report.html")


def page(pytester):
    return (pytester.path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_run_leaves_one_page_and_says_where(run, pytester):
    result = run(*MODEL, *REPORT)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["report: *report.html"])
    text = page(pytester)
    assert text.count('class="word">CONFORMANT<') == 1
    assert text.count("<svg") >= 5
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//|file:)""", text)
    assert [path.name for path in (pytester.path / "out").iterdir()] == ["report.html"]


def test_a_failure_names_the_module_and_the_command_repeats_it(run, pytester):
    result = run(*FLOAT32, *REPORT, "--npuconf-fault", "dead-weight-row")
    assert result.ret == 1
    text = page(pytester)
    assert 'class="word">NOT CONFORMANT<' in text
    (guilty,) = set(re.findall(r"<b><code>(model\.layers\.[^<]+)</code></b>", text))
    assert guilty.endswith("up_proj")
    command = re.search(r"<code>(pytest [^<]*test_noise_ratio[^<]*)</code>", text)
    assert command is not None
    assert "--npuconf-report" not in command[1]


def test_an_interrupted_run_has_a_page_that_says_so(run, pytester):
    pytester.makepyfile(
        stops="""
        def pytest_runtest_setup(item):
            if "rel_l2" in item.nodeid:
                raise KeyboardInterrupt
        """
    )
    result = run(*FLOAT32, *REPORT, "-p", "stops")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "the run was interrupted" in page(pytester)


def test_workers_leave_one_page(run, pytester):
    result = run(*FLOAT32, *REPORT, "-n", "2", "--npuconf-results", "out/r.json")
    assert result.ret == 0
    assert 'class="word">CONFORMANT<' in page(pytester)
    assert json.loads((pytester.path / "out" / "r.json").read_text())["models"]["tiny"]["status"] == "CONFORMANT"


def test_the_page_of_an_earlier_run_does_not_stand_for_one_that_never_began(run, pytester):
    (pytester.path / "out").mkdir()
    (pytester.path / "out" / "report.html").write_text("CONFORMANT")
    result = run(*MODEL, *REPORT, "--npuconf-weights", "nowhere")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert not (pytester.path / "out" / "report.html").exists()
    assert (pytester.path / "out" / "report.html.previous").read_text() == "CONFORMANT"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--npuconf-report", "r.x", "--npuconf-results", "r.x"),
            "--npuconf-report and --npuconf-results name one file",
        ),
        ((*REPORT, "--npuconf-calibrate"), "--npuconf-calibrate with --npuconf-report: nothing is judged"),
    ],
)
def test_usage_errors(run, arguments, says):
    result = run(*MODEL, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{says}*"])


def test_a_missing_library_is_said_before_anything_is_measured(run, pytester):
    (pytester.path / "jinja2.py").write_text("raise ImportError('gone', name='jinja2')")
    result = run(*MODEL, *REPORT)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*the HTML report needs jinja2, which is not installed*", "*pip install 'pytest-npuconf[[]report]'*"]
    )


@pytest.mark.parametrize("option", ["--npuconf-results", "--npuconf-report"])
def test_a_folder_that_cannot_be_made_is_said_before_anything_is_measured(run, pytester, option):
    (pytester.path / "taken").write_text("a file, not a folder")
    result = run(*FLOAT32, option, "taken/it")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*taken*", "*name a file in a folder you can write to*"])


def test_a_page_that_can_no_longer_be_written_loses_no_results(run, pytester):
    pytester.makepyfile(
        takes="""
        import pathlib

        def pytest_runtest_teardown(item, nextitem):
            if nextitem is None:
                pathlib.Path("out").rmdir()
                pathlib.Path("out").write_text("now a file")
        """
    )
    result = run(*FLOAT32, *REPORT, "--npuconf-results", "r.json", "-p", "takes")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["INCOMPLETE: not written: *report.html*"])
    assert json.loads((pytester.path / "r.json").read_text())["models"]["tiny"]["status"] == "CONFORMANT"
