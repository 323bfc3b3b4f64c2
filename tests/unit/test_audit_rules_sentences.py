"""Rules that read sentences, lists and columns beside their values: in other words than the corpus, wrong and right.

The right sentences that tempt most stand in tests/data/audit/hard-good.
"""

from __future__ import annotations

import math

import pytest

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.findings import Level
from pytest_npuconf.audit.numbers import numbers_in
from pytest_npuconf.audit.rules import RULES
from pytest_npuconf.audit.rules._prose_cosine import least_mean_error
from pytest_npuconf.audit.text import parse_card


def worst(rule, text):
    """The worst level of the rule's findings; None where it says nothing."""
    context = Context(parse_card(text), None)
    return max((f.level for f in RULES[rule].check(context)), key=lambda level: level.rank, default=None)


COURSE = (
    "# c\n\n| Epoch | Loss | Accuracy |\n|---|---|---|\n"
    "| 1 | 2.0 | 60.0% |\n| 2 | 1.5 | 66.0% |\n| 3 | 1.2 | 69.0% |\n\n{}\n"
)
ROUNDS = (
    "# r\n\n| q | Run 1 | Run 2 | Mean | Max |\n|---|---|---|---|---|\n"
    "| a | 1.0 | 3.0 | 2.0 | 3.0 |\n| b | 4.0 | 8.0 | 6.0 | 8.0 |\n| c | 5.0 | 9.0 | {} |\n"
)
SIZES = (
    "# s\n\n## Size\n\n| Format | File size | relative to BF16 |\n|---|---|---|\n"
    "| BF16 | 20.0 GB | 1.00 |\n| W8A8 | 12.0 GB | {} |\n\n{}\n"
)
SHAPE = (
    "# m\n\nm (MistralForCausalLM) has 12 layers, a hidden dimension of 768, an FFN size of 2,048, 12 query heads "
    "with 4 KV heads and a vocabulary size of 32,000 with tied embeddings, which are counted once. It has {} parameters in all.\n"
)
VECTOR = "# v\n\n- Embedding dim: 512\n\n{}\n"
CLIENTS = (
    "# l\n\nIn a closed loop 8 users ran: 128 generated tokens per request, average latency 4 s, "
    "throughput {}; nothing failed.\n"
)
TEMPLATE = "# t\n\n- 输出长度：400 tokens\n- 总耗时：{}\n- 吞吐量：40 tok/s\n"
IMAGES = "# i\n\n## Speed (batch_size=1)\n\n- avg_latency_ms: 20.0\n- fps: {}\n"
AGAIN = (
    "# a\n\n## 推理结果\n\n- 平均延迟：{} ms\n\n"
    "## 评分\n\n- NPU latency_ms：4.512\n\n## 性能\n\n- avg_latency_ms：4.512\n"
)
WINDOWS = (
    "# w\n\nThe context length is 4,096 tokens.\n\n"
    "## Limitations\n\nIt only knows English. The context window is {} tokens.\n"
)
CARDS = "# k\n\n- KV memory for one full window: 4 GiB\n- KV memory left: 10 GiB\n\nOne NPU therefore holds {} full windows.\n"
COSINES = "# e\n\nThe cosine is at least 0.999 and on average 0.9995. The mean relative L2 error is {} %.\n"

CASES = [
    ("aggregate", "The average latency is {} ms, the median 12 ms and the maximum 20 ms.", "13", "25"),
    ("aggregate", "平均延迟为 {} ms，最大延迟为 20 ms。", "13", "25"),
    ("aggregate", "Four runs took 10.0, 12.0, 11.0 and 15.0 s. The mean is {} s.", "12.0", "13.0"),
    ("aggregate", "结果为 10.0、12.0、14.0 ms。平均值为 {} ms，最大值为 14.0 ms。", "12.0", "13.0"),
    ("aggregate", "Of the 250 prompts it answered correctly 200 times (a rate of {} %).", "80.0", "85.0"),
    ("aggregate", "在 250 道题中答对 200 题，准确率 {} %。", "80.0", "85.0"),
    ("aggregate", "The old file has 20 GB; the new one has 5 GB, {} % of it.", "25", "40"),
    ("aggregate", COURSE.format("The final loss is {}, the lowest of the table."), "1.2", "0.9"),
    ("aggregate", COURSE.format("Epochs: 3\n\nThe last accuracy was {}."), "69.0%", "67.0%"),
    ("aggregate", COURSE.format("From epoch 1 to epoch 3, the loss dropped by {}%."), "40", "67"),
    ("aggregate", COURSE.format("From epoch 1 to 3 the accuracy rose by {} %."), "9.0", "12.0"),
    ("aggregate", COURSE.format("From epoch 1 to 3 the accuracy rose by {} %."), "15", "13"),
    ("aggregate", ROUNDS, "7.0 | 9.0", "8.0 | 9.0"),
    ("aggregate", ROUNDS, "7.0 | 9.0", "7.0 | 9.5"),
    ("aggregate", SIZES.format("{}", ""), "0.60", "0.40"),
    ("aggregate", SIZES.format("0.60", "After quantization the file size is reduced by {} %."), "40", "60"),
    ("aggregate", "# p\n\n- BF16: 10.00\n- W8A8: 10.50\n- increase: {}\n", "5.0 %", "7.0 %"),
    ("aggregate", "# q\n\n- min latency: 4 ms\n- avg latency: {}\n- max latency: 9 ms\n", "6 ms", "2 ms"),
    ("parameters", SHAPE, "100.1 million", "120.1 million"),
    ("repeated-quantity", VECTOR.format("Each embedding has {} dimensions."), "512", "384"),
    ("repeated-quantity", VECTOR.format("```python\nprint(len(embedding)) # {}\n```"), "512", "384"),
    ("repeated-quantity", WINDOWS, "4096", "8192"),
    ("repeated-quantity", AGAIN, "4.512", "9.871"),
    ("throughput", CLIENTS, "256 tok/s", "32 tok/s"),
    ("throughput", TEMPLATE, "10 s", "4 s"),
    ("throughput", TEMPLATE, "30 s", "4 s"),
    ("throughput", IMAGES, "50.1", "30.0"),
    ("cosine-error", COSINES, "2.9", "1.0"),
    ("kv-capacity", CARDS, "2.5", "3.5"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "text", "right", "wrong"), CASES)
def test_the_wrong_figure_is_reported_and_the_right_one_is_not(rule, text, right, wrong):
    assert worst(rule, text.replace("{}", wrong)).rank >= Level.IMPLAUSIBLE.rank
    level = worst(rule, text.replace("{}", right))
    assert level is None or level.rank <= Level.AMBIGUOUS.rank


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            "repeated-quantity",
            WINDOWS.replace("# w", "# Heron-2B").replace("It only", "Heron-7B only").replace("{}", "8192"),
        ),
        ("repeated-quantity", WINDOWS.replace("Limitations", "With YaRN").replace("{}", "8192")),
        ("repeated-quantity", WINDOWS.replace("It only", "Not with the older build: it only").replace("{}", "8192")),
        ("repeated-quantity", VECTOR.replace("{}", "The index was truncated.\n\nEach embedding has 384 dimensions.")),
        ("repeated-quantity", AGAIN.replace("{} ms", "9.871 ms\n- 首次运行，含编译")),
        ("parameters", SHAPE.replace("MistralForCausalLM", "a decoder").replace("{}", "120.1 million")),
        ("parameters", SHAPE.replace("m (M", "Its teacher (M").replace("{}", "120.1 million")),
        ("throughput", TEMPLATE.replace("400 tokens", "最多 400 tokens").replace("{}", "4 s")),
        ("throughput", CLIENTS.replace("{}", "32 tok/s per user")),
        ("throughput", IMAGES.replace("- fps", "- with preprocessing\n- fps").replace("{}", "30.0")),
        ("kv-capacity", CARDS.replace("# k", "# k\n\nvllm serve m --kv-cache-dtype fp8").replace("{}", "5")),
        ("aggregate", COURSE.replace("{}", "Epochs: 5\n\nThe final loss is 0.9.")),
        ("aggregate", ROUNDS.replace("{}", "8.0 | 9.5").replace("| 2.0 | 3.0 |", "| 3.0 | 3.5 |")),
    ],
)
def test_a_figure_of_something_else_is_left_alone(rule, text):
    level = worst(rule, text)
    assert level is None or level.rank <= Level.AMBIGUOUS.rank


def test_the_least_mean_error_is_reached_by_the_two_ends_and_by_nothing_below():
    least, mean = (numbers_in(text)[0] for text in ("0.99900000000", "0.99950000000"))
    bound = least_mean_error(least, mean)
    half = math.sqrt(1 - 0.999**2) / 2  # half of the vectors at the least cosine, half at 1
    assert bound == pytest.approx(half, rel=1e-6)
    for a in (0.9991, 0.9993, 0.9995):
        b = 2 * 0.9995 - a
        assert (math.sqrt(1 - a * a) + math.sqrt(1 - b * b)) / 2 > bound
