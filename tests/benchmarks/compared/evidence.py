"""What a candidate gives the other tools: each part from a model that was loaded for it, as each tool would have it.

Prompts and inputs are those of the card: four prompts (logits), eight inputs (hidden states), six texts (perplexity).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pytest_npuconf.cards import find_card
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.transformers_engine import TransformersEngine, decoder_of, quiet_transformers
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults.base import Fault
from pytest_npuconf.options import Settings
from pytest_npuconf.plan import read_documents
from pytest_npuconf.weights import find_weights
from tests.benchmarks.compared import rules, tools
from tests.benchmarks.compared.rules import Generated, Verdict

ROWS = 4  # of a batch that generates: vLLM's tests let the engine batch, so the candidate pads and batches too
WHOLE = "(whole)"  # named_modules has no name for the model itself
Model = Any


@dataclass(frozen=True)
class Passes:
    """Logits ``(positions, vocabulary)`` and final hidden states ``(positions, channels)`` of each prompt and input."""

    logits: list[torch.Tensor]
    hidden: list[torch.Tensor]


class Bench:
    """One model of the catalogue with its healthy results, at float32 and at the candidate's dtype."""

    def __init__(self, model: str) -> None:
        settings = Settings(models=(model,))
        card = find_card(model, None)
        self.name, self.precisions = card.name, card.precisions
        self._checkpoint = find_weights(card, settings, announce=lambda _: None)
        documents = read_documents(card, self._checkpoint, settings)
        self.prompts, self.inputs, self.texts = (
            [d for d in documents if d.kind == kind] for kind in ("prompt", "hidden", "text")
        )
        self._healthy: dict[tuple[str, str], Any] = {}

    def load(self, dtype: str, fault: Fault | None, before: Callable[[Model], None] = lambda _: None) -> Model:
        """A fresh model with its fault. ``before`` is called on the model while it is healthy.

        Raises:
            FaultError: the fault does not apply.
        """
        model = TransformersEngine(self._checkpoint, CpuDevice(), dtype).model
        before(model)
        if fault is not None:
            fault.inject(model)
        return model

    def judge(self, fault: Fault | None, dtype: str) -> dict[str, Verdict]:
        """Each tool's verdict; whoever asks for a part that ends in an error objects.

        Raises:
            FaultError: the fault does not apply.
        """
        verdicts: dict[str, Verdict] = {}
        for names, judge in PARTS.items():
            try:
                found = judge(self, fault, dtype)
            except FaultError:
                raise
            except Exception as error:  # what a crash looks like to the tool's user
                found = [Verdict(True, f"{type(error).__name__}: {error}".splitlines()[0][:200])] * len(names)
            verdicts |= dict(zip(names, found, strict=True))
        return verdicts

    def healthy(self, part: Callable[[Bench, Fault | None, str], Any], dtype: str) -> Any:
        """A part of the healthy model's results, made once."""
        key = part.__name__, dtype
        if key not in self._healthy:
            self._healthy[key] = part(self, None, dtype)
        return self._healthy[key]


def passes(bench: Bench, fault: Fault | None, dtype: str) -> Passes:
    """One plain pass over each prompt and input."""
    model = bench.load(dtype, fault)
    found = Passes([], [])
    with torch.inference_mode(), _keeping(model, found.hidden):
        for document in (*bench.prompts, *bench.inputs):
            found.logits.append(_logits(model, document))
    return found


def token_nll(bench: Bench, fault: Fault | None, dtype: str) -> list[Any]:
    """Negative log-likelihood (nats) of each token of each text but its first."""
    model = bench.load(dtype, fault)
    found = []
    with torch.inference_mode():
        for document in bench.texts:
            logits = _logits(model, document)[:-1].double()
            target = torch.tensor(document.ids[1:])
            found.append(torch.nn.functional.cross_entropy(logits, target, reduction="none").numpy())
    return found


def continuations(bench: Bench, fault: Fault | None, dtype: str) -> list[Generated]:
    """Greedy continuations of prompts and inputs with the cache, in left-padded batches of four, each up to its stop token."""
    model = bench.load(dtype, fault)
    documents = [*bench.prompts, *bench.inputs]
    batches = [documents[i : i + ROWS] for i in range(0, len(documents), ROWS)]
    return [row for batch in batches for row in _generate(model, [d.ids for d in batch])]


def dumps(bench: Bench, fault: Fault | None, dtype: str) -> list[tools.Dump]:
    """What each module takes and gives in one pass over each prompt and the first text. Inputs are taken before a fault can
    change them: a defect of a module is inside it, whatever way it was put there."""
    current: list[tools.Dump] = []

    def before(model: Model) -> None:
        for name, module in model.named_modules():
            module.register_forward_pre_hook(_taking(name or WHOLE, current), with_kwargs=True)

    model = bench.load(dtype, fault, before)
    for name, module in model.named_modules():
        module.register_forward_hook(_giving(name or WHOLE, current))
    found = []
    with torch.inference_mode():
        for document in (*bench.prompts, bench.texts[0]):
            current[:] = [tools.Dump()]
            _logits(model, document)
            found.append(current[0])
    return found


def _logits(model: Model, document: Document) -> torch.Tensor:
    return model(input_ids=torch.tensor([document.ids]), use_cache=False).logits[0]


@contextlib.contextmanager
def _keeping(model: Model, hidden: list[torch.Tensor]) -> Iterator[None]:
    def keep(_module: Any, _args: Any, output: Any) -> None:
        hidden.append(output.last_hidden_state[0].float())

    handle = decoder_of(model).register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _generate(model: Model, rows: Sequence[Sequence[int]]) -> list[Generated]:
    from transformers import GenerationConfig

    stop = model.generation_config.eos_token_id
    stops = {stop} if isinstance(stop, int) else set(stop or ())
    pad = next(iter(sorted(stops)), 0)
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    plain = GenerationConfig(
        max_new_tokens=rules.NEW_TOKENS,
        do_sample=False,
        pad_token_id=pad,
        output_logits=True,
        return_dict_in_generate=True,
    )
    before, model.generation_config = model.generation_config, plain
    try:
        with torch.inference_mode(), quiet_transformers():
            found = model.generate(input_ids=tokens, attention_mask=mask)
    finally:
        model.generation_config = before
    best = torch.stack(found.logits, dim=1).float().topk(rules.TOP, dim=-1).indices.tolist()
    return [_until(ids[width:], top, stops) for ids, top in zip(found.sequences.tolist(), best, strict=True)]


def _until(ids: Sequence[int], top: Sequence[Sequence[int]], stops: set[int]) -> Generated:
    """With the first stop token, without what follows."""
    end = next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))
    return Generated(tuple(ids[:end]), tuple(frozenset(step) for step in top[:end]))


def _taking(name: str, current: list[tools.Dump]) -> Callable[..., None]:
    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not current:
            return
        dump = current[0]
        dump.begin(name)
        dump.put(name, "input", args)
        dump.put(name, "input", kwargs)
        dump.put(name, "parameters", dict(module.named_parameters(recurse=False)))

    return hook


def _giving(name: str, current: list[tools.Dump]) -> Callable[..., None]:
    def hook(_module: Any, _args: Any, output: Any) -> None:
        if current:
            current[0].put(name, "output", output if isinstance(output, (tuple, dict)) else (output,))

    return hook


def _of_passes(bench: Bench, fault: Fault | None, dtype: str) -> list[Verdict]:
    found, texts = passes(bench, fault, dtype), token_nll(bench, fault, dtype)
    exact, exact_texts = bench.healthy(passes, "float32"), bench.healthy(token_nll, "float32")
    same, count = bench.healthy(passes, dtype), len(bench.prompts)
    plain, reference = ([logits.float().numpy() for logits in source.logits] for source in (found, exact))
    hidden = [h.numpy() for h in found.hidden[count:]], [h.numpy() for h in exact.hidden[count:]]
    last = [row[-1] for row in plain[:count]], [row[-1] for row in reference[:count]]
    change = rules.mean_perplexity_change(texts, exact_texts)
    low = dtype != "float32"
    change_same = rules.mean_perplexity_change(texts, bench.healthy(token_nll, dtype)) if low else None
    together = torch.cat(found.logits)
    return [
        rules.mem_agent(*last, change, change_same),
        rules.reranker(*hidden, plain[count:], reference[count:], float32=not low),
        tools.models_agree(torch.cat(exact.logits), together),
        tools.matches_reference(torch.cat(same.logits), together),
        rules.within_a_percent(texts, exact_texts),
    ]


def _of_continuations(bench: Bench, fault: Fault | None, dtype: str) -> list[Verdict]:
    return [rules.logprobs_close(bench.healthy(continuations, dtype), continuations(bench, fault, dtype))]


def _of_dumps(bench: Bench, fault: Fault | None, dtype: str) -> list[Verdict]:
    return list(tools.msprobe(bench.healthy(dumps, dtype), dumps(bench, fault, dtype)))


# who judges what: the keys are those of page.TOOLS
PARTS: dict[tuple[str, ...], Callable[[Bench, Fault | None, str], list[Verdict]]] = {
    ("mem-agent", "reranker", "models-agree", "matches-reference", "ppl"): _of_passes,
    ("vllm",): _of_continuations,
    ("msprobe-result", "msprobe-accuracy"): _of_dumps,
}
