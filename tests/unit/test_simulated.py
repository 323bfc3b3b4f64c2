"""The simulated NPU: its arithmetic in this process, and the device itself in processes of their own (it cannot be taken back)."""

from __future__ import annotations

import math
import operator
import subprocess
import sys
import textwrap

import pytest

torch = pytest.importorskip("torch")

from pytest_npuconf.ascend.names import names as stack_names  # noqa: E402
from pytest_npuconf.devices.simulated import arithmetic, switches  # noqa: E402
from pytest_npuconf.devices.simulated.arithmetic import Arithmetic, mean, saturated, softmax, to_bits, total  # noqa: E402
from pytest_npuconf.devices.simulated.runtime import GRAIN, Allocations, Event, Runtime  # noqa: E402
from pytest_npuconf.devices.simulated.switches import Switches  # noqa: E402

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
F = torch.nn.functional
QWEN = """
    from transformers import Qwen3Config, Qwen3ForCausalLM
    import copy, torch
    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=8, max_position_embeddings=64, tie_word_embeddings=True)
    on_cpu = Qwen3ForCausalLM(config).eval()
    on_npu = copy.deepcopy(on_cpu).to("npu")
    ids = torch.randint(0, 64, (1, 20))
"""
REGISTER = """
    from pytest_npuconf.devices.simulated.device import SimulatedNpuDevice
    device = SimulatedNpuDevice()
    device.probe()
"""


class Owner:
    """Stands for a model that a defect was injected into: all that counts is that it lives."""


@pytest.fixture
def on() -> Switches:
    return Switches()


@pytest.fixture
def npu(on) -> Arithmetic:
    return Arithmetic(on, lambda: False)


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def process(code: str) -> str:
    """Output of a Python process that must end well."""
    text = "".join(textwrap.dedent(part) for part in code.split("\n\n\n"))
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout


# ---------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 16, 128, 129, 700])
def test_a_linear_layer_rounds_once_and_sums_in_another_order(npu, dtype, width):
    x, weight, bias = draw(7, width, dtype=dtype), draw(5, width, dtype=dtype) * 0.3, draw(5, dtype=dtype)
    found = npu.linear(x, weight, bias)
    exact = x.double() @ weight.double().T + bias.double()
    size = x.double().abs() @ weight.double().abs().T + bias.double().abs()
    bound = torch.finfo(dtype).eps / 2 * exact.abs() + width * torch.finfo(torch.float32).eps * size
    assert found.dtype == dtype
    assert ((found.double() - exact).abs() <= bound).all()


def test_the_order_is_not_the_cpus(npu):
    x, weight = draw(64, 700), draw(64, 700)
    assert not torch.equal(npu.linear(x, weight), F.linear(x, weight))
    assert torch.equal(npu.linear(x, weight), npu.linear(x, weight))


def test_products_of_every_shape(npu):
    a, b = draw(2, 3, 5, 200), draw(2, 3, 200, 4)
    assert torch.allclose(npu.matmul(a, b), a @ b, atol=1e-4)
    assert torch.allclose(npu.matmul(a[0, 0], b[0, 0]), a[0, 0] @ b[0, 0], atol=1e-4)
    assert torch.equal(npu.matmul(a[0, 0, 0], b[0, 0, :, 0]), a[0, 0, 0] @ b[0, 0, :, 0])
    bias = draw(4)
    assert torch.allclose(
        npu.addmm(bias, a[0, 0], b[0, 0], beta=2, alpha=0.5),
        torch.addmm(bias, a[0, 0], b[0, 0], beta=2, alpha=0.5),
        atol=1e-4,
    )
    whole = torch.arange(6).reshape(2, 3)
    assert torch.equal(npu.matmul(whole, whole.T), whole @ whole.T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "causal", "bool", "float"])
def test_attention(npu, dtype, kind):
    query, key, value = (
        draw(2, 4, 150, 16, dtype=dtype),
        draw(2, 2, 150, 16, dtype=dtype),
        draw(2, 2, 150, 8, dtype=dtype),
    )
    mask = torch.ones(150, 150, dtype=torch.bool).tril()
    given = {"plain": {}, "causal": {"is_causal": True}, "bool": {"attn_mask": mask},
             "float": {"attn_mask": torch.zeros(150, 150).masked_fill(~mask, -math.inf)}}[kind]  # fmt: skip
    repeated = [t.double().repeat_interleave(2, 1) for t in (key, value)]
    wanted = {**given, **({"attn_mask": given["attn_mask"].double()} if kind == "float" else {})}
    exact = F.scaled_dot_product_attention(query.double(), *repeated, **wanted)
    found = npu.attention(query, key, value, enable_gqa=True, **given)
    assert found.dtype == dtype
    # probabilities and result are rounded to the dtype, each by half a unit in the last place of values up to max|v|
    assert (found.double() - exact).abs().max() <= 2 * torch.finfo(dtype).eps * value.double().abs().max()


def test_a_query_that_sees_nothing_gives_zeros(npu):
    none = torch.zeros(3, 3, dtype=torch.bool)
    assert torch.equal(
        npu.attention(draw(1, 1, 3, 4), draw(1, 1, 3, 4), draw(1, 1, 3, 4), none), torch.zeros(1, 1, 3, 4)
    )


def test_reductions():
    x = draw(5, 300)
    assert torch.allclose(softmax(x, -1), torch.softmax(x, -1), atol=1e-6)
    assert torch.allclose(mean(x, [-1], True), x.mean(-1, keepdim=True), atol=1e-6)
    assert torch.allclose(total(x, [0]), x.sum(0), atol=1e-5)
    assert torch.equal(mean(x, [0, 1]), x.mean([0, 1]))
    assert softmax(x.bfloat16(), -1, torch.float32).dtype == torch.float32


# ---------------------------------------------------------------- defects


def test_a_defect_ends_with_its_model(on):
    owner = Owner()
    on.turn_on(switches.HF32, owner, "value")
    assert on.get(switches.HF32) == "value"
    del owner
    assert on.get(switches.HF32) is None


def test_hf32_has_eleven_bits_of_mantissa():
    """1 + 2^-12 lies half-way between two numbers of eleven bits and goes to the even one; so does 1 + 3 * 2^-12."""
    x = torch.tensor([1 + 2.0**-11, 1 + 2.0**-12, 1 + 3 * 2.0**-12, -1 - 2.0**-11, math.inf, 0.0, 3e38])
    found = to_bits(x, arithmetic.HF32_BITS)
    assert found[:6].tolist() == [1 + 2.0**-11, 1.0, 1 + 2.0**-10, -1 - 2.0**-11, math.inf, 0.0]
    assert abs(float(found[6]) / 3e38 - 1) <= 2.0**-12
    assert math.isnan(float(to_bits(torch.tensor([math.nan]), 11)))


def test_hf32_touches_float32_only(on, npu):
    owner, x, weight = Owner(), draw(9, 128), draw(9, 128)
    plain, low = npu.linear(x, weight), npu.linear(x.bfloat16(), weight.bfloat16())
    on.turn_on(switches.HF32, owner)
    error = (npu.linear(x, weight) - plain).abs().max() / plain.abs().max()
    assert 2.0**-16 < error < 2.0**-9
    assert torch.equal(npu.linear(x.bfloat16(), weight.bfloat16()), low)
    allowed = Arithmetic(Switches(), lambda: True)  # the user's own torch.npu.matmul.allow_hf32
    assert torch.equal(allowed.linear(x, weight), npu.linear(x, weight))


def test_saturation():
    x = torch.tensor([math.inf, -math.inf, math.nan, 2.0], dtype=torch.float16)
    assert saturated(x).tolist() == [65504.0, -65504.0, 0.0, 2.0]
    assert saturated(torch.tensor([1, 2])).tolist() == [1, 2]


def test_narrow_sums_are_worse(on, npu):
    owner, x, weight = Owner(), draw(9, 512, dtype=torch.bfloat16), draw(9, 512, dtype=torch.bfloat16)
    exact = x.double() @ weight.double().T
    healthy = (npu.linear(x, weight).double() - exact).abs().mean()
    on.turn_on(switches.NARROW, owner, "bfloat16")
    assert (npu.linear(x, weight).double() - exact).abs().mean() > 1.5 * healthy


def test_no_order_is_the_same_twice(on, npu):
    owner, x, weight = Owner(), draw(32, 256), draw(32, 256)
    on.turn_on(switches.UNORDERED, owner)
    once, again = npu.linear(x, weight), npu.linear(x, weight)
    assert not torch.equal(once, again)
    assert torch.allclose(once, again, atol=1e-4)


def test_a_wrong_shape_and_a_wrong_first_call(on, npu):
    owner, x, weight, other = Owner(), draw(2, 64), draw(8, 64), draw(9, 64)
    on.turn_on(switches.WRONG_SHAPE, owner, (8, 64))
    assert torch.allclose(npu.linear(x, weight), F.linear(x[:, :48], weight[:, :48]), atol=1e-5)
    assert torch.allclose(npu.linear(x, other), F.linear(x, other), atol=1e-5)
    on.turn_on(switches.FIRST_CALL, owner)
    assert not npu.linear(x, other).any()
    assert torch.allclose(npu.linear(x, other), F.linear(x, other), atol=1e-5)


# ---------------------------------------------------------------- runtime


def test_memory_is_counted_by_storage():
    counted = Allocations()
    storage = torch.zeros(1000).untyped_storage()
    held = [counted.of(storage), counted.of(storage)]
    assert held[0] is held[1]
    assert counted.allocated == 8 * GRAIN  # 4,000 bytes
    held.clear()
    assert (counted.allocated, counted.peak) == (0, 8 * GRAIN)
    assert counted.of(torch.zeros(0).untyped_storage()) is None


def test_events_need_timing_and_recording():
    start, end = Event(enable_timing=True), Event(enable_timing=True)
    with pytest.raises(RuntimeError, match="recorded"):
        start.elapsed_time(end)
    start.record()
    end.record()
    assert 0 <= start.elapsed_time(end) < 1000
    with pytest.raises(RuntimeError, match="enable_timing"):
        start.elapsed_time(Event())


def test_it_has_the_names_that_are_called_through_torch_npu():
    """Those that devices and the fingerprint call, by the catalogue of torch_npu's names. It lacks two settings."""
    callers = ("devices/accelerator.py", "fingerprint/torch_settings.py")
    called = [n.name.removeprefix("torch.npu.") for n in stack_names()
              if n.name.startswith("torch.npu.") and any(p.endswith(callers) for p in n.used_by)]  # fmt: skip
    module = Runtime(Allocations()).module()
    assert len(called) >= 6
    assert {name for name in called if not _has(module, name)} <= {"matmul.cube_math_type", "set_option"}


def _has(module, name):
    try:
        operator.attrgetter(name)(module)
    except AttributeError:
        return False
    return True


# ---------------------------------------------------------------- the device, in a process of its own


def test_a_model_runs_on_it():
    out = process(f"""{REGISTER}


{QWEN}


    assert (str(device.torch_device()), device.hardware()) == ("npu:0", "Simulated NPU"), device.hardware()
    assert "(SIMULATED)" in device.describe() and device.deterministic()
    assert on_npu.lm_head.weight is on_npu.model.embed_tokens.weight  # tied weights stay tied
    size = sum(p.numel() * 4 for p in on_cpu.parameters())
    assert size <= torch.npu.memory_allocated() <= size + 512 * 40, torch.npu.memory_allocated()
    with torch.inference_mode():
        here, there = on_cpu(input_ids=ids).logits, on_npu(input_ids=ids.to("npu")).logits
    with torch.no_grad():
        again = on_npu(input_ids=ids.npu()).logits
    assert there.device.type == again.device.type == "npu"
    assert 0 < (here - there.cpu()).abs().max() < 1e-5
    assert (here - again.cpu()).abs().max() < 1e-5
    peak = torch.npu.max_memory_allocated()
    assert peak > torch.npu.memory_allocated()
    torch.npu.reset_peak_memory_stats()
    assert torch.npu.max_memory_allocated() == torch.npu.memory_allocated() < peak
    for how in (dict(do_sample=False), dict(do_sample=True), dict(num_beams=2), dict(cache_implementation="static")):
        torch.manual_seed(1)
        mine = on_cpu.generate(ids, max_new_tokens=6, **how)
        torch.manual_seed(1)
        assert (mine == on_npu.generate(ids.to("npu"), max_new_tokens=6, **how).cpu()).all(), how
    twin = copy.deepcopy(on_npu)
    assert twin.lm_head.weight is twin.model.embed_tokens.weight and twin.lm_head.weight.device.type == "npu"
    print("well")
    """)
    assert out.strip() == "well"


def test_its_tensors_are_torchs():
    out = process(f"""{REGISTER}


    import torch
    x = torch.arange(6, device="npu").reshape(2, 3)
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]] and x[1, 2].item() == 5 and x.is_npu
    assert "SIMULATED" in repr(x)
    y = x.T
    y[0, 0] = 7  # a view shares its memory
    assert x[0, 0].item() == 7 and not y.is_contiguous()
    host = x.cpu()
    x += 1
    assert host[0, 0].item() == 7 and x[0, 0].item() == 8  # memory of the device is not the host's
    assert torch.tensor([1.0], device="npu:0").device == torch.as_tensor([1.0], device="npu").device == x.device
    assert x.float().new_tensor([2.5]).device == x.device
    with torch.device("meta"):
        assert torch.tensor([1.0]).device.type == "meta"
    with torch.device("npu"):
        assert torch.tensor([1.0]).device.type == torch.zeros(2).device.type == "npu"
    assert torch.tensor([1.0]).device.type == "cpu"
    try:
        x.float() + torch.ones(3)
    except RuntimeError as error:
        assert "same device" in str(error)
    else:
        raise AssertionError("a tensor of the host and one of the device were added")
    assert (x.float() + torch.tensor(1.0)).device.type == "npu"  # a number may come from the host
    torch.npu.synchronize()
    torch.npu.set_device("npu:0")
    try:
        torch.npu.set_device(1)
    except RuntimeError:
        print("well")
    """)
    assert out.strip() == "well"


def test_where_each_op_ran():
    """A fallback is the dispatcher's, as torch_npu's is; a copy to the host and back is seen by its tensors."""
    out = process(f"""{REGISTER}


{QWEN}


    import gc
    from pytest_npuconf.devices.simulated.backend import backend
    from pytest_npuconf.engines.execution import execute, falls_back
    from pytest_npuconf.measurements import executed_elsewhere

    npu = device.torch_device()
    healthy = execute(on_npu, ids[0].tolist(), npu)
    assert not healthy.elsewhere and sum(healthy.calls.values()) > 100, healthy
    assert not execute(on_cpu, ids[0].tolist(), torch.device("cpu")).elsewhere
    backend().fall_back("aten::silu", on_npu)
    assert falls_back(torch.ops.aten.silu.default, "PrivateUse1")
    (one,) = execute(on_npu, ids[0].tolist(), npu).elsewhere
    assert (one.op, one.module, one.calls) == ("aten::silu", "model.layers.0.mlp.act_fn", 2 * 3), one
    found = executed_elsewhere(execute(on_npu, ids[0].tolist(), npu))
    assert found.value == 6 and "aten::silu" in found.rows[0].place, found
    del on_npu
    gc.collect()
    assert not falls_back(torch.ops.aten.silu.default, "PrivateUse1")  # it ended with its model
    moved = copy.deepcopy(on_cpu).to("npu")
    moved.model.layers[1].mlp.register_forward_hook(lambda _m, _i, output: output.cpu().to("npu"))
    found = execute(moved, ids[0].tolist(), npu).elsewhere
    assert found and all("cpu" in e.why for e in found) and "model.layers.1.mlp" in {{e.module for e in found}}, found
    print("well")
    """)
    assert out.strip() == "well"


def test_a_torch_without_the_interface_is_a_usage_error():
    out = process("""
    from torch.utils import backend_registration
    from pytest_npuconf.devices.simulated.backend import SETUP
    from pytest_npuconf.devices.simulated.device import SimulatedNpuDevice
    from pytest_npuconf.errors import DeviceError
    delattr(backend_registration, SETUP)
    try:
        SimulatedNpuDevice().probe()
    except DeviceError as error:
        print(error.mend)
    """)
    assert "torch>=2.10.0" in out


def test_a_device_that_is_there_already_is_not_replaced():
    out = process("""
    import torch
    torch.utils.rename_privateuse1_backend("other")
    from pytest_npuconf.devices.simulated.device import SimulatedNpuDevice
    from pytest_npuconf.errors import DeviceError
    try:
        SimulatedNpuDevice().probe()
    except DeviceError as error:
        print(error.what)
    """)
    assert "'other'" in out


def test_importing_us_touches_no_device():
    """Every module of the package: no torch, so no device either."""
    out = process("""
    import importlib, pkgutil, sys
    import pytest_npuconf
    names = [m.name for m in pkgutil.walk_packages(pytest_npuconf.__path__, "pytest_npuconf.") if "._data" not in m.name]
    for name in names:
        importlib.import_module(name)
    assert len(names) > 150, len(names)
    assert "torch" not in sys.modules, "torch was imported"
    print("well")
    """)
    assert out.strip() == "well"
