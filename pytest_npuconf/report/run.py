"""One model's part of the results of one run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.records import Record
from pytest_npuconf.report.reading import Results

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


def run_of(results: Results, model: str) -> Run:
    """The part of one model; an empty name is that of checks without one (somebody's own)."""
    facts = {name: value for name, value in results["facts"].items() if isinstance(value, str)}
    checks = tuple(record for record in results["checks"] if record["model"] == model)
    return Run(model, results["models"][model], facts, results["facts"]["fingerprint"], checks, results["created"])
