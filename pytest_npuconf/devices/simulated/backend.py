"""The device ``npu`` itself: registered with torch once per process, for good. A tensor of it wraps one on the CPU; every op is
unwrapped, computed by :mod:`arithmetic` or the CPU, and wrapped again."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.devices.simulated import switches as names
from pytest_npuconf.devices.simulated.arithmetic import Arithmetic, saturated
from pytest_npuconf.devices.simulated.runtime import Allocations, Runtime
from pytest_npuconf.devices.simulated.switches import Switches
from pytest_npuconf.errors import DeviceError

NAME = "npu"
KEY = "PrivateUse1"
SETUP = "_setup_privateuseone_for_python_backend"
FIRST_TORCH = "2.10.0"  # whose wheel has SETUP; 2.9.1 has it not
COMPOSITES = ("CompositeExplicitAutograd", "CompositeImplicitAutograd")
OVERRIDEABLE = 4  # torch.nn.attention.SDPBackend: attention that a device brings along
# Of these a result is no computation: nothing overflows.
MOVES = frozenset({"copy_", "clone", "detach", "alias", "fill_", "zero_", "full_like", "empty_like", "cat", "stack", "index",
                   "index_select", "embedding", "masked_fill", "masked_fill_", "where", "scatter", "gather"})  # fmt: skip
# Ops that torch lets mix a tensor of the device with one on the CPU.
MIXED = frozenset({"copy_", "_to_copy", "_copy_from", "index", "index_put", "index_put_", "_index_put_impl_", "set_"})
# torch_npu's own words (VariableFallbackKernel.cpp, npu_cpu_fallback, tag v7.3.0-pytorch2.9.0 of github.com/Ascend/pytorch)
FALLBACK = (
    "Warning: CAUTION: The operator '{}' is not currently supported on the NPU backend and will fall back to run on the CPU. "
    "This may have performance implications. (function npu_cpu_fallback) (SIMULATED)"
)


class Backend:
    """One for the process. ``tensor``: the class of the device's tensors; ``switches``: its defects."""

    def __init__(self) -> None:
        self.switches = Switches()
        self.allocations = Allocations()
        self.runtime = Runtime(self.allocations)
        self.tensor = _tensor_class(self)
        self._arithmetic = Arithmetic(self.switches, lambda: bool(self.runtime.matmul.allow_hf32))
        self._libraries: dict[str, Any] = {}
        self._plain: dict[Any, Callable[..., Any]] = {}

    # torch's side

    def register(self) -> None:
        """Give torch the device, its kernels and its module.

        Raises:
            DeviceError: this torch cannot have a device in Python, or somebody else has taken the place of one.
        """
        torch = import_torch()
        from torch.utils import backend_registration
        from torch.utils._device import _device_constructors

        setup = getattr(backend_registration, SETUP, None)
        if setup is None:
            raise DeviceError(
                f"--npuconf-simulate: torch {torch.__version__} cannot have a device that is written in Python",
                mend=f"pip install 'torch>={FIRST_TORCH}' (its CPU build will do), or --npuconf-device cpu",
            )
        taken = torch._C._get_privateuse1_backend_name()
        if taken != "privateuseone":
            raise DeviceError(
                f"--npuconf-simulate: another package has registered the device {taken!r} in this process",
                mend=f"TORCH_DEVICE_BACKEND_AUTOLOAD=0, or a Python without the package that brings {taken!r}",
            )
        setup(NAME, backend_module=self.runtime.module())
        every = torch.library.Library("_", "IMPL")
        every.fallback(self._called_by_key, KEY)
        self._libraries["_"] = every
        for name in _leaves():
            self.support(name)
        _device_constructors()  # remembers torch's own functions, for torch.device("meta") as a context, before they are wrapped
        for name in ("tensor", "as_tensor"):
            setattr(torch, name, self._built_on_cpu(getattr(torch, name)))

    def support(self, name: str) -> None:
        """Register a kernel for one op, as torch_npu does for those that the NPU has."""
        library = import_torch().library.Library("aten", "IMPL")
        library.impl(name.removeprefix("aten::"), functools.partial(self._kernel, name), KEY)
        self._libraries[name] = library

    def fall_back(self, name: str, model: Any) -> None:
        """While ``model`` lives, the NPU has no kernel for this op and its ``out`` form: the CPU computes it."""
        forms = [n for n in (name, f"{name}.out") if n in self._libraries]
        self.switches.turn_on(names.FALLBACK, model, name)
        for form in forms:
            self._libraries.pop(form)._destroy()
        weakref.finalize(model, self._supported_again, forms).atexit = False
        print(FALLBACK.format(name), file=sys.stderr)

    def _supported_again(self, forms: Sequence[str]) -> None:
        for form in forms:
            self.support(form)

    def _built_on_cpu(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """``torch.tensor`` and ``torch.as_tensor`` go past the dispatcher and fail on such a device: build there, move here."""

        @functools.wraps(original)
        def build(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Any:
            torch = import_torch()
            if isinstance(data, self.tensor):
                return data.to(device=device if device is not None else data.device, dtype=kwargs.get("dtype"))
            asked = torch.device(device) if device is not None else torch.empty(0).device
            if asked.type != NAME:
                return original(data, *args, device=device, **kwargs)
            return original(data, *args, device="cpu", **kwargs).to(asked)

        return build

    # tensors

    def wrap(self, raw: Any) -> Any:
        """A tensor of the device around one on the CPU, whose storage it shares."""
        torch = import_torch()
        made = torch.Tensor._make_wrapper_subclass(
            self.tensor, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip
        made._npuconf_raw = raw
        made._npuconf_allocation = self.allocations.of(raw.untyped_storage())
        return made

    # ops

    def _called_by_key(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        return self.call(op, args, kwargs)

    def _kernel(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.call(_overload(name), args, kwargs)

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One op: tensors of the device among the arguments are unwrapped, what comes out is wrapped."""
        torch = import_torch()
        name = op.overloadpacket.__name__
        owners: dict[int, Any] = {}
        on_cpu: list[Any] = []

        def unwrapped(value: Any) -> Any:
            if isinstance(value, self.tensor):
                owners[id(value._npuconf_raw)] = value
                return value._npuconf_raw
            if isinstance(value, torch.Tensor):
                owners[id(value)] = value
                if value.dim():
                    on_cpu.append(value)
                return value
            if isinstance(value, (list, tuple)):
                return type(value)(map(unwrapped, value))
            return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value

        asked = next((v for v in (*args, *kwargs.values()) if isinstance(v, torch.device)), None)
        given = tuple(map(unwrapped, args))
        named = {key: unwrapped(value) for key, value in kwargs.items() if value is not None}
        if on_cpu and len(owners) > len(on_cpu) and name not in MIXED:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! ({op})"
            )
        result = self._computed(op, name, given, named)
        here = asked is None or asked.type == NAME

        # a view is an inference tensor if its base is one, whatever mode it is made in
        base = next((v for v in args if isinstance(v, self.tensor)), None) if op.is_view else None
        inferring = torch.is_inference_mode_enabled() if base is None else base.is_inference()

        def wrapped(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                owner = owners.get(id(value))
                if not here:  # memory of the device is not the host's to share
                    return value.clone() if isinstance(owner, self.tensor) else value
                if owner is not None:
                    return owner
                with torch.inference_mode(inferring):
                    return self.wrap(value)
            return type(value)(map(wrapped, value)) if isinstance(value, (list, tuple)) else value

        return wrapped(result)

    def _computed(self, op: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "_fused_sdp_choice":
            return OVERRIDEABLE
        if name == "_copy_from":  # (source, target)
            return args[1].copy_(args[0])
        fallen = self.switches.get(names.FALLBACK)
        own = None if fallen == f"aten::{name}" else self._arithmetic.ops.get(op.name())
        result = (own or op)(*args, **kwargs)
        if self.switches.get(names.SATURATION) and name not in MOVES and (name == "to" or not op.is_view):
            return _each(saturated, result)
        return result


@functools.cache
def backend() -> Backend:
    """The simulated NPU of this process, registered on first use.

    Raises:
        DeviceError: it cannot be registered here.
    """
    made = Backend()
    made.register()
    return made


def registered() -> bool:
    """Whether this process has the simulated NPU."""
    return backend.cache_info().currsize > 0


@functools.cache
def _overload(name: str) -> Any:
    packet, _, overload = name.removeprefix("aten::").partition(".")
    return getattr(getattr(import_torch().ops.aten, packet), overload or "default")


def _leaves() -> list[str]:
    """ATen's ops that a device must bring: those that torch does not make out of others."""
    core = import_torch()._C
    return [
        name
        for name in core._dispatch_get_all_op_names()
        if name.startswith("aten::")
        and not any(core._dispatch_has_kernel_for_dispatch_key(name, c) for c in COMPOSITES)
    ]


def _each(change: Callable[[Any], Any], result: Any) -> Any:
    if isinstance(result, import_torch().Tensor):
        return change(result)
    return type(result)(_each(change, part) for part in result) if isinstance(result, (list, tuple)) else result


def _tensor_class(owner: Backend) -> Any:
    """The class of the device's tensors."""
    torch = import_torch()

    class SimulatedNpuTensor(torch.Tensor):  # type: ignore[name-defined, misc]
        """A tensor on the simulated NPU."""

        __torch_function__ = torch._C._disabled_torch_function_impl

        @classmethod
        def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return owner.call(op, args, kwargs or {})

        def __deepcopy__(self, memo: dict[int, Any]) -> Any:
            if id(self) not in memo:
                with torch.no_grad():
                    made = self.detach().clone()
                if hasattr(self, "_is_param"):
                    made._is_param = True
                memo[id(self)] = made.requires_grad_(self.requires_grad)
            return memo[id(self)]

        def __repr__(self, *, tensor_contents: Any = None) -> str:
            return f"{self._npuconf_raw!r} on {NAME} (SIMULATED)"

        def __format__(self, spec: str) -> str:
            return format(self.item() if spec and not self.dim() else repr(self), spec)

        def tolist(self) -> Any:
            return self.cpu().tolist()

        def new_tensor(self, data: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> Any:
            return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device)

        # Module.to() then swaps a parameter's contents instead of replacing it, and tied weights stay tied.
        def __tensor_flatten__(self) -> tuple[list[str], None]:
            return ["_npuconf_raw"], None

        @staticmethod
        def __tensor_unflatten__(inner: dict[str, Any], _context: None, _size: Any, _stride: Any) -> Any:
            return owner.wrap(inner["_npuconf_raw"])

    return SimulatedNpuTensor
