"""Numbers as they are written in a card: value, unit, and how many digits stand behind the point."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

# The unit's one name, and how it is written (case apart, spaces around "/" allowed).
_WRITTEN = {
    "%": "% percent", "pp": "pp 个百分点 百分点", "‰": "‰",
    "TB": "tb", "GB": "gb", "MB": "mb", "KB": "kb", "TiB": "tib", "GiB": "gib", "MiB": "mib", "KiB": "kib",
    "bytes": "bytes byte 字节", "bits": "bits bit 比特", "Gbps": "gbps", "TFLOPS": "tflops", "TOPS": "tops",
    "TB/s": "tb/s", "GB/s": "gb/s", "MB/s": "mb/s", "TiB/s": "tib/s", "GiB/s": "gib/s",
    "ms": "ms msec 毫秒 milliseconds", "us": "us μs 微秒", "ns": "ns",
    "s": "s sec secs second seconds 秒", "min": "min mins minute minutes 分钟", "h": "hours hour 小时", "days": "days 天",
    "tok/s": "tok/s toks/s token/s tokens/s tokens/sec tok/sec tokens/second t/s tps token/秒 tokens/秒",
    "ms/tok": "ms/tok ms/token 毫秒/token", "s/tok": "s/tok s/token 秒/token",
    "s/req": "s/req s/request 秒/请求", "ms/req": "ms/req ms/request 毫秒/请求",
    "req/s": "req/s request/s requests/s qps rps 请求/秒",
    "tokens": "tokens token toks tok 个token 个tokens", "requests": "requests 个请求",
    "bytes/token": "b/token bytes/token byte/token b/tok 字节/token",
    "KB/token": "kb/token", "KiB/token": "kib/token", "MB/token": "mb/token", "MiB/token": "mib/token",
    "cores": "cores core 核", "layers": "layers 层", "dimensions": "维", "cards": "cards 卡 张", "x": "倍",
    "items": "items samples 个 条 题", "times": "times 次", "W": "watts 瓦", "°C": "°c ℃", "GHz": "ghz",
    "params": "billion", "万": "万", "亿": "亿",
}  # fmt: skip
_NAMES = {written: name for name, forms in _WRITTEN.items() for written in forms.split()}
# One letter means something by its case only.
_LETTERS = {"B": "B", "b": "B", "G": "GB", "K": "K", "k": "K", "M": "M", "T": "T", "s": "s", "h": "h", "W": "W"}


def _form(written: str) -> str:
    pattern = r"\s?/\s?".join(re.escape(part) for part in written.split("/"))
    return pattern + r"(?![a-z0-9_])" if written[-1].isascii() and written[-1].isalpha() else pattern


_UNIT = re.compile(
    r"\s{0,2}(?:(?P<name>" + "|".join(_form(w) for w in sorted(_NAMES, key=lambda w: (-len(w), w))) + r")"
    r"|(?P<letter>(?-i:[BbGKkMTshW]))(?![a-z0-9_])|(?P<times>(?<=\d)[x×](?!\d)|(?<=\s)[x×](?!\s?\d))(?![a-z_]))",
    re.IGNORECASE,
)
_POWER = (
    r"10\s?(?:\^\s?\{?(?P<caret>[-+]?\d{1,3})\}?|\*\*\s?(?P<stars>[-+]?\d{1,3})|(?P<raised>[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3}))"
)
_VALUE = re.compile(
    r"(?<![A-Za-z0-9_.#])(?:" + _POWER.replace("?P<", "?P<only_") + r"|"
    r"(?:(?P<digits>[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|[1-9]\d{0,2}(?:_\d{3})+|\d+(?:\.\d+)?|\.\d+)"
    r"(?:[eE](?P<exponent>[-+]?\d{1,3})|\s?[x×*·]\s?" + _POWER + r")?))"
)
# What looks like a number and is none: addresses, dates, times of day, years, versions, decimal commas.
_NOT_NUMBERS = re.compile(
    r"(?:https?|ftp|file)://[^\s<>)\]\"']+"
    r"|(?<!\d)\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?!\d)|(?<!\d)\d{1,2}:\d{2}(?::\d{2})?(?![\d:])"
    r"|(?<!\d)(?:19|20)\d\d\s?年(?:\s?\d{1,2}\s?月(?:\s?\d{1,2}\s?日)?)?"
    r"|(?<![\w.])v?\d+(?:\.\d+){2,}(?:[-.]?(?:rc|a|b|alpha|beta|post|dev|RC)\.?\d*)*|(?<![\w.])\d+(?:\.\d+)+rc\d+"
    r"|(?<![\d,.])(?!\d{1,3},\d{3}(?!\d))\d+,\d+(?![\d,.]|\s?[,\]])|(?<![\d,.])0,\d+(?![\d,.])"
    r"|0x[0-9a-fA-F]+"
)
_BEFORE = re.compile(r"(?:<=|>=|≤|≥|<|>|~|≈|±|\+/-|约|about|approx\.?|around)\s?$", re.IGNORECASE)
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_CHIPS = {"910", "310", "910b", "910c"}


@dataclass(frozen=True)
class Number:
    """A number as written: ``value`` is not scaled by its unit; "3.96B" is 3.96 of unit "params".

    ``before``: a sign of comparison or approximation that stands in front of it ("<", "≥", "~", "±", "约"), or "".
    ``start`` and ``end``: where it stands in the text that was searched.
    """

    value: float
    unit: str
    text: str
    decimals: int
    line: int
    before: str = ""
    start: int = 0
    end: int = 0

    @property
    def half_ulp(self) -> float:
        """Half a unit of the last digit written: the value stands for anything within this distance."""
        return float(0.5 * 10.0**-self.decimals)


def numbers_in(text: str, line: int = 0) -> list[Number]:
    """The numbers of a line of normalised text, in order.

    Not numbers: digits inside a word or after its hyphen (Qwen3, float32, 910B, top-5), versions (0.18.0), two cells
    glued together (7.23507.1390), dates, addresses, "#1", and a decimal comma (0,95: it could be a list of two).
    """
    return list(_numbers(text, line))


@lru_cache(maxsize=16384)
def _numbers(text: str, line: int) -> tuple[Number, ...]:
    """The numbers, kept: most rules ask for those of the same lines."""
    closed = [match.span() for match in _NOT_NUMBERS.finditer(text)]
    found = []
    behind = 0  # how many of the closed spans end before the match
    for match in _VALUE.finditer(text):
        while behind < len(closed) and closed[behind][1] <= match.start():
            behind += 1
        if behind == len(closed) or closed[behind][0] >= match.end():
            number = _number(text, match, line)
            if number is not None:
                found.append(number)
    return tuple(found)


def _number(text: str, match: re.Match[str], line: int) -> Number | None:
    """The number that the match begins, unless its surroundings make it part of a word."""
    start, end = match.start(), match.end()
    sign = text[start - 1 : start]
    if sign in ("-", "+") and re.match(r"[A-Za-z0-9_%]", text[start - 2 : start - 1] if start > 1 else ""):
        if not _ends_with_number(text[: start - 1]):
            return None  # top-5, Qwen3-4B
    elif sign in ("-", "+"):
        start -= 1
    value, decimals = _value(match)
    if not math.isfinite(value):
        return None
    unit, end = _unit(text, end, value)
    following = text[end : end + 2]
    if re.match(r"[A-Za-z0-9_]|\.\d|-[A-Za-z]", following):
        return None  # 2D, 7.23507.1390, 5-shot
    if unit == "params" and (match["digits"] or "").lower() in _CHIPS:
        return None
    before = _BEFORE.search(text[max(0, start - 8) : start])
    if text[start] == "-":
        value = -value
    return Number(
        value, unit, text[start:end].strip(), decimals, line, before.group().strip() if before else "", start, end
    )


def _ends_with_number(text: str) -> bool:
    """Whether the word at the end of ``text`` is a number itself, so that a hyphen after it makes a range."""
    word = re.search(r"[A-Za-z0-9_.%]+$", text[-24:])
    return bool(word and re.fullmatch(r"\d+(?:\.\d+)?(?:[eE]\d+)?[kKMGB%]?", word.group()))


def _value(match: re.Match[str]) -> tuple[float, int]:
    """Value without sign, and decimals: 5.45e-06 has eight, 1e6 has minus six."""
    names = ("caret", "stars", "raised")
    raised = next((match[p + name] for p in ("", "only_") for name in names if match[p + name]), None)
    exponent = int((raised or match["exponent"] or "0").translate(_SUPERSCRIPT))
    digits = (match["digits"] or "1").replace(",", "").replace("_", "")
    decimals = len(digits.partition(".")[2]) - exponent
    if len(digits) > 300 or abs(decimals) > 300:  # a double does not hold it, or not half a unit of its last digit
        return math.inf, 0
    return float(f"{digits}e{exponent}"), decimals


def _unit(text: str, end: int, value: float) -> tuple[str, int]:
    """The unit that follows, by its one name, and where it ends."""
    match = _UNIT.match(text, end)
    if match is None:
        return "", end
    if match["times"]:
        return "x", match.end()
    if match["name"]:
        return _NAMES[re.sub(r"\s", "", match["name"].lower())], match.end()
    letter = _LETTERS[match["letter"]]
    if letter == "B":  # 4B and 3.96 B are parameters, 114,688 B is not
        letter = "params" if value < 1000 else "bytes"
    return letter, match.end()
