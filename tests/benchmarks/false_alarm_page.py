"""docs/false-alarms.md from what ``make false-alarms`` left: ``python -m tests.benchmarks.false_alarm_page [JSON ...]``.

With files, their figures are summed up into tests/data/false_alarms.json first; without, the page is made anew from there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pytest_npuconf.calibration.noise import bound_of
from pytest_npuconf.cards import find_card
from pytest_npuconf.gates import format_number
from pytest_npuconf.precisions import pairs_of
from pytest_npuconf.stats import share_upper_bound
from tests.benchmarks.false_alarms import FACTS, LENGTHS

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "false_alarms.json"
PAGE = ROOT / "docs" / "false-alarms.md"


def bound(model: str, check: str) -> tuple[float, str]:
    """Of a check's id such as ``kl.noise_ratio.bf16_fp32``: the bound in force and the name of its constant."""
    name, _, short = check.rpartition(".")
    pair = next(p for dtype in ("float32", "bfloat16", "float16") for p in pairs_of(dtype) if p.name == short)
    found = bound_of(name, pair, find_card(model))
    return found.value, found.constant


def joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One measurement for each model, from the files of those who shared its draws.

    Raises:
        ValueError: they ran on unlike hosts, or measured the same run twice.
    """
    made: dict[str, dict[str, Any]] = {}
    for part in parts:
        whole = made.setdefault(part["model"], {**part, "runs": []})
        if any(whole["facts"].get(key) != part["facts"].get(key) for key in FACTS):
            raise ValueError(f"{part['model']}: the files are of unlike hosts or versions")
        whole["runs"] += part["runs"]
        whole["time"] = max(whole["time"], part["time"])
    for model, whole in made.items():
        if len({(r["draw"], r["dtype"], r["variant"]) for r in whole["runs"]}) != len(whole["runs"]):
            raise ValueError(f"{model}: the same run is in two files")
        whole["runs"].sort(key=lambda r: (r["draw"], r["dtype"] != "float32"))
    return list(made.values())


def summary(raw: dict[str, Any]) -> dict[str, Any]:
    """Of one model's runs: counts by dtype and variant, and the largest figure of each check."""
    runs, model = raw["runs"], raw["model"]
    return {
        "model": model,
        "facts": {key: raw["facts"][key] for key in FACTS if key in raw["facts"]},
        "time": raw["time"][:10],
        "draws": max(run["draw"] for run in runs),
        "dtypes": {dtype: _counts([r for r in runs if r["dtype"] == dtype]) for dtype in _values(runs, "dtype")},
        "variants": {name: _counts([r for r in runs if r["variant"] == name]) for name in _values(runs, "variant")},
        "alarms": [
            f"draw {r['draw']}, {r['dtype']}, {r['variant']}: {alarm}" for r in runs for alarm in r["alarms"]
        ],
        "checks": {check: _largest(model, check, runs) for check in dict.fromkeys(c for r in runs for c in r["figures"])},
    }  # fmt: skip


def _values(runs: list[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(run[key] for run in runs))


def _counts(runs: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "runs": len(runs),
        "alarms": sum(bool(run["alarms"]) for run in runs),
        "inconclusive": sum(bool(run["inconclusive"]) for run in runs),
    }


def _largest(model: str, check: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A figure that is no number is larger than any."""
    mine = [run for run in runs if check in run["figures"]]
    worst = max(mine, key=lambda run: float("inf") if run["figures"][check] is None else run["figures"][check])
    value, constant = bound(model, check)
    return {
        "largest": worst["figures"][check], "variant": worst["variant"], "draw": worst["draw"], "bound": value,
        "constant": constant, "runs": len(mine), "inconclusive": sum(check in run["inconclusive"] for run in mine),
    }  # fmt: skip


def page(data: list[dict[str, Any]]) -> str:
    """Markdown: how often, by model and dtype, then how far each check was from its bound."""
    lines = [
        "# False alarms, counted on texts that no constant was found on",
        "",
        "Every benign variant of the catalogue ([faults.md](faults.md)) on disjoint draws from the shipped texts, each judged",
        "as a run of its own; what a draw is: [calibration.md](calibration.md), *How a bound is defended*. By `make false-alarms`:",
        "",
        *(f"- {m['model']}: {m['time']}, {', '.join(f'{k} {v}' for k, v in m['facts'].items())}" for m in data),
        "",
        "| model | dtype | runs | with a false alarm | such runs at most (95 %) | inconclusive |",
        "|---|---|---|---|---|---|",
        *(_rate(m["model"], dtype, counts) for m in data for dtype, counts in _with_all(m).items()),
        "",
        "A run is one variant on one draw at one dtype; a draw has fewer documents than a card, so some verdicts stay open, which",
        "is no pass; in a campaign, on the card's whole set, it would count as a false alarm ([campaign.md](campaign.md)). No",
        f"document of a draw has more than {max(LENGTHS['document'])} tokens: later positions are judged in campaigns only. The",
        "bound is Clopper and Pearson's over runs, one-sided. Runs of one draw share its texts, so they are not independent, and",
        "the bound would be wider if it were read by draw. A ratio of exactly 1 is the yardstick's noisiest",
        "member met again: attention in steps is one of the five ([thresholds.md](thresholds.md)).",
    ]
    for m in data:
        lines += ["", f"## {m['model']}", "", *(f"- FALSE ALARM {alarm}" for alarm in m["alarms"])]
        lines += [""] if m["alarms"] else []
        lines += [
            "| check | largest figure | bound | of the bound | by | inconclusive |",
            "|---|---|---|---|---|---|",
            *(_row(check, m["checks"][check]) for check in sorted(m["checks"], key=lambda c: -_share(m["checks"][c]))),
        ]
    return "\n".join(lines) + "\n"


def _with_all(model: dict[str, Any]) -> dict[str, dict[str, int]]:
    dtypes: dict[str, dict[str, int]] = model["dtypes"]
    return dtypes | {"all": {key: sum(c[key] for c in dtypes.values()) for key in ("runs", "alarms", "inconclusive")}}


def _rate(model: str, dtype: str, counts: dict[str, int]) -> str:
    most = f"{share_upper_bound(counts['alarms'], counts['runs']):.1%}"
    return f"| {model} | {dtype} | {counts['runs']} | {counts['alarms']} | {most} | {counts['inconclusive']} |"


def _share(found: dict[str, Any]) -> float:
    if found["largest"] is None:
        return float("inf")
    return float(found["largest"] / found["bound"]) if found["bound"] else 0.0


def _row(check: str, found: dict[str, Any]) -> str:
    largest = "no number" if found["largest"] is None else format_number(found["largest"])
    by = f"{found['variant']}, draw {found['draw']}" if largest != "0" else ""
    no_share = "beyond" if by else "none"
    share = f"{_share(found):.0%}" if found["bound"] and found["largest"] is not None else no_share
    return (
        f"| {check} | {largest} | {format_number(found['bound'])} (`{found['constant']}`) | {share} | {by} | "
        f"{found['inconclusive']} of {found['runs']} |"
    )


def main() -> int:
    if len(sys.argv) > 1:
        data = [summary(raw) for raw in joined([json.loads(Path(n).read_text(encoding="utf-8")) for n in sys.argv[1:]])]
        DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(DATA.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
