"""Figures whose metric is not defined."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.lines import lines_of
from pytest_npuconf.audit.numbers import numbers_in

ID = "undefined-metric"
_RELATIVE = re.compile(r"相对误差|relative err(?:or)?|rel\.? ?err(?:or)?", re.I)
_NORM = re.compile(
    r"L_?[12]\b|L∞|L_?inf|范数|norm\b|逐元素|逐点|element-?wise|平均|均值|mean|最大|max|中位|median|\bp\d\d\b|RMS|Frobenius|\|\||‖",
    re.I,
)
_SIMILAR = re.compile(r"^\W*(?:平均|mean |average )?(?:相似度|similarity(?: score)?)\W*$", re.I)
_ACCURACY = re.compile(
    r"^\W*(?:总体|整体|模型|NPU|overall |model )?\s*(?:准确率|精度|accuracy|acc)\s*(?:\(%\)|\[%\])?\W*$", re.I
)
# Only words that no known metric is called by: F1 score, BLEU score, Rand index and the like are none of them.
_INDEX = re.compile(
    r"((?:综合|整体|总体|全局)?[\u4e00-\u9fff]{0,4}(?:保真|一致性|等价|健康|质量|对齐|偏离|发散)(?:度)?(?:指数|分数|得分|评分)"
    r"|\b(?:\w+ )?(?:divergence|fidelity|consistency|conformance|parity|equivalence|health|alignment) (?:score|index))",
    re.I,
)
_DEFINED = re.compile(
    r"=|定义|公式|计算|为.{0,12}(?:平均|加权|比)|之和|之比|defined|formula|computed|calculated|is the|mean of|ratio|‖|weighted",
    re.I,
)
_SETS = re.compile(
    r"GSM-?8K|C?MMLU|C-?Eval|HumanEval|MBPP|MATH|ARC|HellaSwag|AIME|GPQA|IFEval|BBH|TruthfulQA|LiveCodeBench|MTEB"
    r"|STS|MS ?MARCO|BEIR|ImageNet|COCO|VQA|MMBench|MMMU|CIFAR|MNIST|GLUE|SQuAD"
    r"|LibriSpeech|AISHELL|数据集|测试集|验证集|题库|data ?set|test set|benchmark|validation set|split",
    re.I,
)
_SHOTS = re.compile(
    r"(?<!\d)\d{1,4}\s?-?\s?shot|零样本|少样本|zero-?shot|few-?shot|num_fewshot|CoT|思维链|strict-match|默认配置|default config",
    re.I,
)
_FEW_SHOT = re.compile(r"(?<![A-Za-z])(GSM-?8K|MMLU|CMMLU|C-?Eval|BBH)(?![A-Za-z])", re.I)
_SCORE = re.compile(r"(?<![\d.])(?:0\.\d{2,5}|\d{2}\.\d{1,3}\s?%?|\d{2}\s?%)(?![\d.])")


def check(context: Context) -> Iterator[Finding]:
    """Relative errors without a norm, similarities of nothing, accuracies on nothing, few-shot scores without their shots."""
    yield from _relative(context)
    yield from _made_up(context)
    yield from _named(context)
    yield from _shots(context)


def _relative(context: Context) -> Iterator[Finding]:
    defined = any(_RELATIVE.search(line.text) and _NORM.search(line.text) for line in lines_of(context.card))
    if defined:
        return
    for table in context.card.tables:
        for cell in table.header:
            if _RELATIVE.search(cell.text):
                message = (
                    f"{cell.text!r}: neither the norm nor the aggregation is named, so the figures cannot be "
                    "measured again"
                )
                yield context.finding(
                    ID, Level.AMBIGUOUS, cell.line, message, "looked for L1, L2, max, mean, element-wise beside it"
                )
                return
    for pair in context.card.pairs:
        if _RELATIVE.search(pair.key) and numbers_in(pair.value, pair.line):
            message = f"{pair.key!r}: neither the norm nor the aggregation is named"
            yield context.finding(ID, Level.AMBIGUOUS, pair.line, message)
            return


def _made_up(context: Context) -> Iterator[Finding]:
    """Indices and scores that are a card's own invention, with a figure and without a definition."""
    lines = lines_of(context.card)
    for line in lines:
        found = None if line.code else _INDEX.search(line.text)
        if found is None or not numbers_in(line.text[found.end() :], line.number):
            continue
        mentions = [each.text for each in lines if found[1] in each.text]
        if any(_DEFINED.search(text[text.index(found[1]) :]) for text in mentions):
            continue
        message = f"{found[1]!r} is in no general use, and the card does not define it"
        yield context.finding(
            ID, Level.UNSUPPORTED, line.number, message, "looked for a formula or a definition beside it"
        )
        return


def _named(context: Context) -> Iterator[Finding]:
    text = "\n".join(context.card.lines)
    data_set = bool(_SETS.search(text))
    rows = [
        (row[0].text, " ".join(cell.text for cell in row[1:]), row[0].line)
        for table in context.card.tables
        for row in table.rows
    ]
    rows += [(pair.key, pair.value, pair.line) for pair in context.card.pairs]
    seen: set[int] = set()
    for key, value, line in rows:
        if line in seen or not any(n.unit in ("", "%") for n in numbers_in(value, line)):
            continue
        if _SIMILAR.match(key):
            seen.add(line)
            yield context.finding(
                ID, Level.AMBIGUOUS, line, f"{key!r}: similarity by which measure, and of what with what?"
            )
        elif _ACCURACY.match(key) and not data_set and "%" in value:
            seen.add(line)
            yield context.finding(ID, Level.AMBIGUOUS, line, f"{key!r}: on which data set? The card names none")


def _shots(context: Context) -> Iterator[Finding]:
    lines = lines_of(context.card)
    if any(_SHOTS.search(line.text) for line in lines):
        return
    for line in lines:
        found = _FEW_SHOT.search(line.text)
        if not line.code and found and _SCORE.search(line.text[found.end() :]):
            message = (
                f"{found[1]} is scored with examples in the prompt or without: the card does not say how many shots"
            )
            yield context.finding(ID, Level.AMBIGUOUS, line.number, message)
            return


RULES = (Rule(ID, "metrics are defined", check),)
