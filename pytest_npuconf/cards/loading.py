"""Finding and reading cards."""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_npuconf.cards.schema import (
    BETTER,
    KINDS,
    Card,
    Claim,
    ClaimGate,
    GateOverride,
    Prompt,
    TokenProbe,
    Waiver,
    WeightsSource,
)
from pytest_npuconf.cards.serving import read_rerank, read_serving
from pytest_npuconf.cards.speed import read_speed
from pytest_npuconf.cards.tables import read_documents, read_files, read_minimum, read_samples, read_size
from pytest_npuconf.cards.toml_reader import Table, read_toml
from pytest_npuconf.errors import CardError, nearest
from pytest_npuconf.files import sha256_of
from pytest_npuconf.gates import Role, Sense
from pytest_npuconf.locate import data_folder
from pytest_npuconf.precisions import PRECISIONS

CARD_FILE = "card.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SENSES = {">": Sense.AT_LEAST, ">=": Sense.AT_LEAST, "<": Sense.AT_MOST, "<=": Sense.AT_MOST, "+-": Sense.WITHIN}


def card_folders(extra: Path | None = None) -> list[Path]:
    """Folders that hold ``<model>/card.toml``: the user's first, then the shipped ones.

    Raises:
        CardError: the user's folder does not exist.
    """
    if extra is not None and not extra.is_dir():
        raise CardError(
            f"--npuconf-baselines {extra} is not a folder", mend="name a folder that holds <model>/card.toml"
        )
    return ([extra] if extra is not None else []) + [data_folder("baselines")]


def known_cards(extra: Path | None = None) -> dict[str, Path]:
    """Name to card file; the user's own card hides a shipped one of that name."""
    found: dict[str, Path] = {}
    for folder in reversed(card_folders(extra)):
        found.update({path.parent.name: path for path in sorted(folder.glob(f"*/{CARD_FILE}"))})
    return found


def find_card(name_or_path: str, extra: Path | None = None) -> Card:
    """The card of a model's name, or of a path that ends in ``.toml``.

    Raises:
        CardError: unknown (the nearest names are given), unreadable, or invalid (file, line and key are given).
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise CardError(
                f"card {path.resolve()} does not exist", mend="give the path of a card: --model path/to/card.toml"
            )
        return load_card(path.resolve())
    cards = known_cards(extra)
    if name_or_path not in cards:
        where = ", ".join(str(folder) for folder in card_folders(extra))
        raise CardError(
            f"no card for model {name_or_path!r}{nearest(name_or_path, list(cards))}\n"
            f"  known: {', '.join(sorted(cards)) or 'none'}\n  looked in: {where}",
            mend="name one of these, or your own card: --model path/to/card.toml",
        )
    return load_card(cards[name_or_path])


def load_card(path: Path) -> Card:
    """Read and validate one card file.

    Raises:
        CardError: naming file, line and key.
    """
    root = read_toml(path)
    name = root.take("name", str)
    if not _NAME.fullmatch(name):
        raise root.error("name", f"must be letters, digits, '.', '_' and '-', got {name!r}")
    precisions = root.strings("precisions", ["float32", "bfloat16"])
    for precision in precisions:
        if precision not in PRECISIONS:
            raise root.error("precisions", f"holds {precision!r}{nearest(precision, PRECISIONS)}")
    if len(set(precisions)) != len(precisions):
        raise root.error("precisions", "names the same precision twice")
    if not precisions:
        raise root.error("precisions", "is empty: nothing would be judged")
    prompts = root.table("prompts")
    layers = prompts.strings("layers", [])
    logits, inputs, texts, long_texts = _prompts(prompts)
    card = Card(
        name=name,
        path=path,
        title=root.take("title", str, name),
        kind=root.choice("kind", KINDS, "model"),
        weights=_weights(root.table("weights"), path.parent),
        config=dict(root.take("config", dict, {})),
        probes=tuple(_probe(t) for t in root.tables("tokenizer_probes")),
        precisions=precisions,
        logits_prompts=logits,
        hidden_inputs=inputs,
        hidden_layers=layers,
        perplexity_texts=texts,
        long_texts=long_texts,
        required=_required(root.table("required")),
        claims=_claims(root),
        gates=_gates(root.table("gates")),
        waivers=tuple(_waiver(t) for t in root.tables("waivers")),
        generation_config=dict(root.take("generation_config", dict, {})),
        parameters=read_size(root.table("size")),
        files=read_files(root),
        minimum=read_minimum(root.table("minimum")),
        samples=read_samples(root),
        samples_decide=root.take("samples_decide", bool, True),
        documents=read_documents(root.table("audit"), path.parent),
        sha256=sha256_of(path),
        serving=read_serving(root.table("serving"), path.parent),
        rerank=read_rerank(root),
        speed=read_speed(root.table("speed")) if "speed" in root else None,
    )
    root.finish()
    return card


def _weights(table: Table, folder: Path) -> WeightsSource:
    path = table.take("path", str, "")
    source = WeightsSource(
        path=(folder / Path(path).expanduser()).resolve() if path else None,
        package=table.take("package", str, ""),
        package_version=table.take("package_version", str, ""),
        file=table.take("file", str, ""),
        sha256=table.take("sha256", str, ""),
        modelscope=table.take("modelscope", str, ""),
        huggingface=table.take("huggingface", str, ""),
    )
    if source.package and not source.file:
        raise table.error("file", "is missing: which file of the package holds the weights?")
    if source.sha256 and not re.fullmatch(r"[0-9a-f]{64}", source.sha256):
        raise table.error("sha256", f"must be 64 hexadecimal digits, got {source.sha256!r}")
    table.finish()
    return source


def _probe(table: Table) -> TokenProbe:
    ids = table.take("ids", list)
    if not ids or not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        raise table.error("ids", f"must be token ids, got {ids!r}")
    probe = TokenProbe(table.take("text", str), tuple(ids))
    table.finish()
    return probe


def _prompts(table: Table) -> tuple[tuple[Prompt, ...], ...]:
    """The card's own prompts, inputs of the hidden states, texts and long texts, or the shipped sets."""
    shipped = read_toml(data_folder("fixtures") / "prompts" / "precision.toml")
    read = []
    for key, fewest, why in (
        ("logits", 2, "an interval needs at least two prompts"),
        ("hidden", 2, "an interval needs at least two inputs"),
        ("perplexity", 2, "an interval over documents needs at least two texts"),
    ):
        source = table if key in table else shipped
        table.take(key, list, [])
        texts = source.strings(key)
        if len(texts) < fewest:
            state = "is empty" if not texts else f"has {len(texts)}"
            raise source.error(
                key, f"{state}: {why}", mend=f"give texts, or drop the key {key} to use the shipped ones"
            )
        if len(set(texts)) != len(texts):
            raise source.error(key, "holds the same text twice: copies are not independent documents")
        read.append(tuple(Prompt(f"{_SINGULAR[key]} {i}", text) for i, text in enumerate(texts, start=1)))
    read.append(_long_texts(table))
    table.finish()
    return tuple(read)


_SINGULAR = {"logits": "prompt", "hidden": "input", "perplexity": "text", "documents": "document"}


def _long_texts(table: Table) -> tuple[Prompt, ...]:
    """``[prompts] documents``: the card's own, taken whole, or the shipped ones, each cut to its length."""
    if "documents" not in table:
        return shipped_documents()
    table.take("documents", list, [])
    texts = table.strings("documents")
    if len(texts) < 2:
        raise table.error("documents", f"has {len(texts)}: an interval needs at least two documents")
    if len(set(texts)) != len(texts):
        raise table.error("documents", "holds the same text twice: copies are not independent documents")
    return tuple(Prompt(f"{_SINGULAR['documents']} {i}", text) for i, text in enumerate(texts, start=1))


@functools.cache
def shipped_documents() -> tuple[Prompt, ...]:
    """The shipped long texts with the lengths that they are cut to."""
    found: list[Prompt] = []
    for path in sorted((data_folder("fixtures") / "documents").glob("*.toml")):
        root = read_toml(path)
        for table in root.tables("documents"):
            found.append(Prompt(table.words("name"), table.take("text", str), table.take("tokens", int)))
            table.finish()
        root.finish()
    return tuple(found)


def _required(table: Table) -> dict[str, tuple[str, ...]]:
    required = {}
    for engine in list(table.data):
        required[engine] = table.strings(engine)
        if not required[engine]:
            raise table.error(engine, "is empty: a model of which nothing is required cannot be conformant")
    return required


def _gates(table: Table) -> dict[str, GateOverride]:
    gates = {}
    for check in list(table.data):
        entry = table.table(check)
        bound = entry.take("bound", float)
        if not math.isfinite(bound) or bound < 0:
            raise entry.error("bound", f"must be a finite number of at least 0, got {bound}")
        gates[check] = GateOverride(check, bound, entry.words("reason"))
        entry.finish()
    return gates


def _claims(root: Table) -> tuple[Claim, ...]:
    claims = [_claim(table) for table in root.tables("claims")]
    seen: set[str] = set()
    for table, claim in zip(root.tables("claims"), claims, strict=True):
        if claim.id in seen:
            raise table.error("id", f"{claim.id!r} appears twice")
        seen.add(claim.id)
    return tuple(claims)


def _claim(table: Table) -> Claim:
    claim = Claim(
        id=table.words("id"),
        documented=table.words("documented"),
        source=table.words("source"),
        value=_claim_value(table),
        unit=table.take("unit", str, ""),
        gate_stated=table.take("gate_stated", str, ""),
        gate=_claim_gate(table.table("gate")) if "gate" in table else None,
        check=table.take("check", str, ""),
        statistic=table.take("statistic", str, ""),
        better=table.choice("better", BETTER, "equal"),
        tolerance=_tolerance(table),
        conditions=_conditions(table),
        role=Role(table.choice("role", tuple(r.value for r in Role), Role.CLAIM.value)),
        reason=table.take("reason", str, ""),
        audit=table.take("audit", str, ""),
    )
    if bool(claim.check) != bool(claim.statistic):
        raise table.error("statistic", "and check come together: which figure of which check answers the claim?")
    if claim.check and claim.gate is None and not _is_number(claim.value) and not _is_numbers(claim.value):
        raise table.error(
            "value", "must be one number, or a list of them, when the claim is answered by a check and has no gate"
        )
    table.finish()
    return claim


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_number(each) for each in value)


def _claim_value(table: Table) -> Any:
    value = table.take_any("value")
    if not _all_finite(value):
        raise table.error("value", f"must be finite, got {value}")
    return value


def _all_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_all_finite(v) for v in value.values())
    if isinstance(value, list):
        return all(_all_finite(v) for v in value)
    return not isinstance(value, float) or math.isfinite(value)


def _tolerance(table: Table) -> float | None:
    if "tolerance" not in table:
        return None
    tolerance = table.take("tolerance", float)
    if not 0 <= tolerance < math.inf:
        raise table.error("tolerance", f"must be a finite number of at least 0, got {tolerance}")
    return tolerance


def _claim_gate(table: Table) -> ClaimGate:
    gate = ClaimGate(_SENSES[table.choice("op", tuple(_SENSES), "")], table.take("bound", float))
    if not math.isfinite(gate.bound):
        raise table.error("bound", f"must be finite, got {gate.bound}")
    table.finish()
    return gate


def _conditions(table: Table) -> dict[str, str]:
    conditions = table.take("conditions", dict, {})
    for key, value in conditions.items():
        if not isinstance(value, str):
            raise table.error("conditions", f"must map names to strings, {key} is {value!r}")
    return conditions


def _waiver(table: Table) -> Waiver:
    expires = table.take("expires", datetime.date)
    if isinstance(expires, datetime.datetime):
        raise table.error("expires", f"must be a date without a time, got {expires}")
    waiver = Waiver(
        check=table.words("check"),
        reason=table.words("reason"),
        link=table.words("link"),
        expires=expires,
        conditions=_conditions(table),
    )
    table.finish()
    return waiver


def validate_names(card: Card, checks: Mapping[str, tuple[str, ...]], engines: tuple[str, ...]) -> None:
    """Refuse a card that names a check, a statistic or an engine that does not exist.

    Args:
        checks: every check's name and id with the statistics that a claim can ask for.
        engines: names that may stand under ``[required]``.

    Raises:
        CardError: naming it and the nearest known ones.
    """
    for engine in card.required:
        if engine not in engines:
            raise CardError(
                f"{card.path}: required names the engine {engine!r}{nearest(engine, engines)}",
                mend=f"known engines: {', '.join(engines)}",
            )
    named = [("required", c) for listed in card.required.values() for c in listed]
    named += [("gates", c) for c in card.gates] + [("waivers", w.check) for w in card.waivers]
    named += [(f"claim {c.id}", c.check) for c in card.claims if c.check]
    for table, check in named:
        if check not in checks:
            raise CardError(
                f"{card.path}: {table} names the check {check!r}, which no suite has{nearest(check, list(checks))}",
                mend=f"known checks: {', '.join(checks)}",
            )
    for claim in card.claims:
        if claim.check and claim.statistic not in checks[claim.check]:
            raise CardError(
                f"{card.path}: claim {claim.id} asks {claim.check} for {claim.statistic!r}"
                f"{nearest(claim.statistic, checks[claim.check])}",
                mend=f"statistics of {claim.check}: {', '.join(checks[claim.check]) or 'none; name a precision pair'}",
            )
