"""Embeddings of a model without a head, as sentence-transformers' own files beside its weights say: an encoder, or a bare
decoder.

``modules.json`` lists the steps, ``1_Pooling/config.json`` says how tokens become one vector. vLLM reads the same two files
(get_pooling_config in transformers_utils/config.py of vLLM 0.32.0), and ``sentence_bert_config.json`` for how many tokens it
takes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.transformers_engine import Variant, applied, load_model, load_tokenizer, tokenize
from pytest_npuconf.engines.variants import Both, EagerAttention, FusedNorms, SplitK
from pytest_npuconf.errors import EngineError, WeightsError
from pytest_npuconf.metrics.arrays import Float64
from pytest_npuconf.serving.pooling import Embedded, Vectors
from pytest_npuconf.weights.architecture import headless
from pytest_npuconf.weights.checkpoint import Checkpoint, read_json
from pytest_npuconf.workbench import Workbench

MODULES = "modules.json"
LENGTHS = "sentence_bert_config.json"
AGAIN = "take these files from the model's own checkpoint"
# The two spellings of 1_Pooling/config.json: pooling_mode_mean_tokens = true, and pooling_mode = "mean".
WAYS = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last", "mean": "mean", "cls": "cls"}
# Members of the yardstick: three orders of summation, two ways of attention (one rounds its scores on the way), two of norms.
YARDSTICK = (
    SplitK(2), SplitK(4, backwards=True), Both(EagerAttention(), SplitK(3)), EagerAttention(),
    Both(FusedNorms(), SplitK(3, backwards=True)),
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """``pooling``: ``mean`` of all tokens, the first (``cls``) or the ``last``; then the length is made 1. ``lower``: the
    text is put into lower case before the tokenizer."""

    pooling: str
    lower: bool = False


def read_recipe(folder: Path) -> Recipe | None:
    """How a checkpoint makes one vector of a text; None where it has no ``modules.json``.

    Raises:
        WeightsError: the files are not what sentence-transformers writes.
        EngineError: a step that is not known here.
    """
    path = folder / MODULES
    if not path.is_file():
        return None
    try:
        steps = [(str(step["type"]).rpartition(".")[2], str(step["path"])) for step in json.loads(path.read_bytes())]
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path}: no list of modules: {type(error).__name__}: {error}", mend=AGAIN) from error
    kinds = [kind for kind, _ in steps]
    if kinds != ["Transformer", "Pooling", "Normalize"]:
        raise EngineError(
            f"{path}: {' > '.join(kinds)}; only Transformer > Pooling > Normalize is known here",
            mend="take mode embed out of the card's [serving.modes]",
        )
    own = folder / LENGTHS
    lower = own.is_file() and read_json(own, AGAIN).get("do_lower_case") is True
    return Recipe(_way(folder / steps[1][1] / "config.json"), lower)


def _way(path: Path) -> str:
    stated = read_json(path, AGAIN)
    marked = [key.removeprefix("pooling_mode_") for key, value in stated.items()
              if key.startswith("pooling_mode_") and value is True]  # fmt: skip
    ways = [stated["pooling_mode"]] if isinstance(stated.get("pooling_mode"), str) else marked
    if len(ways) != 1 or ways[0] not in WAYS:
        raise EngineError(
            f"{path}: pooling {' and '.join(ways) or 'of no kind'}; one of {', '.join(WAYS)} is known here", mend=AGAIN
        )
    return WAYS[ways[0]]


class Encoder:
    """Embeddings by transformers on the CPU. A model is loaded for the texts that were not asked before, and released."""

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe, *, trust_remote_code: bool = False) -> None:
        self._checkpoint, self._recipe, self._trust_remote_code = checkpoint, recipe, trust_remote_code
        self.tokenizer = load_tokenizer(checkpoint, trust_remote_code=trust_remote_code)
        self._rows: dict[tuple[str, str, str], Float64] = {}

    def document(self, text: str) -> Document:
        """A text with its token ids, as the tokenizer gives them."""
        ids = tokenize(self.tokenizer, text.lower() if self._recipe.lower else text)
        return Document("input", "served", text, tuple(ids))

    def rows(self, dtype: str, variants: Sequence[Variant | None], texts: Sequence[str]) -> dict[str, Float64]:
        """By the name of each variant (empty for None, the model as it comes): shape ``(texts, width)``, length 1."""
        named = {variant.name if variant else "": variant for variant in variants}
        todo = {name: [t for t in dict.fromkeys(texts) if (dtype, name, t) not in self._rows] for name in named}
        if any(todo.values()):
            model = load_model(
                self._checkpoint, CpuDevice(), dtype, self._trust_remote_code, "AutoModel"
            )  # released at the end of this call: only its rows are kept
            for name, variant in named.items():
                with import_torch().inference_mode(), applied(variant, model):
                    self._rows |= {(dtype, name, text): self._row(model, text, exact=not name) for text in todo[name]}
        return {name: np.stack([self._rows[dtype, name, text] for text in texts]) for name in named}

    def _row(self, model: Any, text: str, *, exact: bool) -> Float64:
        """One vector; not ``exact``: pooled in float32, as a server does."""
        torch = import_torch()
        ids = torch.tensor([self.document(text).ids])
        states = model(input_ids=ids).last_hidden_state[0].to(torch.float64 if exact else torch.float32)
        pooled = {"mean": lambda: states.sum(0) / len(states), "cls": lambda: states[0], "last": lambda: states[-1]}
        vector = pooled[self._recipe.pooling]()
        found: Float64 = (vector / torch.linalg.vector_norm(vector)).double().numpy()
        return found


class Encoded:
    """See :class:`pytest_npuconf.serving.pooling.Embedded`: one dtype of a server over one encoder."""

    def __init__(self, encoder: Encoder, dtype: str) -> None:
        self._encoder, self._dtype = encoder, dtype

    def document(self, text: str) -> Document:
        return self._encoder.document(text)

    def reference(self, texts: Sequence[str]) -> Float64:
        return self._encoder.rows("float32", [None], texts)[""]

    def members(self, texts: Sequence[str]) -> dict[str, Float64]:
        return self._encoder.rows(self._dtype, YARDSTICK, texts)


def vectors_of(workbench: Workbench, model: str, dtype: str) -> Embedded:
    """The reference of a server's embeddings. A language model gives its last token's state, which is what vLLM makes of it
    unasked; a model without a head, or one whose files say another pooling, goes by its files.

    Raises:
        EngineError: a model without a head whose files do not say how it pools.
    """
    checkpoint, settings = workbench.plan.checkpoints[model], workbench.plan.settings
    recipe, bare = read_recipe(checkpoint.folder), headless(checkpoint.config)
    if not bare and (recipe is None or recipe.pooling == "last"):
        return Vectors(workbench.live_reference(model), dtype)
    if recipe is None:
        raise EngineError(
            f"{checkpoint.folder}: {bare} has no {MODULES}, so nothing says how its tokens become one vector",
            mend=AGAIN,
        )
    encoder = workbench.shared.once(
        ("encoder", model), lambda: Encoder(checkpoint, recipe, trust_remote_code=settings.trust_remote_code)
    )
    return Encoded(encoder, dtype)
