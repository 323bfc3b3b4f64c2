"""Chips against the products that carry them, and CANN taken for the driver."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.data import Chip, Product
from pytest_npuconf.audit.data import chips as chip_data
from pytest_npuconf.audit.data import versions as version_data
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.lines import DENIED, Line, cells_of, prose_of


@dataclass(frozen=True)
class _Seen:
    """Where a family was first named, and whether a label says that this is the device or the server."""

    name: str
    line: int
    labelled: bool


CHIP, DRIVER = "chip-product", "cann-driver"
_LIST = re.compile(r"[,;、/]|和|或|及|与|\b(?:and|or|versus|vs)\b", re.IGNORECASE)
_CHIP_LABEL = re.compile(
    r"(?:NPU|芯片|加速卡|加速器|设备|处理器|型号|device|chip|accelerator|card)(?:\s*(?:型号|名称|设备|model|type|name))?$",
    re.IGNORECASE,
)
_PRODUCT_LABEL = re.compile(
    r"(?:服务器|整机|机型|主机|硬件|平台|机器|server|host|machine|hardware|platform|system)(?:\s*(?:型号|名称|model|type|name))?$",
    re.IGNORECASE,
)
_DRIVER_INSIDE = re.compile(
    r"(?:^|[.;。]\s*)((?:NPU |Ascend |昇腾)?(?:驱动(?:版本)?|driver(?: version)?))\s*[:=]\s*([^;。,]{3,40})",
    re.IGNORECASE,
)
_DRIVER_KEY = re.compile(r"驱动|\bdriver\b|\bHDK\b", re.IGNORECASE)
_FIRMWARE = re.compile(r"固件|\bfirmware\b", re.IGNORECASE)  # numbered 7.x: neither the driver's nor CANN's
_CANN = re.compile(r"\bCANN\b", re.IGNORECASE)
_CANN_VERSION = re.compile(
    r"\bCANN\s*[:=]?\s*v?(\d+\.\d+(?:\.(?:\d+|RC\d+|T\d+))?(?:[.-](?:alpha|beta)\w*)?)", re.IGNORECASE
)
_NUMBERED = re.compile(r"^v?([5-9]\.\d+(?:\.(?:\d+|RC\d+|alpha\w*|beta\w*))*)$", re.IGNORECASE)


def chip_product(context: Context) -> Iterator[Finding]:
    """A chip of one generation said to sit in a product of another."""
    chips: dict[str, _Seen] = {}
    products: dict[str, _Seen] = {}
    joined = False
    for line in prose_of(context.card):
        for finding in _same_line(context, line):
            joined = True
            yield finding
    for label, text, number in _texts(context):
        _note(chips, chip_data().chips_in(text), (label, text, number), _CHIP_LABEL)
        _note(products, chip_data().products_in(text), (label, text, number), _PRODUCT_LABEL)
    if joined or len(chips) != 1 or len(products) != 1:
        return
    (family, chip), (other, product) = *chips.items(), *products.items()
    if family == other:
        message = f"{chip.name} and {product.name} are both {family}"
        yield context.finding(CHIP, Level.FINE, chip.line, message, _source(chip.name))
        return
    message = (
        f"{chip.name} is a part of {family}, {product.name} (line {product.line}) is of {other}: "
        "the card names no other chip or product"
    )
    level = Level.CONTRADICTION if chip.labelled and product.labelled else Level.AMBIGUOUS
    yield context.finding(CHIP, level, chip.line, message, _source(chip.name))


def _note(
    seen: dict[str, _Seen],
    found: tuple[Chip, ...] | tuple[Product, ...],
    place: tuple[str, str, int],
    wanted: re.Pattern[str],
) -> None:
    """Remember the first place of each family, a place that is labelled before one that is not."""
    label, text, number = place
    for each in found:
        match = each.pattern.search(text)
        front = label or (text[max(0, match.start() - 24) : match.start()] if match else "")
        labelled = bool(wanted.search(front.rstrip(" :=|-")))
        if each.family not in seen or (labelled and not seen[each.family].labelled):
            seen[each.family] = _Seen(each.name, number, labelled)


def _texts(context: Context) -> Iterator[tuple[str, str, int]]:
    """Every pair with its key, then every line: label (or an empty text), text, line."""
    for pair in context.card.pairs:
        yield pair.key, pair.value, pair.line
    for table in context.card.tables:
        if len(table.header) == 2:
            for row in (table.header, *table.rows):
                yield row[0].text, row[1].text, row[1].line
    for line in prose_of(context.card):
        yield "", line.text, line.number


def _same_line(context: Context, line: Line) -> Iterator[Finding]:
    """Chip and product in one cell, with nothing between that makes a list of them."""
    data = chip_data()
    for cell in cells_of(line.text):
        mine, theirs = data.chips_in(cell), data.products_in(cell)
        families = {chip.family for chip in mine}, {product.family for product in theirs}
        if len(families[0]) != 1 or len(families[1]) != 1 or families[0] == families[1] or DENIED.search(cell):
            continue
        first, second = mine[0].pattern.search(cell), theirs[0].pattern.search(cell)
        if first is None or second is None:
            continue
        left, right = sorted((first.span(), second.span()))
        if right[0] - left[1] > 20 or _LIST.search(cell[left[1] : right[0]]):
            continue
        message = f"{first.group()} is a part of {mine[0].family}, {second.group()} is of {theirs[0].family}"
        yield context.finding(CHIP, Level.CONTRADICTION, line.number, message, mine[0].source)


def _source(name: str) -> str:
    return next(chip.source for chip in chip_data().chips if chip.name == name)


def cann_driver(context: Context) -> Iterator[Finding]:
    """A driver whose version is CANN's."""
    seen = set()
    for key, value, line in _pairs(context):
        if line in seen or not _DRIVER_KEY.search(key) or _CANN.search(key) or len(key) > 24:
            continue
        named = _CANN_VERSION.search(value)
        rest = _CANN_VERSION.sub("", value)
        if named and not re.search(r"\d+\.\d+|HDK", rest, re.IGNORECASE):
            seen.add(line)
            message = (
                f"CANN {named[1]} is the toolkit's version, not the driver's: the driver (Ascend HDK) is numbered "
                "apart, such as 25.5.0"
            )
            yield context.finding(DRIVER, Level.CONTRADICTION, line, message, _driver_source())
            continue
        numbered = _NUMBERED.match(value.strip())
        if numbered and not _FIRMWARE.search(key) and numbered[1].upper() in _cann_versions():
            seen.add(line)
            message = (
                f"{numbered[1]} is numbered as CANN is; releases of the driver (Ascend HDK) are called after the "
                "year, such as 25.5.0"
            )
            yield context.finding(DRIVER, Level.IMPLAUSIBLE, line, message, _driver_source())


def _pairs(context: Context) -> Iterator[tuple[str, str, int]]:
    for pair in context.card.pairs:
        yield pair.key, pair.value, pair.line
    for line in prose_of(context.card):
        cells = cells_of(line.text)
        if len(cells) == 2:
            yield cells[0], cells[1], line.number
        for found in _DRIVER_INSIDE.finditer(line.text):
            yield found[1], found[2].rstrip("."), line.number


def _cann_versions() -> frozenset[str]:
    """The versions of CANN that the matrix names, in capitals."""
    data = version_data()
    return frozenset(each.cann.upper() for each in (*data.vllm_ascend, *data.torch_npu) if each.cann)


def _driver_source() -> str:
    return (
        "https://www.hiascend.com/document/detail/zh/canncommercial/850/releasenote (CANN 8.5.0 goes with Ascend "
        "HDK 25.0 to 25.5)"
    )


RULES = (
    Rule(CHIP, "the chip belongs to the product", chip_product),
    Rule(DRIVER, "the driver's version is the driver's", cann_driver),
)
