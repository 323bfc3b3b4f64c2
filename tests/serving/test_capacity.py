"""A real vLLM reports the capacity that the configuration implies, at sizes that are not those of the kept runs."""

from pytest_npuconf.engines.capacity import read_cache_metrics, read_capacity
from tests.benchmarks.serving_capacity import Case, agree, expected, run

CASE = Case("tiny-qwen3", "float16", 1, 777, 32)  # 777: 24 blocks of 32 and a piece


def test_a_server_reports_what_its_configuration_implies(tmp_path, capsys):
    with capsys.disabled():
        log, metrics = run(CASE, tmp_path / "log", lambda _: None)
    implied = expected(CASE)
    from_log, from_metrics = read_capacity(log), read_cache_metrics(metrics)
    assert implied.tokens % 32 == 0
    assert implied.request_tokens != implied.tokens
    assert agree(from_log.completed(from_metrics), implied)
    assert from_log.kv_tokens == from_metrics.kv_tokens == implied.request_tokens
    assert from_log.load_seconds > 0
    assert from_log.init_seconds > 0
    assert from_log.weights_gib is None  # vLLM says it on an accelerator only
