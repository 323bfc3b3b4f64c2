"""What both clients said becomes figures, the rule judges them, and the table says so. No server, and no vLLM."""

import math
from types import SimpleNamespace

import pytest

from pytest_npuconf.load.server_metrics import ServerSide
from pytest_npuconf.metrics.interleaved import order_of
from tests.benchmarks import load_agreement, load_bias
from tests.benchmarks.load_agreement import (
    ours_of,
    ratio_agrees,
    ratio_of,
    rows_of,
    shape_at,
    table,
    ttft_agrees,
    vllms_of,
)

SHAPE = shape_at(1)
FOUND = {
    "completed": 16, "failed": 0, "output_throughput": 212.5, "mean_ttft_ms": 12.25, "mean_tpot_ms": 4.5,
    "input_lens": [32] * 15 + [33], "output_lens": [64] * 16,
}  # fmt: skip
SERVER = ServerSide(16, {"ttft": 8.0})
ROUND = {"throughput": 200.0, "ttft": 10.0, "tpot": 4.0, "outside": 2.0}


def rounds_of(order, **theirs):
    """Ours as ``ROUND``, theirs changed by a factor for each figure; each round a little apart from the others."""
    noise = [1 + 0.01 * (i % 3 - 1) for i in range(len(order))]
    return [
        {name: value * noise[i] * (theirs.get(name, 1.0) if letter == "B" else 1.0) for name, value in ROUND.items()}
        for i, letter in enumerate(order)
    ]


# ---------------------------------------------------------------- figures of a round


def test_what_vllms_client_wrote_becomes_figures():
    assert vllms_of(FOUND, SHAPE, SERVER) == {"throughput": 212.5, "ttft": 12.25, "tpot": 4.5, "outside": 4.25}
    with pytest.raises(SystemExit, match="/metrics say nothing"):
        vllms_of(FOUND, SHAPE, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"failed": 1}, "1 failed"),
        ({"completed": 15}, "15 of 16"),
        ({"output_lens": [64] * 15 + [63]}, r"answers of \[63\] tokens"),
        ({"input_lens": [34] * 16}, "prompts of 34.0 tokens"),
    ],
)
def test_another_shape_than_was_asked_is_no_figure(change, said):
    with pytest.raises(SystemExit, match=said):
        vllms_of({**FOUND, **change}, SHAPE, SERVER)


def test_seconds_of_our_client_are_milliseconds():
    spreads = {"ttft": SimpleNamespace(mean=0.010), "tpot": SimpleNamespace(mean=0.004)}
    found = SimpleNamespace(failures={}, throughput=200.0, spreads=spreads, server=SERVER)
    assert ours_of(found) == pytest.approx(ROUND)
    with pytest.raises(SystemExit, match="short"):
        ours_of(SimpleNamespace(failures={"short": 2}, throughput=200.0, spreads=spreads))


def test_requests_of_a_round():
    assert [shape_at(c).requests for c in (1, 2, 4, 10)] == [16, 16, 32, 80]
    assert shape_at(4, seed=3).seed == 3


# ---------------------------------------------------------------- the rule


def test_the_page_has_a_place_for_the_table():
    text = load_bias.PAGE.read_text(encoding="utf-8")
    begin, end = (text.index(mark) for mark in load_agreement.MARKS)
    assert begin < end < text.index("## In a test")


def test_the_ratio_is_theirs_over_ours_whatever_is_better():
    order = order_of(3)
    for name in ROUND:
        ratio, interval = ratio_of([r[name] for r in rounds_of(order, **{name: 1.1})], order)
        assert ratio == pytest.approx(1.1, rel=0.01)
        assert interval[0] < 1.1 < interval[1]


def test_the_interval_is_students_over_blocks():
    values = [1.0, 2.0, 2.0, 1.0, *(3.0, 1.0, 1.0, 3.0), *(1.0, 4.0, 4.0, 1.0)]
    ratio, interval = ratio_of(values, "ABBABAABABBA")
    logs = [math.log(2), math.log(3), math.log(4)]
    mean = sum(logs) / 3
    half = 4.302653 * math.sqrt(sum((x - mean) ** 2 for x in logs) / 2) / math.sqrt(3)
    assert ratio == pytest.approx(math.exp(mean))
    assert interval == pytest.approx((math.exp(mean - half), math.exp(mean + half)), rel=1e-6)


def test_one_block_has_a_ratio_and_no_interval():
    assert ratio_of([2.0, 3.0, 3.0, 2.0], "ABBA") == (pytest.approx(1.5), None)


@pytest.mark.parametrize(
    ("interval", "agrees"),
    [
        ((0.9, 1.1), True),
        ((0.99, 1.0), True),
        ((1.01, 1.2), True),
        ((1.05, 1.2), True),
        ((1.051, 1.2), False),
        ((0.8, 0.96), True),
        ((0.8, 0.949), False),
        (None, False),
    ],
)
def test_a_ratio_agrees_where_its_interval_comes_within_five_per_cent(interval, agrees):
    found, why = ratio_agrees(interval)
    assert found is agrees
    assert why.startswith("yes" if agrees else "no")


@pytest.mark.parametrize(
    ("ours", "theirs", "agrees"),
    [(2.0, 3.0, True), (2.0, 6.9, True), (2.0, 7.0, False), (9.0, 9.0, True), (9.0, 3.9, False)],
)
def test_ttft_agrees_where_both_see_as_much_outside_of_the_server(ours, theirs, agrees):
    found, why = ttft_agrees(ours, theirs)
    assert found is agrees
    assert why == f"{'yes' if agrees else 'no'}: outside of the server: {ours:+.2f} and {theirs:+.2f} ms"


def test_each_figure_is_judged_by_its_own_rule():
    order = order_of(3)
    same = rows_of(4, rounds_of(order), order)
    assert [(r.figure, r.agrees) for r in same] == [("throughput", True), ("ttft", True), ("tpot", True)]
    other = rows_of(4, rounds_of(order, ttft=4 / 3, tpot=4 / 3), order)
    assert [(r.figure, r.agrees) for r in other] == [("throughput", True), ("ttft", True), ("tpot", False)]
    assert [r.agrees for r in rows_of(4, rounds_of(order, outside=4.0), order)] == [True, False, True]


def test_medians_stand_in_the_table():
    order = order_of(3)
    rounds = rounds_of(order)
    rounds[0]["tpot"] = 400.0
    lines = table(rows_of(10, rounds, order)).splitlines()
    assert len(lines) == 5
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2].startswith("| 10 | output throughput | 200.00 tokens/s | 200.00 tokens/s | ")
    assert lines[4].startswith("| 10 | mean TPOT | 4.0")


def test_a_table_of_one_block_says_that_it_has_no_interval():
    order = order_of(1)
    assert "| none | no: one block has no interval |" in table(rows_of(1, rounds_of(order), order))


@pytest.mark.parametrize("words", [["--blocks", "1"], ["--at", "1"]])
def test_only_the_whole_form_is_written(words, capsys):
    with pytest.raises(SystemExit):
        load_agreement.main(["--write", *words])
    assert "measured in full" in capsys.readouterr().err
