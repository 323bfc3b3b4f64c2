"""A run that ends badly leaves no process and no port, and says what happened."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

STARTED = re.compile(r"server-\S+\.log")
COMMAND = ["--model", "tiny-qwen3", "--npuconf-engine", "server", "--npuconf-precision", "bfloat16"]


def ours(marker):
    """Living processes of a run, by a word of their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TEST_SERVING_ENDS") == marker and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class Run:
    """pytest in the background, its output in a file."""

    def __init__(self, folder, *more):
        self.marker, self.output = str(folder), folder / "output"
        # what is waited for: in a log, progress is told after five silent seconds only
        (folder / "loud.py").write_text("import pytest_npuconf.progress as p\np.QUIET_SECONDS = 0.0\n")
        environment = {n: v for n, v in os.environ.items() if not n.startswith(("PYTEST_", "NPUCONF_"))}
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "loud", *COMMAND, *more],
                cwd=folder, env={**environment, "TEST_SERVING_ENDS": self.marker}, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def text(self):
        return self.output.read_text()

    def wait_for(self, words, seconds=240):
        limit = time.monotonic() + seconds
        while words not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < limit, self.text
            time.sleep(0.2)

    def ended(self, seconds=120):
        status = self.process.wait(seconds)
        limit = time.monotonic() + 40
        while (left := ours(self.marker)) and time.monotonic() < limit:
            time.sleep(0.2)
        assert left == [], "a process is left"
        return status


@pytest.fixture
def start(tmp_path):
    """``start(*arguments)``; ended with all it started, whatever a test does."""
    runs = []

    def begin(*more):
        runs.append(Run(tmp_path, *more))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        for process in ours(run.marker):
            process.kill()


def test_ctrl_c_while_it_starts(start):
    run = start()
    run.wait_for("starting tiny-qwen3")
    time.sleep(8)
    run.process.send_signal(signal.SIGINT)
    assert run.ended() == pytest.ExitCode.INTERRUPTED
    assert "INCOMPLETE" in run.text


def test_ctrl_c_in_the_middle(start):
    run = start()
    run.wait_for("ready after")
    run.process.send_signal(signal.SIGINT)
    assert run.ended() == pytest.ExitCode.INTERRUPTED


def test_the_server_dies_in_the_middle(start):
    run = start("-k", "test_generate")
    run.wait_for("log-probabilities each")
    for process in ours(run.marker):
        if process.pid != run.process.pid:
            process.kill()
    assert run.ended() == pytest.ExitCode.TESTS_FAILED
    assert "ended by itself" in run.text
    assert "last lines of" in run.text
    assert "INCOMPLETE" in run.text or "NOT CONFORMANT" in run.text


def test_the_server_hangs(start):
    run = start("-k", "test_generate", "--npuconf-timeout", "20")
    run.wait_for("log-probabilities each")
    stopped = [p for p in ours(run.marker) if p.pid != run.process.pid]
    for process in stopped:
        process.suspend()
    assert run.ended(300) == pytest.ExitCode.TESTS_FAILED
    assert "20 s" in run.text
