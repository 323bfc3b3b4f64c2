"""The examples of README and docs run as tests, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_npuconf.cards import find_card
from pytest_npuconf.checks import CHECKS, required_ids
from pytest_npuconf.options import CACHE_VARIABLE, OPTIONS, PREFIXED_ONLY, WEIGHTS_VARIABLE
from tests.told_server import ToldServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
]


def answered(body):
    """A streamed answer of as many tokens as were asked for; a whole one where it is not to be streamed."""
    usage = {"prompt_tokens": 1, "completion_tokens": body["max_tokens"]}
    if body.get("stream"):
        return [{"choices": [{"text": "a"}]}, {"choices": [], "usage": usage}]
    return {"choices": [{"text": "a", "token_ids": [1], "finish_reason": "length"}], "usage": usage}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_run(run, pytester, example):
    pytester.makepyfile(test_example=example)
    needs_model = (
        ("--model", "card.toml", "--npuconf-precision", "float32") if re.search("npu_engine|npu_load", example) else ()
    )
    served = {"/v1/models": {"data": [{"id": "tiny", "max_model_len": 512}]}, "/v1/completions": answered}
    with ToldServer(served) as server:
        at = ("--npuconf-engine", "server", "--npuconf-endpoint", server.url) if "npu_load" in example else ()
        result = run(*needs_model, *at, "test_example.py")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] == len(re.findall(r"^def test_", example, re.M))


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


def test_the_ten_line_card_of_the_readme_loads(tmp_path):
    from pytest_npuconf.cards import load_card

    block = re.search(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S).group(1)
    (tmp_path / "card.toml").write_text(block)
    assert load_card(tmp_path / "card.toml").name == "my-model"


def test_options_page_names_every_option_and_variable():
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    for name in [*(option.flag for option in OPTIONS), PREFIXED_ONLY, WEIGHTS_VARIABLE, CACHE_VARIABLE]:
        assert f"`{name}" in page


def test_baselines_page_has_the_errors_of_the_shipped_references():
    from tests.benchmarks.compact_form import table

    lines = table()
    assert len(lines) >= 2 + 4  # two models at two dtypes
    page = (ROOT / "docs" / "baselines.md").read_text(encoding="utf-8")
    assert "\n".join(lines) in page


def test_readme_names_every_check():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in CHECKS)


def test_readme_counts_the_required_checks_of_the_demo():
    card = find_card("tiny-qwen3")
    count = len(required_ids(card, "transformers", card.precisions))
    assert f": {count} of {count} required checks passed\n" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_thresholds_page_has_every_constant_with_its_value():
    from pytest_npuconf import thresholds

    page = (ROOT / "docs" / "thresholds.md").read_text(encoding="utf-8")
    constants = {name: c for name, c in vars(thresholds).items() if isinstance(c, thresholds.Constant)}
    assert constants
    for name, constant in constants.items():
        assert f"| `{name}` | {constant.value} |" in page
