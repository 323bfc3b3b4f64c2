"""throughput: throughput, latency, time per token and concurrency of one run.

Little's law: requests in flight = arrival rate x mean time in the system (J. D. C. Little, "A Proof for the Queuing Formula
L = lambda W", Operations Research 9 (1961)). Tokens put out per second, times the mean latency, is at most the requests in
flight times the tokens of a request.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, plain
from pytest_npuconf.audit.rules._performance import Run, has_input, is_one_stream, runs
from pytest_npuconf.audit.rules._prose_speed import items_per_second, told_runs, total_time

SAME = 0.03  # relative: figures computed from each other differ by rounding only
ROOM = 0.10  # relative: warm-up, start and end of a run, means of different samples
MIXED = 4  # times the streams: so much may a mean over requests of unlike lengths exceed the mean over tokens


def _is_one(value: Interval) -> bool:
    return value.overlaps(Interval(1 - SAME, 1 + SAME))


def _time_per_token(context: Context, run: Run) -> Iterator[Finding]:
    throughput, tpot, streams = run.speeds.get("throughput"), run.speeds.get("tpot"), run.streams
    if throughput is None or tpot is None:
        return
    implied = throughput.value * tpot.value
    ttft = run.speeds.get("ttft")
    rate = throughput.value.middle
    if rate <= 0 or is_one_stream(throughput):
        return
    how = f"1000 / {plain(rate)} = {plain(1000 / rate, 4)} ms; {throughput.text} x {tpot.text} = {plain(implied.middle, 4)} streams"
    if streams is None:
        if _is_one(implied):
            yield context.finding(
                "throughput", Level.FINE, tpot.line, f"{tpot.text} and {throughput.text} agree for one stream", how
            )
        return
    count, output = streams, run.output
    most = count * (output / (output - 1) if output else 2.0)
    if count >= 2 and _is_one(implied) and not run.limited:
        message = (
            f"{tpot.text} is 1000 / throughput: single-stream arithmetic, while "
            f"{plain(count)} requests are said to run at once"
        )
        how += f"; with {plain(count)} at once {plain(1000 * count / rate, 4)} ms a token"
        yield context.finding("throughput", Level.CONTRADICTION, tpot.line, message, how)
    elif implied.lo > most * (1 + ROOM) and not has_input(throughput):
        message = (
            f"{throughput.text} at {tpot.text} a token needs {plain(implied.middle, 4)} streams, not {plain(count)}"
        )
        level = Level.CONTRADICTION
        if output is None and implied.lo < MIXED * count:
            level = Level.AMBIGUOUS  # a mean over requests of many lengths: short ones wait longest for a token
        yield context.finding("throughput", level, throughput.line, message, how)
    elif (
        count == 1
        and implied.hi < 0.5
        and run.output is not None
        and run.output >= 64
        and not (ttft and ttft.value.hi * rate > 0.2 * run.output)
    ):
        message = f"{tpot.text} a token is {plain(1 / tpot.value.middle, 4)} tokens a second of one request, not {throughput.text}"
        yield context.finding("throughput", Level.CONTRADICTION, tpot.line, message, how)
    elif implied.hi < count * 0.2 and not run.limited:
        message = f"{throughput.text} at {tpot.text} a token keeps only {plain(implied.middle, 3)} of {plain(count)} streams busy"
        yield context.finding("throughput", Level.AMBIGUOUS, throughput.line, message, how)
    else:
        yield context.finding(
            "throughput",
            Level.FINE,
            tpot.line,
            f"{tpot.text} and {throughput.text} are possible at {plain(count)} at once",
            how,
        )


def _latency(context: Context, run: Run) -> Iterator[Finding]:
    throughput, latency, output, streams = (
        run.speeds.get("throughput"),
        run.speeds.get("latency"),
        run.output,
        run.streams,
    )
    if throughput is None or latency is None or output is None or latency.name.rest or is_one_stream(throughput):
        return
    tokens = throughput.value * latency.value
    implied = tokens / output
    given = run.shapes.get("input_length")
    most = output + (given.number.value if given else 0.0) if given or not has_input(throughput) else None
    how = f"{throughput.text} x {latency.text} / {plain(output)} tokens = {plain(implied.middle, 4)} requests in flight"
    if streams is None:
        if _is_one(implied):
            yield context.finding(
                "throughput",
                Level.FINE,
                latency.line,
                f"{latency.text} and {throughput.text} agree for one stream",
                how,
            )
        return
    if streams >= 2 and _is_one(implied) and not run.limited:
        message = (
            f"{latency.text} is {plain(output)} tokens / throughput: single-stream "
            f"arithmetic, while {plain(streams)} requests are said to run at "
            f"once"
        )
        how += f"; with {plain(streams)} at once {plain(streams * output / throughput.value.middle, 4)} s a request"
        yield context.finding("throughput", Level.CONTRADICTION, latency.line, message, how)
    elif most is not None and tokens.lo > streams * most * (1 + ROOM):
        message = f"{throughput.text} at {latency.text} needs {plain(implied.middle, 4)} requests in flight, not {plain(streams)}"
        yield context.finding("throughput", Level.CONTRADICTION, latency.line, message, how)
    elif implied.hi < streams * 0.5 and streams >= 2 and not run.limited:
        level = Level.IMPLAUSIBLE if run.output_fixed and latency.name.quantity != "batch" else Level.AMBIGUOUS
        message = f"{throughput.text} at {latency.text} is {plain(implied.middle, 3)} requests in flight, not {plain(streams)}"
        yield context.finding("throughput", level, latency.line, message, how)
    else:
        yield context.finding(
            "throughput",
            Level.FINE,
            latency.line,
            f"{latency.text} and {throughput.text} agree with {plain(streams)} at once",
            how,
        )


def _parts(context: Context, run: Run) -> Iterator[Finding]:
    """Latency against its parts: first token, then a time per token."""
    latency, ttft, tpot, output = (
        run.speeds.get("latency"),
        run.speeds.get("ttft"),
        run.speeds.get("tpot"),
        run.output,
    )
    if latency is None or latency.name.rest:
        return
    if ttft is not None and ttft.value.lo > latency.value.hi:
        message = f"the first token comes after {ttft.text}, the whole answer after {latency.text}"
        yield context.finding("throughput", Level.CONTRADICTION, ttft.line, message, "time to first token <= latency")
    elif tpot is not None and output is not None and run.output_fixed:
        first = ttft.value if ttft is not None else Interval(0.0, 0.0)
        least = first + tpot.value * (output - 1)
        how = f"{ttft.text + ' + ' if ttft else ''}{plain(output - 1)} x {tpot.text} = {plain(least.middle, 4)} s"
        if least.lo > latency.value.hi * (1 + ROOM):
            message = f"{latency.text} is less than its tokens take"
            yield context.finding("throughput", Level.CONTRADICTION, latency.line, message, how)
        elif ttft is not None and latency.value.lo > least.hi * (1 + 2 * ROOM):
            message = f"{latency.text} is more than first token and {plain(output)} tokens take"
            yield context.finding("throughput", Level.CONTRADICTION, latency.line, message, how)
        elif ttft is not None:
            yield context.finding(
                "throughput", Level.FINE, latency.line, f"{latency.text} holds first token and the rest", how
            )


def _requests(context: Context, run: Run) -> Iterator[Finding]:
    """Requests per second against tokens per second and latency."""
    requests, throughput, latency = (run.speeds.get(k) for k in ("request_throughput", "throughput", "latency"))
    if requests is None:
        return
    if (
        throughput is not None
        and run.output is not None
        and not has_input(throughput)
        and not is_one_stream(throughput)
    ):
        given = run.shapes.get("input_length")
        most = requests.value * (run.output + (given.number.value if given else 0.0))
        if throughput.value.lo > most.hi * (1 + ROOM):
            how = f"{requests.text} x {plain(run.output)} tokens = {plain(requests.value.middle * run.output)} tokens a second"
            message = f"{throughput.text} is more than {requests.text} can put out"
            yield context.finding("throughput", Level.CONTRADICTION, throughput.line, message, how)
    if latency is not None and run.streams is not None and not latency.name.rest:
        flight = requests.value * latency.value
        if flight.lo > run.streams * (1 + ROOM):
            how = f"{requests.text} x {latency.text} = {plain(flight.middle, 4)} requests in flight"
            message = f"{requests.text} at {latency.text} needs more than the {plain(run.streams)} requests stated"
            yield context.finding("throughput", Level.CONTRADICTION, latency.line, message, how)


def _odd_rows(context: Context, found: list[Run]) -> Iterator[Finding]:
    """One stream in most rows of a table, and a row in which time per token and speed do not belong together."""
    tables: dict[str, list[tuple[Run, Interval]]] = {}
    for run in found:
        throughput, tpot = run.speeds.get("throughput"), run.speeds.get("tpot")
        if throughput is not None and tpot is not None and run.streams is None and not is_one_stream(throughput):
            tables.setdefault(run.section, []).append((run, throughput.value * tpot.value))
    for rows in tables.values():
        fits = sum(_is_one(value) for _, value in rows)
        if len(rows) >= 3 and fits * 3 >= len(rows) * 2:
            for run, value in rows:
                if not value.overlaps(Interval(1 - ROOM, 1 + ROOM)):
                    throughput, tpot = run.speeds["throughput"], run.speeds["tpot"]
                    message = f"{tpot.text} and {throughput.text} do not belong together, as they do in the other rows"
                    how = f"1000 / {plain(throughput.value.middle)} = {plain(1000 / throughput.value.middle, 4)} ms"
                    yield context.finding("throughput", Level.CONTRADICTION, tpot.line, message, how)


def check(context: Context) -> Iterator[Finding]:
    """Every run."""
    found = list(runs(context))
    yield from _odd_rows(context, found)
    yield from total_time(context)
    yield from items_per_second(context)
    for run in (*found, *told_runs(context)):
        yield from _time_per_token(context, run)
        yield from _latency(context, run)
        yield from _parts(context, run)
        yield from _requests(context, run)


RULES: tuple[Rule, ...] = (Rule("throughput", "Throughput, latency, time per token and concurrency agree", check),)
