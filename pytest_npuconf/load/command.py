"""``npuconf load``: the arguments, what is printed, the exit status."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import shlex
import sys
from itertools import pairwise
from typing import Any

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.files import write_atomically
from pytest_npuconf.load.exports import as_bencher, as_openmetrics
from pytest_npuconf.load.shape import ROUTES, Shape
from pytest_npuconf.metrics.objectives import Slo
from pytest_npuconf.option_values import parse_path

VALID, FAILED, INCONCLUSIVE = 0, 1, 3
_EPILOG = """\
exit status:
  0  valid; with --against: B is not worse
  1  a request failed, or an error; with --against: B is worse
  2  a wrong command line
  3  inconclusive: the client, and not the server, may be what was measured
"""


def add_parser(commands: Any) -> None:
    """``load`` among the subcommands of npuconf."""
    parser = commands.add_parser(
        "load",
        help="put load on an OpenAI-compatible server and measure latency and throughput, and the client itself",
        description="Sends requests, stamps what comes back before it is parsed, and says whether the client can be believed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--endpoint", metavar="URL", required=True, help="of the server: http://host:port")
    parser.add_argument("--model", metavar="NAME", required=True, help="the name that it serves")
    parser.add_argument(
        "--concurrency", metavar="C", type=int, default=1, help="requests under way at once, at most; default 1"
    )
    parser.add_argument("--requests", metavar="N", type=int, required=True, help="measured requests")
    parser.add_argument("--input-len", metavar="I", type=int, default=128, help="tokens of a prompt; default 128")
    parser.add_argument(
        "--output-len", metavar="O", type=int, default=128, help="tokens of an answer (ignore_eos); default 128"
    )
    parser.add_argument(
        "--rate",
        metavar="R",
        type=float,
        help="open loop: requests a second of a Poisson process; default: closed loop",
    )
    parser.add_argument("--route", choices=sorted(ROUTES), default="completions", help="default: completions")
    parser.add_argument(
        "--warmup", metavar="N", type=int, default=1, help="requests before the measured ones; default 1"
    )
    parser.add_argument(
        "--seed", metavar="S", type=int, default=0, help="of prompts and of the times of an open loop; default 0"
    )
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=600.0, help="for one answer; default 600")
    parser.add_argument(
        "--no-self-check", action="store_true", help="do not measure this client against known latencies first"
    )
    parser.add_argument(
        "--sweep",
        metavar="C,C,...",
        help="one run at each of these concurrencies, growing: throughput, knee and goodput",
    )
    for name, what in (("ttft", "time to the first token"), ("tpot", "time per output token")):
        parser.add_argument(
            f"--slo-{name}-ms", metavar="MS", type=float, help=f"with --sweep: objective of a request's {what}"
        )
    parser.add_argument(
        "--against",
        metavar="URL",
        help="compare: a second server, under the same load in turn (A B B A); --endpoint is A",
    )
    parser.add_argument(
        "--against-model", metavar="NAME", help="the name that the second server serves; default: --model"
    )
    parser.add_argument(
        "--blocks", metavar="N", type=int, default=8, help="of four rounds of --requests each; default 8"
    )
    parser.add_argument(
        "--margin",
        metavar="SHARE",
        type=float,
        default=0.1,
        help="the slowdown that matters; default 0.1, ten per cent",
    )
    parser.add_argument("--json", metavar="FILE", type=parse_path, help="write everything here too")
    parser.add_argument(
        "--openmetrics", metavar="FILE", type=parse_path, help="write the aggregates as OpenMetrics text"
    )
    parser.add_argument(
        "--bencher", metavar="FILE", type=parse_path, help="write the aggregates in Bencher's metric format"
    )
    parser.add_argument(
        "--pictures",
        metavar="DIR",
        type=parse_path,
        help="draw them as SVG into this folder (pip install 'pytest-npuconf[pictures]')",
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """The exit status."""
    from pytest_npuconf.load.run import check, load
    from pytest_npuconf.load.self_check import self_check

    _check_words(parsed)
    shape = Shape(**{field.name: getattr(parsed, field.name) for field in dataclasses.fields(Shape)})
    check(shape)
    bias = None
    if not parsed.no_self_check:
        _say("measuring this client against known latencies ...")
        bias = self_check(_largest(parsed, shape))
    doubts = () if bias is None else tuple(bias.doubts)
    if parsed.against:
        return _compare(parsed, shape, doubts)
    if parsed.sweep:
        return _sweep(parsed, shape, doubts)
    found = load(parsed.endpoint, parsed.model, shape, timeout=parsed.timeout, announce=_say)
    if bias is not None:
        found = dataclasses.replace(found, doubts=(*found.doubts, *bias.doubts))
    told = {**found.to_json(), **_said(parsed), "self_check": None if bias is None else bias.to_json()}
    print(text(told))
    _write(parsed, told)
    for file, export in ((parsed.openmetrics, as_openmetrics), (parsed.bencher, as_bencher)):
        if file:
            write_atomically(file, export(told).encode())
    if found.spreads:
        _draw(parsed, told, ("latency_distributions", "timeline"))
    return {"valid": VALID, "failed": FAILED, "inconclusive": INCONCLUSIVE}[found.verdict]


def _largest(parsed: argparse.Namespace, shape: Shape) -> Shape:
    """Where the client has most to do."""
    if not parsed.sweep:
        return shape
    places = max(_concurrencies(parsed.sweep))
    return dataclasses.replace(shape, concurrency=places, requests=max(shape.requests, places))


def _compare(parsed: argparse.Namespace, shape: Shape, doubts: tuple[str, ...]) -> int:
    """``--against``: 0 not worse, 1 worse, 3 inconclusive, or measured by a client in doubt."""
    from pytest_npuconf.load import compare
    from pytest_npuconf.metrics.interleaved import Standing

    found = compare.compare(
        parsed.endpoint, parsed.against, (parsed.model, parsed.against_model or parsed.model), shape, blocks=parsed.blocks,
        margin=parsed.margin, timeout=parsed.timeout, announce=_say,
    )  # fmt: skip
    found = dataclasses.replace(found, doubts=(*doubts, *found.doubts))
    print(compare.text(found))
    _write(parsed, {**found.to_json(), **_said(parsed), "against": parsed.against, "shape": dataclasses.asdict(shape)})
    if found.doubts:
        return INCONCLUSIVE
    return {Standing.NOT_WORSE: VALID, Standing.WORSE: FAILED}.get(found.standing, INCONCLUSIVE)


def _sweep(parsed: argparse.Namespace, shape: Shape, doubts: tuple[str, ...]) -> int:
    """``--sweep``: 0, 1 where a request failed, 3 where a client is in doubt."""
    from pytest_npuconf.load.sweep import sweep
    from pytest_npuconf.load.sweep_text import text as spoken

    found = sweep(
        parsed.endpoint, parsed.model, shape, _concurrencies(parsed.sweep), objectives=_objectives(parsed), timeout=parsed.timeout,
        announce=_say,
    )  # fmt: skip
    told = {**found.to_json(), **_said(parsed), "doubts": list(doubts)}
    print(spoken(told))
    _write(parsed, told)
    _draw(parsed, told, ("against_concurrency",))
    if found.failed:
        return FAILED
    return INCONCLUSIVE if doubts or any(point.doubts for point in found.points) else VALID


def _concurrencies(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) if part.strip().isdecimal() else 0 for part in text.split(","))
    if len(numbers) < 2 or any(b <= a for a, b in pairwise((0, *numbers))):
        raise SettingsError(
            f"--sweep {text}: must be two or more growing numbers, the first at least 1", mend="--sweep 1,2,4,8"
        )
    return numbers


def _objectives(parsed: argparse.Namespace) -> Slo | None:
    stated = {name: getattr(parsed, f"slo_{name}_ms") for name in ("ttft", "tpot")}
    for name, value in stated.items():
        if value is not None and not 0 < value < float("inf"):
            raise SettingsError(f"--slo-{name}-ms {value:g}: must be above 0", mend=f"--slo-{name}-ms 500")
    if not any(stated.values()):
        return None
    return Slo(**{name: None if value is None else value / 1e3 for name, value in stated.items()})


def _check_words(parsed: argparse.Namespace) -> None:
    """Refuse options that say nothing together."""
    if parsed.against and parsed.pictures:
        raise SettingsError("--against has no picture", mend="--json FILE")
    for flag in ("against", "sweep"):
        if getattr(parsed, flag) and (parsed.openmetrics or parsed.bencher):
            raise SettingsError(
                f"--{flag} is several runs, which --openmetrics and --bencher have no form for", mend="--json FILE"
            )
    if parsed.against and parsed.sweep:
        raise SettingsError("--against with --sweep: two different questions", mend="one command for each")
    if parsed.sweep and parsed.rate is not None:
        raise SettingsError("--sweep with --rate: an open loop has no concurrency to sweep", mend="drop --rate")
    if not parsed.sweep and (parsed.slo_ttft_ms is not None or parsed.slo_tpot_ms is not None):
        raise SettingsError("--slo-ttft-ms and --slo-tpot-ms are of --sweep", mend="--sweep 1,2,4,8")


def _said(parsed: argparse.Namespace) -> dict[str, Any]:
    return {
        "endpoint": parsed.endpoint, "model": parsed.model, "command": shlex.join(sys.argv),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "client_host": {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()},
    }  # fmt: skip


def _draw(parsed: argparse.Namespace, told: dict[str, Any], names: tuple[str, ...]) -> None:
    if parsed.pictures is None:
        return
    from pytest_npuconf.report.pictures import load as pictures

    parsed.pictures.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = parsed.pictures / f"{name.replace('_', '-')}.svg"
        write_atomically(path, getattr(pictures, name)(told, told["endpoint"]))
        print(f"picture: {path}")


def _write(parsed: argparse.Namespace, told: dict[str, Any]) -> None:
    if parsed.json:
        write_atomically(parsed.json, json.dumps(told, indent=1, sort_keys=True).encode())
        print(f"JSON: {parsed.json}")


def text(told: dict[str, Any]) -> str:
    """What is printed: figures with their intervals, failures, doubts, the verdict."""
    shape, aggregates = told["shape"], told["aggregates"]
    loop = (
        f"open loop, {shape['rate']:g} requests a second"
        if shape["rate"]
        else f"closed loop, {shape['concurrency']} at once"
    )
    lines = [f"{told['model']} at {told['endpoint']}: {shape['requests']} requests, {loop}, {shape['input_len']} tokens in, "
             f"{shape['output_len']} out"]  # fmt: skip
    if "output_tokens_per_second" in aggregates:
        lines.append(f"  output throughput   {aggregates['output_tokens_per_second']:.2f} tokens/s"
                     f"   {aggregates['requests_per_second']:.3f} requests/s"
                     f"   amortised {aggregates['amortised_ms_per_token']:.3f} ms/token (not TPOT)")  # fmt: skip
    lines += [_row(name, aggregates[name]) for name in _NAMES if name in aggregates]
    lines += [f"  {count} failed: {kind}" for kind, count in told["failures"].items()]
    lines += [f"    first: {first}" for first in _first_troubles(told["requests"])]
    if told["server"]:
        means, outside = told["server"]["means"], told["server"]["outside"]
        lines.append("  the server's own metrics: " + ", ".join(
            f"{name} {value:.2f} ms" + (f" (outside of it {outside[name]:+.2f})" if name in outside else "")
            for name, value in means.items()))  # fmt: skip
    if told["self_check"]:
        bias = told["self_check"]
        lines.append(f"  this client, at this shape: TTFT {bias['ttft']:+.2f} ms, p99 of gaps {bias['itl_p99']:+.2f} ms, "
                     f"{bias['rate']:.1%} of a known rate")  # fmt: skip
    lines += [f"  doubt: {doubt}" for doubt in told["doubts"]]
    return "\n".join([*lines, told["verdict"].upper()])


_NAMES = {
    "ttft": "TTFT", "ttft_intended": "TTFT, from intended", "tpot": "TPOT", "itl": "gaps between chunks", "latency": "latency",
    "latency_intended": "latency, from intended",
}  # fmt: skip


def _row(name: str, found: dict[str, Any]) -> str:
    def interval(ends: list[float] | None) -> str:
        return f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""

    parts = [f"mean {found['mean']:.2f}{interval(found['mean_interval'])}"]
    parts += [
        f"{q} {found[q]['value']:.2f}{interval(found[q]['interval'])}" for q in ("p50", "p90", "p99") if q in found
    ]
    parts += [f"{q}: needs {why}" for q, why in found["missing"].items() if q == "p99"]
    return f"  {_NAMES[name]:<23} {'   '.join(parts)}   ms"


def _first_troubles(requests: list[dict[str, Any]]) -> list[str]:
    seen: dict[str, str] = {}
    for request in requests:
        if request["status"] != "ok":
            seen.setdefault(request["status"], f"request {request['number']}: {request['trouble']}")
    return list(seen.values())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
