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
    "rounding may cost up to half as much again as the noisiest healthy way to compute (attention whose scores are rounded on "
    "the way); kernels that round once come out at 0.5 to 0.8. All of it is in-sample: other hardware rounds at other points",
    _BENIGN.format("benign-split-k"),
)
YARDSTICK_WORSE = Constant(
    0.25,
    "a candidate at a quarter of the noisiest member's noise is no healthy rounding at this dtype: it computes wider than it "
    "says, or the yardstick is bad; it decides nothing and is said as a finding. The least of the benign variants on "
    "tiny-qwen3 is 0.48",
    _BENIGN.format("benign-fused-norm"),
)
POSITIONS_RATIO = Constant(
    2.0,
    "a bucket of positions has six to thirty windows where the whole has fifty documents, so its ratio moves more",
    _BENIGN.format("benign-split-k"),
)
MODULE_RATIO = Constant(
    1.25,
    "one module, fed with the reference's input, against the noisiest of three healthy ways to compute it: benign variants "
    "reach 1.09, the smallest fault of the catalogue that it catches has 1.28 (sums held in float16), the largest that it "
    "misses 1.21 (an epsilon of 1e-5 for 1e-6, plain at float16 and float32)",
    "pytest --model tiny-qwen3 --npuconf-fault accumulate-fp16 (see docs/modules.md)",
)
MODULE_RATIO_FLOAT32 = Constant(
    10.0,
    "at float32 orders of summation differ more among themselves: benign ones reach 4.0, other hardware sums in other blocks; "
    "the smallest fault of the catalogue lies at 1,500",
    "pytest --model tiny-qwen3 --npuconf-fault benign-strided-k (see docs/modules.md)",
)
REL_L2_FLOAT32 = Constant(
    1e-4,
    "float32 against float32 at every looked position: ten benign ways to compute reach 1.9e-5 on smollm2-135m-instruct and "
    "8.6e-6 on tiny-qwen3, on texts that the bound was not found on; five times that",
    "python -m tests.benchmarks.false_alarms --model smollm2-135m-instruct --precision float32 (see docs/false-alarms.md)",
)
TIE_Z = Constant(
    5.0,
    "a top-1 disagreement counts when the reference's gap exceeds z standard deviations of what rounding does to that gap, "
    "over all positions or at that one if more: single positions move nine times as far as most, and a z for all of them "
    "failed healthy runs. Over the benign variants and all 5,984 positions of tiny-qwen3 the largest excused gap is 3.5, "
    "on texts that it was not found on 4.0 (docs/false-alarms.md)",
    "pytest --model tiny-qwen3 --npuconf-fault benign-blocked-attention",
)
DISAGREEMENTS = Constant(
    0.0, "every disagreement beyond a near tie is an error; ties are already excused", "by definition"
)
NON_FINITE = Constant(0.0, "a NaN or an infinity in the logits is never rounding", "by definition")
MISPLACED = Constant(
    0.0, "a model that computes at another dtype or elsewhere is not the one under test", "by definition"
)
ELSEWHERE = Constant(
    0.0, "an op that another device computes says nothing about this one, and is slow besides", "by definition"
)
SPECIAL_VALUES = Constant(
    0.0,
    "a device that turns overflow into the greatest number and NaN into zero hides that a result is worthless",
    "by definition (IEEE 754)",
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
EQUIVALENCE_RATIO = Constant(
    1.5,
    "the same tokens in two ways differ by two roundings at most; as NOISE_RATIO, half as much again",
    "pytest --model tiny-qwen3 -k equivalence",
)
EQUIVALENCE_ROW = Constant(
    2.0,
    "a single row or window has 1 to 96 positions of one text, so its ratio may be this many times a whole group's: between "
    "unlike benign kernels a row reaches 1.6 where the whole is at 0.89",
    "python -m tests.benchmarks.equivalence_width (see docs/equivalence.md)",
)
REPEAT_DIFFERENCES = Constant(
    0.0,
    "the same call gives the same bits where the device is deterministic; elsewhere a position counts only beyond what "
    "rounding does",
    "by definition",
)
DOCUMENT_CONTRADICTIONS = Constant(
    0.0,
    "two statements of a document that cannot both hold are one too many; it is about the document and not about the port, "
    "so by itself it decides nothing",
    "npuconf audit README.md",
)
UNSOUND_GATES = Constant(
    0.0,
    "a verdict is worth what its gates can refuse: one that cannot fail, or a waiver past its date, makes it worth nothing",
    "npuconf audit card.toml",
)
WRONG_SAMPLES = Constant(
    0.0,
    "every sample that the card documents must come out as documented; greedy decoding has no luck in it",
    "pytest --model smollm2-135m-instruct -k samples (its samples hold at float32 and bfloat16)",
)
SERVED_DEVIATIONS = Constant(
    0.0,
    "a greedy answer goes on with the reference's best word or with one that rounding cannot tell from it (TIE_Z), whatever "
    "was asked before, beside it, or at which length; a lost answer is none",
    "pytest --model tiny-qwen3 --npuconf-engine server",
)
SERVED_WRONG = Constant(
    0.0, "a route, a count, a stop or a stream that is not as the API says is wrong by any amount", "by definition"
)
SEED_DIFFERENCES = Constant(
    0.25,
    "the same seed gives the same words, but for a draw that falls within rounding; without a seed two texts of 24 words "
    "agree next to never",
    "pytest --model tiny-qwen3 --npuconf-engine server -k seed",
)
SAMPLING_P = Constant(
    1e-6,
    "the chance of draws at least as far from the reference's distribution as these: a healthy sampler fails one run in a "
    "million, one that ignores the temperature or loses a word of the top-k lies below 1e-9 in nearly every run of these draws",
    "python -m pytest tests/unit/test_serving_sampling.py",
)
_SPEED = "pytest --model tiny-qwen3 --npuconf-engine server -k speed (see docs/speed.md)"
UNANSWERED = Constant(
    0.0,
    "a request that is lost, cut short or answered with an error is in no latency: figures of the rest would flatter the server",
    "by definition",
)
CLIENT_SHARE = Constant(
    0.05,
    "what the client adds to known latencies at the same load may be a twentieth of what is measured; more, and it is not "
    "known whose time it is: inconclusive",
    _SPEED,
)
ROOFLINE = Constant(
    1.1,
    "no step can take less time than reading its weights does; a tenth is left for a bandwidth that was measured too low. "
    "Beyond it tokens are not computed one by one: a cache answers, the count is wrong, or the weights are not all read",
    _SPEED,
)
REPEAT_SPEEDUP = Constant(
    1.5,
    "the same requests again, of 32 tokens at most: a prefix cache saves that prefill, about a step, and leaves every decode "
    "step; what replays an answer takes next to no time",
    _SPEED,
)
SHARE_OF_FLOOR = Constant(1.0, "the card's own floor, on the hardware that it names and on no other", "by definition")
DEPARTURE = Constant(
    1.0,
    "one more healthy session is expected to come this far from those recorded, with 95 % over all figures: what a slowdown "
    "must exceed is learnt from them and not fixed",
    "pytest --model NAME --npuconf-engine server -k speed --npuconf-record, five times or more",
)
GOOD_SHARE = Constant(
    0.95, "of the requests must meet the card's objectives, as usual for objectives of services; a card may ask for more",
    "by definition",
)  # fmt: skip
LAST_OVER_FIRST = Constant(
    0.9,
    "a rate that falls by a tenth and more while the load is the same is no steady state: throttling, a cache that fills, "
    "memory that fragments",
    _SPEED,
)
GROWTH = Constant(
    64.0,
    "KiB a request: at ten requests a second 52 GiB a day. What healthy servers keep grows less and less; a leak does not",
    _SPEED,
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
