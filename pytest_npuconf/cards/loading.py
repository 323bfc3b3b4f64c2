"""Finding and reading cards."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from pytest_npuconf.cards.decisions import read_claims, read_gates, read_required, read_waivers
from pytest_npuconf.cards.schema import KINDS, Card, Prompt, TokenProbe, WeightsSource
from pytest_npuconf.cards.serving import read_rerank, read_serving
from pytest_npuconf.cards.speed import read_speed
from pytest_npuconf.cards.tables import read_documents, read_files, read_minimum, read_samples, read_size
from pytest_npuconf.cards.toml_reader import Table, read_toml
from pytest_npuconf.errors import CardError, nearest
from pytest_npuconf.files import sha256_of
from pytest_npuconf.locate import data_folder
from pytest_npuconf.precisions import PRECISIONS

CARD_FILE = "card.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
        required=read_required(root),
        claims=read_claims(root),
        gates=read_gates(root),
        waivers=read_waivers(root),
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
