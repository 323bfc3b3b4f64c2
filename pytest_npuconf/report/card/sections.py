"""The parts of a card that hold for any run: verdict, environment, method, all checks, samples, claims, limits, command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pytest_npuconf.conformance import worst_by_check
from pytest_npuconf.records import Record
from pytest_npuconf.report.card import phrases
from pytest_npuconf.report.card.precision import PPL, condition, outcome, write_places
from pytest_npuconf.report.card.text import escaped, figure, gate_text, plain
from pytest_npuconf.report.card.writer import Writer
from pytest_npuconf.report.run import name_of, pair_of
from pytest_npuconf.report.samples import SAMPLED, answers_of, messages_of
from pytest_npuconf.report.words import word_of

_STANDINGS = ("reproduced", "not reproduced", "contradicted")
_FACTS = ("engine", "reference", "device_description", "fault", "calibration", "pytest", "fingerprint_digest")
_LIMITS = ("bf16", "length", "rare", "size", "yardstick", "shared", "tasks")
_LIMITS_OF = {"serving.": ("served", "kl"), "speed.": ("load", "pool")}  # where such a check was run


def write_title(page: Writer) -> None:
    """Title and where the figures come from."""
    device = page.run.facts.get("device", "").upper()
    where = "" if device in page.run.summary["labels"] else escaped(device)
    page.heading(1, " · ".join(part for part in (escaped(page.run.model), where, page.labels) if part))


def write_verdict(page: Writer) -> None:
    """The verdict, its counts, what the labels mean, and the run's own words."""
    summary = page.run.summary
    page.heading(2, page.word("verdict"))
    waived = summary["status"] == "CONFORMANT" and summary["waived"]
    page.say("CONFORMANT, waived" if waived else summary["status"])
    worst = worst_by_check(page.run.checks)
    required = summary["required"]
    counts = Counter(word_of(worst[check]) if check in worst else "not_run" for check in required)
    rows = [[page.word("required_all"), str(len(summary["required"]))]]
    rows += [[page.word(kind), str(counts[kind])] for kind in ("pass", "fail", "inconclusive", "waived", "not_run")]
    page.table(page.word("counts"), ["kind", "number"], rows)
    standings = Counter(claim["standing"] for record in page.run.checks for claim in record["claims"])
    if standings:
        rows = [[page.word(standing), str(standings[standing])] for standing in _STANDINGS]
        page.table(page.word("claim_counts"), ["kind", "number"], rows)
    page.points(page.sentences(*phrases.meanings(page.run.summary["labels"])))
    page.say("written", created=escaped(page.run.created))
    page.say("line")
    page.fence(summary["line"])


def write_environment(page: Writer) -> None:
    """What the fingerprint read, each with where it was read."""
    page.heading(2, page.word("environment"))
    run = page.run
    facts = {name: run.facts[name] for name in _FACTS if run.facts.get(name)}
    origin = run.summary["weights_origin"]
    rows = [[page.word("run"), escaped(name), escaped(value), "results.json"] for name, value in facts.items()]
    rows.append([page.word("run"), "weights", escaped(origin), "results.json"])
    for group in ("device", "versions", "settings_numeric", "settings_speed"):
        readings = run.fingerprint.get(group, {})
        rows += [[page.word(group), escaped(n), escaped(r["value"]), escaped(r["source"])] for n, r in readings.items()]
    page.table(page.word("environment"), ["group", "item", "reading", "read_from"], rows)


def write_model(page: Writer) -> None:
    """What the checks of the model's files counted."""
    rows = []
    for record in page.run.of("model.weights", "model.parameters", "model.weight_size"):
        data = record["data"]
        kept = data["statistics"] if isinstance(data.get("statistics"), Mapping) else {}
        found = {"architecture": data.get("architecture"), "dtypes": data.get("dtypes")}
        found |= {name: kept.get(name) for name in ("parameters", "parameters_without_embedding")}
        found["bytes"] = record["value"] if record["unit"] == "B" else None
        rows += [[page.word(name), _plain(value)] for name, value in found.items() if value]
    if rows:
        page.heading(2, page.word("model"))
        page.table(page.word("files"), ["item", "value"], rows)


def _plain(value: Any) -> str:
    if isinstance(value, (int, float)):
        return plain(value)
    return escaped(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def write_method(page: Writer) -> None:
    """Reference, yardstick, precision pairs, intervals, and what each figure is."""
    page.heading(2, page.word("method"))
    first = {pair: records[0] for pair, records in page.run.by_pair.items()}
    if first:
        rows = [
            [escaped(pair), condition(record), escaped(record["reference"]), escaped(record["reference_source"])]
            for pair, record in first.items()
        ]
        page.table(page.word("pair"), ["pair", "item", "reference", "source"], rows)
    lines = page.sentences("method.reference", reference=escaped(page.run.facts.get("reference", "?")))
    lines += page.sentences("method.yardstick")
    members = next((m for r in page.run.checks if isinstance(m := r["data"].get("yardstick_mean_kl"), Mapping)), None)
    if members:
        lines += page.sentences("method.members", members=", ".join(map(escaped, members)))
    page.points(lines + page.sentences("method.interval", "method.margin", "method.digits"))
    names = dict.fromkeys(r["metric"] for r in page.run.checks if r["metric"] in phrases.METRICS)
    if names:
        page.say("metrics")
        page.points([f"{escaped(name)} — {phrases.metric(page.language, name)}" for name in names])


def write_checks(page: Writer) -> None:
    """Every check with its verdict, gate and n; then the places of what did not pass and stands nowhere else."""
    page.heading(2, page.word("checks"))
    rows = [_check_row(page, record) for record in page.run.checks]
    recorded = {record["check"] for record in page.run.checks if record["verdict"] is not None}
    missing = [check for check in page.run.summary["required"] if check not in recorded]
    required = page.word("required")
    rows += [[escaped(check), page.word("not_run"), "", "", "", "", required, ""] for check in missing]
    numbered = [[str(k), *row] for k, row in enumerate(rows, 1)]
    page.table(
        page.word("checks"), ["#", "check", "outcome", "figure", "measured", "gate", "n", "role", "why"], numbered
    )
    for record in page.run.checks:
        told = pair_of(record["check"]) and not record["check"].startswith(
            ("speed.", "model.", "env.", "audit.", *SAMPLED)
        )
        if record["verdict"] in ("fail", "inconclusive") and not told:
            write_places(page, record)


def _check_row(page: Writer, record: Record) -> list[str]:
    if record["value"] is None:
        value = page.word("unusable")
    else:
        value = f"{figure(record['value'], record['interval'], record['bound'])[0]} {escaped(record['unit'])}".rstrip()
    gate, n = gate_text(record["sense"], record["bound"]), f"{record['n']} {escaped(record['of'])}"
    role, note = page.word(record["role"]), escaped(record["waived"] or record["broken"])
    return [escaped(record["check"]), outcome(page, record), escaped(record["metric"]), value, gate, n, role, note]


def write_samples(page: Writer) -> None:
    """Real output of the model, as far as the records keep it; a precision with the same texts is said to have them."""
    page.heading(2, page.word("samples"))
    shown: dict[str, Any] = {}
    for record in page.run.of(*SAMPLED):
        texts = answers_of(record)
        if not texts:
            continue
        said = {name: answer["text"] for name, answer in texts.items()}
        if said == shown.get(name_of(record["check"])):
            page.say("samples.same", check=escaped(record["check"]))
            continue
        shown.setdefault(name_of(record["check"]), said)
        page.heading(3, f"{escaped(record['check'])} · {condition(record)}")
        page.say("samples.greedy" if name_of(record["check"]) == SAMPLED[0] else "samples.chat")
        for number, (name, answer) in enumerate(texts.items(), 1):
            page.caption(f"{page.word('sample')} {number} · {escaped(name)}")
            if messages := messages_of(answer):
                page.say("samples.asked")
                page.fence("\n".join(f"{each.get('role')}: {each.get('content')}" for each in messages))
                page.say("samples.answered")
            page.fence(answer["text"])
            unmet = answer.get("unmet")
            if isinstance(unmet, list) and unmet:
                page.say("samples.unmet")
                page.fence("\n".join(map(str, unmet)))
    if not shown:
        page.say("samples.none")


def write_claims(page: Writer) -> None:
    """Documented numbers against what was measured; the documents' words stand in a fence, as quotations."""
    page.heading(2, page.word("claims"))
    found = [(record, claim) for record in page.run.checks for claim in record["claims"]]
    if not found:
        page.say("claims.none")
        return
    page.say("claims.note")
    rows, quotes = [], []
    for number, (record, claim) in enumerate(found, 1):
        measured = page.word("unusable") if claim["measured"] is None else _numbers(claim["measured"])
        standing, asked = page.word(claim["standing"]), [escaped(record["check"]), escaped(claim["statistic"])]
        named = [str(number), escaped(claim["id"]), page.word("quote", k=number)]
        rows.append([*named, *asked, measured, _n_of(record, claim), standing])
        quotes.append(f"[{number}] {claim['id']}")
        quotes += [
            f"    {key}: {claim[key]}" for key in ("documented", "gate_stated", "source", "reason") if claim[key]
        ]
    header = ["#", "claim_id", "documented", "check", "statistic", "measured", "n", "standing"]
    page.table(page.word("claims"), header, rows)
    page.caption(page.word("quotes"))
    page.fence("\n".join(quotes))


def _n_of(record: Record, claim: Record) -> str:
    """What the statistic is over, which need not be what the check is over; empty where the record does not say."""
    if claim["statistic"].endswith("last_position"):
        last = record["data"].get("last_position")
        return f"{len(last)} prompts" if isinstance(last, Mapping) else ""
    own = name_of(record["check"]) in PPL or claim["statistic"] in ("correct", "share")
    return f"{record['n']} {escaped(record['of'])}" if own else ""


def _numbers(measured: float | list[float]) -> str:
    return " ".join(map(plain, measured)) if isinstance(measured, list) else plain(measured)


def write_limits(page: Writer) -> None:
    """What the gates cannot see."""
    page.heading(2, page.word("limits"))
    suites = [suite for suite in _LIMITS_OF if any(r["check"].startswith(suite) for r in page.run.checks)]
    names = [*_LIMITS, *(name for suite in suites for name in _LIMITS_OF[suite])]
    page.points(page.sentences(*(f"limits.{name}" for name in names)))


def write_command(page: Writer) -> None:
    """The command of the run."""
    page.heading(2, page.word("command"))
    page.say("command.note")
    page.fence(page.run.facts.get("command", "pytest"), "sh")
