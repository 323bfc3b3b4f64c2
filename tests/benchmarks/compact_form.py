"""What the compact form of the shipped references loses, as docs/baselines.md shows it.

Run: ``python -m tests.benchmarks.compact_form``. The figures were measured when each reference was recorded.
"""

from __future__ import annotations

import json

from pytest_npuconf.locate import data_folder

COLUMNS = {
    "KL kept": ("kl_share_kept", "{:.1%}"),
    "mean KL": ("kl_mean_full", "{:.2g}"),
    "cosine, mean": ("cosine_of_mean", "{:.1g}"),
    "cosine, worst position": ("cosine_largest", "{:.1g}"),
    "rel_l2, sum": ("rel_l2_sum_ratio", "{:.4f} times"),
    "rel_l2, worst position": ("rel_l2_largest", "{:.1g}"),
    "top-5": ("top5_largest", "{:.1g}"),
    "nll": ("nll_largest", "{:.1g}"),
}


def table() -> list[str]:
    """Lines of the Markdown table, one row for each shipped reference."""
    lines = [f"| reference | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for path in sorted(data_folder("baselines").glob("*/*-*-*.json")):
        error = json.loads(path.read_text(encoding="utf-8"))["statistics"]["compact_error"]
        cells = [form.format(error[name]) for name, form in COLUMNS.values()]
        lines.append(f"| {path.parent.name} {path.stem.rpartition('-')[2]} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
