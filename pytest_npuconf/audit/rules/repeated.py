"""repeated-quantity: the same thing given twice, with values that no rounding joins."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.clauses import clauses
from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.facts import BYTES, Parameters
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import plain
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.quantities import Name, read_name
from pytest_npuconf.audit.rules._grid import Grid, Row, exact, grids, stated
from pytest_npuconf.audit.rules._other_models import another, apart, other_configuration, widened
from pytest_npuconf.audit.rules._performance import has_input, is_one_stream, runs
from pytest_npuconf.audit.rules._same_again import odd_latency, vector_lengths, windows
from pytest_npuconf.audit.rules.overview import OVERVIEW

# Of one text on one device in one number format these have one value, whatever the table is about.
_DETERMINED = {"ppl", "loss", "length"}
_ERRORS = {"cosine", "mae", "rmse", "mse", "max_abs", "rel", "rel_l2", "abs", "kl"}
_SPEEDS = {"throughput", "request_throughput", "latency", "ttft", "tpot", "itl", "weight_size"}
_PARTS = re.compile(
    r"视觉|vision|文本|text|draft|草稿|encoder|编码器|解码器|decoder|teacher|教师|"
    r"student|学生|audio|音频|projector|baseline|对比|原始|original|base",
    re.IGNORECASE,
)
_OTHER_PART = re.compile(
    r"ViT|vision|视觉|[-_ ]VL\b|draft|encoder|decoder:|audio|音频|teacher|student|projector|_config\"|^#"
    r"|^\s*(?:[-*+]\s+)?\*\*[^*]+\*\*\s*:?\s*$|^\W*[^:=]{0,60}\d\s?[BM]\b[^:=]{0,40}:\W*$",  # a line that only names what follows
    re.IGNORECASE,
)
# Under another of these a speed is another speed.
_SETTING = re.compile(
    r"(?:batch(?:[-_ ]?size)?|\bbs|并发数?|concurrency|输入(?:长度)?|input(?: length)?|num[-_]prompts|\bTP|\bEP|\bDP)\W{0,3}\d"
    r"|\d\s?(?:并发|卡|路)",
    re.IGNORECASE,
)
_LAYERS = re.compile(r"(?:transformer|解码器|decoder)[^。;.\n\d]{0,12}?(\d{1,3})\s*(?:层|layers\b)", re.IGNORECASE)
_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
    "max_position_embeddings", "rope_theta", "rms_norm_eps", "tie_word_embeddings", "num_experts", "num_experts_per_tok",
    "moe_intermediate_size",
)  # fmt: skip


def _configuration(context: Context) -> Iterator[Finding]:
    facts = context.facts
    for key in _KEYS:
        stated_values = facts.stated_config.get(key, [])
        if key in facts.given:
            for fact in stated_values:
                if fact.value != facts.given[key]:
                    message = f"{key} is {fact.value}, config.json has {facts.given[key]}"
                    yield context.finding(
                        "repeated-quantity", Level.CONTRADICTION, fact.line, message, f"config.json: {facts.given[key]}"
                    )
            continue
        values = {fact.value for fact in stated_values}
        sections = " ".join(context.card.section_at(fact.line) for fact in stated_values)
        if (
            len(values) > 1
            and not _PARTS.search(sections)
            and not facts.has(r"vision_config|视觉编码器|vision encoder")
        ):
            first = stated_values[0]
            other = next(fact for fact in stated_values if fact.value != first.value)
            between = context.card.lines[min(first.line, other.line) - 1 : max(first.line, other.line)]
            if any(_OTHER_PART.search(text) for text in between) or apart(context, first.line, other.line):
                continue
            if other_configuration(context, first.line, other.line):
                continue
            message = f"{key} is {other.value} here and {first.value} on line {first.line}"
            yield context.finding(
                "repeated-quantity", Level.CONTRADICTION, other.line, message, f"{first.text} / {other.text}"
            )
    layers = facts.integer("num_hidden_layers")
    for pair in context.card.pairs:
        match = _LAYERS.search(pair.value)
        if match and layers and pair.line != facts.config_line("num_hidden_layers"):
            same = int(match.group(1)) == layers
            if same or not _PARTS.search(pair.key + pair.section):
                message = f"{match.group(1)} layers" + (
                    " as in the configuration" if same else f", the configuration has {layers}"
                )
                level = Level.FINE if same else Level.CONTRADICTION
                yield context.finding("repeated-quantity", level, pair.line, message, f"num_hidden_layers {layers}")


def _parameters(context: Context) -> Iterator[Finding]:
    by_kind: dict[str, list[Parameters]] = {}
    for p in context.facts.parameters:
        by_kind.setdefault(p.kind, []).append(p)
    for kind, found in by_kind.items():
        first = min(found, key=lambda p: (p.loose, p.line))
        for other in found:
            if (other.line == first.line and other.text == first.text) or _PARTS.search(
                context.card.section_at(other.line)
            ):
                continue
            if widened(other).overlaps(widened(first)):
                yield context.finding(
                    "repeated-quantity",
                    Level.FINE,
                    other.line,
                    f"{other.text} and {first.text} agree",
                    f"{kind} parameters",
                )
            elif not 0.5 <= other.value.middle / first.value.middle <= 2.0 or another(context, other, first, found):
                continue  # another model, or a part of it
            else:
                message = f"{other.text} parameters here, {first.text} on line {first.line}"
                yield context.finding(
                    "repeated-quantity", Level.CONTRADICTION, other.line, message, "outside the rounding of both"
                )


def _subject(label: str) -> str:
    """The text in the first cell, if it is long enough to be an input text and no setting; else an empty text."""
    text = re.sub(r"[\s.…\"'“”。,!?]+", " ", label.lower()).strip()
    words, chinese = len(text.split()), len(re.findall(r"[\u4e00-\u9fff]", text))
    return text if (words >= 3 or chinese >= 8) and not re.search(r"=|\btokens?\b|batch|并发|concurren", text) else ""


def _determined(grid: Grid, j: int) -> Name | None:
    """The column's name where it says quantity, device and number format, and nothing else."""
    name = grid.names[j]
    if (
        name.quantity in _DETERMINED
        and not name.delta
        and not name.rest
        and not name.aggregate
        and len(name.devices) == 1
        and len(name.dtypes) == 1
    ):
        return name
    return None


def _texts(context: Context) -> Iterator[Finding]:
    """The same text, device and number format in two tables: one finding for a pair of columns."""
    known: dict[tuple[str, frozenset[str], str], tuple[Number, Grid]] = {}
    clashes: dict[tuple[int, int, int], list[tuple[Row, Number, Number]]] = {}
    same: dict[tuple[int, int, int], list[tuple[Row, Number, Number]]] = {}
    for grid in grids(context.card):
        for j in range(1, len(grid.names)):
            name = _determined(grid, j)
            for row in grid.details if name is not None else ():
                number, subject = exact(row.numbers[j]), _subject(row.label)
                if number is None or not subject or name is None:
                    continue
                earlier = known.setdefault((name.quantity, name.tags, subject), (number, grid))
                if earlier[1] is not grid:
                    target = same if stated(earlier[0]).overlaps(stated(number)) else clashes
                    target.setdefault((earlier[1].table.line, grid.table.line, j), []).append((row, earlier[0], number))
    for (_, line, j), rows in clashes.items():
        table = next(t for t in context.card.tables if t.line == line)
        ratios = sorted(
            max(a.value, b.value) / min(a.value, b.value) for _, a, b in rows if a.value > 0 and b.value > 0
        )
        row, a, b = rows[0]
        message = (
            f"{table.header[j].text} of {row.label!r} is {b.text} here and {a.text} "
            f"on line {a.line}: the same text, device and number format"
        )
        how = f"{len(rows)} texts differ" + (f", by factors of {ratios[0]:.3g} to {ratios[-1]:.3g}" if ratios else "")
        how += ": " + "; ".join(f"{x.text} / {y.text}" for _, x, y in rows[:8])
        yield context.finding("repeated-quantity", Level.CONTRADICTION, b.line, message, how)
    for key, rows in same.items():
        if key not in clashes:
            yield context.finding(
                "repeated-quantity",
                Level.FINE,
                rows[0][2].line,
                f"{len(rows)} texts have the same value in both tables",
            )


def _speeds(context: Context) -> Iterator[Finding]:
    """A figure of an overview or of prose against the only other figure of that name in the card."""
    figures: list[tuple[Number, Name, str]] = []
    for pair in context.card.pairs:
        name = read_name(pair.key)
        numbers = numbers_in(pair.value, pair.line)
        if (
            name.quantity in _SPEEDS
            and numbers
            and numbers[0].start <= 2
            and exact(numbers[0])
            and not name.delta
            and not name.ratio
        ):
            figures.append((numbers[0], name, pair.section))
    in_tables = {
        name.quantity
        for grid in grids(context.card)
        for name in (*grid.names, *(read_name(r.label) for r in grid.rows))
        if len(grid.names) > 2
    }
    for clause in clauses(context.card):
        if clause.name.quantity in _SPEEDS and exact(clause.number) and not clause.name.delta and not clause.name.ratio:
            alone = not re.search(
                r"并发|concurren|batch|输入|input|QPS|req/s|提升|降低|优化前|原来|若|如果|\bif\b|"
                r"目标|target|期望|expect|about to|GPU|A100|基线|baseline",
                clause.text,
                re.IGNORECASE,
            )
            if alone and not clause.name.rest and (clause.number.line not in {f[0].line for f in figures}):
                figures.append((clause.number, clause.name, clause.section))
    groups: dict[tuple[str, str, frozenset[str], str, str], list[tuple[Number, Name, str]]] = {}
    for number, name, section in figures:
        groups.setdefault(
            (name.quantity, name.aggregate.replace("mean", ""), name.tags, name.rest, number.unit), []
        ).append((number, name, section))
    for (quantity, *_), found in groups.items():
        if len(found) != 2 or quantity in in_tables or found[0][0].line == found[1][0].line:
            continue
        (a, _, first), (b, _, second) = found
        if quantity == "weight_size" and (found[0][1].text != found[1][1].text or found[0][0].unit not in BYTES):
            continue
        if stated(a).overlaps(stated(b)):
            yield context.finding(
                "repeated-quantity", Level.FINE, b.line, f"{b.text} agrees with {a.text} on line {a.line}"
            )
        elif OVERVIEW.search(first) or OVERVIEW.search(second) or _same_place(context, found):
            message = f"{found[1][1].text} is {b.text} here and {a.text} on line {a.line}"
            yield context.finding(
                "repeated-quantity",
                Level.CONTRADICTION,
                b.line,
                message,
                f"{plain(a.value)} / {plain(b.value)} {b.unit}",
            )


def _twins(context: Context) -> Iterator[Finding]:
    """Two lists with the same names of errors, one of them with the same figure in both: the others must be the same too."""
    by_section: dict[str, dict[str, Number]] = {}
    for pair in context.card.pairs:
        numbers = numbers_in(pair.value, pair.line)
        if len(numbers) == 1 and read_name(pair.key).quantity in _ERRORS and numbers[0].decimals >= 4:
            by_section.setdefault(pair.section, {}).setdefault(" ".join(pair.key.lower().split()), numbers[0])
    sections = list(by_section.values())
    for i, first in enumerate(sections):
        for second in sections[i + 1 :]:
            common = [key for key in first if key in second]
            equal = [
                key for key in common if first[key].value == second[key].value and first[key].value not in (0.0, 1.0)
            ]
            for key in common if equal else ():
                a, b = sorted((first[key], second[key]), key=lambda n: n.line)
                if not stated(a).overlaps(stated(b)):
                    message = (
                        f"{key} is {a.text} here and {b.text} on line {b.line}, while {equal[0]} is the same in both"
                    )
                    yield context.finding(
                        "repeated-quantity", Level.CONTRADICTION, a.line, message, f"{a.text} / {b.text}"
                    )


_AT = re.compile(
    r"(?:并发|concurrency)(?:数|为|\s|of|=|:)*(\d+)[^。;.\d]{0,16}?(?:吞吐|"
    r"throughput|speed)?[^。;\d]{0,14}?(\d[\d,]*(?:\.\d+)?)\s?(?:tok|"
    r"token|tokens)/s",
    re.IGNORECASE,
)


def _at_concurrency(context: Context) -> Iterator[Finding]:
    """ "2210 tok/s at concurrency 64" against the rows of that concurrency."""
    rows = [
        (run.streams, run.speeds["throughput"]) for run in runs(context) if "throughput" in run.speeds and run.streams
    ]
    for prose in context.card.proses:
        for match in _AT.finditer(prose.text[:4000]):
            same = [speed for streams, speed in rows if streams == float(match.group(1)) and speed.line != prose.line]
            numbers = numbers_in(f"{match.group(2)} tok/s", prose.line)
            if len(same) == 1 and numbers and not has_input(same[0]) and not is_one_stream(same[0]):
                agrees = stated(numbers[0]).overlaps(same[0].value)
                message = f"{numbers[0].text} at concurrency {match.group(1)}, the table has {same[0].text} (line {same[0].line})"
                level = Level.FINE if agrees else Level.CONTRADICTION
                yield context.finding(
                    "repeated-quantity", level, prose.line, message, f"{numbers[0].text} / {same[0].text}"
                )


def _same_place(context: Context, found: list[tuple[Number, Name, str]]) -> bool:
    """One section, and nothing from the first figure to the second that sets another batch or load."""
    (a, _, first), (b, _, second) = found
    lines = context.card.lines[min(a.line, b.line) - 1 : max(a.line, b.line)]
    return bool(first) and first == second and not any(_SETTING.search(line) for line in lines)


def check(context: Context) -> Iterator[Finding]:
    """Configuration, parameters, texts in two tables, and speeds in overview and detail."""
    yield from _configuration(context)
    yield from _parameters(context)
    yield from _texts(context)
    yield from _speeds(context)
    yield from _at_concurrency(context)
    yield from _twins(context)
    yield from windows(context)
    yield from vector_lengths(context)
    yield from odd_latency(context)


RULES: tuple[Rule, ...] = (Rule("repeated-quantity", "The same quantity has one value", check),)
