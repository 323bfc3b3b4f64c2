"""Commands that end, fail, hang, and leave children."""

from __future__ import annotations

import os
import sys
import time

from pytest_npuconf.fingerprint.child import import_apart
from pytest_npuconf.fingerprint.process import LIMIT_SECONDS, Output, run_limited


def python(code: str, limit: float = 20.0) -> Output:
    return run_limited([sys.executable, "-c", code], os.environ, limit)


def test_output_and_status():
    assert python("import sys; print('a'); print('b', file=sys.stderr)") == Output(0, "a\n", "b\n")
    failed = python("import sys; print('why', file=sys.stderr); sys.exit(3)")
    assert (failed.ok, failed.why()) == (False, "exit status 3: why")


def test_a_crash_is_told_by_its_signal():
    assert python("import os; os.kill(os.getpid(), 11)").why() == "killed by signal 11"


def test_a_missing_command():
    found = run_limited(["/nowhere/npu-smi", "info"], {})
    assert found.status is None
    assert "cannot be started" in found.why()


def test_a_hanging_command_and_its_children_are_killed(tmp_path):
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(600)"
    )
    start = time.monotonic()
    found = python(code, limit=3.0)
    assert found.why() == "did not end in 3 s and was killed"
    assert time.monotonic() - start < 10
    for pid in map(int, pids.read_text().split()):
        deadline = time.monotonic() + 5
        while _runs(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    """A process that is there and is no zombie that waits for its new parent."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_limit_is_the_documented_one():
    assert LIMIT_SECONDS == 10


def longer(command, environ):
    """A busy machine imports torch slowly: what is read is the question here, not how fast."""
    return run_limited(command, environ, 120.0)


def test_torch_is_read_in_a_child():
    import torch

    found = import_apart("cpu", longer, os.environ)
    assert not found.trouble
    values = {reading.name: reading.value for readings in found.groups.values() for reading in readings}
    assert values["deterministic_algorithms"] == "off"
    assert values["instruction_set"] == torch.backends.cpu.get_cpu_capability()


def package(folder, name: str, code: str) -> dict[str, str]:
    """An environment in which ``name`` is a package of this code, before any other of that name."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_a_missing_torch_npu_is_told():
    found = import_apart("npu", longer, os.environ)
    assert found.trouble == "ModuleNotFoundError: No module named 'torch_npu'"
    assert not found.absent


def test_an_import_that_hangs_is_told(tmp_path):
    environ = package(tmp_path, "torch", "import time\ntime.sleep(600)\n")
    tries = []

    def shorter(command, environ):
        tries.append(command)
        return run_limited(command, environ, 4.0)

    found = import_apart("cpu", shorter, environ)
    assert found.trouble == "did not end in 4 s and was killed"
    assert len(tries) == 2


def test_an_import_that_is_slow_once_is_read():
    answers = [run_limited([sys.executable, "-c", "import time; time.sleep(9)"], os.environ, 0.2)]
    found = import_apart("cpu", lambda c, e: answers.pop() if answers else longer(c, e), os.environ)
    assert not found.trouble


def test_an_import_that_crashes_is_told(tmp_path):
    environ = package(tmp_path, "torch", "import os\nos.abort()\n")
    assert import_apart("cpu", longer, environ).trouble == "killed by signal 6"


def test_a_torch_that_is_absent_is_told(tmp_path):
    environ = package(tmp_path, "torch", "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    found = import_apart("cpu", longer, environ)
    assert found.absent


def test_lines_that_torch_npu_prints_are_passed_over(tmp_path):
    environ = package(tmp_path, "torch_npu", "print('a line of its own')\n")
    found = import_apart("npu", longer, environ)
    values = {reading.name: reading for readings in found.groups.values() for reading in readings}
    assert values["npu.matmul.allow_hf32"].value == "unknown"  # this torch has no npu, and says so
    assert "AttributeError" in values["npu.matmul.allow_hf32"].source


def test_torch_that_loads_a_broken_torch_npu_by_itself(tmp_path):
    """The failure of a host without CANN, through torch's own automatic loading of device packages."""
    environ = package(tmp_path, "broken_npu", "raise ImportError('libhccl.so: cannot open shared object file')\n")
    metadata = tmp_path / "broken_npu-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-npu\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[torch.backends]\nbroken_npu = broken_npu:load\n")
    found = import_apart("cpu", longer, environ)
    assert "libhccl.so" in found.trouble or "broken_npu" in found.trouble
    without = import_apart("cpu", longer, {**environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"})
    assert not without.trouble
