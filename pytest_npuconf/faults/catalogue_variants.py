"""Benign variants: nothing may object to them."""

from __future__ import annotations

from pytest_npuconf.engines.variants import BlockedAttention, SplitK
from pytest_npuconf.faults import variants
from pytest_npuconf.faults.base import Fault, Injector


def _benign(name: str, description: str, inject: Injector) -> Fault:
    return Fault(f"benign-{name}", description, "rounding", "nothing", inject, benign=True)


VARIANTS: tuple[Fault, ...] = (
    _benign("split-k", "each linear layer is summed over eight slices of its inputs", variants.compute_as(SplitK(8))),
    _benign("split-k-backwards", "each linear layer is summed over five slices of its inputs, last to first",
            variants.compute_as(SplitK(5, backwards=True))),
    _benign("strided-k", "each linear layer is summed pairwise over four interleaved sets of its inputs",
            variants.compute_as(variants.Strided(4))),
    _benign("blocked-attention", "attention is computed over blocks of queries, rounded once",
            variants.compute_as(BlockedAttention())),
    _benign("online-softmax", "attention is computed over blocks of keys, rounded once", variants.online_softmax),
    _benign("eager-attention", "attention is computed without a fused kernel", variants.eager),
    _benign("fused-norm", "norms multiply by their weight in float32 and round once", variants.fused_norm),
    _benign("position-shift", "every position is 17 further", variants.shift_positions(17)),
    _benign("threads", "the decoder runs with another number of threads", variants.threads),
    _benign("batch", "a request that comes alone is computed beside another", variants.companion),
)  # fmt: skip
