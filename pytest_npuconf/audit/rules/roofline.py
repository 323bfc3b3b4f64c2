"""roofline: a decode step reads every weight once, so no token takes less than weight bytes / memory bandwidth.

Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore architectures", CACM 52 (2009).
Holds for a dense model whose shards are counted, without speculative decoding; a larger batch does not lower it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.data import chips
from pytest_npuconf.audit.facts import DTYPE_BYTES, Facts
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import plain
from pytest_npuconf.audit.rules._kv import proved_head_dim
from pytest_npuconf.audit.rules._performance import Run, has_input, runs

_SPECULATIVE = re.compile(
    r"投机|推测解码|speculat|\bMTP\b|\beagle|\bmedusa\b|draft[ _-]model|草稿模型|lookahead|n-?gram", re.IGNORECASE
)
_NEGATED = re.compile(
    r"(未|没有|不|无|without|no|not)\s*(使用|启用|开启|采用|using|any)?\s*(投机|推测|speculat)\w*\s*(解码|decoding)?",
    re.IGNORECASE,
)
_SINGLE = re.compile(
    r"(?:×|x|\*)\s?1(?![\d.])|单卡|单芯|single[ -](?:card|npu|device)|(?<!\d)1\s?(?:张|卡|块)|TP\s?=?\s?1\b",
    re.IGNORECASE,
)


def _bandwidth(facts: Facts) -> tuple[str, float, str] | None:
    """Name, bytes per second and source of the fastest chip that the card names: the bound that is sure."""
    named = [
        (chip.bandwidth_tb_s, chip.name, chip.source) for chip in chips().chips_in(facts.text) if chip.bandwidth_tb_s
    ]
    if not named:
        return None
    best = max(named)
    return best[1], best[0] * 1e12, best[2]


def _weights(context: Context) -> tuple[float, str] | None:
    """The least bytes that a decode step reads: active parameters x the narrowest width that the card names."""
    facts = context.facts
    width = min((DTYPE_BYTES[name] for name in facts.dtypes if name in DTYPE_BYTES), default=0.0)
    if not width or (facts.quantised and width > 1.0):
        return None  # quantised weights beside an unquantised format: which of them ran is not sure
    if facts.counted:
        proved = proved_head_dim(context)
        fitting = [c for c in facts.counted if c.head_dim in (proved, 0)] or facts.counted
        least = min(c.count.active for c in fitting)
        embedding = 0 if facts.tied else (facts.integer("vocab_size") or 0) * (facts.integer("hidden_size") or 0)
        least -= embedding  # a row of the embedding is read, not the matrix; a tied one is read as the head
        return least * width, f"{least:,} parameters x {plain(width)} bytes"
    if facts.has(r"\bMoE\b|混合专家|experts"):
        return None
    totals = [p for p in facts.parameters if p.kind == "total"]
    if not totals:
        return None
    low = min(p.value.lo * (0.75 if p.loose else 0.9) for p in totals)  # the embedding's share is not known
    return low * width, f"at least {plain(low)} parameters x {plain(width)} bytes"


def _devices(context: Context, run: Run) -> int:
    """How many devices share the weights: 1 only where the run's own section says so."""
    lines = [s.line for s in run.speeds.values()]
    near = " ".join(
        p.value for p in context.card.pairs if p.section == run.section and lines and abs(p.line - min(lines)) <= 20
    )
    return 1 if _SINGLE.search(near) or _SINGLE.search(run.section) else context.facts.cards


def check(context: Context) -> Iterator[Finding]:
    """Times per token, and throughputs whose concurrency is stated, against the bound."""
    facts = context.facts
    found, weights = _bandwidth(facts), _weights(context)
    if found is None or weights is None or _SPECULATIVE.search(_NEGATED.sub("", facts.text)):
        return
    name, bandwidth, source = found
    for run in runs(context):
        if run.tags & {"cpu", "gpu"}:
            continue
        devices = _devices(context, run)
        floor = weights[0] / (bandwidth * devices)
        how = f"{weights[1]} = {plain(weights[0] / 1e9, 4)} GB; / {plain(bandwidth / 1e12)} TB/s of {name}"
        how += (f" x {devices}" if devices > 1 else "") + f" = {plain(1000 * floor, 4)} ms ({source})"
        conditions = f"dense, {devices} device{'s' if devices > 1 else ''}, no speculative decoding"
        tpot, throughput, streams = run.speeds.get("tpot"), run.speeds.get("throughput"), run.streams
        if tpot is not None and tpot.value.hi < floor:
            message = f"{tpot.text} a token is below the least that the memory allows ({conditions})"
            yield context.finding("roofline", Level.IMPLAUSIBLE, tpot.line, message, how)
        elif tpot is not None:
            yield context.finding(
                "roofline", Level.FINE, tpot.line, f"{tpot.text} a token is above the least that the memory allows", how
            )
        elif (
            throughput is not None
            and streams is not None
            and not has_input(throughput)
            and throughput.value.lo * floor > streams
        ):
            message = (
                f"{throughput.text} of {plain(streams)} stream{'s' if streams > 1 else ''} "
                f"is above the most that the memory allows ({conditions})"
            )
            how += f"; at most {plain(streams / floor, 4)} tok/s"
            yield context.finding("roofline", Level.IMPLAUSIBLE, throughput.line, message, how)


RULES: tuple[Rule, ...] = (Rule("roofline", "No token is faster than the memory allows", check),)
