"""Cards: what loads, with which defaults, and errors that name file, line and key."""

import dataclasses
import datetime
import hashlib
import re
import textwrap

import pytest

from pytest_npuconf.cards import card_folders, find_card, known_cards, load_card
from pytest_npuconf.cards.loading import validate_names
from pytest_npuconf.cards.schema import Card, ClaimGate, GateOverride, Prompt, TokenProbe, WeightsSource
from pytest_npuconf.cards.toml_reader import find_line, read_toml
from pytest_npuconf.checks import known_names
from pytest_npuconf.errors import CardError, nearest
from pytest_npuconf.gates import Role, Sense
from pytest_npuconf.locate import data_folder

HERE = "# <-- here"
SHIPPED = (
    "deepseek-r1-distill-qwen-1.5b",
    "internlm3-8b-instruct-awq",
    "mem-agent",
    "minilm-l6-v2",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-8b",
    "qwen3-reranker-0.6b",
    "qwen3-vl-2b-instruct",
    "smollm2-135m-instruct",
    "tiny-qwen3",
    "tiny-qwen3-reranker",
    "yuanmeng-26m",
)


def written(folder, text):
    path = folder / "card.toml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def loaded(folder, text):
    return load_card(written(folder, text))


def refused(folder, text):
    """The error's first line, after its file and line were checked against the line that is marked in the text."""
    path = written(folder, text)
    marked = [i for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1) if HERE in line]
    with pytest.raises(CardError) as caught:
        load_card(path)
    first = caught.value.what.splitlines()[0]
    place, _, problem = first.partition(": ")
    assert place == f"{path}:{marked[0]}", first
    assert caught.value.mend
    return problem


def claim(**keys):
    """A valid claim's lines, with some replaced; ``None`` leaves one out."""
    base = {"id": '"c"', "documented": '"d"', "source": '"s"', **keys}
    return "\n".join(["[[claims]]", *(f"{key} = {value}" for key, value in base.items() if value is not None)])


def waiver(**keys):
    base = {"check": '"logits.finite"', "reason": '"r"', "link": '"l"', "expires": "2030-01-31", **keys}
    return "\n".join(["[[waivers]]", *(f"{key} = {value}" for key, value in base.items() if value is not None)])


# ---------------------------------------------------------------- what loads


def test_one_line_is_a_card_and_the_rest_is_defaults(tmp_path):
    card = loaded(tmp_path, 'name = "mine"\n')
    assert dataclasses.replace(card, logits_prompts=(), hidden_inputs=(), perplexity_texts=(), long_texts=()) == Card(
        name="mine", path=tmp_path / "card.toml", title="mine", sha256=hashlib.sha256(b'name = "mine"\n').hexdigest()
    )
    assert (card.kind, card.stand_in, card.precisions) == ("model", False, ("float32", "bfloat16"))


def test_a_ten_line_card(tmp_path):
    card = loaded(
        tmp_path,
        """\
        name = "mine"
        precisions = ["bfloat16"]

        [weights]
        path = "weights"
        modelscope = "me/mine"

        [config]
        hidden_size = 64
        rope_theta = 1e6
        """,
    )
    assert card.weights == WeightsSource(path=tmp_path / "weights", modelscope="me/mine")
    assert card.config == {"hidden_size": 64, "rope_theta": 1e6}
    assert card.precisions == ("bfloat16",)
    assert (card.claims, card.gates, card.waivers, card.required) == ((), {}, (), {})


def test_without_prompts_the_shipped_ones_are_taken(tmp_path):
    card = loaded(tmp_path, 'name = "mine"\n')
    assert [p.name for p in card.logits_prompts] == ["prompt 1", "prompt 2", "prompt 3", "prompt 4"]
    assert [p.name for p in card.perplexity_texts] == [f"text {i}" for i in range(1, 7)]
    assert [p.tokens for p in card.long_texts].count(48) == 20
    assert len(card.long_texts) == 34
    assert card.logits_prompts[0].text == "The capital of France is"
    assert card.perplexity_texts[5].text.startswith("William Shakespeare wrote many plays")


def test_own_documents_are_taken_whole(tmp_path):
    card = loaded(tmp_path, 'name = "mine"\n[prompts]\ndocuments = ["one", "two"]\n')
    assert card.long_texts == (Prompt("document 1", "one"), Prompt("document 2", "two"))


@pytest.mark.parametrize(
    ("documents", "says"), [('["one"]', "at least two"), ('["one", "one"]', "the same text twice")]
)
def test_too_few_documents_or_copies(tmp_path, documents, says):
    with pytest.raises(CardError, match=says):
        loaded(tmp_path, f'name = "mine"\n[prompts]\ndocuments = {documents}\n')


def test_own_prompts_keep_the_shipped_texts(tmp_path):
    card = loaded(tmp_path, 'name = "mine"\n[prompts]\nlogits = ["one", "two"]\n')
    assert card.logits_prompts == (Prompt("prompt 1", "one"), Prompt("prompt 2", "two"))
    assert len(card.perplexity_texts) == 6


def test_own_texts_keep_the_shipped_prompts(tmp_path):
    card = loaded(tmp_path, 'name = "mine"\n[prompts]\nperplexity = ["one", "two"]\n')
    assert card.perplexity_texts == (Prompt("text 1", "one"), Prompt("text 2", "two"))
    assert len(card.logits_prompts) == 4


def test_weights_path_is_relative_to_the_card_and_may_be_absolute(tmp_path):
    assert loaded(tmp_path, 'name = "m"\nweights.path = "../w"').weights.path == tmp_path.parent / "w"
    assert loaded(tmp_path, f'name = "m"\nweights.path = "{tmp_path}/x"').weights.path == tmp_path / "x"


def test_weights_path_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert loaded(tmp_path, 'name = "m"\nweights.path = "~/w"').weights.path == tmp_path / "home" / "w"


def test_everything_a_card_can_say(tmp_path):
    card = loaded(
        tmp_path,
        f"""\
        name = "mine"
        title = "Mine 我的"
        kind = "stand-in"

        [weights]
        package = "pkg"
        package_version = "1.2"
        file = "pkg/w.gguf"
        sha256 = "{"0a" * 32}"
        huggingface = "me/mine"

        [[tokenizer_probes]]
        text = "a"
        ids = [0, 7]

        [required]
        transformers = ["logits.finite", "ppl.delta.bf16_fp32"]

        [gates."logits.rel_l2.fp32_fp32"]
        bound = 2e-4
        reason = "measured"

        [[claims]]
        id = "c"
        documented = "PPL 3 %"
        source = "page 2"
        value = [1, 2.5]
        unit = "%"
        gate_stated = "< 3 %"
        gate = {{ op = "<", bound = 3 }}
        check = "ppl.delta.bf16_fp32"
        statistic = "mean_abs_delta"
        better = "lower"
        tolerance = 1
        conditions = {{ device = "npu" }}
        role = "required"
        reason = "why"
        audit = "so"

        [[waivers]]
        check = "ppl.delta"
        reason = "known"
        link = "issue 3"
        expires = 2030-01-31
        conditions = {{ device = "npu" }}
        """,
    )
    assert (card.title, card.stand_in) == ("Mine 我的", True)
    assert card.weights == WeightsSource(None, "pkg", "1.2", "pkg/w.gguf", "0a" * 32, "", "me/mine")
    assert card.probes == (TokenProbe("a", (0, 7)),)
    assert card.required == {"transformers": ("logits.finite", "ppl.delta.bf16_fp32")}
    assert card.gates == {
        "logits.rel_l2.fp32_fp32": GateOverride("logits.rel_l2.fp32_fp32", 2e-4, "measured"),
    }
    (found,) = card.claims
    assert (found.id, found.documented, found.source, found.value) == ("c", "PPL 3 %", "page 2", [1, 2.5])
    assert (found.unit, found.gate_stated, found.gate) == ("%", "< 3 %", ClaimGate(Sense.AT_MOST, 3.0))
    assert (found.check, found.statistic, found.better) == ("ppl.delta.bf16_fp32", "mean_abs_delta", "lower")
    assert (found.tolerance, found.conditions, found.role) == (1.0, {"device": "npu"}, Role.REQUIRED)
    assert (found.reason, found.audit) == ("why", "so")
    (excused,) = card.waivers
    assert (excused.check, excused.reason, excused.link) == ("ppl.delta", "known", "issue 3")
    assert (excused.expires, excused.conditions) == (datetime.date(2030, 1, 31), {"device": "npu"})


@pytest.mark.parametrize(
    ("op", "sense"),
    [(">", Sense.AT_LEAST), (">=", Sense.AT_LEAST), ("<", Sense.AT_MOST), ("<=", Sense.AT_MOST), ("+-", Sense.WITHIN)],
)
def test_documented_gates_have_a_sense(tmp_path, op, sense):
    card = loaded(tmp_path, 'name = "m"\n' + claim(gate=f'{{ op = "{op}", bound = 1 }}'))
    assert card.claims[0].gate == ClaimGate(sense, 1.0)


def test_a_documented_bound_may_be_negative(tmp_path):
    card = loaded(tmp_path, 'name = "m"\n' + claim(gate='{ op = ">=", bound = -2 }'))
    assert card.claims[0].gate == ClaimGate(Sense.AT_LEAST, -2.0)


def test_defaults_of_a_claim(tmp_path):
    (found,) = loaded(tmp_path, 'name = "m"\n' + claim()).claims
    assert (found.value, found.gate, found.tolerance, found.conditions) == (None, None, None, {})
    assert (found.better, found.role, found.check) == ("equal", Role.CLAIM, "")


def test_a_claim_keeps_any_finite_value(tmp_path):
    text = 'name = "m"\n' + claim(value='{ rows = [1, 2.5], name = "x", ok = true }')
    assert loaded(tmp_path, text).claims[0].value == {"rows": [1, 2.5], "name": "x", "ok": True}


@pytest.mark.parametrize("day", ["2030-01-30", "2030-01-31"])
def test_a_waiver_applies_until_its_last_day_under_its_conditions(tmp_path, day):
    (found,) = loaded(tmp_path, 'name = "m"\n' + waiver(conditions='{ device = "npu" }')).waivers
    today = datetime.date.fromisoformat(day)
    assert found.applies(today, {"device": "npu", "engine": "transformers"})
    assert not found.applies(today, {"device": "cpu"})
    assert not found.applies(today, {})
    assert not found.applies(datetime.date(2030, 2, 1), {"device": "npu"})


# ---------------------------------------------------------------- what is refused: file, line, key


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"title = 'x' {HERE}", "name is missing"),
        (f"name = 3 {HERE}", "name must be a string, got 3"),
        (f"name = 'a b' {HERE}", "name must be letters, digits, '.', '_' and '-', got 'a b'"),
        (f"name = '' {HERE}", "name must be letters, digits, '.', '_' and '-', got ''"),
        (f"name = '../up' {HERE}", "name must be letters"),
        (f"name = 'm'\n\ntitle = true {HERE}", "title must be a string, got True"),
        (f"name = 'm'\nkind = 'standin' {HERE}", "kind must be one of model, stand-in, got 'standin'"),
        (f"name = 'm'\nprecisions = 'float32' {HERE}", "precisions must be a list, got 'float32'"),
        (f"name = 'm'\nprecisions = [3] {HERE}", "precisions must be a list of non-empty strings, got 3"),
        (f"name = 'm'\nprecisions = [] {HERE}", "precisions is empty: nothing would be judged"),
        (f"name = 'm'\nconfig = 3 {HERE}", "config must be a table, got 3"),
        (f"name = 'm'\nclaims = 3 {HERE}", "claims must be a list, got 3"),
        (f"name = 'm'\nclaims = [3] {HERE}", "claims must be tables written as [[claims]], got 3"),
        (f"name = 'm'\n[claims] {HERE}\nid = 'c'", "claims must be a list, got {'id': 'c'}"),
        (f"name = 'm'\ngates = 3 {HERE}", "gates must be a table, got 3"),
        (f"name = 'm'\nrequired = [] {HERE}", "required must be a table, got []"),
    ],
)
def test_impossible_top_level_values(tmp_path, text, problem):
    assert refused(tmp_path, text).startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"name = 'm'\ntitel = 'x' {HERE}", "titel is not a key of a card; did you mean 'title'?"),
        (f"name = 'm'\nzzzzzz = 1 {HERE}", "zzzzzz is not a key of a card"),
        (f"name = 'm'\n[weigths] {HERE}\npath = 'w'", "weigths is not a key of a card; did you mean 'weights'"),
        (
            f"name = 'm'\n[weights]\n\nmodelscop = 'a/b' {HERE}",
            "weights.modelscop is not a key of a card; did you mean",
        ),
        (f"name = 'm'\n[prompts]\nlogit = ['a', 'b'] {HERE}", "prompts.logit is not a key of a card; did you mean"),
        (
            f"name = 'm'\n[gates.'logits.finite']\nbound = 1\nreason = 'r'\nboud = 2 {HERE}",
            "gates.logits.finite.boud is not a key of a card; did you mean 'bound'?",
        ),
        (
            f"name = 'm'\n[[tokenizer_probes]]\ntext = 'a'\nids = [1]\nid = 3 {HERE}",
            "tokenizer_probes.id is not a key of a card; did you mean 'ids'?",
        ),
    ],
)
def test_unknown_keys_come_with_the_nearest_name(tmp_path, text, problem):
    assert refused(tmp_path, text).startswith(problem)


def test_a_precision_comes_with_the_nearest_name(tmp_path):
    problem = refused(tmp_path, f"name = 'm'\nprecisions = ['bfloat'] {HERE}")
    assert problem.startswith("precisions holds 'bfloat'; did you mean 'bfloat16'")


def test_the_same_precision_twice_is_refused_or_judged_once(tmp_path):
    try:
        card = loaded(tmp_path, "name = 'm'\nprecisions = ['float32', 'float32']\n")
    except CardError:
        return
    assert card.precisions == ("float32",)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (f"path = 3 {HERE}", "weights.path must be a string, got 3"),
        (f"sha256 = 'beef' {HERE}", "weights.sha256 must be 64 hexadecimal digits, got 'beef'"),
        (f"sha256 = '{'G' * 64}' {HERE}", "weights.sha256 must be 64 hexadecimal digits"),
        (f"sha256 = '{'a' * 65}' {HERE}", "weights.sha256 must be 64 hexadecimal digits"),
    ],
)
def test_impossible_weights(tmp_path, lines, problem):
    assert refused(tmp_path, f"name = 'm'\n[weights]\n{lines}\n").startswith(problem)


def test_a_package_without_its_file_is_refused_at_the_table(tmp_path):
    problem = refused(tmp_path, f"name = 'm'\n\n[weights] {HERE}\npackage = 'pkg'\n")
    assert problem == "weights.file is missing: which file of the package holds the weights?"


@pytest.mark.parametrize("key", ["logits", "perplexity"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("[]", "is empty: an interval"),
        ("['one']", "has 1: an interval"),
        ("['one', 'two', 'one']", "holds the same text twice"),
        ("['one', '']", "must be a list of non-empty strings, got ''"),
        ("['one', 2]", "must be a list of non-empty strings, got 2"),
        ("'one'", "must be a list, got 'one'"),
    ],
)
def test_impossible_prompts(tmp_path, key, value, problem):
    found = refused(tmp_path, f"name = 'm'\n[prompts]\n\n{key} = {value} {HERE}\n")
    assert found.startswith(f"prompts.{key} {problem}")


@pytest.mark.parametrize("ids", ["[]", "[true]", "[-1]", "[1.5]", "['a']"])
def test_impossible_token_ids(tmp_path, ids):
    found = refused(tmp_path, f"name = 'm'\n[[tokenizer_probes]]\ntext = 'a'\nids = {ids} {HERE}")
    assert found.startswith("tokenizer_probes.ids must be token ids, got ")


def test_the_second_probes_line_is_given(tmp_path):
    text = f"name = 'm'\n[[tokenizer_probes]]\ntext = 'a'\nids = [1]\n[[tokenizer_probes]]\ntext = 'b'\nids = [] {HERE}"
    assert refused(tmp_path, text).startswith("tokenizer_probes.ids must be token ids")


def test_an_empty_required_list_is_refused(tmp_path):
    found = refused(tmp_path, f"name = 'm'\n[required]\ntransformers = [] {HERE}\n")
    assert found == "required.transformers is empty: a model of which nothing is required cannot be conformant"


@pytest.mark.parametrize("bound", ["-1", "-1e-9", "nan", "inf", "-inf"])
def test_impossible_bounds(tmp_path, bound):
    text = f"name = 'm'\n[gates.\"logits.rel_l2.fp32_fp32\"]\nreason = 'r'\nbound = {bound} {HERE}\n"
    found = refused(tmp_path, text)
    assert found.startswith("gates.logits.rel_l2.fp32_fp32.bound must be a finite number of at least 0, got ")


def test_a_bound_of_zero_is_possible(tmp_path):
    assert loaded(tmp_path, "name='m'\n[gates.'a']\nbound = 0\nreason = 'r'").gates["a"].bound == 0.0


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("bound = true", "bound must be a number, got True"),
        ("bound = '1'", "bound must be a number, got '1'"),
    ],
)
def test_a_bound_is_a_number(tmp_path, lines, problem):
    text = f"name = 'm'\n[gates.'logits.finite']\n{lines} {HERE}\nreason = 'r'\n"
    assert refused(tmp_path, text) == f"gates.logits.finite.{problem}"


@pytest.mark.parametrize(("given", "missing"), [("bound = 1", "reason"), ("reason = 'r'", "bound")])
def test_an_incomplete_gate_is_named_by_its_header(tmp_path, given, missing):
    text = f"name = 'm'\n[gates.'logits.finite'] {HERE}\n{given}\n"
    assert refused(tmp_path, text) == f"gates.logits.finite.{missing} is missing"


def test_a_gate_that_is_no_table(tmp_path):
    text = f"name = 'm'\n[gates]\n'logits.finite' = 3 {HERE}\n"
    assert refused(tmp_path, text) == "gates.logits.finite must be a table, got 3"


def test_an_inline_gate_is_named_by_its_own_line(tmp_path):
    text = (
        f"name = 'm'\n[gates]\nfirst = {{ bound = 1, reason = 'r' }}\nsecond = {{ bound = -1, reason = 'r' }} {HERE}\n"
    )
    assert refused(tmp_path, text).startswith("gates.second.bound must be a finite number")


def test_an_inline_gate_with_a_dotted_name_is_named_by_its_own_line(tmp_path):
    text = f"name = 'm'\n[gates]\nfirst = {{ bound = 1, reason = 'r' }}\n\"logits.rel_l2\" = {{ bound = -1, reason = 'r' }} {HERE}"
    assert refused(tmp_path, text).startswith("gates.logits.rel_l2.bound must be a finite number")


def test_a_gate_whose_name_was_not_quoted_is_named_by_its_line(tmp_path):
    """``[gates.logits.rel_l2]`` is what people write first."""
    text = f"name = 'm'\n[gates.logits.rel_l2] {HERE}\nbound = 1\nreason = 'r'\n"
    assert refused(tmp_path, text).startswith("gates.logits")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"id": f"3 {HERE}"}, "id must be a string, got 3"),
        ({"value": f"nan {HERE}"}, "value must be finite, got nan"),
        ({"value": f"[1, [inf]] {HERE}"}, "value must be finite, got [1, [inf]]"),
        ({"value": f"{{ a = {{ b = nan }} }} {HERE}"}, "value must be finite"),
        ({"better": f"'bigger' {HERE}"}, "better must be one of higher, lower, equal, got 'bigger'"),
        ({"role": f"'gate' {HERE}"}, "role must be one of required, claim, got 'gate'"),
        ({"tolerance": f"'1' {HERE}"}, "tolerance must be a number, got '1'"),
        ({"conditions": f"3 {HERE}"}, "conditions must be a table, got 3"),
        ({"conditions": f"{{ prompts = 4 }} {HERE}"}, "conditions must map names to strings, prompts is 4"),
        ({"documentd": f"'x' {HERE}"}, "documentd is not a key of a card; did you mean 'documented'?"),
        ({"gate": f"3 {HERE}"}, "gate must be a table, got 3"),
        ({"gate": f"{{ op = '~', bound = 1 }} {HERE}"}, "gate.op must be one of >, >=, <, <=, +-, got '~'"),
        ({"gate": f"{{ bound = 1 }} {HERE}"}, "gate.op must be one of >, >=, <, <=, +-, got ''"),
        ({"gate": f"{{ op = '<' }} {HERE}"}, "gate.bound is missing"),
        ({"gate": f"{{ op = '<', bound = 'x' }} {HERE}"}, "gate.bound must be a number, got 'x'"),
        ({"gate": f"{{ op = '<', bound = nan }} {HERE}"}, "gate.bound must be finite, got nan"),
        ({"gate": f"{{ op = '<', bound = 1, ops = 2 }} {HERE}"}, "gate.ops is not a key of a card; did you mean 'op'?"),
    ],
)
def test_impossible_claims(tmp_path, keys, problem):
    text = "\n".join(["name = 'm'", claim(id="'first'"), "", claim(**keys)])
    assert refused(tmp_path, text).startswith(f"claims.{problem}")


@pytest.mark.parametrize("tolerance", ["nan", "inf", "-0.1"])
def test_a_tolerance_that_no_or_every_number_meets_is_refused(tmp_path, tolerance):
    text = "name = 'm'\n" + claim(value="1.0", tolerance=f"{tolerance} {HERE}")
    assert refused(tmp_path, text).startswith("claims.tolerance ")


@pytest.mark.parametrize("missing", ["id", "documented", "source"])
def test_an_incomplete_claim_is_named_by_its_own_header(tmp_path, missing):
    second = claim(**{"id": "'second'", missing: None}).replace("[[claims]]", f"[[claims]] {HERE}")
    found = refused(tmp_path, "\n".join(["name = 'm'", claim(), second, claim(id="'third'")]))
    assert found == f"claims.{missing} is missing"


def test_a_claim_id_twice_is_refused_at_the_second(tmp_path):
    text = "\n".join(["name = 'm'", claim(id="'a'"), claim(id="'b'"), claim(id=f"'a' {HERE}")])
    assert refused(tmp_path, text) == "claims.id 'a' appears twice"


def test_check_and_statistic_come_together(tmp_path):
    text = "name = 'm'\n" + claim(check="'ppl.delta'", value="1").replace("[[claims]]", f"[[claims]] {HERE}")
    assert refused(tmp_path, text).startswith("claims.statistic and check come together")
    text = "name = 'm'\n" + claim(statistic=f"'mean' {HERE}")
    assert refused(tmp_path, text).startswith("claims.statistic and check come together")


@pytest.mark.parametrize("value", ["[]", "[1, '2']", "[[1]]", "'1'", "true", "[true]", "{ a = 1 }"])
def test_a_claim_without_gate_that_a_check_answers_needs_numbers(tmp_path, value):
    keys = {"check": "'ppl.delta'", "statistic": "'mean'"}
    text = "name = 'm'\n" + claim(**keys, value=f"{value} {HERE}")
    assert refused(tmp_path, text).startswith("claims.value must be one number, or a list of them")
    assert loaded(tmp_path, "name = 'm'\n" + claim(**keys, value=value, gate="{ op = '<', bound = 1 }")).claims
    for good in ("1", "[7, 7, 6]"):
        assert loaded(tmp_path, "name = 'm'\n" + claim(**keys, value=good)).claims


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"expires": f"'2030-01-31' {HERE}"}, "expires must be "),
        ({"reason": f"3 {HERE}"}, "reason must be a string, got 3"),
        ({"conditions": f"{{ a = 1 }} {HERE}"}, "conditions must map names to strings, a is 1"),
        ({"until": f"2030-01-31 {HERE}"}, "until is not a key of a card"),
    ],
)
def test_impossible_waivers(tmp_path, keys, problem):
    assert refused(tmp_path, "\n".join(["name = 'm'", waiver(), waiver(**keys)])).startswith(f"waivers.{problem}")


@pytest.mark.parametrize("missing", ["check", "reason", "link", "expires"])
def test_a_waiver_needs_all_of_it(tmp_path, missing):
    second = waiver(**{missing: None}).replace("[[waivers]]", f"[[waivers]] {HERE}")
    assert refused(tmp_path, f"name = 'm'\n{waiver()}\n{second}") == f"waivers.{missing} is missing"


def test_a_date_with_a_time_is_refused_or_usable(tmp_path):
    """TOML's date-time is a Python date too, but cannot be compared with today."""
    try:
        (found,) = loaded(tmp_path, "name = 'm'\n" + waiver(expires="2030-01-31T00:00:00")).waivers
    except CardError as error:
        assert "waivers.expires" in str(error)  # noqa: PT017
        return
    assert found.applies(datetime.date(2030, 1, 1), {})


@pytest.mark.parametrize(
    "inner", [f"[claims.gate]\nop = '<'\nbound = nan {HERE}", f"[claims.conditions] {HERE}\na = 1"]
)
def test_a_sub_table_of_the_second_claim_is_named_by_its_own_line(tmp_path, inner):
    sound = "[claims.gate]\nop = '<'\nbound = 1\n[claims.conditions]\na = '1'"
    assert refused(tmp_path, "\n".join(["name = 'm'", claim(id="'a'"), sound, claim(id="'b'"), inner]))


@pytest.mark.parametrize("inside", ["value = [\n  [1, 2],\n  [3, 4]\n]", 'audit = """\n[weights]\nrole = 1\n"""'])
def test_lines_inside_a_value_are_not_taken_for_headers_or_keys(tmp_path, inside):
    assert refused(tmp_path, f"name = 'm'\n{claim()}\n{inside}\nrole = 'x' {HERE}").startswith("claims.role")


# ---------------------------------------------------------------- files that are no cards


def test_a_syntax_error_names_file_line_and_column(tmp_path):
    path = written(tmp_path, "name = 'm'\ntitle = = 3\n")
    with pytest.raises(CardError, match=rf"{re.escape(str(path))}: not valid TOML: .*\(at line 2, column 9\)"):
        load_card(path)


def test_a_key_twice_is_a_syntax_error(tmp_path):
    with pytest.raises(CardError, match=r"not valid TOML: .*at line 2"):
        loaded(tmp_path, "name = 'm'\nname = 'n'\n")


def test_not_utf8_is_refused_by_name(tmp_path):
    path = tmp_path / "card.toml"
    path.write_bytes("name = 'm'\ntitle = '模型'\n".encode("gbk"))
    with pytest.raises(CardError, match=rf"{re.escape(str(path))}: cannot be read: 'utf-8' codec"):
        load_card(path)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(CardError, match=r"cannot be read: .*directory"):
        load_card(tmp_path)


# ---------------------------------------------------------------- finding


def other_card(folder, name, text=""):
    (folder / name).mkdir(parents=True)
    return written(folder / name, f"name = '{name}'\n{text}")


def test_an_unknown_model_lists_the_nearest_and_the_known_names_and_the_folders(tmp_path):
    other_card(tmp_path, "mine")
    with pytest.raises(CardError) as caught:
        find_card("mem-agnet", tmp_path)
    text = str(caught.value)
    assert "no card for model 'mem-agnet'; did you mean 'mem-agent'?" in text
    assert f"known: {', '.join(sorted([*SHIPPED, 'mine']))}" in text
    assert f"looked in: {tmp_path}, {data_folder('baselines')}" in text
    assert "--model path/to/card.toml" in caught.value.mend


def test_a_path_that_does_not_exist_is_given_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CardError, match=rf"card {re.escape(str(tmp_path))}/no/card.toml does not exist"):
        find_card("no/card.toml")


def test_a_card_is_found_by_relative_path(tmp_path, monkeypatch):
    path = other_card(tmp_path, "mine")
    monkeypatch.chdir(tmp_path)
    assert find_card("mine/card.toml").path == path


def test_a_users_card_hides_the_shipped_one_of_its_name(tmp_path):
    path = other_card(tmp_path, "mem-agent", "title = 'mine'")
    assert find_card("mem-agent", tmp_path).path == path
    assert find_card("mem-agent").path == data_folder("baselines") / "mem-agent" / "card.toml"
    assert known_cards(tmp_path)["smollm2-135m-instruct"].is_relative_to(data_folder("baselines"))


def test_folders_are_the_users_first(tmp_path):
    assert card_folders(tmp_path) == [tmp_path, data_folder("baselines")]
    assert card_folders() == [data_folder("baselines")]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_cards_load_and_name_only_known_checks(name):
    card = find_card(name)
    assert card.name == name
    assert len(card.logits_prompts) >= 4
    assert len(card.perplexity_texts) >= 6
    assert len(card.hidden_inputs) >= 8
    assert card.claims
    validate_names(card, known_names(), ("transformers", "vllm", "server"))


def test_every_shipped_card_is_tested_here():
    assert tuple(sorted(known_cards())) == SHIPPED


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("[required]\ntransformers = ['logits.finit']", "required"),
        ("[gates.'logits.finit']\nbound = 1\nreason = 'r'", "gates"),
        (waiver(check="'logits.finit'"), "waivers"),
        (claim(check="'logits.finit'", statistic="'x'", value="1"), "claim c"),
    ],
)
def test_unknown_checks_are_refused_with_the_nearest(tmp_path, text, table):
    card = loaded(tmp_path, f"name = 'm'\n{text}\n")
    expected = rf"{table} names the check 'logits.finit', which no suite has; did you mean 'logits.finite'"
    with pytest.raises(CardError, match=rf"{re.escape(str(card.path))}.*: {expected}") as caught:
        validate_names(card, known_names(), ("transformers", "vllm", "server"))
    assert "logits.finite.bf16_fp32" in caught.value.mend


@pytest.mark.parametrize("check", ["logits.finite", "logits.rel_l2.fp16_fp16", "model.config", "ppl.delta.bf16_fp32"])
def test_checks_are_known_by_name_and_by_pair(tmp_path, check):
    card = loaded(tmp_path, f"name = 'm'\n[required]\ntransformers = ['{check}']\n")
    validate_names(card, known_names(), ("transformers", "vllm", "server"))


# ---------------------------------------------------------------- find_line, nearest

SOURCE = """\
name = "m"       # 1
"odd key" = 1    # 2
[weights]        # 3
  path = "w"     # 4
a.b = 3          # 5
[gates."x.y"]    # 6
bound = 1        # 7
[[ claims ]]     # 8
id = "a"         # 9
[[claims]]       # 10
id = "b"         # 11
[ claims . gate ]  # 12
op = "<"         # 13
[required]       # 14
'q.r' = []       # 15
# path = "no"    # 16
"""


@pytest.mark.parametrize(
    ("table", "key", "index", "line"),
    [
        ("", "name", 0, 1),
        ("", "odd key", 0, 2),
        ("", "weights", 0, 3),
        ("", "nowhere", 0, 1),
        ("weights", "path", 0, 4),
        ("weights", "a", 0, 5),
        ("weights", "nowhere", 0, 3),
        ("gates.x.y", "bound", 0, 7),
        ("gates.x.y", "reason", 0, 6),
        ("claims", "id", 0, 9),
        ("claims", "id", 1, 11),
        ("claims", "nowhere", 0, 8),
        ("claims", "nowhere", 1, 10),
        ("claims", "gate", 1, 12),
        ("claims.gate", "op", 1, 13),
        ("required", "q.r", 0, 15),
        ("required", "path", 0, 14),
        ("nowhere", "at all", 0, 1),
    ],
)
def test_find_line(table, key, index, line):
    assert find_line(SOURCE, table, key, index) == line


def test_nearest_offers_at_most_three():
    assert nearest("abcd", ["abce", "abcf", "abcg", "abch"]).count("'") == 6
    assert nearest("abcd", ["zzz"]) == ""


def test_a_key_of_type_bool_is_no_number_and_no_text(tmp_path):
    table = read_toml(written(tmp_path, "a = true\n"))
    assert table.take("a", bool) is True
    for kind in (int, float, str):
        with pytest.raises(CardError, match=r"card\.toml:1: a must be "):
            table.take("a", kind)


def test_an_integer_is_taken_for_a_float(tmp_path):
    value = read_toml(written(tmp_path, "a = 3\n")).take("a", float)
    assert (value, type(value)) == (3.0, float)
