"""Bundles of evidence: a run's results with what belongs to them in one file, and rechecking such a file without a model."""
