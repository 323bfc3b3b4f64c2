"""The engine ``server`` against small real servers that are right, wrong, of another shape, or gone."""

import contextlib
import dataclasses
import json
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from pytest_npuconf.cards.schema import Card, Serving, ServingMode
from pytest_npuconf.engines import offline, offline_worker
from pytest_npuconf.engines.openai_client import Client
from pytest_npuconf.engines.served import Answer, Ask, Served, ServingFactory
from pytest_npuconf.engines.server_engine import HttpServed, ServerFactory, arguments_of, log_file, text_of_message
from pytest_npuconf.errors import EngineError, FaultError, ServerError
from pytest_npuconf.faults.base import Fault
from pytest_npuconf.options import Settings
from pytest_npuconf.progress import Progress
from tests.told_server import ToldServer

ASK = Ask((1, 2, 3), 4, ignore_eos=True)
CHOICE = {"text": " a b", "token_ids": [7, 8], "logprobs": {"token_logprobs": [-0.5, -0.25]}, "finish_reason": "length"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
GOOD = {"choices": [CHOICE], "usage": USAGE}
MISSHAPEN = {
    "nothing": {},
    "no choices": {"choices": []},
    "two choices": {"choices": [CHOICE, CHOICE]},
    "choices are null": {"choices": None},
    "a choice is text": {"choices": ["a"]},
    "a choice is null": {"choices": [None]},
    "no text": {"choices": [{"finish_reason": "stop"}]},
    "the text is null": {"choices": [{**CHOICE, "text": None}]},
    "usage is a list": {"choices": [CHOICE], "usage": [3]},
    "logprobs are a list": {"choices": [{**CHOICE, "logprobs": [1]}]},
    "ids are a number": {"choices": [{**CHOICE, "token_ids": 7}]},
}


def card(*modes, longest=None, name="m"):
    return Card(
        name, Path("card.toml"), serving=Serving(max_model_len=longest, modes=modes or (ServingMode("generate"),))
    )


def attach(url, mode="generate", *, fault=None, settings=None, mine=None):
    mine = mine or card(ServingMode(mode))
    settings = settings or Settings(models=("m",), engine="server", endpoints=((mode, url),))
    return ServerFactory().serve(
        None, mine, mine.serving.mode(mode), None, "float32", settings, Progress(lambda _: None), fault
    )


@pytest.fixture
def served():
    """An attached server that says the given things."""
    with contextlib.ExitStack() as stack:

        def start(mode="generate", **routes):
            server = stack.enter_context(ToldServer({f"/{k.replace('__', '/')}": v for k, v in routes.items()}))
            found = attach(server.url, mode)
            stack.callback(found.close)
            found.server = server
            return found

        yield start


# ---------------------------------------------------------------- attaching


def models(*ids, **more):
    return {"/v1/models": {"data": [{"id": i, "max_model_len": 64, **more} for i in ids]}}


@pytest.mark.parametrize(
    ("ids", "taken"), [(("m",), "m"), (("other", "m"), "m"), (("/data/weights",), "/data/weights")]
)
def test_the_cards_name_or_the_only_one_is_taken(ids, taken):
    with ToldServer(models(*ids)) as server, contextlib.closing(attach(server.url)) as found:
        assert (found.model, found.max_model_len) == (taken, 64)
        assert isinstance(found, Served)
        assert found.log_text() == ""


@pytest.mark.parametrize(("ids", "said"), [((), "serves nothing"), (("a", "b"), "serves a, b")])
def test_another_model_is_refused(ids, said):
    with ToldServer(models(*ids)) as server, pytest.raises(EngineError, match=said) as caught:
        attach(server.url)
    assert caught.value.mend == "start it with --served-model-name m"


def test_a_length_that_the_server_does_not_say_is_the_cards():
    with ToldServer({"/v1/models": {"data": [{"id": "m"}]}}) as server:
        with contextlib.closing(attach(server.url, mine=card(longest=32))) as found:
            assert found.max_model_len == 32
        with pytest.raises(EngineError, match="does not say how many tokens") as caught:
            attach(server.url)
    assert "[serving] max_model_len" in caught.value.mend


def test_the_servers_own_length_is_believed_before_the_cards():
    with ToldServer({}) as server, contextlib.closing(attach(server.url, mine=card(longest=32))) as found:
        assert found.max_model_len == 64


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServerError) as caught:
        attach(f"http://127.0.0.1:{port}")
    assert caught.value.kind == "refused"


class Breaks:
    """A fault of a server; says where its proxy was."""

    name, arguments = "breaks", ()

    def __init__(self, *, fails=False):
        self.fails, self.proxy = fails, None

    def inject(self, proxy):
        self.proxy = proxy
        if self.fails:
            raise FaultError("nothing to break")

    def in_front_of(self, url):
        return Fault("breaks", "", "", "nothing", self.inject, target="server").in_front_of(url)


def is_closed(proxy):
    host, port = proxy.url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


def test_a_fault_stands_between_and_ends_with_the_server():
    fault = Breaks()
    with ToldServer({"/v1/completions": GOOD}) as server:
        found = attach(server.url, fault=fault)
        assert found.url == fault.proxy.url != server.url
        assert found.complete([ASK])[0].ids == (7, 8)
        assert not is_closed(fault.proxy)
        found.close()
        found.close()
        assert is_closed(fault.proxy)


def test_the_proxy_is_closed_when_attaching_fails():
    fault = Breaks()
    with (
        ToldServer({"/v1/models": {"data": [{"id": "m"}]}}) as server,
        pytest.raises(EngineError, match="does not say"),
    ):
        attach(server.url, fault=fault)
    assert is_closed(fault.proxy)


def test_the_proxy_is_closed_when_the_fault_cannot_be_injected():
    fault = Breaks(fails=True)
    with ToldServer({}) as server, pytest.raises(FaultError, match="nothing to break"):
        attach(server.url, fault=fault)
    assert is_closed(fault.proxy)


# ---------------------------------------------------------------- the factory


def test_the_factories_are_what_they_say():
    assert isinstance(ServerFactory(), ServingFactory)
    assert isinstance(offline.OfflineFactory(), ServingFactory)


def test_an_endpoint_of_a_mode_that_the_card_has_not():
    settings = Settings(models=("m",), engine="server", endpoints=(("embed", "http://h:1"),))
    with pytest.raises(EngineError, match="m has no mode 'embed'") as caught:
        ServerFactory().check(card(ServingMode("generate"), ServingMode("score")), settings)
    assert caught.value.mend == "one of: generate, score"
    with ToldServer({}) as server:
        ServerFactory().check(
            card(ServingMode("embed")), dataclasses.replace(settings, endpoints=(("embed", server.url),))
        )


@pytest.mark.parametrize(
    ("routes", "said"), [(models("a", "b"), "serves a, b"), ({"/v1/models": (404, {})}, "/v1/models")]
)
def test_an_endpoint_is_asked_before_the_first_test(routes, said):
    with ToldServer(routes) as server:
        settings = Settings(models=("m",), engine="server", endpoints=(("generate", server.url),))
        with pytest.raises(EngineError, match=said):
            ServerFactory().check(card(), settings)


def test_an_attached_engine_tells_no_version_of_a_server_it_did_not_start():
    factory = ServerFactory()
    with ToldServer({}) as server:
        factory.check(card(), Settings(models=("m",), engine="server", endpoints=(("generate", server.url),)))
    assert set(factory.versions()) == {"torch", "transformers"}


def test_arguments_are_the_cards_then_the_modes_then_its_template(tmp_path):
    mode = ServingMode("score", ("--b", "1"), tmp_path / "t.jinja")
    mine = Card("m", tmp_path, serving=Serving(arguments=("--a",), modes=(mode,)))
    assert arguments_of(mine, mode) == ("--a", "--b", "1", "--chat-template", str(tmp_path / "t.jinja"))


def test_the_log_lies_beside_the_results_or_in_the_cache(tmp_path):
    beside = Settings(results=tmp_path / "new" / "r.json")
    assert log_file(beside, card(), "float32", ServingMode("embed")) == tmp_path / "new" / "server-m-float32-embed.log"
    kept = log_file(Settings(cache=tmp_path / "c"), card(), "float32", ServingMode("embed"))
    assert kept.parent == tmp_path / "c" / "logs"
    assert kept.parent.is_dir()


def test_the_offline_engine_has_nothing_that_a_servers_fault_could_break():
    with pytest.raises(EngineError, match="fault breaks breaks a server") as caught:
        offline.OfflineFactory().serve(None, card(), ServingMode("generate"), None, "float32", Settings(),
                                       Progress(lambda _: None), Breaks())  # fmt: skip
    assert caught.value.mend == "--npuconf-engine server"


# ---------------------------------------------------------------- completions


def test_a_completion(served):
    found = served(v1__completions=GOOD)
    assert found.complete([ASK]) == [Answer(" a b", (7, 8), (-0.5, -0.25), "length", 3, 2)]
    [body] = found.server.bodies("/v1/completions")
    assert body == {"model": "m", "prompt": [1, 2, 3], "max_tokens": 4, "temperature": 0.0, "logprobs": 0,
                    "return_token_ids": True, "ignore_eos": True}  # fmt: skip


def test_only_what_was_asked_for_is_sent(served):
    found = served(v1__completions=GOOD)
    found.complete([Ask((1,), 2, 0.5, 5, 0, ("x",))])
    [body] = found.server.bodies("/v1/completions")
    sent = {"temperature": 0.5, "top_k": 5, "seed": 0, "stop": ["x"]}
    assert {key: body[key] for key in sent} == sent
    assert "ignore_eos" not in body


def test_no_question_no_answer(served):
    assert served().complete([]) == []


def test_counts_that_are_not_told_are_none_and_never_zero(served):
    for usage in ({}, {"usage": None}, {"usage": {}}):
        [found] = served(v1__completions={"choices": [{"text": "a"}], **usage}).complete([ASK])
        assert found == Answer("a", finish="None")


def test_answers_come_in_the_order_of_the_questions_and_a_lost_one_is_an_error(served):
    def say(body):
        n = body["prompt"][0]
        told = {"choices": [{"text": str(n)}]}
        return {1: None, 3: (500, {"error": {"message": "CUDA"}}), 5: b"<html>", 7: {}}.get(n, told)

    asks = [Ask((n,), 1) for n in range(12)]
    for together in (1, 5, 12):
        found = served(v1__completions=say).complete(asks, together)
        assert [a.text for a in found] == ["" if n in (1, 3, 5, 7) else str(n) for n in range(12)]
        assert [found[n].error.split(":")[0] for n in (1, 3, 5, 7)] == ["closed", "status", "not-json", "not-openai"]
        assert not [a for n, a in enumerate(found) if a.error and n not in (1, 3, 5, 7)]


def test_a_failed_request_is_never_repeated(served):
    found = served(v1__completions=(500, {"error": {"message": "no"}}))
    found.complete([ASK])
    assert len(found.server.bodies("/v1/completions")) == 1


@pytest.mark.parametrize("name", MISSHAPEN)
def test_an_answer_of_another_shape_is_an_error(served, name):
    [found] = served(v1__completions=MISSHAPEN[name]).complete([ASK])
    assert found.error.startswith("not-openai: ")
    assert found == Answer(error=found.error)


def test_silence_ends_the_check():
    """What hangs would make each of the other requests wait as long."""
    over = threading.Event()
    with ToldServer({"/v1/completions": lambda _: over.wait(5) and None}) as server:
        settings = Settings(models=("m",), engine="server", endpoints=(("generate", server.url),), timeout=0.2)
        with contextlib.closing(attach(server.url, settings=settings)) as found, pytest.raises(ServerError) as caught:
            found.complete([ASK])
        over.set()
    assert caught.value.kind == "timeout"


def test_samples_are_the_choices_of_one_request(served):
    found = served(v1__completions=lambda body: {"choices": [{"text": str(i)} for i in range(body["n"])]})
    assert [a.text for a in found.samples(ASK, 3)] == ["0", "1", "2"]
    assert len(found.server.bodies("/v1/completions")) == 1


@pytest.mark.parametrize("said", [{}, {"choices": None}, {"choices": {"0": 1}}])
def test_samples_without_choices(served, said):
    with pytest.raises(ServerError, match="no list of choices") as caught:
        served(v1__completions=said).samples(ASK, 3)
    assert (caught.value.kind, bool(caught.value.mend)) == ("not-openai", True)


# ---------------------------------------------------------------- log-probabilities of a prompt

LAST = {"top_logprobs": [{"token_id:9": -0.125}]}
PROMPT = [None, {"2": {"logprob": -1.0}, "5": {"logprob": -2.0}}, {"3": {"logprob": -0.5}}]


def test_rows_of_a_prompt_by_id(served):
    found = served(v1__completions={"choices": [{"prompt_logprobs": PROMPT, "logprobs": LAST}]})
    assert found.top((1, 2, 3), 1) == [{2: -1.0, 5: -2.0}, {3: -0.5}, {9: -0.125}]
    [body] = found.server.bodies("/v1/completions")
    assert (body["prompt_logprobs"], body["logprobs"], body["max_tokens"]) == (1, 1, 1)


@pytest.mark.parametrize(
    "choice",
    [
        {"text": "a"},
        {"prompt_logprobs": None, "logprobs": LAST},
        {"prompt_logprobs": PROMPT[:2], "logprobs": LAST},
        {"prompt_logprobs": PROMPT, "logprobs": None},
        {"prompt_logprobs": PROMPT, "logprobs": {"top_logprobs": []}},
    ],
)
def test_a_server_that_tells_no_log_probabilities_of_a_prompt(served, choice):
    with pytest.raises(EngineError, match="gives no log-probabilities of a prompt") as caught:
        served(v1__completions={"choices": [choice]}).top((1, 2, 3), 1)
    assert "[required] server" in caught.value.mend


@pytest.mark.parametrize(
    "said",
    [
        {"choices": []},
        {"choices": [{"prompt_logprobs": [None, None, None], "logprobs": LAST}]},
        {"choices": [{"prompt_logprobs": [None, {"2": None}, {}], "logprobs": LAST}]},
        {"choices": [{"prompt_logprobs": PROMPT, "logprobs": {"top_logprobs": [{" Paris": -1.0}]}}]},
    ],
)
def test_rows_of_another_shape(served, said):
    with pytest.raises(ServerError, match="not as OpenAI's interface says"):
        served(v1__completions=said).top((1, 2, 3), 1)


# ---------------------------------------------------------------- chats


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "a"}, "a"),
        ({"content": None}, ""),
        ({"content": "a", "reasoning": None, "reasoning_content": None}, "a"),
        ({"content": "a", "reasoning": "why"}, "<think>why</think>a"),
        ({"content": "a", "reasoning_content": "why"}, "<think>why</think>a"),
        ({"content": None, "reasoning": "why"}, "<think>why</think>"),
        ({"content": "<think>why</think>a"}, "<think>why</think>a"),
    ],
)
def test_a_thought_is_part_of_the_text_wherever_the_server_puts_it(served, message, text):
    assert text_of_message(message) == text
    said = {"choices": [{"message": message, "token_ids": [5], "finish_reason": "stop"}], "usage": USAGE}
    found = served(v1__chat__completions=said).chat([{"role": "user", "content": "q"}], 9, False)
    assert found == Answer(text, (5,), (), "stop", 3, 2)


def test_a_chat_says_whether_to_think(served):
    found = served(v1__chat__completions={"choices": [{"message": {"content": "a"}}]})
    for thinking in (True, False):
        found.chat([{"role": "user", "content": "q"}], 9, thinking)
    first, second = found.server.bodies("/v1/chat/completions")
    assert [b["chat_template_kwargs"] for b in (first, second)] == [
        {"enable_thinking": True},
        {"enable_thinking": False},
    ]
    assert (first["temperature"], first["max_tokens"], first["messages"]) == (
        0.0,
        9,
        [{"role": "user", "content": "q"}],
    )


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ((500, {"error": {"message": "no template"}}), "status: "),
        (None, "closed: "),
        (b"<html>", "not-json: "),
        ({}, "not-openai: KeyError"),
        ({"choices": []}, "not-openai: ValueError"),
        ({"choices": [{"text": "a"}]}, "not-openai: KeyError"),
        ({"choices": [{"message": None}]}, "not-openai: AttributeError"),
    ],
)
def test_a_lost_chat_is_an_answer_with_its_error(served, said, kind):
    found = served(v1__chat__completions=said).chat([], 9, False)
    assert found.error.startswith(kind)
    assert found == Answer(error=found.error)


# ---------------------------------------------------------------- embeddings


def vector(body):
    n = float(len(body["input"][0]))
    return {"data": [{"index": 0, "embedding": [n, 2 * n]}]}


def test_each_text_is_embedded_alone_and_rows_keep_their_order(served):
    found = served("embed", v1__embeddings=vector)
    assert (found.embed(["a", "bbb", "cc"], 3) == np.array([[1, 2], [3, 6], [2, 4]], dtype=np.float32)).all()
    assert [len(body["input"]) for body in found.server.bodies("/v1/embeddings")] == [1, 1, 1]


def test_no_texts_no_embeddings(served):
    assert served("embed").embed([]).shape[0] == 0


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"data": []},
        {"data": [{"index": 0}]},
        {"data": None},
        {"data": [{"embedding": "AACAPw=="}]},
        {"data": [{"embedding": [1.0, "x"]}]},
        {"data": [{"embedding": [[1.0], [1.0, 2.0]]}]},
    ],
)
def test_embeddings_of_another_shape(served, said):
    with pytest.raises(ServerError, match="not as OpenAI's interface says") as caught:
        served("embed", v1__embeddings=said).embed(["a"])
    assert caught.value.route == "/v1/embeddings"


def test_embeddings_of_several_widths(served):
    ragged = served("embed", v1__embeddings=lambda b: {"data": [{"embedding": [0.5] * len(b["input"][0])}]})
    with pytest.raises(ServerError, match="not as OpenAI's interface says"):
        ragged.embed(["a", "bb"])


def test_a_refused_embedding_is_an_error(served):
    with pytest.raises(ServerError) as caught:
        served("embed", v1__embeddings=(400, {"error": {"message": "too long"}})).embed(["a"])
    assert (caught.value.kind, caught.value.status) == ("status", 400)


# ---------------------------------------------------------------- a process that ends


class Process:
    """A server's process of which only its end is of interest."""

    def __init__(self, *, alive=True):
        self.alive, self.closed = alive, 0

    def check_alive(self):
        if not self.alive:
            raise EngineError("it ended by itself (killed by SIGKILL)")

    def log_text(self):
        return "the log"

    def close(self):
        self.closed += 1


def test_requests_that_fail_because_the_server_died_say_that_it_died():
    process = Process(alive=False)
    with ToldServer({"/v1/completions": None}) as server:
        found = HttpServed(server.url, "m", "generate", "float32", process, None, 1.0, 10.0)
        with contextlib.closing(found):
            assert found.log_text() == "the log"
            for ask in (lambda: found.complete([ASK]), lambda: found.chat([], 1, False)):
                with pytest.raises(EngineError, match="ended by itself"):
                    ask()
    assert process.closed == 1


def test_the_process_ends_although_the_proxy_does_not():
    class Stuck(Breaks):
        def inject(self, proxy):
            super().inject(proxy)
            self.close, proxy.close = proxy.close, self.refuse

        def refuse(self):
            raise OSError("stuck")

    process, fault = Process(), Stuck()
    with ToldServer({}) as server:
        found = HttpServed(server.url, "m", "generate", "float32", process, fault, 1.0, 10.0)
        with pytest.raises(OSError, match="stuck"):
            found.close()
        fault.close()
    assert process.closed == 1


# ---------------------------------------------------------------- the offline engine's wire


class Worker:
    """What the child process answers, without vLLM."""

    def about(self, _body):
        return {"max_model_len": 32}

    def complete(self, body):
        answers = []
        for ask in body["asks"]:
            assert isinstance(ask, Ask)
            answers += [{"text": "", "ids": list(ask.ids), "logprobs": [-1.0], "finish": "stop", "prompt_tokens": 1,
                         "completion_tokens": 1, "error": ""}] * body.get("n", 1)  # fmt: skip
        return {"answers": answers}

    def top(self, body):
        return {"rows": [{str(i): -1.0} for i in body["ids"]]}

    def chat(self, body):
        raise RuntimeError("no template")

    def embed(self, body):
        return {"rows": [[float(len(text)), 0.0] for text in body["texts"]]}


@pytest.fixture
def offline_served():
    worker = Worker()
    routes = {f"/{verb}": getattr(worker, verb) for verb in ("about", "complete", "top", "chat", "embed")}
    with offline_worker.HTTPServer(("127.0.0.1", 0), offline_worker.handler(routes)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        process = Process()
        client = Client(f"http://127.0.0.1:{server.server_address[1]}", timeout=10.0)
        with contextlib.closing(offline.OfflineServed(process, client, "generate", "float32", 1.0)) as found:
            yield found
        assert process.closed == 1
        server.shutdown()


def test_the_offline_engine_says_what_its_worker_says(offline_served):
    assert isinstance(offline_served, Served)
    assert offline_served.max_model_len == 32
    asks = [Ask((n,), 1, stop=("x",)) for n in range(5)]
    for together in (1, 2, 5, 9):
        assert [a.ids for a in offline_served.complete(asks, together)] == [(n,) for n in range(5)]
    assert len(offline_served.samples(asks[0], 4)) == 4
    assert offline_served.top((4, 2), 1) == [{4: -1.0}, {2: -1.0}]
    assert offline_served.embed(["a", "bb", "c"], 2).tolist() == [[1, 0], [2, 0], [1, 0]]


def test_an_exception_in_the_worker_is_an_error_with_its_words(offline_served):
    with pytest.raises(ServerError, match="RuntimeError: no template"):
        offline_served.chat([], 1, False)


def test_a_question_crosses_the_wire_whole():
    ask = Ask((1, 2), 3, 0.5, 4, 5, ("a", "b"), True)
    sent = json.dumps({"asks": [vars(ask)], "n": 2}).encode()
    assert offline.read_asks(sent) == {"asks": [ask], "n": 2}
