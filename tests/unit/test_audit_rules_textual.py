"""The rules about words: each on small cards, planted and corrected, and on the cards of the seeds where they are."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.data import chips, environment, versions
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.rules import (
    environment as environment_rule,
)
from pytest_npuconf.audit.rules import (
    features,
    gates,
    hardware,
    metrics,
    placeholders,
    repeatability,
    samples,
    shell,
    verdicts,
)
from pytest_npuconf.audit.rules import (
    versions as versions_rule,
)
from pytest_npuconf.audit.text import parse_card, read_card
from tests.seeds import seed_or_skip

MODULES = (
    environment_rule,
    features,
    gates,
    hardware,
    metrics,
    placeholders,
    repeatability,
    samples,
    shell,
    verdicts,
    versions_rule,
)
TODAY = datetime.date(2026, 11, 22)
CARDS = Path(__file__).parents[2] / "baselines"


def audit(text: str) -> list[Finding]:
    """All textual rules on one card."""
    context = Context(parse_card(dedent(text)), None, TODAY)
    return [finding for module in MODULES for rule in module.RULES for finding in rule.check(context)]


@dataclass(frozen=True)
class Case:
    """``planted`` has an error in the line that holds ``needle``; ``corrected`` has none."""

    name: str
    rule: str
    level: Level
    needle: str
    planted: str
    corrected: str


C, P, U, A = Level.CONTRADICTION, Level.IMPLAUSIBLE, Level.UNSUPPORTED, Level.AMBIGUOUS

CASES = [
    Case(
        "row-misses-its-threshold-en",
        "verdict-threshold",
        C,
        "Logit cosine",
        """
        # Model X
        | Metric | Measured | Threshold | Verdict |
        |---|---|---|---|
        | Logit cosine | 0.9981 | > 0.999 | ✅ passed |
        | Latency | 48 ms | < 100 ms | ✅ passed |
        """,
        """
        # Model X
        | Metric | Measured | Threshold | Verdict |
        |---|---|---|---|
        | Logit cosine | 0.9994 | > 0.999 | ✅ passed |
        | Latency | 48 ms | < 100 ms | ✅ passed |
        """,
    ),
    Case(
        "row-misses-its-threshold-zh",
        "verdict-threshold",
        C,
        "平均相对误差",
        """
        # 模型
        | 指标 | 实测值 | 通过标准 | 判定 |
        |---|---|---|---|
        | 平均相对误差 | 1.8% | ≤1% | ✅ 通过 |
        """,
        """
        # 模型
        | 指标 | 实测值 | 通过标准 | 判定 |
        |---|---|---|---|
        | 平均相对误差 | 1.8% | ≤1% | ❌ 未通过 |
        """,
    ),
    Case(
        "threshold-elsewhere-zh",
        "verdict-threshold",
        C,
        "| Logit 余弦相似度 |",
        """
        # 模型
        | 指标 | 值 |
        |---|---|
        | Logit 余弦相似度 | 0.9982 |

        精度判定: 通过。

        门禁: 余弦相似度 > 0.9995 为方向一致证据。
        """,
        """
        # 模型
        | 指标 | 值 |
        |---|---|
        | Logit 余弦相似度 | 0.9997 |

        精度判定: 通过。

        门禁: 余弦相似度 > 0.9995 为方向一致证据。
        """,
    ),
    Case(
        "threshold-set-aside-en",
        "verdict-threshold",
        P,
        "is expected",
        """
        # Model X
        Verdict: passed.

        The perplexity difference exceeds the 1% threshold, which is expected for bfloat16.
        """,
        """
        # Model X
        Verdict: not passed.

        The perplexity difference exceeds the 1% threshold.
        """,
    ),
    Case(
        "core-check-pending-zh",
        "verdict-pending",
        C,
        "精度判定",
        """
        # 模型
        精度判定: 通过
        - 核心门禁指标: GSM8K 5-shot 准确率
        | 步骤 | 状态 |
        |---|---|
        | 运行 GSM8K 5-shot 评估 | 待执行 |
        """,
        """
        # 模型
        精度判定: 待定,GSM8K 5-shot 待执行
        - 核心门禁指标: GSM8K 5-shot 准确率
        | 步骤 | 状态 |
        |---|---|
        | 运行 GSM8K 5-shot 评估 | 待执行 |
        """,
    ),
    Case(
        "core-check-pending-en",
        "verdict-pending",
        C,
        "Overall result",
        """
        # Model X
        Overall result: passed

        The final acceptance criterion is MMLU 5-shot accuracy.

        - MMLU 5-shot: TODO
        """,
        """
        # Model X
        Overall result: passed

        The final acceptance criterion is MMLU 5-shot accuracy.

        - MMLU 5-shot: 71.2 % (reference 71.4 %)
        """,
    ),
    Case(
        "four-of-four-en",
        "sample-size",
        U,
        "4/4",
        """
        # Model X
        Token match is 100% (4/4 prompts), which proves that the port is equivalent.
        """,
        """
        # Model X
        Token match is 100% (640/640 tokens).
        """,
    ),
    Case(
        "two-points-on-gsm8k-zh",
        "sample-size",
        U,
        "±2pp",
        """
        # 模型
        | 基准 | 得分 |
        |---|---|
        | GSM8K (5-shot) | 0.703 |

        GSM8K 评分应在 ±2pp 内即视为通过。
        """,
        """
        # 模型
        | 基准 | 得分 |
        |---|---|
        | GSM8K (5-shot) | 0.703 |

        GSM8K 评分按逐题配对 (McNemar) 比较,下限 -2pp。
        """,
    ),
    Case(
        "official-score-of-the-base-en",
        "borrowed-score",
        P,
        "official scores",
        """
        # note-keeper-4B
        note-keeper-4B is fine-tuned from Qwen3-4B-Instruct-2507 for note taking.

        Baseline (Qwen3-4B-Instruct-2507 official scores):

        | Benchmark (5-shot) | Score |
        |---|---|
        | GSM8K | 0.812 |
        | MMLU | 0.701 |
        """,
        """
        # note-keeper-4B
        note-keeper-4B is fine-tuned from Qwen3-4B-Instruct-2507 for note taking.

        Baseline: note-keeper-4B on a GPU, 5-shot, measured by us.

        | Benchmark | GPU | NPU |
        |---|---|---|
        | GSM8K | 0.812 | 0.810 |
        | MMLU | 0.701 | 0.702 |
        """,
    ),
    Case(
        "torch-of-another-release-zh",
        "versions",
        C,
        "| torch |",
        """
        # 模型
        | 软件 | 版本 |
        |---|---|
        | vLLM | 0.18.0 |
        | vLLM-Ascend | 0.18.0 |
        | torch | 2.6.0 |
        | CANN | 8.5.1 |
        """,
        """
        # 模型
        | 软件 | 版本 |
        |---|---|
        | vLLM | 0.18.0 |
        | vLLM-Ascend | 0.18.0 |
        | torch | 2.9.0 |
        | torch_npu | 2.9.0.post1 |
        | CANN | 8.5.1 |
        | Python | 3.11.14 |
        | transformers | 4.57.6 |
        | numpy | 1.26.4 |
        """,
    ),
    Case(
        "numpy-2-en",
        "versions",
        C,
        "- numpy",
        """
        # Model X
        - vllm-ascend: 0.18.0rc1
        - numpy: 2.2.6
        """,
        """
        # Model X
        - vllm-ascend: 0.18.0rc1
        - numpy: 1.26.4
        """,
    ),
    Case(
        "torch-npu-against-torch-en",
        "versions",
        C,
        "torch_npu |",
        """
        # Model X
        | Component | Version |
        |---|---|
        | torch | 2.5.1 |
        | torch_npu | 2.1.0 |
        """,
        """
        # Model X
        | Component | Version |
        |---|---|
        | torch | 2.5.1 |
        | torch_npu | 2.5.1.post1 |
        """,
    ),
    Case(
        "minimum-too-low-en",
        "versions",
        P,
        "| transformers |",
        """
        # Model X
        | Component | Version |
        |---|---|
        | vllm-ascend | 0.18.0 |
        | transformers | >= 4.51.0 |
        """,
        """
        # Model X
        | Component | Version |
        |---|---|
        | vllm-ascend | 0.18.0 |
        | transformers | >= 4.57.4 |
        """,
    ),
    Case(
        "transformers-older-than-qwen3-zh",
        "versions",
        C,
        "transformers",
        """
        # 模型
        - 架构: Qwen3ForCausalLM
        - transformers: 4.46.3
        """,
        """
        # 模型
        - 架构: Qwen3ForCausalLM
        - transformers: 4.51.3
        """,
    ),
    Case(
        "a3-chip-in-a2-en",
        "chip-product",
        C,
        "Ascend910_9392",
        """
        # Model X
        Tested on Ascend910_9392 (Atlas 800I A2) x 2.
        """,
        """
        # Model X
        Tested on Ascend910_9392 (Atlas 800I A3) x 2. It should also run on Ascend 910B3.
        """,
    ),
    Case(
        "a2-chip-in-a3-table-zh",
        "chip-product",
        C,
        "NPU 型号",
        """
        # 模型
        | 项目 | 配置 |
        |---|---|
        | 服务器型号 | Atlas 800T A3 |
        | NPU 型号 | Ascend 910B3 (64GB) |
        """,
        """
        # 模型
        | 项目 | 配置 |
        |---|---|
        | 服务器型号 | Atlas 800T A2 |
        | NPU 型号 | Ascend 910B3 (64GB) |
        """,
    ),
    Case(
        "cann-as-driver-zh",
        "cann-driver",
        C,
        "昇腾驱动",
        """
        # 模型
        | 软件 | 版本 |
        |---|---|
        | 昇腾驱动 | CANN 8.3.RC1 |
        """,
        """
        # 模型
        | 软件 | 版本 |
        |---|---|
        | 昇腾驱动 | 25.3.RC1 |
        | CANN | 8.3.RC1 |
        """,
    ),
    Case(
        "cann-number-as-driver-en",
        "cann-driver",
        P,
        "NPU driver",
        """
        # Model X
        - NPU driver: 8.2.RC1
        """,
        """
        # Model X
        - NPU driver: 25.2.0
        - Driver and CANN: CANN 8.2.RC1
        """,
    ),
    Case(
        "variable-that-does-not-exist-en",
        "environment-variable",
        C,
        "VLLM_ASCEND_RT_DEVICES",
        """
        # Model X
        ```bash
        export VLLM_ASCEND_RT_DEVICES=0
        vllm serve /path/to/model
        ```
        """,
        """
        # Model X
        ```bash
        export ASCEND_RT_VISIBLE_DEVICES=0
        export VLLM_ASCEND_ENABLE_NZ=0
        export MY_OWN_VARIABLE=1
        vllm serve /path/to/model
        ```
        VLLM_ASCEND_RT_DEVICES does not exist; use ASCEND_RT_VISIBLE_DEVICES instead.
        """,
    ),
    Case(
        "devices-out-of-order-zh",
        "environment-variable",
        P,
        "ASCEND_RT_VISIBLE_DEVICES",
        """
        # 模型
        ```bash
        export ASCEND_RT_VISIBLE_DEVICES=3,2
        ```
        """,
        """
        # 模型
        ```bash
        export ASCEND_RT_VISIBLE_DEVICES=2,3
        ```
        """,
    ),
    Case(
        "thinking-without-a-thought-zh",
        "feature-sample",
        U,
        "Thinking 模式正常",
        """
        # 模型
        Thinking 模式正常。

        用户: 2+2 等于多少?

        模型输出: 4
        """,
        """
        # 模型
        Thinking 模式正常。

        用户: 2+2 等于多少?

        模型输出: <think>2 加 2。</think>4
        """,
    ),
    Case(
        "served-beyond-verified-en",
        "feature-sample",
        U,
        "--max-model-len",
        """
        # Model X
        Context window: 8192 tokens (verified) / 131072 tokens (native)
        ```bash
        vllm serve /path/to/model --max-model-len 65536
        ```
        """,
        """
        # Model X
        Context window: 8192 tokens (verified) / 131072 tokens (native)
        ```bash
        vllm serve /path/to/model --max-model-len 8192
        ```
        """,
    ),
    Case(
        "no-seed-zh",
        "repeatability",
        U,
        "temperature=0.7",
        """
        # 模型
        ## 推理输出示例
        测试环境: vLLM 0.18.0, temperature=0.7, max_tokens=256
        """,
        """
        # 模型
        ## 推理输出示例
        测试环境: vLLM 0.18.0, temperature=0.7, seed=42, max_tokens=256
        """,
    ),
    Case(
        "no-seed-en",
        "repeatability",
        U,
        "Outputs were",
        """
        # Model X
        Outputs were generated with temperature 0.8.
        """,
        """
        # Model X
        Outputs were generated with temperature 0.
        ## Generation config
        temperature: 0.6 is recommended.
        """,
    ),
    Case(
        "placeholder-cell-zh",
        "placeholder",
        U,
        "| 吞吐量 |",
        """
        # 模型
        | 测试项 | 值 |
        |---|---|
        | 吞吐量 | 待填写 |
        | 首字延迟 | 35 ms |
        """,
        """
        # 模型
        | 测试项 | 值 |
        |---|---|
        | 吞吐量 | — |
        | 首字延迟 | 35 ms |
        """,
    ),
    Case(
        "placeholder-braces-en",
        "placeholder",
        U,
        "{{model_name}}",
        """
        # Model X
        This card describes {{model_name}} on NPU.
        """,
        """
        # Model X
        The chat template writes {{ content }} for each message; replace /path/to/model by your folder.
        """,
    ),
    Case(
        "unquoted-specifier-en",
        "shell",
        C,
        "pip install",
        """
        # Model X
        ```bash
        pip install transformers>=4.57.4 modelscope
        ```
        """,
        """
        # Model X
        ```bash
        pip install "transformers>=4.57.4" modelscope
        pip install modelscope > install.log 2>&1
        ```
        """,
    ),
    Case(
        "unquoted-specifier-after-a-root-prompt",
        "shell",
        C,
        "# pip install",
        """
        # Model X
        ```console
        # pip install vllm>=0.18.0
        # vllm serve m
        ```
        """,
        """
        # Model X
        ```bash
        # pip install vllm>=0.18.0
        pip install vllm-ascend
        ```
        """,
    ),
    Case(
        "unset-placeholder-variable",
        "placeholder",
        U,
        "$SCORE",
        """
        # Model X
        | Item | Value |
        |---|---|
        | GSM8K | $SCORE |
        | Cards | 8 |
        """,
        """
        # Model X
        | Item | Value |
        |---|---|
        | Address | $LOCAL_IP |
        | Cards | 8 |

        ```bash
        export LOCAL_IP=10.0.0.1
        ```
        """,
    ),
    Case(
        "no-continuation-zh",
        "shell",
        P,
        "--tensor-parallel-size",
        """
        # 模型
        ```bash
        vllm serve /path/to/model
            --tensor-parallel-size 2
        ```
        """,
        """
        # 模型
        ```bash
        vllm serve /path/to/model \\
            --tensor-parallel-size 2
        ```
        """,
    ),
    Case(
        "option-that-went-en",
        "shell",
        C,
        "--task embed",
        """
        # Model X
        - vllm: 0.18.0
        ```bash
        vllm serve /path/to/model \\
            --task embed
        ```
        """,
        """
        # Model X
        - vllm: 0.18.0
        ```bash
        vllm serve /path/to/model \\
            --runner pooling --convert embed
        python infer.py --task generate
        ```
        The option --task was removed from vLLM; use --runner instead.
        """,
    ),
    Case(
        "relative-error-without-norm-zh",
        "undefined-metric",
        A,
        "| 输入 |",
        """
        # 模型
        | 输入 | 相对误差 |
        |---|---|
        | a | 0.8% |
        | b | 0.9% |
        """,
        """
        # 模型
        相对误差为 L2 范数之比。
        | 输入 | 相对误差 |
        |---|---|
        | a | 0.8% |
        | b | 0.9% |
        """,
    ),
    Case(
        "accuracy-on-nothing-en",
        "undefined-metric",
        A,
        "| Accuracy |",
        """
        # Model X
        | Metric | Value |
        |---|---|
        | Accuracy | 91.2% |
        | Throughput | 34 tok/s |
        """,
        """
        # Model X
        | Metric | Value |
        |---|---|
        | Accuracy on ImageNet-1k validation set | 91.2% |
        | Throughput | 34 tok/s |
        """,
    ),
    Case(
        "cosine-that-cannot-fail-en",
        "gate",
        P,
        "> 0.5",
        """
        # Model X
        The gate is a cosine similarity > 0.5.
        """,
        """
        # Model X
        The gate is a cosine similarity > 0.9999.
        """,
    ),
    Case(
        "tolerance-beyond-noise-zh",
        "gate",
        P,
        "±75",
        """
        # 模型
        门禁: GSM8K 5-shot 准确率差异 ±75 个百分点以内即为通过。
        """,
        """
        # 模型
        门禁: GSM8K 5-shot 准确率不低于基线 2 个百分点以上 (逐题配对)。
        """,
    ),
    Case(
        "throughput-of-one-en",
        "gate",
        P,
        "≥ 1 tok/s",
        """
        # Model X
        Throughput: 234.59 tok/s

        Requirement: throughput ≥ 1 tok/s.
        """,
        """
        # Model X
        Throughput: 234.59 tok/s

        Requirement: throughput ≥ 200 tok/s.
        """,
    ),
    Case(
        "lapsed-waiver-en",
        "gate",
        P,
        "Waiver",
        """
        # Model X
        Waiver: logits.cosine fails on this driver because of issue #12, valid until 2026-01-31.
        """,
        """
        # Model X
        Waiver: logits.cosine fails on this driver because of issue #12, valid until 2027-01-31.
        """,
    ),
    Case(
        "fields-in-one-line-zh",
        "verdict-threshold",
        C,
        "门限",
        """
        # 模型
        门限: 合计准确率 ≥ 75%  实测: 74.1%  结论: 通过
        数据集为 C-Eval,5-shot。
        """,
        """
        # 模型
        门限: 合计准确率 ≥ 75%  实测: 75.1%  结论: 通过
        数据集为 C-Eval,5-shot。
        """,
    ),
    Case(
        "fields-in-three-lines-en",
        "verdict-threshold",
        C,
        "Mean absolute error",
        """
        # Model X
        Mean absolute error: 0.0061
        Threshold: <= 0.001
        Verdict: passed
        """,
        """
        # Model X
        Mean absolute error: 0.0006
        Threshold: <= 0.001
        Verdict: passed
        """,
    ),
    Case(
        "requirement-with-its-bound-en",
        "verdict-threshold",
        C,
        "mean latency",
        """
        # Model X
        | Requirement | Result | Met |
        |---|---|---|
        | mean latency <= 8 s | 9.60 s | yes |
        """,
        """
        # Model X
        | Requirement | Result | Met |
        |---|---|---|
        | mean latency <= 8 s | 7.60 s | yes |
        | accuracy on the data set Y, a drop of at most 1 pp | +1.8 pp | yes |
        """,
    ),
    Case(
        "all-done-and-one-open-zh",
        "verdict-pending",
        C,
        "结论",
        """
        # 模型
        - [ ] 精度差值 (待测)
        - [x] 服务可以启动

        结论: ✅ 通过 (全部检查完成)
        """,
        """
        # 模型
        - [x] 精度差值
        - [x] 服务可以启动
        - [ ] 支持 INT8

        结论: ✅ 通过 (全部检查完成)
        """,
    ),
    Case(
        "row-passed-before-it-ran-zh",
        "verdict-pending",
        C,
        "长文检索",
        """
        # 模型
        | 指标 | 门限 | 实测 | 判定 |
        |---|---|---|---|
        | 长文检索 | ≥ 90% | 待测 | 通过 |
        """,
        """
        # 模型
        | 指标 | 门限 | 实测 | 判定 |
        |---|---|---|---|
        | 长文检索 | ≥ 90% | 待测 | 待判定 |
        """,
    ),
    Case(
        "score-taken-from-the-base-zh",
        "borrowed-score",
        U,
        "取自",
        """
        # 模型
        BF16 一列取自基座模型 Qwen3-8B 官方发布的得分。
        """,
        """
        # 模型
        BF16 一列在本模型上测得。
        """,
    ),
    Case(
        "labelled-chip-and-product-en",
        "chip-product",
        C,
        "NPU",
        """
        # Model X
        - Server: Atlas 800T A2
        - NPU: Ascend910_9382
        """,
        """
        # Model X
        - Server: Atlas 800T A3
        - NPU: Ascend910_9382
        """,
    ),
    Case(
        "driver-in-a-sentence-en",
        "cann-driver",
        C,
        "Driver",
        """
        # Model X
        Server: Atlas 300I Duo. Driver: CANN 8.3.RC2.
        """,
        """
        # Model X
        Server: Atlas 300I Duo. Driver: 25.3.RC1. CANN 8.3.RC2.
        """,
    ),
    Case(
        "tools-without-a-call-zh",
        "feature-sample",
        U,
        "工具调用",
        """
        # 模型
        - 支持工具调用

        示例 1: 用户问好,模型输出: 你好
        """,
        """
        # 模型
        - 支持工具调用

        示例 1: 用户问天气,模型输出: <tool_call>{"name": "weather"}</tool_call>
        """,
    ),
    Case(
        "empty-version-zh",
        "placeholder",
        U,
        "| CANN 版本 |",
        """
        # 模型
        | 项目 | 填写内容 |
        |---|---|
        | NPU 型号 | Ascend 910B3 |
        | CANN 版本 |  |
        """,
        """
        # 模型
        | 项目 | 填写内容 |
        |---|---|
        | NPU 型号 | Ascend 910B3 |
        | CANN 版本 | 8.5.1 |
        """,
    ),
    Case(
        "backslash-and-spaces-en",
        "shell",
        P,
        "--port",
        """
        # Model X
        ```bash
        vllm serve m \\ \x20
          --port 8000
        ```
        """,
        """
        # Model X
        ```bash
        vllm serve m \\
          --port 8000 \\
          # --trust-remote-code
        ```
        """,
    ),
    Case(
        "waiver-table-zh",
        "gate",
        P,
        "fp8 KV cache",
        """
        # 模型
        ## 豁免
        | 检查 | 理由 | 到期 |
        |---|---|---|
        | fp8 KV cache | 见 issue 3 | 2024-01-31 |
        """,
        """
        # 模型
        ## 豁免
        | 检查 | 理由 | 到期 |
        |---|---|---|
        | fp8 KV cache | 见 issue 3 | 2027-01-31 |
        """,
    ),
    Case(
        "two-sided-fails-an-improvement-zh",
        "gate",
        P,
        "IFEval",
        """
        # 模型
        | 指标 | 门限 | 实测 | 判定 |
        |---|---|---|---|
        | IFEval 准确率 | 双侧容差 ±1 个百分点 | 提高 1.8 个百分点 | 不通过 |
        """,
        """
        # 模型
        | 指标 | 门限 | 实测 | 判定 |
        |---|---|---|---|
        | IFEval 准确率 | 下降不超过 1 个百分点 | 提高 1.8 个百分点 | 通过 |
        """,
    ),
    Case(
        "figure-threshold-result-pairs-en",
        "verdict-threshold",
        C,
        "relative_error",
        """
        # Model X
        - relative_error: 1.34%
        - threshold: 1.0%
        - result: PASS

        relative_error is the L2 norm of the difference over that of the reference.
        """,
        """
        # Model X
        - relative_error: 0.34%
        - threshold: 1.0%
        - result: PASS

        relative_error is the L2 norm of the difference over that of the reference.
        """,
    ),
    Case(
        "invented-index-zh",
        "undefined-metric",
        U,
        "综合保真指数",
        """
        # 模型
        综合保真指数 0.97
        """,
        """
        # 模型
        综合保真指数 0.97

        综合保真指数的定义: 各层余弦的平均值。
        """,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_planted_error_is_found_with_its_level_and_line(case: Case) -> None:
    lines = dedent(case.planted).split("\n")
    line = next(number for number, text in enumerate(lines, 1) if case.needle in text)
    found = [(f.line, f.level) for f in audit(case.planted) if f.rule == case.rule and f.level is not Level.FINE]
    assert (line, case.level) in found


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_planted_card_has_no_other_contradiction(case: Case) -> None:
    other = [f for f in audit(case.planted) if f.level is C and f.rule != case.rule]
    assert not other


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_corrected_card_has_nothing_above_ambiguous(case: Case) -> None:
    above = [f for f in audit(case.corrected) if f.level.rank > A.rank]
    assert not above
    if case.level is A:
        assert not [f for f in audit(case.corrected) if f.rule == case.rule and f.level is A]


QUIET = {
    "versions of two environments": """
        | Environment | GPU | NPU |
        |---|---|---|
        | torch | 2.10.0 | 2.9.0 |
        | vllm-ascend | - | 0.18.0 |
        """,
    "changelog": """
        - vllm-ascend 0.18.0
        - Upgrade transformers to 4.51.0 or later if the architecture is unknown.
        - Since torch 2.6.0 this was supported.
        """,
    "ranges": "- Python 3.10-3.11\n- vllm-ascend: 0.18.0\n- torch 2.9.0/2.10.0\n",
    "newer stack than the data": "- vllm-ascend: 0.40.0\n- torch: 3.1.0\n- torch_npu: 3.1.0\n- numpy: 3.0\n",
    "both generations supported": "支持 Atlas 800I A2、Atlas 800I A3 (Ascend 910B、Ascend910_9391)。\n",
    "a chip of another product in a list": (
        "Runs on Atlas 800T A2 and was also tried on Ascend910_9362.\nAtlas 900 A3 SuperPoD works too.\n"
    ),
    "driver row with both": "| 驱动 | 25.5.0 (CANN 8.5.0) |\n|---|---|\n| 固件 | 7.8.0.1 |\n",
    "verdict with a condition": "若 GSM8K 差异 ≤ 2pp 则判定通过。\n核心指标: GSM8K\nGSM8K 待执行\n",
    "failed is failed": "| 指标 | 实测值 | 标准 | 判定 |\n|---|---|---|---|\n| 余弦 | 0.98 | >0.99 | ❌ 未通过 |\n",
    "rounding": "| Metric | Measured | Threshold | Verdict |\n|---|---|---|---|\n| Logit cosine | 0.999 | > 0.9992 | pass |\n",
    "minimum of rows is not the mean": (
        "平均余弦相似度 > 0.999 即通过。\n判定: 通过\n| 指标 | 值 |\n|---|---|\n| 最小余弦相似度 | 0.9971 |\n"
    ),
    "json in a command": """
        ```bash
        vllm serve m --hf-overrides '{"a": 1,
        --b
        "c": 2}' \\
          --port 8000
        ```
        """,
    "array of arguments": "```bash\nargs=(\n  serve m\n  --port 1\n  --host h\n)\nvllm \"${args[@]}\"\n```\n",
    "another model's need": "- vllm-ascend: 0.18.0\n- GLM5 requires transformers==5.2.0 for now, which is resolved later.\n",
    "legend": "? = unknown or TBD\n",
    "help text": "```\n--port PORT\n--host HOST\n--task TASK\n```\n",
    "docker image": "```bash\ndocker run -e ASCEND_VISIBLE_DEVICES=0 quay.io/ascend/vllm-ascend:v0.18.0rc1-a3\n```\n",
    "temperature of a machine": "测试环境: 机房温度: 25 ℃\n",
    "usage example": "## API 调用示例\n```json\n{\"temperature\": 0.7}\n```\n",
    "quantised from the base": (
        "# Qwen3-8B-W8A8\nQuantized from Qwen3-8B. Baseline: Qwen3-8B official, GSM8K (5-shot) 0.877\n"
    ),
    "dates and fractions": "2026/11/22, 24/7 support, page 3/3\n",
    "output of help": (
        "```bash\nusage: python train.py [-h]\n\npython train.py\n  --data DATA  where it lies\n  --steps STEPS\n```\n"
    ),
    "synopsis": "```bash\npython -m tool analyze\n    --input=/path\n    [--output=/path]\n```\n",
    "typeset with holes": "```bash\npython export.py --ckpt [CKPT_PATH]\n--name [FILE_NAME]\n```\n",
    "the card's own shell variables": (
        "```bash\nVLLM_ASCEND_TAG=v0.18.0\ngit clone -b ${VLLM_ASCEND_TAG} https://example.org/x\n```\n"
    ),
    "empty": "",
    "right to left and emoji": "# נתיב 🤖\n| 指标 | 🎯 |\n|---|---|\n| 👍 | ✅ |\n",
}  # fmt: skip


@pytest.mark.parametrize("name", QUIET)
def test_quiet_where_it_cannot_be_sure(name: str) -> None:
    assert [f for f in audit(QUIET[name]) if f.level.rank > A.rank] == []


def test_a_long_run_of_digits_takes_no_time() -> None:
    card = parse_card("# log\n\n" + "7" * 8000 + "\n\naccuracy " + "1 " * 4000)
    start = time.process_time()
    for module in MODULES:
        for rule in module.RULES:
            list(rule.check(Context(card)))
    assert time.process_time() - start < 8  # two rules were quadratic here, and took 15 s


def test_figures_of_sample_size_are_right() -> None:
    text = "# M\n| GSM8K | 0.703 |\n|---|---|\n| a | b |\n\nGSM8K 5-shot 差异在 ±2pp 内\n匹配 4/4\n匹配 60/60\n"
    found = {f.line: f for f in audit(text) if f.rule == "sample-size"}
    assert "47%" in found[7].message
    assert found[8].level is Level.FINE
    assert "26%" in found[6].message


def test_every_entry_of_the_data_has_a_source() -> None:
    data = versions()
    entries = [*data.vllm_ascend, *data.vllm, *data.torch_npu, *data.architectures, *data.options, *data.datasets]
    entries += [*chips().chips, *chips().products]  # type: ignore[list-item]
    assert entries
    for entry in entries:
        assert "/" in entry.source, entry
    assert environment().source


def test_releases_are_each_listed_once_and_newest_first_is_known() -> None:
    names = [each.version for each in versions().vllm_ascend]
    assert len(names) == len(set(names))
    assert "0.18.0" in names


def test_chips_are_told_apart() -> None:
    found = {
        text: [chip.name for chip in chips().chips_in(text)]
        for text in ("910B4-1", "Ascend 910B4", "昇腾910B", "910_9362")
    }
    assert found == {
        "910B4-1": ["Ascend910B4-1"],
        "Ascend 910B4": ["Ascend910B4"],
        "昇腾910B": ["Ascend910B"],
        "910_9362": ["Ascend910_93xx"],
    }
    assert chips().chips_in("1910B2 and sha 3f910b4d") == ()


# ---- card.toml -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card", sorted(CARDS.glob("*/card.toml")), ids=lambda path: path.parent.name)
def test_our_own_cards_lint_clean(card: Path) -> None:
    assert [finding for finding in gates.lint_card(card, TODAY) if finding.level is not Level.FINE] == []


def test_a_quoted_gate_is_listed_with_its_reason_and_is_no_fault(tmp_path: Path) -> None:
    claim = '[[claims]]\nid = "c"\nstatistic = "cosine"\ngate = {{ op = ">", bound = 0.5 }}\n{}'
    path = tmp_path / "card.toml"
    levels = []
    for more in ('reason = "as documented"', "", 'role = "required"\nreason = "ours"'):
        path.write_text(claim.format(more), encoding="utf-8")
        (finding,) = gates.lint_card(path, TODAY)
        levels.append((finding.line, finding.level, finding.message.endswith("it decides nothing: as documented")))
    assert levels == [(4, Level.FINE, True), (4, P, False), (4, P, False)]


TOML = """
name = "m"

[gates."logits.cosine"]
bound = 0.5
reason = "a round number"

[[claims]]
id = "a"
value = 10.0
tolerance = 12.0
reason = "none"

[[claims]]
id = "accuracy.gsm8k"
role = "required"
better = "higher"
gate = { op = "+-", bound = 0.02 }

[[waivers]]
check = "ppl.delta"
reason = ""
link = "https://example.org/1"
expires = 2026-01-01
conditions = { device = "npu" }
"""


def test_toml_gates_are_linted_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text(TOML, encoding="utf-8")
    found = {(f.line, f.level) for f in gates.lint_card(path, TODAY)}
    assert found == {(5, P), (11, P), (14, U), (18, A), (22, U), (24, P)}


def test_toml_that_is_none_is_an_error(tmp_path: Path) -> None:
    from pytest_npuconf.errors import CardError

    path = tmp_path / "card.toml"
    path.write_text("[broken", encoding="utf-8")
    with pytest.raises(CardError, match="cannot be read as TOML"):
        gates.lint_card(path)


# ---- the cards of the seeds ------------------------------------------------------------------------------------------


def audit_seed(number: str) -> list[Finding]:
    cards = read_card(seed_or_skip(number))
    assert len(cards) == 1
    context = Context(cards[0], None, TODAY)
    return [finding for module in MODULES for rule in module.RULES for finding in rule.check(context)]


SEED_000 = {
    ("verdict-threshold", C, 93),
    ("verdict-threshold", P, 166),
    ("verdict-threshold", P, 167),
    ("verdict-threshold", P, 189),
    ("verdict-pending", C, 101),
    ("sample-size", U, 147),
    ("sample-size", U, 160),
    ("borrowed-score", P, 98),
    ("versions", P, 224),
    ("chip-product", C, 82),
    ("environment-variable", C, 243),
    ("feature-sample", U, 19),
    ("feature-sample", U, 281),
    ("repeatability", U, 21),
}
SEED_003 = {
    ("versions", C, 30),
    ("versions", C, 31),
    ("versions", C, 34),
    ("cann-driver", C, 29),
    ("shell", C, 16),
    ("shell", C, 40),
}


@pytest.mark.parametrize(("number", "expected"), [("000", SEED_000), ("003", SEED_003)])
def test_seed_has_just_the_textual_findings_that_are_known(number: str, expected: set[tuple[str, Level, int]]) -> None:
    found = {(f.rule, f.level, f.line) for f in audit_seed(number) if f.level.rank > A.rank}
    assert found == expected


def test_seed_findings_that_can_be_read_in_two_ways() -> None:
    first = {(f.rule, f.line) for f in audit_seed("000") if f.level is A}
    assert {("undefined-metric", 105), ("sample-size", 95), ("gate", 147)} <= first
    second = {(f.rule, f.line) for f in audit_seed("003") if f.level is A}
    assert {("versions", 38), ("gate", 124)} <= second


@pytest.mark.parametrize("number", ["001", "002"])
def test_documents_that_are_no_cards_have_no_contradiction(number: str) -> None:
    context = [Context(card, None, TODAY) for card in read_card(seed_or_skip(number))]
    found = [f for each in context for module in MODULES for rule in module.RULES for f in rule.check(each)]
    assert [f for f in found if f.level.rank > Level.UNSUPPORTED.rank] == []


def test_a_backslash_with_a_comment_behind_it_is_called_that():
    card = "```bash\nvllm serve m \\ # the model\n  --port 80\n```\n"
    (found,) = [finding for finding in audit(card) if finding.rule == "shell"]
    assert (found.level, found.line) == (Level.IMPLAUSIBLE, 3)
    assert found.message.startswith("the backslash of line 2 is followed by a comment")
