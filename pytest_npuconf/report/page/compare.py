"""Two runs of the same checks: what changed, and whether by more than their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.records import Record
from pytest_npuconf.report.page.lines import measured
from pytest_npuconf.report.reading import Results
from pytest_npuconf.report.words import gate_of, word_of

MOST_ROWS = 400
_ORDER = ("verdict", "worse", "better", "changed", "cannot be told", "within the intervals", "same", "only in one")
_WORSE = {"pass": 0, "waived": 1, "reported": 1, "inconclusive": 2, "fail": 3}


@dataclass(frozen=True)
class Change:
    """One check in both runs; ``word`` of ``_ORDER`` but ``verdict``. ``turned``: its verdict is another."""

    model: str
    check: str
    before: str
    after: str
    before_word: str
    after_word: str
    word: str

    @property
    def turned(self) -> bool:
        """Whether both runs have a verdict, and it is another."""
        return self.word != "only in one" and self.before_word != self.after_word

    @property
    def worse(self) -> bool:
        """Whether the verdict is a worse one."""
        return _WORSE.get(self.after_word, 2) > _WORSE.get(self.before_word, 2)


@dataclass(frozen=True)
class Comparison:
    """``changes`` sorted, what matters first; ``conditions``: facts that are not the same, before and after; ``alone``: models
    that only one run has."""

    before: str
    after: str
    changes: tuple[Change, ...]
    total: int
    counts: Mapping[str, int]
    statuses: tuple[tuple[str, str, str], ...]
    alone: tuple[str, ...]
    conditions: tuple[tuple[str, str, str], ...]
    compared: int


def compare(before: Results, after: Results, names: tuple[str, str]) -> Comparison:
    """Compare check by check.

    Args:
        names: of the two runs, for the messages and the page.

    Raises:
        SettingsError: they have no model in common.
    """
    common = [model for model in after["models"] if model in before["models"]]
    if not common:
        theirs, ours = (", ".join(each["models"]) or "none" for each in (before, after))
        raise SettingsError(
            f"{names[0]} has no model of {names[1]}: {theirs} against {ours}", mend="compare two runs of one model"
        )
    old, new = _records(before, common), _records(after, common)
    changes = [_change(key, old.get(key), new.get(key)) for key in dict.fromkeys([*new, *old])]
    changes.sort(key=lambda change: _ORDER.index("verdict" if change.turned else change.word))
    words = [change.word for change in changes]
    return Comparison(
        f"{names[0]} ({before['created']})",
        f"{names[1]} ({after['created']})",
        tuple(changes[:MOST_ROWS]),
        len(changes),
        {word: words.count(word) for word in _ORDER if word in words},
        tuple((model, before["models"][model]["status"], after["models"][model]["status"]) for model in common),
        tuple(sorted({*before["models"], *after["models"]} - {*common})),
        tuple(_conditions(before, after, common)),
        sum(1 for change in changes if change.word in ("worse", "better", "changed", "within the intervals")),
    )


def _records(results: Results, models: list[str]) -> dict[tuple[str, str], Record]:
    """Of several records of one check the worst, as the closing line takes it."""
    found: dict[tuple[str, str], Record] = {}
    for record in results["checks"]:
        key = (record["model"], record["check"])
        if record["model"] in models and (key not in found or _badness(record) > _badness(found[key])):
            found[key] = record
    return found


def _badness(record: Record) -> int:
    return _WORSE.get(word_of(record), 0)


def _change(key: tuple[str, str], old: Record | None, new: Record | None) -> Change:
    word = difference(old, new) if old is not None and new is not None else "only in one"
    texts = ["not in it" if record is None else measured(record) for record in (old, new)]
    if old is not None and new is not None and (old["sense"], old["bound"]) != (new["sense"], new["bound"]):
        texts = [f"{text}, gate {gate_of(record) or 'none'}" for text, record in zip(texts, (old, new), strict=True)]
    words = ["did not run" if record is None else word_of(record) for record in (old, new)]
    return Change(key[0], key[1], texts[0], texts[1], words[0], words[1], word)


def difference(old: Record, new: Record) -> str:
    """Whether the figure changed by more than both intervals allow; ``better`` or ``worse`` where the gate says which way that is.

    The interval of the difference of two independent estimates, from their own (MOVER: Zou and Donner 2008, Statistics in
    Medicine 27:1693), must not hold zero. Figures without an interval are the same, or it cannot be told.
    """
    if old["value"] is None and new["value"] is None and old["broken"] == new["broken"]:
        return "same"
    if old["value"] is None or new["value"] is None or any(old[name] != new[name] for name in ("metric", "unit")):
        return "cannot be told"
    if old["value"] == new["value"]:
        return "same"
    if not _spread(old) or not _spread(new):
        return "cannot be told"
    if new["sense"] == "+-":
        old, new = _magnitude(old), _magnitude(new)
    low, high = interval_of_difference(old, new)
    if low <= 0 <= high:
        return "within the intervals"
    if new["sense"] not in ("<=", ">=", "+-"):
        return "changed"
    return "worse" if (new["value"] > old["value"]) == (new["sense"] != ">=") else "better"


def _spread(record: Record) -> bool:
    """Whether it has an interval that says something: one of no width was not estimated."""
    return record["interval"] is not None and record["interval"][0] != record["interval"][1]


def _magnitude(record: Record) -> Record:
    """Of a gate on both sides only the distance from zero counts."""
    low, high = (math.inf if end is None else abs(end) for end in record["interval"])
    straddles = (record["interval"][0] is None or record["interval"][0] <= 0) and (
        record["interval"][1] is None or record["interval"][1] >= 0
    )
    return {**record, "value": abs(record["value"]), "interval": [0.0 if straddles else min(low, high), max(low, high)]}


def interval_of_difference(old: Record, new: Record) -> tuple[float, float]:
    """Of ``new - old``, in the measurement's unit; an end that is unbounded in one is unbounded here."""
    a, b = new["value"], old["value"]
    (la, ua), (lb, ub) = (
        (
            -math.inf if each["interval"][0] is None else each["interval"][0],
            math.inf if each["interval"][1] is None else each["interval"][1],
        )
        for each in (new, old)
    )
    return a - b - math.hypot(a - la, ub - b), a - b + math.hypot(ua - a, b - lb)


def _conditions(before: Results, after: Results, models: list[str]) -> list[tuple[str, str, str]]:
    """What else is not the same: a changed figure may come from there."""
    found = []
    for name in ("device", "device_description", "engine", "reference", "fault", "npuconf"):
        found.append((name, str(before["facts"].get(name, "")), str(after["facts"].get(name, ""))))
    for model in models:
        old, new = before["models"][model], after["models"][model]
        found += [(f"{model}: {name}", old[name], new[name]) for name in ("weights", "weights_origin")]
        found.append((f"{model}: card", old["card_sha256"][:12], new["card_sha256"][:12]))
        found.append((f"{model}: precisions", ", ".join(old["precisions"]), ", ".join(new["precisions"])))
        found.append((f"{model}: labels", ", ".join(old["labels"]), ", ".join(new["labels"])))
    prints = [each["facts"]["fingerprint"] for each in (before, after)]
    for group in ("device", "versions", "settings_numeric", "settings_speed"):
        for name in sorted({*prints[0][group], *prints[1][group]}):
            values = [each[group].get(name, {}).get("value", "not read") for each in prints]
            found.append((f"{group}: {name}", values[0], values[1]))
    return [row for row in found if row[1] != row[2]]
