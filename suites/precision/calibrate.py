"""How far healthy variants of the candidate go on this device. ``--npuconf-calibrate`` runs this instead of the checks."""

from __future__ import annotations


def test_variant(npuconf_variant):
    """A benign variant beyond a bound is a false alarm; the candidate itself beyond one is no candidate to calibrate with."""
    npuconf_variant()
