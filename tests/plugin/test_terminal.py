"""What a person sees of a run: the last section at each verbosity, progress in a log and on a terminal, colour."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys

import pytest

from tests.plugin.conftest import EVERY_PHASE, card_text, required_of_tiny

MODEL = ("--model", "card.toml")
FLOAT32 = (*MODEL, "--npuconf-precision", "float32")
BROKEN = ("--npuconf-fault", "dead-weight-row")
NO_PHASE = EVERY_PHASE.replace("0.0", "1e9")
SCREEN = 24


def section(result):
    """The lines of the section, with its title."""
    lines = result.outlines
    start = next(i for i, line in enumerate(lines) if line.startswith("=") and " npuconf " in line)
    end = next(i for i, line in enumerate(lines) if line.startswith("CLAIMS: "))
    return lines[start : end + 1]


def test_a_whole_run_fits_a_screen(run):
    result = run(*MODEL)
    assert result.ret == 0
    lines = section(result)
    assert len(lines) <= SCREEN
    groups = [line.split()[0] for line in lines if " passed" in line and line.startswith("  ")]
    assert {"logits", "kl", "modules", "equivalence", "token", "model"} <= set(groups)
    assert len(groups) == len(set(groups))
    assert any(line.startswith("  model ") and line.endswith(" exact") for line in lines)
    assert [line for line in lines if line.startswith("next: ")] == [
        "next: add --npuconf-results FILE to keep the evidence, and --npuconf-report FILE to show it"
    ]
    both = required_of_tiny("float32", "bfloat16")
    assert lines[-2].endswith(f"{both} of {both} required checks passed")
    assert "\x1b" not in result.stdout.str()


def test_verbose_has_a_line_for_each_check_and_none_for_a_group(run, pytester):
    result = run(*FLOAT32, "-v", "--npuconf-results", "r.json")
    lines = section(result)
    checks = [record["check"] for record in json.loads((pytester.path / "r.json").read_text())["checks"]]
    assert len(checks) > SCREEN / 2
    assert sorted(line.split()[1] for line in lines if line.split()[0] in ("pass", "reported")) == sorted(checks)
    assert not any(" of " in line and line.startswith("  ") for line in lines)
    file = pytester.path / "r.json"
    assert [line for line in lines if line.startswith(("results:", "next:"))] == [
        f"results: {file}",
        f"next: npuconf card {file} writes its model card",
        f"next: npuconf bundle {file} packs the evidence",
    ]


def test_quiet_has_the_failures_and_the_verdict(run, pytester):
    pytester.makeconftest(EVERY_PHASE)
    result = run(*FLOAT32, *BROKEN, "-q")
    assert result.ret == 1
    lines = section(result)
    failures = lines[1:-2]
    assert failures
    assert all(line.startswith("  fail ") for line in failures)
    assert lines[-2].startswith("NOT CONFORMANT: tiny on cpu")
    assert not any(line.startswith("npuconf: ") for line in result.outlines)


def test_a_failure_says_which_module_and_the_command_that_repeats_it_alone(run):
    result = run(*FLOAT32, *BROKEN)
    steps = [line.removeprefix("next: ") for line in section(result) if line.startswith("next: ")]
    assert len(steps) == 2
    assert steps[1].startswith("look at model.layers.")
    again = run(*shlex.split(steps[0])[1:])
    again.assert_outcomes(failed=1)
    assert any("FAILED" in line and "::" in line for line in again.outlines)  # -v
    worst = next(line.split()[1] for line in section(result) if line.startswith("  fail "))
    again.stdout.fnmatch_lines([f"NOT CONFORMANT: *1 required check failed: {worst} (SUBSET: *"])


def on_terminal(folder, *arguments, **environment):
    """What pytest writes to a terminal."""
    controller, terminal = pty.openpty()
    unset = ("NO_COLOR", "PY_COLORS", "FORCE_COLOR", "PYTEST_ADDOPTS")
    clean = {name: value for name, value in os.environ.items() if name not in unset}
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    with subprocess.Popen(
        words,
        cwd=folder,
        env={**clean, "TERM": "xterm", **environment},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ):
        os.close(terminal)
        told = b""
        try:
            while more := os.read(controller, 1 << 16):
                told += more
        except OSError:  # its other end is closed
            pass
    os.close(controller)
    return told.decode()


@pytest.mark.usefixtures("run")  # its environment
@pytest.mark.parametrize("environment", [{}, {"CI": "true"}, {"CI": "false"}], ids=["no CI", "CI", "CI=false"])
def test_a_terminal_has_every_phase_and_colour_and_ci_only_the_late_ones(pytester, tiny_weights, environment):
    pytester.makeconftest(NO_PHASE)  # none is late
    (pytester.path / "card.toml").write_text(card_text(tiny_weights))
    told = on_terminal(pytester.path, *FLOAT32, "npuconf/precision/test_logits.py", **environment)
    assert "SUBSET: " in told
    assert "\x1b[31m\x1b[1mSUBSET" in told or "\x1b[1m\x1b[31mSUBSET" in told
    assert ("npuconf: loading tiny, float32 on cpu" in told) == (environment != {"CI": "true"})


@pytest.mark.parametrize(("when", "shown"), [(EVERY_PHASE, True), (NO_PHASE, False)], ids=["late", "early"])
def test_a_log_has_the_late_phases_and_no_colour(run, pytester, when, shown):
    pytester.makeconftest(when)
    result = run(*FLOAT32, "npuconf/precision/test_logits.py")
    assert ("npuconf: loading tiny, float32 on cpu" in result.outlines) == shown
    assert "\x1b" not in result.stdout.str()
