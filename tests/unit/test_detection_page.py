"""docs/detection.md is made from the kept figures, and these are of the catalogue's magnitudes."""

import json
import math

import pytest

from pytest_npuconf.faults.catalogue import choose_fault
from tests.benchmarks import detection, detection_page

DATA = json.loads(detection_page.DATA.read_text(encoding="utf-8"))


def test_the_page_is_what_the_figures_say():
    assert detection_page.PAGE.read_text(encoding="utf-8") == detection_page.page(DATA)


@pytest.mark.parametrize("fault", detection.FAULTS)
def test_every_magnitude_of_the_catalogue_was_tried_at_every_dtype(fault):
    wanted = list(choose_fault(fault, []).magnitudes)
    for precision in detection.PRECISIONS:
        assert [point["magnitude"] for point in DATA["faults"][fault][precision]] == wanted


@pytest.mark.parametrize("fault", detection.FAULTS)
def test_what_is_caught_fails_a_bound_and_the_largest_is_caught_somewhere(fault):
    for points in DATA["faults"][fault].values():
        for point in (p for p in points if p["status"] == "judged"):
            assert not point["caught"] or any(over is None or over > 1 for over in point["over"].values())
            assert all(over is None or math.isfinite(over) for over in point["over"].values())
    assert any(points[-1].get("caught") for points in DATA["faults"][fault].values())


@pytest.mark.parametrize(
    ("caught", "says"),
    [
        ([[], ["a"], ["a"]], "2"),
        ([["a"], [], ["a"]], "3"),
        ([["a"], ["a"], ["a"]], "all tried, from 1"),
        ([["a"], ["a"], []], "none up to 3"),
    ],
)
def test_caught_from_means_it_and_everything_larger(caught, says):
    points = [{"magnitude": float(i), "status": "judged", "caught": c} for i, c in enumerate(caught, start=1)]
    assert detection_page.smallest(points) == says
