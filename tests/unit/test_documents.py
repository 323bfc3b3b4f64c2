"""Which positions of a document are looked at, and how a document is cut."""

import itertools
from pathlib import Path

import pytest

from pytest_npuconf.cards.schema import Card, Prompt
from pytest_npuconf.documents import BUCKETS, WINDOW, Document, bucket_of, documents_of, for_pair, windows
from pytest_npuconf.precisions import Precision


@pytest.mark.parametrize(
    ("length", "runs"),
    [
        (1, ((0, 1),)),
        (15, ((0, 15),)),
        (17, ((0, 17),)),
        (48, ((32, 48),)),
        (127, ((0, 16), (48, 64), (64, 80), (111, 127))),
        (129, ((0, 16), (48, 64), (64, 80), (112, 128), (128, 129))),
        (257, ((0, 16), (48, 64), (64, 80), (112, 128), (128, 144), (240, 256), (256, 257))),
        (513, ((0, 16), (48, 64), (64, 80), (112, 128), (128, 144), (240, 256), (256, 272), (496, 512), (512, 513))),
        (
            1025,
            (
                (0, 16),
                (48, 64),
                (64, 80),
                (112, 128),
                (128, 144),
                (240, 256),
                (256, 272),
                (496, 512),
                (512, 528),
                (1009, 1025),
            ),
        ),
    ],
)
def test_what_is_looked_at(length, runs):
    assert windows(length) == runs


def test_windows_are_ordered_inside_one_bucket_and_hold_the_last_position():
    for length in range(1, 1100):
        runs = windows(length)
        assert runs[-1][1] == length
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(runs))
        assert all(0 <= start < stop <= length and stop - start <= WINDOW + 1 for start, stop in runs)
        if length > BUCKETS[2]:
            assert all(bucket_of(start) == bucket_of(stop - 1) for start, stop in runs)
            assert {bucket_of(start) for start, _ in runs} == {bucket_of(edge) for edge in BUCKETS if edge < length}


@pytest.mark.parametrize(
    ("position", "name"),
    [(0, "0-15"), (15, "0-15"), (16, "16-63"), (511, "256-511"), (512, "512-"), (9999, "512-")],
)
def test_a_bucket_has_its_name(position, name):
    assert bucket_of(position) == name


def test_rows_know_their_positions():
    document = Document("d", "document", "", tuple(range(48)), ((32, 34), (40, 42)))
    assert document.positions == (32, 33, 40, 41)
    assert document.place_of_row(2) == "d position 40"
    assert Document("p", "prompt", "", (5, 6)).positions == (0, 1)


def cut(text, tokens, context):
    card = Card("m", Path("card.toml"), long_texts=(Prompt("en", text, tokens),))
    return documents_of(card, lambda t: list(map(ord, t)), context)[-1]


@pytest.mark.parametrize(
    ("tokens", "context", "length"), [(4, None, 4), (None, None, 9), (99, None, 9), (8, 5, 5), (None, 3, 3)]
)
def test_a_document_is_cut_to_its_length_and_to_the_context(tokens, context, length):
    document = cut("abcdefghi", tokens, context)
    assert document.ids == tuple(map(ord, "abcdefghi"[:length]))
    assert document.looked == windows(length)


def test_two_roundings_are_compared_without_the_long_texts():
    documents = [Document("p", "prompt", "", (1, 2)), Document("d", "document", "", (1,))]
    assert for_pair(documents, Precision("bfloat16", "bfloat16")) == documents[:1]
    assert for_pair(documents, Precision("bfloat16", "float32")) == documents
    assert for_pair(documents, Precision("float32", "float32")) == documents
