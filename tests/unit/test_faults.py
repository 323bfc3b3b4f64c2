"""The catalogue: every fault changes what it says it changes, in float32, and no benign variant changes anything."""

from __future__ import annotations

import copy
import fnmatch
import math

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pytest_npuconf.checks import CHECKS  # noqa: E402
from pytest_npuconf.errors import FaultError  # noqa: E402
from pytest_npuconf.faults import anatomy, arithmetic  # noqa: E402
from pytest_npuconf.faults.base import Fault  # noqa: E402
from pytest_npuconf.faults.catalogue import SHIPPED, choose_fault  # noqa: E402
from tests.benchmarks.fault_sizes import FLOOR, WAYS, Bench, kl, line, way_of, wrong_with  # noqa: E402

FAULTS = [f for f in SHIPPED if not f.benign]
ABSENT = {"norm-eps-1e-6", "window-ignored", "window-short"}  # of tiny-qwen3
LOW_ONLY = {"weight-left-in-float32"}
ABSENT_FROM_LLAMA = {"qk-norm-missing", "norm-eps-1e-5", "window-ignored", "window-short"}  # with an epsilon of 1e-5
FLOAT32_ONLY = {"tf32", "hf32"}
IDS = torch.tensor([[5, 9, 2, 7, 5, 9, 2, 7, 1, 3, 5, 9]])


def named(name: str) -> Fault:
    return choose_fault(name, [])


def refusal(fault: Fault, model) -> str:
    """Inject; why it does not apply, or nothing."""
    try:
        fault.inject(model)
    except FaultError as error:
        return str(error)
    return ""


def shape(**more):
    return {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, **more,
    }  # fmt: skip


def build(config_class, model_class, **more):
    torch.manual_seed(0)
    model = model_class(config_class(**shape(**more))).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.normal_(0, 0.3)
    return model


def qwen3(**more):
    return build(
        transformers.Qwen3Config, transformers.Qwen3ForCausalLM, **{"head_dim": 8, "tie_word_embeddings": True, **more}
    )


def llama(**more):
    return build(transformers.LlamaConfig, transformers.LlamaForCausalLM, **more)


def logits(model, ids=IDS):
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits[0].double().numpy()


@pytest.fixture(scope="module")
def bench():
    return Bench("tiny-qwen3")


# ---------------------------------------------------------------- the table


def test_there_are_enough_of_them():
    assert len(FAULTS) >= 30
    assert len(SHIPPED) - len(FAULTS) >= 7
    assert len({f.name for f in SHIPPED}) == len(SHIPPED)


@pytest.mark.parametrize("fault", SHIPPED, ids=lambda f: f.name)
def test_an_entry_is_complete(fault):
    assert fault.description
    assert fault.magnitude
    assert set(fault.checks) <= set(CHECKS)
    assert bool(fault.checks) == (not fault.benign)
    assert set(fault.precisions) <= {"float32", "bfloat16", "float16"}
    assert bool(fault.scaled) == bool(fault.magnitudes)
    assert list(fault.magnitudes) == sorted(set(fault.magnitudes))
    assert not (fault.equivalent and fault.precisions)


@pytest.mark.parametrize(
    "subject", ["attention-scale-2%", "rope-base", "dead-weight-row", "accumulate-bf16", "int8-scale"]
)
def test_curves_can_be_drawn(subject):
    assert len(named(subject).magnitudes) >= 8


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.module], ids=lambda f: f.name)
def test_the_guilty_module_is_one_of_the_model(fault):
    """Or the mask, which the decoder makes itself and modules.noise_ratio names like one."""
    model = qwen3()
    names = [*dict(model.named_modules()), "attention_mask"]
    assert [name for name in names if fnmatch.fnmatch(name, fault.module_of(len(anatomy.layers(model))))]


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("fault", SHIPPED, ids=lambda f: f.name)
def test_its_size_in_float32(bench, fault):
    """Prints the mean KL by way of running the model; ``python -m tests.benchmarks.fault_sizes`` prints all of them."""
    ways = WAYS if fault.benign or fault.equivalent else tuple(dict.fromkeys(("plain", way_of(fault))))
    sizes = bench.measure(fault, ways)
    print(line(sizes, 26))
    assert bool(sizes.says) == (fault.name in ABSENT | LOW_ONLY), sizes.says
    assert not wrong_with(sizes)


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.scaled], ids=lambda f: f.name)
def test_more_of_it_is_worse(bench, fault):
    def size(magnitude):
        found = Fault(fault.name, "-", "-", fault.expected, fault.scaled(magnitude))
        way = way_of(found)
        return bench.measure(found, (way,)).kl[way]

    least, most = size(fault.magnitudes[0]), size(fault.magnitudes[-1])
    assert most > max(10 * least, FLOOR)


@pytest.mark.parametrize("count", [1 / 64, 0.25, 1, 2.5])
def test_rows_die_whole_or_in_part(count):
    model = qwen3()
    named("dead-weight-row").scaled(count)(model)
    weight = anatomy.middle_mlp(model).up_proj.weight
    assert int((weight == 0).sum()) == math.ceil(count * weight.shape[1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("fault", SHIPPED, ids=lambda f: f.name)
def test_it_runs_at_low_precision_or_says_why_not(fault, dtype):
    model = qwen3().to(getattr(torch, dtype))
    healthy = logits(model)
    if why := refusal(fault, model):
        assert fault.name in ABSENT | FLOAT32_ONLY | ({"scores-bf16"} if dtype == "bfloat16" else set())
        assert dtype not in fault.precisions or fault.name in ABSENT
        assert "nothing to break" in why or "already" in why
        return
    found = logits(model)
    assert found.shape == healthy.shape
    assert fault.name == "nan-weight" or bool(torch.isfinite(torch.from_numpy(found)).all())


def test_another_model_of_the_process_stays_whole():
    """Nothing hangs on classes or on transformers' modules."""
    healthy, other = logits(qwen3()), qwen3()
    for fault in SHIPPED:
        try:
            fault.inject(qwen3())
        except FaultError:
            continue
    assert (logits(other) == healthy).all()


# ---------------------------------------------------------------- Llama's shape, windows, and what does not apply


@pytest.mark.parametrize("fault", SHIPPED, ids=lambda f: f.name)
def test_llama_has_them_too_or_says_why_not(fault):
    model = llama(rms_norm_eps=1e-5, tie_word_embeddings=True)
    if why := refusal(fault, model):
        assert fault.name in ABSENT_FROM_LLAMA | LOW_ONLY
        assert "LlamaForCausalLM" in why
        return
    assert logits(model).shape == (12, 64)


@pytest.mark.parametrize(
    ("name", "model", "why"),
    [
        ("stale-head", lambda: llama(tie_word_embeddings=False), "a head of its own, not tied to the embedding"),
        ("gqa-tiled", lambda: llama(num_key_value_heads=4), "as many key/value heads as query heads"),
        ("gqa-tiled", lambda: llama(num_key_value_heads=1), "a single key/value head"),
        ("wrong-activation", lambda: llama(hidden_act="gelu"), "no SiLU"),
        ("qk-norm-missing", llama, "no norm of queries and keys"),
        ("mask-ahead", lambda: windowed(8), "has a sliding window"),
    ],
)
def test_what_does_not_apply_says_why(name, model, why):
    with pytest.raises(FaultError, match=why):
        named(name).inject(model())


def windowed(window: int):
    return build(transformers.MistralConfig, transformers.MistralForCausalLM, sliding_window=window, rms_norm_eps=1e-5)


@pytest.mark.parametrize("name", ["window-ignored", "window-short"])
def test_windows_change_positions_beyond_them_only(name):
    model, healthy = windowed(6), logits(windowed(6))
    named(name).inject(model)
    found = kl(healthy, logits(model))
    start = 6 if name == "window-ignored" else 5
    assert (found[:start] < 1e-9).all()
    assert found[start:].max() > 1e-5


def test_a_window_of_qwen3_layers_is_made_shorter():
    more = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
    model, healthy = qwen3(**more), logits(qwen3(**more))
    named("window-short").inject(model)
    assert kl(healthy, logits(model)).max() > 1e-6


# ---------------------------------------------------------------- where a fault sits


def alone(model, name, *args, **kwargs):
    with torch.inference_mode():
        return dict(model.named_modules())[name](*args, **kwargs)


@pytest.mark.parametrize("name", ["rope-interleaved", "rope-q-ahead", "rope-k-ahead"])
def test_a_fault_of_the_attention_leaves_its_parts_right(name):
    whole, broken = qwen3(), qwen3()
    named(name).inject(broken)
    x = torch.randn(1, 12, 32)
    with torch.inference_mode():
        rope = whole.model.rotary_emb(x, torch.arange(12)[None])
    kwargs = {"hidden_states": x, "position_embeddings": rope, "attention_mask": None}
    path = "model.layers.1.self_attn"
    assert not torch.allclose(alone(broken, path, **kwargs)[0], alone(whole, path, **kwargs)[0], atol=1e-3)
    heads = torch.randn(1, 12, 4, 8)
    assert torch.equal(alone(broken, f"{path}.q_norm", heads), alone(whole, f"{path}.q_norm", heads))


def test_a_batch_variant_runs_in_a_batch_and_an_engine_sees_one_row():
    model, rows = qwen3(), []
    named("benign-batch").inject(model)
    model.model.layers[0].register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    with torch.inference_mode():
        assert model.model(input_ids=IDS, use_cache=False).last_hidden_state.shape[0] == 1
    assert rows == [2]


def test_threads_are_given_back():
    before, model, seen = torch.get_num_threads(), qwen3(), []
    named("benign-threads").inject(model)
    model.model.layers[0].register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    logits(model)
    assert torch.get_num_threads() == before
    assert seen != [before]


# ---------------------------------------------------------------- arithmetic


def test_rounding_to_seven_bits_is_bfloat16():
    x = torch.randn(10_000) * 10 ** torch.randint(-6, 6, (10_000,)).float()
    assert torch.equal(arithmetic.to_nearest(x, 7), x.to(torch.bfloat16).float())
    assert torch.equal(arithmetic.to_nearest(x, 23), x)


def test_cutting_moves_towards_zero_by_less_than_a_unit():
    x = torch.randn(10_000)
    cut = arithmetic.to_zero(x, 10)
    assert (cut.abs() <= x.abs()).all()
    assert ((x - cut).abs() <= x.abs() * 2.0**-10).all()
    assert torch.equal(arithmetic.to_zero(cut, 10), cut)


# ---------------------------------------------------------------- the real model


@pytest.mark.slow
def test_the_real_model_takes_them_or_says_why_not():
    whole = Bench("smollm2-135m-instruct").load().model
    ids = torch.arange(100, 140)[None]
    healthy, silent = logits(whole, ids), []
    for fault in SHIPPED:
        model = copy.deepcopy(whole)
        if why := refusal(fault, model):
            assert fault.name in ABSENT_FROM_LLAMA | LOW_ONLY, why
            continue
        size = kl(healthy, logits(model, ids)).mean()
        print(f"{fault.name:<26} {size:.1e}")
        if fault.name != "nan-weight" and not size > FLOOR and fault.expected.startswith(("kl.n", "modules")):
            silent.append(fault.name)
        del model
    # what shows only beyond 256 positions
    assert set(silent) <= {"rope-bf16-positions", "rope-table-clamped", "rope-table-wrapped"}
    assert anatomy.dtype_of(whole) == "float32"
