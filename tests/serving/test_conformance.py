"""The documented commands: a served stand-in in all its modes, the real model in vLLM's offline LLM, and a real encoder."""

import json

import pytest


@pytest.mark.parametrize(
    ("model", "engine", "modes"),
    [
        ("tiny-qwen3-reranker", "server", {"generate", "embed", "score", "classify"}),
        pytest.param("smollm2-135m-instruct", "vllm", {"generate"}, marks=pytest.mark.slow),
        pytest.param("tiny-qwen3", "vllm", {"generate", "tensor_parallel"}, marks=pytest.mark.slow),
        ("minilm-l6-v2", "server", {"embed"}),
    ],
)
def test_conformant(run_pytest, tmp_path, model, engine, modes):
    done = run_pytest(
        "--model",
        model,
        "--npuconf-engine",
        engine,
        "--npuconf-precision",
        "bfloat16",
        "--npuconf-results",
        "results.json",
    )
    assert done.returncode == 0
    assert "CONFORMANT: " in done.stdout.splitlines()[-3]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["models"][model]["status"] == "CONFORMANT"
    assert results["facts"]["engine"] == engine
    assert results["facts"]["vllm"]
    logs = {path.name.rpartition("-")[2].removesuffix(".log") for path in tmp_path.glob("server-*.log")}
    assert logs == modes, "the log of each start is kept beside the results"
    assert [
        check for check in results["checks"] if check["check"].startswith("pooling.embeddings")
    ] or "embed" not in modes
    if "generate" not in modes:
        return
    capacity = next(check for check in results["checks"] if check["check"].startswith("serving.capacity"))
    assert capacity["data"]["reported"]["kv_tokens"] > 0
    assert capacity["data"]["reported"]["load_seconds"] >= 0
    assert capacity["data"]["start_seconds"] > 0
