"""What a sample of n can show, and scores that are another model's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.data import Dataset
from pytest_npuconf.audit.data import versions as version_data
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.lines import DENIED, Line, cells_of, lines_of

SIZE, BORROWED = "sample-size", "borrowed-score"
ENOUGH = 59  # n of n whose one-sided 95 % lower bound is 95 %: 0.05 ** (1 / 59) = 0.9505
FALSE_ALARM = 0.05
_OF = re.compile(
    r"(?<![\d./-])(\d{1,5})\s*(?:/|of|out of)\s*(\d{1,5})(?![\d./-])\s*(?P<unit>%|个?样本|条|次|题|prompts?|samples?"
    r"|tokens?|tests?"
    r"|cases?)?",
    re.I,
)
_CLAIM = re.compile(
    r"完全等价|完全一致|语义等价|等价证据|证明|无损|零损失"
    r"|\b(?:equivalent|equivalence|identical|proves?|lossless|no loss|guarantee[sd]?)\b",
    re.I,
)
_SHARE = re.compile(r"100(?:\.0+)?\s?%|匹配|一致|正确|准确|通过|\b(?:match|correct|accuracy|agree|passed)", re.I)
_BOUND_GIVEN = re.compile(r"置信|下界|下限|95\s?%|confidence|lower bound|interval", re.I)
_TOLERANCE = re.compile(r"(?:±|\+/-|\+-)\s*(\d+(?:\.\d+)?)\s*(pp|个?百分点|%|percentage points?|points?)", re.I)
_PAIRED = re.compile(r"配对|逐题|McNemar|\bpaired\b|same items|非劣效|non-inferiority", re.I)
_SCORE = re.compile(r"(?<![\d.])(0\.\d{2,5}|\d{2}\.\d{1,3}\s?%|\d{2}\s?%)(?![\d.])")
_OFFICIAL = re.compile(r"官方|official|论文|技术报告|published|technical report|\breported\b", re.I)
_TASKS = (
    r"GSM-?8K|C?MMLU|C-?Eval|HumanEval|MBPP|MATH-?500|MATH\b|ARC|HellaSwag|AIME|GPQA|IFEval|BBH|LiveCodeBench|MTEB"
    r"|MMBench|MMMU|DocVQA|BEIR"
)
_BENCHMARK = re.compile(_TASKS + r"|得分|分数|scores?\b|accuracy", re.I)
_MODEL = r"[A-Za-z][A-Za-z0-9]*(?:[.-][A-Za-z0-9]+)+"
_TAKEN = re.compile(
    r"(?:取自|引用自|来自|摘自|沿用|采用)\s*(?:了)?(?:基座|基础|原始|底座)模型[^。;|]{0,40}(?:得分|分数|成绩|数据|结果)"
    r"|(?:taken|copied|quoted|borrowed|carried over) from the (?:base|parent|original) model[^.;|]{0,40}"
    r"|scores? (?:is|are) "
    r"(?:the base model's|that of the base model|those of the base model)",
    re.I,
)
_BASE = re.compile(
    rf"(?:基于|微调自|base[_ ]model(?:\s+is)?\s*[:|]?|fine-?tuned from|finetuned from|based on|derived from"
    rf"|built on)\s*(?:the\s+)?[`*\"']?(?:[\w-]+/)?(?P<name>{_MODEL})",
    re.I,
)
_TUNED = re.compile(r"微调|精调|后训练|蒸馏|fine-?tun|finetun|distill|\bSFT\b|\bRLHF\b|\bDPO\b|LoRA", re.I)


def check_size(context: Context) -> Iterator[Finding]:
    """n of n taken for certainty; an accuracy tolerance that its number of items cannot settle."""
    lines = lines_of(context.card)
    for line in lines:
        if not line.code:
            yield from _all_of(context, line)
    yield from _tolerance(context, lines)


def _all_of(context: Context, line: Line) -> Iterator[Finding]:
    for found in _OF.finditer(line.text):
        right, n = int(found[1]), int(found[2])
        if right != n or n < 2 or not _SHARE.search(line.text) or _BOUND_GIVEN.search(line.text):
            continue
        lower = 0.05 ** (1 / n)
        recomputed = f"0.05 ** (1/{n}) = {lower:.4f}"
        if n >= ENOUGH:
            yield context.finding(
                SIZE, Level.FINE, line.number, f"{n} of {n} shows at least {lower:.1%} (one-sided, 95 %)", recomputed
            )
        elif _CLAIM.search(line.text):
            message = (
                f"{n} of {n} shows only that the rate is at least {lower:.0%} (one-sided, 95 %): too few for what "
                "this line concludes"
            )
            yield context.finding(SIZE, Level.UNSUPPORTED, line.number, message, recomputed)
        else:
            message = f"{n} of {n} shows a rate of at least {lower:.0%} (one-sided, 95 %), not 100 %"
            yield context.finding(SIZE, Level.AMBIGUOUS, line.number, message, recomputed)
        return


def _tolerance(context: Context, lines: tuple[Line, ...]) -> Iterator[Finding]:
    """The false alarms of an unpaired comparison of two scores on the same number of items."""
    text = "\n".join(line.text for line in lines)
    if _PAIRED.search(text):
        return
    seen = set()
    for line in lines:
        tolerance = _TOLERANCE.search(line.text)
        if line.code or tolerance is None:
            continue
        for data in version_data().datasets:
            if data.name in seen or not _names(data, line.text):
                continue
            score = _score_of(data, lines)
            if score is None:
                continue
            seen.add(data.name)
            yield from _alarm(context, line, float(tolerance[1]) / 100, data, score)


def _alarm(context: Context, line: Line, bound: float, data: Dataset, score: float) -> Iterator[Finding]:
    deviation = math.sqrt(2 * score * (1 - score) / data.items)
    alarm = math.erfc(bound / deviation / math.sqrt(2))
    recomputed = (
        f"sd of the difference sqrt(2 * {score:g} * {1 - score:.3g} / {data.items}) = {deviation:.4f}; "
        f"P(|difference| > {bound:g}) = {alarm:.2f}"
    )
    if alarm > FALSE_ALARM:
        message = (
            f"+-{100 * bound:g} points on {data.items} items of {data.name}: two runs of equal quality differ by "
            f"more in {alarm:.0%} of cases, unless the items are paired"
        )
        yield context.finding(SIZE, Level.UNSUPPORTED, line.number, message, recomputed)
    else:
        message = f"+-{100 * bound:g} points on {data.items} items of {data.name} can be settled"
        yield context.finding(SIZE, Level.FINE, line.number, message, recomputed)


def _names(data: Dataset, text: str) -> bool:
    return bool(
        re.search(rf"(?<![A-Za-z]){data.name.replace('-', '-?')}(?![A-Za-z0-9])", text.replace("C-Eval", "CEval"), re.I)
    )


def _score_of(data: Dataset, lines: tuple[Line, ...]) -> float | None:
    """The card's own score on the data set, where it gives just one."""
    found = set()
    for line in lines:
        if line.code or not re.match(rf"[|\s*`]*{data.name.replace('-', '-?')}", line.text, re.I):
            continue
        for written in _SCORE.findall(_TOLERANCE.sub("", line.text))[:1]:
            value = float(written.rstrip("% ")) / (100 if "%" in written else 1)
            if 0 < value < 1:
                found.add(value)
    return found.pop() if len(found) == 1 else None


def check_borrowed(context: Context) -> Iterator[Finding]:
    """Official scores of the base model quoted as the baseline of a model tuned from it."""
    lines = [line for line in lines_of(context.card) if not line.code]
    for line in lines:
        if _TAKEN.search(line.text) and not DENIED.search(_TAKEN.sub("", line.text).replace("未", "")):
            message = (
                "the card says itself that the score is the base model's: nothing here shows what this model scores"
            )
            yield context.finding(BORROWED, Level.UNSUPPORTED, line.number, message)
    base = _base_of(lines)
    if base is None:
        return
    name, base_line = base
    own = _own_names(context, lines)
    if any(_plain(name) == _plain(each) for each in own):
        return
    reported: list[int] = []
    for line in lines:
        if line.number == base_line or _plain(name) not in _plain(line.text) or not _OFFICIAL.search(line.text):
            continue
        nearby = " ".join(each.text for each in lines if line.number <= each.number <= line.number + 5)
        if (
            _BENCHMARK.search(line.text + nearby)
            and (_SCORE.search(nearby) or re.search(r"0\.\d{3}", nearby))
            and _as_baseline(line, nearby)
        ):
            reported.append(line.number)
    if reported and not _has_own(lines, reported):
        others = f" (also line {', '.join(map(str, reported[1:]))})" if len(reported) > 1 else ""
        message = (
            f"these are the official scores of {name}, from which this model was tuned (line {base_line}); this "
            f"model has no baseline by them{others}"
        )
        yield context.finding(
            BORROWED,
            Level.IMPLAUSIBLE,
            reported[0],
            message,
            "they hold for this model only if tuning changed no score",
        )


def _has_own(lines: list[Line], reported: list[int]) -> bool:
    """Whether the card also has scores of its own: two in one row, or one away from the official ones."""
    for line in lines:
        if not re.match(rf"[|\s*`]*(?:{_TASKS})", line.text, re.I) or not _SCORE.search(_TOLERANCE.sub("", line.text)):
            continue
        near = any(official <= line.number <= official + 6 for official in reported)
        if len(_SCORE.findall(_TOLERANCE.sub("", line.text))) > 1 or not (near or _OFFICIAL.search(line.text)):
            return True
    return False


def _as_baseline(line: Line, nearby: str) -> bool:
    return bool(re.search(r"基线|基准|参考|baseline|reference", line.text + nearby, re.I))


def _base_of(lines: list[Line]) -> tuple[str, int] | None:
    """The model that this one was tuned from, where the card names one."""
    for line in lines:
        found = _BASE.search(" ".join(cells_of(line.text)))
        if found and _TUNED.search(line.text) and re.search(r"\d", found["name"]):
            return found["name"], line.number
    return None


def _own_names(context: Context, lines: list[Line]) -> list[str]:
    titles = [section.title for section in context.card.sections if section.depth == 1][:1]
    first = [line.text for line in lines[:1]]
    keys = [
        pair.value
        for pair in context.card.pairs
        if re.fullmatch(r"模型名称?|模型|model(?: name)?", pair.key.strip(), re.I)
    ]
    return [part for text in (*titles, *first, *keys) for part in re.findall(_MODEL, text)]


def _plain(text: str) -> str:
    return re.sub(r"[\s_`*]", "", text).lower()


RULES = (
    Rule(SIZE, "a sample is large enough for what is concluded from it", check_size),
    Rule(BORROWED, "a baseline score is this model's", check_borrowed),
)
