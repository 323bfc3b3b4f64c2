"""Stored references as files: round trip, damage, kills, two recorders at once, packs, comparability, scheduling."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_npuconf import cli
from pytest_npuconf.documents import Document
from pytest_npuconf.errors import BaselineError, NpuconfError
from pytest_npuconf.metrics import compact
from pytest_npuconf.references import comparability as comparing
from pytest_npuconf.references.baseline import (
    LAYOUT,
    Baseline,
    arrays_bytes,
    as_arrays,
    read_baseline,
)
from pytest_npuconf.references.choose import Needs, choose_stored, require_stored
from pytest_npuconf.references.comparability import comparability, differences
from pytest_npuconf.references.packs import MANIFEST, PACK_VERSION, install_pack, read_pack, write_pack
from pytest_npuconf.references.sealed import DIGEST, digest
from pytest_npuconf.references.store import LOCK, SCRATCH, orphans, write_baselines
from pytest_npuconf.scheduling import model_of
from pytest_npuconf.weights.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]
FIELDS = {"schema_version": int, **LAYOUT.fields, DIGEST: str}
DOCUMENTS = (Document("prompt 1", "prompt", "abc", (1, 2, 3)), Document("text 1", "text", "de", (4, 5)))
LAYERS = ("layers.0", "norm")
FLOAT32, BFLOAT16 = "transformers-cpu-float32.json", "transformers-cpu-bfloat16.json"
SHARED = {
    "documents": {d.name: {"kind": d.kind, "ids": list(d.ids)} for d in DOCUMENTS},
    "layers": list(LAYERS),
    "weights": {"model.safetensors": "0" * 64},
}


def make(dtype: str = "float32", mark: int = 0, model: str = "tiny") -> Baseline:
    """A reference whose arrays and provenance say which recording it is of."""
    rng = np.random.default_rng(mark)
    return Baseline(
        model, "transformers", "cpu", dtype, SHARED,
        noise={f"{dtype}_float32": {"kl": [1e-300, 0.1 + 0.2], "gap_sd": 1 / 3}},
        statistics={"vocabulary": 7, "texts": {"text 1": {"nll": math.pi, "tokens": 1}}},
        provenance={"mark": mark, "词": "值"},
        arrays=as_arrays({
            "logits.logits": rng.normal(size=(5, 3)).astype(np.float32),
            "logits.logsumexp": rng.normal(size=5),
            "logits.ids": rng.integers(0, 7, size=(5, 3)).astype(np.int32),
        }),
    )  # fmt: skip


def both(mark: int) -> list[Baseline]:
    """One recording: the references below float32 say which float32 one they belong to."""
    made = [make("float32", mark), make("bfloat16", mark)]
    for baseline in made:
        baseline.statistics["float32_sha256"] = hashlib.sha256(arrays_bytes(made[0].arrays)).hexdigest()
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK}


def reseal(values: dict[str, Any]) -> str:
    """JSON with the digest that fits: what only somebody who means it would write."""
    return json.dumps({**values, DIGEST: digest(values)}, sort_keys=True, ensure_ascii=False)


def stored_values(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


# ---------------------------------------------------------------- round trip


def test_a_round_trip_keeps_every_bit(tmp_path):
    extremes = np.array([0.0, -0.0, 5e-324, np.finfo(np.float64).max, -1 / 3])
    written = make()
    written = Baseline(**{**vars(written), "arrays": as_arrays({**written.arrays, "odd": extremes})})
    write_baselines(tmp_path, [written])
    found = read_baseline(tmp_path / FLOAT32)
    assert set(found.arrays) == set(written.arrays)
    for name, array in written.arrays.items():
        assert found.arrays[name].dtype == array.dtype, name
        assert found.arrays[name].shape == array.shape, name
        assert found.arrays[name].tobytes() == array.tobytes(), name
    for name in ("model", "engine", "device", "dtype", "comparability", "noise", "statistics", "provenance"):
        assert getattr(found, name) == getattr(written, name), name


def test_arrays_that_are_not_contiguous_are_written_as_they_read(tmp_path):
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)
    slanted = {"turned": wide.T, "cut": wide[:, 1::2], "back": wide[::-1]}
    write_baselines(tmp_path, [Baseline(**{**vars(make()), "arrays": as_arrays(slanted)})])
    found = read_baseline(tmp_path / FLOAT32).arrays
    for name, array in slanted.items():
        assert np.array_equal(found[name], array), name


def test_the_file_is_json_with_sorted_keys_and_nothing_optional(tmp_path):
    write_baselines(tmp_path, [make()])
    text = (tmp_path / FLOAT32).read_text(encoding="utf-8")

    def check_sorted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        assert keys == sorted(keys)
        return dict(pairs)

    values = json.loads(text, object_pairs_hook=check_sorted)
    assert values.keys() == FIELDS.keys()
    assert values["schema_version"] == LAYOUT.version
    assert "词" in text
    arrays = (tmp_path / values["arrays"]["file"]).read_bytes()
    assert hashlib.sha256(arrays).hexdigest() == values["arrays"]["sha256"]


def test_the_same_recording_gives_the_same_bytes_whatever_the_order_of_its_parts(tmp_path):
    turned = make()
    turned = Baseline(
        **{
            **vars(turned),
            "arrays": dict(reversed(list(turned.arrays.items()))),
            "comparability": dict(reversed(list(SHARED.items()))),
        }
    )
    write_baselines(tmp_path / "a", [make()])
    write_baselines(tmp_path / "b", [turned])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_what_changed_is_said_as_old_to_new(tmp_path):
    first = write_baselines(tmp_path, both(1))
    assert [str(w).rpartition(": ")[2] for w in first] == [f"none -> {w.new}" for w in first]
    assert [w.path for w in first] == [tmp_path / FLOAT32, tmp_path / BFLOAT16]
    assert all(len(w.new) == 12 and w.old == "" for w in first)
    assert [w.new for w in first] == [stored_values(w.path)[DIGEST][:12] for w in first]
    again = write_baselines(tmp_path, both(1))
    assert [str(w) for w in again] == [f"{w.path}: unchanged" for w in first]
    (new,) = write_baselines(tmp_path, [make("float32", 2)])
    assert str(new) == f"{tmp_path / FLOAT32}: {first[0].new} -> {new.new}"
    assert new.new != first[0].new


def test_a_second_recording_leaves_no_array_of_the_first(tmp_path):
    write_baselines(tmp_path, both(1))
    before = names(tmp_path)
    write_baselines(tmp_path, both(2))
    after = names(tmp_path)
    assert len(after) == len(before) == 4
    assert [n for n in after if n.endswith(".safetensors") and n in before] == []
    write_baselines(tmp_path, [make("float32", 3)])
    assert read_baseline(tmp_path / BFLOAT16).provenance["mark"] == 2  # another dtype's recording stays whole
    assert orphans(tmp_path) == []


def test_a_damaged_old_file_is_replaced_and_named_none(tmp_path):
    write_baselines(tmp_path, [make()])
    (tmp_path / FLOAT32).write_text("{")
    (written,) = write_baselines(tmp_path, [make()])
    assert written.old == ""
    assert read_baseline(tmp_path / FLOAT32).provenance["mark"] == 0


# ---------------------------------------------------------------- damage


@pytest.fixture
def stored(tmp_path) -> Path:
    """One whole reference."""
    write_baselines(tmp_path, [make()])
    return tmp_path / FLOAT32


def refused(path: Path, *words: str) -> str:
    with pytest.raises(BaselineError) as caught:
        read_baseline(path)
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message
    assert caught.value.mend
    return message


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": 1', "not json", '{"a": 1} x', "\x00", "[" * 100_000, '{"a": ' * 100_000]
)
def test_not_json_is_refused(stored, text):
    stored.write_text(text)
    refused(stored, "not JSON")


def test_half_of_the_json_is_refused_at_every_length(stored):
    whole = stored.read_bytes()
    for length in range(0, len(whole) - 1, 37):
        stored.write_bytes(whole[:length])
        with pytest.raises(BaselineError):
            read_baseline(stored)
    stored.write_bytes(whole)
    assert read_baseline(stored).model == "tiny"


@pytest.mark.parametrize("text", ["[]", "3", '"text"', "null", "true"])
def test_not_an_object_is_refused(stored, text):
    stored.write_text(text)
    refused(stored, "not an object")


def test_bytes_that_are_no_text_are_refused(stored):
    stored.write_bytes(b"\xff\xfe{}")
    refused(stored, "cannot be read")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    refused(tmp_path / FLOAT32, "cannot be read")
    (tmp_path / BFLOAT16).mkdir()
    refused(tmp_path / BFLOAT16, "cannot be read")


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_missing_field_is_named(stored, field):
    values = stored_values(stored)
    del values[field]
    stored.write_text(json.dumps(values) if field == DIGEST else reseal(values))
    if field == DIGEST:  # resealing would put it back
        assert DIGEST not in stored_values(stored)
    refused(stored, field)


WRONG = [
    (field, wrong)
    for field, kind in sorted(FIELDS.items())
    for wrong in (None, [], 1.5, True, "text", 7, {})
    if type(wrong) is not kind
]


@pytest.mark.parametrize(("field", "wrong"), WRONG)
def test_a_field_of_another_type_is_named(stored, field, wrong):
    values = stored_values(stored)
    values[field] = wrong
    stored.write_text(json.dumps(values) if field == DIGEST else reseal(values))
    refused(stored, field)


def test_an_unknown_field_is_named(stored):
    stored.write_text(reseal({**stored_values(stored), "surprise": 1}))
    refused(stored, "surprise")


@pytest.mark.parametrize("version", [0, 1, -1, LAYOUT.version + 1, 10**30])
def test_another_schema_version_is_refused_with_both_versions(stored, version):
    stored.write_text(reseal({**stored_values(stored), "schema_version": version}))
    refused(stored, f"schema_version is {version}", f"reads {LAYOUT.version}")


def leaves(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON value where a plain value stands."""
    if isinstance(values, dict):
        return [leaf for key in values for leaf in leaves(values[key], (*path, key))]
    if isinstance(values, list):
        return [leaf for i, value in enumerate(values) for leaf in leaves(value, (*path, i))]
    return [path]


def test_any_one_value_that_was_edited_is_noticed(stored):
    """Without resealing: every leaf of the file, one at a time."""
    values = stored_values(stored)
    places = [place for place in leaves(values) if place != ("schema_version",)]
    assert len(places) > 20
    for place in places:
        edited = json.loads(json.dumps(values))
        parent = edited
        for key in place[:-1]:
            parent = parent[key]
        old = parent[place[-1]]
        parent[place[-1]] = old + "x" if isinstance(old, str) else (1 - old if old in (0, 1) else old * 1.5)
        stored.write_text(json.dumps(edited))
        refused(stored, DIGEST)


def test_the_smallest_edit_of_a_number_is_noticed(stored):
    values = stored_values(stored)
    nll = values["statistics"]["texts"]["text 1"]["nll"]
    values["statistics"]["texts"]["text 1"]["nll"] = np.nextafter(nll, 4.0)
    stored.write_text(json.dumps(values))
    refused(stored, DIGEST)


def test_reformatting_is_no_edit(stored):
    stored.write_text(json.dumps(stored_values(stored), indent=7, ensure_ascii=True))
    assert read_baseline(stored).model == "tiny"


def test_a_lone_surrogate_is_damage_and_no_crash(stored):
    values = stored_values(stored)
    values["provenance"]["note"] = "\ud800"
    stored.write_text(json.dumps(values, ensure_ascii=True))
    refused(stored)


def arrays_of(stored: Path) -> Path:
    return stored.parent / stored_values(stored)["arrays"]["file"]


def test_missing_arrays_are_named(stored):
    arrays = arrays_of(stored)
    arrays.unlink()
    refused(stored, arrays.name, "missing")


@pytest.mark.parametrize("where", [0, 8, 100, -1])
def test_one_flipped_bit_of_the_arrays_is_noticed(stored, where):
    arrays = arrays_of(stored)
    data = bytearray(arrays.read_bytes())
    data[where] ^= 1
    arrays.write_bytes(data)
    refused(stored, "arrays.sha256", arrays.name)


@pytest.mark.parametrize("keep", [0, 1, 7, 100, -1])
def test_truncated_arrays_are_noticed(stored, keep):
    arrays = arrays_of(stored)
    arrays.write_bytes(arrays.read_bytes()[:keep])
    refused(stored, "arrays.sha256", arrays.name)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "sub/x.safetensors", "/etc/hostname", "", ".", "..", "a\0b", None, 3, []]
)
def test_arrays_elsewhere_are_refused(stored, name):
    """Resealed, so that only the rule about names can say no; the file that it points at is there."""
    data = arrays_of(stored).read_bytes()
    (stored.parent / "sub").mkdir()
    for place in (stored.parent / "sub" / "x.safetensors", stored.parent.parent / "x.safetensors"):
        place.write_bytes(data)
    values = stored_values(stored)
    values["arrays"]["file"] = name
    stored.write_text(reseal(values))
    refused(stored, "arrays.file")


def test_arrays_that_are_no_safetensors_are_damage(stored):
    """With the right sha256: a crash of the reader is no message."""
    arrays = arrays_of(stored)
    arrays.write_bytes(b"no tensors here")
    values = stored_values(stored)
    values["arrays"]["sha256"] = hashlib.sha256(arrays.read_bytes()).hexdigest()
    stored.write_text(reseal(values))
    refused(stored)


@pytest.mark.parametrize("name", [BFLOAT16, "transformers-npu-float32.json", "vllm-cpu-float32.json", "mine.json"])
def test_a_renamed_file_is_noticed(stored, name):
    renamed = stored.rename(stored.parent / name)
    refused(renamed, "transformers-cpu-float32", "renamed")


def test_a_reader_that_loses_its_arrays_to_a_recorder_reads_the_new_ones(stored, monkeypatch):
    """Between its two reads somebody records anew: the JSON in hand names arrays that are gone."""
    honest, calls = Path.read_bytes, []

    def read_bytes(path: Path) -> bytes:
        if path.suffix == ".safetensors" and not calls:
            calls.append(path)
            monkeypatch.setattr(Path, "read_bytes", honest)
            write_baselines(stored.parent, [make("float32", 9)])
        return honest(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert read_baseline(stored).provenance["mark"] == 9
    assert len(calls) == 1
    assert not calls[0].exists()


# ---------------------------------------------------------------- what belongs to no reference


def test_orphans_are_arrays_that_nothing_names(tmp_path):
    write_baselines(tmp_path, both(1))
    assert orphans(tmp_path) == []
    lost = tmp_path / "transformers-cpu-float32.0123456789ab.safetensors"
    lost.write_bytes(arrays_of(tmp_path / FLOAT32).read_bytes())
    assert orphans(tmp_path) == [lost]
    write_baselines(tmp_path, [make("float32", 2)])
    assert not lost.exists()


def test_nothing_is_an_orphan_beside_a_reference_that_cannot_be_read(tmp_path):
    """It may name any of them."""
    write_baselines(tmp_path, both(1))
    (tmp_path / FLOAT32).write_text("{")
    assert orphans(tmp_path) == []


def test_a_recording_removes_no_file_that_it_did_not_write(tmp_path):
    """The folder of a card is the user's: their own tensors (an adapter, a calibration) are not ours to delete."""
    mine = tmp_path / "adapter.safetensors"
    mine.write_bytes(b"years of work")
    write_baselines(tmp_path, both(1))
    write_baselines(tmp_path, both(2))
    assert mine.exists()
    assert orphans(tmp_path) == []


def test_somebodys_json_beside_the_references_hides_no_orphan(tmp_path):
    """A card beside its checkpoint (``path = "."``): config.json is there, and old arrays must go all the same."""
    (tmp_path / "config.json").write_text('{"hidden_size": 64}')
    (tmp_path / "model.safetensors").write_bytes(b"the weights")
    write_baselines(tmp_path, both(1))
    write_baselines(tmp_path, both(2))
    assert len(list(tmp_path.glob("transformers-*.safetensors"))) == 2
    assert (tmp_path / "model.safetensors").exists()


# ---------------------------------------------------------------- killed in the middle

CHILD = """
import os, signal, sys
from pathlib import Path
from tests.unit.test_references import both
from pytest_npuconf.references import store

folder, wanted = Path(sys.argv[1]), int(sys.argv[2])
seen = 0

def stage(half=None):
    global seen
    seen += 1
    if seen == wanted:
        if half is not None:  # the file as it stands while its second half is still on its way
            os.ftruncate(half, os.fstat(half).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

def before(function, *, half=False):
    def call(*arguments, **options):
        stage(arguments[0] if half else None)
        return function(*arguments, **options)
    return call

os.fsync = before(os.fsync, half=True)
Path.replace = before(Path.replace)
Path.unlink = before(Path.unlink)
store.write_baselines(folder, both(2))
print(seen)
"""


def child(*arguments: object) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).strip(
            os.pathsep
        ),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", *map(str, arguments)], env=environment, text=True, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict[int, Path]:
    """Recording 1 stood; recording 2 was killed at its n-th stage: the folder as it was left, by stage."""
    root = tmp_path_factory.mktemp("killed")
    write_baselines(root / "0", both(1))
    folders = {0: root / "0"}
    for stage in range(1, 40):
        folder = Path(shutil.copytree(root / "0", root / str(stage)))
        process = child(CHILD, folder, stage)
        output, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            assert int(output) == stage - 1
            return folders
        assert process.returncode == -signal.SIGKILL, errors
        folders[stage] = folder
    raise AssertionError("the recording never ended")


def test_every_stage_of_a_recording_was_killed(killed):
    """Two arrays and two JSON written, two and two renamed, two old arrays removed."""
    assert len(killed) - 1 >= 10
    left = {stage: names(folder) for stage, folder in killed.items()}
    assert any(name.startswith(SCRATCH) for name in left[1])
    assert len({tuple(listed) for listed in left.values()}) >= 6


def test_a_recorder_that_is_killed_anywhere_leaves_references_that_can_be_read(killed):
    for stage, folder in killed.items():
        marks = [read_baseline(folder / name).provenance["mark"] for name in (FLOAT32, BFLOAT16)]
        assert set(marks) <= {1, 2}, stage


def test_half_a_recording_is_never_used_as_a_whole_one(killed):
    """Killed between the two files: float32 is of the new recording, bfloat16 of the old. Whoever takes both must notice."""
    for stage, folder in killed.items():
        needs = Needs("tiny", ("float32", "bfloat16"), DOCUMENTS, SHARED)
        chosen, _ = choose_stored(needs, [folder])
        if chosen is not None:
            marks = {read_baseline(path).provenance["mark"] for path in chosen.paths}
            assert len(marks) == 1, f"killed at stage {stage}: recordings {marks} are taken as one"


def test_the_next_recording_cleans_up_after_a_killed_one(killed, tmp_path):
    for stage, folder in killed.items():
        copy = Path(shutil.copytree(folder, tmp_path / str(stage)))
        write_baselines(copy, both(3))
        listed = names(copy)
        assert len(listed) == 4, (stage, listed)
        assert not any(name.startswith(SCRATCH) for name in listed)
        assert [read_baseline(copy / n).provenance["mark"] for n in (FLOAT32, BFLOAT16)] == [3, 3]
        assert orphans(copy) == []


# ---------------------------------------------------------------- two recorders at once

RECORDER = """
import sys
from pathlib import Path
from tests.unit.test_references import both
from pytest_npuconf.references.store import write_baselines

folder, number, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for i in range(rounds):
    write_baselines(folder, both(1000 * number + i + 1))
"""

READER = """
import sys, time
from pathlib import Path
from pytest_npuconf.references.baseline import read_baseline

folder, stop = Path(sys.argv[1]), Path(sys.argv[2])
reads, marks = 0, set()
while not stop.exists():
    for name in sys.argv[3:]:
        marks.add(read_baseline(folder / name).provenance["mark"])
        reads += 1
print(reads, len(marks))
"""


def test_recorders_at_once_never_show_damage_and_leave_one_whole_state(tmp_path):
    folder, stop, recorders, rounds = tmp_path / "shared", tmp_path / "stop", 3, 25
    write_baselines(folder, both(1))
    readers = [child(READER, folder, stop, FLOAT32, BFLOAT16) for _ in range(2)]
    writers = [child(RECORDER, folder, number, rounds) for number in range(1, recorders + 1)]
    wrote = [(*writer.communicate(timeout=300), writer.returncode) for writer in writers]
    stop.touch()
    read = [(*reader.communicate(timeout=60), reader.returncode) for reader in readers]
    assert [status for *_, status in [*wrote, *read]] == [0] * 5, [errors for _, errors, _ in [*wrote, *read]]
    for output, _, _ in read:
        reads, marks = map(int, output.split())
        assert reads > 10
        assert marks > 3  # it saw the recordings change under it
    final = {read_baseline(folder / name).provenance["mark"] for name in (FLOAT32, BFLOAT16)}
    assert len(final) == 1
    assert final <= {1000 * number + rounds for number in range(1, recorders + 1)}
    assert len(names(folder)) == 4
    assert orphans(folder) == []


HOLDER = """
import sys, time
from pathlib import Path
from pytest_npuconf.references.store import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_dead_recorder_holds_no_lock(tmp_path):
    write_baselines(tmp_path, both(1))
    holder = child(HOLDER, tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiting = child(RECORDER, tmp_path, 1, 1)
    time.sleep(1.0)
    assert waiting.poll() is None  # it waits
    assert read_baseline(tmp_path / FLOAT32).provenance["mark"] == 1
    holder.kill()
    holder.communicate(timeout=60)
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, errors
    assert read_baseline(tmp_path / FLOAT32).provenance["mark"] == 1001


# ---------------------------------------------------------------- a folder that cannot be written


def in_the_way_as_the_folder(root: Path) -> Path:
    (root / "folder").write_text("a file")
    return root / "folder"


def in_the_way_as_its_parent(root: Path) -> Path:
    (root / "folder").write_text("a file")
    return root / "folder" / "below"


def in_the_way_as_the_lock(root: Path) -> Path:
    (root / "folder" / LOCK).mkdir(parents=True)
    return root / "folder"


def in_the_way_as_scratch(root: Path) -> Path:
    (root / "folder" / f"{SCRATCH}transformers-cpu-float32.json").mkdir(parents=True)
    return root / "folder"


def in_the_way_as_the_target(root: Path) -> Path:
    (root / "folder" / FLOAT32).mkdir(parents=True)
    return root / "folder"


@pytest.mark.parametrize(
    "prepare",
    [
        in_the_way_as_the_folder,
        in_the_way_as_its_parent,
        in_the_way_as_the_lock,
        in_the_way_as_scratch,
        in_the_way_as_the_target,
    ],
)
def test_a_folder_that_cannot_be_written_is_an_error_with_a_mend(tmp_path, prepare):
    folder = prepare(tmp_path)
    with pytest.raises(BaselineError, match="cannot be written") as caught:
        write_baselines(folder, [make()])
    assert str(folder) in str(caught.value)
    assert "--npuconf-baselines" in caught.value.mend


def test_a_recording_that_fails_while_staging_leaves_the_old_ones_bit_for_bit(tmp_path, monkeypatch):
    write_baselines(tmp_path, both(1))
    before = contents(tmp_path)
    calls = []

    def full_disk(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 4:  # the last file of the four
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(BaselineError, match="No space left"):
        write_baselines(tmp_path, both(2))
    monkeypatch.undo()
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert [read_baseline(tmp_path / n).provenance["mark"] for n in (FLOAT32, BFLOAT16)] == [1, 1]
    write_baselines(tmp_path, both(1))
    assert contents(tmp_path) == before


# ---------------------------------------------------------------- choosing


def test_the_first_comparable_place_is_taken_and_the_others_say_why(tmp_path):
    write_baselines(tmp_path / "good", both(1))
    other = Baseline(**{**vars(make("float32", 2)), "comparability": {**SHARED, "layers": ["norm"]}})
    write_baselines(tmp_path / "other", [other, make("bfloat16", 2)])
    write_baselines(tmp_path / "half", [make("float32", 3)])
    needs = Needs("tiny", ("float32", "bfloat16"), DOCUMENTS, SHARED)
    places = [tmp_path / name for name in ("none", "half", "other", "good")]
    chosen, reasons = choose_stored(needs, places)
    assert chosen is not None
    assert [path.parent.name for path in chosen.paths] == ["good", "good"]
    assert [str(place) in reason for place, reason in zip(places, reasons, strict=False)] == [True] * 3
    assert BFLOAT16 in reasons[1]
    assert FLOAT32 not in reasons[1]
    assert "layers" in reasons[2]
    digests = [stored_values(path)[DIGEST][:12] for path in chosen.paths]
    assert chosen.source == f"stored float32 {digests[0]}, bfloat16 {digests[1]}"
    with pytest.raises(BaselineError, match="no stored reference that may be compared") as caught:
        require_stored(needs, places[:3])
    assert all(str(place) in str(caught.value) for place in places[:3])


def test_another_models_reference_is_not_comparable(tmp_path):
    write_baselines(tmp_path, both(1))
    chosen, reasons = choose_stored(Needs("giant", ("float32",), DOCUMENTS, SHARED), [tmp_path])
    assert chosen is None
    assert "model (stored tiny, here giant)" in reasons[0]


def test_a_damaged_file_is_an_error_and_no_reason_to_look_elsewhere(tmp_path):
    write_baselines(tmp_path / "a", both(1))
    write_baselines(tmp_path / "b", both(1))
    arrays_of(tmp_path / "a" / BFLOAT16).unlink()
    with pytest.raises(BaselineError, match="missing"):
        choose_stored(Needs("tiny", ("float32", "bfloat16"), DOCUMENTS, SHARED), [tmp_path / "a", tmp_path / "b"])


# ---------------------------------------------------------------- comparability


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A folder with everything that a reference depends on; two shards."""
    from safetensors.numpy import save_file

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"vocab_size": 9, "rope_theta": 1e4, "torch_dtype": "bfloat16", "transformers_version": "5.0"})
    )
    for number, name in enumerate(("a", "b"), start=1):
        save_file({name: np.arange(4, dtype=np.float32) + number}, folder / f"model-0000{number}-of-00002.safetensors")
    shards = {name: f"model-0000{number}-of-00002.safetensors" for number, name in enumerate(("a", "b"), start=1)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / "tokenizer.json").write_text('{"model": 1}')
    (folder / "merges.txt").write_text("a b\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (folder / "generation_config.json").write_text(json.dumps({"top_k": 20, "transformers_version": "5.0"}))
    return folder


MEMBERS = ("split-k-2", "blocked")


def depends(folder: Path, documents=DOCUMENTS, layers=LAYERS, members=MEMBERS, variant="blocked") -> dict[str, Any]:
    return comparability(read_checkpoint(folder, "test", "no mend"), documents, layers, members, variant)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


EDITS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "first shard": (
        lambda f: flip_last_byte(f / "model-00001-of-00002.safetensors"),
        "weights.model-00001-of-00002.safetensors",
    ),
    "second shard": (
        lambda f: flip_last_byte(f / "model-00002-of-00002.safetensors"),
        "weights.model-00002-of-00002.safetensors",
    ),
    "config value": (lambda f: edit_json(f / "config.json", rope_theta=1e6), "config"),
    "config key": (lambda f: edit_json(f / "config.json", sliding_window=4), "config"),
    "tokenizer": (lambda f: (f / "tokenizer.json").write_text('{"model": 2}'), "tokenizer.tokenizer.json"),
    "merges": (lambda f: (f / "merges.txt").write_text("b a\n"), "tokenizer.merges.txt"),
    "another vocabulary": (lambda f: (f / "vocab.json").write_text("{}"), "tokenizer.vocab.json"),
    "merges gone": (lambda f: (f / "merges.txt").unlink(), "tokenizer.merges.txt"),
    "template in the settings": (
        lambda f: edit_json(f / "tokenizer_config.json", chat_template="{{ x }}"),
        "chat_template",
    ),
    "template in its file": (lambda f: (f / "chat_template.jinja").write_text("{{ x }}"), "chat_template"),
    "template gone": (lambda f: (f / "tokenizer_config.json").write_text("{}"), "chat_template"),
    "settings gone": (lambda f: (f / "tokenizer_config.json").unlink(), "chat_template"),
    "generation config": (lambda f: edit_json(f / "generation_config.json", top_k=21), "generation_config"),
    "generation config gone": (lambda f: (f / "generation_config.json").unlink(), "generation_config"),
}


@pytest.mark.parametrize("name", EDITS)
def test_each_file_that_changed_is_named_alone(checkpoint, name):
    edit, field = EDITS[name]
    before = depends(checkpoint)
    edit(checkpoint)
    found = differences(json.loads(json.dumps(before)), depends(checkpoint))
    assert [text.partition(" (stored ")[0] for text in found] == [field]


LONGER = (DOCUMENTS[0], Document("text 1", "text", "de", (4, 5, 6)))
CHANGES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "one id": ({"documents": (Document("prompt 1", "prompt", "abc", (1, 2, 4)), DOCUMENTS[1])}, ["documents.prompt 1.ids"]),
    "one id more": ({"documents": LONGER}, ["documents.text 1.ids"]),
    "kind": ({"documents": (DOCUMENTS[0], Document("text 1", "prompt", "de", (4, 5)))}, ["documents.text 1.kind"]),
    "order of documents": ({"documents": DOCUMENTS[::-1]}, ["order of documents"]),
    "a document in front": ({"documents": (Document("prompt 0", "prompt", "f", (6,)), *DOCUMENTS)}, ["documents.prompt 0"]),
    "one document less": ({"documents": DOCUMENTS[:1]}, ["documents.text 1"]),
    "layers": ({"layers": ("layers.1", "norm")}, ["layers"]),
    "order of layers": ({"layers": LAYERS[::-1]}, ["layers"]),
    "a member less": ({"members": MEMBERS[:1]}, ["yardstick.members"]),
    "variant": ({"variant": "default"}, ["yardstick.reference_variant"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_each_part_of_the_measurement_that_changed_is_named_alone(checkpoint, name):
    change, fields = CHANGES[name]
    found = differences(json.loads(json.dumps(depends(checkpoint))), depends(checkpoint, **change))
    assert [text.partition(" (stored ")[0] for text in found] == fields


@pytest.mark.parametrize("width", ["BEST", "SAMPLE"])
def test_another_width_of_the_compact_form_is_named(checkpoint, monkeypatch, width):
    before = depends(checkpoint)
    monkeypatch.setattr(comparing, width, getattr(compact, width) + 1)
    found = differences(before, depends(checkpoint))
    assert [text.partition(" (stored ")[0] for text in found] == [f"compact.{width.lower()}"]


def test_the_text_of_a_document_is_its_ids(checkpoint):
    """Two texts with the same ids are the same input."""
    same = (Document("prompt 1", "prompt", "another text", (1, 2, 3)), DOCUMENTS[1])
    assert differences(depends(checkpoint), depends(checkpoint, documents=same)) == []


@pytest.mark.parametrize(
    "volatile",
    [{"torch_dtype": "float16"}, {"dtype": "float16"}, {"_name_or_path": "x"}, {"transformers_version": "9"}],
)
def test_what_the_saver_wrote_of_itself_does_not_matter(checkpoint, volatile):
    before = depends(checkpoint)
    edit_json(checkpoint / "config.json", **volatile)
    edit_json(checkpoint / "generation_config.json", transformers_version="9")
    assert differences(before, depends(checkpoint)) == []


def test_the_layout_of_json_does_not_matter(checkpoint):
    before = depends(checkpoint)
    for name in ("config.json", "generation_config.json"):
        values = json.loads((checkpoint / name).read_text())
        (checkpoint / name).write_text(json.dumps(dict(reversed(values.items())), indent=3))
    assert differences(before, depends(checkpoint)) == []


def test_a_template_is_the_same_in_either_place_and_its_own_file_wins(checkpoint):
    before = depends(checkpoint)
    (checkpoint / "chat_template.jinja").write_text("{{ messages }}")
    assert differences(before, depends(checkpoint)) == []
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old and unused"}))
    assert differences(before, depends(checkpoint)) == []


def test_named_templates_in_the_settings_count(checkpoint):
    """A list of named templates, as some checkpoints have it."""
    edit_json(checkpoint / "tokenizer_config.json", chat_template=[{"name": "default", "template": "{{ a }}"}])
    before = depends(checkpoint)
    edit_json(checkpoint / "tokenizer_config.json", chat_template=[{"name": "default", "template": "{{ b }}"}])
    assert len(differences(before, depends(checkpoint))) == 1


def test_the_location_of_the_checkpoint_does_not_matter(checkpoint, tmp_path):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "elsewhere"))
    assert differences(depends(checkpoint), depends(copy)) == []


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_file_of_the_checkpoint_is_an_error_that_names_it(checkpoint, name, text):
    (checkpoint / name).write_text(text)
    with pytest.raises(NpuconfError, match=name.replace(".", r"\.")):
        depends(checkpoint)


def test_differences_say_both_sides_in_the_order_of_the_run():
    found = differences({"b": 1, "a": {"y": "x" * 64, "z": [1]}, "d": None}, {"b": 2, "a": {"y": "y"}, "c": {"k": 1}})
    assert found == [
        "b (stored 1, here 2)",
        "a.y (stored xxxxxxxxxxxxxxxxxxxxx..., here y)",
        "a.z (stored [1], here nothing)",
        'c (stored nothing, here {"k": 1})',
    ]
    assert differences({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 2}]}}) == []


def test_documents_come_last_and_count_as_one_difference():
    here = {"documents": {f"text {i}": {"ids": [i]} for i in range(3)}, "tokenizer": {"tokenizer.json": "a"}}
    stored = {"documents": {f"text {i}": {"ids": [9]} for i in range(3)}, "tokenizer": {"tokenizer.json": "b"}}
    assert differences(stored, here) == [
        "tokenizer.tokenizer.json (stored b, here a)",
        "documents.text 0.ids (stored [9], here [0]) and of 2 more",
    ]


# ---------------------------------------------------------------- packs


@pytest.fixture
def pack(tmp_path) -> Path:
    """A whole pack of recording 1."""
    write_baselines(tmp_path / "recorded", both(1))
    return write_pack(tmp_path / "recorded", "tiny", tmp_path / "tiny.npuconf").path


def unpack(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def listing(files: dict[str, bytes], model: Any = "tiny", version: Any = PACK_VERSION) -> bytes:
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    return json.dumps({"schema_version": version, "model": model, "files": listed}).encode()


def repack(path: Path, files: dict[str, bytes], manifest: bytes | None = None, **options: Any) -> Path:
    """A pack of these files with a manifest that fits, unless another one is given."""
    target = path.with_name("edited.npuconf")
    rest = {name: data for name, data in files.items() if name != MANIFEST}
    with zipfile.ZipFile(target, "w", options.get("compression", zipfile.ZIP_STORED)) as archive:
        for name, data in rest.items():
            archive.writestr(name, data)
        archive.writestr(MANIFEST, manifest if manifest is not None else listing(rest))
    return target


def not_installed(path: Path, root: Path, *words: str) -> str:
    """Refused with these words, and whatever stood there stands unchanged."""

    def tree() -> dict[str, bytes | None]:
        return {
            str(p.relative_to(root.parent)): p.read_bytes() if p.is_file() else None for p in root.parent.rglob("*")
        }

    before = tree()
    with pytest.raises(BaselineError) as caught:
        install_pack(path, root)
    assert tree() == before
    for word in (str(path), *words):
        assert word in str(caught.value)
    return str(caught.value)


def test_the_same_references_give_the_same_pack(tmp_path, pack):
    copy = Path(shutil.copytree(tmp_path / "recorded", tmp_path / "copy"))
    for file in copy.iterdir():
        os.utime(file, (1, 1))
    again = write_pack(copy, "tiny", tmp_path / "again.npuconf")
    assert again.path.read_bytes() == pack.read_bytes()
    assert again.sha256 == hashlib.sha256(pack.read_bytes()).hexdigest()
    assert again.model == "tiny"
    assert len(again.files) == 4
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(SCRATCH)) == []


def test_other_references_give_another_pack(tmp_path, pack):
    write_baselines(tmp_path / "other", both(2))
    assert write_pack(tmp_path / "other", "tiny", tmp_path / "other.npuconf").path.read_bytes() != pack.read_bytes()


def test_a_pack_installs_into_a_fresh_root_bit_for_bit(tmp_path, pack):
    installed, paths = install_pack(pack, tmp_path / "new" / "references")
    assert installed.model == "tiny"
    assert sorted(p.name for p in paths) == sorted(installed.files)
    assert {p.parent for p in paths} == {tmp_path / "new" / "references" / "tiny"}
    assert contents(tmp_path / "new" / "references" / "tiny") == contents(tmp_path / "recorded")
    again, _ = install_pack(pack, tmp_path / "new" / "references")
    assert again.sha256 == installed.sha256
    assert contents(tmp_path / "new" / "references" / "tiny") == contents(tmp_path / "recorded")


def test_a_newer_pack_replaces_the_older_and_leaves_no_orphan(tmp_path, pack):
    write_baselines(tmp_path / "other", both(2))
    newer = write_pack(tmp_path / "other", "tiny", tmp_path / "newer.npuconf").path
    install_pack(pack, tmp_path / "root")
    install_pack(newer, tmp_path / "root")
    assert contents(tmp_path / "root" / "tiny") == contents(tmp_path / "other")


def test_installing_removes_no_file_that_is_not_ours(tmp_path, pack):
    mine = tmp_path / "root" / "tiny" / "adapter.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"years of work")
    install_pack(pack, tmp_path / "root")
    assert mine.exists()


def test_what_is_damaged_or_another_models_is_not_packed(tmp_path):
    target = tmp_path / "x.npuconf"
    with pytest.raises(BaselineError, match="no stored reference of tiny"):
        write_pack(tmp_path / "nowhere", "tiny", target)
    write_baselines(tmp_path / "a", both(1))
    with pytest.raises(BaselineError, match="is not a reference of giant"):
        write_pack(tmp_path / "a", "giant", target)
    flip_last_byte(arrays_of(tmp_path / "a" / BFLOAT16))
    with pytest.raises(BaselineError, match=r"arrays\.sha256"):
        write_pack(tmp_path / "a", "tiny", target)
    assert not target.exists()


def test_a_pack_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    write_baselines(tmp_path / "a", both(1))
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "file" / "x.npuconf", tmp_path / "folder"):
        with pytest.raises(BaselineError, match="cannot be written"):
            write_pack(tmp_path / "a", "tiny", target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "file", "folder"]


@pytest.mark.parametrize("occupied", [False, True])
def test_an_edited_file_is_refused_by_its_hash(tmp_path, pack, occupied):
    """Also where an older installation stands, which must stay whole."""
    root = tmp_path / "root"
    if occupied:
        install_pack(pack, root)
    files = unpack(pack)
    arrays = next(name for name in files if name.endswith(".safetensors"))
    edited = {**files, arrays: files[arrays][:-1] + bytes([files[arrays][-1] ^ 1])}
    not_installed(repack(pack, edited, files[MANIFEST]), root, arrays, "sha256")
    assert (root / "tiny" / FLOAT32).exists() is occupied


def test_an_edited_reference_is_refused_though_the_manifest_fits(tmp_path, pack):
    """Somebody who also mended the manifest is stopped by the digests inside."""
    files = unpack(pack)
    edited = {**files, FLOAT32: files[FLOAT32].replace(b'"mark": 1', b'"mark": 2')}
    assert edited[FLOAT32] != files[FLOAT32]
    not_installed(repack(pack, edited), tmp_path / "root", DIGEST)


@pytest.mark.parametrize("name", [FLOAT32, BFLOAT16, "arrays"])
def test_a_listed_file_that_is_missing_is_named(tmp_path, pack, name):
    files = unpack(pack)
    gone = next(n for n in files if n.endswith(".safetensors")) if name == "arrays" else name
    rest = {n: data for n, data in files.items() if n != gone}
    not_installed(repack(pack, rest, files[MANIFEST]), tmp_path / "root", gone, "missing")


def test_a_reference_without_its_arrays_is_refused(tmp_path, pack):
    """Listed and packed alike: the JSON names arrays that are not in the pack."""
    rest = {n: data for n, data in unpack(pack).items() if not n.endswith(".safetensors")}
    not_installed(repack(pack, rest), tmp_path / "root", "missing")


def test_a_file_that_is_not_listed_is_named(tmp_path, pack):
    files = unpack(pack)
    not_installed(
        repack(pack, {**files, "extra.json": b"{}"}, files[MANIFEST]), tmp_path / "root", "extra.json", "not listed"
    )


@pytest.mark.parametrize("name", ["card.toml", "conftest.py", "config.json", "notes.txt"])
def test_a_pack_holds_references_and_nothing_else(tmp_path, pack, name):
    """``--into DIR`` is a folder of cards: a pack that brings card.toml would bring its own bounds."""
    mine = tmp_path / "root" / "tiny" / name
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    not_installed(repack(pack, {**unpack(pack), name: b"theirs"}), tmp_path / "root", name)


@pytest.mark.parametrize("keep", [(), (".safetensors",)])
def test_a_pack_without_a_reference_is_refused(tmp_path, pack, keep):
    rest = {n: data for n, data in unpack(pack).items() if n.endswith(keep)}
    not_installed(repack(pack, rest), tmp_path / "root")


def test_a_name_that_stands_twice_is_refused(tmp_path, pack):
    files = unpack(pack)
    target = tmp_path / "twice.npuconf"
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of what we do on purpose
        for name, data in [*files.items(), (FLOAT32, b"{}")]:
            archive.writestr(name, data)
    not_installed(target, tmp_path / "root", "twice")


@pytest.mark.parametrize(
    "name",
    ["../x.json", "../../x.json", "sub/x.json", "/x.json", "..", ".", ".hidden.json", ".npuconf.lock", "sub/",
     "..\\x.json", "a\\b.json", "C:\\x.json", "x.json/", "./x.json"],
)  # fmt: skip
def test_a_name_that_would_land_elsewhere_is_refused(tmp_path, pack, name):
    files = {**unpack(pack), name: b"{}"}
    not_installed(repack(pack, files), tmp_path / "root", "plain file name")


@pytest.mark.parametrize("model", ["../tiny", "a/b", "/tiny", ".", "..", "", ".tiny", "a\\b", "tiny/"])
def test_a_model_name_that_would_land_elsewhere_is_refused(tmp_path, pack, model):
    files = {n: data for n, data in unpack(pack).items() if n != MANIFEST}
    not_installed(repack(pack, files, listing(files, model)), tmp_path / "root", "plain file name")


@pytest.mark.parametrize("model", [None, 5, ["tiny"], {"a": 1}, True])
def test_a_model_that_is_no_name_is_refused(tmp_path, pack, model):
    files = {n: data for n, data in unpack(pack).items() if n != MANIFEST}
    not_installed(repack(pack, files, listing(files, model)), tmp_path / "root")


def test_a_link_is_written_as_a_plain_file_or_refused(tmp_path, pack):
    """A zip entry can say that it is a symbolic link; followed, it would write anywhere."""
    files = {n: data for n, data in unpack(pack).items() if n != MANIFEST}
    target = tmp_path / "link.npuconf"
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, data)
        archive.writestr(MANIFEST, listing(files))
    try:
        install_pack(target, tmp_path / "root")
    except BaselineError:
        return
    assert not any(path.is_symlink() for path in (tmp_path / "root").rglob("*"))


def test_links_in_the_folder_are_replaced_and_not_followed(tmp_path, pack):
    outside = tmp_path / "outside.json"
    outside.write_text("not yours")
    folder = tmp_path / "root" / "tiny"
    folder.mkdir(parents=True)
    (folder / FLOAT32).symlink_to(outside)
    install_pack(pack, tmp_path / "root")
    assert outside.read_text() == "not yours"
    assert not (folder / FLOAT32).is_symlink()


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_a_pack_of_another_version_is_refused(tmp_path, pack, version):
    files = {n: data for n, data in unpack(pack).items() if n != MANIFEST}
    not_installed(repack(pack, files, listing(files, version=version)), tmp_path / "root", "schema_version")


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"[]", b"null", b"3", b"\xff", b"{}", b'{"schema_version": 1, "model": "tiny"}',
     b'{"schema_version": 1, "model": "tiny", "files": []}', b'{"schema_version": 1, "model": "tiny", "files": {"a": 1}}',
     b'{"schema_version": 1, "model": "tiny", "files": {"a": {"sha256": "0", "bytes": "many"}}}',
     b'{"schema_version": 1, "model": "tiny", "files": {"a": {"sha256": "0", "bytes": Infinity}}}',
     b'{"schema_version": 1, "model": "tiny", "files": {}}', b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(tmp_path, pack, manifest):
    not_installed(repack(pack, unpack(pack), manifest), tmp_path / "root", MANIFEST)


def test_a_size_that_is_wrong_is_noticed(tmp_path, pack):
    files = {n: data for n, data in unpack(pack).items() if n != MANIFEST}
    manifest = json.loads(listing(files))
    manifest["files"][FLOAT32]["bytes"] += 1
    not_installed(repack(pack, files, json.dumps(manifest).encode()), tmp_path / "root", FLOAT32)


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip at all", b"\x00" * 1000])
def test_what_is_no_zip_is_refused(tmp_path, data):
    path = tmp_path / "x.npuconf"
    path.write_bytes(data)
    not_installed(path, tmp_path / "root", "cannot be read as a reference pack")


def test_a_pack_that_is_not_there_or_a_folder_is_refused(tmp_path):
    not_installed(tmp_path / "nowhere.npuconf", tmp_path / "root", "cannot be read")
    (tmp_path / "folder").mkdir()
    not_installed(tmp_path / "folder", tmp_path / "root", "cannot be read")


def test_a_pack_cut_anywhere_is_refused(tmp_path, pack):
    whole = pack.read_bytes()
    cut = tmp_path / "cut.npuconf"
    for length in sorted({*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1}):
        cut.write_bytes(whole[:length])
        not_installed(cut, tmp_path / "root")


def test_a_pack_with_one_changed_byte_is_refused_or_the_same(tmp_path, pack):
    """Anywhere in the file: an error of ours, or (a date, an attribute) the same references as before."""
    whole = pack.read_bytes()
    bad = tmp_path / "bad.npuconf"
    expected = contents(tmp_path / "recorded")
    for place in sorted({*range(0, len(whole), max(1, len(whole) // 150)), *range(len(whole) - 400, len(whole))}):
        bad.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        root = tmp_path / f"root{place}"
        try:
            install_pack(bad, root)
        except BaselineError:
            assert not root.exists(), place
        else:
            assert contents(root / "tiny") == expected, place


def test_a_pack_of_something_else_is_refused(tmp_path):
    path = tmp_path / "docs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    not_installed(path, tmp_path / "root", MANIFEST)


@pytest.mark.parametrize("kind", ["encrypted", "unknown compression", "damaged deflate"])
def test_entries_that_cannot_be_unpacked_are_refused(tmp_path, pack, kind):
    files = unpack(pack)
    path = repack(pack, files, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(FLOAT32)
    local, central = info.header_offset, data.index(b"PK\x01\x02")
    while data[central + 46 : central + 46 + len(FLOAT32)] != FLOAT32.encode():
        central = data.index(b"PK\x01\x02", central + 4)
    if kind == "encrypted":
        data[local + 6] |= 1
        data[central + 8] |= 1
    elif kind == "unknown compression":
        data[local + 8 : local + 10] = data[central + 10 : central + 12] = (99).to_bytes(2, "little")
    else:
        start = local + 30 + len(FLOAT32)
        data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    not_installed(path, tmp_path / "root", "is compressed or encrypted")


@pytest.mark.parametrize("bomb", [FLOAT32, MANIFEST])
def test_a_pack_that_unpacks_to_more_than_it_lists_is_not_unpacked(tmp_path, pack, bomb):
    """96 MiB of zeros in 100 KiB: the manifest lists a few KiB, so not even a tenth of that may be held."""
    files = {n: data for n, data in unpack(pack).items() if n != MANIFEST}
    zeros = b" " * (96 << 20)
    manifest = listing(files)
    target = tmp_path / "bomb.npuconf"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, zeros if name == bomb else data)
        archive.writestr(MANIFEST, manifest + zeros if bomb == MANIFEST else manifest)
    del zeros
    assert target.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(BaselineError):
            read_pack(target)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 9 << 20


def test_references_of_another_model_inside_are_refused(tmp_path, pack):
    files = {n: data for n, data in unpack(pack).items() if n != MANIFEST}
    not_installed(repack(pack, files, listing(files, "giant")), tmp_path / "root", "giant")


def test_a_renamed_reference_inside_is_refused(tmp_path, pack):
    files = {n: data for n, data in unpack(pack).items() if n not in (MANIFEST, BFLOAT16)}
    files["transformers-cpu-float16.json"] = unpack(pack)[BFLOAT16]
    not_installed(repack(pack, files), tmp_path / "root", "renamed")


def test_an_installation_stays_whole_whatever_bad_pack_comes(tmp_path, pack):
    root = tmp_path / "root"
    install_pack(pack, root)
    before = contents(root / "tiny")
    files = unpack(pack)
    bad = [
        repack(pack, {**files, "../x.json": b"{}"}),
        repack(pack, {**files, FLOAT32: b"{}"}),
        repack(pack, {FLOAT32: files[FLOAT32]}),
    ]
    for path in bad:
        with pytest.raises(BaselineError):
            install_pack(path, root)
    assert contents(root / "tiny") == before
    assert not (tmp_path / "x.json").exists()


def test_an_installation_that_cannot_be_written_is_an_error(tmp_path, pack):
    (tmp_path / "root").write_text("in the way")
    with pytest.raises(BaselineError, match="cannot be written"):
        install_pack(pack, tmp_path / "root")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tiny").write_text("in the way")
    with pytest.raises(BaselineError, match="cannot be written"):
        install_pack(pack, tmp_path / "other")


@pytest.mark.parametrize("name", [FLOAT32, "transformers-cpu-float16.json", "transformers-cpu-float32.0.safetensors"])
def test_a_killed_installation_is_cleaned_up_by_the_next(tmp_path, pack, name):
    folder = tmp_path / "root" / "tiny"
    folder.mkdir(parents=True)
    (folder / f"{SCRATCH}{name}").write_bytes(b"half")
    install_pack(pack, tmp_path / "root")
    assert contents(folder) == contents(tmp_path / "recorded")


def test_what_a_killed_recorder_left_is_no_part_of_a_pack(killed, tmp_path):
    """Half-written files beside whole references: the references are packed, the rest is not."""
    for stage, folder in killed.items():
        pack = write_pack(folder, "tiny", tmp_path / f"{stage}.npuconf")
        assert len(pack.files) == 4, stage
        assert not any(name.startswith(SCRATCH) for name in pack.files)


# ---------------------------------------------------------------- the command


@pytest.fixture
def card(tmp_path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text('name = "tiny"\nkind = "stand-in"\n[weights]\npath = "weights"\n')
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NPUCONF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_pack_and_install_by_command(tmp_path, card, cache, capsys):
    write_baselines(tmp_path / "mine" / "tiny", both(1))
    target = tmp_path / "out" / "tiny.npuconf"
    assert cli.main(["pack", str(card), str(target), "--baselines", str(tmp_path / "mine")]) == 0
    out, err = capsys.readouterr()
    sha256 = hashlib.sha256(target.read_bytes()).hexdigest()
    assert (out, err) == (f"{target}: 4 files of tiny, sha256 {sha256}\n", "")
    assert cli.main(["install", str(target)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == f"{target}: sha256 {sha256}"
    folder = cache / "references" / "tiny"
    assert sorted(out.splitlines()[1:]) == sorted(f"installed {folder / name}" for name in names(folder))
    assert contents(folder) == contents(tmp_path / "mine" / "tiny")


def test_install_into_a_folder_of_ones_own(tmp_path, cache, pack, capsys):
    assert cli.main(["install", str(pack), "--into", str(tmp_path / "own")]) == 0
    assert contents(tmp_path / "own" / "tiny") == contents(tmp_path / "recorded")
    assert not cache.exists()
    capsys.readouterr()


@pytest.mark.usefixtures("cache")
def test_what_was_installed_can_be_packed_again(tmp_path, card, pack, capsys):
    assert cli.main(["install", str(pack)]) == 0
    assert cli.main(["pack", str(card), str(tmp_path / "again.npuconf")]) == 0
    assert (tmp_path / "again.npuconf").read_bytes() == pack.read_bytes()
    capsys.readouterr()


@pytest.mark.usefixtures("cache")
def test_errors_go_to_stderr_and_exit_one(tmp_path, card, capsys):
    broken = tmp_path / "broken.npuconf"
    broken.write_bytes(b"no zip")
    for arguments, words in (
        (["install", str(broken)], ["ERROR: ", str(broken), "mend: "]),
        (["install", str(tmp_path / "nowhere")], ["ERROR: ", "nowhere"]),
        (
            ["pack", str(card), str(tmp_path / "x.npuconf")],
            ["ERROR: ", "no stored reference of tiny", "--npuconf-record"],
        ),
        (["pack", "no-such-model", str(tmp_path / "x.npuconf")], ["ERROR: ", "no-such-model"]),
        (["pack", str(tmp_path / "none.toml"), str(tmp_path / "x.npuconf")], ["ERROR: ", "none.toml"]),
        (["pack", str(card), str(tmp_path / "x"), "--baselines", str(broken)], ["ERROR: ", "broken.npuconf"]),
    ):
        assert cli.main(arguments) == 1, arguments
        out, err = capsys.readouterr()
        assert out == "", arguments
        for word in words:
            assert word in err, arguments
        assert "Traceback" not in err
    assert not (tmp_path / "x.npuconf").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["install"], ["pack"], ["pack", "tiny"], ["unpack", "x"], ["install", "a", "b"], ["install", ""],
     ["pack", "tiny", "x", "--into", "y"], ["--version-of-nothing"]],
)  # fmt: skip
def test_a_wrong_command_line_exits_two_with_usage_on_stderr(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert caught.value.code == 2
    assert out == ""
    assert err.startswith("usage: npuconf")


@pytest.mark.parametrize("value", ["  ", "~nobody-of-that-name/x"])
def test_a_cache_variable_that_cannot_be_used_is_an_error_and_no_traceback(value, pack, monkeypatch, capsys):
    monkeypatch.setenv("NPUCONF_CACHE", value)
    assert cli.main(["install", str(pack)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "NPUCONF_CACHE" in err


def test_the_installed_command_runs(tmp_path):
    """As a process: the entry point, its exit status and its streams."""
    code = "import sys; from pytest_npuconf.cli import main; sys.exit(main())"
    process = child(code, "install", tmp_path / "nowhere")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("ERROR: ")
    process = child(code, "install")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")


def test_the_zip_is_one_that_other_tools_read(pack):
    with zipfile.ZipFile(io.BytesIO(pack.read_bytes())) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == archive.namelist()
        modes = {info.external_attr >> 16 & 0o777 for info in archive.infolist()}
    assert modes == {0o644}


# ---------------------------------------------------------------- scheduling

MODELS = ("qwen3", "qwen3-0.6b", "qwen3-0.6b-instruct", "fp32_fp32", "tiny")
PREFIX = "npuconf/precision/test_logits.py::test_rel_l2"


@pytest.mark.parametrize(
    ("nodeid", "model"),
    [
        (f"{PREFIX}[qwen3-fp32_fp32]", "qwen3"),
        (f"{PREFIX}[qwen3-0.6b-bf16_fp32]", "qwen3-0.6b"),
        (f"{PREFIX}[qwen3-0.6b-instruct-bf16_fp32]", "qwen3-0.6b-instruct"),
        ("npuconf/precision/test_model.py::test_config[qwen3]", "qwen3"),
        ("npuconf/precision/test_model.py::test_config[qwen3-0.6b]", "qwen3-0.6b"),
        (f"{PREFIX}[fp32_fp32-fp32_fp32]", "fp32_fp32"),
        (f"{PREFIX}[qwen34-fp32_fp32]", None),
        (f"{PREFIX}[other-fp32_fp32]", None),
        (PREFIX, None),
        ("test_mine.py::test_mine[qwen3-fp32_fp32]", None),
        ("tests/npuconf/test_mine.py::test_mine[qwen3]", None),
        ("npuconfigure/test_mine.py::test_mine[qwen3]", None),
        ("test_mine.py::test_mine", None),
        ("npuconf", None),
        ("", None),
    ],
)
def test_the_model_of_a_check_is_the_longest_name_that_fits(nodeid, model):
    assert model_of(nodeid, MODELS) == model
    assert model_of(nodeid, MODELS[::-1]) == model
    assert model_of(nodeid, ()) is None
