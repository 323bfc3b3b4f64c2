"""The checks of speed as whole runs, against a server whose latencies are known, and with each fault of speed in front of it."""

import json

import pytest

from pytest_npuconf.load.self_check import Truth, truth_server
from tests.plugin.conftest import card_text

SPEED = """
[serving]
max_model_len = 512
[speed]
input_len = 16
output_len = 16
concurrency = 2
requests = 8
rounds = 3
sweep = [1, 2, 4]
long_run_seconds = 5
"""
TRUTH = Truth(20.0, 4.0)  # 20 + 15 x 4 = 80 ms an answer


@pytest.fixture(scope="module")
def server():
    with truth_server(TRUTH) as url:
        yield url


@pytest.fixture
def judge(run, pytester, server, tiny_weights):
    """``judge(only, *more, card=...)``: the checks of speed that ``only`` selects; (result, what was written)."""

    def call(only, *more, card="", requests=8):
        speed = SPEED.replace("requests = 8", f"requests = {requests}")
        result = run(
            "--model", "card.toml", "--npuconf-engine", "server", "--npuconf-precision", "bfloat16", "--npuconf-endpoint",
            server,
            "--npuconf-results", "results.json", "-k", f"speed and ({only})", *more,
            card=card_text(tiny_weights, more=speed + card),
        )  # fmt: skip
        return result, json.loads((pytester.path / "results.json").read_text())

    return call


def found(told, name):
    return next(check for check in told["checks"] if check["check"] == f"speed.{name}.bf16_fp32")


def test_a_healthy_server(judge, pytester):
    result, told = judge("run or physics or repeat or sweep", "--benchmark-json", "benchmark.json")
    verdicts = {name: found(told, name)["verdict"] for name in ("run", "physics", "repeat", "sweep")}
    assert verdicts == dict.fromkeys(verdicts, "pass")
    figures = found(told, "run")["data"]["statistics"]
    assert figures["ttft_ms"] >= TRUTH.ttft
    assert 0.9 * TRUTH.itl <= figures["tpot_ms"] < 3 * TRUTH.itl
    assert figures["output_tokens_per_second"] <= TRUTH.rate(16, 2) * 1.001
    assert figures["amortised_ms_per_token"] == pytest.approx(1e3 / figures["output_tokens_per_second"])
    assert 0.9 * TRUTH.itl <= found(told, "physics")["data"]["tpot_ms"]["one request at a time"] < 3 * TRUTH.itl
    assert [point["concurrency"] for point in found(told, "sweep")["data"]["sweep"]["points"]] == [1, 2, 4]
    assert told["models"]["tiny"]["status"] == "SUBSET"
    result.stdout.fnmatch_lines(
        ["*speed.baseline.bf16_fp32 is not asked: no speed is recorded for device cpu*--npuconf-record"]
    )
    kept = json.loads((pytester.path / "benchmark.json").read_text())
    assert kept["machine_info"]["device"] == "cpu"
    assert kept["machine_info"]["client"]["node"]
    [one] = kept["benchmarks"]
    assert one["stats"]["rounds"] == 3
    assert one["extra_info"]["figures"]["tpot_ms"]["unit"] == "ms"
    assert one["extra_info"]["shape"]["concurrency"] == 2


@pytest.mark.parametrize(
    ("fault", "check", "said"),
    [("cached-answers", "repeat", "asked again"), ("lost-requests", "run or sweep", "closed")],
)
def test_a_fault_is_caught(judge, fault, check, said):
    """100 requests and more, so that one in a hundred is among them."""
    result, told = judge(check, "--npuconf-fault", fault, requests=40)
    assert "fail" in {c["verdict"] for c in told["checks"]}
    result.stdout.fnmatch_lines([f"*{said}*"])
    assert result.ret == 1


def test_speed_is_not_measured_beside_other_work(judge):
    result, told = judge("run", "--benchmark-disable")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*pytest-benchmark is disabled, so nothing was timed*"])
    assert not told["checks"]


def test_sessions_are_recorded_and_judge_the_next(judge, pytester):
    """One session is recorded by the real command; four more are it, a third faster and slower, so that a busy host passes."""
    result, _ = judge("run", "--npuconf-record")
    result.stdout.fnmatch_lines(["recorded *speed-cpu-bfloat16-*.json: 0 -> 1 sessions of speed"])
    [path] = pytester.path.rglob("speed-cpu-bfloat16-*.json")
    result, told = judge("baseline")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*1 sessions of speed are recorded, 5 are needed*"])
    kept = json.loads(path.read_text())
    [one] = kept["sessions"]
    for factor in (0.7, 0.9, 1.1, 1.4):
        kept["sessions"].append({**one, "figures": {n: v * factor for n, v in one["figures"].items()}})
    path.write_text(json.dumps(kept))
    _, told = judge("baseline")
    assert found(told, "baseline")["verdict"] == "pass"
    for session, factor in zip(kept["sessions"], (1.0, 0.98, 0.99, 1.01, 1.02), strict=True):
        session["figures"] = {n: v * factor for n, v in one["figures"].items()}
    path.write_text(json.dumps(kept))
    result, told = judge("baseline", "--npuconf-fault", "tpot-doubled")
    assert found(told, "baseline")["verdict"] == "fail"
    figures = {figure["figure"]: figure["slowdown"] for figure in found(told, "baseline")["data"]["figures"]}
    assert 1.4 < figures["tpot_ms"] < 3.0
    path.write_text("{}")
    with pytest.raises(FileNotFoundError):
        judge("baseline")  # refused before anything is measured, so there are no results


@pytest.mark.parametrize(
    ("floor", "verdict"),
    [("at_least = 1.0", "pass"), ("at_least = 1e6", "fail")],
)
def test_floors_hold_on_their_hardware(judge, floor, verdict):
    from pytest_npuconf.devices.cpu import CpuDevice

    card = f"""
[[speed.floors]]
figure = "output_tokens_per_second"
{floor}
hardware = {{ device = "cpu", chip = "{CpuDevice().hardware()}" }}
source = "a test"
"""
    result, told = judge("floors", card=card)
    assert found(told, "floors")["verdict"] == verdict
    assert result.ret == 1, "a subset decides nothing"


def test_floors_of_other_hardware_are_said_and_not_asked(judge):
    card = """
[[speed.floors]]
figure = "tpot_ms"
at_most = 4.3
hardware = { device = "npu", chip = "Ascend910_9362" }
source = "a test"
"""
    result, told = judge("floors or run", card=card)
    result.stdout.fnmatch_lines(
        ["*speed.floors is not asked: the card's floors are for device npu, chip Ascend910_9362, this*"]
    )
    assert [c["check"] for c in told["checks"]] == ["speed.run.bf16_fp32"]
    assert not [c for c in told["models"]["tiny"]["missing"] if "floors" in c]


def test_objectives_of_the_card(judge):
    _, told = judge("goodput", card="[speed.slo]\nttft_ms = 1000\ntpot_ms = 100\n", requests=40)
    assert (found(told, "goodput")["verdict"], found(told, "goodput")["value"]) == ("pass", 1.0)
    _, told = judge("goodput", card="[speed.slo]\nttft_ms = 1\n")
    assert (found(told, "goodput")["verdict"], found(told, "goodput")["value"]) == ("fail", 0.0)


def test_a_server_that_throttles(judge, pytester):
    """The shipped fault begins after a minute; here the same after two seconds of a run of five."""
    pytester.makepyfile(
        throttles="""
        from pytest_npuconf.faults.base import Fault
        from pytest_npuconf.faults.serving_speed import throttled
        def pytest_npuconf_faults(config):
            return [Fault("soon", "half the rate after 2 s", "x 2", "speed.steady", throttled(2.0), target="server")]
    """
    )
    _, told = judge("steady", "--npuconf-fault", "soon", "-p", "throttles")
    assert found(told, "steady")["verdict"] == "fail"
    assert found(told, "steady")["value"] < 0.75
