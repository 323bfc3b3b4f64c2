"""The outside names: the list is whole, our code and documents use nothing else, and the wheels show what the list says."""

import ast
import dataclasses
import inspect
import json
import os
import re
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from pytest_npuconf.ascend.names import KINDS, PACKAGES, Name, find, names
from pytest_npuconf.audit.data import environment, versions
from pytest_npuconf.devices.simulated.runtime import Allocations, Runtime
from tests.benchmarks import stack_names
from tests.benchmarks.stack_page import page
from tests.benchmarks.stack_wheels import MENTION, PYTHON, STRING, Wheel, find_all, resolve

ROOT = stack_names.ROOT
DATA = json.loads(stack_names.DATA.read_text(encoding="utf-8"))
CALLABLE = ("function", "class", "method")
VARIABLE = re.compile(
    r"\b(?:ASCEND|ACL|HCCL|LCCL|ATB|VLLM|TORCH_NPU|PYTORCH_NPU|INF_NAN|TASK_QUEUE|TORCH_DEVICE|COMBINED)_[A-Z0-9_]*[A-Z0-9]\b"
)
DOTTED = re.compile(r"\b(?:torch\.npu|torch_npu)(?:\.[A-Za-z_]\w*)+")
SOURCES = sorted((ROOT / "pytest_npuconf").rglob("*.py")) + sorted((ROOT / "suites").rglob("*.py"))


def texts_of(tree):
    return [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def spelled(node, aliases):
    """A dotted name as torch spells it: through ``import_torch()``, ``self._module()`` or a local name for the module."""
    text = ast.unparse(node).replace("import_torch()", "torch")
    for alias in ("self._module()", *aliases):
        if text.startswith(f"{alias}."):
            text = "torch.npu" + text.removeprefix(alias)
    return text if DOTTED.fullmatch(text) else None


def module_aliases(tree):
    """Local names of the device module: ``module = self._module()``."""
    given = [n for n in ast.walk(tree) if isinstance(n, ast.Assign)]
    return [ast.unparse(n.targets[0]) for n in given if ast.unparse(n.value) in ("self._module()", "torch.npu")]


def uses(tree):
    """The dotted names that code reaches, and those that are asked for with getattr."""
    aliases = module_aliases(tree)
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            yield spelled(node, aliases), node
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "getattr"
            and isinstance(node.args[1], ast.Constant)
        ):
            yield spelled(ast.Attribute(node.args[0], node.args[1].value), aliases), node


@pytest.fixture(scope="module")
def own_uses():
    """Every outside name in our sources: file and name. A name torch_npu is the package only where it is imported."""
    found = []
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        imported = re.search(r"^\s*import torch_npu", source, re.MULTILINE) is not None
        reached = [name for name, _ in uses(tree) if name is not None]
        found += [(path, name) for name in reached if imported or not name.startswith("torch_npu.")]
        found += [(path, name) for text in texts_of(tree) for name in VARIABLE.findall(text) + DOTTED.findall(text)]
    return found


def own_calls():
    """Calls of listed functions in our sources."""
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        aliases = module_aliases(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                entry = find(spelled(node.func, aliases) or "")
                if entry is not None and entry.signatures:
                    yield path, entry, node


def signature_of(text):
    return inspect.signature(eval(f"lambda {text[1:-1]}: None"))


def parameters_of(text):
    """The names of the parameters, without ``**kwargs``."""
    every = signature_of(text).parameters.values()
    return [each.name for each in every if each.kind is not each.VAR_KEYWORD]


def listed(name):
    """An entry, or a part of one: ``torch_npu.npu.utils`` of ``torch_npu.npu.utils.get_cann_version``."""
    return any(each.name == name or each.name.startswith(f"{name}.") for each in names())


def test_each_name_stands_once_and_is_whole():
    every = [each.name for each in names()]
    assert len(every) == len(set(every)) > 100
    for each in names():
        assert each.kind in KINDS, each
        assert each.does, each
        assert each.effect in ("", "numeric", "speed"), each
        assert [bool(each.package), bool(each.documented), each.absent].count(True) == 1, each
        assert each.package in ("", *PACKAGES), each
        assert bool(each.signatures) == (each.kind in CALLABLE), each
        assert all(Version(text) for text in (*each.since, *filter(None, [each.until]))), each
        assert bool(each.meant) == each.absent, each
        assert not each.meant or find(each.meant).absent is False, each


def test_the_files_that_are_said_to_use_a_name_have_it():
    for each in names():
        for path in each.used_by:
            assert each.name.rpartition(".")[2] in (ROOT / path).read_text(encoding="utf-8"), (each.name, path)


def test_our_code_uses_no_name_that_is_not_listed(own_uses):
    missing = {f"{path.relative_to(ROOT)}: {name}" for path, name in own_uses if not listed(name)}
    assert not missing, "add to pytest_npuconf/ascend/names.toml, then: make stack-names"


@pytest.mark.parametrize(
    "name", ["torch.npu.mem_get_info", "torch_npu.npu.utils.get_cann_version", "ASCEND_RT_VISIBLE_DEVICES"]
)
def test_the_scan_sees_uses(own_uses, name):
    assert name in {found for _, found in own_uses}


@pytest.mark.parametrize(
    "code",
    [
        "torch.npu.nonesuch()",
        "import_torch().npu.nonesuch",
        "self._module().nonesuch(1)",
        "module = self._module()\nmodule.nonesuch()",
        "getattr(torch.npu, 'nonesuch', None)",
    ],
)
def test_the_scan_sees_a_new_use_however_it_is_spelled(code):
    assert "torch.npu.nonesuch" in {name for name, _ in uses(ast.parse(code))}
    assert not listed("torch.npu.nonesuch")


def test_documents_and_audit_data_mention_no_other_name():
    missing = set()
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = path.read_text(encoding="utf-8")
        missing |= {
            f"{path.name}: {name}" for name in VARIABLE.findall(text) + DOTTED.findall(text) if not listed(name)
        }
    data = environment()
    told = [*data.known, *dict(data.mistakes), *(each.name for each in data.variables if each.first)]
    assert not missing
    assert not [name for name in told if not listed(name)]


def test_our_calls_fit_every_known_signature():
    calls = list(own_calls())
    assert len({entry.name for _, entry, _ in calls}) >= 8
    for path, entry, call in calls:
        for text in entry.signatures:
            given = {keyword.arg: None for keyword in call.keywords}
            assert signature_of(text).bind(*call.args, **given), (path, entry.name, text)


@pytest.mark.parametrize(
    ("since", "until", "version", "expected"),
    [
        ((), "", "2.9.0", True),
        (("2.13.0",), "", "2.12.0", False),
        (("2.13.0",), "", "2.14.0", True),
        (("2.9.0.post9", "2.11.0.post3", "2.13.0"), "", "2.9.0", False),
        (("2.9.0.post9", "2.11.0.post3", "2.13.0"), "", "2.9.0.post9", True),
        (("2.9.0.post9", "2.11.0.post3", "2.13.0"), "", "2.9.1", False),
        (("2.9.0.post9", "2.11.0.post3", "2.13.0"), "", "2.11.0", False),
        (("2.9.0.post9", "2.11.0.post3", "2.13.0"), "", "2.13.0", True),
        ((), "0.19.1rc1", "0.18.0", True),
        ((), "0.19.1rc1", "0.23.0", False),
        (("0.11.0rc1",), "", "0.11.0", True),
    ],
)
def test_versions_that_have_a_name(since, until, version, expected):
    name = Name("X", "variable", "torch_npu", "x", since=since, until=until)
    assert name.expected_in(version) is expected
    assert not dataclasses.replace(name, absent=True).expected_in(version)


def test_the_kept_result_is_as_the_list_says():
    assert [(wheel["package"], wheel["version"]) for wheel in DATA["wheels"]] == list(stack_names.WHEELS)
    assert stack_names.problems(names(), DATA["wheels"]) == []


def test_the_page_is_current():
    assert stack_names.PAGE.read_text(encoding="utf-8") == page(names(), DATA["wheels"]), (
        "python -m tests.benchmarks.stack_names --page"
    )


def test_the_simulated_npu_offers_what_torch_npu_has_and_takes_the_same_arguments():
    offered = Runtime(Allocations()).module()
    checked = 0
    for holder, prefix in ((offered, ""), (offered.Event, "Event."), (offered.Stream, "Stream.")):
        for short in (each for each in vars(holder) if not each.startswith("_")):
            entry = find(f"torch.npu.{prefix}{short}")
            assert entry is not None or listed(f"torch.npu.{prefix}{short}"), short
            if entry is not None and entry.signatures:
                found = inspect.signature(getattr(holder, short)).parameters.values()
                taken = [each.name for each in found if each.name != "self" and each.kind is not each.VAR_KEYWORD]
                open_ended = any(each.kind is each.VAR_KEYWORD for each in found)
                known = [parameters_of(text) for text in entry.signatures]
                assert any(taken == (each[: len(taken)] if open_ended else each) for each in known), short
                checked += 1
    assert checked > 25


@pytest.mark.parametrize(
    "wheel", [w for w in DATA["wheels"] if w["package"] != "torch_npu"], ids=lambda wheel: wheel["file"]
)
def test_the_audit_knows_what_the_wheels_ask_for(wheel):
    (release,) = [each for each in getattr(versions(), wheel["package"]) if each.version == wheel["version"]]
    assert release.requires
    for name, specifier in release.requires:
        assert SpecifierSet(specifier) == SpecifierSet(wheel["requires"][canonicalize_name(name)]), name


@pytest.mark.wheels
@pytest.mark.parametrize("wanted", stack_names.WHEELS, ids="-".join)
def test_a_real_wheel_shows_what_is_kept(wanted):
    folder = Path(os.environ.get("NPUCONF_WHEELS", stack_names.FOLDER))
    paths, _ = stack_names.find_wheels(folder)
    if wanted not in paths:
        pytest.skip(f"no wheel of {'=='.join(wanted)} in {folder}: make stack-names, or NPUCONF_WHEELS=FOLDER")
    kept = DATA["wheels"][stack_names.WHEELS.index(wanted)]
    found = stack_names.record(paths[wanted], names())
    assert found["found"] == kept["found"]
    assert found == kept
    assert stack_names.problems(names(), [found]) == []


# A wheel made by hand: one way of each kind in which torch_npu and vllm-ascend hold a name.
MEMBERS = {
    "torch_npu/__init__.py": "import torch\nfrom torch_npu.version import __version__\n"
    "torch._register_device_module('npu', torch_npu.npu)\n",
    "torch_npu-9.9.9.dist-info/METADATA": "Name: torch_npu\nRequires-Dist: Torch==9.9.0\nRequires-Dist: x; extra == 'y'\n",
    "torch_npu/version.py": "__version__ = '9.9.9'\n",
    "torch_npu/npu/__init__.py": "import os\nfrom .utils import current as current_device, set_device\nfrom .memory import *\n"
    "from .streams import Event\nfrom . import config_of\nmatmul = config_of._Matmul()\n"
    "def device_count() -> int:\n    return len(os.getenv('ASCEND_RT_VISIBLE_DEVICES', ''))\n",
    "torch_npu/npu/utils.py": "def current():\n    pass\n\ndef set_device(device: int) -> None:\n    pass\n",
    "torch_npu/npu/memory.py": "__all__ = ['mem_get_info']\ndef mem_get_info(device=None): pass\ndef hidden(): pass\n",
    "torch_npu/npu/streams.py": "class Event(Base):\n    def __new__(cls, enable_timing=False): pass\n"
    "    def record(self, stream=None): pass\n",
    "torch_npu/npu/config_of.py": "class _Matmul:\n    def __getattr__(cls, name):\n        if name == 'allow_hf32':\n"
    "            return _C._npu_getOption('ALLOW_MATMUL_HF32')\n",
    "torch_npu/npu/aclnn.py": "import sys\nallow_hf32: bool\nclass Aclnn(Prop):\n    allow_hf32 = Context(get, set)\n"
    "sys.modules[__name__] = Aclnn(sys.modules[__name__])\n",
    "torch_npu/other.py": "import os\nos.environ['TASK_QUEUE_ENABLE'] = '1'\n# HCCL_IF_IP is read by HCCL\n",
    "torch_npu/lib/libtorch_npu.so": b"\x7fELF\0INF_NAN_MODE_ENABLE\0TASK_QUEUE_ENABLED\0_npu_getOption\0"
    b"on the NPU backend and will fall back to run on the CPU.\0",
}


def made(folder, members=MEMBERS, version="9.9.9"):
    path = folder / f"torch_npu-{version}-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path


def judged(folder, name, members=MEMBERS):
    """The problems with one name in a wheel made by hand."""
    return stack_names.problems((name,), [stack_names.record(made(folder, members), (name,))])


@pytest.mark.parametrize(
    ("dotted", "where", "signature"),
    [
        ("torch_npu.npu.device_count", "torch_npu/npu/__init__.py:7", "()"),
        ("torch_npu.npu.current_device", "torch_npu/npu/utils.py:1", "()"),
        ("torch_npu.npu.set_device", "torch_npu/npu/utils.py:4", "(device)"),
        ("torch_npu.npu.mem_get_info", "torch_npu/npu/memory.py:2", "(device=None)"),
        ("torch_npu.npu.Event", "torch_npu/npu/streams.py:1", "(enable_timing=False)"),
        ("torch_npu.npu.Event.record", "torch_npu/npu/streams.py:3", "(stream=None)"),
        ("torch_npu.npu.matmul.allow_hf32", "torch_npu/npu/config_of.py:2", None),
        ("torch_npu.npu.aclnn.allow_hf32", "torch_npu/npu/aclnn.py:4", None),
        ("torch_npu.__version__", "torch_npu/version.py:1", None),
    ],
)
def test_a_dotted_name_is_followed_to_its_definition(tmp_path, dotted, where, signature):
    found = resolve(Wheel(made(tmp_path)), dotted)
    assert (found.how, found.where, found.signature) == (PYTHON, where, signature)


@pytest.mark.parametrize(
    "dotted",
    [
        "torch_npu.npu.nonesuch",
        "torch_npu.npu.hidden",
        "torch_npu.npu.Event.nonesuch",
        "torch_npu.npu.matmul.allow_tf32",
        "torch_npu.none.such",
    ],
)
def test_a_wrong_name_is_found_nowhere(tmp_path, dotted):
    assert resolve(Wheel(made(tmp_path)), dotted) is None


@pytest.mark.parametrize(
    ("name", "kind", "how", "detail"),
    [
        ("ASCEND_RT_VISIBLE_DEVICES", "variable", PYTHON, "read from the environment"),
        ("TASK_QUEUE_ENABLE", "variable", PYTHON, "set in the environment"),
        ("ALLOW_MATMUL_HF32", "option", PYTHON, "a text"),
        ("INF_NAN_MODE_ENABLE", "variable", STRING, "string"),
        ("torch_npu._C._npu_getOption", "native", STRING, "string"),
        ("on the NPU backend and will fall back to run on the CPU.", "message", STRING, "string"),
        ("HCCL_IF_IP", "variable", MENTION, "mentioned"),
        ("torch.npu", "module", PYTHON, "torch._register_device_module('npu', torch_npu.npu)"),
    ],
)
def test_a_text_is_told_by_what_is_done_with_it(tmp_path, name, kind, how, detail):
    found = find_all(Wheel(made(tmp_path)), (Name(name, kind, "torch_npu", "x"),))[name]
    assert (found.how, found.detail) == (how, detail)


def test_a_plugin_counts_where_its_function_exists(tmp_path):
    entries = "[vllm.platform_plugins]\nascend = torch_npu.version:__version__\ngone = torch_npu.version:gone\n"
    path = made(tmp_path, MEMBERS | {"torch_npu-9.9.9.dist-info/entry_points.txt": entries})
    wanted = [
        Name(f"vllm.platform_plugins:{short}", "plugin", "torch_npu", "x") for short in ("ascend", "gone", "none")
    ]
    assert [each is not None for each in find_all(Wheel(path), tuple(wanted)).values()] == [True, False, False]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (Name("torch.npu.mem_get_inf", "function", "torch_npu", "x", signatures=("()",)), "not in torch_npu 9.9.9"),
        (
            Name("torch.npu.mem_get_info", "function", "torch_npu", "x", signatures=("(index=None)",)),
            r"parameters in torch_npu 9.9.9 are \(device=None\), known are \(index=None\)",
        ),
        (Name("TASK_QUEUE", "variable", "torch_npu", "x"), "not in torch_npu 9.9.9"),
        (Name("HCCL_IF_IP", "variable", "torch_npu", "x"), "only mentioned: torch_npu/other.py:3"),
        (Name("TASK_QUEUE_ENABLE", "variable", "torch_npu", "x", since=("10.0",)), "the list says that it has not"),
        (Name("TASK_QUEUE_ENABLED", "variable", "", "x", absent=True), "listed as absent, but torch_npu 9.9.9 has it"),
        (Name("HCCL_IF_IP", "variable", "", "x", absent=True), "listed as absent, but torch_npu 9.9.9 has it"),
    ],
)
def test_what_is_not_as_listed_is_told(tmp_path, name, problem):
    (told,) = judged(tmp_path, name)
    assert name.name in told
    assert re.search(problem, told)


@pytest.mark.parametrize(
    "members",
    [
        {"torch_npu/new.py": "import os\nos.getenv('VLLM_ASCEND_RT_DEVICES')\n"},
        {"torch_npu/new.py": '"""Set VLLM_ASCEND_RT_DEVICES."""\n'},
        {"torch_npu/_C.so": b"\0VLLM_ASCEND_RT_DEVICES\0"},
    ],
)
def test_a_stack_that_gets_the_mistaken_variable_is_told(tmp_path, members):
    mistaken = find("VLLM_ASCEND_RT_DEVICES")
    assert judged(tmp_path, mistaken) == []
    (told,) = judged(tmp_path, mistaken, MEMBERS | members)
    assert "listed as absent" in told


def test_a_name_listed_after_the_wheels_were_read_is_told():
    new = Name("torch.npu.brand_new", "function", "torch_npu", "x", signatures=("()",))
    told = stack_names.problems((new,), DATA["wheels"])
    assert len(told) == 3
    assert all("make stack-names" in text for text in told)


def test_the_command_downloads_nothing_that_is_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stack_names, "WHEELS", (("torch_npu", "9.9.9"),))
    made(tmp_path)
    assert stack_names.main(["--wheels", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "PROBLEM torch.npu.empty_cache: not in torch_npu 9.9.9" in told
    assert "torch.npu.device_count: not" not in told
