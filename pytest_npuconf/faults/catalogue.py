"""The faults that come with the package, and the choice of one by name."""

from __future__ import annotations

from pytest_npuconf.errors import FaultError, nearest
from pytest_npuconf.faults import model_faults
from pytest_npuconf.faults.base import Fault

SHIPPED = (
    Fault("skipped-layer", "the middle decoder layer returns its input", "1 layer", "kl.noise_ratio", model_faults.skip_layer),
    Fault("rope-base-tenth", "the base of the rotary embedding is ten times too small", "x0.1", "kl.noise_ratio",
          model_faults.shrink_rope_base),
    Fault("attention-scale", "attention scores are scaled by 1.5", "x1.5", "kl.noise_ratio", model_faults.scale_attention),
    Fault("dead-weight-row", "one row of one MLP weight is zero", "1 of all rows", "logits.rel_l2 at float32",
          model_faults.kill_weight_row),
    Fault("nan-weight", "one element of one norm weight is NaN", "1 element", "logits.finite", model_faults.poison_weight),
    Fault("benign-split-k", "each linear layer is summed over eight slices of its inputs", "rounding", "nothing",
          model_faults.SPLIT_K, benign=True),
    Fault("benign-blocked-attention", "attention is computed over blocks of queries, rounded once", "rounding", "nothing",
          model_faults.BLOCKED_ATTENTION, benign=True),
)  # fmt: skip


def choose_fault(name: str, more: list[Fault]) -> Fault:
    """The fault of this name; ``more`` (from hooks) hides a shipped one of the same name.

    Raises:
        FaultError: unknown name.
    """
    offered = {fault.name: fault for fault in [*SHIPPED, *more]}
    if name not in offered:
        raise FaultError(
            f"no fault {name!r}{nearest(name, list(offered))}", mend="pytest --npuconf-fault list prints them"
        )
    return offered[name]
