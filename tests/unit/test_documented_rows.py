"""No documented row is missing: each has its claims in its card with every number, and the audits' arithmetic is redone."""

from __future__ import annotations

import ast
import collections
import dataclasses
import functools
import itertools
import math
import operator
import re
import shutil
import statistics
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import pytest

from pytest_npuconf.cards import find_card, load_card
from pytest_npuconf.cards.loading import validate_names
from pytest_npuconf.cards.schema import Card, Claim
from pytest_npuconf.cards.toml_reader import read_toml
from pytest_npuconf.checks import known_names
from pytest_npuconf.gates import Role

ROOT = Path(__file__).resolve().parents[2]
ROWS = read_toml(Path(__file__).with_name("documented_rows.toml")).data["rows"]
CARDS = {name: find_card(name) for name in dict.fromkeys(row["card"] for row in ROWS)}
CLAIMS = [pytest.param(card, claim, id=f"{name}-{claim.id}") for name, card in CARDS.items() for claim in card.claims]

_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_VERSION = re.compile(r"\d+(?:\.\d+)+(?:rc\d+)?")
# a card states fractions and plain counts where a check answers: the document writes per cent, millions, billions
_SCALES = (1.0, 100.0, 1e-6, 1e-9)


# ---------------------------------------------------------------- the checker


@functools.cache
def numbers_in(text: str) -> frozenset[float]:
    """Every number that stands in a text; ``1,319`` is one, ``1-3 %`` and ``20,15,10`` are two and three."""
    return frozenset(float(found.replace(",", "")) for found in _NUMBER.findall(text))


def leaves(value: Any) -> Iterator[Any]:
    """The values inside lists and tables, and a value that is neither as it stands."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def lists(value: Any) -> Iterator[list[Any]]:
    """Every list, and every table as the list of its values."""
    if isinstance(value, (dict, list)):
        inner = list(value.values()) if isinstance(value, dict) else value
        yield inner
        for each in inner:
            yield from lists(each)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def held(number: float, among: Set[float]) -> bool:
    return number in among or any(math.isclose(number, each, rel_tol=1e-9) for each in among)


def problems_of_row(row: dict[str, Any], card: Card) -> list[str]:
    """What the card lacks of one documented row; nothing when the row is whole."""
    claims = {claim.id: claim for claim in card.claims}
    found = [
        f"no claim {i}, nor any that begins with {i}."
        for i in row["ids"]
        if not any(c == i or c.startswith(f"{i}.") for c in claims)
    ]
    found += [f"claim {i} is missing" for i in row["claims"] if i not in claims]
    mine = [claims[i] for i in row["claims"] if i in claims]
    stated = set().union(
        *(numbers_in(c.documented) | {float(v) for v in leaves(c.value) if is_number(v)} for c in mine)
    )
    found += [f"{number} is in no claim" for number in row.get("numbers", ()) if not held(number, stated)]
    words = "\n".join(
        part for c in mine for part in (c.documented, *(v for v in leaves(c.value) if isinstance(v, str)))
    )
    found += [f"{text!r} is in no claim" for text in row.get("texts", ()) if text not in words]
    extents = {len(each) for c in mine for each in lists(c.value)}
    found += [f"no list of {length} in any claim" for length in row.get("lengths", ()) if length not in extents]
    return found + [problem for c in mine for problem in problems_of_claim(c)]


def problems_of_claim(claim: Claim) -> list[str]:
    """Numbers and versions of ``value`` that neither the quoted words nor the audit have."""
    written = numbers_in(claim.documented) | numbers_in(claim.audit)
    found = [
        f"{claim.id}: {value} is neither quoted nor audited"
        for value in leaves(claim.value)
        if is_number(value) and not any(held(value * scale, written) for scale in _SCALES)
    ]
    return found + [
        f"{claim.id}: {value!r} is not quoted"
        for value in leaves(claim.value)
        if isinstance(value, str) and _VERSION.fullmatch(value) and value not in claim.documented
    ]


def problems(card: Card) -> list[str]:
    """What the card lacks of all rows that are its own."""
    return [p for row in ROWS if row["card"] == card.name for p in problems_of_row(row, card)]


# ---------------------------------------------------------------- the rows and the cards


def test_every_row_of_every_document_is_listed():
    rows = {(row["seed"], row["row"]) for row in ROWS}
    assert collections.Counter(seed for seed, _ in rows) == {"000": 16, "001": 8, "002": 10, "003": 13}
    assert len(CARDS) == 9


@pytest.mark.parametrize(
    "row", [pytest.param(r, id=f"{r['seed']}-{r['row']}-{r['card']}".replace(" ", "")) for r in ROWS]
)
def test_every_row_is_in_its_card(row):
    assert problems_of_row(row, CARDS[row["card"]]) == []


@pytest.mark.parametrize("name", CARDS)
def test_every_claim_belongs_to_one_row(name):
    listed = [claim for row in ROWS if row["card"] == name for claim in row["claims"]]
    assert sorted(listed) == sorted(claim.id for claim in CARDS[name].claims)


@pytest.mark.parametrize("name", CARDS)
def test_every_card_names_only_known_checks(name):
    validate_names(CARDS[name], known_names(), ("transformers", "vllm", "server"))
    assert CARDS[name].kind == "model"


@pytest.mark.parametrize(("card", "claim"), CLAIMS)
def test_every_claim_says_where_why_and_what_was_found(card, claim):
    assert re.match(r"seed 00[0-3], \S", claim.source)
    assert claim.audit.strip()
    assert claim.role is Role.CLAIM
    assert claim.gate_stated
    assert claim.reason.strip()
    assert (claim.gate is None) or claim.gate_stated != "none"
    seeds = {row["seed"] for row in ROWS if row["card"] == card.name and claim.id in row["claims"]}
    assert seeds == {claim.source[5:8]}


def test_nothing_names_the_place_where_it_was_written():
    files = [CARDS[name].path for name in CARDS] + [Path(__file__).with_name("documented_rows.toml"), Path(__file__)]
    places = {str(place) for place in (ROOT, ROOT.parent, Path.home()) if len(place.parts) > 1}
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not [place for place in places if f"{place}/" in text], file
        pages = re.findall(r"[\w./-]+\.md\b", text)
        assert not [page for page in pages if not any((ROOT / f / page).is_file() for f in (".", "docs"))], file


def test_the_ten_lines_of_the_cards_page_are_a_card(tmp_path):
    page = (ROOT / "docs" / "cards.md").read_text(encoding="utf-8")
    block = re.search(r"^```toml\n(.*?)^```", page, re.M | re.S).group(1)
    assert len(block.splitlines()) == 10
    (tmp_path / "card.toml").write_text(block, encoding="utf-8")
    card = load_card(tmp_path / "card.toml")
    assert (card.weights.path, card.parameters) == (tmp_path / "weights", MEM_AGENT)


def test_the_cards_page_names_every_statistic():
    page = (ROOT / "docs" / "cards.md").read_text(encoding="utf-8")
    asked = {claim.statistic for card in CARDS.values() for claim in card.claims if claim.statistic}
    assert [name for name in sorted(asked) if f"`{name}`" not in page] == []


# ---------------------------------------------------------------- that it can fail


def changed(claim: Claim, old: Any, new: Any) -> Claim:
    def swap(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: swap(each) for key, each in value.items()}
        if isinstance(value, list):
            return [swap(each) for each in value]
        return new if is_number(value) and value == old else value

    return dataclasses.replace(claim, value=swap(claim.value))


def with_claims(card: Card, claims: list[Claim]) -> Card:
    return dataclasses.replace(card, claims=tuple(claims))


ROWS_OF = {(row["card"], claim): row for row in ROWS for claim in row["claims"]}


@pytest.mark.parametrize("name", CARDS)
def test_any_claim_that_is_deleted_is_missed(name):
    card = CARDS[name]
    for gone in card.claims:
        less = with_claims(card, [c for c in card.claims if c is not gone])
        assert f"claim {gone.id} is missing" in problems_of_row(ROWS_OF[name, gone.id], less)


@pytest.mark.parametrize("name", CARDS)
def test_any_number_that_is_changed_is_noticed(name):
    card = CARDS[name]
    for claim in card.claims:
        for number in {v for v in leaves(claim.value) if is_number(v)}:
            wrong = changed(claim, number, number * 1.7307 + 0.000123)
            assert problems_of_claim(wrong), (claim.id, number)


@pytest.mark.parametrize("name", CARDS)
def test_any_number_of_a_row_that_is_deleted_is_missed(name):
    """Deleted from the values and from the quoted words of every claim of its row."""
    card = CARDS[name]
    for row, number in ((r, n) for r in ROWS if r["card"] == name for n in r.get("numbers", ())):
        less = [without(c, number) if c.id in row["claims"] else c for c in card.claims]
        assert f"{number} is in no claim" in problems_of_row(row, with_claims(card, less))


def without(claim: Claim, number: float) -> Claim:
    def cut(found: re.Match[str]) -> str:
        return "" if math.isclose(float(found[0].replace(",", "")), number, rel_tol=1e-9) else found[0]

    return dataclasses.replace(changed(claim, number, None), documented=_NUMBER.sub(cut, claim.documented))


@pytest.mark.parametrize("name", CARDS)
def test_any_text_of_a_row_that_is_deleted_is_missed(name):
    card = CARDS[name]
    for row, text in ((r, t) for r in ROWS if r["card"] == name for t in r.get("texts", ())):
        less = [dataclasses.replace(c, documented=c.documented.replace(text, "")) for c in card.claims]
        less = [dataclasses.replace(c, value=None) if text in leaves(c.value) else c for c in less]
        less = [dataclasses.replace(c, value=None) if any(text in str(v) for v in leaves(c.value)) else c for c in less]
        assert f"{text!r} is in no claim" in problems_of_row(row, with_claims(card, less))


@pytest.mark.parametrize(
    ("old", "new", "missed"),
    [
        ('id = "perf.tpot"', 'id = "another"', "claim perf.tpot is missing"),
        ("value = 234.59", "value = 234.95", "perf.throughput: 234.95 is neither quoted nor audited"),
        ('value = "8.5.1"', 'value = "8.5.0"', "env.cann: '8.5.0' is not quoted"),
        ("| 3.6263 |", "| 3.6262 |", "ppl.bf16_fp32: 3.6263 is neither quoted nor audited"),
        ("3.6263", "3.6262", "3.6263 is in no claim"),
        ("0.999915, ", "", "no list of 4 in any claim"),
    ],
)
def test_a_card_on_the_disk_that_was_edited_is_caught(tmp_path, old, new, missed):
    path = Path(shutil.copy(CARDS["mem-agent"].path, tmp_path / "card.toml"))
    assert problems(load_card(path)) == []
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert missed in problems(load_card(path))


def test_numbers_are_read_as_people_write_them():
    assert numbers_in("约45分钟, 3.96B(4B), 151,669 and 1e-6, 4.86e-06; 1-3 %") == {
        45,
        3.96,
        4,
        151669,
        1e-6,
        4.86e-6,
        1,
        3,
    }
    assert numbers_in("20,15,10 | -2.65 | 46.77 GiB (340,480 tokens)") == {20, 15, 10, -2.65, 46.77, 340480}
    assert numbers_in("w4a16 bf16 int4 e5 0.99998.") == {0.99998}


# ---------------------------------------------------------------- the arithmetic of the audits


def decoder(vocab, hidden, layers, heads, kv_heads, head_dim, inner, *, matrices=1, qk_norm=True, bias=False):
    """Parameters of a decoder with gated feed-forward, and those outside of its embedding matrices."""
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    extras = 2 * hidden + (2 * head_dim if qk_norm else 0) + ((heads + 2 * kv_heads) * head_dim if bias else 0)
    inside = layers * (attention + 3 * hidden * inner + extras) + hidden
    return inside + matrices * vocab * hidden, inside


def kv_bytes(layers, kv_heads, head_dim, width=2.0):
    return 2 * layers * kv_heads * head_dim * width


RERANKER, RERANKER_INSIDE = decoder(151669, 1024, 28, 16, 8, 128, 3072)
MEM_AGENT, MEM_AGENT_INSIDE = decoder(151936, 2560, 36, 32, 8, 128, 9728)
QWEN3_8B, _ = decoder(151936, 4096, 36, 32, 8, 128, 12288, matrices=2)
R1_DISTILL, _ = decoder(151936, 1536, 28, 12, 2, 128, 8960, matrices=2, qk_norm=False, bias=True)
YUANMENG, _ = decoder(6400, 512, 8, 8, 2, 64, 1408, qk_norm=False)

# Qwen3-8B by bitsandbytes: the layers' matrices, a float32 for each row (int8), or blocks of 64 with their scales (nf4)
MATRICES = 36 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12288)
MATRIX_ROWS = 36 * (2 * 4096 + 2 * 1024 + 2 * 12288 + 4096)
REST = 2 * (QWEN3_8B - MATRICES)
INT8 = MATRICES + 4 * MATRIX_ROWS + REST
NF4 = MATRICES / 2 + MATRICES / 64 + MATRICES / 64 / 256 * 4 + REST

# yuanmeng-26m by AWQ in groups of 128
EMBEDDING, NORMS = 6400 * 512, 17 * 512
AWQ = (YUANMENG - EMBEDDING - NORMS) * (0.5 + 2 / 128 + 0.5 / 128) + 2 * (EMBEDDING + NORMS)

BF16 = [[7.2350, 3.7309, 3.6305, 2.8687, 10.7288, 19.3027], [7.1390, 3.8325, 3.6263, 2.9288, 10.5226, 19.1992]]
FP32 = [
    [35.9834, 36.4175, 35.6297, 21.5204, 72.2140, 536.4274],
    [35.9821, 36.4169, 35.6287, 21.5197, 72.2117, 536.4046],
]


def deltas(columns):
    return [100 * (npu / cpu - 1) for npu, cpu in zip(*columns, strict=True)]


def mean_delta(columns):
    return statistics.mean(map(abs, deltas(columns)))


def ratio_of_means(columns):
    return 100 * (sum(columns[0]) / sum(columns[1]) - 1)


def mean_of(card, claim):
    return statistics.mean(next(c for c in CARDS[card].claims if c.id == claim).value)


def false_alarms(score, items, points):
    """Share of healthy pairs of runs whose scores differ by more than ``points``, unpaired."""
    spread = math.sqrt(2 * score * (1 - score) / items)
    return 2 * (1 - statistics.NormalDist().cdf(points / spread)), 100 * spread


def derivative(f, x, h=1e-5):
    return (f(x + h) - f(x - h)) / (2 * h)


CENTRAL = derivative(lambda x: x * math.log(x), math.pi)
EXACT = math.log(math.pi) + 1

# card, claim, what its audit says, and the same recomputed
AUDITS = [
    ("mem-agent", "logits.cosine", "0.99996325", statistics.mean([0.999989, 0.999963, 0.999915, 0.999986])),
    ("mem-agent", "logits.rel_err", "2.4275", statistics.mean([0.79, 2.71, 5.10, 1.11])),
    ("mem-agent", "ppl.bf16_fp32", "-0.12", statistics.mean(deltas(BF16))),
    ("mem-agent", "ppl.bf16_fp32.mean", "1.444", mean_delta(BF16)),
    ("mem-agent", "ppl.bf16_fp32.mean", "0.53", ratio_of_means(BF16)),
    ("mem-agent", "ppl.bf16_fp32.mean_ppl", "7.91610", statistics.mean(BF16[0])),
    ("mem-agent", "ppl.bf16_fp32.mean_ppl", "7.87473", statistics.mean(BF16[1])),
    ("mem-agent", "ppl.bf16_fp32.max", "2.651", max(map(abs, deltas(BF16)))),
    ("mem-agent", "ppl.bf16_fp32.median", "5.48295", statistics.median(BF16[0])),
    ("mem-agent", "ppl.bf16_fp32.median", "5.48575", statistics.median(BF16[1])),
    ("mem-agent", "ppl.bf16_fp32.median", "1.652", statistics.median(map(abs, deltas(BF16)))),
    ("mem-agent", "ppl.bf16_fp32.median", "0.05", 100 * (5.4858 / 5.4830 - 1)),
    ("mem-agent", "ppl.fp32_fp32", "27.9", max(a / b for a, b in zip(FP32[1], BF16[1], strict=True))),
    ("mem-agent", "ppl.fp32_fp32", "5.0", min(a / b for a, b in zip(FP32[1], BF16[1], strict=True))),
    ("mem-agent", "ppl.fp32_fp32.mean", "0.0039", ratio_of_means(FP32)),
    ("mem-agent", "ppl.fp32_fp32.mean", "0.0031", mean_delta(FP32)),
    ("mem-agent", "ppl.fp32_fp32.mean_ppl", "123.03207", statistics.mean(FP32[0])),
    ("mem-agent", "ppl.fp32_fp32.mean_ppl", "123.02728", statistics.mean(FP32[1])),
    ("mem-agent", "ppl.fp32_fp32.max", "0.0043", max(deltas(FP32))),
    ("mem-agent", "gsm8k.gate", "1.78", false_alarms(0.703, 1319, 0.02)[1]),
    ("mem-agent", "perf.throughput", "4.263", 1000 / 234.59),
    ("mem-agent", "perf.throughput", "0.5456", 128 / 234.59),
    ("mem-agent", "perf.throughput", "5.46", 10 * 128 / 234.59),
    ("mem-agent", "perf.throughput", "42.6", 10 * 1000 / 234.59),
    ("mem-agent", "perf.tpot", "8.045", 2 * MEM_AGENT / 1e9),
    ("mem-agent", "perf.tpot", "5.03", 2 * MEM_AGENT / 1.6e12 * 1000),
    ("mem-agent", "perf.load_time", "3.3", 2 * MEM_AGENT / 1e9 / 2.44),
    ("mem-agent", "kv.tokens", "147,456", kv_bytes(36, 8, 128)),
    ("mem-agent", "kv.tokens", "340,568", math.floor(46.77 * 2**30 / kv_bytes(36, 8, 128))),
    ("mem-agent", "kv.tokens", "2,660", math.floor(46.77 * 2**30 / kv_bytes(36, 8, 128) / 128)),
    ("mem-agent", "kv.tokens", "340,480", 2660 * 128),
    ("mem-agent", "params.total", "4,022,468,096", MEM_AGENT),
    ("mem-agent", "params.total", "3,633,511,936", MEM_AGENT_INSIDE),
    ("mem-agent", "params.total", "1.6", 100 * (MEM_AGENT / 3.96e9 - 1)),
    ("mem-agent", "params.tie_word_embeddings", "388,956,160", 151936 * 2560),
    ("mem-agent", "config.max_position_embeddings", "64", 262144 / 4096),
    ("mem-agent", "env.tested.npu_memory", "50.2", 46.77 * 2**30 / 1e9),
    ("mem-agent", "env.tested.npu_memory", "58.3", (46.77 * 2**30 + 2 * MEM_AGENT) / 1e9),
    ("mem-agent", "env.tested.npu_memory", "0.885", (46.77 * 2**30 + 2 * MEM_AGENT) / 65.8e9),
    ("mem-agent", "env.npu_memory", "9.7", 65536 * kv_bytes(36, 8, 128) / 1e9),
    ("mem-agent", "env.memory", "16.1", 4 * MEM_AGENT / 1e9),
    ("mem-agent", "serve.max_model_len", "16", 65536 / 4096),
    ("qwen3-reranker-0.6b", "hidden.mae", "4.8625e-6", mean_of("qwen3-reranker-0.6b", "hidden.mae.rows")),
    ("qwen3-reranker-0.6b", "hidden.rmse", "7.18375e-6", mean_of("qwen3-reranker-0.6b", "hidden.rmse.rows")),
    ("qwen3-reranker-0.6b", "hidden.mean_rel", "0.00295", mean_of("qwen3-reranker-0.6b", "hidden.mean_rel.rows")),
    ("qwen3-reranker-0.6b", "hidden.max_rel", "1.35875", mean_of("qwen3-reranker-0.6b", "hidden.max_rel.rows")),
    ("qwen3-reranker-0.6b", "hidden.max_rel.explanation", "54500", 100 * 5.45e-6 / 1e-8),
    ("qwen3-reranker-0.6b", "hidden.max_rel.explanation", "9e-5", 5.45e-6 / 0.0592),
    ("qwen3-reranker-0.6b", "hidden.max_rel.active", "0.49", 100 * 4.86e-6 / 1e-3),
    ("qwen3-reranker-0.6b", "hidden.max_rel.active", "0.0486", 4.86e-6 / 1e-4),
    ("qwen3-reranker-0.6b", "rerank.order", "0.044", 0.862 - 0.818),
    ("qwen3-reranker-0.6b", "capacity.weights", "1.1916", 2 * RERANKER / 1e9),
    ("qwen3-reranker-0.6b", "capacity.weights", "1.1097", 2 * RERANKER / 2**30),
    ("qwen3-reranker-0.6b", "capacity.kv_tokens", "114,688", kv_bytes(28, 8, 128)),
    ("qwen3-reranker-0.6b", "capacity.kv_tokens", "1,241", 158848 / 128),
    ("qwen3-reranker-0.6b", "capacity.kv_tokens", "16.97", 158848 * kv_bytes(28, 8, 128) / 2**30),
    ("qwen3-reranker-0.6b", "capacity.kv_tokens", "18.08", (158848 * kv_bytes(28, 8, 128) + 2 * RERANKER) / 2**30),
    ("qwen3-reranker-0.6b", "capacity.kv_tokens", "19.2", 0.3 * 64),
    ("qwen3-reranker-0.6b", "capacity.kv_tokens", "17.88", 0.3 * 64e9 / 2**30),
    ("qwen3-reranker-0.6b", "capacity.concurrency", "38.78", 158848 / 4096),
    ("qwen3-reranker-0.6b", "config.parameters", "595,776,512", RERANKER),
    ("qwen3-reranker-0.6b", "config.parameters", "440,467,456", RERANKER_INSIDE),
    ("qwen3-reranker-0.6b", "config.tie_word_embeddings", "1.50", 2 * (RERANKER + 151669 * 1024) / 1e9),
    ("qwen3-reranker-0.6b", "config.vocab_size", "267", 151936 - 151669),
    ("qwen3-8b", "footprint.memory.float16", "8,190,735,360", QWEN3_8B),
    ("qwen3-8b", "footprint.memory.float16", "15.26", 2 * QWEN3_8B / 2**30),
    ("qwen3-8b", "footprint.memory.int8", "6,945,767,424", MATRICES),
    ("qwen3-8b", "footprint.memory.int8", "1,400,832", MATRIX_ROWS),
    ("qwen3-8b", "footprint.memory.int8", "8.79", INT8 / 2**30),
    ("qwen3-8b", "footprint.memory.int4", "5.66", NF4 / 2**30),
    ("qwen3-8b", "footprint.ratio", "0.576", INT8 / (2 * QWEN3_8B)),
    ("qwen3-8b", "footprint.ratio", "0.371", NF4 / (2 * QWEN3_8B)),
    ("qwen3-8b", "judge.tasks", "1.9", 2.7764 * 1.5 / math.sqrt(5)),
    ("deepseek-r1-distill-qwen-1.5b", "distill.answers.path", "30", (8 + 2) * (5 + 2) - 8 * 5),
    ("deepseek-r1-distill-qwen-1.5b", "distill.answers.path", "29.1", 2 * (8 + 5) + math.pi),
    ("deepseek-r1-distill-qwen-1.5b", "distill.chain", "396", 120 + 120 * 1.2 + (120 + 120 * 1.2) / 2),
    ("deepseek-r1-distill-qwen-1.5b", "distill.parameters", "1,777,088,000", R1_DISTILL),
    ("deepseek-r1-distill-qwen-1.5b", "distill.parameters", "1,543,714,304", R1_DISTILL - 151936 * 1536),
    ("deepseek-r1-distill-qwen-1.5b", "distill.memory", "3.31", 2 * R1_DISTILL / 2**30),
    ("qwen3-1.7b", "tools.calculator", "86", (15 + 27) * 3 - 40),
    ("qwen3-0.6b", "tools.calculator", "86", (15 + 27) * 3 - 40),
    ("qwen3-1.7b", "tools.area", "78.53975", 3.14159 * 5 * 5),
    ("yuanmeng-26m", "tokenizer.vocabulary", "8.764", math.log(6400)),
    ("yuanmeng-26m", "params", "25,829,888", YUANMENG),
    ("yuanmeng-26m", "pretrain.loss.start", "8.764", math.log(6400)),
    ("yuanmeng-26m", "pretrain.loss.start", "8.931", math.log(6400) + 1 / 6),
    ("yuanmeng-26m", "pretrain.loss", "1.4", 100 * 600 / 44160),
    ("yuanmeng-26m", "pretrain.time", "18", 44160 / 40 / 60),
    ("yuanmeng-26m", "awq", "18.28", AWQ / 1e6),
    ("yuanmeng-26m", "awq", "51.66", 2 * YUANMENG / 1e6),
    ("yuanmeng-26m", "awq", "0.354", AWQ / (2 * YUANMENG)),
    ("yuanmeng-26m", "awq", "0.481", (AWQ + 2 * EMBEDDING) / (2 * YUANMENG)),
    ("yuanmeng-26m", "kv_cache", "4096", kv_bytes(8, 2, 64, 2)),
    ("yuanmeng-26m", "kv_cache", "2048", kv_bytes(8, 2, 64, 1)),
    ("yuanmeng-26m", "kv_cache", "1024", kv_bytes(8, 2, 64, 0.5)),
    ("internlm3-8b-instruct-awq", "codeact.result", "2.1447298858494", EXACT),
    ("internlm3-8b-instruct-awq", "codeact.result", "4.0e-11", CENTRAL - EXACT),
    ("internlm3-8b-instruct-awq", "codeact.tool", "1.7e-12", 1e-10 / 6 / math.pi**2),
]


@pytest.mark.parametrize(("card", "claim", "said", "value"), AUDITS, ids=[f"{a[0]}-{a[1]}-{a[2]}" for a in AUDITS])
def test_an_audit_says_what_a_computation_gives(card, claim, said, value):
    audit = next(c.audit for c in CARDS[card].claims if c.id == claim)
    assert re.search(rf"(?<![\d.,]){re.escape(said)}(?!\d|[.,]\d)", audit)
    mantissa, _, exponent = said.replace(",", "").partition("e")
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
    assert abs(value - float(said.replace(",", ""))) <= 0.5000001 * 10**-decimals


def test_counts_that_the_cards_state_follow_from_their_configs():
    assert (CARDS["mem-agent"].parameters, CARDS["qwen3-reranker-0.6b"].parameters) == (MEM_AGENT, RERANKER)
    assert MEM_AGENT == 4_022_468_096
    assert RERANKER == 595_776_512
    for name, head_dim in (("mem-agent", 128), ("qwen3-reranker-0.6b", 128)):
        config = CARDS[name].config
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        counted, _ = decoder(*(config[key] for key in sizes), head_dim, config["intermediate_size"])
        assert counted == CARDS[name].parameters


def test_four_of_four_shows_no_more_than_47_percent():
    audit = next(c for c in CARDS["mem-agent"].claims if c.id == "token.match").reason
    assert f"{100 * 0.05**0.25:.0f} %" in audit
    assert f"{100 * 0.025**0.25:.0f} % two-sided" in audit


def test_two_points_of_1319_problems_alarm_falsely_in_26_percent():
    reason = next(c for c in CARDS["mem-agent"].claims if c.id == "gsm8k.gate").reason
    assert f"{100 * false_alarms(0.703, 1319, 0.02)[0]:.0f} %" in reason


@pytest.mark.parametrize(("columns", "claim", "digits"), [(BF16, "ppl.bf16_fp32", 2), (FP32, "ppl.fp32_fp32", 4)])
def test_every_delta_of_the_perplexity_tables_agrees_with_its_row(columns, claim, digits):
    stated = next(c for c in CARDS["mem-agent"].claims if c.id == claim).value
    assert [stated["npu"], stated["cpu"]] == columns
    for found, delta in zip(deltas(columns), stated["delta"], strict=True):
        assert abs(abs(found) - delta) <= 0.51 * 10**-digits


def test_the_seven_learning_rates_are_the_formula_to_the_last_digit():
    stated = next(c for c in CARDS["yuanmeng-26m"].claims if c.id == "pretrain.learning_rate")
    formula = [5e-4 / 10 + 5e-4 / 2 * (1 + math.cos(math.pi * step / 44160)) for step in stated.value["steps"]]
    assert [f"lr:{rate:.12f}" for rate in formula] == stated.documented.split(" … ")
    assert [round(rate, 12) for rate in formula] == stated.value["rates"]


def test_the_first_loss_is_that_of_an_untrained_model():
    assert abs(8.968 - (math.log(6400) + 1 / 6)) < 0.1


def test_the_documented_derivative_is_its_own_central_difference():
    stated = next(c for c in CARDS["internlm3-8b-instruct-awq"].claims if c.id == "codeact.result")
    assert abs(stated.value - CENTRAL) < 1e-14
    assert abs(stated.value - EXACT) < stated.tolerance == 1e-9


def test_answer_keys_are_right_and_only_the_path_of_the_document_is_wrong():
    maths = next(c for c in CARDS["qwen3-8b"].claims if c.id == "quality.maths")
    assert maths.value == [15 - 3 + 7, (35 + 5) / 2, 120 * 3.5, 200 * 0.8 - 30, [2 * (12 + 8), 12 * 8]]
    distill = next(c for c in CARDS["deepseek-r1-distill-qwen-1.5b"].claims if c.id == "distill.answers")
    boxes = [45 // 3 + 5, 45 // 3, 45 // 3 - 5]
    path = (8 + 2) * (5 + 2) - 8 * 5
    right = [
        20 - 5 * 3,
        12 * 60,
        1 / (1 / 10 + 1 / 15),
        (24 / 4) ** 2,
        8 + 12,
        boxes,
        300 * 4 / 5 / 4,
        2**3 + 1,
        27 / 3,
        path,
    ]
    assert [pytest.approx(each) for each in right] == distill.value
    keys = re.findall(r'"answer": "?([\d,]+)', distill.documented)
    wrong = [
        (int(key.replace(",", "")), value)
        for key, value in zip(keys, distill.value, strict=True)
        if key != ",".join(map(str, leaves(value)))
    ]
    assert wrong == [(32, 30)]


@pytest.mark.parametrize("name", CARDS)
def test_sums_that_the_audits_write_out_are_right(name):
    """``A x B = C`` wherever an audit writes one."""
    for claim in CARDS[name].claims:
        for left, right, value, stated in sums_in(claim.audit):
            decimals = len(right.partition(".")[2]) if right.replace(".", "").isdigit() else 9
            assert abs(value - stated) <= 0.5000001 * 10**-decimals, (claim.id, left, right)


def test_sums_are_found_where_they_are_written():
    found = [found for card in CARDS.values() for claim in card.claims for found in sums_in(claim.audit)]
    assert len(found) >= 20
    assert [(f[2], f[3]) for f in sums_in("35 x 2 = 71, (2 + 8)/4 = 2.5 and 2(1 + 2) = 6 ms")] == [
        (70, 71),
        (2.5, 2.5),
        (6, 6),
    ]
    assert list(sums_in("ln 6400 = 8.764; 2^3 + 1 = 9; 1,024 bytes = 1 KiB; 26 + pi = 29.1; a = b")) == []


_SUM = frozenset("0123456789.,()+-x/ ")


def sums_in(text: str) -> Iterator[tuple[str, str, float, float]]:
    """Both sides of each ``=`` in a text that has a sum in figures on its left, and their values."""
    sides = text.split(" = ")
    for before, after in itertools.pairwise(sides):
        start = next((i for i in range(len(before), 0, -1) if before[i - 1] not in _SUM), 0)
        end = next((i for i, letter in enumerate(after) if letter not in _SUM), len(after))
        left = before[start:].rpartition(", ")[2].strip()
        right = after[:end].partition(", ")[0].strip(" ,.")
        if (start and before[start - 1] == "^") or not re.search(r"[-+x/]", left):
            continue
        value, stated = arithmetic(left), arithmetic(right)
        if value is not None and stated is not None:
            yield left, right, value, stated


def arithmetic(text: str) -> float | None:
    """The value of a sum as people write it, ``2(12 + 8) x 3.5``; None when it is not one."""
    source = re.sub(r"(?<=\d),(?=\d{3})", "", text).replace("x", "*")
    try:
        return _value(ast.parse(re.sub(r"(?<=\d)\(", "*(", source), mode="eval").body)
    except (SyntaxError, KeyError, AttributeError):
        return None


def _value(node: Any) -> float:
    if isinstance(node, ast.Constant):
        return node.value
    operators = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
    return operators[type(node.op)](_value(node.left), _value(node.right))
