"""Reading a results.json for the card: whole, of this schema, finite, and of one model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_npuconf.audit.output import safe
from pytest_npuconf.conformance import Status
from pytest_npuconf.errors import SettingsError, nearest
from pytest_npuconf.records import Record
from pytest_npuconf.report.results import SCHEMA_VERSION, schema

AGAIN = "pytest --model NAME --npuconf-results FILE writes one"
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float), "null": (type(None),),
}  # fmt: skip
_LONGEST_INTEGER = 40  # digits
_PAIR = re.compile(r"[a-z]+\d+_[a-z]+\d+")


@dataclass(frozen=True)
class Run:
    """One model's part of one run. ``facts``: strings; ``fingerprint``: readings by group, empty where an older run has none."""

    model: str
    summary: Mapping[str, Any]
    facts: Mapping[str, str]
    fingerprint: Mapping[str, Mapping[str, Mapping[str, str]]]
    checks: tuple[Record, ...]
    created: str

    def of(self, *names: str) -> list[Record]:
        """The records of the checks of these names, whatever their precision pair."""
        return [record for record in self.checks if name_of(record["check"]) in names]

    @property
    def by_pair(self) -> dict[str, list[Record]]:
        """The records of each precision pair: the run's precisions in their order, each against float32 first."""
        groups: dict[str, list[Record]] = {}
        for record in self.checks:
            if pair := pair_of(record["check"]):
                groups.setdefault(pair, []).append(record)
        order = {precision: place for place, precision in enumerate(self.summary["precisions"])}
        ranks = {p: (order.get(r[0]["precision"], len(order)), not p.endswith("_fp32")) for p, r in groups.items()}
        return {pair: groups[pair] for pair in sorted(groups, key=lambda pair: ranks[pair])}


def name_of(check: str) -> str:
    """``kl.noise_ratio`` of ``kl.noise_ratio.bf16_fp32``."""
    name, _, pair = check.rpartition(".")
    return name if _PAIR.fullmatch(pair) else check


def pair_of(check: str) -> str:
    """``bf16_fp32`` of ``kl.noise_ratio.bf16_fp32``; empty for a check that is asked once."""
    pair = check.rpartition(".")[2]
    return pair if _PAIR.fullmatch(pair) else ""


def read_run(path: Path, model: str | None) -> Run:
    """The run of ``model`` in a results.json; without a name, of the only one.

    Raises:
        SettingsError: not a results.json of this schema, or nothing in it to write a card of.
    """
    document = _load(path)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        said = "has no schema_version" if version is None else f"is of schema version {safe(str(version))[:40]!r}"
        raise SettingsError(f"{path} {said}, this npuconf reads {SCHEMA_VERSION}", mend=f"run again: {AGAIN}")
    described = schema()
    described["properties"]["facts"].pop("required")  # runs from before the fingerprint have none
    trouble = _mismatch(document, described, described, "results")
    if trouble:
        raise SettingsError(f"{path} is no whole results.json: {trouble}", mend=f"run again: {AGAIN}")
    chosen = _choose(path, document, model)
    checks = tuple(record for record in document["checks"] if record["model"] == chosen)
    if not checks:
        raise SettingsError(
            f"{path} has no record of a check of {safe(chosen)}: the run ended before the first", mend=f"run again: {AGAIN}"
        )  # fmt: skip
    if document["models"][chosen]["status"] == Status.CONFORMANT.value:
        _expect_passed(path, document["models"][chosen]["required"], checks)
    facts = {name: value for name, value in document["facts"].items() if isinstance(value, str)}
    found = document["facts"].get("fingerprint", {})
    return Run(chosen, document["models"][chosen], facts, found, checks, document["created"])


def _expect_passed(path: Path, required: Sequence[str], checks: Sequence[Record]) -> None:
    """A file that says CONFORMANT over a record that says otherwise is no run's: nobody is to publish it."""
    passed = {record["check"] for record in checks if record["verdict"] == "pass" or record["waived"]}
    objecting = {
        record["check"] for record in checks if record["verdict"] in ("fail", "inconclusive") and not record["waived"]
    }
    wrong = next((check for check in required if check not in passed or check in objecting), None)
    if wrong is not None:
        raise SettingsError(
            f"{path} says CONFORMANT, and its records do not show that {safe(wrong)} passed", mend=f"run again: {AGAIN}"
        )


def _choose(path: Path, document: Mapping[str, Any], model: str | None) -> str:
    names = list(document["models"])
    if not names:
        raise SettingsError(f"{path} names no model: the run ended before it had one", mend=f"run again: {AGAIN}")
    listed = ", ".join(safe(name) for name in names)
    if model is not None and model not in names:
        raise SettingsError(
            f"{path} has no model {model!r}{nearest(model, names)}", mend=f"--model with one of {listed}"
        )
    if model is None and len(names) > 1:
        raise SettingsError(f"{path} holds {len(names)} models: {listed}", mend="one card for each: --model NAME")
    return model or names[0]


def _load(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}", mend=AGAIN) from error
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{path} is not JSON that can be used: {error}", mend=f"name a results.json; {AGAIN}"
        ) from error


def _refuse(word: str) -> float:
    raise ValueError(f"it holds {word}, which is no number")


def _finite(word: str) -> float:
    value = float(word)
    return value if math.isfinite(value) else _refuse(word[:_LONGEST_INTEGER])


def _integer(word: str) -> int:
    if len(word) > _LONGEST_INTEGER:
        raise ValueError(f"it holds an integer of {len(word)} digits")
    return int(word)


def _mismatch(value: Any, wanted: Mapping[str, Any], root: Mapping[str, Any], place: str) -> str:
    """Where a value first departs from its schema, in words; empty where it does not. Further keys are let through."""
    if "$ref" in wanted:
        return _mismatch(value, root["$defs"][wanted["$ref"].rpartition("/")[2]], root, place)
    if "oneOf" in wanted:
        found = [_mismatch(value, one, root, place) for one in wanted["oneOf"]]
        return found[-1] if all(found) else ""
    if "enum" in wanted and value not in wanted["enum"]:
        return f"{place} is none of {', '.join(map(str, wanted['enum']))}"
    kinds = wanted.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(isinstance(value, _TYPES[kind]) and not isinstance(value, bool) for kind in kinds):
        return f"{place} is no {' or '.join(kinds)}"
    if isinstance(value, dict):
        return _mismatch_of_object(value, wanted, root, place)
    if isinstance(value, list):
        if not wanted.get("minItems", 0) <= len(value) <= wanted.get("maxItems", len(value)):
            return f"{place} has {len(value)} elements"
        items = wanted.get("items", {})
        return next(
            (said for i, each in enumerate(value) if (said := _mismatch(each, items, root, f"{place}[{i}]"))), ""
        )
    return ""


def _mismatch_of_object(value: dict[str, Any], wanted: Mapping[str, Any], root: Mapping[str, Any], place: str) -> str:
    missing = next((key for key in wanted.get("required", ()) if key not in value), None)
    if missing is not None:
        return f"{place} lacks {missing!r}"
    others = wanted.get("additionalProperties")
    for key, each in value.items():
        inner = wanted.get("properties", {}).get(key, others if isinstance(others, dict) else {})
        if said := _mismatch(each, inner, root, f"{place}.{safe(key)[:60]}"):
            return said
    return ""
