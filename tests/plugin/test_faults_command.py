"""``npuconf faults`` in a subprocess on the small random model: the matrix, an interrupt, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.plugin.conftest import card_text

pytestmark = pytest.mark.campaign

CONFTEST = """
import os, pathlib, time
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults.base import Fault

def double_the_head(model):
    model.lm_head.weight.data *= 2

def wait(model):
    while pathlib.Path("wait").exists():
        time.sleep(0.05)
    double_the_head(model)

def none_here(model):
    raise FaultError("no convolution to break")

def die(model):
    os._exit(7)

def pytest_npuconf_faults(config):
    return [
        Fault("t-head", "logits are doubled", "x2", "logits.rel_l2", double_the_head, module="lm_head"),
        Fault("t-wait", "the same, after a while", "x2", "logits.rel_l2", wait),
        Fault("t-same", "nothing is changed", "none", "nothing", lambda model: None, benign=True),
        Fault("t-quiet", "nothing is changed, and it is called a fault", "none", "logits.rel_l2", lambda model: None),
        Fault("t-none", "a convolution is broken", "x2", "logits.rel_l2", none_here),
        Fault("t-die", "the process ends", "x2", "logits.rel_l2", die),
    ]
"""
RUN = [sys.executable, "-c", "import sys; from pytest_npuconf.cli import main; sys.exit(main(sys.argv[1:]))", "faults"]


@pytest.fixture
def start(tmp_path, tiny_weights, environment):
    """``start(*arguments)``: the command in a folder with a card and a conftest of its own."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "conftest.py").write_text(CONFTEST)
    (here / "card.toml").write_text(card_text(tiny_weights), encoding="utf-8")
    mine = {"NPUCONF_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    kept = {k: v for k, v in environment.items() if not k.startswith(("PYTEST_", "NPUCONF_"))}

    def call(*arguments):
        words = [*RUN, "--model", "card.toml", "--precision", "float32", *map(str, arguments)]
        return subprocess.Popen(
            words, cwd=here, env={**kept, **mine}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    call.folder = here
    return call


def named(*names):
    return [word for name in names for word in ("--fault", name)]


def until(process, words):
    """Wait until the command has said so; the next run has begun then."""
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    time.sleep(0.5)


def test_a_campaign_with_each_outcome(start):
    process = start(*named("t-head", "t-same", "t-quiet", "t-none", "t-die"), "--json", "m.json")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1, out + err
    data = json.loads((start.folder / "m.json").read_text())
    outcomes = {f["name"]: f["outcome"] for f in data["faults"]}
    assert outcomes == {
        "t-head": "caught",
        "t-same": "quiet",
        "t-quiet": "survived",
        "t-none": "inapplicable",
        "t-die": "error",
    }
    assert data["clean_outcome"] == "quiet"
    assert data["leaks"] == []
    # the process that ran them was brought down before it could be looked at; t-same came after
    assert data["not_looked_after"] == ["t-head at float32", "t-quiet at float32"]
    assert data["facts"]["torch"]
    assert data["labels"] == ["CPU", "STAND-IN"]
    assert "model.config" in data["left_out"]
    died = next(f for f in data["faults"] if f["name"] == "t-die")
    assert died["runs"]["float32"]["kind"] == "crash"
    assert "exit status 7" in died["runs"]["float32"]["text"]
    assert "t-none: no convolution to break" in out
    assert (
        "survivors: not caught, or not wherever they must be:\n  t-quiet: nothing is changed, and it is called a fault"
        in out
    )
    assert "6 of 6  t-" in err


def test_an_interrupted_campaign_goes_on(start):
    (start.folder / "wait").touch()
    process = start(*named("t-head", "t-wait", "t-same"))
    until(process, "2 of 4")
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].endswith("--fault t-head --fault t-wait --fault t-same --resume")
    (start.folder / "wait").unlink()
    process = start(*named("t-head", "t-wait", "t-same"), "--resume")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    assert "2 of 4 runs are there already" in err
    assert "1 of 2  t-wait, float32: caught" in err
    assert "t-head, float32" not in err
    assert "overall: 2 of 2 caught (100%), 1 benign and quiet" in out
    unseen = "not looked for whether these reached the next run: their processes ended before:\n  t-head at float32\n"
    assert unseen in out
    process = start(*named("t-head", "t-wait", "t-same"), "--resume", "--json", "m.json")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    assert "4 of 4 runs are there already" in err
    assert unseen in out
    assert json.loads((start.folder / "m.json").read_text())["not_looked_after"] == ["t-head at float32"]


def test_a_killed_campaign_leaves_no_process(start):
    """Nobody can clean up after SIGKILL: the workers themselves see that they are alone, in the middle of a run too."""
    (start.folder / "wait").touch()
    process = start(*named("t-wait"))
    until(process, "1 of 2")
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.kill()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fault", "t-haed"], "no fault 't-haed'; did you mean 't-head'"),
        (["--fault", "t-head", "--json", "none.d/conftest.py/m.json"], "--json "),
        (["--fault", "t-head", "--jobs", "0"], "--jobs 0"),
        (["--leave-out", "kl.noise"], "--leave-out kl.noise: no such check; did you mean 'kl.noise_ratio'"),
        (["--", "--npuconf-device", "tpu"], "tpu"),
        (["--", "--npuconf-nonsense"], "--npuconf-nonsense"),
    ],
)
def test_what_is_refused(start, arguments, message):
    (start.folder / "none.d").write_text("")
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, out + err
    assert message in err
    assert "Traceback" not in err
    assert out == ""
