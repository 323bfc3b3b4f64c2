"""docs/ascend.md and its Chinese twin: the same steps, commands that exist, the errors of our source, the audit's versions."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_npuconf.audit.data import chips, versions
from pytest_npuconf.cards import find_card
from pytest_npuconf.cli import _parser
from pytest_npuconf.devices.simulated.backend import FIRST_TORCH

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pytest_npuconf"
PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("ascend.md", "ascend.zh.md")}
RELEASE = "0.18.0"  # of vllm-ascend, whose row the page gives

# Where a run on the way of the page can be refused: every error of these files has to stand on it.
STARTING = [
    *sorted(path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "devices").rglob("*.py")),
    "option_values.py", "options.py", "plan.py", "report/evidence.py", "run_plugin.py", "collection.py", "doctor/command.py",
    "cards/loading.py", "cards/decisions.py", "cards/toml_reader.py",
    "weights/search.py", "weights/checkpoint.py", "engines/transformers_engine.py", "references/choose.py",
    "references/packs.py", "references/sealed.py", "references/store.py",
]  # fmt: skip
KINDS = (
    "DeviceError",
    "SettingsError",
    "CardError",
    "WeightsError",
    "EngineError",
    "BaselineError",
    "OldBaselineError",
)
ELSEWHERE = {"devices/cuda.py": "the page is about an NPU"}
# Templates without words of their own: what follows is another error's text, or the reason from outside.
WORDLESS = {"…: …", "…: … …", "…"}
CARD_LINE = "…:…: … …"  # the card's file, line, key and what is wrong with it


def template(node, module):
    """The message as the page quotes it: constants of the module filled in, the first of two
    constants, ``…`` for all else that varies."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part, module) for part in node.values)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.IfExp):
        return template(node.value.body, module)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        known = getattr(module, node.value.id, None)
        return known if isinstance(known, str) and node.value.id.isupper() else "…"
    return "…"


def messages(relative, kinds):
    """Messages of the errors that a file makes, raised there or returned to be raised."""
    dotted = relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    module = importlib.import_module(f"pytest_npuconf.{dotted}")
    tree = ast.parse((PACKAGE / relative).read_text(encoding="utf-8"))
    return [
        template(node.args[0], module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds
    ]


def damages(relative):
    """What ``damaged(path, what)`` says of a stored file, in the same form."""
    module = importlib.import_module(f"pytest_npuconf.{relative.removesuffix('.py').replace('/', '.')}")
    return [
        f"…: {template(node.args[1], module)}"
        for node in ast.walk(ast.parse((PACKAGE / relative).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "damaged"
    ]


OURS = {
    (relative, text)
    for relative in STARTING
    if relative not in ELSEWHERE
    for text in messages(relative, KINDS)
    if text.strip() not in WORDLESS
}
DAMAGED = ("references/sealed.py", "references/baseline.py")
OURS |= {(relative, text) for relative in DAMAGED for text in damages(relative)}
VALUES = {("option_values.py", text) for text in messages("option_values.py", ("ValueError",)) if text not in WORDLESS}


def section(text, number):
    return re.search(rf"^## {number}\. .*?(?=^## )", text, re.MULTILINE | re.DOTALL).group()


def quotes(text):
    """The first cells of the tables of errors, split into their quotes."""
    rows = [line for line in section(text, 7).splitlines() if line.startswith("| `")]
    cells = [re.match(r"\| (.*?) \| ", row).group(1).split("<br>") for row in rows]
    assert all(re.fullmatch(r"`` .* ``|`[^`]+`", each) for cell in cells for each in cell)
    return [[each.strip("`").strip() if not each.startswith("`` ") else each[3:-3] for each in cell] for cell in cells]


def blocks(text):
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text):
    return [shlex.split(line) for block in blocks(text) for line in block.replace("\\\n", " ").splitlines()]


ENGLISH, CHINESE = PAGES.values()
QUOTES = [quote for cell in quotes(ENGLISH) for quote in cell]


def test_both_pages_have_the_same_sections_tables_and_links():
    def shape(text):
        headings = re.findall(r"^(#+) (?:(\d+)\.)?", text, re.MULTILINE)
        tables = [line.count("|") for line in text.splitlines() if line.startswith("|")]
        links = [link for link in re.findall(r"\]\((.*?)\)", text) if not link.startswith("ascend")]
        return headings, tables, links

    assert shape(ENGLISH) == shape(CHINESE)
    assert [number for _, number in shape(ENGLISH)[0] if number] == list("1234567")


def test_both_pages_have_the_same_commands():
    assert blocks(ENGLISH) == blocks(CHINESE)
    assert len(blocks(ENGLISH)) >= 9


def test_both_pages_quote_the_same_errors_once_each():
    assert quotes(ENGLISH) == quotes(CHINESE)
    assert len(QUOTES) == len(set(QUOTES))


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_error_begins_like_one_of_ours(quote):
    assert quote == CARD_LINE or len(re.sub(r"\W|…", "", quote)) >= 7, "too short to be found"
    assert [text for _, text in OURS | VALUES if text.startswith(quote.removesuffix("…"))]


@pytest.mark.parametrize(("relative", "text"), sorted(OURS | VALUES))
def test_every_error_on_the_way_is_on_the_page(relative, text):
    assert [quote for quote in QUOTES if text.startswith(quote.removesuffix("…"))], f"{relative}: {text}"


def test_the_scan_sees_the_errors_it_is_about():
    devices = [text for relative, text in OURS if relative.startswith("devices/")]
    assert len(devices) >= 9
    assert sum("`import torch` failed" in text for text in devices) == 1
    assert len(OURS) >= 80


def test_every_npuconf_command_is_one_that_its_parser_takes():
    found = [words[1:] for words in commands(ENGLISH) if words[0] == "npuconf"]
    assert {words[0] for words in found} == {"pack", "install", "doctor"}
    for words in found:
        _parser().parse_args(words)


def inline(text):
    """Options in the text and the tables, of pytest, npuconf and pip alike."""
    outside = re.sub(r"^```sh\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return {
        word for span in re.findall(r"`([^`\n]+)`", outside) for word in re.findall(r"(?<!\S)--[a-z][a-z_-]*", span)
    }


def test_every_option_of_the_page_exists():
    helped = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=True, cwd=ROOT / "docs"
    ).stdout
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", helped))
    asked = {
        word.partition("=")[0]
        for words in commands(ENGLISH)
        if Path(words[0]).name == "pytest"
        for word in words[1:]
        if word.startswith("--")
    }
    assert {"--npu", "--model", "--npuconf-simulate", "--junitxml"} <= asked
    own = {option for option in known if option.startswith("--npuconf-")} | {"--npu", "--model"}
    doctor_and_packs = {"--device", "--model", "--precision", "--baselines", "--into"}
    pip_and_others = {
        "--no-deps", "--python-version", "--index-url", "--no-index", "--find-links", "--local_dir", "--local-dir",
    }  # fmt: skip
    # pytest's help writes --junit-xml and takes both
    assert asked - known <= {"--junitxml"}
    for text in PAGES.values():
        assert inline(text) <= own | doctor_and_packs | pip_and_others


@pytest.mark.parametrize(("options", "prefixed"), [(["-p", "no:npuconf"], ""), ([], "1")])
def test_without_the_plugin_or_its_short_names_pytest_says_what_the_page_says(options, prefixed, tmp_path, monkeypatch):
    words = "error: unrecognized arguments: --npu"
    assert all(words in text for text in PAGES.values())
    monkeypatch.setenv("NPUCONF_PREFIXED_ONLY", prefixed)
    command = [sys.executable, "-m", "pytest", *options, "--npu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 4
    assert words in done.stderr


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES)
def test_the_versions_are_the_audits(text):
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section(text, 1).splitlines() if "|" in line
    ]
    (release,) = [each for each in versions().vllm_ascend if each.version == RELEASE]
    requires = dict(release.requires)
    table = {re.split(r"[ ((]", row[0])[0]: row[1] for row in rows}
    assert table["torch"] == release.torch == requires["torch"].removeprefix("==")
    assert table["torch_npu"] == requires["torch_npu"].removeprefix("==")
    assert release.torch_npu in section(text, 1)  # the table of the documents says a later build
    assert table["numpy"] == requires["numpy"]
    assert table["transformers"] == requires["transformers"]
    assert release.python == ">=3.10,<3.12"
    assert table["Python"] == "3.10, 3.11"
    assert re.findall(r"\d+\.\d+\.\d+", table["vllm-ascend"]) == [RELEASE, *release.vllm]
    cann = [row[1] for row in rows if row[0].startswith(("CANN", "nnal", "对应芯片"))]
    assert [re.match(r"\d+\.\d+\.\d+", cell).group() for cell in cann] == [release.cann] * 3
    (driver,) = [each for each in chips().drivers if each.cann == "8.5.0"]
    (told,) = [row[1] for row in rows if "HDK" in row[0]]
    assert re.findall(r"\b25\.\d", told) == [min(driver.hdk), max(driver.hdk)]
    assert driver.cann in told


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES)
def test_the_commands_name_the_same_versions(text):
    (release,) = [each for each in versions().vllm_ascend if each.version == RELEASE]
    requires = dict(release.requires)
    named = [word for words in commands(text) for word in words]
    assert {word for word in named if word.startswith("torch==")} == {f"torch{requires['torch']}"}
    assert {word for word in named if word.startswith("torch-npu")} == {f"torch-npu{requires['torch_npu']}"}
    assert {word for word in named if word.startswith("transformers")} == {f"transformers{requires['transformers']}"}
    assert {word for word in named if word.startswith("torch>")} == {f"torch>={FIRST_TORCH}"}
    assert f"modelscope download --model {find_card('mem-agent').weights.modelscope} " in text


def test_readme_links_both_pages():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"](docs/{name})" in readme for name in PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_local_links_lead_somewhere(name):
    for link in re.findall(r"\]\((?!http)([^)#]+)", PAGES[name]):
        assert (ROOT / "docs" / link).is_file(), link
