"""What the API promises: routes, stops, streams, counts, tool calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pytest_npuconf.cards.schema import Sample
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.served import Answer, Ask, Served
from pytest_npuconf.engines.server_engine import HttpServed, text_of_message
from pytest_npuconf.errors import EngineError, ServerError
from pytest_npuconf.gates import Measurement, Row

# Texts whose letters take several tokens each: a server that decodes token by token breaks them in a stream.
FORCED = ("天空是蓝色的,海也是。", "你好😀 👩‍🚀🚀 done", "naïve — ½ × ∑", "plain text")
MOST_BIASES = 300
WHOLE = 64  # tokens of a free text
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Berlin"]}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}  # fmt: skip
# Route, then the statuses that are right in each mode. A route that a mode does not have is 404 (seed 003, troubles).
ROUTES: dict[str, dict[str, tuple[int, ...]]] = {
    "/v1/completions": {"generate": (200,), "embed": (404,)},
    "/v1/chat/completions": {"generate": (200,), "embed": (404,)},
    "/v1/embeddings": {"generate": (404,), "embed": (200,)},
    "/rerank": {"generate": (404,), "embed": (200,)},
    "/score": {"generate": (404,), "embed": (200,)},
}


def http(served: Served) -> HttpServed:
    """The served model behind HTTP.

    Raises:
        EngineError: it is not.
    """
    if not isinstance(served, HttpServed):
        raise EngineError(f"engine {served.name} has no API that could be asked", mend="--npuconf-engine server")
    return served


# what comes of an answer of another shape than the API's
SHAPE = (ServerError, AttributeError, LookupError, TypeError, ValueError)


def misshapen(error: Exception) -> str:
    """What to say of an answer that did not come, or that is not as the API says.

    Raises:
        ServerError: silence; what hangs would make each of the other requests wait as long.
    """
    if isinstance(error, ServerError):
        if error.kind == "timeout":
            raise error
        return f"{error.kind}: {error.what}"
    return f"not-openai: {type(error).__name__}: {error}"


def routes(served: Served) -> Measurement:
    """Routes that answer with another status than this mode's."""
    over = http(served)
    bodies: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": "a", "max_tokens": 1},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
        "/v1/embeddings": {"input": ["a"]},
        "/rerank": {"query": "a", "documents": ["b", "c"]},
        "/score": {"text_1": "a", "text_2": "b"},
    }
    found = {route: over.client.status("POST", route, {"model": over.model, **body}) for route, body in bodies.items()}
    right = {route: by_mode[served.mode] for route, by_mode in ROUTES.items()}
    rows = [
        Row(f"POST {route}", float(status), f"expected {right[route][0]} in mode {served.mode}")
        for route, status in found.items()
        if status not in right[route]
    ]
    return Measurement.counted("routes.wrong", rows, n=len(found), of="routes", statistics=found)


def stops(
    served: Served, documents: Sequence[Document], samples: Sequence[Sample], ends: Collection[int]
) -> Measurement:
    """Answers that end where they should not: at a length, at a stop string, at the end of the samples' turns.

    Args:
        ends: token ids that end a turn.
    """
    rows, ids = [], documents[0].ids[:16]
    [whole] = served.complete([Ask(ids, WHOLE, ignore_eos=True)])
    if whole.error:
        return Measurement.unusable("stops.wrong", whole.error)
    if len(whole.ids) != WHOLE or whole.finish != "length":
        rows.append(Row("length", len(whole.ids), f"{WHOLE} tokens were asked for; finish_reason {whole.finish!r}"))
    words = whole.text.split()
    # a broken letter is no text that the server could look for
    stop = next((word for word in words[len(words) // 3 :] if len(word) > 2 and "\ufffd" not in word), None)
    if stop is None:
        raise EngineError(f"no word to stop at in {whole.text!r}", mend="give another text first under [prompts]")
    [cut] = served.complete([Ask(ids, WHOLE, stop=(stop,), ignore_eos=True)])
    if cut.error:
        return Measurement.unusable("stops.wrong", cut.error)
    expected = whole.text[: whole.text.index(stop)]
    if cut.text != expected or cut.finish != "stop":
        rows.append(Row(f"stop string {stop!r}", len(cut.text), f"text {cut.text[-40:]!r}, finish_reason {cut.finish!r}; "
                        f"expected it to end with {expected[-40:]!r}"))  # fmt: skip
    rows += _ends_of_turns(served, samples, ends)
    return Measurement.counted("stops.wrong", rows, n=2 + len(samples), of="endings")


def _ends_of_turns(served: Served, samples: Sequence[Sample], ends: Collection[int]) -> list[Row]:
    """Samples whose greedy answer goes on after the end of its turn, or stops without one."""
    rows = []
    for sample in samples:
        answer = served.chat(sample.conversation, sample.max_new_tokens, sample.thinking)
        if why := answer.error or _ends_wrongly(answer, sample.max_new_tokens, ends):
            rows.append(Row(f"end of the turn, {sample.name}", 1.0, f"{why}; text ends with {answer.text[-40:]!r}"))
    return rows


def _ends_wrongly(answer: Answer, most: int, ends: Collection[int]) -> str:
    first = next((i for i, token in enumerate(answer.ids) if token in ends), None)
    if first is not None and first != len(answer.ids) - 1:
        return f"goes on after token {first}, {answer.ids[first]}, which ends a turn"
    if first is not None and answer.finish != "stop":
        return f"ends its turn, finish_reason {answer.finish!r}"
    if first is None and (answer.finish != "length" or len(answer.ids) != most):
        return f"{len(answer.ids)} tokens of {most}, none ends a turn, finish_reason {answer.finish!r}"
    return ""


def streams(served: Served, samples: Sequence[Sample]) -> Measurement:
    """Streamed answers that are not the unstreamed ones, letter by letter: the card's samples, and texts that the server is
    made to say (structured output with one choice), so that every letter is known."""
    over, rows = http(served), []
    asked: list[tuple[str, dict[str, Any], str | None]] = [
        (s.name, over.chat_body(s.conversation, s.max_new_tokens, s.thinking), None) for s in samples
    ]
    # without a thought, which is not bound to a choice
    forced = over.chat_body([{"role": "user", "content": "Say it."}], 128, thinking=False)
    asked += [(f"forced {t!r}", {**forced, "structured_outputs": {"choice": [t]}}, t) for t in FORCED]
    for name, body, expected in asked:
        try:
            whole = over.client.post("/v1/chat/completions", body)
            events = over.client.stream(
                "/v1/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}}
            )
            why = _stream_differs(whole, events, expected)
        except SHAPE as error:
            why = misshapen(error)
        if why:
            rows.append(Row(name, 1.0, why))
    return Measurement.counted("streams.differing", rows, n=len(asked), of="answers")


def _stream_differs(whole: Mapping[str, Any], events: Sequence[Mapping[str, Any]], expected: str | None) -> str:
    [choice] = whole["choices"]
    text = text_of_message(choice["message"])
    deltas = [event["choices"][0] for event in events if event.get("choices")]
    thought = "".join(d["delta"].get("reasoning") or d["delta"].get("reasoning_content") or "" for d in deltas)
    streamed = text_of_message(
        {"reasoning": thought, "content": "".join(d["delta"].get("content") or "" for d in deltas)}
    )
    ends = [d["finish_reason"] for d in deltas if d.get("finish_reason")]
    usages = [event["usage"] for event in events if event.get("usage") and not event.get("choices")]
    if expected is not None and (choice["message"].get("content") or "") != expected:
        return f"unstreamed {text!r} where only {expected!r} was allowed"
    if "\ufffd" in streamed:
        return f"a broken letter in {_around(streamed, streamed.index(chr(0xFFFD)))}"
    if streamed != text:
        at = next(
            (i for i, (a, b) in enumerate(zip(streamed, text, strict=False)) if a != b), min(len(streamed), len(text))
        )
        return f"from letter {at}: streamed {_around(streamed, at)}, unstreamed {_around(text, at)}"
    if ends != [choice["finish_reason"]]:
        return f"finish_reason {ends} streamed, {choice['finish_reason']!r} unstreamed"
    counts = [(u["prompt_tokens"], u["completion_tokens"]) for u in usages]
    wanted = (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"])
    return "" if counts == [wanted] else f"usage {counts} streamed, {wanted} unstreamed (prompt, answer)"


def _around(text: str, place: int) -> str:
    return repr(text[max(0, place - 10) : place + 10])


def usage(
    served: Served, documents: Sequence[Document], chats: Mapping[str, tuple[Sample, Sequence[int]]]
) -> Measurement:
    """Counts of tokens that are not those of the ids that went in and came out.

    Args:
        chats: samples by name with the ids that the model's own template makes of them.
    """
    rows: list[Row] = []
    asks = [Ask(d.ids[:n], m, ignore_eos=True) for d in documents[:3] for n, m in ((1, 1), (17, 5), (128, 9))]
    for ask, answer in zip(asks, served.complete(asks), strict=True):
        rows += _miscounted(f"{len(ask.ids)} tokens", answer, len(ask.ids), ask.max_tokens)
    for name, (sample, ids) in chats.items():
        answer = served.chat(sample.conversation, sample.max_new_tokens, sample.thinking)
        rows += _miscounted(f"chat {name}", answer, len(ids), len(answer.ids) or None)
    return Measurement.counted("usage.wrong", rows, n=len(asks) + len(chats), of="answers")


def _miscounted(name: str, answer: Answer, prompt: int, completion: int | None) -> list[Row]:
    if answer.error:
        return [Row(name, 1.0, answer.error)]
    found = []
    if answer.prompt_tokens != prompt:
        found.append(Row(name, 1.0, f"usage says {answer.prompt_tokens} tokens of the prompt, it has {prompt}"))
    if completion is not None and answer.completion_tokens != completion:
        found.append(Row(name, 1.0, f"usage says {answer.completion_tokens} tokens of the answer, it has {completion}"))
    return found


def blanks(tokenizer: Any) -> list[int]:
    """Ids of the words that are white space and nothing else, at most as many as the API takes biases for."""
    words = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    return [i for i, word in enumerate(words) if word and not word.strip()][:MOST_BIASES]


def tools(served: Served, blank: Sequence[int]) -> Measurement:
    """Calls of a named tool whose name or arguments are not what its schema allows, plain and streamed.

    Args:
        blank: words that are biased away: JSON allows any white space, and a model that was never taught to call tools
            would fill its answer with it.
    """
    over = http(served)
    body = {
        "model": over.model, "messages": [{"role": "user", "content": "What is the weather in Paris?"}], "max_tokens": 160,
        "temperature": 0.0, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "logit_bias": {str(i): -100 for i in blank},
    }  # fmt: skip
    route, rows, told = "/v1/chat/completions", [], {}
    asked: dict[str, Callable[[], list[dict[str, str]]]] = {
        "plain": lambda: _whole_calls(over.client.post(route, body)),
        "streamed": lambda: _streamed_calls(over.client.stream(route, {**body, "stream": True})),
    }
    for name, ask in asked.items():
        try:
            told[name] = ask()
            why = _wrong_calls(told[name])
        except SHAPE as error:
            why = misshapen(error)
        if why:
            rows.append(Row(name, 1.0, why))
    if not rows:
        plain, streamed = (told[name][0]["arguments"] for name in asked)
        if json.loads(plain) != json.loads(streamed):
            rows.append(Row("streamed", 1.0, f"{streamed}, unstreamed {plain}"))
    return Measurement.counted("tools.wrong", rows, n=2, of="calls", calls=told.get("plain", []))


def _whole_calls(found: Mapping[str, Any]) -> list[dict[str, str]]:
    [choice] = found["choices"]
    return [call["function"] for call in choice["message"].get("tool_calls") or []]


def _streamed_calls(events: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for event in events:
        for choice in event.get("choices", []):
            for part in choice["delta"].get("tool_calls") or []:
                one = found.setdefault(part.get("index", 0), {"name": "", "arguments": ""})
                for key in one:
                    one[key] += (part.get("function") or {}).get(key) or ""
    return [found[i] for i in sorted(found)]


def _wrong_calls(calls: Sequence[Mapping[str, str]]) -> str:
    if [call["name"] for call in calls] != ["get_weather"]:
        return f"called {[call['name'] for call in calls]}, asked for get_weather"
    try:
        given = json.loads(calls[0]["arguments"])
    except (TypeError, ValueError) as error:  # another type than text, or no JSON
        return f"arguments {calls[0]['arguments']!r} are no JSON: {error}"
    right = (
        isinstance(given, dict) and set(given) == {"city", "days"} and given["city"] in ("Paris", "Berlin")
        and type(given["days"]) is int and 1 <= given["days"] <= 7
    )  # fmt: skip
    return "" if right else f"arguments {given!r} are not what the schema allows"
