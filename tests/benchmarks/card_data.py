"""Trims a real results.json to what the tests of ``npuconf card`` need.

Run: ``python -m tests.benchmarks.card_data FULL.json tests/data/card/NAME.json``. Where each FULL.json came from:

- healthy: ``pytest --model tiny-qwen3 --npuconf-device cpu --npuconf-precision float32,bfloat16 --npuconf-results FULL.json``
- broken: ``pytest --model tiny-qwen3 --npuconf-device cpu --npuconf-precision bfloat16 --npuconf-fault dead-weight-row
  --npuconf-results FULL.json``
- speed: ``pytest --model tiny-qwen3 --npuconf-engine server --npuconf-precision bfloat16 -k speed --npuconf-results FULL.json``,
  with vLLM on a CPU that had other work, so that speed.steady fails
- smollm2: ``pytest --model smollm2-135m-instruct --npuconf-reference stored --npuconf-results FULL.json``
- reranker, minilm: ``pytest --model tiny-qwen3-reranker --npuconf-engine server --npuconf-results FULL.json``, and ``minilm-l6-v2``

Nothing is changed but what is left out, and the folders of the host.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

_LEFT_OUT = (
    "conditions",
    "criteria",
    "minimums",
    "own",
    "held",
    "rates",
    "bias",
)  # of a record's data: no part of a card


def trimmed(document: dict[str, Any]) -> dict[str, Any]:
    """Rows, figures and texts stay whole."""
    for record in document["checks"]:
        record["data"] = {key: value for key, value in record["data"].items() if key not in _LEFT_OUT}
    for model in document["models"].values():
        model["weights"] = f"fixtures/{Path(model['weights']).name}"
    document["facts"]["command"] = re.sub(r"(?<=\s)/\S*/", "", document["facts"]["command"])
    return document


if __name__ == "__main__":
    full, small = map(Path, sys.argv[1:])
    text = json.dumps(
        trimmed(json.loads(full.read_text(encoding="utf-8"))), indent=1, sort_keys=True, ensure_ascii=False
    )
    small.write_text(f"{text}\n", encoding="utf-8")
