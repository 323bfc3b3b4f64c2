"""Errors carry what was wrong and what mends it, also across processes."""

import pickle

import pytest

from pytest_npuconf.errors import CardError, MetricError, NonFiniteError, NpuconfError


def test_message_ends_with_what_mends_it():
    assert str(CardError("no card", mend="npuconf card new")) == "no card\n  mend: npuconf card new"


def test_message_without_mend_is_one_line():
    assert str(CardError("no card")) == "no card"


@pytest.mark.parametrize("cls", [NpuconfError, CardError, MetricError, NonFiniteError])
def test_error_survives_a_process_boundary(cls):
    copy = pickle.loads(pickle.dumps(cls("what", mend="how")))
    assert (type(copy), copy.what, copy.mend, str(copy)) == (cls, "what", "how", "what\n  mend: how")


def test_metric_errors_are_value_errors():
    assert issubclass(NonFiniteError, MetricError)
    assert issubclass(MetricError, ValueError)
