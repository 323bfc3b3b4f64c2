"""Pictures of load: what stands in them, what is refused, and that names from outside cannot break them."""

import copy
import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from pytest_npuconf.errors import MetricError, NonFiniteError, SettingsError
from pytest_npuconf.load.exchange import SECOND
from pytest_npuconf.load.generator import Watch
from pytest_npuconf.load.reply import Reply
from pytest_npuconf.load.result import result_of
from pytest_npuconf.load.run import load
from pytest_npuconf.load.self_check import Truth, truth_server
from pytest_npuconf.load.shape import Shape
from pytest_npuconf.report.pictures.load import against_concurrency, latency_distributions, timeline

matplotlib = pytest.importorskip("matplotlib")
LABEL = "CPU, STAND-IN"
EVIL = "<script>$x^2$&"
SVG = "{http://www.w3.org/2000/svg}"
OF_A_LOAD = pytest.mark.parametrize("picture", [latency_distributions, timeline])


def texts(svg):
    """Every text of a picture; it must be XML for that."""
    root = ElementTree.fromstring(svg)
    assert not [e for e in root.iter() if e.tag.endswith(("script", "image"))]
    return [e.text for e in root.iter(f"{SVG}text")]


def said(svg):
    return "\n".join(texts(svg))


def told_of(found, model="tiny"):
    return json.loads(json.dumps({**found.to_json(), "model": model}))


def synthetic(n, kinds=(), *, tokens=16, first_tokens=1, tpot=0.01, at_once=4):
    """``n`` requests of 0.2 s and more, ``at_once`` at a time; the first ones failed, of ``kinds``."""
    replies = []
    for i in range(n):
        sent = int((0.001 + 0.5 * (i // at_once)) * SECOND)
        first, step = sent + int((0.05 + 0.001 * (i % 7)) * SECOND), int(tpot * SECOND)
        arrivals = tuple(first + k * step for k in range(tokens + 1 - first_tokens))
        one = Reply(i, sent, sent, arrivals[-1] + 1000, arrivals, tokens, 8, first_tokens, first_told=True)
        if i < len(kinds):
            one = Reply(i, sent, sent, sent + SECOND // 5, kind=kinds[i], trouble="x")
        replies.append(one)
    return told_of(result_of(Shape(n, at_once, 8, tokens), replies, Watch()))


def point(concurrency, told, goodput=None, **more):
    keys = ("verdict", "failures", "aggregates")
    return {"concurrency": concurrency, **{key: told[key] for key in keys}, "goodput": goodput, **more}


def sweep_of(*points, **more):
    shape = {"input_len": 8, "output_len": 16}
    return {"model": "tiny", "shape": shape, "points": list(points), "knee": None, "slo": None, **more}


VALID = {**synthetic(40), "verdict": "valid"}
ALL_FAILED = synthetic(3, ["timeout", "timeout", EVIL])


@pytest.fixture(scope="module")
def measured():
    """Three real loads of the server whose latencies are known: by requests at once."""
    with truth_server(Truth(10, 1)) as url:
        return {c: told_of(load(url, "truth", Shape(12, c, 4, 5)), "truth") for c in (1, 2, 4)}


# ---------------------------------------------------------------- real loads


def test_a_real_load(measured):
    found = said(latency_distributions(measured[2], LABEL))
    assert "CPU, STAND-IN; 12 requests, closed loop, 2 at once; 4 tokens in, 5 out" in found
    assert f"TTFT, n = 12; p50 {measured[2]['aggregates']['ttft']['p50']['value']:,.4g} ms" in found
    assert "TPOT, n = 12; p50" in found
    assert "p90" not in found, "needs 36 requests"
    found = said(timeline(measured[2], LABEL))
    assert "sent to first token" in found
    assert "output tokens/s" in found
    assert "failed" not in found
    assert f"of the whole run: {measured[2]['aggregates']['output_tokens_per_second']:,.4g} tokens/s" in found


def test_a_real_sweep(measured):
    points = [point(c, told, {"requests_per_second": 1.0, "share": 0.5}) for c, told in measured.items()]
    found = texts(against_concurrency(sweep_of(*points, knee=2, slo={"ttft_ms": 500.0, "tpot_ms": None}), LABEL))
    assert {"1", "2", "4", "knee: 2 at once", "SLO 500 ms", "goodput: of answers within the SLO"} <= set(found)
    assert {"output tokens/s", "mean TTFT (ms)", "mean TPOT (ms)", "requests at once"} <= set(found)
    assert found.count("knee: 2 at once") == 1
    assert "truth" not in found
    assert "tiny" in found


def test_the_same_data_gives_the_same_bytes_in_every_process(measured, tmp_path):
    (tmp_path / "load.json").write_text(json.dumps(measured[4]))
    code = (
        "import json, sys; from pytest_npuconf.report.pictures import load as p; told = json.load(sys.stdin);"
        "assert 'matplotlib' not in sys.modules;"
        "out = p.latency_distributions(told, 'CPU') + p.timeline(told, 'CPU');"
        "assert 'matplotlib.pyplot' not in sys.modules; sys.stdout.buffer.write(out)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], input=json.dumps(measured[4]).encode(), check=True,
                       stdout=subprocess.PIPE, env={**os.environ, "PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    here = latency_distributions(measured[4], "CPU") + timeline(measured[4], "CPU")
    assert runs == [here, here]
    assert b"dc:date" not in here


# ---------------------------------------------------------------- shapes of data


@OF_A_LOAD
@pytest.mark.parametrize("n", [1, 400, 401, 1000, 5000])
def test_every_size_stays_small(picture, n):
    svg = picture(synthetic(n, ["closed", EVIL] * (n // 10)), LABEL)
    assert len(svg) < 300_000
    assert "tiny" in said(svg)


def test_bars_become_how_many_are_under_way():
    assert "request, in the order of sending" in said(timeline(synthetic(400), LABEL))
    assert "requests under way" in said(timeline(synthetic(401), LABEL))


def test_hundreds_of_failures_stay_small():
    svg = timeline(synthetic(400, [f"kind {i % 9}" for i in range(399)]), LABEL)
    assert len(svg) < 300_000
    found = said(svg)
    assert "failed: kind 0 (45)" in found
    assert "failed: other kinds (176)" in found


def test_failures_by_kind_and_the_verdict():
    told = synthetic(20, ["timeout", "timeout", "closed"])
    found = said(timeline(told, LABEL))
    assert "failed: timeout (2)" in found
    assert "failed: closed (1)" in found
    assert "; FAILED" in found
    assert "n = 17" in said(latency_distributions(told, LABEL))


def test_a_request_that_was_never_sent():
    told = synthetic(5, ["refused"])
    told["requests"][0] |= {"sent": None, "first": None, "last": None}
    assert "failed: refused (1)" in said(timeline(told, LABEL))


def test_percentiles_stand_where_the_load_has_them():
    assert {"p50", "p90", "p99"} <= set(texts(latency_distributions(synthetic(368), LABEL)))
    found = texts(latency_distributions(synthetic(367), LABEL))
    assert {"p50", "p90"} <= set(found)
    assert "p99" not in found


def test_answers_of_one_chunk_have_no_tpot():
    told = synthetic(9, tokens=4, first_tokens=4)
    assert "TPOT" not in said(latency_distributions(told, LABEL))
    told["requests"][0]["first_tokens"] = None
    assert "TPOT, n = 1" in said(latency_distributions(told, LABEL)), "null: one token"


def test_the_axis_is_logarithmic_above_a_decade_and_bears_zeros():
    assert "50" in texts(latency_distributions(synthetic(9), LABEL))
    near = texts(latency_distributions(synthetic(9, tokens=2, first_tokens=2), LABEL))
    assert "200" not in near
    assert "TPOT, n = 9; p50 0 ms" in said(latency_distributions(synthetic(9, tpot=0.0), LABEL))


def test_one_point_and_points_that_are_not_valid():
    found = said(against_concurrency(sweep_of(point(8, VALID)), LABEL))
    assert "8" in found
    assert "goodput" not in found
    failed, doubted = {**VALID, "verdict": "failed"}, {**VALID, "verdict": "inconclusive"}
    points = [point(64, ALL_FAILED), point(32, failed), point(16, doubted), point(8, VALID)]
    svg = against_concurrency(sweep_of(*points), LABEL)
    assert {"failed: 32, 64 at once", "inconclusive: 16 at once"} <= set(texts(svg))
    assert svg.count(b"fill: #ffffff; stroke: #0072b2") == 2, "hollow: 16 and 32; 64 has no mean"


def test_close_concurrencies_do_not_share_a_place():
    found = texts(against_concurrency(sweep_of(*(point(c, VALID) for c in [*range(1, 65), 64])), LABEL))
    assert "1" in found
    assert "63" not in found


# ---------------------------------------------------------------- names from outside


@pytest.mark.parametrize("name", [EVIL, "模型", "a\nb\x00\x1b[31m\ud800\u202e", "x" * 500, "\\$", "_hidden", ""])
def test_names_cannot_break_a_picture(name):
    told = {**synthetic(12, ["other"]), "model": name}
    told["requests"][0]["status"] = name
    sweep = sweep_of(point(2, VALID), point(4, VALID, verdict=name), model=name)
    for svg in (latency_distributions(told, name), timeline(told, name), against_concurrency(sweep, name)):
        found = said(svg)
        if len(name) < 20 and name.isprintable():
            assert name in found
        assert "x" * 106 not in found
        assert b"<script" not in svg


def test_an_evil_name_stands_as_it_is():
    found = texts(timeline({**synthetic(12, [EVIL, EVIL]), "model": EVIL}, LABEL))
    assert EVIL in found
    assert f"failed: {EVIL} (2)" in found


# ---------------------------------------------------------------- what is refused


@OF_A_LOAD
@pytest.mark.parametrize("told", [ALL_FAILED, {"requests": []}, {"standing": "worse"}])
def test_nothing_answered(picture, told):
    with pytest.raises(MetricError, match=r"not one of \d requests was answered"):
        picture(told, LABEL)


def test_no_points():
    with pytest.raises(MetricError, match="no points"):
        against_concurrency(sweep_of(), LABEL)
    with pytest.raises(MetricError, match="none of 1 points has a throughput"):
        against_concurrency(sweep_of(point(8, ALL_FAILED)), LABEL)


@OF_A_LOAD
@pytest.mark.parametrize("key", ["sent", "first", "ended", "tokens"])
def test_nan_and_what_is_no_number(picture, key):
    told = synthetic(5)
    told["requests"][2][key] = float("nan")
    with pytest.raises(NonFiniteError, match=f"request 2: {key}: nan"):
        picture(told, LABEL)
    told["requests"][2][key] = "soon"
    with pytest.raises(MetricError, match=f"request 2: {key}: 'soon' is no number"):
        picture(told, LABEL)


@OF_A_LOAD
def test_an_order_that_cannot_be(picture):
    told = synthetic(5)
    told["requests"][2]["ended"] = -1.0
    with pytest.raises(MetricError, match="request 2: sent, first and ended"):
        picture(told, LABEL)


def test_no_time():
    told = synthetic(1)
    told["requests"][0] |= {"first": 0.5, "sent": 0.5, "ended": 0.5}
    with pytest.raises(MetricError, match="no time passed"):
        timeline(told, LABEL)


@pytest.mark.parametrize(
    "places",
    [("knee",), ("slo", "ttft_ms"), ("points", 0, "concurrency"), ("points", 0, "aggregates", "ttft", "mean"),
     ("points", 0, "aggregates", "output_tokens_per_second"), ("points", 0, "goodput", "requests_per_second"),
     ("points", 0, "aggregates", "tpot", "mean_interval", 1)],
)  # fmt: skip
def test_a_sweep_with_nan(places):
    goodput = {"requests_per_second": 1.0, "share": 1.0}
    sweep = copy.deepcopy(sweep_of(point(8, VALID, goodput), knee=8, slo={"ttft_ms": 9.0, "tpot_ms": 9.0}))
    at = sweep
    for place in places[:-1]:
        at = at[place]
    at[places[-1]] = float("nan")
    with pytest.raises(NonFiniteError, match="nan is not finite"):
        against_concurrency(sweep, LABEL)


@pytest.mark.parametrize("concurrency", [0, -4])
def test_a_concurrency_that_cannot_be(concurrency):
    with pytest.raises(MetricError, match="is no number above 0"):
        against_concurrency(sweep_of(point(concurrency, VALID)), LABEL)


# ---------------------------------------------------------------- matplotlib


def test_no_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(SettingsError, match=r"mend: pip install 'pytest-npuconf\[pictures\]'"):
        timeline(synthetic(3), LABEL)


def test_settings_of_the_process_are_neither_used_nor_kept():
    plain = timeline(synthetic(3), LABEL)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "savefig.transparent": True}):
        before = dict(matplotlib.rcParams)
        assert timeline(synthetic(3), LABEL) == plain
        assert dict(matplotlib.rcParams) == before
    assert b"fill: #ffffff" in plain.partition(b"axes_1")[0], "a white card, on dark pages too"
