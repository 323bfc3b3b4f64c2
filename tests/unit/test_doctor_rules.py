"""Each judgement alone: what it needs to speak, and what keeps it silent."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pytest_npuconf.cards import find_card
from pytest_npuconf.cards.schema import Card
from pytest_npuconf.devices.base import Memory
from pytest_npuconf.doctor.case import Asked, Case
from pytest_npuconf.doctor.memory import Needed, kv_numbers, needed_of
from pytest_npuconf.doctor.rules import ascend, memory, settings, versions
from pytest_npuconf.fingerprint.collect import collect
from pytest_npuconf.fingerprint.npu_smi import Chip, Smi
from tests import situations

GIB = 1 << 30


def case(base: str = "healthy-a2", **changes: Any) -> Case:
    """A situation with changes: tables by name, and fields of what is asked under ``asked``."""
    data = situations.load(base)
    asked = dataclasses.replace(situations.asked_of(data), **changes.pop("asked", {}))
    for table, entries in changes.items():
        data[table] = {key: value for key, value in {**data[table], **entries}.items() if value is not None}
    host = situations.host_of(data)
    return Case(host, asked, collect(host, asked.device))


def said(check, one: Case) -> list[str]:
    return [f"{finding.level} {finding.what}" for finding in check(one)]


# ---------------------------------------------------------------- the stack


@pytest.mark.parametrize(
    ("packages", "finding"),
    [
        ({"torch": "2.9.1"}, "warning vllm-ascend 0.18.0 asks for torch ==2.9.0, this host has 2.9.1"),
        ({"torch": "2.10.0"}, "problem vllm-ascend 0.18.0 asks for torch ==2.9.0, this host has 2.10.0: not one environment"),
        ({"torch-npu": "2.9.0.post1"}, None),  # another build of the same version
        ({"transformers": "4.57.3"}, "warning vllm-ascend 0.18.0 asks for transformers >=4.57.4, this host has 4.57.3"),
        ({"transformers": "5.23.0"}, None),
        ({"vllm": "0.19.0"}, "warning vllm-ascend 0.18.0 is for vLLM 0.18.0, this host has 0.19.0"),
        ({"vllm-ascend": None, "torch": "2.10.0"}, None),  # the next rule's
        ({"vllm-ascend": "0.23.0", "torch": "2.10.0", "torch-npu": "2.10.0.post4", "transformers": "5.5.4", "vllm": "0.23.0"},
         "warning vllm-ascend 0.23.0 is for CANN 9.1.0, this host has 8.5.1"),
    ],
)  # fmt: skip
def test_stack(packages, finding):
    assert said(versions.stack, case(packages=packages)) == ([finding] if finding else [])


@pytest.mark.parametrize(
    ("packages", "finding"),
    [
        ({}, None),
        (
            {"torch-npu": "2.9.0.post2"},
            "warning torch_npu 2.9.0.post2 was released with CANN 9.0.0, this host has 8.5.1",
        ),
        ({"torch": "2.9.1"}, "warning torch_npu 2.9.0 is built for torch 2.9.0, this host has 2.9.1"),
        ({"torch": "2.10.0"}, "problem torch_npu 2.9.0 is built for torch 2.9.0, this host has 2.10.0"),
        ({"torch-npu": None, "torch": "2.13.0"}, None),
    ],
)
def test_torch_pair(packages, finding):
    found = said(versions.torch_pair, case(packages={"vllm-ascend": None, **packages}))
    assert found == ([finding] if finding else [])


@pytest.mark.parametrize(("python", "fits"), [("3.10.4", True), ("3.11.13", True), ("3.12.0", False), ("3.9.2", False)])
def test_python(python, fits):
    for packages in ({}, {"vllm-ascend": None, "vllm": None}):
        found = said(versions.python_numpy, case(host={"python": python}, packages=packages))
        assert bool(found) is not fits


def test_python_and_numpy_do_not_matter_without_the_stack():
    packages = {"vllm-ascend": None, "torch-npu": None, "numpy": "2.2.1"}
    assert said(versions.python_numpy, case(host={"python": "3.13.0"}, packages=packages)) == []


def test_a_newer_stack_allows_what_it_allows():
    packages = {"vllm-ascend": "0.23.0", "torch-npu": "2.10.0.post4", "numpy": "2.2.1"}
    assert said(versions.python_numpy, case(host={"python": "3.12.4"}, packages=packages)) == []


# ---------------------------------------------------------------- settings

VISIBLE = ascend.VISIBLE


@pytest.mark.parametrize(
    ("value", "level", "mend"),
    [
        ("0", None, ""), ("0,1", None, ""), ("1", None, ""),
        ("1,0", "problem", "0,1"), ("0,0", "problem", "0"), ("", "problem", "0"), ("a", "problem", "0"), (",0", "problem", "0"),
        ("5", "problem", "0"), ("0,5", "warning", "0"), ("0 ,1", "warning", "0,1"), ("0;1", "warning", "0,1"),
        ("²", "problem", "0"), ("9" * 5000, "problem", "0"),
    ],
)  # fmt: skip
def test_visible_devices(value, level, mend):
    found = list(ascend.visible_devices(case(environment={VISIBLE: value})))
    assert [f.level.value for f in found] == ([level] if level else [])
    assert [f.mend for f in found] == ([f"export {VISIBLE}={mend}"] if level else [])


def test_visible_devices_are_counted_as_torch_npu_counts_them():
    """The cases of torch_npu 2.9.0, npu/__init__.py: _parse_visible_devices and _device_count_ascend_hal, with two devices."""
    for value, count in {"0,1": 2, "1": 1, "1,0": 0, "0,0": 0, "": 0, "5": 0, "0,5": 1, "0 ,1": 1}.items():
        one = case(environment={VISIBLE: value})
        none = any("device count is 0" in text for text in said(ascend.visible_devices, one))
        assert none is (count == 0), value


@pytest.mark.parametrize(
    ("precisions", "torch", "count"),
    [
        (("bfloat16",), {"npu.matmul.allow_hf32": "True"}, 0),
        (("float32",), {"npu.conv.allow_hf32": "False"}, 0),
        (("float32",), {}, 1),  # torch_npu's default of convolutions
        (("float32",), {"npu.matmul.allow_hf32": "True"}, 2),
        (("float32",), {"npu.conv.allow_hf32": "False", "npu.matmul.cube_math_type": "USE_HF32"}, 1),
        (("float32",), {"npu.conv.allow_hf32": "False", "npu.matmul.cube_math_type": "KEEP_DTYPE"}, 0),
    ],
)
def test_hf32(precisions, torch, count):
    assert len(said(settings.reduced_float32, case(asked={"precisions": precisions}, torch=torch))) == count


def test_reduced_float32_elsewhere():
    cpu = case("cpu", torch={"float32_matmul_precision": "medium"})
    assert [f.mend for f in settings.reduced_float32(cpu)] == ['torch.set_float32_matmul_precision("highest")']
    cuda = case("cpu", asked={"device": "cuda"}, torch={"cuda.matmul.allow_tf32": "True"})
    assert "TF32" in said(settings.reduced_float32, cuda)[0]


@pytest.mark.parametrize(
    ("environment", "packages", "mode", "ignored"),
    [
        ({}, {}, False, False),
        ({"INF_NAN_MODE_ENABLE": "1"}, {}, False, False),
        ({"INF_NAN_MODE_ENABLE": "0"}, {}, False, True),
        ({"INF_NAN_MODE_ENABLE": "0", "INF_NAN_MODE_FORCE_DISABLE": "1"}, {}, True, False),
        ({"INF_NAN_MODE_FORCE_DISABLE": "1"}, {}, True, False),
        ({"INF_NAN_MODE_ENABLE": "0"}, {"torch-npu": "2.1.0.post10"}, True, False),
    ],
)
def test_saturation(environment, packages, mode, ignored):
    one = case(environment=environment, packages=packages)
    assert bool(said(settings.saturation, one)) is mode
    assert any("INF_NAN_MODE_ENABLE" in text for text in said(settings.ignored, one)) is ignored


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({"VLLM_ASCEND_RT_DEVICES": "0"}, 1), ({"PYTORCH_NPU_ALLOC_CONFIG": "x"}, 1), ({"TASK_QUEUE_ENABLED": "1"}, 1),
        ({"VLLM_ASCEND_NO_SUCH_THING": "1"}, 1), ({"VLLM_ASCEND_ENABLE_NZ": "1"}, 0), ({"VLLM_ASCEND_ENABLE_DBO": "1"}, 1),
        ({"ASCEND_LAUNCH_BLOCKING": "1"}, 0), ({"ASCEND_LAUNCH_BLOCKING": "1", "TASK_QUEUE_ENABLE": "1"}, 1),
        ({"ASCEND_LAUNCH_BLOCKING": "1", "TASK_QUEUE_ENABLE": "0"}, 0),
        ({"VLLM_BATCH_INVARIANT": "1", "HCCL_DETERMINISTIC": "true"}, 1),
        ({"VLLM_BATCH_INVARIANT": "1", "HCCL_DETERMINISTIC": "strict"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 0),  # beside the one that counts
        ({"A_VARIABLE_OF_SOMEBODY": "1"}, 0),
    ],
)  # fmt: skip
def test_ignored_variables(environment, count):
    assert len(said(settings.ignored, case(environment=environment))) == count


def test_without_vllm_ascend_its_names_are_not_judged():
    one = case(environment={"VLLM_ASCEND_NO_SUCH_THING": "1"}, packages={"vllm-ascend": None})
    assert said(settings.ignored, one) == []


def test_a_mistaken_name_is_found_on_a_cpu_too():
    assert said(settings.ignored, case("cpu", environment={"VLLM_ASCEND_RT_DEVICES": "0"}))


@pytest.mark.parametrize(
    ("asked", "environment", "torch", "level"),
    [
        ({}, {}, {}, None),
        ({"bit_equal": True}, {}, {}, "problem"),
        ({"bit_equal": True}, {}, {"deterministic_algorithms": "on"}, None),
        ({}, {"LCCL_DETERMINISTIC": "1"}, {}, "warning"),
        ({}, {"LCCL_DETERMINISTIC": "0"}, {}, None),
        ({"engine": "vllm", "bit_equal": True}, {}, {"deterministic_algorithms": "on"}, "problem"),
        ({"engine": "vllm", "bit_equal": True}, {"VLLM_BATCH_INVARIANT": "1"}, {}, None),
        ({"bit_equal": True}, {}, {"trouble": "ImportError: x"}, None),  # that it cannot be imported is said elsewhere
    ],
)
def test_determinism(asked, environment, torch, level):
    found = list(settings.determinism(case(asked=asked, environment=environment, torch=torch)))
    assert [f.level.value for f in found] == ([level] if level else [])


def test_determinism_of_cuda_names_both_settings():
    (found,) = settings.determinism(case("cpu", asked={"device": "cuda", "bit_equal": True}))
    assert "use_deterministic_algorithms" in found.mend
    assert "CUBLAS_WORKSPACE_CONFIG" in found.mend
    assert list(settings.determinism(case("cpu", asked={"bit_equal": True}))) == []  # a CPU is


@pytest.mark.parametrize(
    ("environment", "host", "count"),
    [
        ({}, {}, 0), ({"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}, {}, 0), ({"VLLM_WORKER_MULTIPROC_METHOD": "fork"}, {}, 1),
        ({"PYTEST_ADDOPTS": "-x --forked"}, {}, 1), ({"PYTEST_ADDOPTS": "-x"}, {}, 0), ({}, {"start_method": "fork"}, 1),
        ({}, {"start_method": "spawn"}, 0),
    ],
)  # fmt: skip
def test_fork(environment, host, count):
    assert len(said(settings.fork, case(environment=environment, host=host))) == count


# ---------------------------------------------------------------- memory


def judged(
    needed: Needed, chip: Chip | None, host_gib: float, device: str = "npu", engine: str = "transformers"
) -> list[str]:
    one = case(asked={"needed": needed, "device": device, "engine": engine})
    smi = Smi("25.2.0", (chip,) if chip else ())
    host = dataclasses.replace(one.host, memory=lambda: Memory(int(host_gib * GIB), int(host_gib * GIB)))
    return said(memory.memory, Case(host, one.asked, dataclasses.replace(one.collected, smi=smi)))


def test_memory_to_the_byte():
    """Weights of 7 Gi parameters at two bytes and 1 GiB of working memory are 15 GiB."""
    needed = Needed("m", 7 * GIB, "card", ("bfloat16",))
    assert judged(needed, Chip(0, "910B4", "OK", 0, 15 << 10), 512) == []
    assert "15.00 GiB are needed" in judged(needed, Chip(0, "910B4", "OK", 0, (15 << 10) - 1), 512)[0]
    assert judged(needed, Chip(0, "910B4", "OK", 1, 15 << 10), 512)[0].startswith(
        "warning device 0 (910B4) has 15.00 GiB free"
    )


def test_memory_of_the_host():
    """float32 reference 4 bytes, yardstick 2, working memory 1 GiB; on a CPU the candidate's 2 beside them."""
    needed = Needed("m", GIB, "card", ("bfloat16",))
    assert judged(needed, Chip(0, "910B4", "OK", 0, 32 << 10), 7) == []
    assert len(judged(needed, Chip(0, "910B4", "OK", 0, 32 << 10), 6.9)) == 1
    assert judged(needed, None, 9, device="cpu") == []
    assert len(judged(needed, None, 8.9, device="cpu")) == 1


def test_memory_that_is_not_known_is_a_note():
    unknown = Needed("m", None, "card has no parameters", ("bfloat16",))
    assert judged(unknown, None, 512) == ["note what m needs is not known: card has no parameters"]
    assert judged(Needed("m", 1, "card", ("bfloat16",)), None, 512)[0].startswith("note the memory of device npu")


def test_kv_of_one_sequence_counts_for_vllm():
    """2 x 36 layers x 8 heads x 128 x 40960 numbers, two bytes each: 5.625 GiB."""
    config = {"num_hidden_layers": 36, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960}
    numbers = kv_numbers(dataclasses.replace(find_card("tiny-qwen3"), config=config))
    needed = Needed("m", GIB, "card", ("bfloat16",), numbers)
    assert needed.on_device("vllm")["KV cache of one full sequence"] == 5.625 * GIB
    assert "KV cache of one full sequence" not in needed.on_device("transformers")
    del config["head_dim"]
    assert kv_numbers(dataclasses.replace(find_card("tiny-qwen3"), config=config)) == 0


def test_what_a_shipped_card_needs():
    card = find_card("tiny-qwen3")
    needed = needed_of(card, ("float32",), {})
    assert needed.parameters == (card.parameters or needed.parameters)
    assert needed.parameters > 1_000_000
    assert needed.precisions == ("float32",)


def test_a_card_whose_weights_are_nowhere(tmp_path):
    card = Card("nowhere", tmp_path / "card.toml", precisions=("bfloat16",))
    needed = needed_of(card, (), {})
    assert needed.parameters is None
    assert "no weights of nowhere" in needed.source


def test_no_card_no_judgement():
    assert said(memory.memory, case(asked={"needed": None})) == []


def test_every_device_has_its_rules():
    asked = Asked("cuda")
    host = situations.host_of(situations.load("cpu"))
    assert list(settings.fork(Case(host, asked, collect(host, "cuda")))) == []
