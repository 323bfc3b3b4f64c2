"""The part of a card that compares with the reference: overview, gated figures, and the values behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_npuconf.records import Record
from pytest_npuconf.report.card import phrases
from pytest_npuconf.report.card.text import escaped, figure, gate_text, margin_text, percent, plain
from pytest_npuconf.report.card.writer import Writer
from pytest_npuconf.report.run import Run, name_of

PPL = ("ppl.delta", "serving.perplexity")
_OUTSIDE = ("model.", "env.", "audit.", "speed.", "functional.", "serving.chat")
_COSINE = ("cosine",)
_ERRORS = ("mae", "rmse", "mean_rel", "active_rel", "within_1e3", "within_5e3", "worst_channel_rel")
_SHORT = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16"}
# row of the overview: check, and the place of the figure in ``data``; a share is printed in per cent
_OVERVIEW: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "cosine": ("logits.cosine", ("statistics", "mean_last_position"), False),
    "rel": ("logits.rel_l2", ("statistics", "mean_last_position"), True),
    "match": ("token.match", ("match",), True),
    "match_low": ("token.match", ("match_lower_bound",), True),
    "ties": ("token.match", ("near_ties",), False),
    "top5": ("token.top5", ("statistics", "mean_last_position"), True),
    "ppl_mean": ("ppl.delta", ("statistics", "mean_abs_delta"), True),
    "ppl_max": ("ppl.delta", ("statistics", "max_abs_delta"), True),
    "ppl_means": ("ppl.delta", ("statistics", "ratio_of_means"), True),
}


def write_precision(page: Writer) -> None:
    """Overview, then each precision pair: gated figures, logits, perplexity, hidden states, places."""
    page.heading(2, page.word("precision"))
    groups = _compared(page.run)
    if not groups:
        page.say("precision.none")
    _overview(page, groups)
    for records in groups.values():
        spoken = condition(records[0])
        page.heading(3, spoken)
        gated = [record for record in records if not record["check"].startswith(_OUTSIDE)]
        if gated:
            page.table(f"{page.word('gated')}, {spoken}", *gate_rows(page, gated))
        _logits(page, records, spoken)
        for record in records:
            if name_of(record["check"]) in PPL and _perplexity(page, record, spoken):
                continue
            if name_of(record["check"]) == "hidden.states":
                _hidden(page, record, spoken)
            if not record["check"].startswith(_OUTSIDE):
                write_places(page, record)


def condition(record: Record) -> str:
    """``NPU BF16 vs CPU FP32``."""
    return f"{device_name(record)} vs {escaped(_side(record['reference']))}"


def device_name(record: Record) -> str:
    """``NPU BF16``, for a column."""
    return escaped(_side(f"{record['device']} {record['precision']}"))


def gate_rows(page: Writer, records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of checks with everything that makes their verdict, numbered: a row is no figure of its check's name."""
    header = ["#", "check", "figure", "outcome", "measured", "interval", "n", "gate", "margin", "role"]
    return header, [[str(k), *_gate_row(page, record)] for k, record in enumerate(records, 1)]


def _gate_row(page: Writer, record: Record) -> list[str]:
    role, gate = page.word(record["role"]), gate_text(record["sense"], record["bound"])
    begun = [escaped(record["check"]), escaped(record["metric"]), outcome(page, record)]
    n = f"{record['n']} {escaped(record['of'])}"
    if record["value"] is None:
        return [*begun, escaped(record["broken"]) or page.word("unusable"), "", n, gate, "", role]
    value, ends, decimals = figure(record["value"], record["interval"], record["bound"])
    value = f"{value} {escaped(record['unit'])}".rstrip()
    return [*begun, value, ends, n, gate, margin_text(record["margin"], decimals), role]


def outcome(page: Writer, record: Record) -> str:
    """The verdict in words."""
    return page.word("waived" if record["waived"] else record["verdict"] or "reported")


def write_places(page: Writer, record: Record) -> None:
    """The places that a record keeps, worst first."""
    rows, check = record["rows"], escaped(record["check"])
    if not rows:
        return
    if all(row["value"] == 0 for row in rows) and record["verdict"] != "fail":
        page.say("zeros", check=check, shown=len(rows))
        return
    shown, total = len(rows), record["data"].get("rows_total")
    known = isinstance(total, int) and total > shown
    kind = "worst_of" if known else "worst" if shown >= 10 else "all_of"
    caption = f"{page.word('places')}, {check}, {page.word(kind, shown=shown, total=total)}"
    cells = [[str(k), escaped(r["place"]), _number(r["value"]), escaped(r["detail"])] for k, r in enumerate(rows, 1)]
    page.table(caption, ["#", "place", "measured", "detail"], cells)


def _overview(page: Writer, groups: Mapping[str, Sequence[Record]]) -> None:
    pairs = [records for records in groups.values() if any(_figure_of(records, key) is not None for key in _OVERVIEW)]
    rows = []
    for key, (_, _, share) in _OVERVIEW.items():
        values = [_figure_of(records, key) for records in pairs]
        if any(value is not None for value in values):
            cells = ["" if v is None else f"{plain(100 * v)} %" if share else plain(v) for v in values]
            rows.append([phrases.overview(page.language, key), *cells])
    if rows:
        page.table(page.word("overview"), ["figure", *(condition(records[0]) for records in pairs)], rows)


def _figure_of(records: Sequence[Record], key: str) -> float | None:
    check, path, _ = _OVERVIEW[key]
    found: Any = next((record["data"] for record in records if name_of(record["check"]) == check), None)
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    return float(found) if _is_number(found) else None


def _logits(page: Writer, records: Sequence[Record], spoken: str) -> None:
    """The prompts' last positions: what each check keeps of them, side by side."""
    names = {"logits.cosine": "cosine_last", "token.match": "top1_last", "token.top5": "top5_last"}
    kept = {
        names[name]: last
        for r in records
        if (name := name_of(r["check"])) in names and (last := _table_of(r, "last_position"))
    }
    prompts = list(dict.fromkeys(prompt for last in kept.values() for prompt in last))
    if not prompts:
        return
    rows = [
        [str(k), escaped(prompt), *(_last(page, key, last.get(prompt)) for key, last in kept.items())]
        for k, prompt in enumerate(prompts, 1)
    ]
    cosines = [float(value) for value in kept.get("cosine_last", {}).values() if _is_number(value)]
    if len(cosines) == len(prompts) > 1:
        mean = _cosine(sum(cosines) / len(cosines))
        rows.append(["", page.word("mean"), *(mean if key == "cosine_last" else "" for key in kept)])
    page.table(f"{page.word('logits')}, {spoken}", ["#", "prompt", *kept], rows)


def _last(page: Writer, key: str, value: Any) -> str:
    """A prompt's last position, by one check."""
    if isinstance(value, bool):
        return page.word("yes" if value else "no")
    if not _is_number(value):
        return ""
    return percent(value, 0) if key == "top5_last" else _cosine(value)


def _perplexity(page: Writer, record: Record, spoken: str) -> bool:
    """Each text's perplexity on both sides, recomputed from the sums that the record keeps; False where a text is left out."""
    texts = {name: found for name, found in _table_of(record, "texts").items() if _is_sums(found)}
    sides = {name: pair for name, found in texts.items() if (pair := _ppl(found)) is not None}
    if not sides:
        return False
    changes = [candidate / reference - 1 for candidate, reference in sides.values()]
    largest = 100 * max(map(abs, changes))
    digits = min(12, max(4, 2 - math.floor(math.log10(largest)))) if largest else 4
    rows = [
        [
            str(k),
            escaped(name),
            plain(texts[name]["tokens"]),
            *_ppl_texts(sides[name], digits),
            *_changes(change, digits),
        ]
        for k, (name, change) in enumerate(zip(sides, changes, strict=True), 1)
    ]
    if len(sides) > 1:
        n, sizes = len(sides), [abs(change) for change in changes]
        means = (sum(pair[0] for pair in sides.values()) / n, sum(pair[1] for pair in sides.values()) / n)
        mean_changes = percent(sum(changes) / n, digits), percent(sum(sizes) / n, digits)
        rows.append(["", page.word("mean"), "", *_ppl_texts(means, digits), *mean_changes])
        rows.append(["", page.word("max"), "", "", "", "", percent(max(sizes), digits)])
    page.say("ppl.note")
    reference = escaped(_side(record["reference"]))
    names = [f"{device_name(record)} PPL", page.word("reference_ppl", device=reference)]
    page.table(
        f"{page.word('ppl')}, {escaped(record['check'])}, {spoken}",
        ["#", "text", "tokens", *names, "change", "abs_change"],
        rows,
    )
    return len(sides) == len(texts)


def _hidden(page: Writer, record: Record, spoken: str) -> None:
    """Cosine and errors in tables apart: they are means, and the two means of a layer bound each other only input by input."""
    layers = {layer: found for layer, found in _table_of(record, "layers").items() if isinstance(found, Mapping)}
    if not layers:
        return
    positions = record["data"].get("positions")
    page.say("hidden.note", n=positions if isinstance(positions, int) else "?")
    for caption, names in (("hidden_cosine", _COSINE), ("hidden_error", ("rel_l2", *_ERRORS))):
        present = [name for name in names if all(_is_number(found.get(name)) for found in layers.values())]
        rows = [
            [
                str(k),
                escaped(layer),
                *(_cosine(found[name]) if name == "cosine" else plain(found[name]) for name in present),
            ]
            for k, (layer, found) in enumerate(layers.items(), 1)
        ]
        if present:
            page.table(f"{page.word(caption)}, {spoken}", ["#", "layer", *present], rows)


def _compared(run: Run) -> dict[str, list[Record]]:
    """The records of each precision pair, but for speed, which has a part of its own."""
    groups = {pair: [r for r in found if not r["check"].startswith("speed.")] for pair, found in run.by_pair.items()}
    return {pair: found for pair, found in groups.items() if found}


def _table_of(record: Record, key: str) -> dict[str, Any]:
    found = record["data"].get(key)
    return found if isinstance(found, dict) else {}


def _is_sums(found: Any) -> bool:
    keys = ("candidate_nll", "reference_nll", "tokens")
    return isinstance(found, Mapping) and all(_is_number(found.get(key)) for key in keys) and found["tokens"] > 0


def _ppl(found: Mapping[str, float]) -> tuple[float, float] | None:
    """Candidate's and reference's; None of a model so broken that it has none."""
    try:
        sides = math.exp(found["candidate_nll"] / found["tokens"]), math.exp(found["reference_nll"] / found["tokens"])
    except OverflowError:
        return None
    return sides if all(sides) else None


def _ppl_texts(sides: tuple[float, float], digits: int) -> list[str]:
    return [f"{value:.{digits}f}" if value < 1e9 else f"{value:.8e}" for value in sides]


def _changes(change: float, digits: int) -> tuple[str, str]:
    return percent(change, digits), percent(abs(change), digits)


def _cosine(value: float) -> str:
    return f"{value:.8f}"


def _number(value: float | None) -> str:
    return "" if value is None else plain(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _side(text: str) -> str:
    device, _, dtype = text.partition(" ")
    return f"{device.upper()} {_SHORT.get(dtype, dtype)}".rstrip()
