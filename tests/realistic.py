"""Simulated documents with the spread of real ones, for tests of the intervals' coverage."""

import numpy as np


def real_documents(rng, n, ratio=1.5, size_sd=0.5, ratio_sd=0.3):
    """Documents as they are: the yardstick's KL varies lognormally between documents (sd 0.5: the middle 95 %
    lie within a factor of 2.7 of the median), and each has its own noise ratio about the common one (sd 0.3)."""
    sizes = np.exp(size_sd * rng.standard_normal(n))
    own = ratio * np.exp(ratio_sd * rng.standard_normal(n) - ratio_sd**2 / 2)
    return sizes * own, sizes
