"""Documented samples: answered through the chat template, greedily; judged; and never executed."""

from __future__ import annotations

import json

import pytest

from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.engines.transformers_engine import TransformersEngine
from pytest_npuconf.errors import EngineError
from pytest_npuconf.weights import read_checkpoint
from tests.plugin.conftest import card_text

SAMPLES = ("--model", "card.toml", "--npuconf-precision", "float32", "npuconf/tasks")
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
)
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def chatty(tiny_copy):
    """The tiny model with a chat template that opens a thought when it is asked to think."""
    path = tiny_copy / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    return tiny_copy


def engine(folder, dtype="float32"):
    return TransformersEngine(read_checkpoint(folder, "here", "get it again"), CpuDevice(), dtype)


def sample(name, *, thinking=False, tokens=12, **expected):
    lines = [f"{key} = {json.dumps(value)}" for key, value in expected.items()]
    return "\n".join(
        ["[[samples]]", f'name = "{name}"', 'messages = [{ role = "user", content = "Hi" }]',
         f"max_new_tokens = {tokens}", f"thinking = {str(thinking).lower()}", *lines, ""]
    )  # fmt: skip


def canned(pytester, text):
    """The transformers engine with a model that always answers ``text``."""
    pytester.makeconftest(
        f"""
        from pytest_npuconf.engines.transformers_engine import TransformersEngine, TransformersFactory

        class Canned(TransformersEngine):
            def chat(self, messages, max_new_tokens, thinking):
                return {text!r}

        class Factory(TransformersFactory):
            def load(self, checkpoint, device, dtype, settings):
                return Canned(checkpoint, device, dtype)

        def pytest_npuconf_engines(config):
            return {{"transformers": Factory()}}
        """
    )


# ---------------------------------------------------------------- the engine


def test_the_answer_is_greedy_and_the_same_again(chatty):
    loaded = engine(chatty)
    first = loaded.chat(HI, 12, False)
    assert first
    assert loaded.chat(HI, 12, False) == first
    assert loaded.chat(HI, 1, False) != first


def test_greedy_tokens_are_the_argmax_of_the_models_own_logits(chatty):
    """Against a loop without any generation code."""
    loaded = engine(chatty)
    ids = loaded.tokenizer("<user>Hi\n<assistant>", add_special_tokens=False)["input_ids"]
    new = []
    for _ in range(6):
        sequence = [*ids, *new]
        new.append(int(loaded.forward(sequence).logits(len(sequence) - 1, len(sequence))[0].argmax()))
    assert loaded.chat(HI, 6, False) == loaded.tokenizer.decode(new)


def test_the_checkpoints_own_sampling_settings_change_nothing(chatty):
    """Temperature and penalties belong to sampling; here they would change what is repeatable."""
    plain = engine(chatty).chat(HI, 12, False)
    (chatty / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "temperature": 9.0, "top_k": 3, "repetition_penalty": 5.0, "num_beams": 3})
    )
    loaded = engine(chatty)
    before = loaded.model.generation_config
    assert loaded.chat(HI, 12, False) == plain
    assert loaded.model.generation_config is before


def test_the_turn_ends_at_the_checkpoints_end_tokens(chatty):
    """The first token that the model would give, named as one of two ends: nothing is left of its answer."""
    loaded = engine(chatty)
    passed = loaded.forward(loaded.tokenize("<user>Hi\n<assistant>"))
    first = int(passed.logits(passed.positions - 1, passed.positions)[0].argmax())
    (chatty / "generation_config.json").write_text(json.dumps({"eos_token_id": [first, (first + 1) % 256]}))
    assert engine(chatty).chat(HI, 12, False) == ""


def test_a_thought_that_the_template_opened_is_part_of_the_text(chatty):
    assert engine(chatty).chat(HI, 4, True).startswith("<think>")
    assert not engine(chatty).chat(HI, 4, False).startswith("<think>")


def test_a_model_without_a_chat_template_is_a_clear_error(tiny_weights):
    with pytest.raises(EngineError, match="the chat template cannot be used"):
        engine(tiny_weights).chat(HI, 4, False)


# ---------------------------------------------------------------- whole runs


def test_a_sample_that_the_model_answers_and_one_that_it_does_not(run, pytester, chatty):
    answer = engine(chatty).chat(HI, 12, False).strip()
    both = sample("right", contains=[answer]) + sample("wrong", contains=["Paris"])
    result = run(*SAMPLES, "--npuconf-results", "r.json", card=card_text(chatty, more=both))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FAIL functional.samples.fp32_fp32: samples.wrong = 1 (2 samples), gate <= 0",
            "  worst: wrong: 1 (answer *; expected 'Paris' in it)",
            "NOT CONFORMANT: *functional.samples.fp32_fp32*",
        ]
    )
    [check] = json.loads((pytester.path / "r.json").read_text())["checks"]
    assert check["data"]["statistics"] == {"correct": 0.5}
    alone = run(*SAMPLES, "-v", card=card_text(chatty, more=sample("right", contains=[answer])))
    alone.stdout.fnmatch_lines(["*pass *functional.samples.fp32_fp32 *0 (n = 1 samples) *required"])


def test_samples_run_once_for_each_dtype(run, pytester, chatty):
    canned(pytester, "Paris")
    card = card_text(chatty, more=sample("capital", contains=["Paris"]))
    result = run("--model", "card.toml", "npuconf/tasks", "-v", card=card)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["*test_samples[[]tiny-fp32_fp32[]] PASSED*", "*test_samples[[]tiny-bf16_fp32[]] PASSED*"]
    )


def test_a_cut_thought_is_no_answer(run, chatty):
    """Four tokens of a random model end no thought."""
    result = run(*SAMPLES, card=card_text(chatty, more=sample("cut", thinking=True, tokens=4, contains=["a"])))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["  worst: cut: 1 (answer '<think>*; no answer: thinking was cut at 4 tokens)"])


def test_nothing_that_a_model_wrote_is_executed(run, pytester, chatty):
    """The answer's code is right, so it passes; each way to run it would leave a file."""
    code = (
        "open('written by import', 'w').write('x')\n"
        "def f(a=open('written by def', 'w')):\n    open('written by call', 'w')\n    return 1\n"
        "f()\n"
    )
    canned(pytester, f"Here:\n```python\n{code}```\n")
    compile(code, "answer", "exec")  # it is code that could run
    documented = "def f(a=open('written by def', 'w')):\n    open('written by call', 'w')\n    return 1\n"
    result = run(*SAMPLES, "-v", card=card_text(chatty, more=sample("f", code=documented, code_function="f")))
    result.stdout.fnmatch_lines(["*pass *functional.samples.fp32_fp32 *0 (n = 1 samples)*"])
    assert [path.name for path in pytester.path.rglob("written*")] == []


def test_an_engine_that_cannot_chat_is_an_error_and_no_pass(run, pytester, chatty):
    pytester.makeconftest(
        """
        from pytest_npuconf.engines.transformers_engine import TransformersEngine, TransformersFactory

        class Mute:
            name = "mute"
            def __init__(self, engine): self.engine = engine
            def close(self): self.engine.close()

        class Factory(TransformersFactory):
            def load(self, checkpoint, device, dtype, settings):
                return Mute(TransformersEngine(checkpoint, device, dtype))

        def pytest_npuconf_engines(config):
            return {"transformers": Factory()}
        """
    )
    result = run(*SAMPLES, card=card_text(chatty, more=sample("s", contains=["a"])))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*EngineError: engine mute cannot chat*", "INCOMPLETE: *functional.samples.fp32_fp32*"]
    )


def test_a_model_without_a_chat_template_leaves_the_run_incomplete(run, tiny_weights):
    result = run(*SAMPLES, card=card_text(tiny_weights, more=sample("s", contains=["a"])))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*EngineError: the chat template cannot be used*", "INCOMPLETE: *"])
