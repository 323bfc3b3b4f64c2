"""``npuconf report``: the HTML page of a stored run, compared with earlier ones."""

from __future__ import annotations

import argparse
from typing import Any

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.option_values import parse_path


def add_parser(commands: Any) -> None:
    """``report`` among the subcommands of npuconf."""
    parser = commands.add_parser(
        "report",
        help="write the HTML report of a run from results.json, alone or against earlier runs",
        description="Writes one HTML file that opens offline: verdict, failures, every check with its margin, pictures, claims.",
    )
    parser.add_argument("results", metavar="RESULTS.json", type=parse_path, help="what --npuconf-results wrote")
    parser.add_argument("--out", metavar="FILE.html", type=parse_path, help="default: RESULTS.html beside it")
    parser.add_argument(
        "--earlier", metavar="RESULTS.json", type=parse_path, nargs="+", action="extend", default=[],
        help="earlier runs of the same models: what changed since the latest of them; with two or more, the trend",
    )  # fmt: skip
    parser.add_argument(
        "--faults", metavar="FAULTS.json", type=parse_path, nargs="+", action="extend", default=[],
        help="what npuconf faults --json wrote: fault against check",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Write the page."""
    # numpy and the page's libraries are needed here, and ``npuconf audit`` must start without them
    from pytest_npuconf.report.page.compose import compose, write_page
    from pytest_npuconf.report.page.matrix import read_matrix
    from pytest_npuconf.report.reading import read_results

    out = parsed.out or parsed.results.with_suffix(".html")
    read = [parsed.results, *parsed.earlier, *parsed.faults]
    if out.resolve() in [path.resolve() for path in read]:
        raise SettingsError(f"{out} would be written over: it is one of the results", mend="--out with another name")
    results = read_results(parsed.results)
    earlier = []
    for path in parsed.earlier:
        other = read_results(path)
        if other == results:
            print(f"{path} is the run itself: left out")
        elif other["created"] > results["created"]:
            raise SettingsError(
                f"{path} is later than {parsed.results}", mend="--earlier takes older runs: exchange them"
            )
        else:
            earlier.append((str(path), other))
    matrices = [read_matrix(path) for path in parsed.faults]
    text = compose((str(parsed.results), results), earlier, matrices)
    write_page(out, text, "--out")
    print(f"{out}: {len(text.encode()):,} bytes; open it in a browser")
    return 0
