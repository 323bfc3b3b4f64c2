"""What a model answered, as far as the records keep it. Data of another form is no answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_npuconf.records import Record

SAMPLED = ("functional.samples", "serving.chat")


def answers_of(record: Record) -> dict[str, Mapping[str, Any]]:
    """Answers by name; each has at least its ``text``."""
    answers = record["data"].get("answers")
    named = answers.items() if isinstance(answers, Mapping) else ()
    return {name: a for name, a in named if isinstance(a, Mapping) and isinstance(a.get("text"), str)}


def messages_of(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What was asked; empty where the record does not say."""
    messages = answer.get("messages")
    return [each for each in messages if isinstance(each, Mapping)] if isinstance(messages, list) else []
