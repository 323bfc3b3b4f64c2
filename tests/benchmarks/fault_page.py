"""docs/faults.md from the catalogue and the figures of tests/data/fault_sizes.json.

``python -m tests.benchmarks.fault_page`` writes it; ``python -m tests.benchmarks.fault_sizes --write`` measures first.
"""

from __future__ import annotations

import json
from pathlib import Path

from pytest_npuconf.faults.base import Fault
from pytest_npuconf.faults.catalogue import SHIPPED
from pytest_npuconf.faults.catalogue_serving import SERVING
from pytest_npuconf.faults.catalogue_speed import SPEED

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
FIGURES = ROOT / "tests" / "data" / "fault_sizes.json"
WAYS = ("plain", "batch", "cache", "repeat")

HEAD = """# Faults

A suite is worth what it catches. `--npuconf-fault NAME` runs it with one defect injected into the candidate;
`--npuconf-fault list` prints the names. A fault is injected into the loaded model, so it acts whichever way the model is run:
alone, in a padded batch, with a cache, or one module at a time. A fault that finds nothing to break in a model, or at its dtype,
is a usage error before anything is measured, never a run that passes. How to add one from outside: [extending.md](extending.md).

This page is made by `python -m tests.benchmarks.fault_sizes --write` (a minute) from `pytest_npuconf/faults/catalogue*.py`; a test
keeps it current.

The four figures are the mean KL in nats of the faulty against the healthy model, in float32 on tiny-qwen3: of one pass over each of
four texts (plain), of uneven batches padded on either side and an even one (batch), of what comes behind a cache (cache), and of
the same text again after others against its own first time (repeat). What no fault has touched stands at 1e-11 or less, which
is the order of summation; 1e-8 is the floor below which a fault must prove that it is equivalent. `{middle}` in the name of a
guilty module is the number of the middle layer: a fault of a single layer is put there, and no other one is right.
"""

SERVERS = """
## Faults of a server

They need `--npuconf-engine server`: a proxy on 127.0.0.1 stands between the checks and the server and changes requests, answers
and events of streams. No server is touched, so one that runs already can be used. With another engine they are refused, and so is
a fault of a model where the model is in another process. Routes: `/v1/completions`, `/v1/chat/completions`, `/v1/embeddings`,
`/rerank`, `/score`. Faults that need token ids ask the server's own `/tokenize`.
"""


def page() -> str:
    """The whole page."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    faults = [f for f in SHIPPED if not f.benign]
    parts = [
        HEAD,
        f"## The {len(faults)} faults\n",
        *_table(faults, figures),
        "\n## Equivalent\n",
        *(f"- `{f.name}`: {f.equivalent}." for f in faults if f.equivalent),
        "\n## Where they happened\n",
        "Public threads, `owner/repository#number`. Of a fault that is not listed here we know no source.\n",
        *(f"- `{f.name}`: {f.seen}." for f in faults if f.seen),
        "\n## By magnitude\n",
        "The smallest magnitude that is caught is looked for among these.\n",
        *(f"- `{f.name}`: {', '.join(f'{m:g}' for m in f.magnitudes)}" for f in faults if f.magnitudes),
        "\n## Benign variants\n",
        "Nothing may object to these. Attention over blocks of queries and attention in steps are members of the yardstick too.\n",
        *_variants([f for f in SHIPPED if f.benign], figures),
        SERVERS,
        *_of_servers(),
    ]
    return "\n".join(parts) + "\n"


def _numbers(fault: Fault, figures: dict[str, dict[str, str]]) -> str:
    found = figures.get(fault.name, {})
    return " | ".join(found.get(way, "-") for way in WAYS)


def _table(faults: list[Fault], figures: dict[str, dict[str, str]]) -> list[str]:
    lines = [
        "| fault | what | magnitude | expected | guilty module | plain | batch | cache | repeat |",
        "|---" * 9 + "|",
    ]
    for fault in faults:
        module = f"`{fault.module}`" if fault.module else ""
        checks = ", ".join(f"`{name}`" for name in fault.checks)
        lines.append(
            f"| `{fault.name}` | {fault.description} | {fault.magnitude} | {checks} | {module} | {_numbers(fault, figures)} |"
        )
    absent = [f"`{f.name}` ({figures[f.name]['says']})" for f in faults if "says" in figures.get(f.name, {})]
    return [*lines, f"\nNot of tiny-qwen3: {'; '.join(absent)}."] if absent else lines


def _of_servers() -> list[str]:
    lines = ["| fault | what | magnitude | expected |", "|---" * 4 + "|"]
    for fault in (*SERVING, *SPEED):
        checks = ", ".join(f"`{name}`" for name in fault.checks) or "nothing"
        lines.append(f"| `{fault.name}` | {fault.description} | {fault.magnitude} | {checks} |")
    return [*lines, "\nWhere they happened:\n", *(f"- `{f.name}`: {f.seen}." for f in SERVING if f.seen)]


def _variants(variants: list[Fault], figures: dict[str, dict[str, str]]) -> list[str]:
    lines = ["| variant | what | plain | batch | cache | repeat |", "|---" * 6 + "|"]
    return [*lines, *(f"| `{v.name}` | {v.description} | {_numbers(v, figures)} |" for v in variants)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
