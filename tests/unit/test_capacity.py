"""What vLLM says of its capacity, in real logs and in the formats of its sources, against what the configuration implies."""

import dataclasses
import json
import re

import pytest

from pytest_npuconf.cards import find_card
from pytest_npuconf.engines.capacity import (
    Reported,
    cache_shape,
    expected_capacity,
    kv_space_gib,
    read_cache_metrics,
    read_capacity,
)
from pytest_npuconf.errors import EngineError
from tests.benchmarks.serve_arguments import find_wheel, wheel_folder
from tests.benchmarks.serving_capacity import CASES, DATA, Case, agree, read
from tests.benchmarks.stack_wheels import Wheel

RUNS = json.loads(DATA.read_text(encoding="utf-8"))["runs"]
GIB = 2**30

# Package, version, file in the wheel, the format that stands there, what is put in, what must be read.
FORMS = [
    ("vllm", "0.18.0", "vllm/v1/core/kv_cache_utils.py", "GPU KV cache size: %s tokens", ("158,848",), {"kv_tokens": 158848}),
    ("vllm", "0.18.0", "vllm/v1/core/kv_cache_utils.py", "Maximum concurrency for %s tokens per request: %.2fx", ("4,096", 38.78),
     {"concurrency_tokens": 4096, "concurrency": 38.78}),
    ("vllm", "0.18.0", "vllm/v1/engine/core.py", "init engine (profile, create kv cache, warmup model) took %.2f seconds", (4.38,),
     {"init_seconds": 4.38}),
    ("vllm", "0.18.0", "vllm/model_executor/model_loader/default_loader.py", "Loading weights took %.2f seconds", (2.44,),
     {"load_seconds": 2.44}),
    ("vllm", "0.18.0", "vllm/v1/worker/gpu_model_runner.py", "Model loading took %s GiB memory and %.6f seconds", ("1.12", 3.5),
     {"weights_gib": 1.12, "model_seconds": 3.5}),
    ("vllm", "0.18.0", "vllm/v1/worker/gpu/model_runner.py", "Model loading took %s GiB and %.6f seconds", ("1.12", 3.5),
     {"weights_gib": 1.12, "model_seconds": 3.5}),
    ("vllm", "0.18.0", "vllm/v1/worker/gpu_worker.py", "Available KV cache memory: %s GiB", ("46.77",), {"kv_gib": 46.77}),
    ("vllm_ascend", "0.18.0", "vllm_ascend/worker/worker.py", "Available KV cache memory: %.2f GiB", (46.77,), {"kv_gib": 46.77}),
    ("vllm_ascend", "0.18.0", "vllm_ascend/worker/model_runner_v1.py", "Loading model weights took %.4f GB", (1.14,),
     {"weights_gib": 1.14}),
    ("vllm_ascend", "0.23.0", "vllm_ascend/worker/worker.py", "Available KV cache memory: %.2f GiB", (46.77,), {"kv_gib": 46.77}),
    ("vllm_ascend", "0.23.0", "vllm_ascend/worker/model_runner_v1.py", "Loading model weights took %.4f GB", (1.14,),
     {"weights_gib": 1.14}),
]  # fmt: skip
FORM_IDS = [f"{package}-{version}-{form.split('%')[0].strip()}" for package, version, _, form, _, _ in FORMS]


def config_of(model):
    return find_card(model).config


# seed 003 states head_dim, seed 000 does not: its figure needs 128 (the audit proves it)
RERANKER, MEMORY_AGENT = config_of("qwen3-reranker-0.6b"), {**config_of("mem-agent"), "head_dim": 128}


@pytest.mark.parametrize("line", FORMS, ids=FORM_IDS)
def test_a_line_of_each_form_is_read(line):
    *_, form, values, read_as = line
    text = f"(EngineCore_DP0 pid=1) INFO 01-01 00:00:00 [core.py:1] {form % values}\n"
    assert read_capacity(text) == Reported(**read_as)


@pytest.mark.wheels
@pytest.mark.parametrize("line", FORMS, ids=FORM_IDS)
def test_each_form_stands_in_the_wheel(line):
    package, version, member, form, *_ = line
    path = find_wheel(wheel_folder(), package, version)
    if path is None:
        pytest.skip(f"no wheel of {package}=={version} in {wheel_folder()}: make stack-names, or NPUCONF_WHEELS=FOLDER")
    assert form in [text.value for text in Wheel(path).strings(member)]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(map(str, run["case"].values())))
def test_a_real_vllm_reported_what_the_configuration_implies(run):
    case = Case(**{**run["case"], "arguments": tuple(run["case"]["arguments"])})
    reported = read(run["lines"])
    implied = expected_capacity(
        config_of(case.model), case.dtype, "auto", case.block_size, case.gib * GIB, case.max_model_len,
        tensor_parallel=case.tensor_parallel,
    )  # fmt: skip
    assert agree(reported, implied)
    assert reported.kv_bytes == (None if case.offline else case.gib * GIB)
    assert (reported.kv_blocks is None) == case.offline
    assert reported.kv_gib == case.gib
    assert reported.load_seconds > 0
    assert reported.init_seconds > 0
    assert reported.weights_gib is None  # vLLM does not say it on a CPU


def test_the_kept_runs_are_those_of_the_command():
    assert [run["case"] for run in RUNS] == [json.loads(json.dumps(dataclasses.asdict(case))) for case in CASES]


def test_the_two_ways_of_counting_tokens_differ_where_a_request_is_no_whole_blocks():
    """Real: 2 GiB, float32, 1000 tokens a request: 2730 blocks of 128 hold 349,440 tokens, and vLLM 0.32 said 341,250."""
    implied = expected_capacity(config_of("tiny-qwen3"), "float32", "auto", 128, 2 * GIB, 1000)
    assert (implied.blocks, implied.tokens, implied.request_tokens) == (2730, 349440, 341250)
    (run,) = [run for run in RUNS if run["case"]["max_model_len"] == 1000]
    assert read(run["lines"]).kv_tokens == implied.request_tokens != implied.tokens


def test_a_wrong_configuration_does_not_agree():
    run = RUNS[0]
    wrong = {**config_of("tiny-qwen3"), "num_key_value_heads": 1}
    assert not agree(read(run["lines"]), expected_capacity(wrong, "bfloat16", "auto", 128, GIB, 1024))


@pytest.mark.parametrize("kv_bytes", [1241 * 14_680_064, 1242 * 14_680_064 - 1])
def test_seed_003s_figures_follow_from_its_configuration(kv_bytes):
    """1,241 blocks of 128, and nothing else, in any memory that holds that many; 38.78 requests of 4K."""
    implied = expected_capacity(RERANKER, "bfloat16", "auto", 128, kv_bytes, 4096, parameters=595_776_512)
    assert (implied.token_bytes, implied.block_bytes) == (114_688, 14_680_064)
    assert (implied.blocks, implied.tokens, implied.request_tokens) == (1241, 158_848, 158_848)
    assert round(implied.concurrency, 2) == 38.78
    assert round(implied.weight_bytes / GIB, 2) == 1.11  # stated as 1.11 GB
    room = 0.3 * 64 * GIB
    assert implied.weight_bytes + kv_bytes < room  # 18.1 of 19.2 GiB; what else vLLM keeps is not stated


def test_seed_000s_figures_follow_from_its_configuration():
    """Every memory that a log rounds to 46.77 GiB holds 2,660 blocks, which are the 340,480 tokens stated."""
    low, high = (
        expected_capacity(MEMORY_AGENT, "bfloat16", "auto", 128, int(gib * GIB), 4096) for gib in (46.765, 46.7749)
    )
    assert low.token_bytes == 147_456
    assert (low.blocks, high.blocks) == (2660, 2660)
    assert low.tokens == high.tokens == 340_480
    half = expected_capacity(MEMORY_AGENT, "bfloat16", "auto", 128, int(46.77 * GIB), 4096, tensor_parallel=2)
    assert half.token_bytes == 147_456 // 2  # its command for two devices


def test_a_cache_in_fewer_bits_holds_more():
    wide, narrow = (expected_capacity(RERANKER, "bfloat16", kind, 128, 16 * GIB, 4096) for kind in ("auto", "fp8"))
    assert narrow.token_bytes * 2 == wide.token_bytes
    assert narrow.tokens // 2 - wide.tokens in (0, 64)


def test_what_is_not_said_is_none_and_never_zero():
    assert read_capacity("INFO starting\nKV cache\n") == Reported()
    assert read_cache_metrics("vllm:num_requests_running 0\n") == Reported()
    assert all(value is None for value in dataclasses.asdict(Reported()).values())


def test_several_ranks_report_the_least_capacity_and_the_longest_load():
    log = (
        "(Worker_TP0 pid=1) INFO Loading weights took 1.00 seconds\n(Worker_TP1 pid=2) INFO Loading weights took 2.00 seconds\n"
        "(Worker_TP0 pid=1) Available KV cache memory: 10.50 GiB\n(Worker_TP1 pid=2) Available KV cache memory: 10.25 GiB\n"
    )
    assert read_capacity(log) == Reported(load_seconds=2.0, kv_gib=10.25)


def test_colours_do_not_hide_a_line():
    assert read_capacity("\x1b[32mGPU KV cache size: \x1b[0m1,024 tokens").kv_tokens == 1024


def test_metrics_complete_a_log_and_do_not_replace_it():
    log, metrics = Reported(kv_tokens=1), Reported(kv_tokens=2, block_size=16)
    assert log.completed(metrics) == Reported(kv_tokens=1, block_size=16)


def test_metrics_that_say_none_say_nothing():
    found = read_cache_metrics(
        'vllm:cache_config_info{block_size="None",num_gpu_blocks="12",kv_cache_memory_bytes="None"} 1.0\n'
    )
    assert found == Reported(kv_blocks=12)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kv_lora_rank": 512}, "kv_lora_rank"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"architectures": ["BertModel"]}, "is an encoder"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"num_attention_heads": None, "head_dim": None}, "head_dim"),
    ],
)
def test_another_kind_of_cache_is_an_error_that_names_it(change, named):
    with pytest.raises(EngineError, match=re.escape(named)):
        cache_shape({**RERANKER, **change})


def test_a_window_that_is_not_used_is_none():
    assert cache_shape({**RERANKER, "sliding_window": 4096, "use_sliding_window": False}) == (28, 8, 128)


def test_an_old_configuration_has_a_key_for_each_head():
    assert cache_shape({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}) == (2, 4, 16)


def test_a_dtype_of_no_known_size_is_an_error():
    with pytest.raises(EngineError, match="nvfp4"):
        expected_capacity(RERANKER, "bfloat16", "nvfp4", 128, GIB, 4096)


@pytest.mark.parametrize(
    ("config", "length", "gib"),
    [
        (config_of("tiny-qwen3"), 2048, 1),
        (MEMORY_AGENT, 65536, 10),  # 9 GiB of keys and values, and one block
        (MEMORY_AGENT, None, 37),  # its max_position_embeddings, 262,144: 36 GiB, and one block
        ({}, 4096, 1),
        (RERANKER, None, 5),
    ],
)
def test_the_cache_on_a_cpu_holds_one_request(config, length, gib):
    assert kv_space_gib(config, "bfloat16", length) == gib
