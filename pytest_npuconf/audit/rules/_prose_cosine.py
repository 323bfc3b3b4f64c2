"""A least and a mean cosine told in a sentence, and the mean relative L2 error in the next."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import plain
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.rules._grid import exact, stated
from pytest_npuconf.audit.rules._sentences import ABSENT, bare, sentences

_VALUE = r"(?P<{}>[01]\.\d+)"
_LEAST = r"(?:at least|never below|a minimum of|min(?:imum)?(?: is)?|>=|≥) " + _VALUE.format("least")
_MEAN = r"(?:on average|a mean of|a mean|an average of|mean(?: is)?|average(?: is)?) " + _VALUE.format("mean")
_COSINE = re.compile(rf"\bcosine\b[^\d.;]{{0,80}}? (?:is|was|are) (?:{_LEAST},? and {_MEAN})$", re.IGNORECASE)
_ERROR = re.compile(
    r"(?:the |their )?(?P<head>(?:mean |average )?relative (?:l2 )?error),?"
    r"(?P<norm>[^\d.;]{0,60}?),? (?:is|was) (?P<p>\d+(?:\.\d+)?) ?%"
    r"(?P<tail> on average)?(?:$|, )",
    re.IGNORECASE,
)
_L2 = re.compile(r"l2|‖[^‖]{1,30}‖\s*₂?\s*/\s*‖|\|\|[^|]{1,30}\|\|_?2?\s*/\s*\|\||frobenius|euclid", re.IGNORECASE)


def least_mean_error(least: Number, mean: Number) -> float:
    """Least mean of ``sqrt(1 - c^2)`` over cosines from ``least`` to 1 with that mean.

    ``sqrt(1 - c^2)`` is concave, so the mean is least where every cosine is at one of the ends: a part
    ``(1 - mean) / (1 - least)`` of them at ``least``, the others at 1. The smaller least and the larger mean that the digits
    allow give the smaller bound.
    """
    low, high = max(stated(least).lo, 0.0), min(stated(mean).hi, 1.0)
    return 0.0 if low >= 1.0 else math.sqrt(1.0 - low * low) * max(0.0, 1.0 - high) / (1.0 - low)


def mean_errors(context: Context) -> Iterator[Finding]:
    """The mean error of vectors whose cosines are at least a and on average b."""
    for prose, parts in sentences(context.card):
        for first, second in pairwise(parts):
            cosine, error = _COSINE.search(bare(first)), _ERROR.match(bare(second))
            if cosine is None or error is None or ABSENT.search(first + second):
                continue
            averaged = error["tail"] or error["head"].lower().startswith(("mean", "average"))
            if not averaged or not _L2.search(error["head"] + error["norm"]):
                continue
            values = [numbers_in(text, prose.line) for text in (cosine["least"], cosine["mean"], error["p"] + " %")]
            if any(len(v) != 1 or exact(v[0]) is None for v in values):
                continue
            least, mean, said = (v[0] for v in values)
            bound = 100.0 * least_mean_error(least, mean)
            agrees = stated(said).hi >= bound * (1 - 1e-9)
            level = Level.FINE if agrees else Level.CONTRADICTION
            message = (
                f"a mean error of {said.text} is {'possible' if agrees else 'less than is possible'} at these cosines"
            )
            how = f"sqrt(1 - {least.text}^2) (1 - {mean.text}) / (1 - {least.text}) is at least {plain(bound, 3)} %"
            yield context.finding("cosine-error", level, prose.line, message, how)
