"""One plain form for digits, percent signs, spaces and punctuation; markup taken away."""

from __future__ import annotations

import html
import re
import unicodedata

# Full-width ASCII (U+FF01..FF5E) to ASCII, but for the comma: "100，200" is a list, "100,200" one number.
_PLAIN: dict[int, str] = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_PLAIN[0xFF0C] = ", "
_PLAIN |= dict.fromkeys((0x00A0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000, 0x0009, 0x000B, 0x000C), " ")
# zero width, byte order marks, marks of direction, variation selectors
_PLAIN |= dict.fromkeys((0x200B, 0x200C, 0x2060, 0xFEFF, 0x200E, 0x200F, 0x061C, *range(0x202A, 0x202F)), "")
_PLAIN |= dict.fromkeys((*range(0x2066, 0x206A), 0xFE0E, 0xFE0F, 0x00AD, 0x0000), "")
_PLAIN |= {0x2212: "-", 0xFE63: "-", 0x2010: "-", 0x2011: "-", 0xFE6A: "%", 0x066A: "%", 0x066B: ".", 0x066C: ","}
_PLAIN |= {0x2047: "??", 0x00B5: "μ", 0x00D7: "×", 0x3002: "。"}

# A thin or no-break space between groups of three digits stands for nothing: 340 480.
_THIN_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:[\u00a0\u2009\u202f]\d{3})+(?![\d.,]?\d)")
_KEYCAP = re.compile("[0-9#*]\ufe0f?\u20e3")  # 1 in a box counts lines, it measures nothing

_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,300}>|<!--.*?-->")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_IMAGE = re.compile(r"!\[([^\]]{0,300})\]\([^()\s]{0,600}(?:\s+\"[^\"]{0,200}\")?\)")
_LINK = re.compile(r"\[([^\]]{0,300})\]\([^()\s]{0,600}(?:\s+\"[^\"]{0,200}\")?\)")
_STRONG = re.compile(r"(\*\*|__)(?=\S)(.{1,600}?)(?<=\S)\1")
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*]{1,600}?)(?<=[^\s*])\*(?![\w*])")
_STRUCK = re.compile(r"~~(?=\S)(.{1,600}?)(?<=\S)~~")
_TICKS = re.compile(r"(?<!`)(`{1,8})(?!`)(.{1,600}?)(?<!`)\1(?!`)")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")


def normalise(text: str) -> str:
    """``text`` with plain digits, percent signs, colons, brackets and spaces, without invisible characters."""
    if text.isascii():
        return text.replace("\t", " ") if "\t" in text else text
    text = _KEYCAP.sub("", text)
    text = _THIN_GROUPS.sub(lambda match: re.sub(r"\s", "", match.group()), text)
    text = text.translate(_PLAIN)
    return "".join(_digit(character) for character in text)


def _digit(character: str) -> str:
    if character.isascii() or not character.isdecimal():
        return character
    return str(unicodedata.decimal(character))


def without_markup(text: str) -> str:
    """One line of Markdown as a reader sees it: links by their text, images by their description, no tags."""
    text = _BREAK.sub(" ", text)
    text = _IMAGE.sub(r"\1", text)
    text = _LINK.sub(r"\1", text)
    text = _TAG.sub("", text)
    text = _STRONG.sub(r"\2", text)
    text = _EMPHASIS.sub(r"\1", text)
    text = _STRUCK.sub(r"\1", text)
    text = _TICKS.sub(r"\2", text)
    text = _ESCAPE.sub(r"\1", text)
    return tidy(html.unescape(text) if "&" in text else text)


def tidy(text: str) -> str:
    """Single spaces, none at the ends."""
    return " ".join(normalise(text).split())
