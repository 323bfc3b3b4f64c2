"""What a check is: for which engines and precision pairs, what it needs, whether it decides, and with which bound."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_npuconf import thresholds
from pytest_npuconf.cards.schema import Card
from pytest_npuconf.gates import Sense
from pytest_npuconf.precisions import Precision, pairs_of
from pytest_npuconf.thresholds import Constant

IN_PROCESS = ("transformers",)
SERVING = ("server", "vllm")
EVERY = (*IN_PROCESS, *SERVING)


@dataclass(frozen=True)
class Check:
    """``bound(pair)`` gives the shipped constant, None where the check has no gate of its own (a claim only). An
    ``exact`` check has no tolerance: no card can give it another bound or waive it. ``needs`` names the card's field that
    the check is about: a card without it has no such check. ``live``: it needs the reference's weights in this process, so
    ``--npuconf-reference stored`` does not ask for it. ``engines``: those that can answer it; another package's engine
    answers what ``transformers`` answers. ``mode``: of the server that it asks. ``constant``: its shipped bound, where that
    is one for every pair."""

    name: str
    engines: tuple[str, ...]
    sense: Sense
    per_pair: bool = True
    required: bool = True
    exact: bool = False
    needs: str = ""
    live: bool = False
    statistics: tuple[str, ...] = ()
    mode: str = ""
    constant: Constant | None = None

    def bound(self, pair: Precision | None) -> Constant | None:
        """The shipped bound for this pair."""
        if self.constant is not None:
            return self.constant
        same = pair is not None and pair.candidate == pair.reference
        full = pair is not None and pair.candidate == "float32"
        return {
            "audit.document": thresholds.DOCUMENT_CONTRADICTIONS,
            "audit.gates": thresholds.UNSOUND_GATES,
            "env.minimum": thresholds.UNMET_MINIMUMS,
            "functional.samples": thresholds.WRONG_SAMPLES,
            "model.config": thresholds.CONFIG_DIFFERENCES,
            "model.files": thresholds.MISSING_FILES,
            "model.generation_config": thresholds.GENERATION_DIFFERENCES,
            "model.parameters": thresholds.PARAMETER_COUNTS,
            "model.weights": thresholds.WEIGHT_DIFFERENCES,
            "token.ids": thresholds.TOKEN_IDS,
            "model.placement": thresholds.MISPLACED,
            "device.execution": thresholds.ELSEWHERE,
            "device.special_values": thresholds.SPECIAL_VALUES,
            "logits.finite": thresholds.NON_FINITE,
            "hidden.states": thresholds.REL_L2_FLOAT32 if full else thresholds.NOISE_RATIO,
            "logits.rel_l2": thresholds.REL_L2_FLOAT32 if full else thresholds.NOISE_RATIO,
            "kl.noise_ratio": thresholds.NOISE_RATIO,
            "kl.positions": thresholds.POSITIONS_RATIO,
            "modules.noise_ratio": thresholds.MODULE_RATIO_FLOAT32 if full else thresholds.MODULE_RATIO,
            "equivalence.batch": thresholds.REL_L2_FLOAT32 if full else thresholds.EQUIVALENCE_RATIO,
            "equivalence.cache": thresholds.REL_L2_FLOAT32 if full else thresholds.EQUIVALENCE_RATIO,
            "equivalence.repeat": thresholds.REPEAT_DIFFERENCES,
            "token.match": thresholds.DISAGREEMENTS,
            "ppl.delta": thresholds.PPL_SAME_FLOAT32
            if full
            else (thresholds.PPL_SAME_LOW if same else thresholds.PPL_CROSS),
            "serving.perplexity": thresholds.PPL_SAME_FLOAT32 if full else thresholds.PPL_CROSS,
        }.get(self.name)

    def given(self, card: Card) -> bool:
        """Whether the card has what this check is about."""
        stated = not self.needs or bool(getattr(card, self.needs))
        if self.needs == "rerank":  # an example is of the modes that it names
            stated = any(self.mode in example.modes for example in card.rerank)
        return stated and (not self.mode or card.serving.mode(self.mode) is not None)

    def answered_by(self, engine: str) -> bool:
        """Whether this engine can answer it."""
        return engine in self.engines or (engine not in EVERY and "transformers" in self.engines)

    def asked(self, reference: str) -> bool:
        """Whether a run with this kind of reference (auto, stored, live) asks for it."""
        return not (self.live and reference == "stored")

    def runs_at(self, pair: Precision) -> bool:
        """The KL of two float32 computations is rounding of log-probabilities more than of the model: there ``logits.rel_l2`` holds
        every position to ``REL_L2_FLOAT32``, and no noise ratio is asked. Hidden states have one reference,
        float32; samples, equivalences and the device have none and run once for each dtype."""
        if (
            "transformers" not in self.engines
        ):  # served: the reference is float32, and here too KL at float32 is not asked
            return pair.reference == "float32" and not (self.name == "serving.kl" and pair.candidate == "float32")
        if self.name in ("hidden.states", "functional.samples", "modules.noise_ratio") or self.name.startswith(
            ("equivalence.", "device.")
        ):
            return pair.reference == "float32"
        if self.name == "kl.positions":
            return pair.candidate != "float32" == pair.reference
        return not (self.name == "kl.noise_ratio" and pair.candidate == "float32")

    def ids(self, precisions: tuple[str, ...]) -> list[str]:
        """``name.pair`` for each pair of these precisions, or the name alone."""
        if not self.per_pair:
            return [self.name]
        return [f"{self.name}.{p.name}" for precision in precisions for p in pairs_of(precision) if self.runs_at(p)]
