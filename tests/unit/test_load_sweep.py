"""The sweep, against a server whose latencies are known, and the command that prints it."""

import json
import re

import pytest

from pytest_npuconf.load import compare, server_metrics
from pytest_npuconf.load.self_check import Bias, Truth, truth_server
from pytest_npuconf.load.shape import Shape
from pytest_npuconf.load.sweep import sweep
from pytest_npuconf.metrics.objectives import Slo
from tests.unit.test_load import Server, Watch, reply, result, told

TRUTH = Truth(20.0, 4.0)
SHAPE = Shape(4, 1, 8, 6)  # 20 + 5 x 4 = 40 ms


def test_a_server_without_a_limit_has_no_knee():
    with truth_server(TRUTH) as url:
        found = sweep(url, "truth", SHAPE, (1, 2, 4), objectives=Slo(ttft=1.0, tpot=0.001))
    rates = [point.throughput for point in found.points]
    assert rates == sorted(rates)
    assert found.knee is None
    assert not found.failed
    assert [point.shape.requests for point in found.points] == [4, 8, 16], "four for each place"
    seen = found.to_json()
    json.dumps(seen, allow_nan=False)
    assert [point["goodput"]["share"] for point in seen["points"]] == [0.0] * 3
    assert seen["slo"] == {"ttft_ms": 1000.0, "tpot_ms": 1.0}


def test_no_prompt_comes_twice(monkeypatch):
    seeds = []

    def kept(_url, _model, shape, **_):
        seeds.append(shape.seed)
        return result.result_of(shape, [reply(i, sent=float(i)) for i in range(3)], Watch())

    monkeypatch.setattr("pytest_npuconf.load.sweep.load", kept)
    sweep("u", "m", SHAPE, (1, 2))
    monkeypatch.setattr(compare, "load", kept)
    compare.compare("a", "b", ("m", "m"), Shape(3, 1, 4, 4), blocks=6)
    assert len(seeds) == len(set(seeds[2:])) + 2, "A against A and A against B have their own"


def test_the_command(capsys, tmp_path):
    with truth_server(TRUTH) as url:
        status, out, _ = told(
            capsys, "--endpoint", url, "--model", "truth", "--no-self-check", "--requests", 4, "--input-len", 8, "--output-len", 6,
            "--sweep", "1,2", "--slo-ttft-ms", 1000, "--json", tmp_path / "sweep.json", "--pictures", tmp_path / "pictures",
        )  # fmt: skip
    assert status in (0, 3)
    assert re.search(r"^ +1 +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ +100\.0%$", out, re.M), out
    assert "knee: not reached" in out
    kept = json.loads((tmp_path / "sweep.json").read_text())
    assert [point["concurrency"] for point in kept["points"]] == [1, 2]
    assert kept["endpoint"] == url
    pytest.importorskip("matplotlib")
    assert (tmp_path / "pictures" / "against-concurrency.svg").read_bytes().startswith(b"<?xml")


def test_the_client_is_checked_where_it_has_most_to_do(capsys, monkeypatch):
    checked = []
    monkeypatch.setattr(
        "pytest_npuconf.load.self_check.self_check", lambda shape: checked.append(shape) or Bias(0, 0, 1, 0, 0)
    )
    with truth_server(TRUTH) as url:
        told(
            capsys,
            "--endpoint",
            url,
            "--model",
            "truth",
            "--requests",
            4,
            "--input-len",
            8,
            "--output-len",
            6,
            "--sweep",
            "1,5",
        )
    assert [(shape.concurrency, shape.requests) for shape in checked] == [(5, 5)]


def test_a_server_whose_metrics_are_no_http_has_none():
    def say(_number, handler):
        handler.wfile.write(b"what?\r\n\r\n")

    with Server(say) as broken:
        assert server_metrics.read(f"http://127.0.0.1:{broken.server_address[1]}") is None


def test_pictures_of_a_run(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    with truth_server(TRUTH) as url:
        told(capsys, "--endpoint", url, "--model", "truth", "--no-self-check", "--requests", 4, "--input-len", 8, "--output-len", 6,
             "--pictures", tmp_path)  # fmt: skip
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["latency-distributions.svg", "timeline.svg"]


def test_a_point_that_fails_is_exit_1(capsys):
    def say(_number, handler):
        handler.wfile.write(b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nbad")

    with Server(say) as broken:
        url = f"http://127.0.0.1:{broken.server_address[1]}"
        shape = ("--no-self-check", "--requests", 2, "--sweep", "1,2")
        status, _, err = told(capsys, "--endpoint", url, "--model", "m", *shape)
    assert status == 1
    assert "1 of 1 warm-up requests failed, the first: status: 500" in err
