"""From records to the closing lines and the exit status. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from pytest_npuconf.cards.schema import Card
from pytest_npuconf.claims import Standing
from pytest_npuconf.records import Record


class Status(str, Enum):
    """Of one model over its required set; only the first exits 0."""

    CONFORMANT = "CONFORMANT"
    NOT_CONFORMANT = "NOT CONFORMANT"
    INCOMPLETE = "INCOMPLETE"
    SUBSET = "SUBSET"


@dataclass(frozen=True)
class Closing:
    """The closing of one model. ``line`` is what is printed; ``missing`` the required checks without a verdict; ``selected``,
    ``errors`` and ``interrupted`` as :func:`close` was given them."""

    model: str
    status: Status
    line: str
    missing: tuple[str, ...]
    failed: tuple[str, ...]
    inconclusive: tuple[str, ...]
    waived: tuple[str, ...]
    selected: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    interrupted: bool = False


def close(
    model: str,
    required: Iterable[str],
    selected: Iterable[str],
    records: Iterable[Record],
    *,
    where: str,
    interrupted: bool = False,
    errors: Sequence[str] = (),
) -> Closing:
    """Decide over the required set.

    Args:
        required: check ids that the card requires; selected: those that the run was going to run.
        where: what it was measured on, in words, for the line.
        errors: node ids of shipped tests that ended in an error, or that only a strict claim failed.

    A failed required check is ``NOT CONFORMANT``, whatever else; a check that did not run or is inconclusive is
    ``INCOMPLETE``; a run that never selected some required check is a ``SUBSET``, never conformant.
    """
    wanted, chosen = list(required), set(selected)
    if not wanted:
        raise ValueError(f"{model}: nothing is required, so nothing could be conformant")
    found = worst_by_check(record for record in records if record["model"] == model)
    failed = tuple(c for c in wanted if c in found and _failed(found[c]))
    waived = tuple(c for c in wanted if c in found and found[c]["waived"])
    inconclusive = tuple(c for c in wanted if c in found and found[c]["verdict"] == "inconclusive" and c not in waived)
    missing = tuple(c for c in wanted if c not in found)
    covered = [c for c in wanted if c in chosen]
    narrowed = len(covered) < len(wanted)
    unrun = tuple(c for c in missing if c in chosen or not narrowed)
    if failed:
        status, detail = Status.NOT_CONFORMANT, _count(failed, "required check failed", "required checks failed")
    elif interrupted or inconclusive or unrun or errors:
        parts = ["interrupted"] if interrupted else []
        parts += [_count(inconclusive, "is inconclusive", "are inconclusive")] if inconclusive else []
        parts += [_count(unrun, "required check did not run", "required checks did not run")] if unrun else []
        parts += (
            [_count(tuple(errors), "test failed outside its gate", "tests failed outside their gates")]
            if errors
            else []
        )
        status, detail = Status.INCOMPLETE, "; ".join(parts)
    elif narrowed:
        status, detail = Status.SUBSET, f"{len(covered)} of {len(wanted)} required checks: {where}: it decides nothing"
    else:
        passed = len(wanted) - len(waived)
        status, detail = Status.CONFORMANT, f"{passed} of {len(wanted)} required checks passed"
        detail += f", {len(waived)} waived ({', '.join(waived)})" if waived else ""
    if narrowed and status is not Status.SUBSET:
        detail += f" (SUBSET: {len(covered)} of {len(wanted)} required checks)"
    if status is not Status.SUBSET:
        detail = f"{where}: {detail}"
    line, told = f"{status.value}: {detail}", (tuple(sorted(chosen)), tuple(errors), interrupted)
    return Closing(model, status, line, missing, failed, inconclusive, waived, *told)


_SEVERITY = {"fail": 0, "inconclusive": 1, "pass": 2}


def worst_by_check(records: Iterable[Record]) -> dict[str, Record]:
    """The worst record of each check: a rerun that passes hides no failure. A record without a verdict decided nothing."""
    found: dict[str, Record] = {}
    for record in records:
        if record["verdict"] is None:
            continue
        before = found.get(record["check"])
        if before is None or _SEVERITY[record["verdict"]] < _SEVERITY[before["verdict"]]:
            found[record["check"]] = record
    return found


def _failed(record: Record) -> bool:
    return record["verdict"] == "fail" and not record["waived"]


def _count(names: tuple[str, ...], one: str, many: str) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {one if len(names) == 1 else many}: {shown}"


# worst first: of a claim that was recorded twice, the worst stands
_STANDINGS = (Standing.CONTRADICTED.value, Standing.NOT_REPRODUCED.value, Standing.REPRODUCED.value)


def claims_line(cards: Iterable[Card], records: Iterable[Record]) -> tuple[str, dict[str, int]]:
    """``CLAIMS: n reproduced, n not, n contradicted``, with how many of the documents' claims nothing here measures."""
    total = sum(len(card.claims) for card in cards)
    found: dict[tuple[str, str], str] = {}
    for record in records:
        for claim in record["claims"]:
            key = (record["model"], claim["id"])
            if key not in found or _STANDINGS.index(claim["standing"]) < _STANDINGS.index(found[key]):
                found[key] = claim["standing"]
    counts = {standing.value: list(found.values()).count(standing.value) for standing in Standing}
    counts["not measured"] = total - len(found)
    line = f"CLAIMS: {counts['reproduced']} reproduced, {counts['not reproduced']} not, {counts['contradicted']} contradicted"
    return line + (
        f" ({counts['not measured']} of {total} not measured by this run)" if counts["not measured"] else ""
    ), counts
