"""What a calibrating run prints."""

from __future__ import annotations

from pytest_npuconf.calibration.stored import Calibration
from pytest_npuconf.gates import Outcome, format_number

ALARM = "FALSE ALARM"


def table(calibration: Calibration, where: str) -> list[str]:
    """A line per check, the least margin first; then what does not count, what is undecided, and findings."""
    figures = sorted(calibration.figures.items(), key=lambda item: item[1].margin or float("inf"))
    width = max([len(check) for check, _ in figures], default=0)
    lines = [f"{where}: largest of {len(calibration.variants)} benign variants"]
    for check, f in figures:
        itself = calibration.candidate[check].figure
        room = "no room asked for" if f.margin is None else f"{format_number(round(f.margin, 2))} times as far"
        lines.append(
            f"  {check:<{width}}  {format_number(f.largest)} ({f.by}; the candidate itself "
            f"{'none' if itself is None else format_number(itself)})  bound {format_number(f.bound)}, {room}  {f.constant}"
        )
    lines += [f"  not counted: {name}: {why}" for name, why in calibration.not_counted.items()]
    lines += [f"  INCONCLUSIVE {name}: {check} = {said}" for name, check, said in undecided(calibration)]
    return lines + [f"  {finding}" for finding in calibration.findings]


def undecided(calibration: Calibration) -> list[tuple[str, str, str]]:
    """Variant, check and measurement wherever more documents would be needed."""
    return [
        (name, check, judged.said)
        for name, checks in calibration.variants.items()
        for check, judged in checks.items()
        if judged.outcome == Outcome.INCONCLUSIVE.value
    ]


def false_alarms(calibration: Calibration) -> list[str]:
    """The findings that fail the run."""
    return [finding for finding in calibration.findings if finding.startswith(ALARM)]


def closing(calibration: Calibration, where: str) -> str:
    """``CALIBRATED: ... no false alarm``."""
    alarms, open_ones = len(false_alarms(calibration)), len(undecided(calibration))
    word = "CALIBRATED" if not alarms else ALARM
    said = "no false alarm" if not alarms else f"{alarms} of them, named above with their constants"
    more = f", {open_ones} inconclusive" if open_ones else ""
    return f"{word}: {where}: {len(calibration.variants)} benign variants, {said}{more}"
