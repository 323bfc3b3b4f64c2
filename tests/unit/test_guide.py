"""docs/guide.md, gates.md, ci.md and README.zh.md: commands that exist, recipes that parse, a row for each gate, one README in
two languages. What the guide quotes is run by tests/plugin/test_docs.py."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_npuconf.audit import command as audit_command
from pytest_npuconf.cards import load_card
from pytest_npuconf.checks import CHECKS
from pytest_npuconf.cli import _parser
from pytest_npuconf.errors import CardError
from pytest_npuconf.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
GUIDE, GATES, CI = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("guide.md", "gates.md", "ci.md"))
README, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
LABEL = "ascend-npu"  # of the host with the NPU, in all recipes
EVIDENCE = ("--junitxml", "--npuconf-results", "--npuconf-report")

# what a page may call beside pytest and npuconf, whose command lines are parsed
OTHERS = {"cp", "echo", "export", "modelscope", "python", "rm", "source", "test"}
BETWEEN = {"&&", "||", ";", "|"}
# -----------------------------------------------------------------------------------------------------------------------------
# Reading the pages


def fenced(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(script):
    """The commands of a script, each as its words; redirections and variables before it left out."""
    found = []
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.strip(), posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        one, skip = [], False
        for word in [*lexer, ";"]:
            if skip:
                skip = False
            elif word in (">", ">>", "<"):
                skip = True
            elif word not in BETWEEN:
                one.append(word)
            else:
                found += [one] if one and one != ["!"] else []
                one = []
    return [words for words in (_bare(words) for words in found) if words]


def _bare(words):
    while words and (words[0] == "!" or re.fullmatch(r"[A-Z_]+=.*", words[0])):
        words = words[1:]
    return words


def yaml_scripts(text):
    """Every script of a page's YAML recipes: ``run`` of GitHub's steps, ``script`` and ``after_script`` of GitLab's jobs."""
    found = []
    for block in fenced(text, "yaml"):
        loaded = yaml.safe_load(block)
        steps = loaded if isinstance(loaded, list) else []
        if isinstance(loaded, dict):
            steps = [step for job in loaded.get("jobs", {}).values() for step in job["steps"]]
            jobs = [job for job in loaded.values() if isinstance(job, dict) and "script" in job]
            found += [line for job in jobs for part in ("script", "after_script") for line in job.get(part, ())]
        found += [step["run"] for step in steps if "run" in step]
    return found


def groovy_strings(block):
    """The texts of ``sh`` steps, as Groovy gives them to the shell."""
    texts = re.findall(r"\bsh (?:'''(.*?)'''|'([^'\n]*)')", block, re.DOTALL)
    return [(long or short).replace("\\\n", " ").removeprefix("#!/bin/bash -e\n") for long, short in texts]


SCRIPTS = [
    *(("guide.md", script) for script in fenced(GUIDE, "sh")),
    *(("gates.md", script) for script in fenced(GATES, "sh")),
    *(("ci.md", script) for script in fenced(CI, "sh")),
    *(("ci.md", script) for script in yaml_scripts(CI)),
    *(("ci.md", script) for block in fenced(CI, "groovy") for script in groovy_strings(block)),
]
COMMANDS = [(page, tuple(words)) for page, script in SCRIPTS for words in commands(script)]
UNIQUE = list(dict.fromkeys(COMMANDS))


@pytest.fixture(scope="module")
def pytest_options():
    """Every long option of pytest and the plugins that are here."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=True, cwd=ROOT / "docs"
    )
    return {*re.findall(r"(?<![\w-])--[a-z][a-z-]*", done.stdout), "--junitxml"}  # its help writes --junit-xml


# -----------------------------------------------------------------------------------------------------------------------------
# Commands


def test_the_pages_have_commands():
    assert {page for page, _ in COMMANDS} == {"guide.md", "ci.md"}
    assert len([words for _, words in UNIQUE if words[0] == "pytest"]) >= 12
    assert {words[1] for _, words in UNIQUE if words[0] == "npuconf"} >= {"audit", "bundle", "card", "doctor", "verify"}


@pytest.mark.parametrize(("page", "words"), UNIQUE, ids=[f"{p}-{shlex.join(w)[:80]}" for p, w in UNIQUE])
def test_a_command_is_one_that_its_parser_takes(page, words, pytest_options):
    if words[0] == "npuconf":
        _parser().parse_args(words[1:])
    elif words[0] == "pytest":
        check_pytest(words[1:], pytest_options)
    else:
        assert words[0] in OTHERS, f"{page}: {words[0]}"


def check_pytest(words, known):
    """Our options with values that they take, and no option that does not exist."""
    ours = {option.flag: option for option in OPTIONS} | {option.short: option for option in OPTIONS if option.short}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            continue
        flag, equals, value = word.partition("=")
        option = ours.get(flag)
        if option is None:
            assert flag == "--npu" or (flag in known and not flag.startswith("--npuconf-")), flag
        elif option.switch:
            assert not equals, word
        else:
            option.parse(value if equals else next(rest))


@pytest.mark.parametrize("text", [GUIDE, GATES, CI], ids=["guide.md", "gates.md", "ci.md"])
def test_options_in_the_text_exist(text):
    spoken = {word for span in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"(?<!\S)--[a-z][a-z-]*", span)}
    ours = {option.flag for option in OPTIONS} | {"--npu", "--model"}
    # of vLLM, npuconf load and report, pytest-benchmark, pytest
    elsewhere = ["--runner", "--convert", "--against", "--earlier", "--benchmark-save", "--benchmark-compare", "--lf"]
    assert spoken <= ours | set(elsewhere)


# -----------------------------------------------------------------------------------------------------------------------------
# The guide's cards


@pytest.mark.parametrize("number", range(len(fenced(GUIDE, "toml"))))
def test_a_card_of_the_guide_loads_but_for_the_one_with_the_typing_error(number, tmp_path):
    card = tmp_path / "card.toml"
    card.write_text(fenced(GUIDE, "toml")[number], encoding="utf-8")
    if "precision = " in card.read_text():
        with pytest.raises(CardError, match="precision is not a key of a card"):
            load_card(card)
    else:
        assert load_card(card).name == "my-model"


def test_the_whole_card_of_the_guide_states_what_its_text_says():
    whole = fenced(GUIDE, "toml")[-1]
    assert {"[size]", "[config]", "[[tokenizer_probes]]", "[[samples]]", "[[claims]]"} <= set(whole.split())


# -----------------------------------------------------------------------------------------------------------------------------
# What each gate means


def gate_rows():
    """Name to (section, cells behind the name)."""
    found = {}
    for heading, body in re.findall(r"^##+ (.*?)$(.*?)(?=^##|\Z)", GATES, re.MULTILINE | re.DOTALL):
        for line in body.splitlines():
            if line.startswith("| `"):
                name, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
                name = name.strip().strip("`")
                assert name not in found, f"{name} twice"
                found[name] = (heading, cells)
    return found


@pytest.mark.parametrize("name", [check.name for check in CHECKS.values() if check.required])
def test_a_check_that_decides_has_its_row(name):
    heading, cells = gate_rows()[name]
    assert len(cells) == 3
    assert all(len(cell) >= 8 for cell in cells), "question, what it cannot see, what to do"
    assert cells[0].endswith("?")
    assert "Reported" not in heading


def test_checks_that_only_report_stand_apart_and_nothing_else_does():
    rows = gate_rows()
    reported = {name for name, (heading, _) in rows.items() if heading.startswith("Reported")}
    assert reported == {check.name for check in CHECKS.values() if not check.required}
    assert set(rows) == set(CHECKS)


# -----------------------------------------------------------------------------------------------------------------------------
# Recipes


def recipes():
    """Fragment of steps, GitHub's workflow, GitLab's pipeline."""
    fragment, github, gitlab = (yaml.safe_load(block) for block in fenced(CI, "yaml"))
    return fragment, github, gitlab


def versions_table():
    """Action to its major version, as the page says where it was read."""
    return dict(re.findall(r"^\| `(actions/[a-z-]+)` \| (v\d+) \(", CI, re.MULTILINE))


def test_the_workflow_of_github_has_what_a_workflow_needs():
    fragment, github, _ = recipes()
    on = github.get("on", github.get(True))  # YAML 1.1 reads the word as a truth value
    assert set(on) <= {"pull_request", "push", "schedule"}
    assert set(github) - {"on", True} == {"name", "permissions", "jobs"}
    assert github["permissions"] == {"contents": "read"}
    jobs = github["jobs"]
    for job in jobs.values():
        assert job["runs-on"]
        assert job.get("needs", next(iter(jobs))) in jobs
    steps = [*fragment, *(step for job in jobs.values() for step in job["steps"])]
    for step in steps:
        assert ("uses" in step) != ("run" in step)
        assert set(step) <= {"id", "name", "if", "uses", "with", "run", "env"}
    assert jobs["npu"]["runs-on"] == ["self-hosted", "linux", "ARM64", LABEL]


def test_the_actions_have_the_versions_of_the_table():
    fragment, github, _ = recipes()
    steps = [*fragment, *(step for job in github["jobs"].values() for step in job["steps"])]
    used = {step["uses"] for step in steps if "uses" in step}
    assert used == {f"{action}@{version}" for action, version in versions_table().items()}


def test_evidence_is_kept_when_the_run_failed():
    _, github, gitlab = recipes()
    [upload] = [s for s in github["jobs"]["npu"]["steps"] if "upload-artifact" in s.get("uses", "")]
    assert upload["if"] == "always()"
    assert upload["with"]["path"] == "out/"
    assert gitlab["npu"]["artifacts"]["when"] == "always"
    [jenkins] = fenced(CI, "groovy")
    after = jenkins[jenkins.index("post {") :]
    assert after.split()[:4] == ["post", "{", "always", "{"]
    assert "archiveArtifacts artifacts: 'out/**'" in after


def test_the_pipeline_of_gitlab_has_what_a_pipeline_needs():
    _, _, gitlab = recipes()
    jobs = {name: job for name, job in gitlab.items() if name != "stages"}
    assert set(jobs) == {"card", "npu"}
    for job in jobs.values():
        assert job["stage"] in gitlab["stages"]
        assert all(isinstance(line, str) for line in job["script"])
        written = job["artifacts"]["reports"]["junit"]
        assert any(f"--junitxml={written}" in line or line.endswith(f"> {written}") for line in job["script"])
    assert jobs["npu"]["tags"] == [LABEL]
    assert jobs["card"]["allow_failure"]["exit_codes"] == [audit_command.UNSUPPORTED]


def test_the_pipeline_of_jenkins_is_nested_as_a_declarative_one_is():
    [block] = fenced(CI, "groovy")
    tree = sections(block)
    assert list(tree) == ["pipeline"]
    pipeline = tree["pipeline"]
    assert list(pipeline) == ["agent", "options", "environment", "stages", "post"]
    assert list(pipeline["stages"]) == ["stage('Install')", "stage('Card')", "stage('Judge')"]
    assert all(list(stage) == ["steps"] for stage in pipeline["stages"].values())
    assert list(pipeline["post"]) == ["always"]
    assert f"label '{LABEL}'" in block
    assert "CI = 'true'" in block
    assert "junit testResults: 'out/junit.xml'" in block


def sections(block):
    """Names of the blocks in braces, nested; braces in texts do not count."""
    bare = re.sub(r"'''.*?'''", "TEXT", block, flags=re.DOTALL)
    assert "'''" not in bare
    assert all(line.count("'") % 2 == 0 for line in bare.splitlines())
    root: dict = {}
    stack, name = [root], ""
    for token in re.findall(r"\{|\}|\n|[^{}\n]+", bare):
        if token == "{":
            stack[-1][name.strip()] = {}
            stack.append(stack[-1][name.strip()])
        elif token == "}":
            stack.pop()
            assert stack, "a brace too many"
        elif token != "\n":
            name = token
    assert len(stack) == 1, "a brace too few"
    return root


def runs_of(recipe):
    """The run of pytest in each recipe."""
    _, github, gitlab = recipes()
    scripts = {
        "github": [step.get("run", "") for step in github["jobs"]["npu"]["steps"]],
        "gitlab": gitlab["npu"]["script"],
        "jenkins": groovy_strings(fenced(CI, "groovy")[0]),
    }[recipe]
    return [words for script in scripts for words in commands(script) if words[0] == "pytest"]


@pytest.mark.parametrize("recipe", ["github", "gitlab", "jenkins"])
def test_each_recipe_judges_the_whole_model_and_writes_the_same_evidence(recipe):
    [words] = runs_of(recipe)
    assert words == runs_of("github")[0]
    assert words[:4] == ["pytest", "--npu", "--model", "my-model/card.toml"]
    assert [word.partition("=")[0] for word in words[4:]] == list(EVIDENCE), "nothing that narrows the run"


@pytest.mark.parametrize("command", ["audit", "doctor", "bundle"])
def test_each_recipe_has_the_command(command):
    _, github, gitlab = recipes()
    scripts = {
        "github": [s.get("run", "") for job in github["jobs"].values() for s in job["steps"]],
        "gitlab": [line for job in gitlab.values() if isinstance(job, dict)
                   for part in ("script", "after_script") for line in job.get(part, ())],
        "jenkins": groovy_strings(fenced(CI, "groovy")[0]),
    }  # fmt: skip
    for name, lines in scripts.items():
        found = [words for line in lines for words in commands(line) if words[:2] == ["npuconf", command]]
        assert found, name


def test_what_draws_the_report_is_installed_where_one_is_written():
    installed = [words for page, words in COMMANDS if words[:4] == ("python", "-m", "pip", "install")]
    judging = [words[-1] for words in installed if any("transformers" in word for word in words)]
    assert len(judging) == 5
    assert all("report" in word for word in judging if "speed" not in word)


def test_annotations_are_asked_of_github_and_junit_of_gitlab():
    assert "npuconf audit README.md my-model/card.toml --format github" in CI
    assert "npuconf audit README.md my-model/card.toml --format junit" in CI


def test_nothing_hides_a_failure():
    for text in (*fenced(CI, "yaml"), *fenced(CI, "groovy")):
        assert "|| true" not in text
        assert "continue-on-error" not in text


def test_the_page_says_the_exit_statuses_of_an_audit():
    codes = (audit_command.FINE, audit_command.CONTRADICTED, audit_command.UNREADABLE, audit_command.UNSUPPORTED)
    assert f"| `npuconf audit` | {', '.join(map(str, codes))} |" in CI


# -----------------------------------------------------------------------------------------------------------------------------
# One README in two languages


def code_blocks(text):
    """Fenced and indented blocks, each as its lines, without comments and empty lines."""
    found, block, inside = [], [], False
    for line in [*text.splitlines(), ""]:
        if line.startswith("```") or (not inside and not line.startswith("    ")):
            found += [block] if block else []
            block, inside = [], inside != line.startswith("```")
        elif bare := re.sub(r"(^|\s+)# .*$", "", line).rstrip():
            block.append(bare if inside else bare.strip())
    return found


def tables(text):
    """Of each table the width, and of each row the code in its first cell."""
    found, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            rows.append((line.count("|"), re.findall(r"`([^`]+)`", cells[0])))
        elif rows:
            found.append(rows)
            rows = []
    return found


def links(text):
    return [link for link in re.findall(r"\]\((.*?)\)", text) if link not in ("README.md", "README.zh.md")]


def test_both_readmes_have_the_same_headings():
    def levels(text):
        return [len(marks) for marks in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)]

    assert levels(CHINESE) == levels(README)


def test_both_readmes_have_the_same_code():
    assert code_blocks(CHINESE) == code_blocks(README)
    assert len(code_blocks(README)) >= 8


def test_both_readmes_have_the_same_tables():
    assert tables(CHINESE) == tables(README)
    assert len(tables(README)) >= 4


def test_both_readmes_name_the_same_checks():
    def named(text):
        return {name for name in CHECKS if f"`{name}`" in text}

    assert named(CHINESE) == named(README) == set(CHECKS)


def test_both_readmes_have_the_same_links():
    assert sorted(links(CHINESE)) == sorted(links(README))
    for shown, target in re.findall(r"\[(docs/[^\]]*)\]\(([^)#]*)", CHINESE):
        assert shown == target


def test_both_readmes_have_the_same_figures():
    """Of the text, not of links and code, which are compared above; a figure in Chinese keeps its digits."""

    def figures(text):
        bare = re.sub(r"```.*?```|`[^`]*`|\]\(.*?\)", " ", text, flags=re.DOTALL)
        bare = "\n".join(line for line in bare.splitlines() if not line.startswith(("    ", "[中文")))
        return sorted(re.findall(r"\d[\d.,]*\d|\d", bare))

    assert figures(CHINESE) == figures(README)


def test_the_readmes_link_each_other():
    assert "](README.md)" in CHINESE


@pytest.mark.parametrize("text", [GUIDE, GATES, CI, CHINESE], ids=["guide.md", "gates.md", "ci.md", "README.zh.md"])
def test_anchors_lead_to_a_heading(text):
    here = ROOT if text is CHINESE else ROOT / "docs"
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", text):
        page = (here / target).read_text(encoding="utf-8") if target else text
        headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in slugs, f"{target}#{anchor}"
