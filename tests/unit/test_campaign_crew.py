"""The processes of a campaign: one that dies while it waits is the next run's crash, and no error of the campaign."""

import multiprocessing
from pathlib import Path

from pytest_npuconf.campaign.crew import Worker
from pytest_npuconf.campaign.session import Arguments
from pytest_npuconf.campaign.store import Task


def test_a_process_that_died_while_it_waited_is_a_crash_of_the_next_run(tmp_path: Path) -> None:
    one = Worker(Arguments("none", (), ()), ("float32",), tmp_path / "log")
    try:
        (child,) = multiprocessing.active_children()
        child.kill()
        child.join(timeout=30)
        one.give(Task("a-fault", "float32"))
        result = one.hear()
    finally:
        one.end()
    assert result is not None
    assert (result["kind"], result["fault"]) == ("crash", "a-fault")
    assert "SIGKILL" in result["text"]
