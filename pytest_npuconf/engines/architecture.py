"""The architecture of a checkpoint's config.json as transformers builds it: on the meta device, so that no weight is read
and no memory is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_npuconf.cards.schema import Card
from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.engines.transformers_engine import quiet_transformers
from pytest_npuconf.errors import EngineError
from pytest_npuconf.weights.architecture import Architecture, headless
from pytest_npuconf.weights.checkpoint import CONFIG, Checkpoint

# Buffers that older checkpoints hold in every layer and that transformers computes itself today.
OLD_BUFFERS = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$")


def read_architecture(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> Architecture:
    """Names and shapes that config.json asks for; ``unbuildable`` has transformers' own words when it asks for nothing
    that can be built, which is a finding and no error.

    Raises:
        EngineError: this transformers does not know the model, or the checkpoint is quantized (not compared yet).
    """
    import transformers

    where = checkpoint.folder / CONFIG
    if "quantization_config" in checkpoint.config:
        raise EngineError(f"{where}: the names and shapes of a quantized checkpoint are not compared yet")
    auto = _auto_class(checkpoint)
    _check_known(checkpoint, auto, trust_remote_code)
    with quiet_transformers():
        try:
            config = transformers.AutoConfig.from_pretrained(
                str(checkpoint.folder), local_files_only=True, trust_remote_code=trust_remote_code
            )
            with import_torch().device("meta"):
                model = getattr(transformers, auto).from_config(config, trust_remote_code=trust_remote_code)
            return describe(model)
        except Exception as error:
            words = (
                f"transformers {transformers.__version__} builds no model of {CONFIG}: {type(error).__name__}: {error}"
            )
            return Architecture("", {}, unbuildable=words)


KINDS = {
    "AutoModelForCausalLM": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "causal language model"),
    "AutoModelForMaskedLM": ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", "masked language model"),
    "AutoModel": ("MODEL_MAPPING_NAMES", "model"),
}  # of transformers' classes: its table of what they know, and the kind in words


def _auto_class(checkpoint: Checkpoint) -> str:
    """A model without a head is built without one: every weight of a head would count as missing."""
    bare = headless(checkpoint.config)
    if not bare:
        return "AutoModelForCausalLM"
    return "AutoModelForMaskedLM" if bare.endswith("ForMaskedLM") else "AutoModel"


def _check_known(checkpoint: Checkpoint, auto: str, trust_remote_code: bool) -> None:
    import transformers

    table, words = KINDS[auto]
    kind, own_code = checkpoint.config.get("model_type"), "auto_map" in checkpoint.config
    if kind in getattr(transformers.models.auto.modeling_auto, table) or (own_code and trust_remote_code):
        return
    if own_code:
        raise EngineError(
            f"{checkpoint.folder}: the checkpoint brings its own model code, which is not run",
            mend="--npuconf-trust-remote-code, if you trust it",
        )
    raise EngineError(
        f"{checkpoint.folder / CONFIG}: transformers {transformers.__version__} knows no {words} of "
        f"model_type {kind!r}",
        mend="install a transformers that does, or mend model_type",
    )


def check_head(card: Card, config: Mapping[str, Any], *, serves: bool) -> None:
    """Refuse to judge logits of a model that has none.

    Args:
        config: of the checkpoint, or the card's of it, which is known before any weights are.
        serves: whether the engine serves the card's modes; another one needs logits.

    Raises:
        EngineError: a model without a head, and an engine or a mode that generates.
    """
    bare, modes = headless(config), ", ".join(mode.name for mode in card.serving.modes)
    generate = card.serving.mode("generate")
    if bare and not serves and generate is None:
        raise EngineError(
            f"{card.path}: {card.name} is a {bare}, which has no logits to judge; it is only served, in mode {modes}",
            mend="--npuconf-engine server",
        )
    if bare and serves and generate is not None and generate.refused is None:
        raise EngineError(
            f"{card.path}: {card.name} is to be served in mode {modes}, and a {bare} generates nothing",
            mend='write [serving.modes.embed] with arguments = ["--runner", "pooling"] into the card, and no mode generate',
        )


def describe(model: Any) -> Architecture:
    """The architecture of a built transformers model, by the names that its checkpoint uses."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    groups: dict[int, set[str]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(id(parameter), set()).add(name)
    stored = _as_stored(model)
    ends = [part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part is not None]
    return Architecture(
        type(model).__name__,
        {name: tuple(tensor.shape) for name, tensor in stored.items()},
        tied=tuple(frozenset(names) for names in groups.values() if len(names) > 1),
        buffers=frozenset(name for name, _ in model.named_buffers()),
        ignored=(*(model._keys_to_ignore_on_load_unexpected or ()), *OLD_BUFFERS),
        optional=tuple(model._keys_to_ignore_on_load_missing or ()),
        prefix=model.base_model_prefix,
        embedding=frozenset(name for name, p in parameters.items() if any(p is end for end in ends)),
    )


def _as_stored(model: Any) -> dict[str, Any]:
    """The state under the names that files use: transformers 5 merges some weights of a layer (a mixture's experts) while
    it loads, 4.57 does not."""
    state: dict[str, Any] = model.state_dict()
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        return state
    reverted: dict[str, Any] = revert_weight_conversion(model, state)
    return reverted
