"""Hugging Face transformers in this process: full logits, streamed, and the model itself for variants and faults."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.metadata
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pytest_npuconf.cards.schema import Card
from pytest_npuconf.devices.base import Device, import_torch
from pytest_npuconf.engines.base import Padding
from pytest_npuconf.engines.execution import Executed, execute
from pytest_npuconf.engines.modules import ModuleRunner, decoder_returning
from pytest_npuconf.errors import EngineError, WeightsError, nearest
from pytest_npuconf.metrics.arrays import Float32
from pytest_npuconf.options import Settings
from pytest_npuconf.weights.checkpoint import Checkpoint


class Variant(Protocol):
    """Another way to compute the same function: other summation orders or rounding points."""

    @property
    def name(self) -> str:
        """Names the variant in results."""

    def applied(self, model: Any) -> AbstractContextManager[None]:
        """Put the variant into ``model`` for the time of the context."""


class TransformersFactory:
    """See :class:`pytest_npuconf.engines.base.EngineFactory`."""

    name = "transformers"

    def check(self, card: Card, settings: Settings) -> None:
        for package in ("transformers", "safetensors"):
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError as error:
                raise EngineError(
                    f"engine transformers: the package {package} is not installed in this Python",
                    mend="pip install 'pytest-npuconf[transformers]'",
                ) from error

    def load(self, checkpoint: Checkpoint, device: Device, dtype: str, settings: Settings) -> TransformersEngine:
        return TransformersEngine(checkpoint, device, dtype, trust_remote_code=settings.trust_remote_code)

    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("torch", "transformers")}


class TransformersEngine:
    """See :class:`pytest_npuconf.engines.base.Engine`; ``model`` and ``tokenizer`` are transformers' own objects."""

    name = "transformers"

    def __init__(self, checkpoint: Checkpoint, device: Device, dtype: str, *, trust_remote_code: bool = False) -> None:
        """Load onto ``device`` at ``dtype`` (a torch dtype's name).

        Raises:
            EngineError: transformers cannot load this checkpoint.
            WeightsError: a weight of the architecture is missing from the files.
        """
        self.device, self.dtype = device, dtype
        self._checkpoint, self._trust_remote_code = checkpoint, trust_remote_code
        self.model: Any = load_model(checkpoint, device, dtype, trust_remote_code)

    @functools.cached_property
    def tokenizer(self) -> Any:
        """transformers' own tokenizer, loaded on first use: most engines are only given token ids."""
        return load_tokenizer(self._checkpoint, trust_remote_code=self._trust_remote_code)

    def tokenize(self, text: str) -> list[int]:
        return tokenize(self.tokenizer, text)

    def forward(
        self, ids: Sequence[int], variant: Variant | None = None, layers: Sequence[str] = ()
    ) -> StreamedForward:
        """One pass; the final normed hidden states are kept, logits are made from them on demand. The outputs of the named
        ``layers`` are kept too."""
        torch = import_torch()
        decoder = decoder_of(self.model)
        tokens = torch.tensor([list(ids)], device=self.device.torch_device())
        states: dict[str, Float32] = {}
        with torch.inference_mode(), applied(variant, self.model), _listening(decoder, layers, states):
            hidden = decoder(input_ids=tokens, use_cache=False).last_hidden_state
        return StreamedForward(self, hidden, variant, states)

    def hidden_states(self, ids: Sequence[int], layers: Sequence[str]) -> Mapping[str, Float32]:
        """See :meth:`pytest_npuconf.engines.base.Engine.hidden_states`."""
        return self.forward(ids, layers=layers).states

    def forward_batch(self, rows: Sequence[Sequence[int]], padding: Padding) -> list[StreamedForward]:
        """See :meth:`pytest_npuconf.engines.base.Batches.forward_batch`."""
        from pytest_npuconf.engines.batches import forward_batch

        return forward_batch(self, rows, padding)

    def forward_cached(self, ids: Sequence[int], prefill: int) -> StreamedForward:
        """See :meth:`pytest_npuconf.engines.base.Batches.forward_cached`."""
        from pytest_npuconf.engines.batches import forward_cached

        return forward_cached(self, ids, prefill)

    def forward_decoded(self, rows: Sequence[Sequence[int]], prefills: Sequence[int]) -> list[StreamedForward]:
        """See :meth:`pytest_npuconf.engines.base.Batches.forward_decoded`."""
        from pytest_npuconf.engines.batches import forward_decoded

        return forward_decoded(self, rows, prefills)

    def forward_continued(self, ids: Sequence[int], cached: int) -> StreamedForward:
        """See :meth:`pytest_npuconf.engines.base.Batches.forward_continued`."""
        from pytest_npuconf.engines.batches import forward_continued

        return forward_continued(self, ids, cached)

    def head(self, hidden: Any, variant: Variant | None) -> Float32:
        """Logits of some hidden states, by the model's own forward with its decoder set aside, so that whatever a model
        does after its decoder (scaling, soft-capping) is done."""
        torch = import_torch()
        tokens = torch.zeros((1, hidden.shape[1]), dtype=torch.long, device=hidden.device)
        with torch.inference_mode(), applied(variant, self.model), decoder_returning(self.model, hidden):
            logits = self.model(input_ids=tokens, use_cache=False).logits
        array: Float32 = logits[0].float().cpu().numpy()
        return array

    def modules(self) -> ModuleRunner:
        """See :meth:`pytest_npuconf.engines.base.Modules.modules`."""
        return ModuleRunner(self.model, self.dtype, self.device.torch_device())

    def executed(self, ids: Sequence[int]) -> Executed:
        """See :meth:`pytest_npuconf.engines.base.Watched.executed`."""
        return execute(self.model, ids, self.device.torch_device())

    def chat(self, messages: Sequence[Mapping[str, str]], max_new_tokens: int, thinking: bool) -> str:
        """See :meth:`pytest_npuconf.engines.base.Chat.chat`."""
        from pytest_npuconf.engines.chat import generate

        return generate(self.model, self.tokenizer, messages, max_new_tokens, thinking)

    def parameters(self) -> dict[str, tuple[str, str]]:
        """Dtype and device type of each floating-point parameter, but for those that the architecture itself keeps in
        float32 at any dtype."""
        lists = [getattr(self.model, f"_keep_in_fp32_modules{suffix}", None) for suffix in ("", "_strict")]
        kept = {name for listed in lists for name in listed or ()}
        return {
            name: (str(p.dtype).removeprefix("torch."), p.device.type)
            for name, p in self.model.named_parameters()
            if p.is_floating_point() and not kept & set(name.split("."))
        }

    def close(self) -> None:
        self.model = None
        gc.collect()  # hooks and the modules that they hang on refer to each other: else freed late
        self.device.release()


class StreamedForward:
    """See :class:`pytest_npuconf.engines.base.Forward`. ``states``: outputs of the layers that were asked for, each of shape
    ``(positions, channels)``."""

    def __init__(
        self, engine: TransformersEngine, hidden: Any, variant: Variant | None, states: Mapping[str, Float32]
    ) -> None:
        self._engine, self._hidden, self._variant, self.states = engine, hidden, variant, states

    @property
    def positions(self) -> int:
        return int(self._hidden.shape[1])

    @property
    def hidden(self) -> Float32:
        """Final normed hidden states, shape ``(positions, channels)``."""
        array: Float32 = self._hidden[0].float().cpu().numpy()
        return array

    def logits(self, start: int, stop: int) -> Float32:
        return self._engine.head(self._hidden[:, start:stop], self._variant)


def applied(variant: Variant | None, model: Any) -> AbstractContextManager[None]:
    """The context of a variant, or of nothing."""
    return variant.applied(model) if variant is not None else contextlib.nullcontext()


def decoder_of(model: Any) -> Any:
    """The model without its head.

    Raises:
        EngineError: it has no separate decoder.
    """
    decoder = model.base_model
    if decoder is model:
        raise EngineError(f"{type(model).__name__} has no separate decoder, so its logits cannot be streamed")
    return decoder


@contextlib.contextmanager
def _listening(decoder: Any, layers: Sequence[str], found: dict[str, Float32]) -> Iterator[None]:
    """Copies the outputs of the named modules into ``found`` while the decoder runs."""

    def hook(name: str) -> Any:
        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            found[name] = states[0].float().cpu().numpy()

        return keep

    modules = dict(decoder.named_modules())
    unknown = [name for name in layers if name not in modules]
    if unknown:
        raise EngineError(
            f"{type(decoder).__name__} has no module {unknown[0]!r}{nearest(unknown[0], list(modules))}",
            mend="name modules of the decoder under [prompts] layers in the card",
        )
    handles = [modules[name].register_forward_hook(hook(name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def load_model(
    checkpoint: Checkpoint, device: Device, dtype: str, trust_remote_code: bool, auto: str = "AutoModelForCausalLM"
) -> Any:
    """A checkpoint's model on ``device`` at ``dtype``; ``auto`` is the class of transformers that picks its class.

    Raises:
        EngineError: transformers cannot load this checkpoint.
        WeightsError: a weight of the architecture is missing from the files.
    """
    torch = import_torch()
    import transformers

    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    folder = str(checkpoint.folder)
    with quiet_transformers():
        try:
            model, info = getattr(transformers, auto).from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **options
            )
        except Exception as error:
            needs_code = "trust_remote_code" in str(error)
            raise EngineError(
                f"transformers {transformers.__version__} cannot load {folder}: {type(error).__name__}: {error}",
                mend="--npuconf-trust-remote-code, if you trust it" if needs_code else "see the cause above",
            ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise WeightsError(
            f"{folder}: {len(missing)} weights of {type(model).__name__} are not in the files and would be random: "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}",
            mend="get the complete checkpoint",
        )
    return model.eval().to(device.torch_device())


def load_tokenizer(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> Any:
    """The checkpoint's tokenizer.

    Raises:
        WeightsError: transformers cannot read it.
    """
    import transformers

    with quiet_transformers():
        try:
            return transformers.AutoTokenizer.from_pretrained(
                str(checkpoint.folder), local_files_only=True, trust_remote_code=trust_remote_code
            )
        except Exception as error:
            raise WeightsError(
                f"{checkpoint.folder}: transformers {transformers.__version__} cannot read the tokenizer: "
                f"{type(error).__name__}: {error}",
                mend="take the tokenizer's files from the model's own checkpoint",
            ) from error


def tokenize(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a plain text, with the special tokens that the tokenizer adds by default, as the documents' scripts do."""
    # not verbose: a text is cut to the model's context only after it has been tokenized whole
    return [int(i) for i in tokenizer(text, verbose=False)["input_ids"]]


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars on the terminal while loading: the run prints its own progress."""
    from transformers.utils import logging as hf_logging

    shown, level = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if shown:
            hf_logging.enable_progress_bar()
