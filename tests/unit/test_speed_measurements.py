"""What the checks of speed make of runs of load: made-up replies with known figures, real readings of this host."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_npuconf.cards.schema import Floor, Speed
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.errors import BaselineError
from pytest_npuconf.load.generator import Watch
from pytest_npuconf.load.reply import Reply
from pytest_npuconf.load.result import result_of
from pytest_npuconf.load.self_check import Bias
from pytest_npuconf.load.server_metrics import ServerSide
from pytest_npuconf.load.shape import Shape
from pytest_npuconf.load.sweep import Sweep
from pytest_npuconf.metrics.objectives import Slo
from pytest_npuconf.progress import Progress
from pytest_npuconf.speed import measurements
from pytest_npuconf.speed.bandwidth import Bandwidth, measure
from pytest_npuconf.speed.baseline import Recorded, departures
from pytest_npuconf.speed.bench import LongRun, SpeedRuns, medians
from pytest_npuconf.speed.memory import Watched, Watching, held_by, resident
from pytest_npuconf.speed.roof import Roof, roof_of
from pytest_npuconf.weights.checkpoint import Checkpoint

MS = 1_000_000
PLACES, TOKENS = 2, 9
ROOF = Roof(1e6, 0.0, True, 1)


def reply(number, *, at=0.0, ttft=20.0, tpot=5.0, kind="", tokens=TOKENS):
    """Times in milliseconds."""
    sent = int(at * MS)
    arrivals = tuple(int(sent + (ttft + k * tpot) * MS) for k in range(tokens))
    if kind:
        return Reply(number, sent, sent, sent + 1, kind=kind, trouble="in words")
    return Reply(number, sent, sent, arrivals[-1], arrivals, tokens, 8)


def loop(count=8, places=PLACES, **how):
    """A closed loop of ``places`` streams without a pause between requests."""
    each = how.get("ttft", 20.0) + (TOKENS - 1) * how.get("tpot", 5.0)
    replies = [reply(i, at=1 + (i // places) * each, **how) for i in range(count)]
    return result_of(Shape(count, places, 8, TOKENS), replies, Watch())


class Made(SpeedRuns):
    """Runs that were made up."""

    def __init__(self, *rounds, speed=None, **made):
        super().__init__(None, speed or Speed(8, TOKENS, PLACES, 8, max(3, len(rounds))), CpuDevice(), 1.0, None)
        self.rounds = list(rounds) or [loop(), loop(), loop()]
        self.speed = dataclasses.replace(self.speed, rounds=len(self.rounds))
        self._made = {
            "warm-up": None,
            "bandwidth": Bandwidth(1e9, 1, 1, 5),
            "alone": loop(places=1),
            "client": Bias(0.5, 0.2, 0.999, 0.1, 0),
            **made,
        }


# rounds


def test_what_the_rounds_say():
    found = measurements.run(Made())
    assert (found.value, found.n, found.of) == (0, 24, "requests")
    figures = found.data["statistics"]
    assert figures["ttft_ms"] == pytest.approx(20.0)
    assert figures["tpot_ms"] == pytest.approx(5.0)
    assert figures["latency_ms"] == figures["latency_tail_ms"] == pytest.approx(60.0)
    assert figures["output_tokens_per_second"] == pytest.approx(PLACES * TOKENS / 0.060)
    assert figures["amortised_ms_per_token"] == pytest.approx(60.0 / TOKENS / PLACES)
    assert figures["latency_s"] == pytest.approx(0.060)


def test_a_lost_request_is_a_row_and_in_no_figure():
    broken = result_of(Shape(2, 1, 8, TOKENS), [reply(0), reply(1, kind="closed")], Watch())
    found = measurements.run(Made(loop(), loop(), broken))
    assert found.value == 1
    assert (found.worst.place, found.worst.detail) == ("round 3, request 1", "closed: in words")
    assert found.data["statistics"]["ttft_ms"] == pytest.approx(20.0)


def test_nothing_was_answered():
    dead = result_of(Shape(2, 1, 8, TOKENS), [reply(0, kind="refused"), reply(1, kind="refused")], Watch())
    found = measurements.run(Made(dead, dead, dead))
    assert found.value == 6
    assert found.data["statistics"] == {}
    assert measurements.client(Made(dead, dead, dead)).broken == "no request of the rounds was answered"
    assert medians([dead]) == {}


def test_a_slow_request_in_twenty_moves_the_tail_and_hardly_the_mean():
    replies = [reply(i, at=1, tpot=5.0 if i else 45.0) for i in range(20)]
    figures = medians([result_of(Shape(20, 20, 8, TOKENS), replies, Watch())])
    assert figures["latency_tail_ms"] == pytest.approx((60 + 380) / 2)
    assert figures["latency_ms"] == pytest.approx(60 + 320 / 20)


# the client


@pytest.mark.parametrize(("ttft", "share"), [(0.5, 0.04), (-0.5, 0.04), (4.0, 0.2)])
def test_the_clients_share(ttft, share):
    found = measurements.client(Made(client=Bias(ttft, 0.2, 0.999, 0.1, 0)))
    assert found.value == pytest.approx(max(share, 0.2 / 5.0))
    assert found.interval == (0.0, found.value), "between nothing and all of it: never a failure"


def test_a_client_in_doubt_may_be_all_of_it():
    shared = ServerSide(20, {"ttft": 20.0})
    doubtful = result_of(Shape(8, 2, 8, TOKENS), loop().replies, Watch(), shared)
    for runs in (Made(doubtful, loop(), loop()), Made(client=Bias(0.1, 0.1, 1.0, 9.0, 0))):
        found = measurements.client(runs)
        assert found.interval == (0.0, 1.0)
        assert found.data["notes"]


def test_a_late_stamp_is_said_and_is_in_the_share_already():
    late = result_of(Shape(8, 2, 8, TOKENS), loop().replies, Watch(busy_ns=50 * MS))
    found = measurements.client(Made(late, loop(), loop()))
    assert found.interval == (0.0, found.value)
    assert "busy for 50.0 ms at once" in found.data["notes"][0]


def test_a_client_that_fails_on_known_latencies():
    assert (
        "3 requests to known latencies failed" in measurements.client(Made(client=Bias(0.1, 0.1, 1.0, 0.1, 3))).broken
    )


# physics


def test_keys_and_values_are_those_of_the_requests_that_were_asked():
    """The card's prompts may be a thousand times as long as those of the single stream."""
    runs = Made(speed=Speed(input_len=32768, output_len=TOKENS))
    assert measurements.physics(runs, Roof(1e6, 1e5, True, 1)).value == pytest.approx(0.2 * (1 + 0.1 * (8 + 4.5)))


def test_efficiency():
    found = measurements.physics(Made(), Roof(1e6, 0.0, True, 1))
    assert found.value == pytest.approx(1e6 / 1e9 / 5e-3)
    assert found.interval[0] <= found.value <= found.interval[1]


@pytest.mark.parametrize(
    ("roof", "factor"), [(Roof(1e6, 0.0, True, 2), 0.5), (Roof(1e6, 1e5, True, 1), 1 + 0.1 * (8 + 4.5))]
)
def test_what_a_step_reads(roof, factor):
    """Two devices read half each; one request's keys and values are read beside the weights."""
    assert measurements.physics(Made(), roof).value == pytest.approx(0.2 * factor)


def test_a_mixture_of_experts_has_no_roof():
    assert measurements.physics(Made(), Roof(1e9, 0.0, False, 1)).value == 0.0


def test_faster_than_physics():
    assert measurements.physics(Made(), Roof(1e7, 0.0, True, 1)).value == pytest.approx(2.0)


def test_answers_in_one_piece_have_no_tpot():
    at_once = [dataclasses.replace(reply(i, tpot=0.0), first_tokens=TOKENS) for i in range(8)]
    burst = result_of(Shape(8, 1, 8, TOKENS), at_once, Watch())
    found = measurements.physics(Made(alone=burst), ROOF)
    assert "answers come in one piece" in found.broken
    still = result_of(Shape(8, 1, 8, TOKENS), [reply(i, tpot=0.0) for i in range(8)], Watch())
    assert "a TPOT of 0 ms is faster than physics" in measurements.physics(Made(alone=still), ROOF).broken


CONFIG = {
    "vocab_size": 100, "hidden_size": 10, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 5,
}  # fmt: skip


def checkpoint(parameters=5000, stored=10000, tensors=(), **config):
    return Checkpoint(Path(), {**CONFIG, **config}, parameters, stored, "", dict.fromkeys(tensors))


def test_a_tied_embedding_is_read_and_another_is_looked_up():
    tied = roof_of(checkpoint(tie_word_embeddings=True), "bfloat16", 1)
    assert (tied.weight_bytes, tied.kv_bytes_per_token, tied.dense) == (10000, 2 * 2 * 1 * 5 * 2, True)
    assert roof_of(checkpoint(), "float32", 1).weight_bytes == 16000


def test_a_head_that_is_stored_beside_its_tied_embedding_is_not_read_twice():
    assert roof_of(checkpoint(tensors=["lm_head.weight"], tie_word_embeddings=True), "bfloat16", 1).weight_bytes == 8000


def test_quantized_weights_are_as_many_bytes_as_their_files():
    four_bits = checkpoint(stored=3000, tie_word_embeddings=True, quantization_config={"quant_method": "awq"})
    assert roof_of(four_bits, "float16", 1).weight_bytes == 3000
    assert not roof_of(checkpoint(), "bfloat16", 1, ("--quantization", "fp8")).dense, "of a size that is not known"


@pytest.mark.parametrize(
    "more", [{"num_experts": 8}, {"text_config": {"num_experts": 8}}, {"vision_config": {"depth": 2}}]
)
def test_what_is_not_wholly_read_has_no_roof(more):
    assert not roof_of(checkpoint(**more), "bfloat16", 1).dense


def test_an_unusual_cache():
    assert roof_of(checkpoint(kv_lora_rank=8), "bfloat16", 1).kv_bytes_per_token == 0


def test_the_bandwidth_of_this_host():
    """No memory of today reads a terabyte a second per host core pair, none reads less than 100 MB."""
    found = measure(CpuDevice(), 64e6)
    assert found.size == 64_000_000
    assert 1e8 < found.bytes_per_second < 1e13
    assert found.repeats >= 5


# again


@pytest.mark.parametrize("factor", [1.0, 2.0, 10.0])
def test_the_same_requests_again(factor):
    again = loop(places=1, ttft=20.0 / factor, tpot=5.0 / factor)
    assert measurements.repeat(Made(again=again)).value == pytest.approx(factor)


def test_too_few_answers_to_compare():
    lost = result_of(Shape(8, 1, 8, TOKENS), [reply(i, kind="closed") for i in range(8)], Watch())
    assert "0 of 8 requests were answered both times" in measurements.repeat(Made(again=lost)).broken


# floors


def floor(figure, bound):
    return Floor(figure, bound, {"device": "cpu", "chip": "x"}, "a test")


@pytest.mark.parametrize(
    ("figure", "bound", "share"),
    [("output_tokens_per_second", 150.0, 0.5), ("output_tokens_per_second", 600.0, 2.0), ("ttft_ms", 40.0, 0.5),
     ("tpot_ms", 2.5, 2.0), ("load_s", 4.0, 0.75)],
)  # fmt: skip
def test_a_floor_is_used_up_by_a_share(figure, bound, share):
    assert measurements.floors(Made(), [floor(figure, bound)], {"load_s": 3.0}).value == pytest.approx(share)


def test_the_worst_floor_speaks():
    found = measurements.floors(Made(), [floor("ttft_ms", 100.0), floor("tpot_ms", 4.0), floor("latency_ms", 61.0)], {})
    assert [row.place for row in found.rows] == ["tpot_ms", "latency_ms", "ttft_ms"]
    assert found.value == pytest.approx(1.25)


def test_a_floor_that_is_missed_for_sure_speaks_before_one_that_may_be():
    rounds = [loop(ttft=20.0 * factor) for factor in (0.3, 1.0, 4.0)]  # TPOT is the same in each
    found = measurements.floors(Made(*rounds), [floor("ttft_ms", 20.0), floor("tpot_ms", 4.0)], {})
    assert found.worst.place == "tpot_ms"
    assert found.interval[0] > 1


def test_a_floor_of_what_was_not_measured():
    assert measurements.floors(Made(), [floor("init_s", 1.0)], {}).broken == "init_s was not measured"


# recorded sessions


def sessions(*factors):
    return [{name: value * factor for name, value in medians([loop()]).items()} for factor in factors]


def test_within_what_sessions_differ_by():
    recorded = Recorded(None, {}, tuple({"figures": one} for one in sessions(0.97, 0.99, 1.0, 1.01, 1.03)))
    assert measurements.baseline(Made(), recorded).value < 1
    slow = [loop(tpot=6.0)] * 3
    found = measurements.baseline(Made(*slow), recorded)
    assert found.value > 1
    assert found.worst.place == "tpot_ms"


def test_a_higher_rate_is_no_slowdown():
    fast = medians([loop(ttft=10.0, tpot=2.5)])
    for one in departures(fast, sessions(0.97, 0.99, 1.0, 1.01, 1.03)):
        assert one.slowdown == pytest.approx(0.5, rel=0.05), one.figure
        assert one.share < 0


@pytest.mark.parametrize("count", [0, 1, 4])
def test_few_sessions_teach_nothing(count):
    with pytest.raises(BaselineError, match=f"{count} sessions of speed are recorded, 5 are needed"):
        departures(medians([loop()]), sessions(*[1.0] * count))


def test_one_more_healthy_session_is_allowed_often_enough():
    """Six sessions with 3 % of noise and one more: at most 5 of 100 depart, over five figures together; 2,000 simulated."""
    draw, names = np.random.default_rng(0), list(medians([loop()]))
    departed = 0
    for _ in range(2000):
        made = [dict(zip(names, np.exp(draw.normal(0, 0.03, len(names))), strict=True)) for _ in range(7)]
        departed += departures(made[0], made[1:])[0].share > 1
    assert departed / 2000 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)


def test_sessions_that_agree_to_the_last_digit_allow_a_little():
    assert departures(medians([loop()]), sessions(*[1.0] * 5))[0].allowed > 1


# goodput and the sweep


@pytest.mark.parametrize(("slo", "share"), [(Slo(ttft=0.030), 1.0), (Slo(ttft=0.010), 0.0), (Slo(0.030, 0.004), 0.0)])
def test_requests_that_meet_the_objectives(slo, share):
    runs = Made()
    runs.speed = dataclasses.replace(runs.speed, objectives=slo)
    found = measurements.good_share(runs)
    assert (found.value, found.n) == (share, 24)
    assert found.interval[0] <= share <= found.interval[1]


def test_the_sweep_names_its_knee():
    points = tuple(loop(count=8 * places, places=places) for places in (1, 2, 4))
    points = (*points, dataclasses.replace(points[-1], shape=Shape(64, 8, 8, TOKENS)))
    swept = Sweep("m", points[0].shape, points, 4)
    found = measurements.swept(Made(sweep=swept))
    assert (found.value, found.data["statistics"]["knee"]) == (0, 4)
    lost = result_of(Shape(2, 16, 8, TOKENS), [reply(0), reply(1, kind="closed")], Watch())
    found = measurements.swept(Made(sweep=Sweep("m", lost.shape, (*points, lost), None)))
    assert (found.value, found.worst.place) == (1, "16 at once, request 1")
    assert "knee" not in found.data["statistics"]


# the long run


def long(later=5.0, count=240, **more):
    """Two streams; from half on each token takes ``later``."""
    replies, at = [], [1.0, 1.0]
    for i in range(count):
        tpot = 5.0 if i < count / 2 else later
        replies.append(reply(i, at=at[i % 2], tpot=tpot))
        at[i % 2] += 20.0 + (TOKENS - 1) * tpot
    return LongRun(result_of(Shape(count, 2, 8, TOKENS), replies, Watch()), more.get("held"))


def test_a_steady_rate():
    found = measurements.steady(Made(long=long()))
    assert found.value == pytest.approx(1.0, abs=0.03)
    assert found.n == 30


def test_a_rate_that_halves():
    found = measurements.steady(Made(long=long(later=12.5)))
    assert found.value == pytest.approx(60 / 120, rel=0.05)
    assert found.interval[1] < 0.9


def test_a_long_run_that_is_too_short_or_has_a_hole():
    assert "raise long_run_seconds" in measurements.steady(Made(long=long(count=10))).broken
    whole = long()
    replies = [dataclasses.replace(r, arrivals=r.arrivals[:1]) for r in whole.found.replies]
    hole = 3000 * MS
    late = [r if r.number <= 120 else dataclasses.replace(
        r, sent=r.sent + hole, ended=r.ended + hole, arrivals=tuple(a + hole for a in r.arrivals)) for r in replies]  # fmt: skip
    broken = LongRun(result_of(whole.found.shape, late, Watch()), None)
    assert "no token came for" in measurements.steady(Made(long=broken)).broken
    lost = result_of(Shape(2, 1, 8, TOKENS), [reply(0), reply(1, kind="closed")], Watch())
    assert "the first: closed: in words" in measurements.steady(Made(long=LongRun(lost, None))).broken


def held(each, count=240, readings=60):
    ends = sorted(r.ended for r in long(count=count).found.replies)
    times = np.linspace(ends[0], ends[-1], readings).astype(int)
    return Watched(list(times), [int(1e9 + each * np.searchsorted(ends, t)) for t in times])


@pytest.mark.parametrize("each", [0, 1024, 256 * 1024])
def test_what_each_request_leaves_behind(each):
    found = measurements.memory(Made(long=long(held=held(each))))
    assert found.value == pytest.approx(each / 1024, rel=1e-3)
    assert found.n == 8


def test_memory_that_is_not_known_or_was_read_too_seldom():
    assert measurements.memory(Made(long=long())).broken == "the server's processes are not known"
    assert "readings of memory" in measurements.memory(Made(long=long(held=held(0, readings=6)))).broken


def test_a_server_that_dies_holds_less_and_has_not_passed():
    lost = result_of(Shape(2, 1, 8, TOKENS), [reply(0), reply(1, kind="closed")], Watch())
    assert "the first: closed: in words" in measurements.memory(Made(long=LongRun(lost, held(0)))).broken


def test_every_session_asks_other_prompts_and_asks_again_what_it_asked(monkeypatch):
    asked = []

    def kept(_url, _model, shape, **_):
        asked.append(shape)
        return loop(places=1)

    monkeypatch.setattr("pytest_npuconf.speed.bench.load", kept)
    served = SimpleNamespace(url="u", model="m", processes=set)
    monkeypatch.setattr("pytest_npuconf.speed.bench.REST", 0.0)
    for _ in range(2):
        runs = SpeedRuns(served, Speed(rounds=3, concurrency=4, long_run_seconds=0.001), CpuDevice(), 1.0, Progress())
        runs.measured(), runs.alone(), runs.again(), runs.long_run()
    first, second = asked[:7], asked[7:]
    assert not {shape.seed for shape in first} & {shape.seed for shape in second}
    assert [shape.requests for shape in first[:4]] == [4, 16, 16, 16], "the warm-up is no part of a round"
    assert first[4] == dataclasses.replace(first[5], warmup=1), "the same requests again"
    assert first[6].requests == 18 * 4, "enough waves of slow answers too"


def test_the_memory_of_a_real_process():
    code = (
        "import sys,time\nkept=[]\nfor _ in range(20):\n kept.append(b'1'*(1<<20)); time.sleep(0.1)\nsys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        with Watching(held_by({process.pid}, CpuDevice())) as found:
            time.sleep(2.5)
        now = resident({process.pid})
        process.communicate(b"")
    assert now - found.held[0] == pytest.approx(20 * 2**20, rel=0.5)
    assert found.held == sorted(found.held)
    assert resident({process.pid}) == 0, "it has ended"


def test_an_error_while_memory_is_read_is_raised():
    def read():
        raise RuntimeError("no device")

    with pytest.raises(RuntimeError, match="no device"), Watching(read):
        time.sleep(0.1)


def test_memory_of_a_device_counts_too():
    device = SimpleNamespace(name="npu", memory=lambda: SimpleNamespace(total=100, free=40))
    assert held_by(set(), device)() == 60


# the start


def test_seconds_of_the_start():
    log = "INFO Loading weights took 1.25 seconds\nINFO init engine (profile, create kv cache, warmup model) took 2.50 s\n"
    found = measurements.start(log, 9.0)
    assert found.data["statistics"] == {"load_s": 1.25, "init_s": 2.5, "start_s": 9.0}
    assert measurements.start("", 9.0).data["statistics"] == {"start_s": 9.0}
