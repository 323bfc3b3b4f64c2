"""Gate lint: thresholds that decide nothing, or the wrong thing. For cards in prose, and for a card.toml."""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.lines import DENIED, NOT_PASSED, Line, lines_of
from pytest_npuconf.audit.numbers import numbers_in
from pytest_npuconf.audit.rules._thresholds import Bound, bounds_in
from pytest_npuconf.audit.rules._toml_gates import lint_text
from pytest_npuconf.errors import CardError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ID = "gate"
_COSINE = re.compile(r"余弦|cosine|\bcos[_ ]?sim", re.I)
_MATCH = re.compile(r"token.{0,8}(?:匹配|一致)|(?:token|top-?1|argmax) (?:match|agreement)", re.I)
_ERROR = re.compile(r"相对误差|relative error|(?:PPL|perplexity|困惑度).{0,10}(?:差异|偏差|delta|diff|change)", re.I)
_ACCURACY = re.compile(
    r"准确率|accuracy|GSM-?8K|C?MMLU|C-?Eval|HumanEval|MBPP|MATH|得分|score|评分|acc\b|exact match", re.I
)
_LOWER = re.compile(r"下降|降低|低于|损失|\b(?:below|drop|loss|lower|decrease|worse)\b", re.I)
_THROUGHPUT = re.compile(r"吞吐|throughput|tok(?:en)?s?/s", re.I)
_GATE_WORD = re.compile(
    r"门禁|阈值|门限|标准|要求|通过|容差|允许|threshold|gate|criteri|requirement|must|tolerance|pass|within|target|limit",
    re.I,
)
_WAIVER = re.compile(r"豁免|免检|已知失败|预期失败|\bwaiv(?:er|ed?)\b|expected failure|known failure|\bxfail\b", re.I)
_REASON = re.compile(r"因为|由于|原因|理由|because|due to|reason|since|https?://|#\d+|issue", re.I)
_DATE = re.compile(r"(20\d\d)[-/.年](\d{1,2})[-/.月](\d{1,2})")
_UNTIL = re.compile(r"有效期|截止|到期|直到|截至|失效|until|expir|valid (?:to|through)|lapses", re.I)
COSINE_FAILS_NOTHING, COSINE_PASSES_FAULTS = 0.9, 0.99
FAR = 20.0


def check(context: Context) -> Iterator[Finding]:
    """Gates of a card in prose or tables."""
    lines = [line for line in lines_of(context.card) if not line.code]
    spoken = [line for line in lines if _THROUGHPUT.search(line.text)]
    speeds = [
        n.value for line in spoken for n in numbers_in(line.text, line.number) if n.unit == "tok/s" and not n.before
    ]
    fastest, heads = max(speeds, default=0.0), _heads(context)
    said: set[str] = set()
    for line in lines:
        for finding, key in _line(context, line, fastest, heads):
            if key not in said:
                said.add(key)
                yield finding
        yield from _waived(context, line)
    yield from _waiver_tables(context)


def _line(context: Context, line: Line, fastest: float, heads: dict[int, str]) -> Iterator[tuple[Finding, str]]:
    gates = bounds_in(line.text, line.number)
    if not gates or DENIED.search(line.text):
        return
    header = heads.get(line.number, "")
    if not _GATE_WORD.search(line.text + " " + header):
        return
    for gate in gates:
        before = line.text[max(0, gate.number.start - 40) : gate.number.start]
        found = _judge(gate, before, line.text, fastest)
        if found is not None:
            level, message, recomputed = found
            yield context.finding(ID, level, line.number, message, recomputed), f"{gate.text} {message}"


def _heads(context: Context) -> dict[int, str]:
    """The header of the tables that have a cell on the line."""
    found: dict[int, str] = {}
    for table in context.card.tables:
        header = " ".join(cell.text for cell in table.header)
        for number in {cell.line for row in table.rows for cell in row}:
            found[number] = f"{found[number]} {header}" if number in found else header
    return found


def _judge(gate: Bound, before: str, text: str, fastest: float) -> tuple[Level, str, str] | None:
    value, unit = gate.number.value, gate.number.unit
    if _COSINE.search(before) and gate.sense == ">" and unit == "" and value < 1:
        return judge_cosine(value)
    if _MATCH.search(before) and gate.sense == ">" and unit == "%" and value <= 50:
        return (
            Level.IMPLAUSIBLE,
            f"a token match of {gate.text} cannot fail: a broken model can still agree on half of the tokens",
            "",
        )
    if _ERROR.search(before) and gate.sense in "<+-" and unit == "%" and value >= 50:
        return (
            Level.IMPLAUSIBLE,
            f"an error of {gate.text} is far beyond any rounding: the gate cannot fail",
            "bfloat16 keeps 8 bits: 0.4 % a rounding",
        )
    if gate.sense == "+-" and unit in ("pp", "%") and _ACCURACY.search(text):
        return _two_sided(gate, value, text)
    if gate.sense == "<" and unit in ("pp", "%") and value >= 10 and _ACCURACY.search(text) and _LOWER.search(text):
        return Level.IMPLAUSIBLE, f"a loss of {gate.text} on a score is far beyond its noise: the gate cannot fail", ""
    if _THROUGHPUT.search(before + text) and gate.sense == ">" and unit == "tok/s" and 0 < value * FAR <= fastest:
        level = Level.IMPLAUSIBLE if value <= 1 else Level.AMBIGUOUS
        return (
            level,
            f"a throughput of {gate.text} gates nothing where {fastest:g} tok/s are stated",
            f"{fastest:g} / {value:g} = {fastest / value:.0f}",
        )
    return None


def judge_cosine(bound: float) -> tuple[Level, str, str] | None:
    """A least cosine against what broken models were measured to have."""
    seen = "measured on SmolLM2-135M: RoPE in bfloat16 0.9948, a future leak 0.9920, a stale KV block 0.9996"
    if bound <= COSINE_FAILS_NOTHING:
        return (
            Level.IMPLAUSIBLE,
            f"a cosine above {bound:g} cannot fail: models with faults that anyone would see are above it",
            seen,
        )
    if bound <= COSINE_PASSES_FAULTS:
        return Level.AMBIGUOUS, f"a cosine above {bound:g} passes known faults", seen
    return None


def _two_sided(gate: Bound, value: float, text: str) -> tuple[Level, str, str]:
    if value >= 10:
        noise = "two runs on 1,319 items at 0.7 differ by 1.8 points (one standard deviation)"
        return (
            Level.IMPLAUSIBLE,
            f"a tolerance of {gate.text} on a score is far beyond its noise: the gate cannot fail",
            noise,
        )
    if NOT_PASSED.search(text) and re.search(r"提高|提升|上升|improve|increase|better|gain", text, re.I):
        return Level.IMPLAUSIBLE, f"{gate.text} is two-sided, and fails this improvement", ""
    return Level.AMBIGUOUS, f"{gate.text} is two-sided: it fails a model that does better by as much", ""


def _waived(context: Context, line: Line) -> Iterator[Finding]:
    if not _WAIVER.search(line.text) or re.search(r"\bno waiv|无豁免|没有豁免", line.text, re.I):
        return
    expires = _date_in(line.text)
    if expires is None or "|" in line.text or not _UNTIL.search(line.text):
        return
    if expires < context.today:
        message = f"the waiver lapsed on {expires}: what it covers fails now"
        yield context.finding(ID, Level.IMPLAUSIBLE, line.number, message, f"today is {context.today}")
    elif not _REASON.search(line.text):
        yield context.finding(ID, Level.UNSUPPORTED, line.number, "the waiver gives no reason")


def _waiver_tables(context: Context) -> Iterator[Finding]:
    """Tables of waivers: each needs a reason, and a date that is not past."""
    for table in context.card.tables:
        heads = " ".join(cell.text for cell in table.header)
        if not _WAIVER.search(heads + " " + table.section):
            continue
        reason = next(
            (i for i, cell in enumerate(table.header) if re.search(r"理由|原因|reason|why", cell.text, re.I)), None
        )
        until = next(
            (i for i, cell in enumerate(table.header) if re.search(r"到期|截止|有效|until|expir", cell.text, re.I)),
            None,
        )
        for row in table.rows:
            if reason is not None and not row[reason].text.strip():
                yield context.finding(
                    ID, Level.UNSUPPORTED, row[0].line, f"the waiver of {row[0].text} gives no reason"
                )
            expires = _date_in(row[until].text) if until is not None else None
            if expires is not None and expires < context.today:
                message = f"the waiver of {row[0].text} lapsed on {expires}: what it covers fails now"
                yield context.finding(ID, Level.IMPLAUSIBLE, row[0].line, message, f"today is {context.today}")


def _date_in(text: str) -> datetime.date | None:
    found = _DATE.search(text)
    try:
        return datetime.date(int(found[1]), int(found[2]), int(found[3])) if found else None
    except ValueError:
        return None


def lint_card(path: Path, today: datetime.date | None = None) -> list[Finding]:
    """The gates, claims and waivers of a card.toml.

    Raises:
        CardError: the file cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise CardError(f"{path}: cannot be read as TOML: {error}", mend=f"check the file: {path}") from error
    return list(lint_text(data, text.split("\n"), today or datetime.date.today()))


RULES = (Rule(ID, "gates can fail, and fail what they should", check),)
