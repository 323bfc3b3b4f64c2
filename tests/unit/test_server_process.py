"""Small Python programs as servers: each ends, hangs or hides in its own way, and nothing of it may be left."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from pytest_npuconf.engines.server_process import MARKER, ServerProcess, free_port
from pytest_npuconf.errors import EngineError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="servers are started on Linux only")

BASE = """
import http.server, os, signal, subprocess, sys, time
folder, port = sys.argv[1], int(sys.argv[2])

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            print("ValueError: told to die", flush=True)
            os._exit(3)
        self.send_response({"/health": 200}.get(self.path, 503))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

def serve():
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()

def child(code, **more):
    subprocess.Popen([sys.executable, "-c", code, folder], **more)

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
TWICE = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', %r, sys.argv[1]], start_new_session=True)" % DEAF
"""
SERVE = "print('loading', flush=True); serve()"
# in a session of its own, deaf to SIGTERM, without our environment, and an orphan: its parent has ended
HIDDEN = "child(TWICE, start_new_session=True, env={}); time.sleep(0.5); "
# how a run of ours starts one: argv = folder, port, program
RUN = """
import os, signal, sys, time
from pathlib import Path
from pytest_npuconf.engines.server_process import ServerProcess
folder, port, program = sys.argv[1:4]
for number in (signal.SIGINT, signal.SIGHUP):  # nohup, and a shell's background, leave them ignored
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
process = ServerProcess([sys.executable, program, folder, port], {}, f"http://127.0.0.1:{port}", "/health",
                        Path(folder) / "log", name="small", grace=0.5)
process.start(lambda line: print(line, flush=True))
print("ready", flush=True)
"""


def members(folder):
    """Living processes that name the test's folder in their command, ours left out."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        info = process.info
        if (
            info["status"] != psutil.STATUS_ZOMBIE
            and info["pid"] != os.getpid()
            and str(folder) in (info["cmdline"] or ())
        ):
            found.append(process)
    return found


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, seconds=15.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path):
    """The folder by which the processes of a test are found; checked when it ends, whatever the test did."""
    yield tmp_path
    left = members(tmp_path)
    for process in left:
        process.kill()
    assert not left


@pytest.fixture
def port():
    number = free_port()
    yield number
    assert not listens(number)


def program(folder, body):
    path = folder / "program.py"
    path.write_text(f"{BASE}\n{textwrap.dedent(body)}\n")
    return path


@pytest.fixture
def small(folder, port):
    """``small(body)``: a server whose program is ``body`` after BASE."""
    made = []

    def make(body, *, grace=0.5, command=None, route="/health"):
        words = command or [sys.executable, str(program(folder, body)), str(folder), str(port)]
        url = f"http://127.0.0.1:{port}"
        made.append(
            ServerProcess(words, {"FROM": "card"}, url, route, folder / "logs" / "log", name="small", grace=grace)
        )
        return made[-1]

    yield make
    for process in made:
        process.close()


class TestLife:
    def test_ready_and_ended(self, small, folder, port):
        lines = []
        process = small("import os; print(os.environ['FROM'], flush=True); time.sleep(1); " + SERVE)
        seconds = process.start(lines.append)
        assert 1 <= seconds < 20
        assert lines == [f"small: starting; its log: {folder}/logs/log"]
        process.check_alive()
        assert listens(port)
        first, *rest = process.log_text().splitlines()
        assert first == f"$ {sys.executable} {folder}/program.py {folder} {port}"
        assert rest == ["card", "loading"]
        process.close()
        assert (members(folder), listens(port)) == ([], False)
        process.close()
        assert process.log_text().endswith("loading\n"), "the log is kept"

    def test_it_can_be_started_again_but_not_twice(self, small):
        process = small(SERVE)
        for _ in range(2):
            process.start(lambda _: None)
            with pytest.raises(EngineError, match="started already"):
                process.start(lambda _: None)
            process.close()

    def test_progress_tells_the_last_line(self, small):
        lines = []
        small("print('layer 1 of 2\\n\\n', flush=True); time.sleep(6); " + SERVE).start(lines.append)
        assert len(lines) == 2
        assert lines[1].startswith("small: 5 s: layer 1 of 2")

    def test_bytes_that_are_no_utf8_stay_visible_in_the_log(self, small):
        process = small("os.write(1, b'caf\\xe9 '); " + SERVE)
        process.start(lambda _: None)
        assert r"caf\xe9 loading" in process.log_text()


class TestFailures:
    def failed(self, process, *words, timeout=20.0):
        with pytest.raises(EngineError) as caught:
            process.start(lambda _: None, timeout=timeout)
        for word in words:
            assert word in str(caught.value)
        assert not psutil.Process().children(recursive=True), "ended at once, not by the fixture"
        return caught.value

    def test_it_dies_at_start(self, small, folder):
        process = small("print('one'); print(); sys.exit('RuntimeError: no such thing')")
        error = self.failed(process, "ended before it was ready (exit status 1)", "cause: RuntimeError: no such thing")
        assert str(error).count("one\n    RuntimeError: no such thing") == 1
        assert f"{folder}/logs/log" in error.mend

    def test_it_ends_without_an_error(self, small):
        assert "cause" not in str(self.failed(small("pass"), "ended before it was ready (exit status 0)"))

    def test_it_is_killed_from_outside(self, small):
        self.failed(small("os.kill(os.getpid(), signal.SIGKILL)"), "killed by SIGKILL", "memory is full")

    def test_it_leaves_a_child_when_it_dies(self, small):
        self.failed(small("child(DEAF); sys.exit(2)"), "exit status 2")

    @pytest.mark.parametrize(("route", "words"), [("/health", "refused"), ("/busy", "answered 503")])
    def test_it_never_gets_ready(self, small, route, words):
        body = "time.sleep(600)" if route == "/health" else SERVE
        self.failed(small(body, route=route), "was not ready after 2 s and was ended", words, timeout=2.0)

    def test_the_command_is_not_there(self, small):
        error = self.failed(small("", command=["/no/such/program"]), "cannot be started", "/no/such/program")
        assert "install" in error.mend

    def test_the_port_is_taken(self, small, port):
        program_name = psutil.Process().cmdline()[0]
        with socket.create_server(("127.0.0.1", port)):
            error = self.failed(
                small(SERVE), f"port {port} of 127.0.0.1 is taken by process {os.getpid()} ({program_name} "
            )
            assert "another port" in error.mend

    def test_an_address_of_another_machine(self, folder):
        process = ServerProcess(["true"], {}, "http://192.0.2.1:8000", "/health", folder / "log", name="small")
        self.failed(process, "cannot listen on 192.0.2.1 port 8000")

    def test_a_url_without_a_port(self, folder):
        self.failed(
            ServerProcess(["true"], {}, "http://x", "/", folder / "log", name="small"), "names no host and port"
        )

    def test_it_dies_in_the_middle(self, small, port):
        process = small("child(DEAF); " + SERVE)
        process.start(lambda _: None)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /die HTTP/1.0\r\n\r\n")
            wait_until(lambda: process._process.poll() is not None)
        with pytest.raises(EngineError, match="ended by itself") as caught:
            process.check_alive()
        assert "exit status 3" in str(caught.value)
        assert "cause: ValueError: told to die" in str(caught.value)

    def test_one_that_never_started_is_not_alive(self, small):
        with pytest.raises(EngineError, match="does not run"):
            small(SERVE).check_alive()


class TestNothingIsLeft:
    """The fixtures look for processes and for the port after each of these."""

    def test_deaf_to_sigterm(self, small):
        process = small("signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SERVE)
        process.start(lambda _: None)
        begin = time.monotonic()
        process.close()
        assert 0.4 < time.monotonic() - begin < 10

    def test_sigterm_lets_it_end_in_order(self, small):
        process = small("signal.signal(signal.SIGTERM, lambda *_: (print('tidy', flush=True), os._exit(0))); " + SERVE)
        process.start(lambda _: None)
        process.close()
        assert process.log_text().endswith("tidy\n")

    def test_a_hidden_grandchild(self, small, folder):
        process = small(HIDDEN + SERVE)
        process.start(lambda _: None)
        hidden = [p for p in members(folder) if "-c" in p.cmdline() and "SIG_IGN" in p.cmdline()[2]]
        [hidden] = [p for p in hidden if "subprocess" not in p.cmdline()[2]]
        assert os.getsid(hidden.pid) == hidden.pid
        assert MARKER not in hidden.environ()
        process.close()
        assert not hidden.is_running()

    def test_the_guard_is_killed(self, small, folder, port):
        process = small("child(DEAF); " + SERVE)
        process.start(lambda _: None)
        os.kill(process._process.pid, signal.SIGKILL)
        wait_until(lambda: process._process.poll() is not None)
        with pytest.raises(EngineError, match="killed by SIGKILL"):
            process.check_alive()
        wait_until(lambda: not listens(port))  # the server was asked to end when its parent died
        assert members(folder), "what is deaf waits for close"
        process.close()


class TestOurOwnEnd:
    """Another process of ours starts the server, and ends in some way."""

    def run(self, folder, port, body, after):
        words = [sys.executable, "-c", RUN + after, str(folder), str(port), str(program(folder, body))]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    @pytest.mark.parametrize("when", ["loading", "ready"])
    def test_a_signal(self, folder, port, number, when):
        body = HIDDEN + (SERVE if when == "ready" else "print('loading'); time.sleep(600)")
        with self.run(folder, port, body, "time.sleep(600)") as ours:
            if when == "ready":
                assert any(line == "ready\n" for line in ours.stdout)
            else:
                wait_until(lambda: any("SIG_IGN" in "".join(p.cmdline()) for p in members(folder)))
            assert len(members(folder)) >= 3  # ours, the guard, the server; the hidden one where it is up
            ours.send_signal(number)
            ours.stdout.read()
        wait_until(lambda: not members(folder) and not listens(port))

    @pytest.mark.parametrize("after", ["", "sys.exit(1)", "raise KeyError(1)", "os._exit(0)", "os.abort()"])
    def test_an_end_without_close(self, folder, port, after):
        with self.run(folder, port, HIDDEN + SERVE, after) as ours:
            assert "ready" in ours.stdout.read()
        wait_until(lambda: not members(folder) and not listens(port))

    def test_the_end_of_a_fork_of_ours_ends_nothing(self, folder, port):
        after = """
pid = os.fork()
if pid == 0:
    sys.exit(0)  # runs what atexit knows
os.waitpid(pid, 0)
process.check_alive()
print("alive", flush=True)
"""
        with self.run(folder, port, SERVE, after) as ours:
            assert ours.stdout.read().endswith("alive\n")

    def test_a_fork_of_ours_that_lives_on_does_not_keep_the_server(self, folder, port):
        """It holds our end of the guard's pipe open; the guard sees that its parent is another."""
        after = """
if os.fork() == 0:
    time.sleep(6)
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""
        with self.run(folder, port, SERVE, after) as ours:
            assert any(line == "ready\n" for line in ours.stdout)
            begin = time.monotonic()
            wait_until(lambda: not listens(port))
            assert time.monotonic() - begin < 5
        wait_until(lambda: not members(folder))  # the fork too ends by itself


def test_free_ports_are_free():
    for host in ("127.0.0.1", "localhost"):
        number = free_port(host)
        with socket.create_server(("127.0.0.1", number)):
            pass
