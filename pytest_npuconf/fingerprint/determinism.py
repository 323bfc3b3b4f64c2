"""Whether the same call gives the same bits again, decided from a fingerprint, and which reading decided it.

cpu: work is split by shape and number of threads, not by who comes first. cuda: deterministic algorithms and a fixed cuBLAS
workspace (https://docs.pytorch.org/docs/stable/notes/randomness.html, torch.use_deterministic_algorithms). npu: CANN's kernels
are not deterministic unless asked (https://www.hiascend.com/document/detail/zh/Pytorch/700/apiref/apilist/ptaoplist_001450.html);
reductions between devices have switches of their own, which one device alone does not need
(https://www.hiascend.com/document/detail/en/canncommercial/850/maintenref/envvar/envref_07_0099.html). vLLM on npu is
deterministic in batch-invariant mode, which sets those switches itself (vllm_ascend 0.18.0, batch_invariant.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from pytest_npuconf.fingerprint import torch_settings
from pytest_npuconf.fingerprint.readings import Fingerprint
from pytest_npuconf.fingerprint.settings import read_variables

CUBLAS = (":4096:8", ":16:8")
ON = {  # the values that switch a variable on, as its documentation spells them
    "HCCL_DETERMINISTIC": ("true", "strict"),
    "LCCL_DETERMINISTIC": ("1",),
    "VLLM_BATCH_INVARIANT": ("1",),
}
Verdict = tuple[bool, str]


def deterministic(fingerprint: Fingerprint, device: str, *, engine: str = "transformers", devices: int = 1) -> Verdict:
    """The verdict, and the reading that it rests on in words.

    Args:
        engine: ``server`` is a process whose settings are not ours to read: never known to be deterministic.
        devices: that one model is spread over.
    """
    if engine == "server":
        return False, "the settings of a server's process are not read"
    if device == "cpu":
        return True, "device cpu: the kernels split work by shape and threads"
    if engine == "vllm":
        return _batch_invariant(fingerprint)
    judges: dict[str, Callable[[Fingerprint, int], Verdict]] = {"npu": _npu, "cuda": _cuda}
    if device not in judges:
        return False, f"device {device}: nothing is known about it"
    return judges[device](fingerprint, devices)


def of_process(device: str, torch: Any, environ: Mapping[str, str] = os.environ) -> Verdict:
    """The verdict on this process, which has torch, for the engine that runs in it on one device."""
    groups = torch_settings.read(torch, device)
    for group, readings in read_variables(environ, device).items():
        groups[group] = [*groups[group], *readings]
    return deterministic(Fingerprint.of(groups), device)


def _batch_invariant(fingerprint: Fingerprint) -> Verdict:
    name = "VLLM_BATCH_INVARIANT"
    return switched_on(name, fingerprint.value(name)), _told(fingerprint, name)


def switched_on(name: str, value: str) -> bool:
    """Whether a variable's value is one that asks for determinism."""
    return value.lower() in ON[name]


def _algorithms(fingerprint: Fingerprint) -> Verdict:
    name = "deterministic_algorithms"
    return fingerprint.value(name) == "on", _told(fingerprint, name)


def _cuda(fingerprint: Fingerprint, _devices: int) -> Verdict:
    on, why = _algorithms(fingerprint)
    if not on:
        return False, why
    fixed = fingerprint.value("CUBLAS_WORKSPACE_CONFIG") in CUBLAS
    return fixed, f"{why}; {_told(fingerprint, 'CUBLAS_WORKSPACE_CONFIG')}"


def _npu(fingerprint: Fingerprint, devices: int) -> Verdict:
    on, why = _algorithms(fingerprint)
    if not on or devices == 1:
        return on, why
    for name in ("HCCL_DETERMINISTIC", "LCCL_DETERMINISTIC"):
        if not switched_on(name, fingerprint.value(name)):
            return False, f"{_told(fingerprint, name)}, with {devices} devices"
    return True, f"{why}; {_told(fingerprint, 'HCCL_DETERMINISTIC')}; {_told(fingerprint, 'LCCL_DETERMINISTIC')}"


def _told(fingerprint: Fingerprint, name: str) -> str:
    reading = fingerprint.find(name)
    return f"{name} was not read" if reading is None else f"{name} is {reading.value} ({reading.source})"
