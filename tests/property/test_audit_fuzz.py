"""Any text goes through reading, rules and outputs without a crash. ``NPUCONF_FUZZ_SECONDS=600`` makes a long run of it."""

import os
import random
import time
import xml.etree.ElementTree as ElementTree

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_npuconf.audit.decoding import decode
from pytest_npuconf.audit.document import CardText
from pytest_npuconf.audit.engine import Audit
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.normalise import normalise
from pytest_npuconf.audit.numbers import numbers_in
from pytest_npuconf.audit.output import as_github, as_junit, safe
from pytest_npuconf.audit.text import parse_card, parse_cards
from pytest_npuconf.errors import AuditError
from tests.benchmarks.fuzz_audit import BITS, documents, mutate, run_all

SECONDS = float(os.environ.get("NPUCONF_FUZZ_SECONDS") or 0)
BATCH = settings(max_examples=200, derandomize=False, deadline=None, suppress_health_check=list(HealthCheck))
CARDS = documents()

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=400)
PIECES = st.lists(
    st.one_of(st.sampled_from(BITS), st.text(max_size=12), st.floats(width=32).map(repr)), max_size=60
).map("".join)
CELLS = st.one_of(st.sampled_from(BITS), st.text("abcNPU0123456789.%,- 平均差异\\`*", max_size=12))


@st.composite
def tables(draw):
    """Pipe tables of all widths, with rows that do not keep to them."""
    width = draw(st.integers(1, 6))
    rows = draw(st.lists(st.lists(CELLS, min_size=max(0, width - 1), max_size=width + 1), min_size=1, max_size=8))
    header = draw(st.lists(CELLS, min_size=width, max_size=width))
    bars = ["|".join(["", *row, ""]) for row in [header, ["---"] * width, *rows]]
    return (
        draw(st.sampled_from(["", "text\n", "text"])) + "\n".join(bars) + draw(st.sampled_from(["", "text", "\ntext"]))
    )


def for_long(strategy, check):
    """The profile's examples; with NPUCONF_FUZZ_SECONDS, batches of new ones for half of that time."""
    stop = time.monotonic() + SECONDS / 2
    (BATCH if SECONDS else settings())(given(strategy)(check))()
    while time.monotonic() < stop:
        BATCH(given(strategy)(check))()


def test_no_text_crashes_reading_rules_or_outputs():
    for_long(st.one_of(ANYTHING, PIECES, tables()), lambda text: run_all(text))


def test_no_mutated_card_crashes():
    mutated = st.tuples(st.sampled_from(CARDS), st.integers(0, 2**32))
    for_long(mutated, lambda drawn: run_all(mutate(drawn[0][1], random.Random(drawn[1]))))


@given(st.one_of(ANYTHING, PIECES, tables()))
def test_every_part_has_a_line_of_the_file_and_tables_are_rectangles(text):
    for card in parse_cards(text):
        for part in (*card.pairs, *card.proses, *card.codes, *card.sections, *card.tables):
            assert 1 <= part.line <= len(card.raw)
        for table in card.tables:
            assert all(len(row) == len(table.header) for row in table.rows)
        assert len(card.lines) == len(card.raw)


@given(st.one_of(ANYTHING, PIECES))
def test_numbers_stand_where_they_say(text):
    text = normalise(text)
    for number in numbers_in(text):
        assert number.text == text[number.start : number.end].strip()
        assert number.half_ulp > 0
    assert normalise(text) == text


@given(st.binary(max_size=300))
def test_bytes_are_read_or_refused_with_the_reason(data):
    refused = None
    try:
        text, _ = decode(data, "card.md")
    except AuditError as error:
        refused = error
    if refused is None:
        assert isinstance(parse_card(text), CardText)
    else:
        assert "card.md" in refused.what
        assert refused.mend


@given(st.one_of(ANYTHING, PIECES))
def test_what_is_shown_cannot_steer_a_terminal_and_junit_stays_xml(text):
    assert not any(ord(c) < 32 and c not in "\t\n" for c in safe(text))
    finding = Finding("units", Level.CONTRADICTION, 1, text, text, text)
    audit = Audit(parse_card(text, text), (finding,), (text,))
    ElementTree.fromstring(as_junit([audit], Level.FINE))
    assert len([line for line in as_github([audit], Level.FINE).splitlines() if line.startswith("::")]) == 2
