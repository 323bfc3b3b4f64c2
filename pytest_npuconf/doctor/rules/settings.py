"""Settings that make a run measure something else than it says, and settings that nothing reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from packaging.version import Version

from pytest_npuconf.audit.data import chips
from pytest_npuconf.audit.data import environment as environment_data
from pytest_npuconf.devices.npu import VISIBLE
from pytest_npuconf.doctor.case import Case, Rule
from pytest_npuconf.doctor.findings import Finding, Level
from pytest_npuconf.fingerprint.determinism import CUBLAS, ON, deterministic, switched_on
from pytest_npuconf.fingerprint.settings import QUEUE, SATURATION

# of the default; the width of HF32: https://hiascend.com/document/detail/zh/CANNCommunityEdition/800alpha003/devaids/devtools/atc/
# atlasatcparam_16_0077.html
HF32 = "https://www.hiascend.com/document/detail/zh/Pytorch/700/apiref/apilist/ptaoplist_000238.html"
BATCH_INVARIANT = "vllm_ascend 0.18.0: batch_invariant.py, override_envs_for_invariance"
# what batch-invariant mode sets, whatever was set before
OVERRIDDEN = {
    "VLLM_ASCEND_ENABLE_NZ": "0",
    "VLLM_ASCEND_ENABLE_MATMUL_ALLREDUCE": "0",
    "HCCL_DETERMINISTIC": "strict",
    "LCCL_DETERMINISTIC": "1",
}
INTERCEPTED = Version("2.4.0")  # torch_npu of Ascend Extension for PyTorch 6.0, whose page says it
FORK = "torch_npu 2.9.0: npu/__init__.py, _lazy_init (Cannot re-initialize NPU in forked subprocess)"


def reduced_float32(case: Case) -> Iterator[Finding]:
    """A float32 run whose products are rounded to HF32 or TF32."""
    if "float32" not in case.asked.precisions:
        return
    for name, bad, level, what, mend in _REDUCED.get(case.asked.device, ()):
        value = case.fingerprint.value(name)
        if value in bad:
            where = f"{case.where(name)}; {HF32}" if "hf32" in name else case.where(name)
            yield Finding("hf32", level, f"{name} is {value} in a float32 run: {what}", where, mend)


_CUBE = ("ALLOW_FP32_DOWN_PRECISION", "USE_FP16", "USE_HF32")
_HIGHEST = 'torch.set_float32_matmul_precision("highest")'
_KEEP = "torch.npu.matmul.cube_math_type = type(torch.npu.matmul.cube_math_type).KEEP_DTYPE"
_MUST_KEEP = 'torch.npu.set_option({"ACL_PRECISION_MODE": "must_keep_origin_dtype"})'
_P, _W = Level.PROBLEM, Level.WARNING
_HF32, _TF32 = "a mantissa of 11 bits and not 23", "TF32, a mantissa of 10 bits and not 23"
_REDUCED: Mapping[str, tuple[tuple[str, tuple[str, ...], Level, str, str], ...]] = {
    "npu": (
        ("npu.matmul.allow_hf32", ("True",), _P, f"matmul has {_HF32}", "torch.npu.matmul.allow_hf32 = False"),
        ("npu.conv.allow_hf32", ("True",), _W, f"convolutions have {_HF32} (torch_npu's default)",
         "torch.npu.conv.allow_hf32 = False"),
        ("npu.matmul.cube_math_type", _CUBE, _P, "matmul is not in float32", _KEEP),
        ("ACL_PRECISION_MODE", ("allow_fp32_to_fp16",), _P, "operators may run in float16", _MUST_KEEP),
    ),
    "cuda": (
        ("cuda.matmul.allow_tf32", ("True",), _P, f"matmul has {_TF32}", _HIGHEST),
        ("cudnn.allow_tf32", ("True",), _W, f"convolutions have {_TF32} (torch's default)",
         "torch.backends.cudnn.allow_tf32 = False"),
    ),
    "cpu": (("float32_matmul_precision", ("high", "medium"), _P, "matmul may run in fewer bits", _HIGHEST),),
}  # fmt: skip


def saturation(case: Case) -> Iterator[Finding]:
    """Saturation mode: overflow becomes the largest number and NaN becomes 0, so that no check of finiteness sees them."""
    environ, effect = case.host.environ, "overflow becomes the largest number and NaN becomes 0: nothing can see them"
    mend = "unset INF_NAN_MODE_FORCE_DISABLE; export INF_NAN_MODE_ENABLE=1"
    torch_npu = case.version("torch_npu")
    asked = environ.get("INF_NAN_MODE_ENABLE") == "0"
    if environ.get("INF_NAN_MODE_FORCE_DISABLE") == "1":
        where = f"environment INF_NAN_MODE_FORCE_DISABLE; {SATURATION}"
        yield Finding("saturation", Level.PROBLEM, f"saturation mode is forced: {effect}", where, mend)
    elif asked and torch_npu is not None and torch_npu < INTERCEPTED:
        where = f"environment INF_NAN_MODE_ENABLE; {SATURATION}"
        yield Finding("saturation", Level.PROBLEM, f"saturation mode is on: {effect}", where, mend)
    only = sorted({chip.name for chip in case.collected.smi.chips if _family(chip.name) in ("310P", "310B")})
    if only:
        mend = "no setting changes it: judge against values (kl, rel_l2), not by finiteness alone"
        what = f"{', '.join(only)} has saturation mode only: {effect}"
        yield Finding("saturation", Level.WARNING, what, f"npu-smi info; {SATURATION}", mend)


def _family(name: str) -> str:
    """The generation of a chip, empty where the name alone does not tell (``Ascend910``)."""
    found = chips().chips_in(name)
    return found[0].family if found else ""


def ignored(case: Case) -> Iterator[Finding]:
    """Variables that nothing reads, and variables that another one overrides."""
    yield from _misnamed(case)
    if case.asked.device != "npu":
        return
    environ, rule = case.host.environ, "ignored-variable"
    if environ.get("ASCEND_LAUNCH_BLOCKING") == "1" and environ.get("TASK_QUEUE_ENABLE", "0") != "0":
        what = "TASK_QUEUE_ENABLE has no effect: ASCEND_LAUNCH_BLOCKING=1 turns the queue off"
        yield Finding(rule, Level.WARNING, what, f"environment; {QUEUE}", "unset ASCEND_LAUNCH_BLOCKING")
    torch_npu = case.version("torch_npu")
    intercepted = torch_npu is None or torch_npu >= INTERCEPTED
    if environ.get("INF_NAN_MODE_ENABLE") == "0" and environ.get("INF_NAN_MODE_FORCE_DISABLE") != "1" and intercepted:
        what = "INF_NAN_MODE_ENABLE=0 has no effect on Atlas A2 and A3: torch_npu intercepts it"
        yield Finding(rule, Level.WARNING, what, f"environment; {SATURATION}", "unset INF_NAN_MODE_ENABLE")
    if switched_on("VLLM_BATCH_INVARIANT", environ.get("VLLM_BATCH_INVARIANT", "0")):
        for name, value in OVERRIDDEN.items():
            if environ.get(name, value) != value:
                what = f"{name}={environ[name]} has no effect: VLLM_BATCH_INVARIANT=1 sets it to {value}"
                yield Finding(rule, Level.WARNING, what, f"environment; {BATCH_INVARIANT}", f"unset {name}")
    if "CUDA_VISIBLE_DEVICES" in environ and VISIBLE not in environ:
        what = f"CUDA_VISIBLE_DEVICES={environ['CUDA_VISIBLE_DEVICES']} chooses no NPU"
        mend = f"unset CUDA_VISIBLE_DEVICES; export {VISIBLE}={environ['CUDA_VISIBLE_DEVICES'] or 0}"
        yield Finding(rule, Level.WARNING, what, "environment CUDA_VISIBLE_DEVICES", mend)


def _misnamed(case: Case) -> Iterator[Finding]:
    data, rule = environment_data(), "ignored-variable"
    mistakes, known = dict(data.mistakes), {each.name: each for each in data.variables}
    installed = case.version("vllm_ascend")
    for name, value in sorted(case.host.environ.items()):
        if name in mistakes:
            meant = mistakes[name]
            what = f"{name} is no variable of the stack: nothing reads it; {meant} is the one that exists"
            yield Finding(
                rule, Level.PROBLEM, what, f"environment; {data.source}", f"unset {name}; export {meant}={value}"
            )
        elif not name.startswith(data.prefix) or installed is None or installed > Version(data.newest):
            continue
        elif name not in known:
            near = difflib.get_close_matches(name, [*known, *data.known], n=1, cutoff=0.75)
            mend = f"unset {name}" + (f"; export {near[0]}={value}" if near else "")
            what = f"no release of {data.owner} up to {data.newest} has {name}: nothing reads it"
            yield Finding(rule, Level.WARNING, what, f"environment; {data.source}", mend)
        elif known[name].first:
            variable = known[name]
            last = data.newest if variable.last == "newest" else variable.last
            if not Version(variable.first) <= installed <= Version(last):
                what = f"{name} is read by {data.owner} {variable.first} to {last}, this host has {installed}"
                yield Finding(rule, Level.WARNING, what, f"environment; {data.source}", f"unset {name}")


def determinism(case: Case) -> Iterator[Finding]:
    """Equal bits are expected (``--bit-equal``, or a variable asks for them), and the mode does not give them."""
    environ, device, engine = case.host.environ, case.asked.device, case.asked.engine
    wishes = [name for name in ON if switched_on(name, environ.get(name, "0"))] if device == "npu" else []
    if device == "cuda" and environ.get("CUBLAS_WORKSPACE_CONFIG") in CUBLAS:
        wishes.append("CUBLAS_WORKSPACE_CONFIG")
    if not (case.asked.bit_equal or wishes) or case.collected.torch.trouble:
        return
    equal, why = deterministic(case.fingerprint, device, engine=engine)
    if equal:
        return
    expected = "--bit-equal" if case.asked.bit_equal else f"{', '.join(wishes)} in the environment"
    mend = (
        "export VLLM_BATCH_INVARIANT=1"
        if engine == "vllm"
        else "torch.use_deterministic_algorithms(True) in a conftest.py"
    )
    if device == "cuda" and engine != "vllm":
        mend += " and export CUBLAS_WORKSPACE_CONFIG=:4096:8"
    level = Level.PROBLEM if case.asked.bit_equal else Level.WARNING
    what = f"equal bits are expected ({expected}), but repeated calls may differ with engine {engine}: {why}"
    yield Finding("determinism", level, what, why, mend)


def fork(case: Case) -> Iterator[Finding]:
    """Workers that are started by fork cannot use an NPU that their parent has started."""
    environ = case.host.environ
    if environ.get("VLLM_WORKER_MULTIPROC_METHOD") == "fork":
        what = "VLLM_WORKER_MULTIPROC_METHOD=fork: a forked worker cannot start the device again"
        mend = "export VLLM_WORKER_MULTIPROC_METHOD=spawn"
        yield Finding("fork", Level.PROBLEM, what, f"environment VLLM_WORKER_MULTIPROC_METHOD; {FORK}", mend)
    if "--forked" in environ.get("PYTEST_ADDOPTS", "").split():
        what = "PYTEST_ADDOPTS has --forked: each test runs in a forked child, which cannot start the device again"
        mend = "take --forked out of PYTEST_ADDOPTS (pytest -n 1 separates processes by spawning)"
        yield Finding("fork", Level.PROBLEM, what, f"environment PYTEST_ADDOPTS; {FORK}", mend)
    if case.fingerprint.value("start_method") == "fork":
        what = "multiprocessing's start method is set to fork: a forked worker cannot start the device again"
        mend = 'multiprocessing.set_start_method("spawn", force=True) where it is set to fork'
        yield Finding("fork", Level.WARNING, what, f"{case.where('start_method')}; {FORK}", mend)


RULES = (
    Rule("hf32", "a float32 run computes in float32", reduced_float32),
    Rule("saturation", "overflow and NaN can be seen", saturation, ("npu",)),
    Rule("ignored-variable", "every variable that is set is read", ignored),
    Rule("determinism", "equal bits are expected only where they are given", determinism),
    Rule("fork", "no worker is started by fork", fork, ("npu", "cuda")),
)
