"""False alarms over every benign variant x disjoint prompt draws, each judged as a run of its own.

``python -m tests.benchmarks.false_alarms --model tiny-qwen3 [--draws 5] [--precision bfloat16] [--device cuda] [--json FILE]``

``--json`` is written after each run; ``--resume`` leaves out the runs that it has. ``--draw N`` measures that one of the draws, so
that several processes can share the work, each with a file of its own: tests.benchmarks.false_alarm_page reads them together.

A draw has documents of the shipped lengths, prompts, inputs and texts, all cut from the card's texts so that no two draws share
a token's place. A draw is smaller than the card's own set, so some verdicts are inconclusive: they are counted apart. Exit 1 on
a false alarm. The bound of the rate is Clopper and Pearson's, one-sided 95 %, over runs (a variant on a draw at a dtype); runs
of one draw share its texts, so for independent ones it would have to be read by draw.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_npuconf.calibration.noise import Judged
from pytest_npuconf.calibration.run import Case, benign, measure
from pytest_npuconf.documents import Document, windows
from pytest_npuconf.errors import FaultError, SettingsError
from pytest_npuconf.files import write_atomically
from pytest_npuconf.gates import Outcome
from pytest_npuconf.option_values import parse_path, parse_precisions
from pytest_npuconf.options import Settings
from pytest_npuconf.plan import Extensions, Plan, equip, make_plan
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.shared import SharedReferences
from pytest_npuconf.stats import share_upper_bound

FACTS = ("host", "torch", "transformers", "npuconf", "python")  # runs of other ones are not one measurement
# tokens of each document of a draw, by kind; 39 in all, 2,356 tokens
LENGTHS = {
    "document": (513, 257, 129, 128, *(48,) * 14, 17, 16, 15, 1),
    "text": (96,) * 5,
    "hidden": (12,) * 8,
    "prompt": (8,) * 4,
}


def disjoint(documents: Sequence[Document], uncut: dict[str, Sequence[int]], draws: int) -> list[tuple[Document, ...]]:
    """``draws`` sets of documents without a token's place in common: the longest first, each from the text that has most
    left.

    Args:
        uncut: token ids of each document's whole text, by name.

    Raises:
        SettingsError: too few texts for so many draws.
    """
    left = {d.name: 0 for d in documents}
    wanted = sorted(((n, k) for k, lengths in LENGTHS.items() for n in lengths), reverse=True)
    made: list[list[Document]] = [[] for _ in range(draws)]
    for number, (tokens, kind) in enumerate(wanted):
        for draw in range(draws):
            name = max(left, key=lambda n: len(uncut[n]) - left[n])
            start = left[name]
            if len(uncut[name]) - start < tokens:
                need = draws * sum(n for n, _ in wanted)
                raise SettingsError(
                    f"{draws} draws need {need} tokens in long enough texts; the card's have {sum(map(len, uncut.values()))}",
                    mend="--draws of fewer, or longer texts",
                )
            left[name] += tokens
            ids = tuple(uncut[name][start : start + tokens])
            looked = windows(tokens) if kind == "document" else ()
            made[draw].append(Document(f"{kind} {number} of {name} from {start}", kind, "", ids, looked))
    order = list(LENGTHS)
    return [tuple(sorted(documents, key=lambda d: order.index(d.kind))) for documents in made]


def plan_of(model: str, device: str, precisions: tuple[str, ...], weights: Path | None) -> Plan:
    settings = Settings(
        models=(model,), device=device, precisions=precisions, reference="live", weights=weights,
        cache=parse_path("~/.cache/npuconf"),
    )  # fmt: skip
    return equip(make_plan(settings, Extensions()), lambda text: print(text, file=sys.stderr))


def draws_of(plan: Plan, model: str, draws: int) -> list[tuple[Document, ...]]:
    from pytest_npuconf.engines.transformers_engine import load_tokenizer, tokenize

    tokenizer = load_tokenizer(plan.checkpoints[model], trust_remote_code=False)
    documents = plan.documents[model]
    return disjoint(documents, {d.name: tokenize(tokenizer, d.text) for d in documents}, draws)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", type=parse_precisions, default=())
    parser.add_argument("--variant", action="append", default=[])
    parser.add_argument("--weights", type=parse_path)
    parser.add_argument("--draw", type=int, action="append", default=[])
    parser.add_argument("--json", type=parse_path)
    parser.add_argument("--resume", action="store_true", help="leave out the runs that --json has")
    parsed = parser.parse_args()
    if parsed.resume and not parsed.json:
        parser.error("--resume needs the --json of the runs before")
    plan = plan_of(parsed.model, parsed.device, parsed.precision, parsed.weights)
    (model,) = plan.cards
    variants = [v for v in benign(()) if not parsed.variant or v.name in parsed.variant]
    runs, start = before(parsed.json, plan) if parsed.resume else [], time.monotonic()
    done = {(run["draw"], run["dtype"], run["variant"]) for run in runs}
    for number, documents in enumerate(draws_of(plan, model, parsed.draws), start=1):
        todo = [(p, v) for p in plan.precisions[model] for v in variants if (number, p, v.name) not in done]
        if not todo or (parsed.draw and number not in parsed.draw):
            continue
        drawn = dataclasses.replace(plan, documents={model: documents})
        shared = SharedReferences()
        for dtype, variant in todo:
            try:
                judged = measure(drawn, Case(model, dtype, variant), shared, Progress())
            except FaultError as error:
                print(f"draw {number} {dtype} {variant.name}: does not apply: {error.what}", flush=True)
                continue
            runs.append(run_of(number, dtype, variant.name, judged))
            keep(parsed.json, model, plan, runs)
            print(f"{said(runs[-1])} ({time.monotonic() - start:.0f} s)", flush=True)
        shared.live(drawn, model).close()
    return report(model, plan, runs)


def run_of(draw: int, dtype: str, variant: str, judged: dict[str, Judged]) -> dict[str, Any]:
    """One run, as it is kept."""
    return {
        "draw": draw, "dtype": dtype, "variant": variant,
        "alarms": [f"{c} = {j.said}" for c, j in judged.items() if j.failed],
        "inconclusive": [c for c, j in judged.items() if j.outcome == Outcome.INCONCLUSIVE.value],
        "figures": {c: j.figure for c, j in judged.items()},
    }  # fmt: skip


def said(run: dict[str, Any]) -> str:
    """One line."""
    verdict = f"FALSE ALARM {'; '.join(run['alarms'])}" if run["alarms"] else "no alarm"
    more = f"; inconclusive: {', '.join(run['inconclusive'])}" if run["inconclusive"] else ""
    return f"draw {run['draw']} {run['dtype']} {run['variant']}: {verdict}{more}"


def before(path: Path, plan: Plan) -> list[dict[str, Any]]:
    """The runs of an earlier call, if it had the same facts.

    Raises:
        SettingsError: it did not.
    """
    if not path.exists():
        return []
    made = json.loads(path.read_text(encoding="utf-8"))
    if other := ", ".join(key for key in FACTS if made["facts"].get(key) != plan.facts.get(key)):
        raise SettingsError(f"{path} was measured elsewhere: {other} differ", mend="another --json, or no --resume")
    runs: list[dict[str, Any]] = made["runs"]
    return runs


def keep(path: Path | None, model: str, plan: Plan, runs: list[dict[str, Any]]) -> None:
    """All runs so far, by one rename."""
    if path:
        made = {"model": model, "time": time.strftime("%Y-%m-%d"), "facts": plan.facts, "runs": runs}
        write_atomically(path, json.dumps(made, indent=1, sort_keys=True).encode())


def report(model: str, plan: Plan, runs: list[dict[str, Any]]) -> int:
    bad, open_ones = ([r for r in runs if r[key]] for key in ("alarms", "inconclusive"))
    for variant in dict.fromkeys(r["variant"] for r in runs):
        mine = [r for r in runs if r["variant"] == variant]
        alarms, undecided = (sum(bool(r[key]) for r in mine) for key in ("alarms", "inconclusive"))
        print(f"  {variant:<28} {alarms} of {len(mine)} runs with a false alarm, {undecided} inconclusive")
    rate = share_upper_bound(len(bad), len(runs)) if runs else 1.0
    print(
        f"{model} on {plan.device.name}: {len(bad)} of {len(runs)} runs raised a false alarm: at most {rate:.1%} of such runs "
        f"(95 %); {len(open_ones)} inconclusive"
    )
    return 1 if bad or not runs else 0


if __name__ == "__main__":
    sys.exit(main())
