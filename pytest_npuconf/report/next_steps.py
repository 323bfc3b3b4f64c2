"""What to do after a run: one or two lines, by the worst status of its models. Pure."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from pytest_npuconf.conformance import Closing, Status
from pytest_npuconf.options import Settings
from pytest_npuconf.records import Record, settling
from pytest_npuconf.report.terminal import urgency

MOST = 2
_WORST_FIRST = (Status.NOT_CONFORMANT, Status.INCOMPLETE, Status.SUBSET, Status.CONFORMANT)


def next_steps(closings: Sequence[Closing], records: Sequence[Record], settings: Settings) -> list[str]:
    """Lines that begin with ``next:``; none where no model was judged. ``records`` have the node id of their test."""
    found = {closing.status for closing in closings}
    status = next((one for one in _WORST_FIRST if one in found), None)
    if status is None:
        return []
    worst = [closing for closing in closings if closing.status is status]
    if status is Status.NOT_CONFORMANT:
        steps = _of_failed(worst, records, settings)
    elif status is Status.INCOMPLETE:
        steps = _of_incomplete(worst, records, settings)
    elif status is Status.SUBSET:
        steps = [f"the whole run: {_whole(settings)}"]
    else:
        steps = _of_conformant(worst, settings)
    return [f"next: {step}" for step in steps[:MOST]]


def _of_failed(closings: Sequence[Closing], records: Sequence[Record], settings: Settings) -> list[str]:
    """Repeat the worst failed check; which module to look at, where a failed check names one."""
    listed = {(closing.model, check) for closing in closings for check in closing.failed}
    failed = [record for record in _named(listed, records) if record["verdict"] == "fail"]
    steps = [settings.command("-v", failed[0]["nodeid"])] if failed else []
    blamed = next((record for record in failed if record["data"].get("guilty")), None)
    if blamed is not None:
        steps.append(f"look at {blamed['data']['guilty']} first: {blamed['check']} names it")
    return steps


def _of_incomplete(closings: Sequence[Closing], records: Sequence[Record], settings: Settings) -> list[str]:
    """What would make the run whole: first what kept tests from running, then what is undecided, then what is missing."""
    errors = [nodeid for closing in closings for nodeid in closing.errors]
    missing = [check for closing in closings for check in closing.missing]
    listed = {(closing.model, check) for closing in closings for check in closing.inconclusive}
    steps = []
    if any(not closing.model for closing in closings):
        steps.append(f"with files in a folder that can be written: {settings.command()}")
    if any(closing.interrupted for closing in closings):
        steps.append(f"let it run to its end: {_whole(settings)}")
    elif errors:
        steps.append(settings.command("-v", errors[0]))
    steps += [_settling(record) for record in _named(listed, records) if record["verdict"] == "inconclusive"][:1]
    if missing and not steps:
        steps.append(f"run what is missing ({_some(missing)}): {_whole(settings)}")
    return steps


def _of_conformant(closings: Sequence[Closing], settings: Settings) -> list[str]:
    """What can be published of the run."""
    if settings.fault is not None:
        clean = dataclasses.replace(settings, fault=None)
        return [f"without {settings.fault}, which says nothing about the model itself: {_whole(clean)}"]
    if settings.results is None:
        page = ", and --npuconf-report FILE to show it" if settings.report is None else ""
        return [f"add --npuconf-results FILE to keep the evidence{page}"]
    file = shlex.quote(str(settings.results))
    which = f" --model {closings[0].model}" if len(closings) > 1 else ""
    return [f"npuconf card {file}{which} writes its model card", f"npuconf bundle {file} packs the evidence"]


def _named(listed: set[tuple[str, str]], records: Sequence[Record]) -> list[Record]:
    """The records of these models' checks, worst first; of equals, one that names a module."""
    found = [record for record in records if (record["model"], record["check"]) in listed]
    return sorted(found, key=lambda record: (*urgency(record), not record["data"].get("guilty")))


def _settling(record: Record) -> str:
    return f"{record['check']} straddles its bound: {settling(record)}"


def _whole(settings: Settings) -> str:
    """The command of the whole run, with the files that it leaves."""
    asked = {"--npuconf-results": settings.results, "--npuconf-report": settings.report}
    return settings.command(*(word for flag, path in asked.items() if path is not None for word in (flag, str(path))))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
