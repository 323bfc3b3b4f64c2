"""Faults: deliberate, named defects of known magnitude; and benign variants, which nothing may object to."""
