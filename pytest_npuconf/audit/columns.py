"""Words by which glued headers and keys are told apart."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    """The words, longest first: an alternation of them finds the longest."""
    return tuple(sorted(text.split(), key=lambda word: (-len(word), word)))


# What a column's name ends in, in Chinese cards and in names of precisions and data sets.
ENDS = _words(
    """
    余弦相似度 相似度 相对误差 绝对误差 误差 预测匹配率 预测匹配 匹配率 预测 重叠率 差异 偏差 输入文本
    测试文本 文本 指标 得分 分数 来源分析 来源 基线 基准 项目 测试项 检查项 配置项 对比项 检测项 评测项
    评估项 评分项 字段 配置 参数名 参数 数值 值 组件 最低要求 推荐配置 要求 版本 软件 硬件 方式 维度
    结论 类型 用途 步骤 措施 状态 说明 备注 内容 名称 结果 实测值 实测 通过标准 标准 阈值 判定 数据集
    任务 准确率 精度 吞吐量 吞吐 延迟 时延 并发数 并发 显存 内存 模型 输入长度 输出长度 长度 样本数
    样本 平均 最大 单位 门限 下限 上限 一致 轮次 PPL FP32 BF16 FP16 INT8 W8A8 GSM8K MMLU MATH HumanEval
    C-Eval CEval CMMLU MBPP IFEval
    """
)
# The same in English, where the next name begins with a capital.
ENGLISH_ENDS = _words(
    """
    Metric Metrics Value Values Parameter Parameters Item Items Version Component Score Accuracy
    Difference Source Status Baseline Model Task Dataset Benchmark Input Output Text Result Results
    Threshold Delta Config Configuration Setting Settings Notes Note Property Requirement Latency
    Throughput Reference
    """
)
# Keys that stand before their value without a separator: configurations, packages, data sets.
KEYS = _words(
    """
    hidden_size intermediate_size num_attention_heads num_key_value_heads num_hidden_layers vocab_size
    max_position_embeddings rope_theta rms_norm_eps tie_word_embeddings head_dim temperature top_p
    top_k do_sample eos_token_id pad_token_id bos_token_id torch_dtype num_experts num_experts_per_tok
    moe_intermediate_size GSM8K MMLU MATH HumanEval C-Eval CMMLU torch_npu vLLM-Ascend vllm-ascend vLLM
    vllm transformers CANN Python torch numpy modelscope repetition_penalty max_new_tokens
    sliding_window attention_bias
    """
)
# Marks of a status, which begin a cell.
STATUS = "✅❌⚠📋🟢🔴🟡⏳🔄🚧✔✓✗"
