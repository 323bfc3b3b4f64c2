"""Speed of a served model at its card's load: measured by rounds, believed within physics, compared with floors and baselines."""

from __future__ import annotations

import pytest

from pytest_npuconf.speed import measurements


@pytest.mark.npuconf_check("speed.run")
def test_run(npuconf_speed, npu_speed, npu_check):
    npuconf_speed.warm_up()
    npu_speed(npuconf_speed.one_round, rounds=npuconf_speed.speed.rounds, warmup_rounds=0)
    found = measurements.run(npuconf_speed)
    npu_speed.keep(found.data["figures"], found.data["shape"])
    npu_check(found)


@pytest.mark.npuconf_check("speed.client")
def test_client(npuconf_speed, npu_check):
    npu_check(measurements.client(npuconf_speed))


@pytest.mark.npuconf_check("speed.physics")
def test_physics(npuconf_speed, npuconf_roof, npu_check):
    npu_check(measurements.physics(npuconf_speed, npuconf_roof))


@pytest.mark.npuconf_check("speed.repeat")
def test_repeat(npuconf_speed, npu_check):
    npu_check(measurements.repeat(npuconf_speed))


@pytest.mark.npuconf_check("speed.floors")
def test_floors(npuconf_speed, npuconf_floors, npuconf_start, npu_check):
    npu_check(measurements.floors(npuconf_speed, npuconf_floors, npuconf_start.data["statistics"]))


@pytest.mark.npuconf_check("speed.baseline")
def test_baseline(npuconf_speed, npuconf_sessions, npu_check):
    npu_check(measurements.baseline(npuconf_speed, npuconf_sessions))


@pytest.mark.npuconf_check("speed.goodput")
def test_goodput(npuconf_speed, npu_check):
    npu_check(measurements.good_share(npuconf_speed))


@pytest.mark.npuconf_check("speed.start")
def test_start(npuconf_start, npu_check):
    npu_check(npuconf_start)


@pytest.mark.npuconf_check("speed.sweep")
def test_sweep(npuconf_speed, npu_check):
    npu_check(measurements.swept(npuconf_speed))


@pytest.mark.npuconf_check("speed.steady")
def test_steady(npuconf_speed, npu_check):
    npu_check(measurements.steady(npuconf_speed))


@pytest.mark.npuconf_check("speed.memory")
def test_memory(npuconf_speed, npu_check):
    npu_check(measurements.memory(npuconf_speed))
