"""The command lines for vLLM against the parser of the vLLM that is installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_npuconf.cards import find_card, known_cards
from pytest_npuconf.engines.command_lines import installed_source, vllm_options
from pytest_npuconf.engines.launchers import Launch, VllmLauncher
from pytest_npuconf.engines.server_engine import arguments_of

# Imported in a process of its own: vllm changes logging, signals and threads of the one that imports it.
PARSER = """
import json, sys
asked = json.load(sys.stdin)
from vllm.utils.argparse_utils import FlexibleArgumentParser
try:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
except ImportError:  # 0.18
    from vllm.entrypoints.openai.cli_args import make_arg_parser
parser = make_arg_parser(FlexibleArgumentParser())
flags = sorted({flag for action in parser._actions for flag in action.option_strings})
parsed = []
for words in asked:
    try:
        found = parser.parse_args(words)
        parsed.append([found.model, found.host, found.port, found.dtype, found.max_model_len, found.served_model_name])
    except SystemExit:
        parsed.append(None)
print("\\n" + json.dumps({"flags": flags, "parsed": parsed}))
"""


def commands():
    """The words for every mode of the cards that are served by vLLM."""
    for name in sorted(known_cards()):
        card = find_card(name)
        if card.serving.server != "vllm":
            continue
        for mode in card.serving.modes:
            words = arguments_of(card, mode)
            launch = Launch(
                Path("/w"),
                name,
                "127.0.0.1",
                8123,
                "bfloat16",
                card.serving.max_model_len,
                words,
                trust_remote_code=True,
            )
            yield card, VllmLauncher().arguments(launch)


@pytest.fixture(scope="module")
def answers():
    asked = [words for _, words in commands()] + [["--model", "/w", "--no-such-option"]]
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PARSER],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


def test_the_reading_of_the_sources_is_the_parser(answers):
    real = set(answers["flags"]) - {"-h", "--help"}
    read = vllm_options(installed_source("vllm"))
    assert len(real) > 300
    assert real <= read.keys()
    assert {flag for flag in read if not flag.startswith("--no-")} - real == set()


def test_the_parser_takes_the_command_of_every_mode_of_every_card(answers):
    every = list(commands())
    assert {"tiny-qwen3", "smollm2-135m-instruct"} <= {card.name for card, _ in every}
    for (card, words), parsed in zip(every, answers["parsed"], strict=False):
        assert parsed is not None, words
        length = card.serving.max_model_len
        assert parsed[:4] == ["/w", "127.0.0.1", 8123, "bfloat16"], words
        assert parsed[4] == length, words
        assert parsed[5] == [card.name], words


def test_the_parser_refuses_what_it_does_not_know(answers):
    assert answers["parsed"][-1] is None


def test_the_installed_vllm_is_found_under_whatever_name_it_has():
    launcher = VllmLauncher()
    launcher.check("cpu")
    assert launcher.versions()["vllm"][0].isdigit()
