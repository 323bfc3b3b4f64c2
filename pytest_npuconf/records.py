"""One check's record: plain JSON values, so that it travels from a worker to the report unchanged."""

from __future__ import annotations

import json
import math
from typing import Any

from pytest_npuconf.claims import ClaimResult
from pytest_npuconf.gates import Gate, Measurement, Row, Sense, Verdict

Record = dict[str, Any]


def make_record(
    check: str,
    measurement: Measurement,
    verdict: Verdict | None,
    claims: list[ClaimResult],
    *,
    model: str,
    precision: str,
    reference: str,
    reference_source: str = "",
    facts: dict[str, str],
    labels: list[str],
    waived: str = "",
) -> Record:
    """The record of one check; ``verdict`` is None for a check that has no gate of its own."""
    gate = verdict.gate if verdict is not None else None
    record = {
        "check": check,
        "model": model,
        "device": facts.get("device", ""),
        "engine": facts.get("engine", ""),
        "precision": precision,
        "reference": reference,
        "reference_source": reference_source,
        "labels": labels,
        "metric": measurement.metric,
        "value": _number(measurement.value),
        "unit": measurement.unit,
        "n": measurement.n,
        "of": measurement.of,
        "interval": [_number(end) for end in measurement.interval] if measurement.interval is not None else None,
        "broken": measurement.broken,
        "worst": _row(measurement.worst) if measurement.worst is not None else None,
        "rows": [_row(row) for row in measurement.rows],
        "data": measurement.data,
        **_gate_fields(gate, verdict),
        "waived": waived,
        "claims": [_claim(result) for result in claims],
    }
    plain: Record = json.loads(json.dumps(record, allow_nan=False, default=_plain))
    return plain


def _plain(value: Any) -> Any:
    """A numpy scalar as Python's own number; anything else is an error of ours."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not belong in a record")


def _gate_fields(gate: Gate | None, verdict: Verdict | None) -> Record:
    if gate is None or verdict is None:
        names = ("verdict", "sense", "bound", "margin", "would_pass", "reason", "source")
        return {**dict.fromkeys(names), "role": "claim"}
    return {
        "verdict": verdict.outcome.value,
        "role": gate.role.value,
        "sense": gate.sense.value,
        "bound": gate.bound,
        "margin": _number(verdict.margin),
        "would_pass": _number(verdict.would_pass),
        "reason": gate.reason,
        "source": gate.source,
    }


def _claim(result: ClaimResult) -> Record:
    claim = result.claim
    return {
        "id": claim.id,
        "documented": claim.documented,
        "gate_stated": claim.gate_stated,
        "source": claim.source,
        "statistic": claim.statistic,
        "measured": result.measured,
        "standing": result.standing.value,
        "reason": claim.reason,
    }


def _row(row: Row) -> Record:
    return {"place": row.place, "value": _number(row.value), "detail": row.detail}


def settling(record: Record) -> str:
    """``about 12 documents would settle it (now 6)``, of an inconclusive record, as its failure said."""
    low, high = record["interval"]
    ends = (-math.inf if low is None else low, math.inf if high is None else high)
    measured = Measurement(record["metric"], record["value"], n=record["n"], interval=ends)
    verdict = Gate(record["check"], record["bound"], Sense(record["sense"])).judge(measured)
    n, of = verdict.settle_n, record["of"]
    enough = f"about {n} {of}" if n is not None else f"no number of {of} that can be told from this"
    return f"{enough} would settle it (now {record['n']})"


def _number(value: float) -> float | None:
    """JSON has no NaN: an unusable number is null, and ``broken`` says why."""
    return value if math.isfinite(value) else None


def properties(record: Record, facts: dict[str, str]) -> list[tuple[str, str]]:
    """JUnit properties of one test case; the session's facts are repeated, because xdist loses suite properties."""
    bound = "" if record["bound"] is None else f"{record['sense']} {record['bound']!r}"
    own = {
        "check": record["check"],
        "metric": record["metric"],
        "value": _text(record["value"]),
        "broken": record["broken"],
        "unit": record["unit"],
        "n": f"{record['n']} {record['of']}",
        "interval": ""
        if record["interval"] is None
        else " ".join("unbounded" if end is None else repr(end) for end in record["interval"]),
        "bound": bound,
        "margin": _text(record["margin"]),
        "would_pass": _text(record["would_pass"]),
        "verdict": record["verdict"] or "none",
        "role": record["role"],
        "model": record["model"],
        "device": record["device"],
        "precision": record["precision"],
        "reference": record["reference"],
        "reference_source": record["reference_source"],
        "labels": ",".join(record["labels"]),
        "worst": f"{record['worst']['place']}: {record['worst']['value']}" if record["worst"] else "",
        "guilty": str(record["data"].get("guilty", "")),
        "claims": "; ".join(f"{c['id']}: {c['standing']}" for c in record["claims"]),
    }
    session = {f"session.{name}": value for name, value in facts.items() if value}
    return [(f"npuconf.{name}", value) for name, value in {**own, **session}.items()]


def _text(value: float | None) -> str:
    return "" if value is None else repr(value)
