"""``[speed]``: what loads, with which defaults, errors that name file, line and key; on which hardware what is asked."""

from types import SimpleNamespace

import pytest

from pytest_npuconf.cards.schema import Floor, Speed
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.errors import SettingsError
from pytest_npuconf.metrics.objectives import Slo
from pytest_npuconf.options import Settings
from pytest_npuconf.speed import hardware
from pytest_npuconf.speed.baseline import file_name
from pytest_npuconf.speed.hardware import floors_here, not_asked, without_unasked
from tests.unit.test_cards_serving import loaded, refused

FLOOR = """
[[speed.floors]]
figure = "tpot_ms"
at_most = 5.0
hardware = { device = "npu", chip = "x" }
source = "s"
"""


def test_no_table_no_checks(tmp_path):
    card = loaded(tmp_path, "")
    assert (card.speed, card.floors, card.objectives) == (None, (), None)


def test_defaults(tmp_path):
    assert loaded(tmp_path, "[speed]\n").speed == Speed()
    assert loaded(tmp_path, "[speed]\nrequests = 20\n").speed == Speed(requests=20)


def test_a_whole_table(tmp_path):
    card = loaded(tmp_path, "[speed]\nsweep = [1, 3]\nlong_run_seconds = 5\n[speed.slo]\nttft_ms = 500\n" + FLOOR)
    assert card.speed.sweep == (1, 3)
    assert card.speed.long_run_seconds == 5.0
    assert card.objectives == Slo(ttft=0.5)
    assert card.floors == (Floor("tpot_ms", 5.0, {"device": "npu", "chip": "x"}, "s"),)


@pytest.mark.parametrize(
    ("text", "key", "line", "said"),
    [
        ("[speed]\nrequests = 3\n", "speed.requests", 3, "must be at least 4, got 3"),
        ("[speed]\nrounds = 2\n", "speed.rounds", 3, "must be at least 3, got 2"),
        ("[speed]\nconcurrency = 0\n", "speed.concurrency", 3, "must be at least 1"),
        ("[speed]\noutput_len = 1\n", "speed.output_len", 3, "must be at least 8"),
        ("[speed]\nsweep = [2, 1]\n", "speed.sweep", 3, "must be two or more growing numbers"),
        ("[speed]\nsweep = [1]\n", "speed.sweep", 3, "must be two or more growing numbers"),
        ("[speed]\nsweep = [1, true]\n", "speed.sweep", 3, "must be requests at once"),
        ("[speed]\nlong_run_seconds = 0\n", "speed.long_run_seconds", 3, "must be seconds above 0"),
        ("[speed]\nlong_run_seconds = inf\n", "speed.long_run_seconds", 3, "must be seconds above 0"),
        ("[speed]\nrequest = 8\n", "speed.request", 3, "is not a key of a card; did you mean 'requests'?"),
        ("[speed.slo]\nttft_ms = 0\n", "speed.slo.ttft_ms", 3, "must be milliseconds above 0"),
        ("[speed.slo]\nttft = 1\n", "speed.slo.ttft", 3, "is not a key of a card"),
        (FLOOR.replace("tpot_ms", "tpot"), "speed.floors.figure", 4, "is 'tpot'; did you mean 'tpot_ms'?"),
        (FLOOR.replace("at_most", "at_least"), "speed.floors.at_most", 3, "is missing"),
        (FLOOR.replace("5.0", "0.0"), "speed.floors.at_most", 5, "must be above 0"),
        (FLOOR.replace(', chip = "x"', ""), "speed.floors.hardware", 6, "must name device and chip"),
        (FLOOR.replace('"x"', "1"), "speed.floors.hardware", 6, "must map names to strings, chip is 1"),
        (FLOOR.replace('source = "s"', ""), "speed.floors.source", 3, "is missing"),
    ],
)
def test_bad_input(tmp_path, text, key, line, said):
    assert said in refused(tmp_path, text, key, line)


@pytest.mark.parametrize(
    ("key", "here"),
    [
        ({"device": "npu", "chip": "x", "devices": "1"}, True),
        ({"device": "npu", "chip": "y", "devices": "1"}, False),
        ({"device": "cpu", "chip": "x", "devices": "1"}, False),
        ({"device": "npu", "chip": "x", "devices": "1", "host": "far"}, False),
    ],
)
def test_a_floor_holds_on_its_own_hardware(tmp_path, key, here):
    assert bool(floors_here(loaded(tmp_path, FLOOR).floors, key)) is here


def plan(card, endpoints=(), **changes):
    given = {
        "cards": {"mine": card}, "device": CpuDevice(), "factory": SimpleNamespace(name="server"),
        "settings": Settings(models=("mine",), endpoints=endpoints, **changes), "required": {"mine": ("speed.floors.bf16_fp32",)},
        "precisions": {"mine": ("bfloat16", "float16")},
    }  # fmt: skip
    return SimpleNamespace(**given)


def test_at_another_host_this_hosts_memory_says_nothing(tmp_path):
    card = loaded(
        tmp_path, "[speed]\n" + FLOOR.replace('"npu", chip = "x"', f'"cpu", chip = "{CpuDevice().hardware()}"')
    )
    assert not {"speed.physics", "speed.floors"} & not_asked(plan(card), "mine").keys()
    assert {"speed.physics", "speed.floors"} <= not_asked(plan(card, (("generate", "http://far:8000"),)), "mine").keys()
    assert (
        not {"speed.physics", "speed.floors"}
        & not_asked(plan(card, (("generate", "http://127.0.0.1:1"),)), "mine").keys()
    )


def test_floors_of_a_start_that_was_not_ours_are_not_asked(tmp_path):
    text = FLOOR.replace('"npu", chip = "x"', f'"cpu", chip = "{CpuDevice().hardware()}"').replace("tpot_ms", "load_s")
    card = loaded(tmp_path, "[speed]\n" + text)
    assert "speed.floors" not in not_asked(plan(card), "mine")
    assert "speed.floors" in not_asked(plan(card, (("generate", "http://127.0.0.1:1"),)), "mine")


def test_one_precision_without_sessions_does_not_switch_off_another(tmp_path, monkeypatch):
    card = loaded(tmp_path, "[speed]\n")
    monkeypatch.setattr(hardware, "find_sessions", lambda _plan, _model, dtype, _key: dtype == "bfloat16" or None)
    found = not_asked(plan(card), "mine")
    assert "speed.baseline.fp16_fp32" in found
    assert "speed.baseline.bf16_fp32" not in found


def test_a_card_of_which_nothing_is_left_is_refused(tmp_path):
    card = loaded(tmp_path, "[speed]\n" + FLOOR)
    with pytest.raises(SettingsError, match=r"nothing that is required of mine can be asked here: .*the card's floors"):
        without_unasked(plan(card))


def test_another_load_is_another_file():
    key = {"device": "cpu", "chip": "x"}
    assert file_name("bfloat16", key, {"requests": 16}) != file_name("bfloat16", key, {"requests": 20})
