"""Header, a line per check, closing lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_npuconf.conformance import Closing, Status
from pytest_npuconf.faults.base import Fault
from pytest_npuconf.gates import Role, format_number
from pytest_npuconf.plan import Plan
from pytest_npuconf.records import Record

_COLOURS = {"pass": {"green": True}, "fail": {"red": True}, "inconclusive": {"yellow": True}}
_ORDER = {"fail": 0, "inconclusive": 1, "pass": 2, None: 3}


def header(plan: Plan) -> list[str]:
    """Lines for pytest's header: device, precision, engine, model, reference, versions, labels."""
    facts = plan.facts
    lines = []
    for name, card in plan.cards.items():
        labels = plan.labels(name)
        lines.append(f"npuconf: {name} ({card.title})" + (f"  [{', '.join(labels)}]" if labels else ""))
        if name in plan.checkpoints:
            checkpoint = plan.checkpoints[name]
            lines.append(f"  weights: {checkpoint.folder} ({checkpoint.origin}, {checkpoint.parameters:,} parameters)")
        lines.append(f"  precision: {', '.join(pair.spoken for pair in plan.pairs(name))} (device/reference)")
    lines.append(f"  device: {plan.device.name}" + (f" ({facts['device_description']})" if facts else " (not probed)"))
    lines.append(f"  engine: {plan.factory.name}, reference: {facts.get('reference', 'not loaded')}")
    lines += [
        f"  not asked for: {name} needs the reference's weights; --npuconf-reference auto or live asks for it"
        for name in plan.not_asked
    ]
    lines += [f"  calibration: {one}" for one in plan.calibrations.digests]
    packages = ("npuconf", "torch", "transformers", "torch_npu", "cann", "cuda", "numpy", "python")
    versions = [f"{package} {facts[package]}" for package in packages if package in facts]
    return [*lines, f"  versions: {', '.join(versions)}"] if versions else lines


def where(plan: Plan, model: str) -> str:
    """``smollm2-135m-instruct on cpu, bfloat16, transformers [CPU, STAND-IN]``."""
    labels = plan.labels(model)
    text = f"{model} on {plan.device.name}, {'+'.join(plan.precisions[model])}, {plan.factory.name}"
    return text + (f" [{', '.join(labels)}]" if labels else "")


def summary(
    reporter: Any, plan: Plan, records: list[Record], closings: list[Closing], claims: str, more: Sequence[str] = ()
) -> None:
    """A line per check, worst first, ``more`` lines about files, then the closing lines."""
    if not records and not closings and not more:
        return
    reporter.section("npuconf", "=")
    for model in dict.fromkeys(record["model"] for record in records):
        mine = sorted((r for r in records if r["model"] == model), key=_urgency)
        if model:
            reporter.write_line(f"{where(plan, model)}; reference {plan.source(model)}")
        width = max(len(r["check"]) for r in mine)
        for record in mine:
            word, line = check_line(record, width)
            reporter.write(f"  {word:<12}", **_COLOURS.get(record["verdict"], {}))
            reporter.write_line(f" {line}")
            for place in _undecided(record):
                reporter.write_line(f"  {'':<12} {'':<{width}}  {place}")
            for claim in record["claims"]:
                reporter.write_line(f"  {'':<12} {'':<{width}}  {claim_line(claim)}")
    for line in more:
        reporter.write_line(line)
    if plan.settings.results is not None:
        reporter.write_line(f"results: {plan.settings.results}")
    for closing in closings:
        good = closing.status is Status.CONFORMANT
        reporter.write_line(closing.line, bold=True, green=good, red=not good)
    if closings:
        reporter.write_line(claims)


def _urgency(record: Record) -> tuple[int, float]:
    left = room_left(record)
    return _ORDER[record["verdict"]], left if left is not None else 1.0


def room_left(record: Record) -> float | None:
    """Share of the bound that is left (negative: overshot), None where the bound is zero or there is none."""
    if record["margin"] is None or not record["bound"]:
        return None
    return float(record["margin"] / abs(record["bound"]))


def check_line(record: Record, width: int) -> tuple[str, str]:
    """``pass`` and ``kl.noise_ratio.bf16_fp32  1.02 [0.95, 1.09]  gate <= 1.5  27 % left  required``."""
    if record["broken"]:
        measured = record["broken"]
    else:
        measured = f"{format_number(record['value'])} {record['unit']}".rstrip()
        if record["interval"] is not None:
            low, high = ("unbounded" if end is None else format_number(end) for end in record["interval"])
            measured += f" [{low}, {high}]"
        measured += f" (n = {record['n']} {record['of']})"
    parts = [f"{record['check']:<{width}}", measured]
    if record["bound"] is not None:
        parts.append(f"gate {record['sense']} {format_number(record['bound'])}")
        left = room_left(record)
        if left is not None:
            share = (
                f"{abs(left):.0%}" if abs(left) < 10 else ">1000%"
            )  # a p value is far from its bound, or a broken model
            parts.append(f"{share} {'left' if left >= 0 else 'over'}")
        elif record["margin"] is not None:
            parts.append(f"margin {format_number(record['margin'])}")
        parts.append(record["role"] + (", waived" if record["waived"] else ""))
    word = "waived" if record["waived"] else record["verdict"] or "reported"
    return word, "  ".join(parts)


def claim_line(claim: Record) -> str:
    """``claim logits.cosine: not reproduced, measured 0.99971, documented gate > 0.9999``."""
    measured = "unusable output" if claim["measured"] is None else f"measured {_numbers(claim['measured'])}"
    gate = f", documented gate {claim['gate_stated']}" if claim["gate_stated"] else ""
    return f"claim {claim['id']}: {claim['standing']}, {measured}{gate}"


def _numbers(measured: float | list[float]) -> str:
    return " ".join(map(format_number, measured)) if isinstance(measured, list) else format_number(measured)


def _undecided(record: Record) -> list[str]:
    """The worst places of a failed check that decides nothing: no failing test tells them."""
    if record["verdict"] != "fail" or record["role"] != Role.CLAIM.value:
        return []
    return [f"{row['place']}: {row['detail'] or format_number(row['value'])}" for row in record["rows"][:3]]


def not_written(reason: str) -> Closing:
    """The line for results that could not be written at the end."""
    return Closing("", Status.INCOMPLETE, f"INCOMPLETE: the results were not written: {reason}", (), (), (), ())


def fault_list(faults: list[Fault]) -> str:
    """Every fault with what it does, for ``--npuconf-fault list``."""
    width = max(len(fault.name) for fault in faults)
    lines = [
        f"  {fault.name:<{width}}  {fault.description} ({fault.magnitude}; caught by {fault.expected})"
        for fault in sorted({f.name: f for f in faults}.values(), key=lambda f: (f.benign, f.name))
    ]
    return "\n".join(["faults of --npuconf-fault:", *lines])
