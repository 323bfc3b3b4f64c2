"""Words of the terminal: the header, and one line for a check or a claim."""

from __future__ import annotations

import math

from pytest_npuconf.conformance import Closing, Status
from pytest_npuconf.faults.base import Fault
from pytest_npuconf.gates import Role, format_number
from pytest_npuconf.plan import Plan
from pytest_npuconf.records import Record
from pytest_npuconf.report.words import gate_words, measured_words, room_left, word_of

UNUSABLE = "unusable output"


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


def urgency(record: Record) -> tuple[int, float]:
    """Sorts records, worst first: what decides before what does not, then by the share of the bound that is left. Without a
    number nothing is left; an exact check has no share: failed, it comes after those that have one, and so it does passed."""
    verdict, left = record["verdict"], room_left(record)
    if verdict is None:
        return 6, 0.0
    decides = record["role"] == Role.REQUIRED.value
    rank = {"fail": 0 if decides else 2, "inconclusive": 1 if decides else 3, "pass": 5}[verdict]
    if record["margin"] is None:
        left = -math.inf
    elif left is None:
        left = 0.0 if record["margin"] < 0 else math.inf
    return 4 if record["waived"] else rank, left


def check_line(record: Record, width: int) -> tuple[str, str]:
    """``pass`` and ``kl.noise_ratio.bf16_fp32  1.02 [0.95, 1.09]  gate <= 1.5  27 % left  required``."""
    measured = measured_words(record) + ("" if record["broken"] else f" (n = {record['n']} {record['of']})")
    parts = [f"{record['check']:<{width}}", measured, *gate_words(record)]
    if record["bound"] is not None:
        parts.append(record["role"] + (", waived" if record["waived"] else ""))
    return word_of(record), "  ".join(parts)


def claim_line(claim: Record) -> str:
    """``claim logits.cosine: not reproduced, measured 0.99971, documented gate > 0.9999``."""
    measured = UNUSABLE if claim["measured"] is None else f"measured {_numbers(claim['measured'])}"
    gate = f", documented gate {claim['gate_stated']}" if claim["gate_stated"] else ""
    return f"claim {claim['id']}: {claim['standing']}, {measured}{gate}"


def _numbers(measured: float | list[float]) -> str:
    return " ".join(map(format_number, measured)) if isinstance(measured, list) else format_number(measured)


def undecided(record: Record) -> list[str]:
    """The worst places of a failed check that decides nothing: no failing test tells them."""
    if record["verdict"] != "fail" or record["role"] != Role.CLAIM.value:
        return []
    return [f"{row['place']}: {row['detail'] or _value(row['value'])}" for row in record["rows"][:3]]


def _value(value: float | None) -> str:
    return "no number" if value is None else format_number(value)


def not_written(reason: str) -> Closing:
    """The line for results that could not be written at the end."""
    return Closing("", Status.INCOMPLETE, f"INCOMPLETE: not written: {reason}", (), (), (), ())


def fault_list(faults: list[Fault]) -> str:
    """Every fault with what it does, for ``--npuconf-fault list``."""
    width = max(len(fault.name) for fault in faults)
    lines = [
        f"  {fault.name:<{width}}  {fault.description} ({fault.magnitude}; caught by {fault.expected})"
        for fault in sorted({f.name: f for f in faults}.values(), key=lambda f: (f.benign, f.name))
    ]
    return "\n".join(["faults of --npuconf-fault:", *lines])
