"""``pytest -p tests.plugin.chat_token``: one fault, for tiny-qwen3: a token of the chat template, which no text holds, is
embedded as another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_npuconf.faults.base import Fault

TOKENIZER = Path(__file__).resolve().parents[2] / "fixtures" / "tiny-qwen3" / "tokenizer.json"


def embed_as_another(model: Any) -> None:
    """The token that begins a turn takes the row before its own; the head keeps it."""
    added = json.loads(TOKENIZER.read_text(encoding="utf-8"))["added_tokens"]
    begins = next(token["id"] for token in added if token["content"] == "<|im_start|>")
    embedding = model.get_input_embeddings()

    def change(_module: Any, args: tuple[Any, ...], output: Any) -> Any:
        output = output.clone()
        output[args[0] == begins] = embedding.weight[begins - 1]
        return output

    embedding.register_forward_hook(change)


def pytest_npuconf_faults() -> list[Fault]:
    return [
        Fault(
            "chat-token",
            "a token of the chat is embedded as another",
            "1 token",
            "functional.samples",
            embed_as_another,
        )
    ]
