"""The numeric audit rules: each finds a planted error in a small card, says nothing of the corrected one, and finds what
the documented cards get wrong. Their texts are not part of this repository: ``NPUCONF_SEEDS`` names their folder."""

from __future__ import annotations

import json
import math
import re
import time
from functools import cache

import pytest

from pytest_npuconf.audit import configuration as keys
from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.counting import Decoder, count_decoder, count_encoder, kv_bytes_per_token
from pytest_npuconf.audit.facts import read_facts
from pytest_npuconf.audit.findings import Level
from pytest_npuconf.audit.interval import Interval, around, mean, median
from pytest_npuconf.audit.numbers import numbers_in
from pytest_npuconf.audit.quantities import aggregate_of_row, read_name
from pytest_npuconf.audit.rules import RULES
from pytest_npuconf.audit.rules.precision import least_error, length_ratio
from pytest_npuconf.audit.text import parse_card
from tests.seeds import seed_or_skip

NUMERIC = (
    *("aggregate", "aggregate-switch", "overview", "repeated-quantity", "cosine-error", "parameters", "weight-size"),
    *("kv-bytes", "kv-capacity", "head-dim", "throughput", "roofline", "units"),
)
C, I, U, A = Level.CONTRADICTION, Level.IMPLAUSIBLE, Level.UNSUPPORTED, Level.AMBIGUOUS  # noqa: E741


def audit(text, config=None):
    """Findings of the numeric rules."""
    return list(_plain(text)) if config is None else list(_with(text, config))


@cache
def _plain(text):
    return _with(text, None)


def _with(text, config):
    context = Context(parse_card(text), config)
    return [finding for rule in NUMERIC for finding in RULES[rule].check(context)]


def loud(findings):
    return [f for f in findings if f.level.rank > A.rank]


PPL = """# 鹤-1B
## 困惑度 (NPU BF16 vs CPU FP32)

| 文本 | NPU PPL (BF16) | CPU PPL (FP32) | 差异 |
|---|---|---|---|
| 从前有一座高高的山 | 10.20 | 10.00 | 2.00% |
| 山里住着一个老和尚 | 20.10 | 20.00 | 0.50% |
| 和尚每天都在讲故事 | 30.30 | 30.00 | 1.00% |
| 平均 | 20.20 | 20.00 | 1.17% |
| 中位 | 20.10 | 20.00 | 1.00% |
"""
SECOND = """
## 困惑度 (NPU FP32 vs CPU FP32)

| 文本 | NPU PPL (FP32) | CPU PPL (FP32) | 差异 |
|---|---|---|---|
| 从前有一座高高的山 | 10.010 | 10.000 | 0.10% |
| 山里住着一个老和尚 | 20.004 | 20.000 | 0.02% |
| 和尚每天都在讲故事 | 30.090 | 30.000 | 0.30% |
| 平均 | 20.035 | 20.000 | 0.14% |
"""
SCORES = """# heron
| Task | NPU | GPU | Delta |
|---|---|---|---|
| one | 71.2 | 71.0 | +0.2 |
| two | 64.1 | 64.5 | -0.4 |
| three | 55.5 | 55.3 | +0.2 |
| four | 80.0 | 80.3 | -0.3 |
| Mean | 67.7 | 67.8 | -0.1 |
"""
OVERVIEW = """# crane
## 总览

| 指标 | NPU BF16 vs CPU FP32 |
|---|---|
| 余弦相似度 | 0.99994 |
| 平均相对误差 | 1.20% |

## Logits (NPU BF16 vs CPU FP32)

| 输入 | 余弦相似度 | 相对误差 |
|---|---|---|
| a b c | 0.99991 | 1.50% |
| d e f | 0.99996 | 1.00% |
| g h i | 0.99995 | 1.10% |
| 平均 | 0.99994 | 1.20% |

余弦相似度 > 0.9999 为通过。
"""
CONFIG = """# 鹭-4B
- 架构：Qwen3ForCausalLM
- 参数量：4.02B
- 精度：BF16
- 权重大小：8.04 GB

| 参数 | 值 |
|---|---|
| hidden_size | 2560 |
| intermediate_size | 9728 |
| num_attention_heads | 32 |
| num_key_value_heads | 8 |
| num_hidden_layers | 36 |
| head_dim | 128 |
| vocab_size | 151936 |
| tie_word_embeddings | true |

| 项目 | 值 |
|---|---|
| KV 缓存可用 | 46.77 GiB (340,480 tokens) |
| 每 token KV 字节 | 147,456 bytes |
| 最大并发请求 (4096 tokens) | 83 |
"""
MOE = """# Spoonbill-MoE
Architecture: Qwen3MoeForCausalLM, BF16.

- Total parameters: 30.5B
- Activated parameters: 3.35B

```json
{"architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
 "num_key_value_heads": 4, "head_dim": 128, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
 "vocab_size": 151936, "tie_word_embeddings": false}
```
"""
SPEED = """# stork-8B
Architecture: LlamaForCausalLM, one Ascend 910B3, BF16, 8.03B parameters.

## Performance

| Item | Value |
|---|---|
| Concurrency | 10 |
| Input length | 16 tokens |
| Output length | 128 tokens |
| Throughput | 500.0 tok/s |
| Mean latency | 2.56 s |
| TTFT | 0.10 s |
| TPOT | 19.4 ms |
"""
ERRORS = """# ibis
The relative error is the L2 norm of the difference over the L2 norm of the reference.

| Input | Cosine similarity | Relative L2 error | MAE | RMSE |
|---|---|---|---|---|
| one | 0.9990 | 5.0% | 1.0e-03 | 1.4e-03 |
| two | 0.9995 | 4.0% | 1.1e-03 | 1.5e-03 |
"""
PROSE = """# dunlin
Accuracy fell from 74.5 % to 73.8 %, a drop of 0.7 points. 171/400 (42.75 %) were right.

NPU MRR@10: 0.8127
CPU MRR@10: 0.8131
Difference: -0.0004

| Comparison | PPL difference | Causes |
|---|---|---|
| NPU BF16 vs CPU FP32 | 1.44% | rounding |

| Subject | Questions | Right | Accuracy |
|---|---|---|---|
| one | 350 | 262 | 74.9% |
| two | 250 | 141 | 56.4% |
| three | 400 | 338 | 84.5% |

Peak memory was 11.2 GB of the 32 GB that the card has.
"""
SIZES = """# egret
- Weights on disk: 6.17 GB (5.75 GiB)
- Perplexity: 7.12
- Throughput: 40 tok/s
"""


def change(text, *pairs):
    for old, new in pairs:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the card"
        text = text.replace(old, new)
    return text


CASES = {
    # name: (correct card, what is planted, rule, level, what the line of the finding holds)
    "mean-zh": (PPL, [("| 平均 | 20.20 |", "| 平均 | 20.90 |")], "aggregate", C, "平均"),
    "median-zh": (PPL, [("| 中位 | 20.10 |", "| 中位 | 30.30 |")], "aggregate", C, "中位"),
    "mean-outside": (PPL, [("20.00 | 1.17%", "20.00 | 3.17%")], "aggregate", C, "3.17%"),
    "delta-zh": (
        PPL + SECOND.replace("0.14%", "0.14%"),
        [("20.10 | 20.00 | 0.50%", "20.10 | 20.00 | 0.80%"), ("| 1.17% |", "| 1.27% |")],
        "aggregate",
        C,
        "0.80%",
    ),
    "delta-en": (SCORES, [("64.5 | -0.4", "64.5 | -0.9"), ("67.8 | -0.1", "67.8 | -0.2")], "aggregate", C, "-0.9"),
    "sign-en": (SCORES, [("71.0 | +0.2", "71.0 | -0.2"), ("67.8 | -0.1", "67.8 | -0.2")], "aggregate", C, "| one |"),
    "mean-en": (SCORES, [("| Mean | 67.7 | 67.8", "| Mean | 67.7 | 69.8")], "aggregate", C, "69.8"),
    "switch-zh": (PPL + SECOND, [("0.14%", "0.17%")], "aggregate-switch", C, "0.17%"),
    "overview-zh": (OVERVIEW, [("| 余弦相似度 | 0.99994 |", "| 余弦相似度 | 0.99985 |")], "overview", C, "0.99985"),
    "overview-mean-zh": (OVERVIEW, [("| 平均相对误差 | 1.20% |", "| 平均相对误差 | 0.80% |")], "overview", C, "0.80%"),
    "repeated-zh": (
        PPL + SECOND,
        [("20.004 | 20.000 | 0.02%", "40.008 | 40.000 | 0.02%"), ("20.035 | 20.000", "26.703 | 26.667")],
        "repeated-quantity",
        C,
        "40.008",
    ),
    "layers-zh": (
        CONFIG.replace("Qwen3ForCausalLM", "Qwen3ForCausalLM (Transformer，36 层)"),
        [("36 层", "28 层")],
        "repeated-quantity",
        C,
        "28 层",
    ),
    "twice-en": (
        MOE,
        [("Total parameters: 30.5B", "Total parameters: 30.5B\n- Total parameters: 35.5B")],
        "repeated-quantity",
        C,
        "35.5B",
    ),
    "cosine-en": (ERRORS, [("| one | 0.9990 | 5.0% |", "| one | 0.9990 | 2.0% |")], "cosine-error", C, "| one |"),
    "rmse-en": (ERRORS, [("1.1e-03 | 1.5e-03", "1.1e-03 | 0.9e-03")], "cosine-error", C, "| two |"),
    "parameters-zh": (CONFIG, [("参数量：4.02B", "参数量：3.96B")], "parameters", C, "3.96B"),
    "parameters-moe": (MOE, [("Total parameters: 30.5B", "Total parameters: 20.5B")], "parameters", C, "20.5B"),
    "active-moe": (MOE, [("parameters: 3.35B", "parameters: 5.35B")], "parameters", C, "5.35B"),
    "weights-zh": (CONFIG, [("8.04 GB", "6.04 GB")], "weight-size", C, "6.04 GB"),
    "weights-gib-zh": (CONFIG, [("8.04 GB", "7.49 GB")], "weight-size", A, "7.49 GB"),
    "kv-bytes-zh": (CONFIG, [("147,456 bytes", "73,728 bytes")], "kv-bytes", C, "73,728"),
    "kv-capacity-zh": (
        CONFIG,
        [("340,480 tokens", "440,448 tokens"), ("| 83 |", "| 107 |")],
        "kv-capacity",
        C,
        "440,448",
    ),
    "concurrency-zh": (CONFIG, [("| 83 |", "| 98 |")], "kv-capacity", C, "| 98 |"),
    "head-dim-wrong-zh": (CONFIG, [("| head_dim | 128 |", "| head_dim | 80 |")], "head-dim", C, "head_dim"),
    "head-dim-missing-zh": (CONFIG, [("| head_dim | 128 |\n", "")], "head-dim", U, "hidden_size"),
    "tpot-en": (SPEED, [("TPOT | 19.4 ms", "TPOT | 2.0 ms")], "throughput", C, "2.0 ms"),
    "latency-en": (SPEED, [("2.56 s", "0.256 s")], "throughput", C, "0.256 s"),
    "in-flight-en": (SPEED, [("2.56 s", "9.60 s"), ("19.4 ms", "74.8 ms")], "throughput", C, "9.60 s"),
    "first-token-en": (SPEED, [("TTFT | 0.10 s", "TTFT | 3.10 s")], "throughput", C, "3.10 s"),
    "roofline-en": (
        SPEED,
        [("TPOT | 19.4 ms", "TPOT | 8.1 ms"), ("2.56 s", "1.13 s"), ("500.0", "1132.0")],
        "roofline",
        I,
        "8.1 ms",
    ),
    "points-en": (PROSE, [("drop of 0.7", "drop of 1.7")], "aggregate", C, "1.7 points"),
    "k-of-n-en": (PROSE, [("42.75", "47.25")], "aggregate", C, "47.25"),
    "neighbours-en": (PROSE, [("-0.0004", "-0.0012")], "aggregate", C, "-0.0012"),
    "parts-en": (PROSE, [("| rounding |", "| BF16 (~0.24%) + hardware (~1.20%) |")], "aggregate", I, "hardware"),
    "share-en": (PROSE, [("56.4%", "59.4%")], "aggregate", C, "| two |"),
    "part-of-en": (PROSE, [("11.2 GB of", "11.2 TB of")], "units", C, "11.2 TB"),
    "both-units-en": (SIZES, [("5.75 GiB", "6.62 GiB")], "units", C, "6.62 GiB"),
    "ppl-below-one-en": (SIZES, [("Perplexity: 7.12", "Perplexity: 0.712")], "units", C, "0.712"),
    "wrong-unit-en": (SIZES, [("40 tok/s", "40 ms")], "units", C, "40 ms"),
    "thousand-en": (SPEED, [("19.4 ms", "20.0 s")], "units", C, "20.0 s"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_planted_error_is_found_with_its_level_and_line(name):
    card, planted, rule, level, inside = CASES[name]
    text = change(card, *planted)
    found = [f for f in audit(text) if f.rule == rule and inside in text.splitlines()[f.line - 1]]
    assert level in {f.level for f in found}, f"{rule} says {[(f.level.value, f.message) for f in found]}"
    told = next(f for f in found if f.level is level)
    assert told.message
    assert told.recomputed
    assert told.quote.strip() == text.splitlines()[told.line - 1].strip()


@pytest.mark.parametrize("card", [PPL, PPL + SECOND, SCORES, OVERVIEW, CONFIG, MOE, SPEED, ERRORS, PROSE, SIZES])
def test_the_correct_card_has_nothing_above_ambiguous(card):
    assert [(f.rule, f.line, f.message) for f in loud(audit(card))] == []


@pytest.mark.parametrize("card", [PPL, OVERVIEW, CONFIG, MOE, SPEED])
def test_what_agrees_is_said_to_agree(card):
    assert any(f.level is Level.FINE for f in audit(card))


def test_a_config_beside_the_card_is_believed_before_the_card():
    text = change(CONFIG, ("| num_hidden_layers | 36 |", "| num_hidden_layers | 30 |"))
    config = {"hidden_size": 2560, "num_hidden_layers": 36, "head_dim": 128}
    found = [f for f in audit(text, config) if f.rule == "repeated-quantity" and f.level is C]
    assert "num_hidden_layers is 30, config.json has 36" in [f.message for f in found]
    assert not [f for f in audit(text, config) if f.rule == "parameters" and f.level.rank > A.rank]


@pytest.mark.parametrize(
    "text",
    [
        # a weighted mean, with the weights
        "| Task | Samples | Accuracy |\n|---|---|---|\n| a | 900 | 80.0% |\n| b | 100 | 60.0% |\n| Mean | 1000 | 78.0% |\n",
        # rows that are left out
        "| 科目 | 得分 |\n|---|---|\n| 甲 | 40.1 |\n| 乙 | 60.2 |\n| …… | |\n| 平均 | 57.7 |\n",
        # means by block
        "| x | y ms |\n|---|---|\n| a | 1.0 |\n| b | 3.0 |\n| mean | 2.0 |\n| c | 5.0 |\n| d | 9.0 |\n| mean | 7.0 |\n",
        # a name of a class: Qwen2.5-7B has 7.6 billion
        "Qwen2ForCausalLM\n\n- 参数量：7B\n- hidden_size：3584\n- intermediate_size：18944\n- num_hidden_layers：28\n"
        "- num_attention_heads：28\n- num_key_value_heads：4\n- vocab_size：152064\n- tie_word_embeddings：false\n",
        # a latency of one request among many, at most so many tokens
        "| Item | Value |\n|---|---|\n| Max concurrency | 64 |\n| Output length | 128 tokens |\n"
        "| Throughput | 100 tok/s |\n| Latency | 1.28 s |\n",
        # latent attention has another KV cache
        "DeepSeek-V3\n\n- num_hidden_layers: 61\n- num_key_value_heads: 128\n"
        "- head_dim: 128\n- kv_lora_rank: 512\n- KV cache: 20 GiB (300,000 tokens)\n",
        # two models in one table
        "| | A | B |\n|---|---|---|\n| Throughput (tok/s) | 100 | 50 |\n| TPOT (ms) | 10 | 20 |\n",
        # errors with other norms
        "| x | Cosine | Mean relative error |\n|---|---|---|\n| a | 0.9990 | 0.10% |\n",
        # speculative decoding goes below the bound
        "LlamaForCausalLM, 8.03B parameters, BF16, Ascend 910B3, speculative decoding (EAGLE)\n\n"
        "- TPOT: 4.0 ms\n- Concurrency: 1\n",
        # per-request speed is no throughput
        "| Concurrency | Throughput per request (tok/s) | TPOT (ms) |\n|---|---|---|\n| 16 | 50.0 | 20.0 |\n",
    ],
)
def test_what_only_looks_wrong_is_left_alone(text):
    assert [(f.rule, f.message) for f in loud(audit(text))] == []


def test_nothing_breaks_the_rules():
    odd = ["", "\n\n", "| a |\n|---|\n| 平均 |\n", "- 参数量：B\n- head_dim：0\n- num_attention_heads：0\n- hidden_size：0\n",
           "| 余弦相似度 | 相对误差 |\n|---|---|\n| 2.0 | 0% |\n", "| p50 | p |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n",
           "- 并发：0\n- 吞吐量：0 tok/s\n- TPOT：0 ms\n- 输出长度：0 tokens\n- 延迟：0 s\n", "0/0 (0%) 5/0 = 3%\n"]  # fmt: skip
    for text in odd:
        audit(text)


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def test_counts_of_known_models():
    qwen3_4b = Decoder(2560, 9728, 36, 32, 8, 128, 151936, tied=True)
    assert count_decoder(qwen3_4b, qk_norm=True).total == 4_022_468_096
    assert count_decoder(qwen3_4b, qk_norm=True).body == 3_633_511_936
    reranker = Decoder(1024, 3072, 28, 16, 8, 128, 151669, tied=True)
    assert count_decoder(reranker, qk_norm=True).total == 595_776_512
    qwen25_7b = Decoder(3584, 18944, 28, 28, 4, 128, 152064, tied=False)
    assert count_decoder(qwen25_7b, qkv_bias=True).total == 7_615_616_512
    moe = Decoder(2048, 0, 48, 32, 4, 128, 151936, False, experts=128, experts_used=8, expert_intermediate=768)
    assert round(count_decoder(moe, qk_norm=True).total / 1e9, 1) == 30.5
    bge_m3 = count_encoder(1024, 4096, 24, 250002, 8194, 1)
    assert bge_m3.total + 1024 * 1024 + 1024 == 567_754_752
    assert kv_bytes_per_token(36, 8, 128, 2) == 147_456


def test_rounding_is_carried_through():
    low, high = (around(numbers_in(text)[0]) for text in ("1.0", "2.0"))
    assert mean([low, high]) == Interval(pytest.approx(1.45), pytest.approx(1.55))
    assert median([low, high, Interval(9, 9)]) == high
    assert (high / low).hi == pytest.approx(2.05 / 0.95)
    assert around(numbers_in("4.86e-06")[0]).hi == pytest.approx(4.865e-6)
    assert Interval(0.0, 1.45).overlaps(Interval(1.45, 2.0))


def test_cosine_and_error_bound_each_other():
    for angle in (0.001, 0.01, 0.3):
        cosine = math.cos(angle)
        assert least_error(Interval(cosine, cosine)) == pytest.approx(math.sin(angle), rel=1e-6)
        for k in (0.9, 1.0, 1.2):  # a vector of length k at this angle to a unit vector
            error = math.hypot(k * cosine - 1, k * math.sin(angle))
            assert error >= least_error(Interval(cosine, cosine)) - 1e-12
            assert min(abs(k - r) for r in length_ratio(cosine, error)) < 1e-6


@pytest.mark.parametrize(
    ("text", "quantity", "aggregate", "delta"),
    [
        ("平均 Perplexity 差异", "ppl", "mean", True),
        ("CPU FP32 PPL", "ppl", "", False),
        ("平均绝对误差", "mae", "", False),
        ("输出令牌耗时 (TPOT)", "tpot", "", False),
        ("P99 latency", "latency", "percentile", False),
        ("最大相对误差", "rel", "max", False),
        ("首 token 延迟", "ttft", "", False),
        ("Mean TTFT (ms)", "ttft", "mean", False),
        ("weight decay", "", "", False),
    ],
)
def test_names_are_taken_apart(text, quantity, aggregate, delta):
    name = read_name(text)
    assert (name.quantity, name.aggregate, name.delta) == (quantity, aggregate, delta)


def test_rows_that_aggregate():
    assert [aggregate_of_row(t) for t in ("平均", "Mean", "中位数", "Max", "总计", "平均延迟测试文本一", "The mean man")] == [
        "mean", "mean", "median", "max", "total", "other", "",
    ]  # fmt: skip


@pytest.mark.parametrize("parameters", ["0 M", "0.0B", "38.9%0 M"])
def test_no_parameters_at_all_are_no_divisor(parameters):
    found = audit(f"# M\n\n- Parameters: {parameters}\n- Checkpoint size (BF16): 168.3 MB\n")
    assert [f for f in found if f.rule == "weight-size"] == []


# ---- the documented cards --------------------------------------------------------------------------------------------


def seed(number):
    """The text of a documented card, or a skip."""
    return seed_or_skip(number).read_text(encoding="utf-8")


# card, rule, least level, what the line holds, what is recomputed
DOCUMENTED = [
    ("000", "overview", C, r"^Logit 余弦相似度", "0.999915"),
    ("000", "overview", C, r"^Logit 余弦相似度", "0.9999"),
    ("000", "aggregate-switch", C, r"^平均123", "0.0039"),
    ("000", "aggregate", A, r"^中位", "0.051"),
    ("000", "repeated-quantity", C, r"35\.9834", "27.9"),
    ("000", "throughput", C, r"TPOT", "4.263"),
    ("000", "throughput", C, r"^平均延迟", "5.456"),
    ("000", "throughput", C, r"TPOT", "42.6"),
    ("000", "roofline", I, r"TPOT", "5.028"),
    ("000", "parameters", C, r"3\.96B", "4,022,468,096"),
    ("000", "head-dim", U, r"hidden_size", "128"),
    ("000", "overview", A, r"^平均 Perplexity", ""),
    ("000", "aggregate", I, r"硬件差异", "1.20%"),
    ("003", "aggregate", A, r"^\| 平均 \|", "1.35875"),
    ("003", "cosine-error", I, "接近零", "5.45e\\+04"),
    ("003", "cosine-error", I, "活跃维度", "0.42"),
    ("003", "weight-size", A, r"权重大小", "1.11 GiB"),
]


@pytest.mark.parametrize(("number", "rule", "least", "line", "value"), DOCUMENTED)
def test_what_the_documented_cards_get_wrong_is_found(number, rule, least, line, value):
    text = seed(number)
    rows = text.splitlines()
    found = [
        f for f in audit(text) if f.rule == rule and re.search(line, rows[f.line - 1]) and f.level.rank >= least.rank
    ]
    assert any(re.search(value, f.recomputed + f.message) for f in found), [f.recomputed for f in found]


# card, line, the figure that agrees
CONSISTENT = [
    ("000", r"^平均0\.9999632", "0.999963"),
    ("000", r"^平均0\.9999632", "2.43%"),
    ("000", r"^平均7", "7.9161"),
    ("000", r"^平均7", "1.44%"),
    ("000", r"^平均123", "123.0321"),
    ("000", r"^最大 Perplexity", "2.65%"),
    ("000", r"^最大 Perplexity", "0.004%"),
    ("000", r"^KV 缓存", "46.77 GiB"),
    ("000", r"Transformer,36", "36 layers"),
    ("003", r"^\| 平均 \|", "4.86e-06"),
    ("003", r"^\| 平均 \|", "7.18e-06"),
    ("003", r"^\| 平均 \|", "0.0029%"),
    ("003", r"参数量", "0.6B"),
    ("003", r"KV Cache 容量", "158,848 tokens"),
    ("003", r"最大并发", "38"),
    ("003", r"隐藏状态平均绝对误差", "4.86e-06"),
]


@pytest.mark.parametrize(("number", "line", "figure"), CONSISTENT)
def test_what_the_documented_cards_get_right_is_said_to_agree(number, line, figure):
    text = seed(number)
    rows = text.splitlines()
    about = [f for f in audit(text) if re.search(line, rows[f.line - 1]) and f.message.startswith(figure)]
    assert about
    levels = {f.level for f in about if not (f.rule == "overview" and "no table" in f.message)}
    assert levels == {Level.FINE}, [(f.rule, f.level, f.message) for f in about]


def test_nothing_else_in_the_documented_cards_is_flagged():
    for number in ("000", "003"):
        text = seed(number)
        rows = text.splitlines()
        known = [(rule, line) for n, rule, _, line, _ in DOCUMENTED if n == number]
        known.append(("weight-size", "模型权重显存"))
        for finding in loud(audit(text)):
            assert any(finding.rule == rule and re.search(line, rows[finding.line - 1]) for rule, line in known), (
                finding
            )


def test_findings_can_be_written_as_json():
    json.dumps([(f.rule, f.level, f.line, f.quote, f.message, f.recomputed) for f in audit(CONFIG + SPEED)])


# ---------------------------------------------------------------------------------------------------------------- families

TINY = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32, "vocab_size": 1000, "tie_word_embeddings": True,
}  # fmt: skip


def _count(text, **names):
    (counted,) = read_facts(parse_card(text), {**TINY, **names}).counted
    return counted.count.total


@pytest.mark.parametrize(
    "names",
    [
        {"model_type": "qwen3"},
        {"architectures": ["Qwen3ForCausalLM"]},
        {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]},
    ],
)
def test_the_config_says_that_q_and_k_have_norms(names):
    assert _count("# A model", **names) - _count("# A model", model_type="llama") == 2 * 2 * 32


def test_the_config_says_that_q_k_and_v_have_biases():
    assert _count("# A model", model_type="qwen2") - _count("# A model", model_type="llama") == 2 * (4 + 2 * 2) * 32


def test_the_names_of_a_config_come_before_those_of_the_text():
    assert _count("# Compared with Qwen3-4B", model_type="llama") == _count("# A model", model_type="llama")
    assert _count("# Qwen3-tiny, made from Qwen3-4B") == _count("# A model", model_type="qwen3")


def test_a_config_without_head_dim_has_that_of_its_family():
    config = {key: value for key, value in TINY.items() if key != "head_dim"}
    assert read_facts(parse_card("# A model"), {**config, "model_type": "qwen3"}).head_dims == (128, 16)
    assert read_facts(parse_card("# Not Qwen3-4B"), {**config, "model_type": "llama"}).head_dims == (16,)


@pytest.mark.parametrize("value", [None, 3, ["x"], {}])
def test_a_config_whose_names_are_none_is_left_alone(value):
    assert _count("# A model", model_type=value, architectures=value if not isinstance(value, list) else [3]) > 0


@pytest.mark.parametrize("unit", ["1", " ", "- ", "a ", "1 for Q ", "=", "("])
def test_keys_and_values_of_any_length_take_no_time(unit):
    text = (unit * 8000)[:8000]
    started = time.process_time()
    list(keys.read_pair("num_attention_heads", text))
    keys.name_of(text)
    assert read_facts(parse_card(text), None).pairs is not None
    assert time.process_time() - started < 1


def test_more_heads_than_channels_is_no_crash_of_the_capacity_rule():
    """Found by the fuzzer."""
    audit(
        "权重精度：BF16\nhidden_size：1%24\nintermediate_size：3072\nnum_hidden_layers：28\nnum_attention_heads：16\n"
        "num_key_value_heads：8\nhead_dim：128\nvocab_size：151669\nKV 缓存：17.00 GiB\n可容纳：159,104 tokens"
    )
