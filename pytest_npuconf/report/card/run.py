"""Reading a results.json for the card: whole, of this schema, finite, and of one model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_npuconf.audit.output import safe
from pytest_npuconf.conformance import Status
from pytest_npuconf.errors import SettingsError, nearest
from pytest_npuconf.records import Record
from pytest_npuconf.report.reading import AGAIN, read_results

_PAIR = re.compile(r"[a-z]+\d+_[a-z]+\d+")


@dataclass(frozen=True)
class Run:
    """One model's part of one run. ``facts``: strings; ``fingerprint``: readings by group."""

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
    document = read_results(path)
    chosen = _choose(path, document, model)
    checks = tuple(record for record in document["checks"] if record["model"] == chosen)
    if not checks:
        raise SettingsError(
            f"{path} has no record of a check of {safe(chosen)}: the run ended before the first", mend=AGAIN
        )  # fmt: skip
    if document["models"][chosen]["status"] == Status.CONFORMANT.value:
        _expect_passed(path, document["models"][chosen]["required"], checks)
    facts = {name: value for name, value in document["facts"].items() if isinstance(value, str)}
    return Run(chosen, document["models"][chosen], facts, document["facts"]["fingerprint"], checks, document["created"])


def _expect_passed(path: Path, required: Sequence[str], checks: Sequence[Record]) -> None:
    """A file that says CONFORMANT over a record that says otherwise is no run's: nobody is to publish it."""
    passed = {record["check"] for record in checks if record["verdict"] == "pass" or record["waived"]}
    objecting = {
        record["check"] for record in checks if record["verdict"] in ("fail", "inconclusive") and not record["waived"]
    }
    wrong = next((check for check in required if check not in passed or check in objecting), None)
    if wrong is not None:
        raise SettingsError(
            f"{path} says CONFORMANT, and its records do not show that {safe(wrong)} passed", mend=AGAIN
        )


def _choose(path: Path, document: Mapping[str, Any], model: str | None) -> str:
    names = list(document["models"])
    if not names:
        raise SettingsError(f"{path} names no model: the run ended before it had one", mend=AGAIN)
    listed = ", ".join(safe(name) for name in names)
    if model is not None and model not in names:
        raise SettingsError(
            f"{path} has no model {model!r}{nearest(model, names)}", mend=f"--model with one of {listed}"
        )
    if model is None and len(names) > 1:
        raise SettingsError(f"{path} holds {len(names)} models: {listed}", mend="one card for each: --model NAME")
    return model or names[0]
