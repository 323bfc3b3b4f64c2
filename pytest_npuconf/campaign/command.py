"""``npuconf faults``: the arguments, the order of the runs, progress, the exit status."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_npuconf.campaign.store import Store, Task
from pytest_npuconf.errors import FaultError, NpuconfError, SettingsError, nearest
from pytest_npuconf.faults.applies import why_not
from pytest_npuconf.option_values import parse_path, parse_precisions
from pytest_npuconf.options import CACHE_VARIABLE, Settings, environment_path

if TYPE_CHECKING:
    from pytest_npuconf.campaign.crew import Crew

GOOD, BAD, WRONG, INTERRUPTED = 0, 1, 2, 130
Result = dict[str, Any]
_EPILOG = """\
Arguments behind -- go to pytest: npuconf faults --model NAME -- --npuconf-weights=DIR

exit status:
  0    nothing survived, no false alarm, every run ended in verdicts
  1    a survivor, a false alarm, or a run that ended in an error
  2    a wrong command line, or a model that cannot be run
  130  interrupted: --resume goes on
"""


def add_parser(commands: Any) -> None:
    """``faults`` among the subcommands of npuconf."""
    parser = commands.add_parser(
        "faults",
        help="run every fault and benign variant of the catalogue: which check catches what",
        description="Runs the suites once for each fault and precision and prints the matrix fault x check, survivors, false "
        "alarms, and which module was named.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", metavar="NAME|CARD", required=True, help="a card's name or path/to/card.toml")
    parser.add_argument(
        "--precision", metavar="NAMES", type=parse_precisions, default=(), help="comma list; default: the card's"
    )
    parser.add_argument(
        "--fault", metavar="NAME", action="append", default=[], help="only this one (repeatable); default: all"
    )
    parser.add_argument("--json", metavar="FILE", type=parse_path, help="write the matrix as JSON too")
    parser.add_argument(
        "--folder", metavar="DIR", type=parse_path, help="where each run's result is kept; default: in the cache"
    )
    parser.add_argument("--resume", action="store_true", help="take the results that the folder has already")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="processes side by side; each loads the model")
    parser.add_argument(
        "--leave-out", metavar="CHECK", action="append", default=[], help="a check that is not run (repeatable)"
    )
    parser.add_argument(
        "--expected-only", action="store_true",
        help="a fault meets only the checks that should catch it: faster, and says nothing of the others",
    )  # fmt: skip
    parser.add_argument("--weights", metavar="DIR", type=parse_path, help="as --npuconf-weights")
    parser.add_argument("--baselines", metavar="DIR", type=parse_path, help="as --npuconf-baselines")
    parser.add_argument("pytest", metavar="-- ARGUMENTS", nargs="*", default=[], help="for pytest")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """The exit status."""
    from pytest_npuconf.campaign import output
    from pytest_npuconf.campaign.crew import Crew
    from pytest_npuconf.campaign.matrix import good
    from pytest_npuconf.campaign.session import Arguments

    try:
        _check(parsed)
        arguments = Arguments(parsed.model, _for_pytest(parsed), tuple(parsed.leave_out), parsed.expected_only)
        with tempfile.TemporaryDirectory(prefix="npuconf-faults-") as logs, _heard():
            crew = Crew(arguments, parsed.precision, parsed.jobs, Path(logs))
            try:
                matrix = _Campaign(parsed, crew).matrix()
            finally:
                crew.close()
        print(output.text(matrix))
        if parsed.json:
            output.write(parsed.json, matrix)
            print(f"matrix: {parsed.json}")
        return GOOD if good(matrix) else BAD
    except NpuconfError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print(f"interrupted; what is done is kept, go on with:\n  {_again(parsed)}", file=sys.stderr)
        return INTERRUPTED


@dataclass
class _Campaign:
    """One campaign: asks a worker what there is, orders the runs, keeps their results."""

    parsed: argparse.Namespace
    crew: Crew
    results: dict[tuple[str, str], Result] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)

    def matrix(self) -> dict[str, Any]:
        """Run what is to be run; the matrix with its provenance.

        Raises:
            NpuconfError: nothing can be run.
        """
        from pytest_npuconf.campaign.matrix import build

        start = time.monotonic()
        told = self._told()
        chosen = _choose(told["faults"], self.parsed.fault)
        identity = {"": "", **{fault["name"]: fault["identity"] for fault in chosen}}
        store = Store(self.parsed.folder or default_folder() / told["model"], told["conditions"])
        store.open(anew=not self.parsed.resume)
        for other in store.others():
            _say(f"not used: {other}")
        _say(f"results of each run: {store.folder}")
        every = [Task(name, p) for name in identity for p in told["precisions"]]
        self.results = {(t.fault, t.precision): r for t in every if (r := store.get(t, identity[t.fault])) is not None}
        if self.results:
            _say(f"{len(self.results)} of {len(every)} runs are there already")
        self.results |= _of_another_engine(chosen, told)
        left = [task for task in every if (task.fault, task.precision) not in self.results]
        progress = _Progress(chosen, len(left), self.parsed.jobs)
        for tasks in ([t for t in left if not t.fault], [t for t in left if t.fault]):
            for result in self.crew.work(tasks):
                _require_usable(result)
                self.results[result["fault"], result["precision"]] = result
                store.put(result, identity[result["fault"]])
                progress.done(result)
        looked = self._look_for_leaks(told["precisions"])
        for result in self.results.values():
            if result.get("process") in looked and not result.get("looked_after"):
                result["looked_after"] = True
                store.put(result, identity[result["fault"]])
        matrix = build(chosen, told["precisions"], self.results)
        return {**matrix, **self._provenance(told, store), "leaks": self.leaks, "not_looked_after": self._not_looked_after(),
                "wall_seconds": round(time.monotonic() - start, 1)}  # fmt: skip

    def _told(self) -> dict[str, Any]:
        told = self.crew.tell()
        if "error" in told:
            what, _, mend = told["error"].removeprefix("ERROR: ").partition("\n  mend: ")
            raise SettingsError(what, mend=mend)
        return told

    def _look_for_leaks(self, precisions: Sequence[str]) -> set[str]:
        """A fault must stay in its model: the clean model, judged again at the end by each process, gives the same verdicts.

        Returns:
            The processes that were looked at.
        """
        looked: set[str] = set()
        for found in self.crew.again([Task("", p) for p in precisions]):
            looked.add(found.get("process", ""))
            before = self.results.get(("", found["precision"]), {})
            if (now := _verdicts(found)) != (then := _verdicts(before)):
                names = sorted(check for check in {*now, *then} if now.get(check) != then.get(check))
                self.leaks.append(
                    f"at {found['precision']} the clean model is judged otherwise after the faults: {', '.join(names) or 'error'}"
                )
        return looked

    def _not_looked_after(self) -> list[str]:
        """Runs whose process ended before the clean model was judged again by it: of a call that was interrupted, or that a
        later fault brought down."""
        return sorted(
            f"{fault} at {precision}"
            for (fault, precision), result in self.results.items()
            if fault and result["status"] == "judged" and not result.get("looked_after")
        )

    def _provenance(self, told: Mapping[str, Any], store: Store) -> dict[str, Any]:
        facts = {**told["facts"], "threads": os.environ.get("OMP_NUM_THREADS", "")}
        return {
            "model": told["model"],
            "labels": told["labels"],
            "facts": facts,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": _again(self.parsed, resume=False),
            "conditions": store.conditions,
            "key": store.key,
            "complete": not self.parsed.fault,
            "cpu_seconds": round(sum(r.get("cpu_seconds", 0.0) for r in self.results.values()), 1),
        }


class _Progress:
    """A line for each run, with the time that is left."""

    def __init__(self, faults: Sequence[Mapping[str, Any]], runs: int, jobs: int) -> None:
        self._faults = {fault["name"]: fault for fault in faults}
        self._runs, self._jobs, self._done, self._start = runs, jobs, 0, time.monotonic()

    def done(self, result: Result) -> None:
        """One more."""
        from pytest_npuconf.campaign.matrix import build
        from pytest_npuconf.campaign.output import told

        self._done += 1
        clean = {"name": "clean", "benign": True, "module": "", "precisions": [], "equivalent": ""}
        fault = self._faults.get(result["fault"], clean)
        key = (fault["name"], result["precision"])
        (entry,) = build([fault], [result["precision"]], {key: result})["faults"]
        rest = (time.monotonic() - self._start) / self._done * (self._runs - self._done)
        left = f", about {_time(rest)} left" if self._done < self._runs else ""
        _say(
            f"{self._done} of {self._runs}  {fault['name']}, {result['precision']}: {told(result, entry)} "
            f"({result['seconds']:.0f} s{left})"
        )


def default_folder() -> Path:
    """Where results are kept when no folder is named."""
    return (environment_path(os.environ, CACHE_VARIABLE) or Settings().cache) / "faults"


def _check(parsed: argparse.Namespace) -> None:
    """Refuse what would fail after minutes of work."""
    from pytest_npuconf.checks import CHECKS

    if parsed.jobs < 1:
        raise SettingsError(f"--jobs {parsed.jobs}", mend="--jobs 1 or more")
    for name in parsed.leave_out:
        if name not in CHECKS:
            raise SettingsError(f"--leave-out {name}: no such check{nearest(name, list(CHECKS))}")
    for option, path in (("--json", parsed.json), ("--folder", parsed.folder)):
        if path is None:
            continue
        folder = path if option == "--folder" else path.parent
        try:
            if option == "--json" and path.is_dir():
                raise IsADirectoryError(f"{path} is a folder")
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise SettingsError(f"{option} {path}: {error}", mend=f"{option} where you can write to") from error


def _for_pytest(parsed: argparse.Namespace) -> tuple[str, ...]:
    """The live reference: a stored one gives lower bounds."""
    words = ["--npuconf-reference=live"]
    words += [f"--npuconf-weights={parsed.weights}"] if parsed.weights else []
    words += [f"--npuconf-baselines={parsed.baselines}"] if parsed.baselines else []
    return (*words, *(word for word in parsed.pytest if word != "--"))


def _choose(faults: Sequence[dict[str, Any]], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Faults, then benign variants."""
    offered = {fault["name"]: fault for fault in faults}
    for name in wanted:
        if name not in offered:
            raise FaultError(
                f"no fault {name!r}{nearest(name, list(offered))}", mend="pytest --npuconf-fault list prints them"
            )
    chosen = [fault for name, fault in offered.items() if not wanted or name in wanted]
    return sorted(chosen, key=lambda fault: bool(fault["benign"]))


def _of_another_engine(faults: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> dict[tuple[str, str], Result]:
    """Faults of a server are not run without one, nor those of a model where none is in the process, nor those of a mode
    that is not served."""
    reasons = {
        fault["name"]: why_not(fault["target"], told["engine"]) or _no_check_of(fault, told["asked"])
        for fault in faults
    }
    nothing = {"exit": None, "status": "inapplicable", "seconds": 0.0, "cpu_seconds": 0.0}
    return {
        (name, p): {"fault": name, "precision": p, "reason": reason, **nothing}
        for name, reason in reasons.items()
        for p in told["precisions"]
        if reason
    }


def _no_check_of(fault: Mapping[str, Any], asked: Sequence[str]) -> str:
    """Why no check of this run could catch a fault of a server; empty when one could."""
    expected = [name.strip() for name in fault["expected"].split(",")]
    if fault["target"] != "server" or fault["benign"] or set(expected) & set(asked):
        return ""
    return f"is of a mode that is not served here: nothing asks {', '.join(expected)}"


def _require_usable(result: Result) -> None:
    """A clean model that is refused before it is judged will be refused every time."""
    if not result["fault"] and result["status"] == "error":
        raise SettingsError(
            f"the clean model cannot be judged at {result['precision']} ({result['kind']}):\n{result['text']}"
        )


def _verdicts(result: Mapping[str, Any]) -> dict[str, Any]:
    return {check: found["verdict"] for check, found in result.get("checks", {}).items()}


def _again(parsed: argparse.Namespace, *, resume: bool = True) -> str:
    words = ["npuconf", "faults", "--model", parsed.model]
    words += ["--precision", ",".join(parsed.precision)] if parsed.precision else []
    for option in ("fault", "leave_out"):
        words += [word for value in getattr(parsed, option) for word in (f"--{option.replace('_', '-')}", value)]
    for option in ("json", "folder", "weights", "baselines"):
        words += [f"--{option}", str(getattr(parsed, option))] if getattr(parsed, option) else []
    words += ["--jobs", str(parsed.jobs)] if parsed.jobs > 1 else []
    words += ["--expected-only"] if parsed.expected_only else []
    words += ["--resume"] if resume else []
    more = [word for word in parsed.pytest if word != "--"]
    return shlex.join([*words, "--", *more] if more else words)


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Ctrl-C interrupts, also where a shell's background job ignores it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _say(text: str) -> None:
    print(f"npuconf faults: {text}", file=sys.stderr, flush=True)
