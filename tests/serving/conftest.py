"""Runs of pytest itself against real vLLM; started servers are shared by the tests of a file."""

import os
import subprocess
import sys

import pytest


def run(*arguments, folder, timeout=900):
    """pytest in an empty folder; its output goes to the terminal of a failing test."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "NPUCONF_"))}
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, arguments)]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)
    print(done.stdout[-6000:], done.stderr[-2000:])
    return done


@pytest.fixture
def run_pytest(tmp_path):
    """``run_pytest(*arguments)`` in an empty folder."""
    return lambda *arguments, **more: run(*arguments, folder=tmp_path, **more)
