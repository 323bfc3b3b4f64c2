"""README.txt of a bundle, for whoever opens it without knowing what it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

README = "README.txt"
_ENGLISH = """\
Evidence of a run of pytest-npuconf: what was measured, by which bounds it was judged, on and with what.

results.json      every measurement with its bound and verdict, the closing of each model; as the run wrote it
fingerprint.json  versions, device and settings, each with where it was read
commands.txt      the command of the run
junit.xml, logs/, card.md, cards/  if there: JUnit, logs, the Markdown card, the model's card.toml with its own bounds
MANIFEST.json     sha256 and size of each file

To verify:  pip install pytest-npuconf ; npuconf verify BUNDLE.zip
It rechecks every hash and judges the stored measurements again, without the model. It prints the sha256 of the whole
bundle: compare that with the one its maker gave you by another way. It cannot show that the measurements were taken.
"""
_CHINESE = """\
中文:这是一次 pytest-npuconf 运行的证据,包含测量值、门限、判定与运行环境。
results.json 为原始结果(逐字节未改);fingerprint.json 为版本、设备与设置;commands.txt 为运行命令;MANIFEST.json 为每个文件的
sha256 与大小;如有 junit.xml、logs/、card.md、cards/,则分别为 JUnit、日志、Markdown 卡片与模型的 card.toml。
验证:pip install pytest-npuconf ; npuconf verify BUNDLE.zip
它重新核对所有哈希,并在不运行模型的情况下重新判定;请将其打印的整个文件的 sha256 与制作者另行告知的值比较。
它不能证明这些测量确实做过。
"""


def make_readme(results: Mapping[str, Any], not_found: Iterable[str]) -> bytes:
    """The text: what the files are, each model's closing line, what could not be found."""
    lines = [entry["line"] for entry in results["models"].values()] or ["no model was judged by a suite"]
    missing = [f"not in this bundle: {name}" for name in not_found]
    return "\n".join([_ENGLISH, *lines, *missing, "", _CHINESE]).encode()
