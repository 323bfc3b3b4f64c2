"""What an engine says it holds against its configuration: real lines of vLLM, and what is missing or wrong in them."""

import contextlib
import json

import pytest

from pytest_npuconf.audit.counting import GIB
from pytest_npuconf.cards import find_card
from pytest_npuconf.engines.capacity import expected_capacity
from pytest_npuconf.engines.command_lines import value_of
from pytest_npuconf.engines.server_engine import HttpServed
from pytest_npuconf.errors import EngineError, ServerError
from pytest_npuconf.gates import Gate, Outcome
from pytest_npuconf.serving.capacity import capacity
from tests.benchmarks.serving_capacity import DATA
from tests.told_server import ToldServer

CONFIG = {**find_card("tiny-qwen3").config}
RUNS = [
    run
    for run in json.loads(DATA.read_text(encoding="utf-8"))["runs"]
    if run["case"]["model"] == "tiny-qwen3" and run["case"]["tensor_parallel"] == 1
]  # the check knows no ranks
PARAMETERS = 3_738_816


class Offline:
    """An engine that only has a log."""

    name, start_seconds = "vllm", 12.0

    def __init__(self, log, dtype="bfloat16", longest=1024):
        self.log, self.dtype, self.max_model_len = log, dtype, longest

    def log_text(self):
        return self.log

    def close(self):
        pass


def lines(tokens, gib="1.00", concurrency=None, longest=1024, form="Available KV cache memory: {} GiB"):
    said = [form.format(gib), f"GPU KV cache size: {tokens:,} tokens"]
    said += (
        [f"Maximum concurrency for {longest:,} tokens per request: {concurrency:.2f}x"]
        if concurrency is not None
        else []
    )
    return "\n".join(f"(EngineCore pid=1) INFO 01-01 00:00:00 [core.py:1] {line}" for line in said)


def implied(gib=1.0, config=CONFIG, dtype="bfloat16", block=128, longest=1024):
    return expected_capacity(config, dtype, "auto", block, int(gib * GIB), longest)


def outcome(measured):
    return Gate("g", 0.0).judge(measured).outcome


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(map(str, run["case"].values())))
def test_a_real_vllm_is_not_blamed(run):
    case = run["case"]
    log = "\n".join(line for line in run["lines"] if not line.startswith("vllm:"))
    told = "\n".join(line for line in run["lines"] if line.startswith("vllm:")).encode()
    served = Offline(log, case["dtype"], case["max_model_len"])
    with contextlib.nullcontext(served) if case["offline"] else attached(told, served) as found:
        measured = capacity(found, CONFIG, PARAMETERS)
        wrong = capacity(found, {**CONFIG, "num_key_value_heads": 1}, PARAMETERS)
    assert measured.rows == ()
    assert (measured.value, measured.n) == (0, 2)
    assert wrong.value == 2


@pytest.mark.parametrize("form", ["Available KV cache memory: {} GiB", "Explicitly set ({}/4.00) GiB for KV cache"])
def test_what_the_configuration_implies_is_right(form):
    told = implied()
    measured = capacity(Offline(lines(told.tokens, concurrency=told.concurrency, form=form)), CONFIG, PARAMETERS)
    assert measured.value == 0
    assert measured.data["expected"]["blocks"] == told.blocks
    assert measured.data["reported"]["kv_tokens"] == told.tokens
    assert measured.data["start_seconds"] == 12.0
    assert json.dumps(measured.data)


def test_a_cache_of_another_size_is_found():
    told = implied()
    measured = capacity(Offline(lines(told.tokens * 3, concurrency=told.concurrency * 3)), CONFIG, PARAMETERS)
    assert [row.place for row in measured.rows] == ["KV cache, tokens", "requests of the full length at once"]
    assert (
        f"to {told.tokens}"
        in capacity(
            Offline(lines(told.tokens * 3, form="Explicitly set ({}/4.00) GiB for KV cache")), CONFIG, PARAMETERS
        ).worst.detail
    )
    assert outcome(measured) is Outcome.FAIL


@pytest.mark.parametrize("change", [{"num_hidden_layers": 7}, {"num_key_value_heads": 3}, {"head_dim": 72}])
def test_another_configuration_is_found(change):
    told = implied()
    measured = capacity(Offline(lines(told.tokens, concurrency=told.concurrency)), {**CONFIG, **change}, PARAMETERS)
    assert measured.value == 2


def test_a_memory_that_is_measured_and_printed_as_a_whole_number_is_not_exact():
    """46.004 GiB is printed as 46.00 (vllm-ascend's log): the blocks in the 4 MiB are there all the same."""
    real = implied(46.004)
    assert real.tokens > implied(46.0).tokens
    measured = capacity(Offline(lines(real.tokens, "46.00", real.concurrency)), CONFIG, PARAMETERS)
    assert measured.rows == ()
    set_ = lines(real.tokens, "46.00", real.concurrency, form="Explicitly set ({}/64.00) GiB for KV cache")
    assert capacity(Offline(set_), CONFIG, PARAMETERS).value > 0


@pytest.mark.parametrize("gib", [46.765, 46.77, 46.7749])
def test_a_rounded_memory_leaves_room_for_what_was_rounded(gib):
    real = implied(gib)
    measured = capacity(Offline(lines(real.tokens, "46.77", real.concurrency)), CONFIG, PARAMETERS)
    assert measured.rows == ()
    assert capacity(Offline(lines(implied(46.80).tokens, "46.77")), CONFIG, PARAMETERS).value == 1


def test_the_block_that_vllm_keeps_back_may_be_counted_or_not():
    told = implied()
    form = "Explicitly set ({}/4.00) GiB for KV cache"
    assert capacity(Offline(lines(told.tokens - 128, form=form)), CONFIG, PARAMETERS).value == 0
    assert capacity(Offline(lines(told.tokens - 129, form=form)), CONFIG, PARAMETERS).value == 1
    assert capacity(Offline(lines(told.tokens + 128, form=form)), CONFIG, PARAMETERS).value == 1


@pytest.mark.parametrize(
    "log",
    [
        "",
        "GPU KV cache size: 1,024 tokens",
        "Available KV cache memory: 1.00 GiB",
        "Available KV cache memory: 0.00 GiB\nGPU KV cache size: 0 tokens",
        "Maximum concurrency for 1,024 tokens per request: 2.00x",
    ],
)
def test_an_engine_that_does_not_say_it_is_no_measurement(log):
    measured = capacity(Offline(log), CONFIG, PARAMETERS)
    assert "neither in its log nor in /metrics" in measured.broken
    assert outcome(measured) is Outcome.FAIL


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["BertModel"]}, "is an encoder"),
        ({**CONFIG, "kv_lora_rank": 512}, "not the plain one: kv_lora_rank"),
        ({"hidden_size": 64}, "the configuration has no num_hidden_layers"),
    ],
)
def test_a_model_without_a_plain_cache_is_an_error_that_says_so(config, said):
    with pytest.raises(EngineError, match=said):
        capacity(Offline(lines(implied().tokens)), config, PARAMETERS)


# ---------------------------------------------------------------- /metrics


@contextlib.contextmanager
def attached(metrics, process=None):
    """``process``: with its log, dtype and length; an endpoint's otherwise."""
    like = process or Offline("")
    models = {"data": [{"id": "m", "max_model_len": like.max_model_len}]}
    with ToldServer({"/v1/models": models, **({} if metrics is None else {"/metrics": metrics})}) as server:
        served = HttpServed(server.url, "m", "generate", like.dtype, process, None, 0.0, 10.0)
        with contextlib.closing(served):
            yield served


def metrics(told, bytes_=GIB, block=128):
    labels = f'block_size="{block}",num_gpu_blocks="{told.blocks}",kv_cache_memory_bytes="{bytes_}"'
    more = f'kv_cache_size_tokens="{told.tokens}",kv_cache_max_concurrency="{told.concurrency}"'
    return f"# HELP\nvllm:cache_config_info{{{labels},{more}}} 1.0\n".encode()


def test_an_attached_server_says_it_in_its_metrics():
    told = implied(block=16)
    with attached(metrics(told, block=16)) as served:
        assert capacity(served, CONFIG, PARAMETERS).value == 0
    with attached(metrics(implied(2.0))) as served:
        assert capacity(served, CONFIG, PARAMETERS).value == 2


@pytest.mark.parametrize("said", [None, (405, {}), b"# nothing of vLLM's\n", b""])
def test_an_attached_server_without_such_metrics_is_no_measurement(said):
    with attached(said) as served:
        assert "neither in its log nor in /metrics" in capacity(served, CONFIG, PARAMETERS).broken


def test_metrics_that_fail_are_an_error():
    with attached((500, {})) as served, pytest.raises(ServerError) as caught:
        capacity(served, CONFIG, PARAMETERS)
    assert caught.value.status == 500


def test_the_cards_words_count():
    """Two ranks hold half the heads each, so twice the tokens; a cache of one byte a number as many again."""
    two = expected_capacity(CONFIG, "bfloat16", "fp8", 64, GIB, 1024, tensor_parallel=2)
    said = Offline(lines(two.tokens, concurrency=two.concurrency))
    words = ("--tensor-parallel-size", "2", "--kv-cache-dtype=fp8", "--block-size", "64")
    assert capacity(said, CONFIG, PARAMETERS, words).value == 0
    assert capacity(said, CONFIG, PARAMETERS).value == 2


def test_the_value_of_a_flag():
    words = ("--a", "1", "--b=2", "--c")
    assert [value_of(words, flag) for flag in ("--a", "--b", "--c", "--d")] == ["1", "2", None, None]
