"""What the name of a column, row or key names: the quantity, how it was aggregated, and on what it was measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from pytest_npuconf.audit.document import Cell
from pytest_npuconf.audit.numbers import Number, numbers_in

# quantity -> how it is written. Earlier lines win; within a name the first match is taken out before the next is tried.
_QUANTITIES: tuple[tuple[str, str], ...] = (
    ("mae", r"平均绝对误差|(mean|avg|average)[\s_-]*abs(olute)?[\s_-]*(error|diff\w*)|\bmae\b"),
    ("rmse", r"均方根误差|root\s*mean\s*squared?\s*error|\brmse\b"),
    ("mse", r"均方误差|mean\s*squared?\s*error|\bmse\b"),
    ("max_abs", r"最大绝对(误差|差异?)|max(imum)?[\s_-]*abs(olute)?[\s_-]*(error|diff\w*|err)?"),
    ("rel_l2",
        r"相对\s*l2\s*(误差|范数误差)?|l2\s*相对误差|(relative|rel)[\s_.-]*l2([\s_-]*(error|"
        r"norm))?|l2[\s_-]*(relative|rel)[\s_-]*err(or)?"),
    ("rel", r"相对误差|relative\s*err(or)?|\brel[\s_.-]*err(or)?\b|\brel\s*%|\bmre\b"),
    ("abs", r"绝对误差|absolute\s*err(or)?|\babs[\s_.-]*err(or)?\b"),
    ("cosine", r"余弦相似度?|余弦|\bcos(ine)?([\s_-]*sim(ilarity)?)?\b(?![\s_-]*(?:sched|anneal|decay|lr|warm|restart))"),
    ("kl", r"kl\s*散度|\bkl([\s_-]*div(ergence)?)?\b"),
    ("ppl", r"困惑度|perplexity|\bppl\b"),
    ("loss", r"损失|\bloss\b"),
    ("ttft",
        r"首\s*(token|词元|字|包|个\s*token)\s*(延迟|时延|时间|耗时)|首字|time\s*to\s*first\s*token|"
        r"first[\s-]*token[\s-]*(latency|time|delay)|\bttft\b"),
    ("tpot",
        r"(输出令牌|输出\s*token|每\s*(个)?\s*(输出)?\s*token|单\s*token|每令牌)\s*(耗时|"
        r"延迟|时延|时间)|time\s*per\s*output\s*token|per[\s-]*token\s*latency|"
        r"\btpot\b"),
    ("itl", r"token\s*间(延迟|时延|隔)|inter[\s-]*token\s*latency|\bitl\b"),
    ("bandwidth", r"带宽|bandwidth"),
    ("request_throughput", r"请求吞吐(量|率)?|request\s*throughput|\bqps\b|\brps\b|每秒请求数?"),
    ("throughput",
        r"吞吐(量|率)?|throughput|生成速度|推理速度|解码速度|(decode|decoding|generation)\s*rate|"
        r"解码速率|decode\s*speed|generation\s*speed|tokens?\s*per\s*second|"
        r"\btps\b"),
    ("latency", r"延迟|时延|latency|响应时间|response\s*time"),
    ("concurrency", r"并发(请求)?(数|量|度)?|concurren(cy|t\s*requests?)|num[\s_-]*concurrent"),
    ("batch", r"批(次)?(处理)?大小|批量大小|batch[\s_-]*size|\bbatch\b|\bbs\b"),
    ("input_length", r"输入(序列)?(token)?\s*(长度|tokens?数?)|input[\s_-]*(length|len|tokens?)|prompt[\s_-]*(length|len|tokens?)"),
    ("output_length",
        r"(输出|生成)(序列)?(token)?\s*(长度|tokens?数?)|output[\s_-]*(length|len|"
        r"tokens?)|max[\s_-]*(new[\s_-]*)?tokens"),
    ("parameters", r"(模型)?参数(规模|总量|数量|量|总数|数)|总参数|(number\s*of\s*)?param(eter|ater)?s?(\s*(count|size))?\b"),
    ("weight_size",
        r"权重(文件)?(大小|体积|显存|总量)?(占用)?|(模型|权重)文件大小|模型(大小|体积)|(model|weights?|"
        r"checkpoint)\s*(file\s*)?size|weights?\s*memory|\bweights?\b(?![\s_-]*(?:decay|"
        r"quant|shar|format|dtype|path|name|load|type|tying|init|only))|"
        r"(模型)?权重(显存|内存)"),
    ("accuracy", r"准确率|正确率|accuracy|\bacc\b"),
    ("match", r"匹配率|一致率|match(ing)?\s*rate|\bmatch\b|agreement"),
    ("overlap", r"重叠率|overlap"),
    ("score", r"得分|分数|score"),
    ("memory", r"显存|内存|memory|\bhbm\b|\bvram\b"),
    ("length", r"长度|\blength\b|\blen\b"),
)  # fmt: skip

_AGGREGATES: tuple[tuple[str, str], ...] = (
    ("weighted", r"加权平均|weighted\s*(avg|average|mean)"),
    ("geometric", r"几何平均(值)?|geometric\s*mean|geo[\s-]*mean"),
    ("micro", r"\bmicro[\s-]*(avg|average|f1)?"),
    ("mean", r"算术平均(值)?|平均(值)?|均值|macro[\s-]*(avg|average)|\bmean\b|\baverage\b|\bavg\b\.?"),
    ("median", r"中位(数|值)?|\bmedian\b"),
    ("percentile", r"\bp\d{2}(\.\d+)?\b"),
    ("max", r"最大(值)?|最高|最差|峰值|\bmax(imum)?\b|\bpeak\b|\bworst\b"),
    ("min", r"最小(值)?|最低|\bmin(imum)?\b"),
    ("std", r"标准差|方差|\bstd(ev|\.)?\b|standard\s*deviation|\bvariance\b|±"),
    ("total", r"总计|合计|总和|\btotal\b|\bsum\b"),
)  # fmt: skip

# Names of summary rows that are no plain aggregate: they are left out of the detail rows, and never judged.
_SUMMARY = re.compile(
    r"^(sum\s?/\s?(?:avg|mean)|s\.?d\.?|all|overall|整体|总体|全部|综合|accuracy|准确率|小计|subtotal|合计|总计)$",
    re.IGNORECASE,
)

_DEVICES: tuple[tuple[str, str], ...] = (
    ("npu", r"\bnpu\b|昇腾|ascend\s*\w*"),
    ("gpu", r"\bgpu\b|\bcuda\b|\ba100\b|\bh100\b|\ba800\b|\bh800\b|\bv100\b"), ("cpu", r"\bcpu\b"),
)  # fmt: skip
_DTYPES: tuple[tuple[str, str], ...] = (
    ("bf16", r"\bbf(loat)?16\b"), ("fp16", r"\b(fp|float)16\b|\bhalf\b"), ("fp32", r"\b(fp|float)32\b"),
    ("fp64", r"\b(fp|float)64\b"),
    ("fp8", r"\bfp8\w*\b|\bfloat8\w*\b"), ("w8a8", r"\bw8a8\w*\b"), ("w4a16", r"\bw4a16\w*\b"), ("w4a8", r"\bw4a8\w*\b"),
    ("w8a16", r"\bw8a16\w*\b"),
    ("int8", r"\bint8\b|\b8[\s-]?bit\b"), ("int4", r"\bint4\b|\bnf4\b|\b4[\s-]?bit\b|\bawq\b|\bgptq\b"), ("hf32", r"\bhf32\b"),
)  # fmt: skip
_SUBJECTS: tuple[tuple[str, str], ...] = (
    ("hidden", r"隐藏状态|hidden[\s_-]*states?"), ("logits", r"\blogits?\b"), ("embedding", r"嵌入|向量|embeddings?"),
    ("image", r"图像|图片|视觉|\bimages?\b|vision"), ("text", r"文本|\btexts?\b"), ("attention", r"注意力|attention"),
)  # fmt: skip
_DELTA = re.compile(
    r"差异|差值|偏差|变化|下降|提升|损失率|差距|相差|Δ|\bdelta\b|\bdiff(erence)?s?\b|\bgap\b|"
    r"\bdrop\b|\bchange\b|\bboost\b|\bgain\b|\bimprovement\b|\buplift\b|\bloss\s*%", re.IGNORECASE)  # fmt: skip
_RATIO = re.compile(r"加速比|倍率|倍数|比值|speed[\s-]?up|\bratio\b|保持率|retention", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[\s()\[\]{}<>:;,.\-–—_/|*`'\"“”#%&+~≈→↑↓✅❌⚠️🟢📋?!·=]+")
_FILLER = re.compile(
    r"值|的|对比|结果|实测|测量|measured|result|value|values|vs|逐项|级|数值|总览|in|"
    r"of|the|单位|unit|tok|token|tokens|ms|s|req|token/s|请求|request|端到端|"
    r"e2e|end|整体", re.IGNORECASE)  # fmt: skip


def _compiled(table: tuple[tuple[str, str], ...]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((name, re.compile(_bounded(pattern), re.IGNORECASE)) for name, pattern in table)


def _bounded(pattern: str) -> str:
    r"""``\b`` that also stands between a Chinese and a Latin letter, where Python's does not."""
    parts = pattern.split(r"\b")
    return r"(?:(?<![A-Za-z0-9])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?![A-Za-z0-9]))".join(parts)


QUANTITIES = _compiled(_QUANTITIES)
AGGREGATES = _compiled(_AGGREGATES)
DEVICES = _compiled(_DEVICES)
DTYPES = _compiled(_DTYPES)
SUBJECTS = _compiled(_SUBJECTS)


# Of these words is what the names of number formats are made of.
_WORD = re.compile(r"[A-Za-z0-9_]+(?:[\s-]?bit(?![A-Za-z0-9]))?", re.IGNORECASE)
_ALPHABETIC = {"half", "awq", "gptq"}


def formats_in(text: str) -> list[tuple[str, re.Pattern[str]]]:
    """The number formats of a long text. The patterns look at its different words only: over all of it they take seconds."""
    words = {w for w in _WORD.findall(text) if any(c.isdigit() for c in w) or w.lower() in _ALPHABETIC}
    short = "\n".join(sorted(words))
    return [entry for entry in DTYPES if entry[1].search(short)]


@dataclass(frozen=True)
class Name:
    """A name, taken apart. ``rest`` is what was not understood: two names are the same only where it is the same."""

    text: str
    quantity: str
    aggregate: str
    tags: frozenset[str]
    delta: bool
    ratio: bool
    rest: str

    @property
    def devices(self) -> frozenset[str]:
        """The devices named."""
        return self.tags & {name for name, _ in DEVICES}

    @property
    def dtypes(self) -> frozenset[str]:
        """The number formats named."""
        return self.tags & {name for name, _ in DTYPES}


@lru_cache(maxsize=8192)
def read_name(text: str) -> Name:
    """Take ``text`` apart."""
    left = text
    quantity = ""
    for name, pattern in QUANTITIES:
        match = pattern.search(left)
        if match:
            quantity, left = name, left[: match.start()] + " " + left[match.end() :]
            break
    aggregate = ""
    for name, pattern in AGGREGATES:
        match = pattern.search(left)
        if match:
            kept = match.group(0) if name == "percentile" else " "
            aggregate, left = name, left[: match.start()] + f" {kept} " + left[match.end() :]
            break
    tags = set()
    for table in (DTYPES, DEVICES, SUBJECTS):
        for name, pattern in table:
            if pattern.search(left):
                tags.add(name)
                left = pattern.sub(" ", left)
    delta = bool(_DELTA.search(left))
    ratio = bool(_RATIO.search(left))
    left = _RATIO.sub(" ", _DELTA.sub(" ", left))
    rest = " ".join(w for w in _PUNCTUATION.sub(" ", left.lower()).split() if not _FILLER.fullmatch(w))
    return Name(text, quantity, aggregate, frozenset(tags), delta, ratio, rest)


_ALONE = re.compile(
    r"^[^A-Za-z\u4e00-\u9fff]*((算术|总体)?平均(值)?|均值|macro[\s-]*avg|mean|"
    r"average|avg\.?|中位(数|值)?|median|最大(值)?|最高|max(imum)?|最小(值)?|最低|"
    r"min(imum)?|合计|总计|总和|total|sum|加权平均|weighted\s*(avg|average|mean))"
    r"[^A-Za-z\u4e00-\u9fff]*(\(.*\))?[^A-Za-z\u4e00-\u9fff]*$", re.IGNORECASE)  # fmt: skip


_FIGURE = re.compile(r"^\W{0,4}\d[\d.,]{0,20}\s{0,2}%?\s{0,2}\(")  # "33 (mean)" is a value that says its kind, no label


@lru_cache(maxsize=8192)
def aggregate_of_row(label: str) -> str:
    """``mean``, ``median``, ``max``, ``min``, ``total``, ``weighted`` where the label of a row says only that; ``other``
    where it is a summary of another kind; else an empty text.
    """
    if _FIGURE.match(label) or re.search(r"@\s?\d", label):  # "Avg@8" is how one row was scored
        return ""
    if _ALONE.match(label):
        return read_name(label).aggregate
    name = read_name(label)
    if re.match(
        r"^\W*(p\d{2}(\.\d+)?|第\s*\d+\s*百分位|\d+(st|nd|rd|th) percentile|标准差|std\.?|count|样本数)\W*$",
        label,
        re.IGNORECASE,
    ):
        return "other"
    if _SUMMARY.match(label.strip()) or name.aggregate in {"micro", "weighted", "std", "geometric"}:
        return "other"
    words = _PUNCTUATION.sub(" ", label).split()
    return "other" if name.aggregate and len(words) <= 3 and len(label) <= 16 and not name.rest.isascii() else ""


# What may stand in a cell beside its one number and say nothing about it.
_DECORATION = re.compile(
    r"[\s✅❌⚠🟢🔴🟡✓✔✗☑~≈±*()+<>≤≥↑↓–—|°/:]|基线|baseline|\bref\b|approx|约|"
    r"通过|pass(ed)?|\bok\b", re.IGNORECASE)  # fmt: skip


def cell_number(cell: Cell) -> Number | None:
    """The one number of a cell that holds nothing else but its unit and marks such as ✅."""
    found = numbers_in(cell.text, cell.line)
    if len(found) != 1:
        return None
    left = cell.text[: found[0].start] + cell.text[found[0].end :]
    return None if _DECORATION.sub("", left) else found[0]


def is_blank(text: str) -> bool:
    """Whether a cell says that there is no value."""
    return not text.strip(" -–—/.·") or text.strip().lower() in {"n/a", "na", "无", "none", "tbd", "待定"}
