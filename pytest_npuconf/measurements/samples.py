"""Answers to the card's documented samples, against what the card expects of them. No code of an answer is executed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pytest_npuconf.answers import code_block, final_answer, functions_of, last_number, normal_form, parse_code
from pytest_npuconf.cards.schema import Sample
from pytest_npuconf.gates import Measurement, Row

SHOWN = 200  # characters of an answer in a row


def samples(documented: Sequence[Sample], answers: Mapping[str, str]) -> Measurement:
    """Samples that are not answered as documented.

    Args:
        answers: the generated text by the sample's name, with its thought if it has one.
    """
    rows, kept = [], {}
    for sample in documented:
        text = answers[sample.name]
        unmet = judge_sample(sample, text)
        kept[sample.name] = {
            "text": text,
            "unmet": unmet,
            "messages": sample.conversation,
            "max_new_tokens": sample.max_new_tokens,
            "thinking": sample.thinking,
        }
        if unmet:
            shown = final_answer(text)
            shown = text if shown is None else shown
            rows.append(Row(sample.name, 1.0, f"answer {shown[:SHOWN]!r}; {'; '.join(unmet)}"))
    correct = (len(documented) - len(rows)) / len(documented)
    return Measurement.counted(
        "samples.wrong", rows, n=len(documented), of="samples", answers=kept, statistics={"correct": correct}
    )


def judge_sample(sample: Sample, text: str) -> list[str]:
    """What the sample expects and this text does not give; empty when it is as documented."""
    answer = final_answer(text)
    if answer is None:
        return [f"no answer: thinking was cut at {sample.max_new_tokens} tokens"]
    unmet = [f"expected {part!r} in it" for part in sample.contains if part not in answer]
    if sample.contains_any and not any(part in answer for part in sample.contains_any):
        unmet.append(f"expected one of {', '.join(map(repr, sample.contains_any))} in it")
    if sample.number is not None:
        found = last_number(answer)
        if found is None or not math.isclose(found, sample.number, rel_tol=1e-9):
            unmet.append(f"expected {sample.number:.12g} as its last number, found {found}")
    if sample.code:
        unmet += _unlike(sample.code, answer)
    if sample.code_function:
        unmet += _undefined(sample.code_function, answer)
    return unmet


def _undefined(name: str, answer: str) -> list[str]:
    source = code_block(answer)
    if source is None:
        return [f"expected code that defines {name}, found no code block"]
    try:
        defined = functions_of(parse_code(source))
    except ValueError as error:
        return [f"its code is not Python: {error}"]
    return (
        [] if name in defined else [f"expected code that defines {name}, found {', '.join(defined) or 'no function'}"]
    )


def _unlike(documented: str, answer: str) -> list[str]:
    """Whether the answer's function of that name is the documented one, up to docstrings, comments, annotations, quotes."""
    [(name, expected)] = functions_of(parse_code(documented)).items()
    undefined = _undefined(name, answer)
    if undefined:
        return undefined
    try:
        same = normal_form(functions_of(parse_code(code_block(answer) or ""))[name]) == normal_form(expected)
    except ValueError as error:
        return [f"{name} cannot be compared: {error}"]
    return [] if same else [f"expected {name} as documented, found another body"]
