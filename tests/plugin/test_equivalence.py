"""Batches, the KV cache and repeats on real models: what a user of generate gets, healthy runs, and faults that only one of
the three checks sees."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
import torch

from pytest_npuconf import measurements, thresholds
from pytest_npuconf.comparison import compare
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.documents import Document, windows
from pytest_npuconf.engines.base import Batches
from pytest_npuconf.engines.transformers_engine import TransformersEngine
from pytest_npuconf.equivalence_comparison import RunNoise, compare_batches, compare_cached, compare_repeats, first_call
from pytest_npuconf.errors import EngineError
from pytest_npuconf.gates import Gate, Outcome
from pytest_npuconf.locate import data_folder
from pytest_npuconf.options import Settings
from pytest_npuconf.precisions import Precision
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.weights import read_checkpoint

LENGTHS = (1, 15, 16, 17, 48, 48, 127, 128, 129, 257, 300)
KINDS = ("batch", "cache", "repeat")


@pytest.fixture(scope="module")
def models(tiny_weights):
    folders = {"random": tiny_weights, "tiny-qwen3": data_folder("fixtures") / "tiny-qwen3"}
    return {name: read_checkpoint(folder, "here", "get it again") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(5)
    return [
        Document(f"d{i}", "document", "", tuple(map(int, rng.integers(0, 256, n))), windows(n))
        for i, n in enumerate(LENGTHS)
    ]


@pytest.fixture(scope="module")
def noise(models, documents):
    """What rounding costs, by model and dtype; made once."""
    made = {}

    def of(name, dtype):
        if dtype != "float32" and (name, dtype) not in made:
            live, pair = LiveReference(models[name], Settings(), Progress(lambda _: None)), Precision(dtype, "float32")
            members = live.yardstick(pair)
            first = next(iter(members.values()))
            found = compare(documents, first, lambda d: live.forward(pair, d), members)
            made[name, dtype] = RunNoise.of_comparison(found)
            live.close()
        return made.get((name, dtype))

    return of


@pytest.fixture
def load(models):
    return lambda name="random", dtype="float32": TransformersEngine(models[name], CpuDevice(), dtype)


@pytest.fixture
def ids():
    return [int(i) for i in np.random.default_rng(1).integers(0, 256, 80)]


def measure(engine, documents, noise, first=None, kinds=KINDS):
    """The three checks' measurements and verdicts."""
    passes = {}

    def alone(document):
        if document.ids not in passes:
            passes[document.ids] = engine.forward(document.ids)
        return passes[document.ids]

    run = {
        "batch": lambda: compare_batches(engine, documents, alone),
        "cache": lambda: compare_cached(engine, documents, alone),
        "repeat": lambda: compare_repeats(engine, documents, alone, first),
    }
    found = {}
    for kind in kinds:
        compared = dataclasses.replace(run[kind](), noise=noise)
        if kind == "repeat":
            m, bound = measurements.repeat_differences(compared, deterministic=True), thresholds.REPEAT_DIFFERENCES
        elif noise is None:
            m, bound = measurements.equivalence_error(compared), thresholds.REL_L2_FLOAT32
        else:
            m, bound = measurements.equivalence_ratio(compared), thresholds.EQUIVALENCE_RATIO
        found[kind] = m, Gate(kind, bound.value).judge(m).outcome
    return found


# ---------------------------------------------------------------- the engine's verbs


def test_the_engine_can(load):
    assert isinstance(load(), Batches)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_rows_of_a_batch_are_the_documents_alone(load, documents, padding):
    engine = load()
    chosen = documents[:9]
    for d, row in zip(chosen, engine.forward_batch([d.ids for d in chosen], padding), strict=True):
        assert row.positions == len(d.ids)
        expected = engine.forward(d.ids).logits(0, row.positions)
        assert np.allclose(row.logits(0, row.positions), expected, atol=1e-4 * np.abs(expected).max())


def test_left_padding_and_decoding_are_those_of_generate(load, ids):
    """The same mask and positions into the decoder, and the logits that generate itself reports, greedily."""
    engine, given = load(), []

    def note(_module, _args, kwargs):
        given.append({name: kwargs.get(name) for name in ("input_ids", "attention_mask", "position_ids")})

    engine.model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    options = {"do_sample": False, "max_new_tokens": 20, "output_logits": True, "return_dict_in_generate": True}
    options |= {"pad_token_id": 0, "eos_token_id": None}
    rows = [ids[:9], ids[:30], ids[:17]]
    tokens = torch.tensor([[0] * (30 - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (30 - len(row)) + [1] * len(row) for row in rows])
    said = engine.model.generate(input_ids=tokens, attention_mask=mask, **options)
    for i, row in enumerate(engine.forward_batch(rows, "left")):
        expected = said.logits[0][i].numpy()
        assert np.allclose(row.logits(len(rows[i]) - 1, len(rows[i]))[0], expected, atol=1e-5 * np.abs(expected).max())
    ours = given[20]
    assert all(torch.equal(ours[name], given[0][name]) for name in ours)
    assert ours["position_ids"][0, -9:].tolist() == list(range(9))
    del given[:]
    said = engine.model.generate(input_ids=torch.tensor([ids[:30]]), **options)
    decoded = engine.forward_cached(said.sequences[0].tolist(), 30)
    assert decoded.positions == 50
    expected = torch.cat(said.logits).numpy()
    assert np.allclose(decoded.logits(29, 49), expected, atol=1e-5 * np.abs(expected).max())
    for theirs, mine in zip(given[:20], given[20:40], strict=True):
        assert torch.equal(theirs["input_ids"], mine["input_ids"])
        assert torch.equal(theirs["position_ids"], mine["position_ids"])


def test_rows_decoded_together_and_what_goes_on_from_a_cache_are_the_text_alone(load, ids):
    engine, seen = load(), []
    engine.model.base_model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    rows, prefills = [ids[:40], ids[3:63], ids[:21]], [30, 50, 5]
    found = engine.forward_decoded(rows, prefills)
    assert seen == [(3, 50)] + [(3, 1)] * 16
    del seen[:]
    found.append(engine.forward_continued(ids, 37))
    assert seen == [(1, 37), (1, len(ids) - 37)]
    for row, forward in zip([*rows, ids], found, strict=True):
        assert forward.positions == len(row)
        expected = engine.forward(row).logits(0, len(row))
        assert np.allclose(forward.logits(0, len(row)), expected, atol=1e-4 * np.abs(expected).max())


def test_the_logits_of_a_decode_step_are_those_that_generate_made(load, ids):
    """A head that is wrong for a single row is not made right by running it over blocks afterwards."""
    engine = load()

    def single(_module, args, output):
        return output * 2 if args[0].shape[:-1].numel() == 1 else None

    engine.model.get_output_embeddings().register_forward_hook(single)
    whole, decoded = engine.forward(ids), engine.forward_cached(ids, 30)
    assert np.allclose(decoded.logits(0, 29), whole.logits(0, 29), atol=1e-3)
    assert np.allclose(decoded.logits(20, len(ids))[9:], 2 * whole.logits(29, len(ids)), rtol=1e-2, atol=1e-3)


def test_no_token_stops_the_decoding_and_nothing_is_left_behind(load, ids):
    engine = load()
    engine.model.generation_config.eos_token_id = ids[40]
    engine.model.generation_config.repetition_penalty = 3.0
    settings, hooks = engine.model.generation_config, dict(engine.model.base_model._forward_hooks)
    assert engine.forward_cached(ids, 30).positions == len(ids)
    engine.forward_batch([ids, ids[:3]], "left")
    assert engine.model.generation_config is settings
    assert settings.eos_token_id == ids[40]
    assert dict(engine.model.base_model._forward_hooks) == hooks


def test_the_cache_is_used(load, ids):
    """One token at a time behind the prefill."""
    engine, seen = load(), []
    engine.model.base_model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    engine.forward_cached(ids, 60)
    assert seen == [60] + [1] * 20


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda e: e.forward_batch([], "left"), "at least one row"),
        (lambda e: e.forward_batch([[1, 2], []], "right"), r"got lengths \[2, 0\]"),
        (lambda e: e.forward_batch([[1, 2]], "middle"), "left or right"),
        (lambda e: e.forward_cached([1, 2, 3], 0), "1 to 2 of 3 tokens, got 0"),
        (lambda e: e.forward_cached([1, 2, 3], 3), "1 to 2 of 3 tokens, got 3"),
    ],
)
def test_bad_input_is_one_clear_error(load, call, says):
    with pytest.raises(EngineError, match=says):
        call(load())


def test_a_model_that_cannot_pad_or_cache_says_so(load, monkeypatch):
    engine = load()
    decoder = type(engine.model.base_model)
    monkeypatch.setattr(decoder, "forward", lambda _, input_ids: input_ids)
    with pytest.raises(EngineError, match="Qwen3Model takes no attention_mask: it cannot do padded batches"):
        engine.forward_batch([[1, 2], [3]], "left")
    with pytest.raises(EngineError, match=r"takes no past_key_values and no use_cache: .* KV cache"):
        engine.forward_cached([1, 2, 3], 2)


def test_a_model_without_generate_says_so(load, monkeypatch, ids):
    engine = load()
    for owner in inspect.getmro(type(engine.model)):
        if "generate" in vars(owner):
            monkeypatch.delattr(owner, "generate")
    with pytest.raises(EngineError, match=r"Qwen3ForCausalLM has no generate\(\)"):
        engine.forward_cached(ids, 3)


def test_a_decoder_that_drops_positions_or_rows_is_counted_not_cut(load, documents):
    """The comparison names what is missing, instead of comparing other positions."""
    for change in (lambda hidden: hidden[:, 1:], lambda hidden: hidden[:-1] if len(hidden) > 1 else hidden):
        engine = load()

        def drop(_m, _a, output, change=change):
            output.last_hidden_state = change(output.last_hidden_state)
            return output

        handle = engine.model.base_model.register_forward_hook(drop)
        rows = engine.forward_batch([d.ids for d in documents[:3]], "right")
        assert [row.positions for row in rows] != [1, 15, 16]
        handle.remove()


# ---------------------------------------------------------------- healthy runs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["random", "tiny-qwen3"])
def test_a_healthy_model_is_well_within_the_bounds(load, documents, noise, name, dtype):
    engine = load(name, dtype)
    found = measure(engine, documents, noise(name, dtype), first_call(engine, documents))
    assert [outcome for _, outcome in found.values()] == [Outcome.PASS] * 3
    worst = max(found["batch"][0].value, found["cache"][0].value)
    print(f"\n{name} {dtype}: batch {found['batch'][0].value:.3g}, cache {found['cache'][0].value:.3g}")
    assert worst < (1e-5 if dtype == "float32" else 0.9)
    assert found["repeat"][0].value == 0


# ---------------------------------------------------------------- faults that one check sees


def middle(model):
    return model.base_model.layers[len(model.base_model.layers) // 2]


def on_output(module, change):
    module.register_forward_hook(lambda _m, _a, output: change(output[0] if isinstance(output, tuple) else output))


def on_input(model, change):
    model.base_model.register_forward_pre_hook(lambda _m, args, kwargs: (args, change(dict(kwargs))), with_kwargs=True)


def cross_talk(model):
    on_output(middle(model).mlp, lambda out: out + 0.2 * out.roll(1, 0) if len(out) > 1 else out)


def cross_talk_of_even_rows(model):
    """The same where nothing is padded."""
    even = [False]

    def note(kwargs):
        mask = kwargs.get("attention_mask")
        even[0] = mask is None or bool(mask.all())
        return kwargs

    on_input(model, note)
    on_output(middle(model).mlp, lambda out: out + 0.2 * out.roll(1, 0) if even[0] and len(out) > 1 else out)


def pads_seen(model):
    on_input(model, lambda kwargs: kwargs | {"attention_mask": None})


def pad_side(model):
    def flip(kwargs):
        mask = kwargs.get("attention_mask")
        return kwargs | {"attention_mask": mask.flip(1) if mask is not None and mask.dim() == 2 else mask}

    on_input(model, flip)


def left_pad_positions(model):
    """Half a step for each token of a padded row."""

    def halve(kwargs):
        positions, mask = kwargs.get("position_ids"), kwargs.get("attention_mask")
        padded = positions is not None and mask is not None and not bool(mask.all())
        return kwargs | ({"position_ids": positions // 2} if padded else {})

    on_input(model, halve)


def last_row(model):
    def silence(out):
        out = out.clone()
        out[-1] *= 1 if len(out) == 1 else 0.5
        return out

    on_output(middle(model).mlp, silence)


def on_cache(model, change):
    """Before each decode step, ``change(keys, values)`` in place, in one layer."""
    layer = len(model.base_model.layers) // 2

    def step(kwargs):
        cache = kwargs.get("past_key_values")
        if cache is not None and kwargs["input_ids"].shape[1] == 1 and cache.get_seq_length():
            change(cache.layers[layer].keys, cache.layers[layer].values)
        return kwargs

    on_input(model, step)


def lost_page(model):
    def lose(keys, values):
        keys[:, :, :128], values[:, :, :128] = 0, 0

    on_cache(model, lose)


def swapped_values(model):
    """The first two pages of the values change places once, at the first step behind them, in a request of its own."""

    def swap(_keys, values):
        if values.shape[2] == 240 and len(values) == 1:
            first = values[:, :, :112].clone()
            values[:, :, :112] = values[:, :, 128:240]
            values[:, :, 128:240] = first

    on_cache(model, swap)


def stale_keys(model):
    """The keys of the last cached token are those of the one before."""

    def repeat(keys, _values):
        if keys.shape[2] > 1:
            keys[:, :, -1] = keys[:, :, -2]

    on_cache(model, repeat)


def first_call_wrong(model):
    calls = iter([0.5])
    on_output(middle(model).mlp, lambda out: out * next(calls, 1))


def nondeterminism(model):
    """Less than rounding at bfloat16: no other gate can object."""
    generator = torch.Generator().manual_seed(0)

    def jitter(out):
        return (out.float() * (1 + 1e-3 * torch.randn(out.shape, generator=generator))).to(out.dtype)

    on_output(middle(model).mlp, jitter)


def nudged_by_the_one_before(model):
    """A request after a longer one is off by less than rounding: a buffer that was not cleared."""
    before = [0]

    def leave(out):
        shorter, before[0] = out.shape[1] < before[0], out.shape[1]
        return (out.float() * 1.004).to(out.dtype) if shorter and len(out) == 1 and out.shape[1] > 1 else out

    on_output(middle(model).mlp, leave)


# what is wrong with padded rows is wrong with those that are decoded together too
FAULTS = {
    "batch": (cross_talk_of_even_rows,),
    "batch cache": (cross_talk, pads_seen, pad_side, left_pad_positions, last_row),
    "cache": (lost_page, swapped_values, stale_keys),
    "repeat": (first_call_wrong, nondeterminism),
}


CASES = [("bfloat16", k, f) for k, faults in FAULTS.items() for f in faults]
CASES += [("float32", k, faults[0]) for k, faults in FAULTS.items()]


@pytest.mark.parametrize(("dtype", "kinds", "inject"), CASES)
def test_each_check_sees_what_the_others_do_not(load, documents, noise, kinds, inject, dtype):
    """And no pass of a document alone shows it, so that no gate against a reference could."""
    engine, healthy = load("random", dtype), load("random", dtype)
    inject(engine.model)
    first = first_call(engine, documents)
    found = measure(engine, documents, noise("random", dtype), first)
    assert {k for k, (_, outcome) in found.items() if outcome is Outcome.FAIL} == set(kinds.split())
    assert Outcome.INCONCLUSIVE not in {outcome for _, outcome in found.values()}
    if inject is not nondeterminism:
        for d in documents:
            a, b = (e.forward(d.ids).logits(0, len(d.ids)) for e in (engine, healthy))
            assert np.array_equal(a, b)


def named(load, documents, noise, inject, kind, dtype="bfloat16"):
    engine = load("random", dtype)
    inject(engine.model)
    first = first_call(engine, documents) if kind == "repeat" else None
    return measure(engine, documents, noise("random", dtype), first, (kind,))[kind][0]


def test_the_row_is_named(load, documents, noise):
    m = named(load, documents, noise, last_row, "batch")
    assert m.worst.place.startswith(
        ("batch 8 left row 7 ", "batch 8 right row 7 ", "batch 3 left row 2 ", "batch 3 right row 2 ")
    )


def test_the_padding_is_named(load, documents, noise):
    m = named(load, documents, noise, left_pad_positions, "batch")
    assert m.data["groups"]["batches right"]["ratio"] < 1 < 1.5 < m.data["groups"]["batches left"]["ratio"]
    assert " left row " in m.worst.place


def test_the_window_is_named(load, documents, noise):
    m = named(load, documents, noise, swapped_values, "cache")
    assert m.worst.place.startswith("decoded 240-")
    assert m.rows[1].value < 1


def test_the_call_is_named(load, documents, noise):
    m = named(load, documents, noise, first_call_wrong, "repeat")
    assert [row.place.partition(" (")[0] for row in m.rows] == ["first call again"]


def test_what_the_request_before_left_is_seen(load, documents, noise):
    m = named(load, documents, noise, nudged_by_the_one_before, "repeat")
    assert any(row.place.startswith("short after long") for row in m.rows)


def test_positions_that_are_all_moved_by_the_padding_are_no_fault(load, documents, noise):
    """Rotary embedding is relative: what counts from the first pad computes the same."""

    def from_the_pad(model):
        def change(kwargs):
            positions, rows = kwargs.get("position_ids"), kwargs["input_ids"].shape
            if positions is None or rows[1] == 1:
                return kwargs
            return kwargs | {"position_ids": torch.arange(rows[1])[None].expand(rows[0], -1)}

        on_input(model, change)

    for dtype, most in (("bfloat16", 1.0), ("float32", 1e-5)):
        assert named(load, documents, noise, from_the_pad, "batch", dtype).value < most


# ---------------------------------------------------------------- whole runs

FAULTY = """
from pytest_npuconf.faults.base import Fault

def leak(_module, _inputs, output):
    return output + 0.3 * output.roll(1, 0) if len(output) > 1 else output

def inject(model):
    model.base_model.layers[1].mlp.register_forward_hook(leak)

def pytest_npuconf_faults(config):
    return [Fault("row-leak", "rows leak", "0.3", "equivalence.batch", inject)]
"""


def test_a_run_says_which_row_and_what_next(run, pytester):
    pytester.makeconftest(FAULTY)
    options = ("--model", "card.toml", "--npuconf-precision", "bfloat16", "--npuconf-fault", "row-leak")
    result = run(*options, "npuconf/precision/test_equivalence.py", "-v")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FAIL equivalence.batch.bf16_fp32: kl.equivalence_ratio = * documents), gate <= 1.5",
            "  worst: *batch * row * (document *, * tokens): * (* positions)",
            "FAIL equivalence.cache.bf16_fp32: kl.equivalence_ratio = * documents), gate <= 1.5",
            "  worst: together, decoded * (document *, * tokens): * (16 positions)",
            "*pass *equivalence.repeat.bf16_fp32*",
            "NOT CONFORMANT: *equivalence.batch.bf16_fp32*",
        ]
    )
