"""Which checks exist, for which pairs, which are required, and with which gate."""

import datetime

import pytest

from pytest_npuconf import thresholds
from pytest_npuconf.cards.schema import (
    Card,
    Claim,
    ClaimGate,
    GateOverride,
    RerankExample,
    Sample,
    Serving,
    ServingMode,
    Waiver,
)
from pytest_npuconf.check import EVERY, IN_PROCESS, SERVING
from pytest_npuconf.checks import CHECKS, gate_for, known_names, required_ids
from pytest_npuconf.checks_serving import SERVED
from pytest_npuconf.checks_speed import SPEED
from pytest_npuconf.faults.catalogue import CATALOGUE
from pytest_npuconf.gates import Gate, Role, Sense
from pytest_npuconf.locate import data_folder
from pytest_npuconf.options import Settings
from pytest_npuconf.plan import Extensions, make_plan
from pytest_npuconf.precisions import Precision, pairs_of

FP32 = Precision("float32", "float32")
BF16_FP32 = Precision("bfloat16", "float32")
BF16_BF16 = Precision("bfloat16", "bfloat16")
ALL = ("float32", "float16", "bfloat16")
EQUIVALENCES = ["equivalence.batch", "equivalence.cache", "equivalence.repeat"]
ONCE_A_DTYPE = {
    "kl.positions",
    "modules.noise_ratio",
    *EQUIVALENCES,
    "hidden.states",
    "functional.samples",
    "device.execution",
    "device.special_values",
}  # against float32

SERVED_NAMES = {check.name for check in (*SERVED, *SPEED)}


def card(tmp_path, **fields):
    return Card("m", tmp_path / "card.toml", **fields)


# ---------------------------------------------------------------- pairs and ids


def test_pairs_of_a_precision():
    assert pairs_of("float32") == (FP32,)
    assert pairs_of("bfloat16") == (BF16_FP32, BF16_BF16)
    assert [p.name for p in pairs_of("float16")] == ["fp16_fp32", "fp16_fp16"]
    assert BF16_FP32.spoken == "bfloat16/float32"


@pytest.mark.parametrize("precision", ["int8", "int4", "fp8"])
def test_a_precision_that_no_engine_runs_has_no_pairs(precision):
    with pytest.raises(KeyError):
        pairs_of(precision)


def test_ids_are_one_per_pair():
    assert CHECKS["logits.finite"].ids(("float32", "bfloat16")) == [
        "logits.finite.fp32_fp32",
        "logits.finite.bf16_fp32",
        "logits.finite.bf16_bf16",
    ]


def test_a_check_of_the_model_has_one_id():
    assert CHECKS["model.config"].ids(ALL) == ["model.config"]
    assert CHECKS["model.config"].ids(()) == ["model.config"]


def test_the_kl_noise_ratio_does_not_run_at_float32():
    """float32 rounding has no floor yet."""
    assert CHECKS["kl.noise_ratio"].ids(ALL) == [
        f"kl.noise_ratio.{pair}" for pair in ("fp16_fp32", "fp16_fp16", "bf16_fp32", "bf16_bf16")
    ]
    silent = ["kl.noise_ratio", "kl.positions", "serving.kl"]
    assert [name for name, check in CHECKS.items() if not check.runs_at(FP32)] == silent
    assert {name for name, check in CHECKS.items() if not check.runs_at(BF16_BF16)} == ONCE_A_DTYPE | SERVED_NAMES


def test_known_names_are_all_names_and_all_ids_once():
    known = known_names()
    assert len(set(known)) == len(known)
    assert set(known) == {*CHECKS, *(i for check in CHECKS.values() for i in check.ids(ALL))}
    assert {"model.config", "ppl.delta", "ppl.delta.fp16_fp16"} <= set(known)
    assert "kl.noise_ratio.fp32_fp32" not in known


def test_every_check_has_a_suite_and_every_suite_a_check():
    marked = {
        name
        for path in data_folder("suites").glob("*/test_*.py")
        for name in CHECKS
        if f'npuconf_check("{name}")' in path.read_text(encoding="utf-8")
    }
    marks = sum(path.read_text("utf-8").count("npuconf_check(") for path in data_folder("suites").glob("*/test_*.py"))
    assert marked == set(CHECKS)
    assert marks == len(CHECKS)


# ---------------------------------------------------------------- the required set


def test_by_default_every_deciding_check_is_required(tmp_path):
    required = required_ids(card(tmp_path, config={"a": 1}), "transformers", ("float32", "bfloat16"))
    assert {
        "model.config",
        *(f"{name}.fp32_fp32" for name in ("logits.finite", "logits.rel_l2", "token.match", "ppl.delta")),
        *(f"{name}.bf16_fp32" for name in ("logits.finite", "logits.rel_l2", "kl.noise_ratio", "token.match")),
        *(f"{name}.bf16_bf16" for name in ("logits.finite", "logits.rel_l2", "kl.noise_ratio", "ppl.delta")),
    } <= set(required)
    assert len(set(required)) == len(required)
    assert not [i for i in required if "fp16" in i]


@pytest.mark.parametrize(
    ("check", "stated"),
    [
        ("model.config", {"config": {"a": 1}}),
        ("model.generation_config", {"generation_config": {"a": 1}}),
        ("model.files", {"files": ("a",)}),
        ("functional.samples.fp32_fp32", {"samples": (Sample("s", (), 1, contains=("a",)),)}),
    ],
)
def test_what_a_card_does_not_state_is_not_required_of_it(tmp_path, check, stated):
    assert check not in required_ids(card(tmp_path), "transformers", ("float32",))
    assert check in required_ids(card(tmp_path, **stated), "transformers", ("float32",))


@pytest.mark.parametrize("check", ["model.weights", "model.parameters", "token.ids"])
def test_what_needs_nothing_of_the_card_is_required_of_every_card(tmp_path, check):
    assert check in required_ids(card(tmp_path), "transformers", ("float32",))


def test_minimums_and_sizes_are_reported_and_not_required(tmp_path):
    required = required_ids(card(tmp_path, minimum={"python": "3.10"}), "transformers", ALL)
    assert not {"env.minimum", "model.weight_size"} & set(required)


def test_a_document_is_reported_and_the_gates_of_a_card_decide(tmp_path):
    mine = card(tmp_path, documents=(tmp_path / "README.md",), gates={"ppl.delta": GateOverride("ppl.delta", 0.1, "r")})
    required = required_ids(mine, "transformers", ALL)
    assert ("audit.gates" in required, "audit.document" in required) == (True, False)
    assert CHECKS["audit.document"].given(mine)
    assert not CHECKS["audit.document"].given(card(tmp_path))


def test_criteria_are_what_a_verdict_rests_on(tmp_path):
    silent = Claim("a", "d", "s", value=1.0)
    gated = Claim("b", "d", "s", gate=ClaimGate(Sense.AT_MOST, 1.0))
    tolerant = Claim("c", "d", "s", value=1.0, tolerance=0.0)
    waiver = Waiver("ppl.delta", "r", "l", datetime.date(2999, 1, 1))
    assert card(tmp_path, claims=(silent, gated, tolerant), waivers=(waiver,)).criteria == (waiver, gated, tolerant)


def test_every_need_is_a_field_of_the_card(tmp_path):
    needs = {name: check.needs for name, check in CHECKS.items() if check.needs}
    assert {"model.config", "model.files", "functional.samples", "env.minimum"} <= set(needs)
    assert all(not check.given(card(tmp_path)) for check in CHECKS.values() if check.needs)


def test_documented_criteria_that_are_unsound_are_not_required(tmp_path):
    required = required_ids(card(tmp_path), "transformers", ALL)
    assert not [i for i in required if i.startswith(("logits.cosine", "token.top5"))]


def test_a_cards_list_replaces_the_default(tmp_path):
    listed = card(tmp_path, config={"a": 1}, required={"transformers": ("logits.finite", "ppl.delta.bf16_bf16")})
    assert required_ids(listed, "transformers", ("float32", "bfloat16")) == [
        "logits.finite.fp32_fp32",
        "logits.finite.bf16_fp32",
        "logits.finite.bf16_bf16",
        "ppl.delta.bf16_bf16",
    ]


def test_a_list_for_another_engine_leaves_the_default(tmp_path):
    listed = card(tmp_path, required={"vllm": ("logits.finite",)})
    assert required_ids(listed, "transformers", ("float32",)) == required_ids(
        card(tmp_path), "transformers", ("float32",)
    )


def test_a_listed_pair_that_is_not_judged_is_not_required(tmp_path):
    listed = card(tmp_path, required={"transformers": ("ppl.delta.bf16_bf16", "ppl.delta.fp32_fp32")})
    assert required_ids(listed, "transformers", ("float32",)) == ["ppl.delta.fp32_fp32"]


# ---------------------------------------------------------------- gates


@pytest.mark.parametrize(
    ("check", "pair", "sense", "constant"),
    [
        ("model.config", None, Sense.AT_MOST, thresholds.CONFIG_DIFFERENCES),
        ("logits.finite", BF16_FP32, Sense.AT_MOST, thresholds.NON_FINITE),
        ("logits.rel_l2", FP32, Sense.AT_MOST, thresholds.REL_L2_FLOAT32),
        ("logits.rel_l2", BF16_FP32, Sense.AT_MOST, thresholds.NOISE_RATIO),
        ("logits.rel_l2", BF16_BF16, Sense.AT_MOST, thresholds.NOISE_RATIO),
        ("kl.noise_ratio", BF16_FP32, Sense.AT_MOST, thresholds.NOISE_RATIO),
        ("token.match", BF16_BF16, Sense.AT_MOST, thresholds.DISAGREEMENTS),
        ("ppl.delta", FP32, Sense.WITHIN, thresholds.PPL_SAME_FLOAT32),
        ("ppl.delta", BF16_BF16, Sense.WITHIN, thresholds.PPL_SAME_LOW),
        ("ppl.delta", BF16_FP32, Sense.WITHIN, thresholds.PPL_CROSS),
    ],
)
def test_shipped_gates(tmp_path, check, pair, sense, constant):
    check_id = f"{check}.{pair.name}" if pair else check
    assert gate_for(check_id, pair, card(tmp_path), required=True) == Gate(
        check_id, constant.value, sense, Role.REQUIRED, constant.reason, constant.run
    )


@pytest.mark.parametrize("check", ["logits.cosine", "token.top5"])
def test_a_claim_only_check_has_no_gate(tmp_path, check):
    assert gate_for(f"{check}.bf16_fp32", BF16_FP32, card(tmp_path), required=False) is None


def test_what_is_not_required_has_the_role_of_a_claim(tmp_path):
    gate = gate_for("logits.finite.fp32_fp32", FP32, card(tmp_path), required=False)
    assert gate.role is Role.CLAIM


def overridden(tmp_path, *names):
    return card(tmp_path, gates={n: GateOverride(n, 0.125 * (i + 1), f"reason {i}") for i, n in enumerate(names)})


def test_a_cards_bound_replaces_the_shipped_one_for_every_pair(tmp_path):
    mine = overridden(tmp_path, "ppl.delta")
    for pair in (FP32, BF16_FP32):
        check_id = f"ppl.delta.{pair.name}"
        assert gate_for(check_id, pair, mine, required=True) == Gate(
            check_id, 0.125, Sense.WITHIN, Role.REQUIRED, "reason 0", "card m"
        )


def test_a_cards_bound_for_one_pair_beats_its_bound_for_all(tmp_path):
    mine = overridden(tmp_path, "ppl.delta", "ppl.delta.bf16_fp32")
    assert gate_for("ppl.delta.bf16_fp32", BF16_FP32, mine, required=True).bound == 0.25
    assert gate_for("ppl.delta.fp32_fp32", FP32, mine, required=True).bound == 0.125


def test_a_cards_bound_for_another_pair_or_check_changes_nothing(tmp_path):
    mine = overridden(tmp_path, "ppl.delta.bf16_fp32", "token.match")
    assert gate_for("ppl.delta.fp32_fp32", FP32, mine, required=True).bound == thresholds.PPL_SAME_FLOAT32.value


def test_a_card_can_give_a_claim_only_check_a_gate(tmp_path):
    gate = gate_for("logits.cosine.bf16_fp32", BF16_FP32, overridden(tmp_path, "logits.cosine"), required=True)
    assert (gate.bound, gate.sense, gate.role) == (0.125, Sense.AT_LEAST, Role.REQUIRED)


def test_every_required_check_has_a_gate_at_every_pair(tmp_path):
    """Required without a gate would be required without a verdict."""
    for precision in ALL:
        for pair in pairs_of(precision):
            for check_id in required_ids(card(tmp_path, config={"a": 1}), "transformers", (precision,)):
                if check_id.endswith(pair.name):
                    assert gate_for(check_id, pair, card(tmp_path), required=True) is not None


# ---------------------------------------------------------------- a served model

SAMPLE = Sample("s", (), 1, contains=("a",))
FOR_BOTH = (RerankExample("r", "q", ("a", "b"), ("embed", "score")),)


def serving(tmp_path, *modes, **fields):
    return card(tmp_path, serving=Serving(modes=tuple(map(ServingMode, modes))), **fields)


def names_of(required):
    return {i if i in CHECKS else i.rpartition(".")[0] for i in required}


def test_each_engine_answers_its_own():
    for check in CHECKS.values():
        assert set(check.engines) <= set(EVERY)
        assert check.answered_by("another-packages") == check.answered_by("transformers")
        served = check.name.startswith(("serving.", "parallel.", "pooling.", "speed."))
        assert check.answered_by("transformers") is not served
        assert check.answered_by("server") or check.engines == IN_PROCESS
        assert served is bool(check.mode) or check.name == "serving.modes"
    offline = {c.name for c in SERVED if c.answered_by("vllm")}
    over_http = {"stream", "usage", "tools", "routes", "modes"}
    ranking = {"pooling.routes", "pooling.batch", "pooling.rerank", "pooling.score", "pooling.classifier"}
    assert {c.name for c in SERVED} - offline == {f"serving.{name}" for name in over_http} | ranking


def test_a_transformers_run_asks_no_server(tmp_path):
    every = serving(tmp_path, "generate", "embed", "score", rerank=FOR_BOTH, samples=(SAMPLE,))
    assert not names_of(required_ids(every, "transformers", ALL)) & SERVED_NAMES


@pytest.mark.parametrize("engine", SERVING)
def test_a_served_run_asks_nothing_of_a_forward_pass(tmp_path, engine):
    required = names_of(required_ids(card(tmp_path, config={"a": 1}), engine, ALL))
    assert not {n for n in required if n.startswith(("logits.", "kl.", "modules.", "hidden.", "token.", "ppl."))}
    assert {"model.config", "model.weights", "serving.kl", "serving.capacity"} <= required
    assert "serving.kl.fp32_fp32" not in required_ids(card(tmp_path), engine, ALL)


def test_checks_of_a_mode_are_of_cards_that_have_it(tmp_path):
    def required(*modes, **fields):
        found = names_of(required_ids(serving(tmp_path, *modes, **fields), "server", ("bfloat16",)))
        return {name for name in found if name in SERVED_NAMES}

    assert not {name for name in required("generate") if CHECKS[name].mode != "generate"}
    assert required("embed") == {"pooling.routes", "pooling.embeddings", "pooling.repeat", "pooling.batch"}
    assert required("score") == required("classify") == set()
    assert "serving.modes" in required("embed", "classify")
    assert "serving.modes" not in required("generate")


@pytest.mark.parametrize(
    ("modes", "of_example", "asked"),
    [
        (("embed", "score"), ("embed", "score"), {"pooling.rerank", "pooling.score", "pooling.classifier"}),
        (("embed", "score"), ("embed",), {"pooling.rerank", "pooling.score"}),
        (("embed", "score"), ("score",), {"pooling.classifier"}),
        (("embed",), ("score",), set()),
        (("score",), ("embed",), set()),
    ],
)
def test_an_example_is_asked_in_the_modes_that_it_names(tmp_path, modes, of_example, asked):
    """One that names another mode would leave a check with nothing to ask."""
    mine = serving(tmp_path, *modes, rerank=(RerankExample("r", "q", ("a", "b"), of_example),))
    ranking = {"pooling.rerank", "pooling.score", "pooling.classifier"}
    assert names_of(required_ids(mine, "server", ("bfloat16",))) & ranking == asked
    assert {name for name in ranking if CHECKS[name].given(mine)} == asked


@pytest.mark.parametrize(
    ("check", "fields"),
    [
        ("serving.chat", {"samples": (SAMPLE,)}),
        ("serving.usage", {"samples": (SAMPLE,)}),
        ("serving.tools", {"serving": Serving(arguments=("--tool-call-parser", "hermes"))}),
    ],
)
def test_what_a_served_card_does_not_state_is_not_asked(tmp_path, check, fields):
    assert check not in names_of(required_ids(card(tmp_path), "server", ("bfloat16",)))
    assert check in names_of(required_ids(card(tmp_path, **fields), "server", ("bfloat16",)))


def test_a_stored_reference_asks_what_needs_no_weights_here(tmp_path):
    stored = names_of(required_ids(card(tmp_path), "server", ("bfloat16",), "stored"))
    assert {"serving.routes", "serving.stop", "serving.seed", "serving.capacity"} <= stored
    assert not {name for name in stored if CHECKS[name].live}


@pytest.mark.parametrize("engine", SERVING)
def test_every_required_check_of_a_served_card_has_a_gate(tmp_path, engine):
    every = serving(tmp_path, "generate", "embed", "score", rerank=FOR_BOTH, samples=(SAMPLE,))
    for precision in ALL:
        for pair in pairs_of(precision):
            for check_id in required_ids(every, engine, (precision,)):
                if check_id.endswith(pair.name):
                    assert gate_for(check_id, pair, every, required=True) is not None
    assert (
        gate_for("serving.perplexity.fp32_fp32", FP32, every, required=True).bound == thresholds.PPL_SAME_FLOAT32.value
    )
    assert gate_for("serving.perplexity.bf16_fp32", BF16_FP32, every, required=True).bound == thresholds.PPL_CROSS.value


# ---------------------------------------------------------------- what one run asks

MODES_CARD = """
name = "m"
[serving.modes.generate]
[serving.modes.embed]
[serving.modes.classify]
refused = { says = "score.weight" }
"""


def asked(tmp_path, **settings):
    """Served checks that a run over this card asks, and those that it does not for its kind of reference."""
    path = tmp_path / "card.toml"
    path.write_text(MODES_CARD, encoding="utf-8")
    plan = make_plan(Settings(models=(str(path),), **settings), Extensions())
    return {name for name in SERVED_NAMES if plan.asks(CHECKS[name], "m")}, plan.not_asked


def test_a_run_asks_every_mode_of_the_card(tmp_path):
    found, not_asked = asked(tmp_path, engine="server")
    assert {"serving.stop", "serving.modes", "pooling.embeddings"} <= found
    assert "pooling.classifier" not in found
    assert not_asked == ()


def test_an_attached_run_asks_the_modes_that_it_reaches_and_starts_none(tmp_path):
    """``serving.modes`` starts servers, and of a server that runs elsewhere no version is known."""
    whole, _ = asked(tmp_path, engine="server")
    for modes in (("generate",), ("embed",), ("generate", "embed")):
        found, _ = asked(tmp_path, engine="server", endpoints=tuple((mode, "http://h:1") for mode in modes))
        assert found == {name for name in whole if CHECKS[name].mode in modes}
        assert found


def test_a_check_of_a_forward_pass_is_not_missed_by_a_served_run(tmp_path):
    _, of_server = asked(tmp_path, engine="server", reference="stored")
    assert set(of_server) == {name for name, c in CHECKS.items() if c.live and c.answered_by("server")}
    found, of_transformers = asked(tmp_path, reference="stored")
    assert of_transformers == ("modules.noise_ratio",)
    assert found == set()


def test_every_fault_of_a_server_names_a_check_that_exists():
    """A name that is no check's would never be asked, and the fault never be run."""
    for fault in CATALOGUE:
        if fault.target == "server" and not fault.benign:
            expected = {name.strip() for name in fault.expected.split(",")}
            assert expected <= SERVED_NAMES, fault.name
