"""From a live reference to a stored one: compact rows, what rounding costs, and what the compact form itself loses."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_npuconf.comparison import (
    Comparison,
    Noise,
    blocks_of,
    compare,
    noise_of_two_roundings,
    noise_of_yardstick,
    require_finite_side,
)
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.documents import Document, for_pair
from pytest_npuconf.engines.variants import REFERENCE_VARIANT
from pytest_npuconf.hidden_comparison import compare_hidden_states
from pytest_npuconf.metrics.best_words import joined
from pytest_npuconf.metrics.compact import CompactRows, compress, join
from pytest_npuconf.metrics.logits import ReferenceRows
from pytest_npuconf.precisions import Precision
from pytest_npuconf.references.baseline import Baseline, arrays_bytes, as_arrays
from pytest_npuconf.references.choose import dtypes_needed
from pytest_npuconf.references.live import ROWS, LiveReference
from pytest_npuconf.references.stored import ROW_FIELDS, StoredReference

GAPS = ("gap", "rest_gap")  # of a noise, what is kept among the arrays
NO_PATHS: tuple[Path, ...] = ()


def record(
    live: LiveReference,
    documents: Sequence[Document],
    layers: Sequence[str],
    dtypes: Sequence[str],
    *,
    model: str,
    engine: str,
    comparability: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> list[Baseline]:
    """The stored references of one model, float32 first.

    Args:
        dtypes: of the candidates that they will judge.
    """
    made: list[Baseline] = []
    every = documents
    origin, float32_sha256 = provenance_of(provenance), ""
    for dtype in dtypes_needed(dtypes):
        documents = for_pair(every, Precision(dtype, dtype))
        rows = [_compact(live, document, Precision(dtype, dtype)) for document in documents]
        arrays = {f"logits.{name}": np.concatenate([getattr(r, name) for r in rows]) for name in ROW_FIELDS}
        if dtype == "float32":
            arrays |= _hidden_arrays(live, documents, layers) | _rest_arrays(live, documents)
        baseline = Baseline(
            model, engine, "cpu", dtype, dict(comparability), noise={}, arrays=as_arrays(arrays),
            statistics=_statistics(documents, rows), provenance=origin,
        )  # fmt: skip
        made.append(baseline)
        noise, error = _noise(live, every, layers, dtype, made[0])
        gaps = {f"{kind}.{name}": found.pop(kind) for name, found in noise.items() for kind in GAPS if kind in found}
        made[-1] = baseline = dataclasses.replace(baseline, arrays={**baseline.arrays, **as_arrays(gaps)})
        float32_sha256 = float32_sha256 or hashlib.sha256(arrays_bytes(baseline.arrays)).hexdigest()
        baseline.noise.update(noise)
        baseline.statistics.update(float32_sha256=float32_sha256, compact_error=error)
    return made


def provenance_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The run's facts, with the time, the commit of a checkout of this package, and the CPU's settings that move digits."""
    time = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {**facts, "time": time, "commit": _commit(), "settings": CpuDevice().settings()}


def _commit() -> str:
    """Of the checkout that this package is run from; ``not a checkout`` for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "not a checkout"
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown: {error}"
    return found.stdout.strip()


def _compact(live: LiveReference, document: Document, pair: Precision) -> CompactRows:
    forward = live.forward(pair, document)
    parts = []
    at = 0
    for start, stop in blocks_of(document.runs, ROWS):
        full = ReferenceRows(forward.logits(start, stop))
        parts.append(compress(full, document.ids[start + 1 : stop + 1], at))
        at += stop - start
    return join(parts)


def _hidden_arrays(live: LiveReference, documents: Sequence[Document], layers: Sequence[str]) -> dict[str, Any]:
    states = [live.hidden_states(d) for d in documents if d.kind == "hidden"]
    return {f"hidden.{layer}": np.concatenate([found[layer] for found in states]) for layer in layers}


def _rest_arrays(live: LiveReference, documents: Sequence[Document]) -> dict[str, Any]:
    words = joined([live.words(Precision("float32", "float32"), d) for d in documents if d.rest])
    return {"rest.ids": words.ids, "rest.logits": words.logits}


def _statistics(documents: Sequence[Document], rows: Sequence[CompactRows]) -> dict[str, Any]:
    """Sufficient statistics of the texts (sum of nll in nats, tokens), and the width of the vocabulary."""
    texts = {}
    for document, found in zip(documents, rows, strict=True):
        if document.kind == "text":
            nll = found.logsumexp[:-1] - found.target[:-1].astype(np.float64)
            texts[document.name] = {"nll": float(nll.sum()), "tokens": nll.size}
    return {"vocabulary": rows[0].vocabulary, "texts": texts}


def _noise(
    live: LiveReference, documents: Sequence[Document], layers: Sequence[str], dtype: str, float32: Baseline
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Noise by pair, under the compact form as a run will use it, and the form's error on the yardstick's members."""
    pair = Precision(dtype, "float32")
    stored = StoredReference({"float32": float32}, documents, NO_PATHS)
    members = live.yardstick(pair)
    first = members[REFERENCE_VARIANT.name]
    compact = compare(
        documents, first, lambda d: stored.forward(pair, d), members, words=lambda d: stored.words(pair, d)
    )
    full = compare(documents, first, lambda d: live.forward(pair, d), members)
    inputs = [d for d in documents if d.kind == "hidden"]
    hidden_members = live.hidden_yardstick(pair)
    hidden = compare_hidden_states(
        inputs, layers, hidden_members[REFERENCE_VARIANT.name], stored.hidden_states, hidden_members
    )
    for found, what in ((full, "logits"), (hidden, "hidden states")):
        require_finite_side(found.non_finite, f"{what} of the yardstick {REFERENCE_VARIANT.name}")
    noise = {pair.name: _plain(noise_of_yardstick(compact.documents))}
    noise[pair.name]["hidden"] = {layer: list(map(float, sums)) for layer, sums in hidden.noise.items()}
    if dtype != "float32":
        noise[Precision(dtype, dtype).name] = _plain(noise_of_two_roundings(compact, REFERENCE_VARIANT.name))
    return noise, compact_error(full, compact)


def _plain(noise: Noise) -> dict[str, Any]:
    return {
        "kl": list(map(float, noise.kl)),
        "rel_l2": list(map(float, noise.rel_l2)),
        "gap_sd": noise.gap_sd,
        "members": noise.members,
        "runs": [list(map(float, sums)) for sums in noise.runs],
        "typical_runs": [list(map(float, sums)) for sums in noise.typical_runs],
        "gap": np.concatenate(noise.gap).astype(np.float32),
        **({"rest_gap": np.concatenate(noise.rest_gap).astype(np.float32)} if noise.rest_gap else {}),
    }


def compact_error(full: Comparison, compact: Comparison) -> dict[str, float]:
    """What the compact form loses: the same candidate (a member of the yardstick) against full and compact rows."""

    def every(comparison: Comparison, name: str) -> Any:
        return np.concatenate([getattr(d.rows, name) for d in comparison.documents])

    off = {name: np.abs(every(compact, name) - every(full, name)) for name in ("cosine", "top_overlap", "lse_shift")}
    distance = every(full, "rel_l2")
    moved = np.concatenate([d.candidate_nll for d in compact.documents])
    return {
        "kl_share_kept": float(every(compact, "kl").sum() / every(full, "kl").sum()),
        "kl_mean_full": float(every(full, "kl").mean()),
        "cosine_largest": float(off["cosine"].max()),
        "cosine_of_mean": float(abs(every(compact, "cosine").mean() - every(full, "cosine").mean())),
        "rel_l2_sum_ratio": float(every(compact, "rel_l2").sum() / distance.sum()),
        "rel_l2_largest": float(np.abs(every(compact, "rel_l2") - distance).max()),
        "top5_largest": float(off["top_overlap"].max()),
        "nll_largest": float(np.abs(moved - np.concatenate([d.candidate_nll for d in full.documents])).max()),
    }
