"""Tables of npu-smi of several drivers and parts, and what is no table. Sources: tests/data/npu_smi/SOURCES.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_npuconf.fingerprint.npu_smi import Chip, Smi, ask, parse
from pytest_npuconf.fingerprint.process import Output

TABLES = Path(__file__).resolve().parents[1] / "data" / "npu_smi"
EXPECTED = {
    "910b2-25.2.0": ("25.2.0", [(0, "910B2", "OK", 3381, 65536), (1, "910B2", "OK", 3380, 65536)]),
    "910b2-25.5.0-busy": ("25.5.0", [(0, "910B2", "OK", 61204, 65536)]),
    "910b4-23.0.3-warning": ("23.0.3", [(0, "910B4", "OK", 2790, 32768), (1, "910B4", "Warning", 2788, 32768)]),
    "910_93-24.1.rc3": ("24.1.rc3", [(i, "Ascend910", "OK", u, 65536) for i, u in enumerate((3398, 3187, 3399, 3188))]),
    "910_93-26.0.rc2": ("26.0.rc2", [(0, "Ascend910", "OK", 3398, 65536), (1, "Ascend910", "OK", 3187, 65536)]),
    "310p3-25.2.0": ("25.2.0", [(0, "310P3", "OK", 1528, 44280), (1, "310P3", "OK", 1411, 43693)]),
}


def table(name: str) -> str:
    return (TABLES / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXPECTED)
def test_chips_health_and_memory(name):
    version, chips = EXPECTED[name]
    assert parse(table(name)) == Smi(version, tuple(Chip(*chip) for chip in chips))


def test_every_table_is_expected_and_has_its_source():
    files = {path.stem for path in TABLES.glob("*.txt")}
    assert files == {*EXPECTED, "dcmi-8005"}
    sources = (TABLES / "SOURCES.md").read_text(encoding="utf-8")
    assert all(f"`{name}.txt`" in sources for name in files)


def test_what_runs_on_a_chip_is_no_chip():
    running = "| 0       0                 | 692318        | python3            | 12417                   |\n"
    text = table("910b2-25.2.0").replace("| No running processes found in NPU 0", running + "| No running processes")
    assert len(parse(text).chips) == 2


@pytest.mark.parametrize(("text", "said"), [(table("dcmi-8005"), "-8005"), ("", "nothing"), ("\n\n", "nothing")])
def test_no_table_is_a_trouble(text, said):
    found = parse(text)
    assert not found.chips
    assert said in found.trouble


def test_a_row_that_is_not_understood_is_a_trouble():
    broken = table("910b2-25.2.0").replace(
        "| 0                         | 0000:C1", "| ?                         | 0000:C1"
    )
    found = parse(broken)
    assert "not understood" in found.trouble
    assert "0000:C1" in found.trouble


def test_a_failing_command_is_a_trouble():
    def run(command, environ):
        assert (command, environ) == (["/bin/npu-smi", "info"], {"A": "b"})
        return Output(255, "dcmi module initialize failed. ret is -8005\n")

    found = ask("/bin/npu-smi", run, {"A": "b"})
    assert found.trouble == "`npu-smi info` exit status 255: dcmi module initialize failed. ret is -8005"


def test_no_command():
    assert ask(None, lambda *_: pytest.fail("nothing is to be run"), {}) == Smi(present=False)


LINES = [line for path in sorted(TABLES.glob("*.txt")) for line in path.read_text(encoding="utf-8").splitlines()]


@given(st.lists(st.sampled_from(LINES) | st.text(max_size=40), max_size=12).map("\n".join))
def test_whatever_is_printed_is_chips_or_a_trouble(text):
    found = parse(text)
    assert bool(found.chips) is not bool(found.trouble)
    assert all(chip.index >= 0 for chip in found.chips)
