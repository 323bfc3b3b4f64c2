"""Speed of a stand-in in real vLLM: the checks on a healthy server, and the faults that change no word of an answer."""

import json

import pytest

FAST = "speed and not (steady or memory)"  # without the long run
SPEED = ("--model", "tiny-qwen3", "--npuconf-engine", "server", "--npuconf-precision", "bfloat16", "--npuconf-results",
         "results.json")  # fmt: skip


@pytest.fixture
def judge(run_pytest, tmp_path):
    """``judge(only, *more)``: the checks' records by name."""

    def call(only, *more):
        run_pytest(*SPEED, "-k", only, *more)
        told = json.loads((tmp_path / "results.json").read_text())
        return {check["check"].split(".")[1]: check for check in told["checks"]}

    return call


def test_a_healthy_server(judge):
    """Neither faster than physics nor slower than its own log says; the client may be in doubt on a busy host, never wrong."""
    found = judge(FAST, "--benchmark-json", "benchmark.json")
    verdicts = {name: check["verdict"] for name, check in found.items()}
    assert verdicts.pop("client") in ("pass", "inconclusive")
    assert verdicts == {"run": "pass", "physics": "pass", "repeat": "pass", "sweep": "pass", "start": None}
    start = found["start"]["data"]["statistics"]
    assert 0 < start["load_s"] < start["start_s"]
    assert 0 < start["init_s"] < start["start_s"]
    sweep = found["sweep"]["data"]["sweep"]
    assert [point["concurrency"] for point in sweep["points"]] == [1, 2, 4, 8]
    assert all(point["server"]["requests"] == point["requests"] for point in sweep["points"]), "its own count agrees"


def test_a_server_that_answers_from_a_cache(judge):
    found = judge("speed and repeat", "--npuconf-fault", "cached-answers")
    assert found["repeat"]["verdict"] == "fail"
    assert found["repeat"]["value"] > 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "check"), [("throttling", "steady"), ("memory-leak", "memory"), ("lost-requests", "run")]
)
def test_a_long_run_sees(judge, fault, check):
    found = judge(f"speed and ({check} or steady)", "--npuconf-fault", fault)
    assert found[check]["verdict"] == "fail"
    if fault == "memory-leak":
        assert found["memory"]["value"] == pytest.approx(256, rel=0.2), "KiB a request, as injected"
