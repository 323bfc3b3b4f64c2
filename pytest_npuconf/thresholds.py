"""The one table of constants that decide: each with its reason and the run that gave it.

A bound changes here or in a card, never in a test, and never until something is green: change the reason first.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """A bound, why it is that, and how anyone can see the figures behind it."""

    value: float
    reason: str
    run: str


_BENIGN = "pytest --model smollm2-135m-instruct --npuconf-fault {} (see docs/thresholds.md)"

NOISE_RATIO = Constant(
    1.5,
    "rounding may cost up to half as much again as the yardstick's own; benign kernels of a CPU stay within 0.9 to 1.1, "
    "which is in-sample: other hardware rounds at other points, and calibration will say how far it goes",
    _BENIGN.format("benign-split-k"),
)
REL_L2_FLOAT32 = Constant(
    1e-4,
    "float32 against float32 at every position: benign summation orders reach 5.2e-6 on the real model; twenty times that, "
    "provisional until the noise floor is calibrated",
    _BENIGN.format("benign-split-k"),
)
TIE_Z = Constant(
    5.0,
    "a top-1 disagreement counts when the reference's gap exceeds z robust standard deviations of what rounding does "
    "to that gap; the largest of a clean bfloat16 run is about two (data.largest_excused of the check). The tails are "
    "heavy: single shifts of eight are benign, though not where the gap itself is that large",
    _BENIGN.format("benign-split-k"),
)
DISAGREEMENTS = Constant(
    0.0, "every disagreement beyond a near tie is an error; ties are already excused", "by definition"
)
NON_FINITE = Constant(0.0, "a NaN or an infinity in the logits is never rounding", "by definition")
MISPLACED = Constant(
    0.0, "a model that computes at another dtype or elsewhere is not the one under test", "by definition"
)
FEWEST_TOKENS = Constant(
    200.0,
    "the shipped prompts and texts have some 540 tokens and tell a noise ratio to about 7 %; with fewer than 200 the "
    "interval no longer tells 1 from 1.5",
    _BENIGN.format("benign-split-k"),
)
CONFIG_DIFFERENCES = Constant(0.0, "the checkpoint must be the one that the card describes", "by definition")
GENERATION_DIFFERENCES = Constant(
    0.0, "the settings that the model generates with must be the ones that the card describes", "by definition"
)
PARAMETER_COUNTS = Constant(
    0.0,
    "config.json, the weight files and the card speak of one model, so they count the same parameters",
    "by definition",
)
WEIGHT_DIFFERENCES = Constant(
    0.0, "a weight that is missing or of another shape is random or another model's", "by definition"
)
MISSING_FILES = Constant(0.0, "a documented file that is not there is not there", "by definition")
TOKEN_IDS = Constant(0.0, "another token id is another question: there is no rounding in a tokenizer", "by definition")
UNMET_MINIMUMS = Constant(
    0.0,
    "the card's minimums are its own words; unmet ones explain failures and decide nothing by themselves",
    "by definition",
)
WRONG_SAMPLES = Constant(
    0.0,
    "every sample that the card documents must come out as documented; greedy decoding has no luck in it",
    "pytest --model smollm2-135m-instruct -k samples (its samples hold at float32 and bfloat16)",
)
PPL_SAME_FLOAT32 = Constant(
    0.01,
    "mem-agent's document: at most 1 % for FP32 against FP32; made two-sided, paired and with an interval",
    "seed 000, 'FP32 PPL 差异仅 0.004%,远低于 1% 阈值'",
)
PPL_SAME_LOW = Constant(
    0.02,
    "mem-agent's document: 1-2 % for BF16 against BF16; made two-sided, paired and with an interval",
    "seed 000, '跨硬件同精度 (BF16 vs BF16) 1-2% 属正常范围'",
)
PPL_CROSS = Constant(
    0.03,
    "mem-agent's document: 1-3 % for BF16 against FP32; made two-sided, paired and with an interval",
    "seed 000, '跨硬件跨精度 (BF16 vs FP32) 1-3% 为行业接受范围'",
)
