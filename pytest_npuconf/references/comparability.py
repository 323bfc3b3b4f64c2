"""What a reference depends on. Two things may be compared only where all of it is equal."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_npuconf.documents import Document
from pytest_npuconf.errors import WeightsError
from pytest_npuconf.files import sha256_of
from pytest_npuconf.metrics.best_words import FEW
from pytest_npuconf.metrics.compact import BEST, SAMPLE
from pytest_npuconf.references.sealed import sha256_of_json
from pytest_npuconf.weights.checkpoint import TOKENIZERS, Checkpoint, read_json

# written by whoever saved the checkpoint, without a meaning for what it computes
_AGAIN = "get the file again from the model's own checkpoint"
VOLATILE = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")
DOCUMENTS = "documents"
ORDER = "order of documents"
VOCABULARIES = (*TOKENIZERS, "merges.txt")


def comparability(
    checkpoint: Checkpoint, documents: Sequence[Document], layers: Sequence[str], members: Sequence[str], variant: str
) -> dict[str, Any]:
    """Everything that a reference depends on but for its dtype, as JSON values.

    Args:
        layers: of the hidden states; members: of the yardstick; variant: the kernels of a reference below float32.
    """
    folder = checkpoint.folder
    return {
        "weights": {name: sha256_of(folder / name) for name in checkpoint.files},
        "config": sha256_of_json({k: v for k, v in checkpoint.config.items() if k not in VOLATILE}),
        "tokenizer": {name: sha256_of(folder / name) for name in VOCABULARIES if (folder / name).is_file()},
        "chat_template": _chat_template(folder),
        "generation_config": _generation_config(folder),
        DOCUMENTS: {
            d.name: {"kind": d.kind, "ids": list(d.ids), "looked": [list(run) for run in d.runs]} for d in documents
        },
        ORDER: [d.name for d in documents],
        "layers": list(layers),
        "yardstick": {"members": list(members), "reference_variant": variant},
        "compact": {"best": BEST, "sample": SAMPLE, "between": FEW},
    }


def differences(stored: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Fields that are not equal, dotted, as ``weights.model.safetensors (stored 1f0c..., here 77ab...)``; causes come before
    their effects (a tokenizer before the ids that it gives), of many documents the first with their number, and their order
    only where they are the same."""

    def among(fields: Collection[str]) -> list[str]:
        return _differences(*({name: side[name] for name in side if name in fields} for side in (stored, here)))

    effects = among([DOCUMENTS]) or among([ORDER])
    found = among((stored.keys() | here.keys()) - {DOCUMENTS, ORDER})
    more = f" and of {len(effects) - 1} more" if len(effects) > 1 else ""
    return [*found, effects[0] + more] if effects else found


def _differences(stored: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    found = []
    for field in [*here, *sorted(stored.keys() - here.keys())]:
        a, b = stored.get(field), here.get(field)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += [f"{field}.{rest}" for rest in _differences(a, b)]
        else:
            found.append(f"{field} (stored {_short(a)}, here {_short(b)})")
    return found


def _chat_template(folder: Path) -> str:
    """Of the template's text: newer checkpoints keep it in a file of its own, older ones in tokenizer_config.json."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return sha256_of_json(_text(own))
    settings = folder / "tokenizer_config.json"
    template = read_json(settings, _AGAIN).get("chat_template") if settings.is_file() else None
    return sha256_of_json(template) if template is not None else "none"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}", mend=_AGAIN) from error


def _generation_config(folder: Path) -> str:
    path = folder / "generation_config.json"
    if not path.is_file():
        return "none"
    values = read_json(path, _AGAIN)
    return sha256_of_json({k: v for k, v in values.items() if k not in VOLATILE})


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 24 else f"{text[:21]}..."
