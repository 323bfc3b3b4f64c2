"""The child process of engine ``vllm``: ``python -m pytest_npuconf.engines.offline_worker ARGUMENTS``, with the arguments of
vLLM's own server. It loads ``LLM`` and answers one request at a time over JSON on 127.0.0.1."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from pytest_npuconf.engines.offline import read_asks
from pytest_npuconf.engines.served import Ask

PARSERS = ("vllm.entrypoints.openai.cli_args", "vllm.entrypoints.launchers.cli_args")  # 0.18 and 0.32


class Worker:
    """The loaded model and what can be asked of it."""

    def __init__(self, llm: Any, chat_template: str | None) -> None:
        self._llm, self._template = llm, chat_template

    def about(self, _body: Mapping[str, Any]) -> dict[str, Any]:
        """How many tokens it takes."""
        return {"max_model_len": int(self._llm.llm_engine.model_config.max_model_len)}

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """All asks in one call; one that cannot be run alone is an answer with its error."""
        asks: list[Ask] = body["asks"]
        longest = self.about({})["max_model_len"]
        fitting = [ask for ask in asks if len(ask.ids) < longest]
        prompts = [{"prompt_token_ids": list(ask.ids)} for ask in fitting]
        outputs = iter(self._llm.generate(prompts, [_parameters(ask, body.get("n", 1)) for ask in fitting], use_tqdm=False)
                       if fitting else [])  # fmt: skip
        answers: list[dict[str, Any]] = []
        for ask in asks:
            answers += self._refused(ask) if len(ask.ids) >= longest else _answers(next(outputs))
        return {"answers": answers}

    def _refused(self, ask: Ask) -> list[dict[str, Any]]:
        """What vLLM itself says to a prompt that is too long."""
        try:
            output = self._llm.generate([{"prompt_token_ids": list(ask.ids)}], _parameters(ask, 1), use_tqdm=False)
        except Exception as error:  # vLLM's own class, of no common base; its words are the answer
            return [_lost(f"status: {type(error).__name__}: {error}")]
        return _answers(output[0])

    def top(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Log-probabilities of the prompt's positions and of the next token."""
        from vllm import SamplingParams

        k = body["k"]
        parameters = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=k, logprobs=k, detokenize=False)
        [output] = self._llm.generate([{"prompt_token_ids": body["ids"]}], parameters, use_tqdm=False)
        rows = [*output.prompt_logprobs[1:], output.outputs[0].logprobs[0]]
        return {"rows": [{int(i): float(one.logprob) for i, one in row.items()} for row in rows]}

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The greedy answer through the chat template."""
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=body["max_tokens"], temperature=0.0, logprobs=0)
        [output] = self._llm.chat(
            [body["messages"]], parameters, use_tqdm=False, chat_template=self._template,
            chat_template_kwargs={"enable_thinking": body["thinking"]},
        )  # fmt: skip
        return {"answers": _answers(output)}

    def embed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Embeddings of the texts, in one call."""
        outputs = self._llm.embed(list(body["texts"]), use_tqdm=False)
        return {"rows": [[float(x) for x in output.outputs.embedding] for output in outputs]}


def _parameters(ask: Ask, n: int) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        n=n, max_tokens=ask.max_tokens, temperature=ask.temperature, top_k=ask.top_k, seed=ask.seed,
        stop=list(ask.stop) or None, ignore_eos=ask.ignore_eos, logprobs=0,
    )  # fmt: skip


def _answers(output: Any) -> list[dict[str, Any]]:
    return [
        {
            "text": one.text,
            "ids": list(one.token_ids),
            "logprobs": [float(row[i].logprob) for i, row in zip(one.token_ids, one.logprobs, strict=True)],
            "finish": str(one.finish_reason),
            "prompt_tokens": len(output.prompt_token_ids),
            "completion_tokens": len(one.token_ids),
            "error": "",
        }
        for one in output.outputs
    ]


def _lost(error: str) -> dict[str, Any]:
    return {"text": "", "ids": [], "logprobs": [], "finish": "", "prompt_tokens": None, "completion_tokens": None,
            "error": error}  # fmt: skip


def load(arguments: list[str]) -> tuple[Worker, str, int]:
    """The worker, and where it is to listen.

    Args:
        arguments: of vLLM's server; its own parser reads them, so that a card needs no second spelling.
    """
    from vllm import LLM, EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    given = _server_parser()(FlexibleArgumentParser()).parse_args(arguments)
    engine = EngineArgs.from_cli_args(given)
    plain = EngineArgs(model=engine.model)
    told = {name: value for name, value in vars(engine).items() if value != getattr(plain, name)}
    template = Path(given.chat_template).read_text(encoding="utf-8") if given.chat_template is not None else None
    return Worker(LLM(**{**told, "model": engine.model}), template), given.host, given.port


def _server_parser() -> Callable[[Any], Any]:
    """vLLM's ``make_arg_parser``, wherever this version has it."""
    for name in PARSERS:
        if importlib.util.find_spec(name.rpartition(".")[0]) and importlib.util.find_spec(name):
            made: Callable[[Any], Any] = importlib.import_module(name).make_arg_parser
            return made
    raise SystemExit(f"this vLLM has none of {', '.join(PARSERS)}: its server's arguments cannot be read")


def handler(routes: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> type[BaseHTTPRequestHandler]:
    """Answers POST with JSON; an exception becomes a status 500 with its text."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply({} if self.path == "/health" else routes[self.path]({}))

        def do_POST(self) -> None:
            body = read_asks(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self._reply(routes[self.path](body))
            except Exception as error:
                self._reply({"error": {"message": f"{type(error).__name__}: {error}"}}, 500)

        def _reply(self, data: dict[str, Any], status: int = 200) -> None:
            text = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """The log is vLLM's."""

    return Handler


def main() -> None:
    worker, host, port = load(sys.argv[1:])
    routes = {f"/{verb}": getattr(worker, verb) for verb in ("about", "complete", "top", "chat", "embed")}
    HTTPServer((host, port), handler(routes)).serve_forever()


if __name__ == "__main__":
    main()
