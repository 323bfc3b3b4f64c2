"""What torch itself says: the settings that change its numbers, read by the names that torch and torch_npu give them.

Names of torch_npu: ``npu/npu_config.py``, ``npu/aclnn`` and ``npu/__init__.py`` of the wheel torch_npu 2.9.0. Nothing here starts a
device unless ``in_use`` says that one is running already.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any

from pytest_npuconf.fingerprint.readings import DEVICE, NUMERIC, SPEED, UNKNOWN, UNSET, Reading

Groups = dict[str, list[Reading]]
# options of torch.npu.set_option; what was never set is empty
OPTIONS = ("ACL_PRECISION_MODE", "ACL_OP_SELECT_IMPL_MODE")


def read(torch: Any, device: str, *, in_use: bool = False) -> Groups:
    """The settings by group.

    Args:
        device: ``npu`` and ``cuda`` have settings of their own.
        in_use: that device runs already, so that what starts one may be asked too.
    """
    numeric = [
        _ask("float32_matmul_precision", "torch.get_float32_matmul_precision()", torch.get_float32_matmul_precision),
        _ask(
            "default_dtype", "torch.get_default_dtype()", lambda: str(torch.get_default_dtype()).removeprefix("torch.")
        ),
        _ask("deterministic_algorithms", "torch.are_deterministic_algorithms_enabled()", lambda: _deterministic(torch)),
        _ask("threads", "torch.get_num_threads()", torch.get_num_threads),
        _ask("instruction_set", "torch.backends.cpu.get_cpu_capability()", torch.backends.cpu.get_cpu_capability),
        _ask("onednn", "torch.backends.mkldnn.is_available()", torch.backends.mkldnn.is_available),
    ]
    found: Groups = {NUMERIC: numeric, SPEED: [], DEVICE: []}
    more: dict[str, Callable[[Any, Groups, bool], None]] = {"npu": _npu, "cuda": _cuda}
    if device in more:
        more[device](torch, found, in_use)
    return found


def _npu(torch: Any, found: Groups, in_use: bool) -> None:
    for kind in ("matmul", "conv", "aclnn"):
        name = f"torch.npu.{kind}.allow_hf32"
        found[NUMERIC].append(
            _ask(name.removeprefix("torch."), name, partial(attrgetter(f"npu.{kind}.allow_hf32"), torch))
        )
    cube = "torch.npu.matmul.cube_math_type"  # wins over allow_hf32 where it is set
    found[NUMERIC].append(_ask("npu.matmul.cube_math_type", cube, lambda: torch.npu.matmul.cube_math_type))
    own = getattr(sys.modules.get("torch_npu"), "_C", None)
    for name in OPTIONS:
        source = f"torch_npu._C._npu_getOption({name!r})"
        found[NUMERIC].append(_ask(name, source, partial(_option, own, name)))
    if in_use:  # asking starts the device
        jit = _ask("jit_compile", "torch.npu.is_jit_compile_false()", lambda: not torch.npu.is_jit_compile_false())
        found[NUMERIC].append(jit)
    found[DEVICE].append(_ask("visible_device_count", "torch.npu.device_count()", lambda: torch.npu.device_count()))


def _cuda(torch: Any, found: Groups, in_use: bool) -> None:
    backends = torch.backends
    for name in ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction"):
        source = f"torch.backends.cuda.matmul.{name}"
        found[NUMERIC].append(_ask(f"cuda.matmul.{name}", source, partial(getattr, backends.cuda.matmul, name)))
    for name in ("allow_tf32", "deterministic", "benchmark"):
        source = f"torch.backends.cudnn.{name}"
        found[NUMERIC].append(_ask(f"cudnn.{name}", source, partial(getattr, backends.cudnn, name)))
    if in_use:
        found[DEVICE].append(_ask("visible_device_count", "torch.cuda.device_count()", torch.cuda.device_count))


def _ask(name: str, source: str, fetch: Callable[[], Any]) -> Reading:
    """A setting that this build does not have, or will not tell, is unknown, and the source says why."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that newer versions spell otherwise
            value = fetch()
    except Exception as error:
        return Reading(name, UNKNOWN, f"{source}: {type(error).__name__}: {error}")
    return Reading(name, _text(value), source)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return UNSET if value is None or value == "" else str(getattr(value, "name", value))


def _option(own: Any, name: str) -> Any:
    return own._npu_getOption(name)


def _deterministic(torch: Any) -> str:
    if not torch.are_deterministic_algorithms_enabled():
        return "off"
    return "warn only" if torch.is_deterministic_algorithms_warn_only_enabled() else "on"
