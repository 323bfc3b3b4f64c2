"""The environment variables that a fingerprint reads: what they change, for which device, and what holds when unset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_npuconf.devices.cpu import NUMERIC_VARIABLES
from pytest_npuconf.fingerprint.readings import DEVICE, NUMERIC, SPEED, UNSET, Reading

_PYTORCH = "https://www.hiascend.com/document/detail/zh/Pytorch/710/comref/Envvariables"
_CANN = "https://www.hiascend.com/document/detail/en/canncommercial/850/maintenref/envvar"
SATURATION = "https://www.hiascend.com/document/detail/zh/Pytorch/600/apiref/Envvariables/Envir_004.html"
QUEUE = "https://www.hiascend.com/document/detail/zh/Pytorch/600/apiref/Envvariables/Envir_019.html"
_VLLM_ASCEND = "vllm_ascend 0.18.0"
_VLLM_ASCEND_DOCS = "github.com/vllm-project/vllm-ascend: docs/source"
_VLLM = "https://docs.vllm.ai/en/latest/configuration/env_vars/"
_REPRODUCIBLE = "https://docs.pytorch.org/docs/stable/notes/randomness.html"
_CUDA = "https://docs.pytorch.org/docs/stable/cuda_environment_variables.html"
_OPENMP = "https://www.openmp.org/spec-html/5.0/openmpch6.html"


@dataclass(frozen=True)
class Variable:
    """``group``: what it changes. ``default``: what holds when it is unset, as ``source`` documents it; :data:`UNSET` where
    no default is documented. ``devices``: where it is always told; elsewhere only when it is set."""

    name: str
    group: str
    source: str
    default: str = UNSET
    devices: tuple[str, ...] = ("npu",)


VARIABLES = (
    Variable("INF_NAN_MODE_ENABLE", NUMERIC, SATURATION, "1"),
    Variable("INF_NAN_MODE_FORCE_DISABLE", NUMERIC, SATURATION),
    Variable("HCCL_DETERMINISTIC", NUMERIC, f"{_CANN}/envref_07_0099.html", "false"),
    Variable(
        "LCCL_DETERMINISTIC", NUMERIC, "https://www.mindspore.cn/mindformers/docs/en/r1.6.0/env_variables.html", "0"
    ),
    Variable("ATB_MATMUL_SHUFFLE_K_ENABLE", NUMERIC, _VLLM_ASCEND_DOCS),
    Variable("ATB_LLM_LCOC_ENABLE", NUMERIC, _VLLM_ASCEND_DOCS),
    Variable("VLLM_ASCEND_ENABLE_NZ", NUMERIC, f"{_VLLM_ASCEND} envs.py", "1"),
    Variable("VLLM_BATCH_INVARIANT", NUMERIC, _VLLM, "0"),
    Variable("CUBLAS_WORKSPACE_CONFIG", NUMERIC, _REPRODUCIBLE, devices=("cuda",)),
    Variable("NVIDIA_TF32_OVERRIDE", NUMERIC, _CUDA, devices=("cuda",)),
    Variable("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", NUMERIC, _CUDA, devices=("cuda",)),
    *(Variable(name, NUMERIC, "devices/cpu.py", devices=("cpu",)) for name in NUMERIC_VARIABLES),
    Variable("TASK_QUEUE_ENABLE", SPEED, QUEUE, "1"),
    Variable("ASCEND_LAUNCH_BLOCKING", SPEED, f"{_PYTORCH}/Envir_006.html"),
    Variable("COMBINED_ENABLE", SPEED, f"{_PYTORCH}/Envir_005.html"),
    Variable("PYTORCH_NPU_ALLOC_CONF", SPEED, f"{_PYTORCH}/Envir_012.html"),
    Variable("VLLM_WORKER_MULTIPROC_METHOD", SPEED, _VLLM, "fork"),
    Variable("PYTORCH_CUDA_ALLOC_CONF", SPEED, _CUDA, devices=("cuda",)),
    Variable("CUDA_LAUNCH_BLOCKING", SPEED, _CUDA, devices=("cuda",)),
    Variable("OMP_WAIT_POLICY", SPEED, _OPENMP, devices=("cpu", "cuda", "npu")),
    Variable("OMP_PROC_BIND", SPEED, _OPENMP, devices=()),
    Variable("OMP_PLACES", SPEED, _OPENMP, devices=()),
    Variable("ASCEND_RT_VISIBLE_DEVICES", DEVICE, f"{_CANN}/envref_07_0028.html"),
    Variable("CUDA_VISIBLE_DEVICES", DEVICE, _CUDA, devices=("cuda",)),
)


def read_variables(environ: Mapping[str, str], device: str) -> dict[str, list[Reading]]:
    """The variables that matter to a device, by group; of other devices those that are set."""
    found: dict[str, list[Reading]] = {NUMERIC: [], SPEED: [], DEVICE: []}
    for variable in VARIABLES:
        if variable.name in environ:
            found[variable.group].append(Reading(variable.name, environ[variable.name], "environment"))
        elif device in variable.devices:
            source = f"default (unset): {variable.source}" if variable.default != UNSET else "environment"
            found[variable.group].append(Reading(variable.name, variable.default, source))
    return found
