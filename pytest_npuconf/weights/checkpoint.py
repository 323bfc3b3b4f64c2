"""A folder with a checkpoint: what its headers say, and whether the files are whole. Reads headers only."""

from __future__ import annotations

import json
import math
import operator
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_npuconf.errors import WeightsError

CONFIG = "config.json"
GENERATION = "generation_config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_HEADER_LIMIT = 100_000_000  # safetensors' own limit on the header's length
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight")


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as its file's header has it: ``dtype`` in safetensors' spelling (``BF16``), ``file`` by name."""

    shape: tuple[int, ...]
    dtype: str
    file: str

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """``folder`` with its parsed ``config``; ``parameters`` and ``stored_bytes`` as the headers and files have them.

    ``tensors`` maps every stored name to its shape and dtype, ``files`` each weight file's name to its bytes.
    """

    folder: Path
    config: dict[str, Any]
    parameters: int
    stored_bytes: int
    origin: str
    tensors: Mapping[str, StoredTensor] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)

    def config_value(self, key: str) -> Any:
        """A value of config.json. transformers 5 writes ``rope_theta`` inside ``rope_parameters``: both are read."""
        if key in self.config:
            return self.config[key]
        rope = self.config.get("rope_parameters")
        return rope.get(key) if isinstance(rope, dict) else None

    def vocabulary(self) -> int | None:
        """Words that the model can take: of config.json and the stored embedding the greater, because which of the two is
        wrong is the check ``model.weights``' to say, and no fault of the tokenizer. None when neither tells."""
        rows = [t.shape[0] for name, t in self.tensors.items() if name.endswith(_EMBEDDINGS) and t.shape]
        stated = self.config_value("vocab_size")
        return max([*rows, *([stated] if isinstance(stated, int) else [])], default=None)

    def generation_config(self) -> dict[str, Any] | None:
        """The parsed generation_config.json, None when the folder has none.

        Raises:
            WeightsError: it is not JSON.
        """
        path = self.folder / GENERATION
        return read_json(path, "get the file again from where the weights came") if path.is_file() else None


def read_checkpoint(folder: Path, origin: str, mend: str) -> Checkpoint:
    """Read and check the folder's headers.

    Raises:
        WeightsError: config, tokenizer or a shard is missing, a file is shorter than its header promises, a header
            is not one, or the weights are pickled.
    """
    config = _config(folder, mend)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise WeightsError(f"{folder}: no tokenizer (looked for {', '.join(TOKENIZERS)})", mend=mend)
    tensors: dict[str, StoredTensor] = {}
    files: dict[str, int] = {}
    for shard in _shards(folder, mend):
        tensors |= _read_header(shard, mend)
        files[shard.name] = shard.stat().st_size
    parameters = sum(tensor.elements for tensor in tensors.values())
    return Checkpoint(folder, config, parameters, sum(files.values()), origin, tensors, files)


def _config(folder: Path, mend: str) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise WeightsError(f"{folder}: {CONFIG} is missing", mend=mend)
    return read_json(path, mend)


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """A JSON object of the checkpoint.

    Raises:
        WeightsError: unreadable, or no object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not JSON: {error}", mend=mend) from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: holds {type(data).__name__}, not an object", mend=mend)
    return data


def _shards(folder: Path, mend: str) -> list[Path]:
    if (folder / INDEX).is_file():
        mapping = read_json(folder / INDEX, mend).get("weight_map")
        if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping.values()):
            raise WeightsError(f"{folder / INDEX}: weight_map does not map weights to files", mend=mend)
        names = sorted(set(mapping.values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise WeightsError(
                f"{folder}: {INDEX} names missing files: {', '.join(missing) or 'none at all'}", mend=mend
            )
        return [folder / name for name in names]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    pickled = sorted(p.name for pattern in ("*.bin", "*.pth", "*.pt") for p in folder.glob(pattern))
    if pickled:
        raise WeightsError(
            f"{folder}: only pickled weights ({', '.join(pickled)}), which can run code when loaded and are not read",
            mend="save them as safetensors: model.save_pretrained(DIR)",
        )
    raise WeightsError(f"{folder}: no weights (looked for {SINGLE} and {INDEX})", mend=mend)


def _read_header(path: Path, mend: str) -> dict[str, StoredTensor]:
    """The tensors of one whole safetensors file (format: https://github.com/huggingface/safetensors)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < length <= min(_HEADER_LIMIT, max(size - 8, 0)):
            raise WeightsError(
                f"{path}: truncated or not safetensors ({size} bytes, header length {length})", mend=mend
            )
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            tensors = {
                name: StoredTensor(tuple(map(operator.index, entry["shape"])), str(entry["dtype"]), path.name)
                for name, entry in entries.items()
            }
            ends = [operator.index(entry["data_offsets"][1]) for entry in entries.values()]
            promised = 8 + length + max(ends, default=0)
        except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
            raise WeightsError(
                f"{path}: not a safetensors header: {type(error).__name__}: {error}", mend=mend
            ) from error
    if size < promised:
        raise WeightsError(f"{path}: truncated: its header promises {promised} bytes, the file has {size}", mend=mend)
    return tensors
