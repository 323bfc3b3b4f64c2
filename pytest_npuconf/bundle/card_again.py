"""The bundled cards: what of them decides, against what results.json says was decided by. A card's text is read from memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_npuconf.bundle.archive import sha256_of_bytes
from pytest_npuconf.bundle.findings import Finding, Level, contradiction, note, wrong
from pytest_npuconf.bundle.rejudge import OWN, called
from pytest_npuconf.bundle.results_file import RESULTS
from pytest_npuconf.cards.decisions import read_claims, read_gates, read_required, read_waivers
from pytest_npuconf.cards.schema import Card
from pytest_npuconf.cards.toml_reader import Table
from pytest_npuconf.check import SERVING
from pytest_npuconf.checks import CHECKS, gate_for, required_ids
from pytest_npuconf.errors import CardError
from pytest_npuconf.precisions import SHORT, Precision
from pytest_npuconf.records import Record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SAME = ("documented", "gate_stated", "source", "statistic", "reason")


def member_of(model: str) -> str:
    """Where a bundle keeps the card of a model."""
    return f"cards/{model}/card.toml"


def read_rules(data: bytes, member: str) -> Card:
    """Name, required checks, gates, claims and waivers of a card; nothing beside it is looked for.

    Raises:
        CardError: not a card, or not one that this version reads.
    """
    try:
        text = data.decode("utf-8")
        root = Table(Path(member), text, tomllib.loads(text))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise CardError(f"{member}: not valid TOML: {error}", mend="bundle the card that the run had") from error
    return Card(
        name=root.take("name", str),
        path=Path(member),
        required=read_required(root),
        claims=read_claims(root),
        gates=read_gates(root),
        waivers=read_waivers(root),
    )


def read_cards(contents: Mapping[str, bytes], results: Mapping[str, Any]) -> tuple[dict[str, Card], list[Finding]]:
    """The bundled cards of the models that were judged, as far as this version can read them."""
    cards: dict[str, Card] = {}
    findings = []
    for model in results["models"]:
        member = member_of(model)
        if member not in contents:
            findings.append(
                note(member, "member", "is not in the bundle: its bounds, claims and waivers were not compared")
            )
            continue
        if changed := other_bytes(contents[member], model, results):
            findings.append(changed)
        try:
            cards[model] = read_rules(contents[member], member)
        except CardError as error:
            findings.append(note(member, "content", f"cannot be read by this version: {error.what}"))
    return cards, findings


def other_bytes(data: bytes, model: str, results: Mapping[str, Any]) -> Finding | None:
    """That this is not the card of the run."""
    stored, here = results["models"][model]["card_sha256"], sha256_of_bytes(data)
    return contradiction(member_of(model), "sha256", stored, here) if stored != here else None


def compare_card(card: Card, model: str, results: Mapping[str, Any]) -> list[Finding]:
    """Where the card and the results disagree: a bound is a note, everything else a contradiction."""
    member, findings = member_of(model), []
    if card.name != model:
        findings.append(wrong(member, "name", f"is the card of {card.name!r}"))
    listed = card.required.get(results["facts"].get("engine", ""), ())
    for check in results["models"][model]["required"] if listed else ():
        if check not in listed and _base(check) not in listed:
            findings.append(wrong(RESULTS, "required", f"has {check}, which the card does not list", f"models.{model}"))
    for number, record in enumerate(results["checks"]):
        if record["model"] == model and not record["check"].startswith(OWN):
            name = called(number, record)
            findings += [*_bound(card, record, name), *_waived(card, record, name), *_claimed(card, record, name)]
    return findings


def compare_constants(results: Mapping[str, Any]) -> list[Finding]:
    """Notes: bounds and senses that are not those of the installed version, where no card gave them."""
    findings = []
    for number, record in enumerate(results["checks"]):
        if record["verdict"] is None or record["check"].startswith(OWN):
            continue
        name, check, base = called(number, record), CHECKS.get(record["check"]), _base(record["check"])
        pair = None
        if check is None and base in CHECKS and CHECKS[base].per_pair:
            try:
                check, pair = CHECKS[base], Precision.named(record["check"].removeprefix(f"{base}."))
            except KeyError:
                check = None
        if check is None:
            findings.append(note(RESULTS, "check", "is no check of this version", name))
            continue
        gate = gate_for(record["check"], pair, Card(record["model"], path=Path()), required=True)
        if record["sense"] != check.sense.value:
            findings.append(_other("sense", record["sense"], check.sense.value, name))
        if not str(record["source"]).startswith("card ") and (gate is None or gate.bound != record["bound"]):
            findings.append(_other("bound", record["bound"], None if gate is None else gate.bound, name))
    return findings


def compare_required(results: Mapping[str, Any], cards: Mapping[str, Card]) -> list[Finding]:
    """Notes: required lists that are shorter than what this version, or the bundled card, asks of a model in process.

    What a check is about may not stand in the card, and a server's modes are not read here: only what is asked of every
    model is compared.
    """
    engine, findings = results["facts"].get("engine", ""), []
    for model, entry in results["models"].items():
        shortened = any(label.startswith("CARD REQUIRES ") for label in entry["labels"])
        card = cards.get(model) or (None if shortened else Card(model, path=Path()))
        precisions = tuple(name for name in entry["precisions"] if name in SHORT)
        if engine in SERVING or card is None:
            continue
        asked = required_ids(card, engine, precisions, "stored")
        lacking = [check for check in asked if check not in entry["required"]]
        if lacking:
            whose = "the bundled card lists" if card.required.get(engine) else "this version asks of every model"
            said = f"lacks {', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}, which {whose}"
            findings.append(note(RESULTS, "required", said, f"models.{model}"))
    return findings


def _bound(card: Card, record: Record, name: str) -> list[Finding]:
    override = card.gates.get(record["check"]) or card.gates.get(_base(record["check"]))
    by_card = record["source"] == f"card {card.name}"
    if record["verdict"] is None or (override is None and not by_card):
        return []
    if override is None:
        return [note(RESULTS, "bound", "is said to be the card's, which has none for this check", name)]
    same = by_card and override.bound == record["bound"]
    return [] if same else [_other("bound", record["bound"], override.bound, name, "the bundled card")]


def _waived(card: Card, record: Record, name: str) -> list[Finding]:
    names = (record["check"], _base(record["check"]))
    known = [waiver.reason for waiver in card.waivers if waiver.check in names]
    if not record["waived"] or record["waived"] in known:
        return []
    return [wrong(RESULTS, "waived", f"{record['waived']!r} is no waiver of the bundled card for this check", name)]


def _claimed(card: Card, record: Record, name: str) -> list[Finding]:
    """The claims of a record are the card's for this check, word by word."""
    asked = {
        claim.id: {field: getattr(claim, field) for field in _SAME}
        for claim in card.claims
        if claim.check == record["check"]
    }
    stored = {claim["id"]: {field: claim[field] for field in _SAME} for claim in record["claims"]}
    findings = [
        wrong(RESULTS, "claims", f"the bundled card has {i!r} here", name) for i in asked.keys() - stored.keys()
    ]
    findings += [
        wrong(RESULTS, "claims", f"{i!r} is no claim of the bundled card here", name)
        for i in stored.keys() - asked.keys()
    ]
    for each in sorted(asked.keys() & stored.keys()):
        findings += [
            contradiction(RESULTS, field, stored[each][field], asked[each][field], f"{name} claim {each}")
            for field in _SAME
            if stored[each][field] != asked[each][field]
        ]
    return findings


def _other(field: str, stored: Any, here: Any, name: str, whose: str = "the installed version") -> Finding:
    """Another version may have other bounds; the card in the bundle is the one that the run was judged by."""
    level = Level.NOTE if whose == "the installed version" else Level.CONTRADICTION
    return Finding(level, RESULTS, field, stored, here, name, f"stored {stored!r}, {whose} has {here!r}")


def _base(check: str) -> str:
    """``kl.noise_ratio`` of ``kl.noise_ratio.bf16_fp32``."""
    return check.rpartition(".")[0] if check.rpartition(".")[0] in CHECKS else check
