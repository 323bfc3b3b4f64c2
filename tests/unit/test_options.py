"""Options: command line over ini over default, and errors that say where a value was written."""

import dataclasses
import shlex
from argparse import ArgumentError
from functools import partial
from pathlib import Path

import pytest

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.option_values import (
    parse_endpoint,
    parse_name,
    parse_names,
    parse_path,
    parse_precisions,
    parse_reference,
    parse_seconds,
    parse_switch,
)
from pytest_npuconf.options import OPTIONS, PREFIXED_ONLY, Settings, add_options, prefixed_only, read_settings

pytest_plugins = ("pytester",)


@pytest.fixture
def read(pytester, monkeypatch):
    """Settings of a real command line and ini file; nothing of the surrounding environment."""
    for name in (PREFIXED_ONLY, "NPUCONF_WEIGHTS", "NPUCONF_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def settings_of(*args, ini="", environ=None):
        if ini:
            pytester.makeini(f"[pytest]\n{ini}\n")
        return read_settings(pytester.parseconfig(*args), environ or {})

    return settings_of


def refused(read, *args, **more):
    with pytest.raises(SettingsError) as caught:
        read(*args, **more)
    return caught.value


# ---------------------------------------------------------------- parsing


def test_names_are_split_and_stripped():
    assert parse_names("a") == ("a",)
    assert parse_names(" a, b ,c ") == ("a", "b", "c")


@pytest.mark.parametrize("text", ["", " ", "a,", ",a", "a,,b"])
def test_empty_names_are_refused(text):
    with pytest.raises(ValueError, match="an empty name in "):
        parse_names(text)


def test_precisions():
    assert parse_precisions("float32, bfloat16") == ("float32", "bfloat16")
    assert parse_precisions("float32,float16,bfloat16,int8,int4")[-1] == "int4"


@pytest.mark.parametrize("text", ["bf16", "Float32", "float32,fp8"])
def test_unknown_precisions_are_refused_with_the_known(text):
    bad = text.split(",")[-1]
    with pytest.raises(ValueError, match=f"'{bad}' is not one of float32, float16, bfloat16, int8, int4"):
        parse_precisions(text)


def test_name_is_stripped_and_not_empty():
    assert parse_name(" npu ") == "npu"
    for empty in ("", "  "):
        with pytest.raises(ValueError, match="it is empty"):
            parse_name(empty)


def test_path_is_absolute_and_expands_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert parse_path("a/b") == tmp_path / "a" / "b"
    assert parse_path("~/a") == Path("/home/somebody/a")
    assert parse_path("/a") == Path("/a")


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_path_is_refused(text):
    with pytest.raises(ValueError, match="it is empty"):
        parse_path(text)


def test_a_home_folder_of_nobody_is_refused_like_any_other_value():
    with pytest.raises(ValueError, match="~no-such-user"):
        parse_path("~no-such-user/weights")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("http://host:8000", [("generate", "http://host:8000")]),
        (" https://host/team/v1/ ", [("generate", "https://host/team")]),
        ("embed=http://host:8000/v1", [("embed", "http://host:8000")]),
        ("embed = http://host:8000/", [("embed", "http://host:8000")]),
        ("http://127.0.0.1:1,score=http://[::1]:2", [("generate", "http://127.0.0.1:1"), ("score", "http://[::1]:2")]),
        ("http://host/me@b", [("generate", "http://host/me@b")]),
        ("http://host/a=b", [("generate", "http://host/a=b")]),
    ],
)
def test_endpoints(text, found):
    assert parse_endpoint(text) == tuple(found)


@pytest.mark.parametrize(
    "text",
    ["host:8000", "127.0.0.1:8000", "embed=host:8000", "=http://host:1", "http://", "http:///", "http://:8000", "http://host:0",
     "http://host:port", "http://host:", "ftp://host:1", "file:///etc/passwd", "http//host", "http://host:1?a=b", "http://host:1#a",
     "http://ho st", "generate=", "generate"],
)  # fmt: skip
def test_what_is_no_url_is_refused_as_it_was_written(text):
    with pytest.raises(ValueError, match="is no URL: http://host:port, or mode=http://host:port") as caught:
        parse_endpoint(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["http://me:secret@host:8000", "embed=https://secret@host", "http://secret@"])
def test_a_password_in_an_endpoint_is_refused_and_not_shown(text):
    with pytest.raises(ValueError, match="NPUCONF_API_KEY") as caught:
        parse_endpoint(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "http://h:1,", ",http://h:1"])
def test_an_empty_endpoint_is_refused(text):
    with pytest.raises(ValueError, match="an empty name in "):
        parse_endpoint(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", ""])
def test_seconds_that_no_request_can_take(text):
    with pytest.raises(ValueError, match="is no number of seconds above 0"):
        parse_seconds(text)


def test_reference():
    words = ["auto", "stored", "live"]
    assert [parse_reference(word) for word in words] == words
    with pytest.raises(ValueError, match="'recorded' is not one of auto, stored, live"):
        parse_reference("recorded")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1", True), ("true", True), ("YES", True), (" on ", True)),
        *(("", False), ("0", False), ("False", False), ("no", False), ("off", False)),
    ],
)
def test_switch(text, value):
    assert parse_switch(text) is value


@pytest.mark.parametrize("text", ["2", "maybe", "tru"])
def test_a_switch_that_is_neither_is_refused_with_the_known_words(text):
    with pytest.raises(ValueError, match=f"'{text}' is not one of 1, true, yes, on, 0, false, no, off"):
        parse_switch(text)


# ---------------------------------------------------------------- precedence


def test_nothing_given_is_the_default_and_judges_nothing(read, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = read()
    assert settings == Settings(cache=Path("/home/somebody/.cache/npuconf"))
    assert not settings.active


def test_the_two_words_of_the_user(read):
    settings = read("--npu", "--model", "mem-agent")
    assert (settings.device, settings.models, settings.active) == ("npu", ("mem-agent",), True)


def test_prefixed_names_are_the_same(read):
    short, prefixed = read("--npu", "--model", "a"), read("--npuconf-device", "npu", "--npuconf-model", "a")
    assert short == prefixed


def test_models_repeat_and_come_in_comma_lists_once_each(read):
    assert read("--model", "b,a", "--npuconf-model", "c", "--model", "a").models == ("b", "a", "c")


def test_every_option_is_read(read, tmp_path):
    settings = read(
        *("--npuconf-model", "m", "--npuconf-device", "cuda", "--npuconf-precision", "bfloat16,float32,bfloat16"),
        *("--npuconf-engine", "vllm", "--npuconf-reference", "live", "--npuconf-weights", f"{tmp_path}/w"),
        *("--npuconf-baselines", f"{tmp_path}/b", "--npuconf-results", f"{tmp_path}/r.json", "--npuconf-fault", "f"),
        *("--npuconf-strict-claims", "--npuconf-trust-remote-code"),
        environ={"NPUCONF_WEIGHTS": f"{tmp_path}/root", "NPUCONF_CACHE": f"{tmp_path}/c"},
    )
    assert settings == Settings(
        models=("m",),
        device="cuda",
        precisions=("bfloat16", "float32"),
        engine="vllm",
        reference="live",
        weights=tmp_path / "w",
        weights_root=tmp_path / "root",
        baselines=tmp_path / "b",
        results=tmp_path / "r.json",
        fault="f",
        strict_claims=True,
        trust_remote_code=True,
        cache=tmp_path / "c",
    )


INI = {
    "model": ("a, b", {"models": ("a", "b")}),
    "device": ("cuda", {"device": "cuda"}),
    "simulate": ("on\nnpuconf_device = npu", {"simulate": True, "device": "npu"}),
    "precision": ("float16", {"precisions": ("float16",)}),
    "engine": ("vllm", {"engine": "vllm"}),
    "endpoint": (
        "http://h:1, embed=http://h:2\nnpuconf_engine = server",
        {"endpoints": (("generate", "http://h:1"), ("embed", "http://h:2")), "engine": "server"},
    ),
    "timeout": ("2.5", {"timeout": 2.5}),
    "reference": ("live", {"reference": "live"}),
    "weights": ("/w", {"weights": Path("/w")}),
    "baselines": ("/b", {"baselines": Path("/b")}),
    "results": ("/r", {"results": Path("/r")}),
    "report": ("/p.html", {"report": Path("/p.html")}),
    "fault": ("f", {"fault": "f"}),
    "record": ("on", {"record": True}),
    "calibrate": ("on", {"calibrate": True}),
    "strict-claims": ("yes", {"strict_claims": True}),
    "trust-remote-code": ("1", {"trust_remote_code": True}),
}


def test_every_option_has_an_ini_twin_that_is_tested_here():
    assert set(INI) == {option.name for option in OPTIONS}


@pytest.mark.parametrize("name", list(INI))
def test_ini_twins(read, name):
    text, expected = INI[name]
    default = read()
    settings = read(ini=f"npuconf_{name.replace('-', '_')} = {text}")
    assert settings == dataclasses.replace(default, **expected)
    assert settings != default


@pytest.mark.parametrize(
    ("name", "ini", "given", "field", "value"),
    [
        ("model", "a", ["--model", "b"], "models", ("b",)),
        ("device", "cuda", ["--npuconf-device", "cpu"], "device", "cpu"),
        ("device", "cuda", ["--npu"], "device", "npu"),
        ("precision", "float16", ["--npuconf-precision", "float32"], "precisions", ("float32",)),
        ("weights", "/w", ["--npuconf-weights", "/x"], "weights", Path("/x")),
        ("fault", "f", ["--npuconf-fault", "g"], "fault", "g"),
        ("strict_claims", "no", ["--npuconf-strict-claims"], "strict_claims", True),
    ],
)
def test_the_command_line_beats_the_ini_file(read, name, ini, given, field, value):
    assert getattr(read(*given, ini=f"npuconf_{name} = {ini}"), field) == value


@pytest.mark.parametrize("name", ["strict_claims", "trust_remote_code"])
@pytest.mark.parametrize("word", ["no", "0", ""])
def test_ini_switches_can_be_off(read, name, word):
    assert getattr(read(ini=f"npuconf_{name} = {word}"), name) is False


def test_only_a_model_makes_a_run_judge_anything(read):
    assert not read("--npu", "--npuconf-fault", "dead-row").active
    assert read("--model", "a").active


def test_empty_environment_variables_count_as_unset(read):
    assert read(environ={"NPUCONF_WEIGHTS": "", "NPUCONF_CACHE": ""}) == read()


def test_environment_paths_are_absolute(read, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = read(environ={"NPUCONF_WEIGHTS": "w", "NPUCONF_CACHE": "c"})
    assert (settings.weights_root, settings.cache) == (tmp_path / "w", tmp_path / "c")


@pytest.mark.parametrize(
    ("arguments", "environ", "problem"),
    [
        ([], {"CI": "true"}, "--npuconf-record: this is CI (CI=true)"),
        (["--npuconf-fault", "nan-weight"], {}, "--npuconf-record with --npuconf-fault nan-weight"),
        (["--npuconf-reference", "stored"], {}, "--npuconf-record needs a live reference"),
    ],
)
def test_a_recording_that_would_be_an_accident_is_refused(read, arguments, environ, problem):
    with pytest.raises(SettingsError) as caught:
        read("--npuconf-record", *arguments, environ=environ)
    assert caught.value.what.startswith(problem)
    assert caught.value.mend
    assert read("--npuconf-record", environ={"CI": "false"}).record


@pytest.mark.parametrize(
    ("arguments", "environ", "problem"),
    [
        ([], {"CI": "1"}, "--npuconf-calibrate: this is CI (CI=1)"),
        (["--npuconf-fault", "nan-weight"], {}, "--npuconf-calibrate with --npuconf-fault nan-weight"),
        (["--npuconf-fault", "benign-split-k"], {}, "--npuconf-calibrate with --npuconf-fault benign-split-k"),
        (["--npuconf-reference", "stored"], {}, "--npuconf-calibrate needs a live reference"),
        (["--npuconf-record"], {}, "--npuconf-calibrate with --npuconf-record"),
        (["--npuconf-results", "r.json"], {}, "--npuconf-calibrate with --npuconf-results"),
    ],
)
def test_a_calibration_that_would_mean_something_else_is_refused(read, arguments, environ, problem):
    with pytest.raises(SettingsError) as caught:
        read("--npuconf-calibrate", *arguments, environ=environ)
    assert caught.value.what.startswith(problem)
    assert caught.value.mend
    assert read("--npuconf-calibrate").calibrate


def test_settings_are_frozen(read):
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().device = "npu"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("flag", "value", "problem"),
    [
        ("--npuconf-model", "a,,b", "an empty name in 'a,,b'"),
        ("--npuconf-device", " ", "it is empty"),
        ("--npuconf-precision", "fp8", "'fp8' is not one of float32"),
        ("--npuconf-reference", "recorded", "'recorded' is not one of auto, stored, live"),
        ("--npuconf-weights", " ", "it is empty"),
        ("--npuconf-engine", "", "it is empty"),
        ("--npuconf-endpoint", "host:8000", "'host:8000' is no URL: http://host:port"),
    ],
)
def test_an_error_names_the_flag_or_the_ini_key(read, flag, value, problem):
    error = refused(read, flag, value)
    assert error.what.startswith(f"{flag}: {problem}")
    assert error.mend.startswith(f"{flag}: ")
    if value.strip():
        key = flag.removeprefix("--").replace("-", "_")
        assert refused(read, ini=f"{key} = {value}").what.startswith(f"ini {key}: {problem}")


def test_a_short_flags_error_names_an_option_that_exists(read):
    assert refused(read, "--model", "a,").what.startswith("--npuconf-model: an empty name in 'a,'")


@pytest.mark.parametrize("key", ["npuconf_strict_claims", "npuconf_trust_remote_code"])
def test_a_bad_ini_switch_is_named(read, key):
    assert refused(read, ini=f"{key} = maybe").what.startswith(f"ini {key}: 'maybe' is not one of 1, true")


def test_a_bad_ini_value_is_no_error_when_the_command_line_decides(read):
    assert read("--npuconf-precision", "float16", ini="npuconf_precision = fp8").precisions == ("float16",)


def test_npu_with_another_device_is_refused(read):
    error = refused(read, "--npu", "--npuconf-device", "cpu")
    assert error.what == "--npu and --npuconf-device cpu name two devices"
    assert read("--npu", "--npuconf-device", "npu").device == "npu"


HERE = "http://h:1"


def test_an_endpoint_is_judged_by_engine_server(read):
    settings = read("--model", "a", "--npuconf-engine", "server", "--npuconf-endpoint", HERE)
    assert (settings.engine, settings.endpoints) == ("server", (("generate", HERE),))
    for engine in ("transformers", "vllm"):
        error = refused(read, "--model", "a", "--npuconf-engine", engine, "--npuconf-endpoint", HERE)
        assert error.what == f"--npuconf-endpoint {HERE}: engine {engine} asks no server"
        assert error.mend == "--npuconf-engine server"
    assert refused(read, "--model", "a", "--npuconf-endpoint", HERE).what.endswith("engine transformers asks no server")


def test_an_endpoint_of_two_models_is_refused(read):
    given = ["--npuconf-engine", "server", "--npuconf-endpoint", HERE]
    error = refused(read, "--model", "a,b", *given)
    assert error.what == f"--npuconf-endpoint {HERE}: an endpoint serves one model, but 2 are judged: a, b"
    assert error.mend == "one run for each model"
    assert read("--model", "a,a", *given).models == ("a",)


@pytest.mark.parametrize(
    ("endpoints", "mode"),
    [
        ([HERE, "http://h:2"], "generate"),
        ([HERE, HERE], "generate"),
        (["embed=http://h:1", HERE, "embed=http://h:2"], "embed"),
        ([HERE, "generate=http://h:2", "embed=http://h:3"], "generate"),  # not the last one
        ([f"{HERE},generate=http://h:2"], "generate"),
    ],
)
def test_two_endpoints_of_one_mode_are_refused(read, endpoints, mode):
    words = [word for endpoint in endpoints for word in ("--npuconf-endpoint", endpoint)]
    error = refused(read, "--model", "a", "--npuconf-engine", "server", *words)
    assert error.what == f"--npuconf-endpoint: two for mode {mode}"
    assert error.mend == "name the mode: MODE=URL"


def test_the_command_lines_endpoints_replace_the_ini_files(read):
    given = ["--model", "a", "--npuconf-endpoint", "embed=http://h:2"]
    ini = f"npuconf_endpoint = {HERE}\nnpuconf_engine = server"
    assert read(*given, ini=ini).endpoints == (("embed", "http://h:2"),)
    assert refused(read, "--model", "a", "--npuconf-engine", "vllm", ini=ini).mend == "--npuconf-engine server"


def test_weights_for_two_models_are_refused(read):
    error = refused(read, "--model", "a,b", "--npuconf-weights", "/w")
    assert error.what == "--npuconf-weights names one folder, but 2 models are judged: a, b"
    assert "export NPUCONF_WEIGHTS=" in error.mend
    assert read("--model", "a,a", "--npuconf-weights", "/w").models == ("a",)


@pytest.mark.parametrize("variable", ["NPUCONF_WEIGHTS", "NPUCONF_CACHE"])
@pytest.mark.parametrize("value", ["  ", "~no-such-user/x"])
def test_a_bad_environment_variable_is_named(read, variable, value):
    assert variable in refused(read, environ={variable: value}).what


# ---------------------------------------------------------------- short names


@pytest.mark.parametrize(("value", "only"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_prefixed_only(value, only):
    assert prefixed_only({PREFIXED_ONLY: value}) is only
    assert prefixed_only({}) is False


def test_prefixed_only_is_named_when_it_is_neither():
    with pytest.raises(SettingsError, match="NPUCONF_PREFIXED_ONLY: 'maybe' is not one of") as caught:
        prefixed_only({PREFIXED_ONLY: "maybe"})
    assert caught.value.mend == "export NPUCONF_PREFIXED_ONLY=1"


class Parser:
    """Records what is registered; ``owned`` belongs to somebody else, as argparse would find."""

    def __init__(self, owned=(), error=ValueError):
        self.owned, self.error, self.flags, self.ini = owned, error, [], []

    def getgroup(self, name, description=""):
        return self

    def addoption(self, *flags, **arguments):
        if set(flags) & set(self.owned):
            raise self.error(f"option names {set(flags) & set(self.owned)} already added")
        self.flags += flags

    def addini(self, name, help, **more):
        self.ini.append(name)


def test_short_names_can_be_dropped():
    parser = Parser(owned=("--model", "--npu"))
    add_options(parser, {PREFIXED_ONLY: "1"})
    assert parser.flags == [f"--npuconf-{option.name}" for option in OPTIONS]
    assert parser.ini == ["npuconf_" + option.name.replace("-", "_") for option in OPTIONS]


def test_short_names_are_there_by_default():
    parser = Parser()
    add_options(parser, {})
    assert {"--npu", "--model", "--npuconf-model", "--npuconf-device"} <= set(parser.flags)


@pytest.mark.parametrize("owned", ["--model", "--npu"])
@pytest.mark.parametrize("error", [ValueError, partial(ArgumentError, None)], ids=["pytest 8", "pytest 9"])
def test_a_short_name_that_somebody_owns_is_refused_with_the_way_out(owned, error):
    with pytest.raises(SettingsError, match=f"another conftest.py or plugin also defines .*{owned}") as caught:
        add_options(Parser((owned,), error), {})
    assert caught.value.mend.startswith("NPUCONF_PREFIXED_ONLY=1 pytest --npuconf-model NAME --npuconf-device npu")


# ---------------------------------------------------------------- the command that repeats the run


def test_command_by_hand():
    settings = Settings(models=("a", "b/card.toml"), device="npu", precisions=("float32", "bfloat16"))
    expected = (
        "pytest --npuconf-device npu --npuconf-model a --npuconf-model b/card.toml "
        "--npuconf-precision float32,bfloat16 npuconf/x.py::y"
    )
    assert settings.command("npuconf/x.py::y") == expected


def test_command_names_any_other_device():
    assert Settings(models=("a",)).command().startswith("pytest --npuconf-device cpu --npuconf-model a")


def test_command_quotes_for_the_shell():
    words = shlex.split(Settings(models=("a",), weights=Path("/my weights")).command("x.py::y[a b]"))
    assert words[-3:] == ["--npuconf-weights", "/my weights", "x.py::y[a b]"]


@pytest.mark.parametrize(
    "args",
    [
        ["--npu"],
        ["--npuconf-device", "cuda"],
        ["--model", "b"],
        ["--npuconf-precision", "float16,float32"],
        ["--npuconf-engine", "vllm"],
        [
            "--npuconf-engine",
            "server",
            "--npuconf-endpoint",
            "http://h:1/v1",
            "--npuconf-endpoint",
            "embed=https://h/x%20y",
        ],
        ["--npuconf-timeout", "2.5"],
        ["--npuconf-reference", "live"],
        ["--npuconf-weights", "/w x"],
        ["--npuconf-baselines", "/b"],
        ["--npuconf-fault", "dead-row"],
        ["--npuconf-strict-claims"],
        ["--npuconf-trust-remote-code"],
    ],
    ids=" ".join,
)
def test_the_command_repeats_the_run(read, args):
    settings = read("--model", "a", *args)
    words = shlex.split(settings.command())
    assert words[0] == "pytest"
    assert read(*words[1:]) == settings


def test_the_command_beats_the_ini_file_that_it_runs_under(read):
    ini = "npuconf_device = cuda\nnpuconf_model = other"
    settings = read("--npuconf-device", "cpu", "--model", "a", ini=ini)
    assert read(*shlex.split(settings.command())[1:], ini=ini) == settings


def test_the_command_works_where_the_short_names_are_dropped(read, monkeypatch):
    monkeypatch.setenv(PREFIXED_ONLY, "1")
    settings = read("--npuconf-device", "npu", "--npuconf-model", "a", environ={PREFIXED_ONLY: "1"})
    flags = {word for word in shlex.split(settings.command()) if word.startswith("--")}
    assert not flags & {"--npu", "--model"}
