"""From raw results to measurements: the figures of the checks, each with its worst places. Nothing here knows a bound."""

from pytest_npuconf.measurements.audits import contradictions, unsound_gates
from pytest_npuconf.measurements.device import executed_elsewhere, wrong_special_values
from pytest_npuconf.measurements.environment import unmet_minimums
from pytest_npuconf.measurements.equivalence import equivalence_error, equivalence_ratio, repeat_differences
from pytest_npuconf.measurements.hidden import hidden_error, hidden_ratio
from pytest_npuconf.measurements.logits import (
    cosine,
    finite,
    kl_ratio,
    perplexity,
    rel_l2,
    rel_l2_ratio,
    token_match,
    top5,
    worst_rows,
)
from pytest_npuconf.measurements.model import (
    config_differences,
    generation_differences,
    misplaced,
    missing_files,
    parameter_counts,
    weight_differences,
    weight_size,
)
from pytest_npuconf.measurements.modules import module_ratio
from pytest_npuconf.measurements.positions import kl_by_position
from pytest_npuconf.measurements.samples import samples
from pytest_npuconf.measurements.tokens import token_ids

__all__ = [
    "config_differences",
    "contradictions",
    "cosine",
    "equivalence_error",
    "equivalence_ratio",
    "executed_elsewhere",
    "finite",
    "generation_differences",
    "hidden_error",
    "hidden_ratio",
    "kl_by_position",
    "kl_ratio",
    "misplaced",
    "missing_files",
    "module_ratio",
    "parameter_counts",
    "perplexity",
    "rel_l2",
    "rel_l2_ratio",
    "repeat_differences",
    "samples",
    "token_ids",
    "token_match",
    "top5",
    "unmet_minimums",
    "unsound_gates",
    "weight_differences",
    "weight_size",
    "worst_rows",
    "wrong_special_values",
]
