"""Faults of the device. They need ``--npu --npuconf-simulate``; anywhere else they do not apply, and say so. docs/simulated.md."""

from __future__ import annotations

from pytest_npuconf.devices.simulated import switches
from pytest_npuconf.faults import device
from pytest_npuconf.faults.base import Fault

EVERY = ("float32", "bfloat16", "float16")
LOGITS = "kl.noise_ratio, modules.noise_ratio, logits.rel_l2"
REPEAT = "equivalence.repeat"
PRODUCTS = "model.layers.* model.rotary_emb lm_head"
HIASCEND = "https://hiascend.com/document/detail/zh/"

DEVICE: tuple[Fault, ...] = (
    Fault("npu-hf32", "float32 products are HF32 although nobody allowed it", "11 bits of mantissa", LOGITS, device.hf32,
          module=PRODUCTS, precisions=("float32",),
          seen=f"{HIASCEND}CANNCommunityEdition/800alpha003/devaids/devtools/atc/atlasatcparam_16_0077.html: HF32 in place of "
          "float32, 11 bits"),
    Fault("npu-saturation", "overflow gives the greatest number and NaN zero", "every op", "device.special_values",
          device.switch(switches.SATURATION), precisions=EVERY,
          seen=f"{HIASCEND}Pytorch/600/apiref/Envvariables/Envir_004.html: INF_NAN_MODE_ENABLE=0"),
    Fault("npu-narrow-accumulation", "partial sums of matrix products are kept in bfloat16", "relative 2^-9, each 32 products",
          LOGITS, device.switch(switches.NARROW, "bfloat16"), module=PRODUCTS, precisions=EVERY,
          seen="modular/modular#7165: split-K in the output's dtype, up to 40 % off"),
    Fault("npu-nondeterminism", "partial sums are added in another order on each call, on a device that says it is deterministic",
          "rounding", REPEAT, device.switch(switches.UNORDERED), precisions=EVERY,
          seen="vllm-project/vllm-ascend#9373: Qwen3-4B differs from run to run at temperature 0"),
    Fault("npu-cpu-fallback", "the device has no kernel for silu and lets the CPU compute it", "1 op", "device.execution",
          device.cpu_fallback("aten::silu"), precisions=EVERY,
          seen="github.com/Ascend/pytorch, torch_npu/csrc/aten/VariableFallbackKernel.cpp: npu_cpu_fallback"),
    Fault("npu-wrong-shape", "linear layers of one shape, the MLPs' last, leave out their last 16 inputs", "16 inputs", LOGITS,
          device.wrong_shape, module="model.layers.*.mlp.down_proj", precisions=EVERY),
    Fault("npu-first-call", "the first call of a linear layer gives zeros", "1 call", REPEAT,
          device.switch(switches.FIRST_CALL), precisions=EVERY),
)  # fmt: skip
