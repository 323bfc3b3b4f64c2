"""A real, small Qwen3 with random weights, made once; every plugin test runs pytest itself in a subprocess."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pytest_npuconf.cards import Card
from pytest_npuconf.checks import required_ids

PROMPTS = [f"The {word} of the house is old and the door is {word}" for word in ("roof", "wall", "floor", "window")]
TEXTS = [
    f"Chapter {n}. In the year {1800 + 7 * n} the river rose by {n} feet, and {n + 2} boats were lost near the {place}."
    for n, place in enumerate(("bridge", "mill", "harbour", "weir", "church", "ferry"), start=1)
]
DOCUMENTS = [
    f"Entry {n}. The keeper of the {place} counted {17 * n} lamps, {n + 40} ropes and {3 * n} oars, and wrote that the "
    f"{word} had been mended in the year {1700 + 11 * n} by a man from the {word} market."
    for n, (place, word) in enumerate(
        (
            ("tower", "roof"),
            ("dock", "stair"),
            ("granary", "door"),
            ("chapel", "bell"),
            ("stable", "gate"),
            ("forge", "wheel"),
        ),
        start=1,
    )
]


# a conftest.py under which a run that writes to no terminal shows every phase, not only those after five silent seconds
EVERY_PHASE = "import pytest_npuconf.progress\n\npytest_npuconf.progress.QUIET_SECONDS = 0.0\n"


def write_tokenizer(folder: Path, *, offset: int = 0) -> None:
    """A byte-level tokenizer without merges; ``offset`` moves every id, which makes it another model's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {f"<pad{i}>": i for i in range(offset)} | {letter: i + offset for i, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def write_random_qwen3(folder: Path, vocabulary: int) -> Path:
    """Qwen3: 4 layers, grouped queries, q/k norm, tied embeddings; weights drawn wide enough that position matters. The
    tokenizer knows 256 words."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.normal_(0, 0.15)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random Qwen3 of most tests."""
    return write_random_qwen3(tmp_path_factory.mktemp("tiny"), 256)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """No network, no user caches."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def card_text(weights: Path, *, more: str = "", prompts: str | None = None) -> str:
    """A card of the tiny model."""
    texts = {"logits": PROMPTS, "perplexity": TEXTS, "documents": DOCUMENTS}
    shipped = "[prompts]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in texts.items())
    return (
        f'name = "tiny"\nkind = "stand-in"\n[weights]\npath = "{weights}"\n'
        f"[config]\nhidden_size = 64\nnum_hidden_layers = 4\n{shipped if prompts is None else prompts}{more}"
    )


def required_of_tiny(*precisions: str) -> int:
    """How many checks are required of the card of :func:`card_text`."""
    card = Card("tiny", Path("card.toml"), config={"hidden_size": 64})
    return len(required_ids(card, "transformers", precisions or ("float32",)))


@pytest.fixture
def run(pytester: pytest.Pytester, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """``run(*arguments, card=...)``: pytest in a subprocess in an empty folder, with a card of the tiny model there."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("NPUCONF_CACHE", str(tmp_path / "cache"))
    mine = ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID")
    for name in ("NPUCONF_WEIGHTS", "NPUCONF_PREFIXED_ONLY", "PYTEST_ADDOPTS", *mine):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object, card: str | None = None, **card_options: str) -> pytest.RunResult:
        (pytester.path / "card.toml").write_text(card or card_text(tiny_weights, **card_options), encoding="utf-8")
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *map(str, arguments))

    return call


@pytest.fixture
def tiny_copy(tiny_weights: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny_weights, tmp_path / "copy"))
