"""docs/campaign-MODEL.md from a campaign's JSON: ``python -m tests.benchmarks.campaign_page results/faults-MODEL.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_ONLY = "A fault met only the checks that should catch it (`--expected-only`): the others are not in its row."


def page(matrix: dict[str, Any]) -> str:
    """Markdown: counts, then a row for each entry."""
    facts = ", ".join(
        f"{key} {matrix['facts'][key]}" for key in ("host", "torch", "transformers", "vllm") if key in matrix["facts"]
    )
    precisions = matrix["precisions"]
    lines = [
        f"# Every fault against every check: {matrix['model']}",
        "",
        f"{', '.join(matrix['labels'])}. Made from the JSON of `npuconf faults --model {matrix['model']}` by `make campaign-page`",
        f"({facts}; {matrix['time'][:10]}). Words: [campaign.md](campaign.md). Faults: [faults.md](faults.md).",
        *([_ONLY] if "--expected-only" in matrix["command"] else []),
        "",
        "| | to be caught | caught | survived | equivalent | false alarms | does not apply | module right | wrong | unnamed |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (*precisions, "overall"):
        counts = matrix["summary"][name]
        keys = ("to be caught", "caught", "survived", "equivalent", "false alarm", "inapplicable")
        located = (f"located {word}" for word in ("right", "wrong", "unnamed"))
        lines.append(f"| {name} | {' | '.join(str(counts.get(key, 0)) for key in (*keys, *located))} |")
    lines += [
        "",
        f"| entry | outcome | {' | '.join(f'{p}: caught by' for p in precisions)} | module named |",
        "|---|---|" + "---|" * (len(precisions) + 1),
    ]
    for fault in matrix["faults"]:
        cells = [_cell(fault["runs"].get(p)) for p in precisions]
        guilty = next(
            (g for run in fault["runs"].values() if run.get("status") == "judged" for g in run.get("guilty", [])), ""
        )
        named = f"`{guilty}` ({fault['located']})" if fault["located"] and guilty else (fault["located"] or "")
        lines.append(f"| {fault['name']} | {fault['outcome']} | {' | '.join(cells)} | {named} |")
    lines += ["", "Caught by one gate alone:", ""]
    for name, alone in matrix["alone"].items():
        lines += [
            f"- {name}: " + ("; ".join(f"`{check}`: {', '.join(found)}" for check, found in alone.items()) or "none")
        ]
    return "\n".join(lines) + "\n"


def _cell(run: dict[str, Any] | None) -> str:
    if run is None or run["status"] == "not run":
        return "not run"
    if run["status"] != "judged":
        return {"inapplicable": "does not apply"}.get(run["status"], run["status"])
    words = list(dict.fromkeys(check.rpartition(".")[0] or check for check in run["failed"]))
    unsure = [f"{check.rpartition('.')[0] or check}?" for check in run["inconclusive"]]
    return ", ".join([*words, *dict.fromkeys(unsure)]) or "-"


def main() -> int:
    for name in sys.argv[1:]:
        matrix = json.loads(Path(name).read_text(encoding="utf-8"))
        (ROOT / "docs" / f"campaign-{matrix['model']}.md").write_text(page(matrix), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
