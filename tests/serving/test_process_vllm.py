"""A real vLLM on this CPU: why it did not start is said, a broken engine is noticed, and nothing of it outlives us."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pytest_npuconf.engines.launchers import Launch, VllmLauncher
from pytest_npuconf.engines.openai_client import Client
from pytest_npuconf.engines.server_process import ServerProcess, free_port
from pytest_npuconf.errors import EngineError, ServerError

WEIGHTS = Path(__file__).resolve().parents[2] / "fixtures" / "tiny-qwen3"
# argv: command as JSON, environment as JSON, URL, log
OURS = """
import json, sys, time
from pathlib import Path
from pytest_npuconf.engines.server_process import ServerProcess
process = ServerProcess(json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3], "/health", Path(sys.argv[4]), name="vLLM")
process.start(lambda line: print(line, flush=True))
print("ready", flush=True)
time.sleep(600)
"""


def vllm(port, *arguments):
    """Command and environment, as a run makes them."""
    launch = Launch(WEIGHTS, "tiny-qwen3", "127.0.0.1", port, "bfloat16", 512, ("--enforce-eager", *arguments))
    return VllmLauncher().command(launch), VllmLauncher().environment(launch)


def shared_memory(family):
    """Files of shared memory that these processes map (others on this machine have their own)."""
    found = {Path(area.path) for process in family for area in process.memory_maps()}
    return {path for path in found if path.is_relative_to("/dev/shm") and path.exists()}


def wait_until(condition, seconds):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.1)


def refused(call, kind, *words):
    with pytest.raises(ServerError) as caught:
        call()
    assert caught.value.kind == kind
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (
            ("--max-num-batched-tokens", "16", "--no-enable-chunked-prefill"),
            "max_num_batched_tokens (16) is smaller than",
        ),
        (("--tool-call-parser", "no-such", "--enable-auto-tool-choice"), "no-such"),
    ],
)
def test_why_it_did_not_start(tmp_path, arguments, cause):
    port = free_port()
    command, environment = vllm(port, *arguments)
    process = ServerProcess(command, environment, f"http://127.0.0.1:{port}", "/health", tmp_path / "log", name="vLLM")
    with pytest.raises(EngineError, match="ended before it was ready") as caught:
        process.start(lambda _: None, timeout=300)
    [said] = [line for line in str(caught.value).splitlines() if line.startswith("  cause: ")]
    assert cause in said


def test_nothing_is_left_when_we_are_killed(tmp_path):
    """And, on the way, the client's words for a wrong name, a route of another mode, and a stream."""
    port = free_port()
    command, environment = vllm(port)
    url = f"http://127.0.0.1:{port}"
    words = [sys.executable, "-c", OURS, json.dumps(command), json.dumps(environment), url, str(tmp_path / "log")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as ours:
        assert any(line == "ready\n" for line in ours.stdout)
        family = psutil.Process(ours.pid).children(recursive=True)
        try:
            assert any("EngineCore" in " ".join(process.cmdline()) for process in family)
            ask_wrongly(url)
            shared = shared_memory(family)
            assert shared
        finally:
            ours.send_signal(signal.SIGKILL)
        ours.stdout.read()
    wait_until(lambda: not any(process.is_running() for process in family), 40)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not [path for path in shared if path.exists()], "shared memory was given back"


def ask_wrongly(url):
    with Client(url) as client:
        assert (client.models(), client.max_model_len("tiny-qwen3")) == (["tiny-qwen3"], 512)
        good = {"model": "tiny-qwen3", "prompt": "A", "max_tokens": 3, "ignore_eos": True}
        refused(lambda: client.post("/v1/completions", {**good, "model": "tiny"}), "status", "it serves: tiny-qwen3")
        refused(lambda: client.post("/v1/embeddings", {"model": "tiny-qwen3", "input": "A"}), "status", "mode pooling")
        refused(lambda: client.post("/v1/completions", {**good, "prompt": [1] * 600}), "status", "512")
        refused(lambda: client.stream("/v1/completions", good), "malformed-stream", '"stream": true')
        events = client.stream("/v1/completions", {**good, "stream": True})
        assert len(events) == 3
        found = client.together([("/v1/completions", good), ("/v1/completions", {**good, "max_tokens": -1})] * 4, 8)
        assert ["choices" in one if isinstance(one, dict) else one.status for one in found] == [True, 400] * 4


def test_a_broken_engine_is_noticed(tmp_path):
    port = free_port()
    command, environment = vllm(port)
    process = ServerProcess(command, environment, f"http://127.0.0.1:{port}", "/health", tmp_path / "log", name="vLLM")
    process.start(lambda _: None)
    try:
        [engine] = [p for p in psutil.Process().children(recursive=True) if "EngineCore" in " ".join(p.cmdline())]
        engine.kill()
        with Client(process.url, timeout=30) as client:
            refused(lambda: client.post("/v1/completions", {"model": "tiny-qwen3", "prompt": "A"}), "status", "500")
        wait_until(lambda: not alive(process), 30)
        with pytest.raises(EngineError, match="ended by itself"):
            process.check_alive()
    finally:
        process.close()
    assert not psutil.Process().children(recursive=True)


def alive(process):
    try:
        process.check_alive()
    except EngineError:
        return False
    return True
