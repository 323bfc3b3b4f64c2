"""A record in words: its verdict, its figure, its gate and the room that is left. For the terminal and the page alike."""

from __future__ import annotations

from pytest_npuconf.gates import format_number
from pytest_npuconf.records import Record


def word_of(record: Record) -> str:
    """Its verdict, ``waived``, or ``reported`` where it has no gate."""
    if record["waived"]:
        return "waived"
    return record["verdict"] or "reported"


def measured_words(record: Record) -> str:
    """``1.02 ms [0.95, 1.09]`` in the record's unit, or why there is no number."""
    if record["broken"] or record["value"] is None:
        return str(record["broken"] or "no finite number")
    words = f"{format_number(record['value'])} {record['unit']}".rstrip()
    if record["interval"] is not None:
        low, high = ("unbounded" if end is None else format_number(end) for end in record["interval"])
        words += f" [{low}, {high}]"
    return words


def gate_of(record: Record) -> str:
    """``<= 1.5``; empty where there is no gate."""
    return "" if record["bound"] is None else f"{record['sense']} {format_number(record['bound'])}"


def gate_words(record: Record) -> list[str]:
    """``gate <= 1.5`` and ``27% left``: the bound in the record's unit, the room as a share of the bound, or as a margin in
    the unit where the bound is zero. Nothing where there is no gate."""
    if record["bound"] is None:
        return []
    words, left = [f"gate {gate_of(record)}"], room_left(record)
    if left is not None:
        # a p value is far from its bound, or a broken model
        share = f"{abs(left):.0%}" if abs(left) < 10 else ">1000%"
        words.append(f"{share} {'left' if left >= 0 else 'over'}")
    elif record["margin"] is not None:
        words.append(f"margin {format_number(record['margin'])}")
    return words


def room_left(record: Record) -> float | None:
    """Share of the bound that is left (negative: overshot), None where the bound is zero or there is none."""
    if record["margin"] is None or not record["bound"]:
        return None
    return float(record["margin"] / abs(record["bound"]))
