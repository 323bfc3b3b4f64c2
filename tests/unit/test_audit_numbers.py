"""Numbers as written: value, unit, decimals; and what is no number."""

import pytest

from pytest_npuconf.audit.numbers import numbers_in


def values(text):
    return [(number.value, number.unit) for number in numbers_in(text)]


@pytest.mark.parametrize(
    ("text", "value", "unit", "decimals"),
    [
        ("234.59 tok/s", 234.59, "tok/s", 2),
        ("35 tokens / s", 35, "tok/s", 0),
        ("46.77 GiB", 46.77, "GiB", 2),
        ("65.8GB", 65.8, "GB", 1),
        ("64G", 64, "GB", 0),
        ("340,480 tokens", 340480, "tokens", 0),
        ("1 个 token".replace(" 个 ", " 个"), 1, "tokens", 0),
        ("0.79%", 0.79, "%", 2),
        ("5.45e-06", 5.45e-06, "", 8),
        ("5×10⁻⁶", 5e-06, "", 6),
        ("2.5 x 10^-3", 2.5e-3, "", 4),
        ("10^-3", 1e-3, "", 3),
        ("1e6", 1e6, "", -6),
        ("1,000,000", 1e6, "", 0),
        ("151_936", 151936, "", 0),
        ("4B", 4, "params", 0),
        ("3.96 B", 3.96, "params", 2),
        ("4096 B", 4096, "bytes", 0),
        ("114,688 B/token", 114688, "bytes/token", 0),
        ("1.6 TB/s", 1.6, "TB/s", 1),
        ("4.3 ms/tok", 4.3, "ms/tok", 1),
        ("0.546 s/req", 0.546, "s/req", 3),
        ("-1.5 ms", -1.5, "ms", 1),
        ("2 pp", 2, "pp", 0),
        ("2 个百分点", 2, "pp", 0),
        ("128K", 128, "K", 0),
        ("12 毫秒", 12, "ms", 0),
        ("1.8倍", 1.8, "x", 1),
        ("28x", 28, "x", 0),
        ("36 层", 36, "layers", 0),
        (".5", 0.5, "", 1),
    ],
)
def test_one_number(text, value, unit, decimals):
    (number,) = numbers_in(text, 7)
    assert (number.unit, number.decimals, number.line) == (unit, decimals, 7)
    assert number.value == pytest.approx(value, rel=1e-12)
    assert number.half_ulp == pytest.approx(0.5 * 10.0**-decimals)


@pytest.mark.parametrize(
    "text",
    [
        "0.9999890.79%",  # two cells glued together
        "7.23507.13901.34%",
        "vLLM 0.18.0rc1",
        "Ascend 910B",
        "Qwen3-Reranker-0.6B",
        "top-5",
        "float32 W8A8 int4",
        "2025-01-02 12:30:05",
        "2025 年 3 月 1 日",
        "https://example.org/v1/8000?x=3",
        "输入 #1",
        "0,95",  # a decimal comma, or a list of two
        "87,5 %",
        "0x1f",
        "5-shot",
        "1e400",
        "0E400",  # found by hypothesis: half a unit of its last digit overflows
        "0E-400",
        "1e-400",
        "9" * 400,
    ],
)
def test_no_number(text):
    assert values(text) == []


def test_ranges_lists_and_shares():
    assert values("1-3%") == [(1, ""), (3, "%")]
    assert values("0.6%–0.9%") == [(0.6, "%"), (0.9, "%")]
    assert values("[151645, 151643]") == [(151645, ""), (151643, "")]
    assert values("5/5 (100%)") == [(5, ""), (5, ""), (100, "%")]
    assert values("1,2,3") == [(1, ""), (2, ""), (3, "")]
    assert values("× 2 卡") == [(2, "cards")]
    assert values("2×64GB") == [(2, ""), (64, "GB")]


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("<100ms", "<"),
        (">= 0.99", ">="),
        ("≤ ±2pp", "±"),
        ("~38", "~"),
        ("约 5 ms", "约"),
        ("gpu_mem=0.3", ""),
        ("about 3 s", "about"),
    ],
)
def test_what_stands_before(text, before):
    (number,) = numbers_in(text)
    assert number.before == before


def test_place_in_the_text():
    text = "cosine 0.9999 at 4.3 ms/tok."
    for number in numbers_in(text):
        assert text[number.start : number.end] == number.text
