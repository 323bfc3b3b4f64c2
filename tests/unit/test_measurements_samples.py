"""Answers against documented samples, tokenizations, and a host against a card's minimums."""

import pytest

from pytest_npuconf.cards.schema import Message, Sample, TokenProbe
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.chat import answers_of
from pytest_npuconf.errors import EngineError
from pytest_npuconf.gates import Gate, Outcome
from pytest_npuconf.measurements import samples, token_ids, unmet_minimums
from pytest_npuconf.measurements.samples import judge_sample


def sample(name="s", **expected):
    return Sample(name, (Message("user", "Hi"),), 32, **expected)


# ---------------------------------------------------------------- samples

PALINDROME = "def is_palindrome(s):\n    return s == s[::-1]"
FENCED = "Sure:\n```python\n{}\n```\nIt works."


@pytest.mark.parametrize(
    ("expected", "text", "unmet"),
    [
        ({"contains": ("Paris", "France")}, "Paris, France.", []),
        ({"contains": ("Paris", "Rome")}, "Paris.", ["expected 'Rome' in it"]),
        ({"contains": ("Paris",)}, "<think>Paris</think>It is Rome.", ["expected 'Paris' in it"]),
        ({"contains_any": ("no memory", "don't know")}, "I don't know.", []),
        ({"contains_any": ("a1", "b2")}, "neither", ["expected one of 'a1', 'b2' in it"]),
        ({"number": 4.0}, "2 + 2 = 4.", []),
        ({"number": 4.0}, "4 or 5", ["expected 4 as its last number, found 5.0"]),
        ({"number": 4.0}, "four", ["expected 4 as its last number, found None"]),
        ({"number": 2.1447298858494}, "It is 2.144729885849.", []),
        ({"number": 2.1447298858494}, "It is 2.14473.", ["expected 2.14472988585 as its last number, found 2.14473"]),
        ({"number": 0.0}, "0", []),
        ({"number": 0.0}, "1e-12", ["expected 0 as its last number, found 1e-12"]),
        ({"code_function": "is_palindrome"}, FENCED.format(PALINDROME), []),
        ({"code_function": "is_palindrome"}, f"```python\n{PALINDROME}", []),
        ({"code_function": "f"}, FENCED.format(PALINDROME), ["expected code that defines f, found is_palindrome"]),
        ({"code_function": "f"}, FENCED.format("f = 1"), ["expected code that defines f, found no function"]),
        ({"code_function": "f"}, "def f(): pass", ["expected code that defines f, found no code block"]),
        ({"code_function": "f"}, FENCED.format("def f(:"), ["its code is not Python: line 1: "]),
        ({"code": PALINDROME}, FENCED.format(PALINDROME.replace("(s):", "(s: str) -> bool:\n    '''Doc.'''")), []),
        ({"code": PALINDROME}, FENCED.format(PALINDROME.replace("-1", "-2")), ["expected is_palindrome as documented"]),
        ({"code": PALINDROME}, FENCED.format("def other(s): pass"), ["expected code that defines is_palindrome"]),
        ({"code": PALINDROME}, "none", ["expected code that defines is_palindrome, found no code block"]),
        ({"contains": ("a",), "number": 1.0}, "b 2", ["expected 'a' in it", "expected 1 as its last number, found 2.0"]),
        ({"contains": ("x",)}, "<think>x x x", ["no answer: thinking was cut at 32 tokens"]),
    ],
)  # fmt: skip
def test_what_a_sample_expects(expected, text, unmet):
    found = judge_sample(sample(**expected), text)
    assert len(found) == len(unmet)
    assert all(have.startswith(want) for have, want in zip(found, unmet, strict=True))


def test_wrong_samples_are_counted_and_shown_with_the_start_of_the_answer():
    good, bad = sample("good", contains=("a",)), sample("bad", contains=("z",))
    measured = samples((good, bad), {"good": "a", "bad": "<think>hm</think>" + "n" * 300})
    assert (measured.value, measured.n, measured.of) == (1, 2, "samples")
    assert measured.data["statistics"] == {"correct": 0.5}
    [row] = measured.rows
    assert (row.place, row.detail) == ("bad", f"answer '{'n' * 200}'; expected 'z' in it")
    assert measured.data["answers"]["bad"]["text"].endswith("n" * 300)


def test_a_cut_thought_shows_the_thought():
    [row] = samples((sample(contains=("a",)),), {"s": "<think>Let me"}).rows
    assert row.detail == "answer '<think>Let me'; no answer: thinking was cut at 32 tokens"


def test_an_answer_cannot_write_to_the_terminal():
    """Escape sequences of a model are shown, not obeyed."""
    [row] = samples((sample(contains=("a",)),), {"s": "\x1b[2J"}).rows
    assert "\x1b" not in row.detail


def test_no_code_of_an_answer_is_executed(tmp_path):
    marker = tmp_path / "written"
    code = f"open({str(marker)!r}, 'w').write('x')\n{PALINDROME}"
    text = FENCED.format(code)
    assert judge_sample(sample(code_function="is_palindrome", code=PALINDROME), text) == []
    assert not marker.exists()


def test_an_engine_that_cannot_chat_is_a_clear_error():
    class Mute:
        name = "mute"

    with pytest.raises(EngineError, match="engine mute cannot chat, so it cannot answer the card's samples"):
        answers_of(Mute(), (sample(contains=("a",)),))


def test_an_engine_is_asked_with_the_samples_own_settings():
    class Echo:
        name = "echo"

        def chat(self, messages, max_new_tokens, thinking):
            return f"{messages} {max_new_tokens} {thinking}"

    asked = Sample("s", (Message("system", "a"), Message("user", "b")), 7, thinking=False, contains=("x",))
    expected = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    assert answers_of(Echo(), (asked,)) == {"s": f"{expected} 7 False"}


# ---------------------------------------------------------------- token ids

DOCUMENTS = (
    Document("prompt 1", "prompt", "ab", (1, 2)),
    Document("input 1", "hidden", "abc", (1, 2, 3)),
    Document("input 2", "hidden", "a" * 100, tuple(range(9))),
)
IDS = {d.text: list(d.ids) for d in DOCUMENTS} | {"p": [7]}


def test_equal_ids_are_no_difference():
    measured = token_ids(DOCUMENTS, (TokenProbe("p", (7,)),), lambda text: IDS[text])
    assert (measured.value, measured.n, measured.of) == (0, 4, "texts")
    assert measured.data["statistics"] == {"input_lengths": [3, 9]}


def test_without_hidden_inputs_there_are_no_lengths():
    assert token_ids(DOCUMENTS[:1], (), lambda text: IDS[text]).data["statistics"] == {}


@pytest.mark.parametrize(
    ("found", "detail"),
    [
        ([1, 9], "'ab' from token 1: expected [1, 2] (2 tokens), found [1, 9] (2 tokens)"),
        ([1, 2, 3], "'ab' from token 2: expected [1, 2] (2 tokens), found [1, 2, 3] (3 tokens)"),
        ([0, 1, 2], "'ab' from token 0: expected [1, 2] (2 tokens), found [0, 1, 2] (3 tokens)"),
        ([], "'ab' from token 0: expected [1, 2] (2 tokens), found [] (0 tokens)"),
    ],
)
def test_a_row_shows_the_text_what_was_expected_and_what_was_found(found, detail):
    [row] = token_ids(DOCUMENTS[:1], (), lambda _: found).rows
    assert (row.place, row.detail) == ("prompt 1", detail)


def test_long_texts_and_ids_are_cut_around_the_first_difference():
    [row] = token_ids(DOCUMENTS[2:], (), lambda _: [0, 1, 2, 3, 4, 99, 6, 7, 8]).rows
    assert row.detail == (
        f"'{'a' * 60}...' from token 5: expected [..., 2, 3, 4, 5, 6, 7, 8] (9 tokens), "
        "found [..., 2, 3, 4, 99, 6, 7, 8] (9 tokens)"
    )


def test_a_document_is_compared_as_far_as_it_is_cut():
    cut = (Document("d", "document", "abcd", (1, 2)),)
    assert token_ids(cut, (), lambda _: [1, 2, 3, 4]).value == 0
    assert token_ids(cut, (), lambda _: [1, 9, 3, 4]).value == 1
    assert token_ids(cut, (), lambda _: [1]).value == 1


def test_a_probe_is_compared_with_the_card():
    measured = token_ids((), (TokenProbe("p", (7,)), TokenProbe("q", (8,))), lambda _: [7])
    assert (measured.value, [row.place for row in measured.rows]) == (1, ["probe 2"])


# ---------------------------------------------------------------- minimums


@pytest.mark.parametrize(
    ("wanted", "found", "met"),
    [
        ("3.10", "3.11.4", True),
        ("3.10", "3.9.18", False),
        ("2.9.0", "2.9.0", True),
        ("2.9.0", "2.13.0+cpu", True),
        ("2.9.0", "2.9.0rc1", False),
        ("2.9.0", "2.9.0.dev20250101", False),
        ("2.9.0", "2.9.0.post1", True),
        ("0.18.0rc1", "0.18.0", True),
        ("0.18.0rc1", "0.18.0rc1", True),
        ("0.18.0rc1", "0.18.0.dev3", False),
        ("8.5.1", "8.2.RC1", False),
        ("8.2.RC1", "8.5.1", True),
        ("8.5.1", "8.3.RC1.alpha002x", False),
        ("1.0", None, False),
        (16.0, 64.0, True),
        (16.0, 16.0, True),
        (16.0, 15.9, False),
        (8.0, 2, False),
    ],
)
def test_one_minimum(wanted, found, met):
    measured = unmet_minimums({"k": wanted}, {"k": found}, "here")
    assert measured.value == (0 if met else 1)
    assert measured.data["minimums"]["k"] == {"minimum": wanted, "found": found, "met": met}


def test_unmet_minimums_say_both_and_what_does_not_apply_is_listed():
    measured = unmet_minimums(
        {"torch": "99.0", "transformers": "4.0", "cann": "8.5.1", "memory_gib": 32.0, "numpy": "1"},
        {"torch": "2.9.0", "transformers": "5.0", "memory_gib": 7.75, "numpy": None},
        "engine transformers on cpu",
    )
    assert (measured.value, measured.n) == (3, 4)
    assert [(r.place, r.detail) for r in measured.rows] == [
        ("torch", "at least 99.0, found 2.9.0"),
        ("memory_gib", "at least 32, found 7.75"),
        ("numpy", "at least 1, found none installed"),
    ]
    assert measured.data["not_applicable"] == {"cann": "not applicable here: engine transformers on cpu"}
    assert measured.data["statistics"] == {"unmet": 3}


def test_a_version_that_cannot_be_read_says_so():
    [row] = unmet_minimums({"cann": "8.5.1"}, {"cann": "8.3.RC1.alpha002"}, "here").rows
    assert row.detail == "at least 8.5.1, found 8.3.RC1.alpha002, which cannot be compared"


def test_minimums_of_which_none_applies_are_no_pass():
    measured = unmet_minimums({"cann": "8.5.1", "torch_npu": "2.9"}, {}, "engine transformers on cpu")
    assert measured.broken == "none of cann, torch_npu applies to engine transformers on cpu"
    assert Gate("g", 0).judge(measured).outcome is Outcome.FAIL
