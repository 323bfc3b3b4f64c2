"""What the API promises: right servers are quiet, and each way of being wrong is named."""

import contextlib
import json
import threading

import pytest

from pytest_npuconf.cards.schema import Message, Sample
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.served import Answer
from pytest_npuconf.engines.server_engine import HttpServed
from pytest_npuconf.errors import EngineError, ServerError
from pytest_npuconf.serving import api
from tests.told_server import ToldServer

DOCUMENTS = [Document(f"d{i}", "text", "", tuple(range(i, i + 200))) for i in range(4)]
SAMPLES = (
    Sample("capital", (Message("user", "France?"),), 8, contains=("Paris",)),
    Sample("quiet", (Message("system", "s"), Message("user", "sum?")), 5, thinking=False, contains=("4",)),
)
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@pytest.fixture
def served():
    """A server in a mode that says what the routes say; each is a value or a function of the body."""
    with contextlib.ExitStack() as stack:

        def start(routes, mode="generate", timeout=10.0):
            server = stack.enter_context(ToldServer(routes))
            found = HttpServed(server.url, "m", mode, "float32", None, None, 0.0, timeout)
            stack.callback(found.close)
            found.server = server
            return found

        yield start


def test_what_has_no_api_cannot_be_asked():
    class Offline:
        name = "vllm"

    with pytest.raises(EngineError, match="engine vllm has no API") as caught:
        api.routes(Offline())
    assert caught.value.mend == "--npuconf-engine server"


# ---------------------------------------------------------------- routes

OF_MODE = {"generate": (COMPLETIONS, CHAT), "embed": ("/v1/embeddings", "/rerank", "/score")}


@pytest.mark.parametrize("mode", OF_MODE)
def test_routes_of_a_mode(served, mode):
    measured = api.routes(served({route: {} for route in OF_MODE[mode]}, mode))
    assert (measured.value, measured.n) == (0, 5)
    assert sorted(measured.data["statistics"].values()) == [200] * len(OF_MODE[mode]) + [404] * (5 - len(OF_MODE[mode]))


def test_a_route_that_is_broken_missing_or_too_many(served):
    wrong = served({COMPLETIONS: (500, {}), "/score": {}, CHAT: (422, {})})
    measured = api.routes(wrong)
    assert [(row.place, row.value) for row in measured.rows] == [
        (f"POST {COMPLETIONS}", 500),
        (f"POST {CHAT}", 422),
        ("POST /score", 200),
    ]
    assert measured.worst.detail == "expected 200 in mode generate"
    assert measured.value == measured.data["rows_total"] == 3


def test_a_route_that_never_answers_is_an_error(served):
    with pytest.raises(ServerError) as caught:
        api.routes(served({COMPLETIONS: None}))
    assert caught.value.kind == "closed"


# ---------------------------------------------------------------- ends

TEXT = "The quick brown fox jumps over the lazy dog and then it sleeps"
ENDS = {98, 99}  # tokens that end a turn


class Ends:
    """Honours a stop string; ``wrong`` may change any answer, the whole one first."""

    name = "vllm"

    def __init__(self, wrong=lambda _, answer: answer, text=TEXT, said=None):
        self.wrong, self.text, self.number = wrong, text, 0
        self.said = said or Answer("Paris", (5, 99), (), "stop")

    def complete(self, asks, together=1):
        [ask] = asks
        self.number += 1
        if not ask.stop:
            whole = Answer(self.text, tuple(range(ask.max_tokens)), (), "length")
            return [self.wrong(self.number, whole)]
        return [self.wrong(self.number, Answer(self.text[: self.text.index(ask.stop[0])], (), (), "stop"))]

    def chat(self, messages, max_tokens, thinking):
        return self.said


def test_right_ends():
    measured = api.stops(Ends(), DOCUMENTS, SAMPLES, ENDS)
    assert (measured.value, measured.n) == (0, 4)
    assert api.stops(Ends(), DOCUMENTS, (), ENDS).n == 2


@pytest.mark.parametrize(
    ("number", "wrong", "said"),
    [
        (1, lambda a: Answer(a.text, a.ids, (), "stop"), "64 tokens were asked for; finish_reason 'stop'"),
        (1, lambda a: Answer(a.text, a.ids[:-1], (), "length"), "64 tokens were asked for"),
        (2, lambda a: Answer(a.text + "fox", (), (), "stop"), "expected it to end with"),
        (2, lambda a: Answer(a.text[:-1], (), (), "stop"), "expected it to end with"),
        (2, lambda a: Answer(a.text, (), (), "length"), "finish_reason 'length'"),
    ],
)
def test_a_wrong_end_is_found(number, wrong, said):
    measured = api.stops(Ends(lambda n, a: wrong(a) if n == number else a), DOCUMENTS, (), ENDS)
    assert measured.value == 1
    assert said in measured.worst.detail


@pytest.mark.parametrize("number", [1, 2])
def test_an_end_that_was_lost_is_no_measurement(number):
    lost = Ends(lambda n, a: Answer(error="closed: cut") if n == number else a)
    assert api.stops(lost, DOCUMENTS, (), ENDS).broken == "closed: cut"


@pytest.mark.parametrize("text", ["", "a b c d", "天空 x", "\ufffd\ufffd\ufffd ab \ufffd\ufffdab"])
def test_a_text_without_a_word_to_stop_at_is_an_error(text):
    with pytest.raises(EngineError, match="no word to stop at"):
        api.stops(Ends(text=text), DOCUMENTS, (), ENDS)


@pytest.mark.parametrize(
    ("ids", "finish"),
    [((5, 99), "stop"), ((99,), "stop"), ((5, 6, 7, 8, 9, 10, 11, 98), "stop"), (tuple(range(8)), "length")],
)
def test_a_turn_that_ends_or_runs_out_of_tokens(ids, finish):
    """The sample has 8 tokens."""
    assert api.stops(Ends(said=Answer("text", ids, (), finish)), DOCUMENTS, SAMPLES[:1], ENDS).value == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer("a", (5, 99, 6), (), "stop"), "goes on after token 1, 99, which ends a turn"),
        (Answer("a", (99, 5, 99), (), "stop"), "goes on after token 0, 99"),
        (Answer("a", (5, 99), (), "length"), "ends its turn, finish_reason 'length'"),
        (Answer("a", (5, 6), (), "stop"), "2 tokens of 8, none ends a turn, finish_reason 'stop'"),
        (Answer("a", (5, 6), (), "length"), "2 tokens of 8, none ends a turn, finish_reason 'length'"),
        (Answer("a", tuple(range(8)), (), "stop"), "8 tokens of 8, none ends a turn, finish_reason 'stop'"),
        (Answer("a", (), (), "stop"), "0 tokens of 8"),
        (Answer(error="status: no template"), "status: no template"),
    ],
)
def test_a_turn_that_ends_wrongly(answer, said):
    measured = api.stops(Ends(said=answer), DOCUMENTS, SAMPLES[:1], ENDS)
    assert (measured.value, measured.worst.place) == (1, "end of the turn, capital")
    assert said in measured.worst.detail


# ---------------------------------------------------------------- streams


def chat_of(text, usage=(4, 2), finish="stop", **message):
    return {
        "choices": [{"message": {"content": text, **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]},
    }


def deltas(*texts, usage=(4, 2), finish=("stop",), **more):
    events = [{"choices": [{"delta": {"content": t, **more}, "finish_reason": None}], "usage": None} for t in texts]
    events += [{"choices": [{"delta": {}, "finish_reason": f}]} for f in finish]
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]} if usage else None
    return [*events, {"choices": [], "usage": counts}]


def talks(whole=chat_of, stream=deltas, odd=bool):
    """Says the forced text, or ``Paris``; wrong only where ``odd``."""

    def say(body):
        text = body.get("structured_outputs", {"choice": ["Paris"]})["choice"][0]
        if not odd(body):
            return deltas(text[:2], text[2:]) if body.get("stream") else chat_of(text)
        told, given = (stream, (text[:2], text[2:])) if body.get("stream") else (whole, (text,))
        return told(*given) if callable(told) else told

    return {CHAT: say}


def first_sample(body):
    return body["messages"][0]["content"] == "France?"


def test_right_streams(served):
    right = served(talks())
    measured = api.streams(right, SAMPLES)
    assert (measured.value, measured.n) == (0, len(SAMPLES) + len(api.FORCED))
    asked = [body for body in right.server.bodies(CHAT) if body.get("stream")]
    assert all(body["stream_options"] == {"include_usage": True} for body in asked)
    assert api.streams(served(talks()), ()).n == len(api.FORCED)


def test_a_thought_is_streamed_in_a_field_of_its_own(served):
    routes = talks(
        lambda t: chat_of(t, reasoning="why"),
        lambda *ts: [{"choices": [{"delta": {"reasoning": "w"}}]}, {"choices": [{"delta": {"reasoning": "hy"}}]}, *deltas(*ts)],
    )  # fmt: skip
    assert api.streams(served(routes), SAMPLES).value == 0
    lost = talks(lambda t: chat_of(t, reasoning="why"))
    assert "from letter 0" in api.streams(served(lost), ()).worst.detail


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (deltas("Pa", "ri"), "from letter 4: streamed 'Pari', unstreamed 'Paris'"),
        (deltas("Pa", "Pa", "ris"), "from letter 2"),
        (deltas("Pa", "ris!"), "from letter 5: streamed 'Paris!', unstreamed 'Paris'"),
        (deltas("ris", "Pa"), "from letter 0"),
        (deltas("Pa", "\ufffd\ufffd"), "a broken letter in 'Pa"),
        (deltas("Pa", "ris", finish=()), "finish_reason [] streamed, 'stop' unstreamed"),
        (deltas("Pa", "ris", finish=("stop", "stop")), "finish_reason ['stop', 'stop'] streamed"),
        (deltas("Pa", "ris", finish=("length",)), "finish_reason ['length'] streamed, 'stop' unstreamed"),
        (deltas("Pa", "ris", usage=None), "usage [] streamed, (4, 2) unstreamed"),
        (deltas("Pa", "ris")[:-1], "usage [] streamed, (4, 2) unstreamed"),
        (deltas("Pa", "ris", usage=(4, 3)), "usage [(4, 3)] streamed"),
        ([*deltas("Pa", "ris"), deltas("Pa", "ris")[-1]], "usage [(4, 2), (4, 2)] streamed"),
        ([], "from letter 0: streamed '', unstreamed 'Paris'"),
        ([{"choices": [{"text": "Pa"}]}], "not-openai: KeyError: 'delta'"),
        ([{"choices": [{"delta": None}]}], "not-openai: AttributeError"),
        ([{"usage": {}, "choices": []}, *deltas("Pa", "ris", usage=None)], "usage [] streamed"),
        ([*deltas("Pa", "ris")[:-1], {"choices": [], "usage": {"total_tokens": 6}}], "not-openai: KeyError: 'prompt_tokens'"),
        (b"data: {nothing\n\ndata: [DONE]\n\n", "malformed-stream: "),
        ([{"error": {"message": "cut"}}], "status: "),
        ((500, {"error": {"message": "x"}}), "status: "),
        (None, "closed: "),
        (chat_of("Paris"), "malformed-stream: "),
    ],
)  # fmt: skip
def test_a_wrong_stream_is_found_and_the_others_are_still_asked(served, stream, said):
    measured = api.streams(served(talks(stream=stream, odd=first_sample)), SAMPLES)
    assert [row.place for row in measured.rows] == ["capital"]
    assert said in measured.worst.detail


@pytest.mark.parametrize(
    ("whole", "said"),
    [
        (chat_of("Paris."), "from letter 5"),
        ({"choices": []}, "not-openai: ValueError"),
        ({}, "not-openai: KeyError: 'choices'"),
        ({**chat_of("Paris"), "usage": None}, "not-openai: TypeError"),
        ({"choices": chat_of("Paris")["choices"]}, "not-openai: KeyError: 'usage'"),
        ({**chat_of("Paris"), "choices": [{"finish_reason": "stop"}]}, "not-openai: KeyError: 'message'"),
    ],
)
def test_a_wrong_whole_answer_is_found_too(served, whole, said):
    measured = api.streams(served(talks(whole=whole, odd=first_sample)), SAMPLES)
    assert [row.place for row in measured.rows] == ["capital"]
    assert said in measured.worst.detail


def test_a_text_that_was_not_allowed_is_found(served):
    free = {CHAT: lambda body: deltas("Sure") if body.get("stream") else chat_of("Sure")}
    measured = api.streams(served(free), ())
    assert measured.value == len(api.FORCED)
    assert measured.worst.detail == f"unstreamed 'Sure' where only {api.FORCED[0]!r} was allowed"


def test_a_stream_that_hangs_ends_the_check(served):
    over = threading.Event()
    stuck = served({CHAT: lambda _: over.wait(5) and None}, timeout=0.2)
    with pytest.raises(ServerError) as caught:
        api.streams(stuck, SAMPLES)
    over.set()
    assert (caught.value.kind, len(stuck.server.bodies(CHAT))) == ("timeout", 1)


# ---------------------------------------------------------------- counts


class Counts:
    """Counts its tokens; ``wrong`` may change an answer."""

    def __init__(self, wrong=lambda _, answer: answer):
        self.wrong, self.number = wrong, 0

    def complete(self, asks, together=1):
        return [self._one(len(a.ids), tuple(range(a.max_tokens))) for a in asks]

    def chat(self, messages, max_tokens, thinking):
        return self._one(len(messages) + thinking, (1, 2))

    def _one(self, prompt, ids):
        self.number += 1
        return self.wrong(self.number, Answer("", ids, (), "length", prompt, len(ids)))


CHATS = {s.name: (s, [0] * (len(s.messages) + s.thinking)) for s in SAMPLES}


def test_right_counts():
    measured = api.usage(Counts(), DOCUMENTS, CHATS)
    assert (measured.value, measured.n) == (0, 11)


def test_documents_shorter_than_asked_for_are_counted_as_they_are():
    short = [Document("d", "text", "", (1, 2, 3))]
    assert api.usage(Counts(), short, {}).value == 0
    assert api.usage(Counts(), short, {}).n == 3


@pytest.mark.parametrize(
    ("number", "wrong", "said"),
    [
        (1, {"prompt_tokens": 2}, "usage says 2 tokens of the prompt, it has 1"),
        (2, {"completion_tokens": 6}, "usage says 6 tokens of the answer, it has 5"),
        (3, {"prompt_tokens": None}, "usage says None tokens of the prompt, it has 128"),
        (10, {"prompt_tokens": 9}, "usage says 9 tokens of the prompt, it has 2"),
        (10, {"completion_tokens": 1}, "usage says 1 tokens of the answer, it has 2"),
        (11, {"error": "status: no"}, "status: no"),
    ],
)
def test_a_wrong_count_is_found(number, wrong, said):
    def change(n, answer):
        return Answer(**{**vars(answer), **wrong}) if n == number else answer

    measured = api.usage(Counts(change), DOCUMENTS, CHATS)
    assert (measured.value, measured.worst.detail) == (1, said)


def test_an_answer_whose_ids_are_not_told_is_counted_by_its_prompt():
    untold = Counts(lambda n, a: Answer("text", (), (), "stop", a.prompt_tokens, 77) if n > 9 else a)
    assert api.usage(untold, DOCUMENTS, CHATS).value == 0


# ---------------------------------------------------------------- tools

CALL = {"name": "get_weather", "arguments": '{"city": "Paris", "days": 1}'}


def whole_call(*calls):
    return {"choices": [{"message": {"content": None, "tool_calls": [{"function": c} for c in calls] or None}}]}


def streamed_call(*calls):
    def event(place, **function):
        return {"choices": [{"delta": {"tool_calls": [{"index": place, "function": function}]}}]}

    events = [{"choices": [{"delta": {"role": "assistant"}}]}]
    for place, call in enumerate(calls):
        half = len(call["arguments"]) // 2
        events += [event(place, name=call["name"]), event(place, arguments=call["arguments"][:half])]
        events += [event(place, name=None, arguments=call["arguments"][half:])]
    return [*events, {"choices": []}]


def caller(whole, stream):
    return {CHAT: lambda body: stream if body.get("stream") else whole}


def test_a_right_call(served):
    right = served(caller(whole_call(CALL), streamed_call(CALL)))
    measured = api.tools(right, [3, 9])
    assert (measured.value, measured.n, measured.data["calls"]) == (0, 2, [CALL])
    assert right.server.bodies(CHAT)[0]["logit_bias"] == {"3": -100, "9": -100}


def arguments(text):
    return {**CALL, "arguments": text}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (arguments(""), "are no JSON"),
        (arguments('{"city": "Paris", "days": 1'), "are no JSON"),
        (arguments('{"city": "Paris"}'), "not what the schema allows"),
        (arguments('{"city": "Paris", "days": 8}'), "not what the schema allows"),
        (arguments('{"city": "Paris", "days": true}'), "not what the schema allows"),
        (arguments('{"city": "Paris", "days": "1"}'), "not what the schema allows"),
        (arguments('{"city": "London", "days": 1}'), "not what the schema allows"),
        (arguments('{"city": ["Paris"], "days": 1}'), "not what the schema allows"),
        (arguments('{"city": "Paris", "days": 1, "unit": "C"}'), "not what the schema allows"),
        (arguments("[]"), "not what the schema allows"),
        (arguments("null"), "not what the schema allows"),
        ({**CALL, "name": "get_time"}, "called ['get_time']"),
    ],
)
def test_a_wrong_call_is_found_plain_and_streamed(served, call, said):
    plain = api.tools(served(caller(whole_call(call), streamed_call(CALL))), [])
    assert [row.place for row in plain.rows] == ["plain"]
    assert said in plain.worst.detail
    streamed = api.tools(served(caller(whole_call(CALL), streamed_call(call))), [])
    assert [row.place for row in streamed.rows] == ["streamed"]
    assert said in streamed.worst.detail


@pytest.mark.parametrize(
    ("whole", "said"),
    [
        (whole_call(), "called [], asked for get_weather"),
        (whole_call(CALL, CALL), "called ['get_weather', 'get_weather']"),
        (whole_call(arguments({"city": "Paris", "days": 1})), "are no JSON"),
        (whole_call(arguments(None)), "are no JSON"),
        (whole_call({"name": "get_weather"}), "not-openai: KeyError: 'arguments'"),
        (whole_call(None), "not-openai: TypeError"),
        ({"choices": []}, "not-openai: ValueError"),
        ({"choices": [{"text": "a"}]}, "not-openai: KeyError: 'message'"),
        ((500, {"error": {"message": "the parser broke"}}), "the parser broke"),
        (None, "closed: "),
    ],
)
def test_a_call_of_another_shape_or_none_is_found(served, whole, said):
    measured = api.tools(served(caller(whole, streamed_call(CALL))), [])
    assert [row.place for row in measured.rows] == ["plain"]
    assert said in measured.worst.detail


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        ([], "called [], asked for get_weather"),
        (streamed_call(CALL, CALL), "called ['get_weather', 'get_weather']"),
        ([{"choices": None}], "not-openai: TypeError"),
        ([{"choices": [{"delta": None}]}], "not-openai: AttributeError"),
        (whole_call(CALL), "malformed-stream: "),
        ((500, {"error": {"message": "no"}}), "status: "),
    ],
)
def test_a_streamed_call_of_another_shape_is_found(served, stream, said):
    measured = api.tools(served(caller(whole_call(CALL), stream)), [])
    assert [row.place for row in measured.rows] == ["streamed"]
    assert said in measured.worst.detail


def test_the_streamed_call_must_be_the_plain_one_whatever_its_spaces(served):
    spaced = arguments(json.dumps(json.loads(CALL["arguments"]), indent=2))
    assert api.tools(served(caller(whole_call(CALL), streamed_call(spaced))), []).value == 0
    other = arguments('{"city": "Berlin", "days": 1}')
    measured = api.tools(served(caller(whole_call(CALL), streamed_call(other))), [])
    assert "Berlin" in measured.worst.detail
    assert "unstreamed" in measured.worst.detail


def test_blanks_are_white_space_and_nothing_else():
    words = ["", " ", "a", "\n", " a", "\t \n", "\u3000"]

    class Tokenizer:
        def __init__(self, words):
            self.words = words

        def __len__(self):
            return len(self.words)

        def batch_decode(self, rows):
            return [self.words[i] for [i] in rows]

    assert api.blanks(Tokenizer(words)) == [1, 3, 5, 6]
    assert len(api.blanks(Tokenizer([" "] * 1000))) == api.MOST_BIASES
