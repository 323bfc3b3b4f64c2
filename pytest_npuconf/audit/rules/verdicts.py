"""Verdicts that the card's own figures and plans do not bear out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.document import Cell, Table
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.lines import NOT_PASSED, PASSED, PENDING, Line, cells_of, lines_of
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.rules._blocks import blocks, pair_blocks, row_blocks
from pytest_npuconf.audit.rules._thresholds import Bound, bound_in, bounds_in, overall_verdict

THRESHOLD, WAITING = "verdict-threshold", "verdict-pending"
_LIMIT_HEAD = re.compile(
    r"通过标准|合格标准|判定标准|阈值|门限|门禁|标准|要求|目标|threshold|criteri|gate|requirement|target|limit|bound",
    re.I,
)
_VALUE_HEAD = re.compile(r"实测|测量|结果|数值|指标值|^值$|measured|result|actual|value|observed", re.I)
_MEASURED_HEAD = re.compile(r"实测|测量|measured|observed|actual", re.I)
_VERDICT_HEAD = re.compile(
    r"判定|结论|结果|是否|状态|评定|达标|满足|verdict|status|state|pass|conclusion|result|\bmet\b|✅", re.I
)
_YES = re.compile(r"^\W*(?:yes|是|满足|符合|met|true|y)\W*$", re.I)
_DELTA = re.compile(r"差异|差值|偏差|误差|变化|delta|diff|Δ|drop|change|gap", re.I)
_FALL = re.compile(
    r"下降|降低|减少|损失|回退|退化|\b(?:drop|decrease|loss|lose|degrad\w*|regress\w*|fall|worse)\b", re.I
)
_RISE = re.compile(r"提高|提升|上升|增加|改善|更好|\b(?:increase\w*|gain\w*|improve\w*|better|rise|up)\b", re.I)
_METRICS = {
    "cosine": re.compile(r"余弦|cosine|\bcos[_ ]?sim", re.I),
    "token match": re.compile(r"token.{0,8}(?:匹配|一致)|(?:token|top-?1|argmax) (?:match|agreement)", re.I),
}
_KINDS = {
    "logits": re.compile(r"logit", re.I),
    "hidden": re.compile(r"隐藏|hidden", re.I),
    "embedding": re.compile(r"嵌入|向量|embed", re.I),
    "fp32": re.compile(r"fp32|float32", re.I),
    "bf16": re.compile(r"bf16|bfloat16", re.I),
    "fp16": re.compile(r"fp16|float16", re.I),
    "int8": re.compile(r"int8|w8a8|w8a16", re.I),
    "int4": re.compile(r"int4|w4a16|w4a8|awq|gptq", re.I),
}
_MEAN = re.compile(r"平均|均值|mean|average|avg|overall|总体|整体", re.I)
_EXTREME = re.compile(r"最小|最低|最大|最高|\bmin(?:imum)?\b|\bmax(?:imum)?\b|\bp\d\d\b", re.I)
_SET_ASIDE = re.compile(
    r"阈值[^,。;,;|]{0,8}(?:不适用|偏严格|过于?严格|过严|不再适用)|超出[^,。;,;|]{0,12}阈值[^。;|]{0,6}(?:属于|为|是)?(?:预期|正常|可接受)"
    r"|threshold[^.;|]{0,24}(?:not applicable|does not apply|too strict|overly strict|was (?:waived|relaxed))"
    r"|(?:exceed|above|over|beyond|outside)[a-z]*[^.;|]{0,24}threshold[^.;|]{0,24}(?:expected|acceptable|normal)",
    re.I,
)
_CORE = re.compile(
    r"(?:核心|最终|关键|首要|主要)[^,。;|]{0,12}(?:门禁|指标|标准|判定|验收)|(?:门禁|判定标准|验收)[^,。;|]{0,6}(?:核心|最终)"
    r"|\b(?:core|final|primary|decisive|main|key)\b[^.;|]{0,24}\b(?:gate|criterion|criteria|check|metric|acceptance"
    r"|verdict|test)\b",
    re.I,
)
_ALL = re.compile(r"全部|所有|均|\b(?:all|every|each)\b", re.I)
_TASK = re.compile(
    r"GSM-?8K|C?MMLU(?:-Pro)?|C-?Eval|HumanEval|MBPP|MATH-?500|\bMATH\b|ARC-[CE]\w*|HellaSwag|AIME|GPQA|IFEval|BBH"
    r"|TruthfulQA|LiveCodeBench|MTEB|C-?MTEB"
    r"|DocVQA|MMBench|MMMU|ChartQA|TextVQA|OCRBench|BEIR|SWE-?bench",
    re.I,
)


@dataclass(frozen=True)
class Stated:
    """A bound of a metric with the words around it."""

    bound: Bound
    words: str
    line: int


def check_threshold(context: Context) -> Iterator[Finding]:
    """Figures that miss the threshold stated beside them or elsewhere, under a verdict that says passed."""
    lines = lines_of(context.card)
    verdict = overall_verdict(lines)
    done: set[int] = set()
    for table in context.card.tables:
        yield from _rows(context, table, verdict, done)
    tabled = frozenset(cell.line for table in context.card.tables for row in table.rows for cell in row)
    stated = (*blocks(lines), *pair_blocks(context.card.pairs), *row_blocks(lines, tabled))
    for block in {block.line: block for block in stated if block.line not in done}.values():
        missed = block.bound.misses(block.figure)
        done.add(block.line)
        if missed and block.passed:
            message = "said to pass, and misses the threshold stated beside it"
            recomputed = f"{block.figure.text} against {block.bound.text}"
            yield context.finding(THRESHOLD, Level.CONTRADICTION, block.line, message, recomputed)
    for line in lines:
        if not line.code and line.number not in done:
            yield from _beside(context, line, verdict, done)
    yield from _elsewhere(context, lines, verdict, done)
    if verdict is not None:
        for line in lines:
            if not line.code and _SET_ASIDE.search(line.text):
                message = (
                    f"the threshold is set aside where it is missed, and the verdict (line {verdict.number}) is passed"
                )
                yield context.finding(
                    THRESHOLD,
                    Level.IMPLAUSIBLE,
                    line.number,
                    message,
                    "a threshold decides only if it was fixed before",
                )


def _column(table: Table, wanted: re.Pattern[str]) -> int | None:
    found = [index for index, cell in enumerate(table.header) if wanted.search(cell.text)]
    return found[0] if len(found) == 1 else None


def _rows(context: Context, table: Table, verdict: Line | None, done: set[int]) -> Iterator[Finding]:
    limit = _column(table, _LIMIT_HEAD)
    measured = _column(table, _MEASURED_HEAD)
    value = measured if measured is not None else _column(table, _VALUE_HEAD)
    judged = next(
        (i for i, cell in enumerate(table.header) if i not in (limit, value) and _VERDICT_HEAD.search(cell.text)), None
    )
    if limit is None or value is None or limit == value:
        return
    for row in table.rows:
        bound = bound_in(row[limit].text, row[limit].line)
        figures = numbers_in(row[value].text, row[value].line)
        if bound is None or len(figures) != 1 or figures[0].before in ("<", ">", "≤", "≥", "<=", ">="):
            continue
        words = row[0].text + table.header[value].text
        if _FALL.search(words + row[limit].text) and (_RISE.search(row[value].text) or "+" in row[value].text):
            continue  # a limit on what is lost, and nothing was
        if bound.sense == "+-" and not (_DELTA.search(words) or re.match(r"\s*[-+±]", row[value].text)):
            continue
        done.add(row[0].line)
        missed = bound.misses(figures[0])
        own = row[judged].text if judged is not None else row[value].text
        yield from _outcome(context, row[0], figures[0], bound, missed, own, verdict)


def _outcome(
    context: Context, label: Cell, figure: Number, bound: Bound, missed: bool | None, own: str, verdict: Line | None
) -> Iterator[Finding]:
    passed = bool(PASSED.search(own) or _YES.match(own)) and not NOT_PASSED.search(own)
    failed = bool(NOT_PASSED.search(own))
    recomputed = f"{figure.text} against {bound.text}"
    if missed and passed:
        yield context.finding(
            THRESHOLD,
            Level.CONTRADICTION,
            label.line,
            f"{label.text}: said to pass, and misses its threshold",
            recomputed,
        )
    elif missed and verdict is not None and not failed:
        message = f"{label.text}: misses its threshold, and the verdict (line {verdict.number}) is passed"
        yield context.finding(THRESHOLD, Level.CONTRADICTION, label.line, message, recomputed)
    elif missed and verdict is not None:
        message = f"{label.text}: fails its threshold, and the verdict (line {verdict.number}) is passed"
        yield context.finding(THRESHOLD, Level.IMPLAUSIBLE, label.line, message, recomputed)
    elif missed is False and passed:
        yield context.finding(THRESHOLD, Level.FINE, label.line, f"{label.text}: meets its threshold", recomputed)


_BESIDE = re.compile(
    r"(?:阈值|门限|标准|要求|目标|threshold|criterion|gate|requirement|required|target|limit)\s*(?:为|是|is|of)?\s*[:=]?\s*"
    r"(?=[<>≤≥±]|不|低|高|大|小|至|at |no |below|above|under|over)",
    re.I,
)


def _beside(context: Context, line: Line, verdict: Line | None, done: set[int]) -> Iterator[Finding]:
    """One figure and its threshold in one clause: ``cosine 0.9985 (threshold >= 0.999), passed``."""
    if "|" in line.text:
        return
    for clause in re.split(r"[。;;]|\.\s", line.text):
        named = _BESIDE.search(clause)
        if named is None or len(_BESIDE.findall(clause)) != 1:
            continue
        bound = bound_in(clause[named.end() :][:40], line.number)
        figures = [n for n in numbers_in(clause[: named.start()], line.number) if n.decimals > 0 or n.unit]
        if bound is None or len(figures) != 1 or bound.sense == "+-":
            continue
        missed = bound.misses(figures[0])
        passed = bool(PASSED.search(clause)) and not NOT_PASSED.search(clause)
        if missed and (
            passed or (verdict is not None and verdict.number != line.number and not NOT_PASSED.search(clause))
        ):
            done.add(line.number)
            message = (
                "said to pass, and misses the threshold beside it"
                if passed
                else f"misses the threshold beside it; passed in line {verdict.number if verdict else 0}"
            )
            yield context.finding(
                THRESHOLD, Level.CONTRADICTION, line.number, message, f"{figures[0].text} against {bound.text}"
            )


def _elsewhere(context: Context, lines: tuple[Line, ...], verdict: Line | None, done: set[int]) -> Iterator[Finding]:
    """A metric whose figure stands in one place and whose threshold in another."""
    for name, metric in _METRICS.items():
        stated = list(_bounds_of(metric, lines))
        senses = {each.bound.sense for each in stated}
        if not stated or len(senses) != 1:
            continue
        for words, figure in _figures_of(metric, context):
            if figure.line in done or any(figure.line == each.line for each in stated):
                continue
            fitting = [each for each in stated if _same_kind(each.words, words)]
            if not fitting or not all(each.bound.misses(figure) for each in fitting):
                continue
            if verdict is None and not any(re.search(r"证明|proves?|shows?|一致", each.words) for each in fitting):
                continue
            done.add(figure.line)
            where = ", ".join(str(each.line) for each in fitting)
            end = f"the verdict (line {verdict.number}) is passed" if verdict else "the card says that it is met"
            message = (
                f"{name} {figure.text} misses the card's own threshold {fitting[0].bound.text} (line {where}), and "
                f"{end}"
            )
            yield context.finding(
                THRESHOLD, Level.CONTRADICTION, figure.line, message, f"{figure.text} against {fitting[0].bound.text}"
            )


def _bounds_of(metric: re.Pattern[str], lines: tuple[Line, ...]) -> Iterator[Stated]:
    for line in lines:
        if line.code or not metric.search(line.text) or _MEAN.search(line.text) or _EXTREME.search(line.text):
            continue
        for found in metric.finditer(line.text):
            near = [
                b
                for b in bounds_in(line.text, line.number)
                if 0 <= b.number.start - found.end() <= 24 and b.sense != "+-"
            ]
            if (len(near) == 1 and near[0].number.decimals > 0) or (len(near) == 1 and near[0].number.unit == "%"):
                yield Stated(near[0], line.text, line.number)
                break


def _figures_of(metric: re.Pattern[str], context: Context) -> Iterator[tuple[str, Number]]:
    """Figures of the metric as a whole: in a row that is named after it, or in the row of means of its column."""
    for table in context.card.tables:
        for row in table.rows:
            if (
                metric.search(row[0].text)
                and not _EXTREME.search(row[0].text)
                and not NOT_PASSED.search(" ".join(c.text for c in row))
            ):
                for index, cell in enumerate(row[1:], 1):
                    numbers = numbers_in(cell.text, cell.line)
                    if len(numbers) == 1 and not numbers[0].before:
                        yield row[0].text + " " + table.header[index].text, numbers[0]
    for pair in context.card.pairs:
        numbers = numbers_in(pair.value, pair.line)
        if metric.search(pair.key) and not _EXTREME.search(pair.key) and len(numbers) == 1 and not numbers[0].before:
            yield pair.key, numbers[0]


def _same_kind(first: str, second: str) -> bool:
    """Whether nothing in the two texts says that they speak of different things."""
    for names in (("logits", "hidden", "embedding"), ("fp32", "bf16", "fp16", "int8", "int4")):
        mine = {name for name in names if _KINDS[name].search(first)}
        theirs = {name for name in names if _KINDS[name].search(second)}
        if mine and theirs and not mine & theirs:
            return False
    return True


def check_pending(context: Context) -> Iterator[Finding]:
    """A verdict of passed before the check that the card itself calls the core or final one was run."""
    lines = lines_of(context.card)
    yield from _pending_rows(context)
    verdict = overall_verdict(lines)
    if verdict is None:
        return
    waiting = _core_pending(lines, verdict) or _any_pending(context, lines, verdict)
    if waiting is not None:
        line, what = waiting
        recomputed = f"line {line}: {context.card.quote(line)}"
        yield context.finding(
            WAITING, Level.CONTRADICTION, verdict.number, f"passed, although {what} (line {line})", recomputed
        )


def _pending_rows(context: Context) -> Iterator[Finding]:
    """Rows of checks whose figure is still to come and whose verdict is passed."""
    for table in context.card.tables:
        judged = [index for index, cell in enumerate(table.header) if _VERDICT_HEAD.search(cell.text)]
        for row in table.rows:
            waiting = [c for i, c in enumerate(row) if i not in judged and len(c.text) <= 16 and PENDING.search(c.text)]
            own = " ".join(row[index].text for index in judged)
            if waiting and PASSED.search(own) and not NOT_PASSED.search(own) and not PENDING.search(own):
                message = f"{row[0].text}: said to pass, and its figure is {waiting[0].text!r}"
                yield context.finding(WAITING, Level.CONTRADICTION, row[0].line, message)


def _core_pending(lines: tuple[Line, ...], verdict: Line) -> tuple[int, str] | None:
    """A task that one line makes the core check and another has pending, or one line that says both."""
    core: dict[str, int] = {}
    for line in lines:
        if not line.code and _CORE.search(line.text):
            for task in _TASK.findall(line.text):
                core.setdefault(task.upper().replace("-", ""), line.number)
    for line in lines:
        if line.code or not PENDING.search(line.text) or line.number == verdict.number:
            continue
        waiting = [task.upper().replace("-", "") for task in _TASK.findall(" ".join(cells_of(line.text)))]
        both = next((task for task in waiting if task in core), None)
        if both is not None:
            return line.number, f"{both}, which line {core[both]} makes the core check, is pending"
        if _CORE.search(line.text) and not re.search(r"若|如果|\bif\b", line.text, re.I):
            return line.number, "a core check is pending"
    return None


def _any_pending(context: Context, lines: tuple[Line, ...], verdict: Line) -> tuple[int, str] | None:
    """Under a verdict that speaks of all checks: an unticked one, or a row of checks that was not run."""
    if not _ALL.search(verdict.text):
        return None
    for line in lines:
        if re.match(r"\s*[-*]\s*\[ \]", context.card.lines[line.number - 1]) and PENDING.search(line.text):
            return line.number, "a check of its list is not done"
    for table in context.card.tables:
        if not any(_LIMIT_HEAD.search(cell.text) or re.search(r"检查|check", cell.text, re.I) for cell in table.header):
            continue
        for row in table.rows:
            if any(len(cell.text) <= 16 and PENDING.search(cell.text) for cell in row):
                return row[0].line, f"{row[0].text} is pending, and it says that all are done"
    return None


RULES = (
    Rule(THRESHOLD, "a verdict of passed has no figure that misses its threshold", check_threshold),
    Rule(WAITING, "a verdict of passed has no core check pending", check_pending),
)
