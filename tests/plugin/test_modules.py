"""Modules fed one by one, on the random Qwen3: what is wrong is named, what is healthy is left alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pytest_npuconf import measurements, thresholds
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.modules import ModuleRunner
from pytest_npuconf.engines.variants import SplitK
from pytest_npuconf.errors import EngineError, NonFiniteError
from pytest_npuconf.module_comparison import compare_modules, kept_rows, module_documents
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.live import LiveReference
from tests.plugin.conftest import card_text

LAYER = "model.layers.2"
BOUNDS = {"bfloat16": thresholds.MODULE_RATIO.value, "float32": thresholds.MODULE_RATIO_FLOAT32.value}
SUITE = "npuconf/precision/test_modules.py"


class Bench:
    """A live reference of the random model, and candidates to break."""

    def __init__(self, folder):
        from pytest_npuconf.options import Settings
        from pytest_npuconf.weights.checkpoint import read_checkpoint

        self.checkpoint = read_checkpoint(folder, "test", "")
        self.reference = LiveReference(self.checkpoint, Settings(), Progress(lambda _: None))
        rng = np.random.default_rng(0)
        self.documents = [
            Document(f"text {n}", "document", "", tuple(rng.integers(0, 256, length).tolist()))
            for n, length in enumerate((40, 129, 280), start=1)
        ]

    def candidate(self, dtype):
        from pytest_npuconf.engines.transformers_engine import TransformersEngine

        return TransformersEngine(self.checkpoint, CpuDevice(), dtype)

    def compare(self, dtype, change=lambda _: None):
        engine = self.candidate(dtype)
        change(engine.model)
        noise = self.reference.module_noise(dtype, self.documents)
        return compare_modules(self.reference.engine("float32").model, engine.modules(), noise)

    def measure(self, dtype, change=lambda _: None):
        return measurements.module_ratio(self.compare(dtype, change), BOUNDS[dtype], thresholds.NOISE_RATIO.value)


@pytest.fixture(scope="module")
def bench(tiny_weights):
    return Bench(tiny_weights)


def module(model, name):
    return model.get_submodule(name)


def dead_row(model):
    module(model, f"{LAYER}.mlp.up_proj").weight.data[7] = 0


def scaled(model):
    module(model, f"{LAYER}.self_attn").scaling *= 1.05


def shifted_rotary(model):
    module(model, "model.rotary_emb").register_forward_pre_hook(lambda _, args: (args[0], args[1] + 1, *args[2:]))


def short_table(model):
    module(model, "model.rotary_emb").register_forward_pre_hook(lambda _, args: (args[0], args[1].clamp(max=255)))


def large_epsilon(model):
    module(model, f"{LAYER}.input_layernorm").variance_epsilon = 0.1


def stale_head(model):
    import torch

    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.data * 1.1)


def doubled_logits(model):
    head = model.forward

    def forward(*args, **kwargs):
        found = head(*args, **kwargs)
        found.logits = found.logits * 2
        return found

    model.forward = forward


def replaced_forward(model):
    target = module(model, f"{LAYER}.mlp.act_fn")
    before = target.forward
    target.forward = lambda x: before(x) * 1.1


def skipped(model):
    module(model, LAYER).register_forward_hook(lambda _, args, __: args[0])


FAULTS = [
    (dead_row, f"{LAYER}.mlp.up_proj"),
    (scaled, f"{LAYER}.self_attn"),
    (shifted_rotary, "model.rotary_emb"),
    (short_table, "model.rotary_emb"),
    (large_epsilon, f"{LAYER}.input_layernorm"),
    (stale_head, "lm_head"),
    (doubled_logits, "logits"),
    (replaced_forward, f"{LAYER}.mlp.act_fn"),
    (skipped, LAYER),
]


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(("fault", "guilty"), FAULTS, ids=[f.__name__ for f, _ in FAULTS])
def test_the_guilty_module_is_named(bench, dtype, fault, guilty):
    found = bench.measure(dtype, fault)
    assert found.data["guilty"] == guilty
    assert found.data["origins"] == [guilty]
    assert found.value > BOUNDS[dtype]
    assert found.worst.place == guilty


def eager(model):
    model.set_attn_implementation("eager")


def split(model):
    model.npuconf_variant = SplitK(8).applied(model)
    model.npuconf_variant.__enter__()


def further(model):
    """The same text 17 positions further on."""
    import torch

    def later(_, args, kwargs):
        return args, {**kwargs, "position_ids": torch.arange(kwargs["input_ids"].shape[1])[None] + 17}

    model.base_model.register_forward_pre_hook(later, with_kwargs=True)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("variant", [lambda _: None, eager, split, further], ids=["clean", "eager", "split", "further"])
def test_benign_variants_are_left_alone(bench, dtype, variant):
    found = bench.measure(dtype, variant)
    assert found.data["guilty"] == ""
    assert not found.broken
    assert found.value < (1.15 if dtype == "bfloat16" else 3)
    assert not found.data["downstream"] or variant is further


def test_origin_containers_and_spread_are_told_apart(bench):
    found = bench.measure("float32", dead_row)
    assert found.data["origins"] == [f"{LAYER}.mlp.up_proj"]
    assert found.data["containers"] == [f"{LAYER}.mlp", LAYER]
    assert [layer for layer, _ in found.data["downstream"]] == [LAYER, "model.layers.3"]
    assert found.data["notes"][0] == f"origin: {LAYER}.mlp.up_proj"
    assert "differs from the checkpoint in weight: 1 of 128 rows" in found.worst.detail
    assert "channel 7" in found.worst.detail
    json.dumps(found.data)


def hidden_key(model):
    """Position 30 and later do not see position 3."""
    import torch

    def masked(_, args, kwargs):
        length = kwargs["input_ids"].shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        mask[30:, 3] = False
        return args, {**kwargs, "attention_mask": {"full_attention": mask[None, None]}}

    model.base_model.register_forward_pre_hook(masked, with_kwargs=True)


def repeated_position(model):
    import torch

    def wrong(_, args, kwargs):
        positions = torch.arange(kwargs["input_ids"].shape[1])
        positions[20:] -= 1
        return args, {**kwargs, "position_ids": positions[None]}

    model.base_model.register_forward_pre_hook(wrong, with_kwargs=True)


@pytest.mark.parametrize(
    ("fault", "guilty", "words"),
    [
        (hidden_key, "attention_mask", "position 30 does not see position 3"),
        (repeated_position, "position_ids", "token 20 has position 19, expected 20"),
    ],
)
def test_what_the_decoder_makes_itself_is_compared_exactly(bench, fault, guilty, words):
    found = bench.measure("bfloat16", fault)
    assert found.data["guilty"] == guilty
    assert words in found.broken


def test_a_mask_of_another_attention_is_no_difference(bench):
    """None for the fused kernel, numbers for the eager one, without any mask for an eager one that is broken."""
    assert not bench.compare("float32", eager).wrong

    def unmasked(model):
        eager(model)
        for layer in model.base_model.layers:
            layer.register_forward_pre_hook(lambda _, a, k: (a, {**k, "attention_mask": None}), with_kwargs=True)

    found = bench.measure("float32", unmasked)
    assert "model.layers.0" in found.data["origins"]


def test_the_first_module_that_gives_nan_is_named(bench):
    def poisoned(model):
        module(model, f"{LAYER}.post_attention_layernorm").weight.data[3] = float("nan")

    found = bench.measure("bfloat16", poisoned)
    assert found.data["guilty"] == f"{LAYER}.post_attention_layernorm"
    assert found.broken.startswith(f"{LAYER}.post_attention_layernorm: NaN at text 1 positions 0-15")
    assert found.data["containers"] == [LAYER]


def test_modules_that_are_fused_are_judged_by_what_contains_them(bench):
    import torch

    def fused(model):
        mlp = module(model, f"{LAYER}.mlp")
        gate, up = mlp.gate_proj, mlp.up_proj
        mlp.gate_up = torch.nn.Linear(64, 256, bias=False)
        mlp.gate_up.weight.data = torch.cat([gate.weight.data, up.weight.data])
        del mlp.gate_proj, mlp.up_proj

        def forward(x):
            a, b = mlp.gate_up(x).chunk(2, dim=-1)
            return mlp.down_proj(mlp.act_fn(a) * b)

        mlp.forward = forward

    found = bench.measure("bfloat16", fused)
    assert not found.broken
    assert found.data["guilty"] == ""
    assert sorted(found.data["unmatched"]) == [f"{LAYER}.mlp.gate_proj", f"{LAYER}.mlp.up_proj"]
    assert any("could not be matched" in note for note in found.data["notes"])


def test_a_layer_that_is_gone_is_a_failure(bench):
    def shorter(model):
        del model.base_model.layers[3]

    found = bench.measure("bfloat16", shorter)
    assert found.data["guilty"] == "model.layers.3"
    assert "leaves it out" in found.broken


def test_another_model_matches_nothing(bench):
    import torch

    class Other(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.inner, self.config = model, model.config

        @property
        def base_model(self):
            return self.inner.base_model

        def forward(self, **_):
            raise RuntimeError("cannot")

    noise = bench.reference.module_noise("bfloat16", bench.documents)
    runner = ModuleRunner(Other(bench.candidate("bfloat16").model), "bfloat16", "cpu")
    with pytest.raises(EngineError, match="no module of the candidate matches the reference's"):
        compare_modules(bench.reference.engine("float32").model, runner, noise)


def test_noise_is_measured_once(bench):
    first = bench.reference.module_noise("bfloat16", bench.documents)
    assert bench.reference.module_noise("bfloat16", bench.documents) is first
    assert first.reach == 280


def test_a_model_that_overflows_by_itself_has_no_yardstick(tiny_weights):
    bench = Bench(tiny_weights)
    bench.reference.engine("float16").model.model.layers[1].mlp.down_proj.weight.data *= 1e6
    with pytest.raises(NonFiniteError, match=r"model.layers.1.mlp.down_proj, yardstick .* at float16"):
        bench.reference.module_noise("float16", bench.documents)


def test_the_reference_stays_as_it_was(bench):
    engine = bench.reference.engine("float32")
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    bench.measure("float32")
    assert all(bool((tensor == before[name]).all()) for name, tensor in engine.model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in engine.model.modules())
    assert not any("forward" in vars(m) for m in engine.model.modules())


def test_documents_near_the_lengths_are_taken():
    texts = [Document(f"d{n}", "document", "", tuple(range(n))) for n in (1, 48, 50, 128, 129, 257, 513, 1025)]
    prompt = Document("p", "prompt", "", tuple(range(129)))
    assert [d.name for d in module_documents([prompt, *texts])] == ["d48", "d129", "d513"]
    assert module_documents([prompt]) == (prompt,)


@pytest.mark.parametrize("length", [1, 15, 16, 128, 129, 513, 1025])
def test_kept_rows_are_in_order_and_reach_the_end(length):
    rows = kept_rows(length)
    assert rows[0] == 0
    assert rows[-1] == length - 1
    assert rows == sorted(rows)
    assert len(rows) <= 128


# ---------------------------------------------------------------- whole runs

CONFTEST = """
from pytest_npuconf.faults.base import Fault

def break_it(model):
    model.get_submodule("model.layers.2.mlp.up_proj").weight.data[7] = 0

def pytest_npuconf_faults(config):
    return [Fault("dead", "one row is zero", "1", "modules.noise_ratio", break_it)]
"""


def test_the_guilty_module_is_in_message_junit_and_results(run, pytester):
    pytester.makeconftest(CONFTEST)
    result = run(
        "--model", "card.toml", "--npuconf-precision", "bfloat16", SUITE, "--npuconf-fault", "dead",
        "--junitxml", "j.xml", "--npuconf-results", "r.json",
    )  # fmt: skip
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FAIL modules.noise_ratio.bf16_fp32: modules.noise_ratio = * gate <= 1.25",
            f"  worst: {LAYER}.mlp.up_proj: * (origin; channel 7: *; differs from the checkpoint in weight: 1 of 128 rows)",
            f"  origin: {LAYER}.mlp.up_proj",
            f"  contained in: {LAYER}.mlp, {LAYER}",
        ]
    )
    assert f'name="npuconf.guilty" value="{LAYER}.mlp.up_proj"' in Path(pytester.path / "j.xml").read_text()
    [check] = json.loads((pytester.path / "r.json").read_text())["checks"]
    assert check["data"]["guilty"] == f"{LAYER}.mlp.up_proj"
    assert check["rows"][0]["place"] == f"{LAYER}.mlp.up_proj"


def test_a_card_can_give_its_own_bound(run, tiny_weights):
    gate = '[gates."modules.noise_ratio"]\nbound = 0.5\nreason = "a test"\n'
    result = run(
        "--model", "card.toml", "--npuconf-precision", "bfloat16", SUITE, card=card_text(tiny_weights, more=gate)
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAIL modules.noise_ratio.bf16_fp32: * gate <= 0.5", "  origin: *"])


def test_a_stored_reference_alone_does_not_ask_for_it():
    from pytest_npuconf.options import Settings
    from pytest_npuconf.plan import Extensions, make_plan
    from pytest_npuconf.report.terminal import header

    plans = {
        kind: make_plan(Settings(models=("tiny-qwen3",), reference=kind), Extensions())
        for kind in ("auto", "live", "stored")
    }
    asked = {kind: [c for c in p.required["tiny-qwen3"] if c.startswith("modules.")] for kind, p in plans.items()}
    assert asked == {
        "auto": ["modules.noise_ratio.fp32_fp32", "modules.noise_ratio.bf16_fp32"],
        "live": ["modules.noise_ratio.fp32_fp32", "modules.noise_ratio.bf16_fp32"],
        "stored": [],
    }
    assert not any("CARD REQUIRES" in label for label in plans["stored"].labels("tiny-qwen3"))
    assert any("not asked for: modules.noise_ratio" in line for line in header(plans["stored"]))
    assert not any("not asked for" in line for line in header(plans["auto"]))


def test_an_engine_without_modules_is_told_so(bench):
    from pytest_npuconf.engines.base import Modules

    assert isinstance(bench.candidate("bfloat16"), Modules)
    assert not isinstance(dataclasses.make_dataclass("Plain", [])(), Modules)
