"""What an answer holds: after the thought, its last number, its code. Nothing of it is ever executed."""

import sys

import pytest

from pytest_npuconf.answers import code_block, final_answer, functions_of, last_number, normal_form, parse_code

# ---------------------------------------------------------------- thought


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Paris.", "Paris."),
        ("  Paris.\n", "Paris."),
        ("", ""),
        ("<think>\nFrance...\n</think>\n\nParis.", "Paris."),
        ("France...\n</think>\nParis.", "Paris."),
        ("<think></think>Paris.", "Paris."),
        ("<think>a</think>", ""),
        ("<think>France", None),
        ("\n <think>France", None),
        ("<think>a</think> <think>b", None),
        ("<think>a</think><think>b</think>c", "c"),
        ("Write <think> to think.", "Write <think> to think."),
        ("<think>a</think>The tag <think> opens.", "The tag <think> opens."),
    ],
)
def test_the_answer_is_what_follows_the_thought(text, answer):
    assert final_answer(text) == answer


def test_thousands_of_thoughts_are_no_recursion():
    assert final_answer("<think></think>" * (sys.getrecursionlimit() + 1) + "x") == "x"


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2 + 2 = 4", 4),
        ("4.", 4),
        ("It is -2.5 degrees", -2.5),
        ("\u22123", -3),
        ("3-2=1, then 5-3", 3),
        ("1,319 items", 1319),
        ("12,345,678.5", 12345678.5),
        ("6e-3", 0.006),
        ("1.5E+2", 150),
        (".5", 0.5),
        ("答案是4。", 4),
        ("$86.00", 86),
        ("the areas 15, 16", 16),
        ("(7)", 7),
        ("72%", 72),
        ("\\boxed{42}", 42),
        ("9 and then H2O", 9),
        ("nothing", None),
        ("", None),
        ("a1 b2", None),
    ],
)
def test_the_last_number(text, number):
    assert last_number(text) == number


def test_a_number_too_large_for_a_float_is_infinite_and_no_error():
    assert last_number("1" * 500) == float("inf")


# ---------------------------------------------------------------- code blocks


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\na = 1\n```\nmore", "a = 1\n"),
        ("```\na = 1\n```", "a = 1\n"),
        ("~~~py\na\n~~~\n", "a\n"),
        ("text\n```python\na\n```\n```python\nb\n```", "a\n"),
        ("```python\na = 1\nb = 2", "a = 1\nb = 2"),
        ("```python\na\n", "a\n"),
        ("````python\na\n```\nb\n````", "a\n```\nb\n"),
        ("- x\n  ```python\n  def f():\n      pass\n  ```\n", "def f():\n    pass\n"),
        ("```python\r\na\r\n```\r\n", "a\n"),
        ("```python\n```", ""),
        ("no code", None),
        ("`inline`", None),
        ("```print(1)```", None),
        ("", None),
    ],
)
def test_the_first_fenced_block(text, code):
    assert code_block(text) == code


# ---------------------------------------------------------------- code


@pytest.mark.parametrize(
    "source", ["def f(:", "a b", "if x:\npass", "\0", "def f():\n\treturn 1\n        return 2", "(" * 500 + ")" * 500]
)
def test_what_is_not_python_is_an_error_that_says_so(source):
    with pytest.raises(ValueError):
        parse_code(source)


def test_the_error_names_the_line():
    with pytest.raises(ValueError, match=r"^line 2: "):
        parse_code("a = 1\nb = = 2\n")


@pytest.mark.parametrize("source", ["-" * 100_000 + "1", "[" * 5000, "a." * 50_000 + "b", "1" + "+1" * 50_000])
def test_deep_nesting_is_an_error_and_no_crash(source):
    with pytest.raises(ValueError, match="nested"):
        normal_form(parse_code(f"def f():\n    return {source}").body[0])


def test_an_odd_escape_is_no_warning():
    """Warnings are errors in this test run; it is the model's string, not ours."""
    parse_code('a = "\\d"')


def test_parsing_executes_nothing(tmp_path):
    marker = tmp_path / "written"
    source = f"open({str(marker)!r}, 'w').write('x')\ndef f(a=open({str(marker)!r}, 'w')):\n    pass\n"
    normal_form(functions_of(parse_code(source))["f"])
    assert not marker.exists()


def test_functions_are_those_of_the_top_level_and_the_later_one_wins():
    source = "def f():\n    def g(): pass\nclass A:\n    def h(self): pass\nasync def k(): pass\ndef f(): return 2\n"
    found = functions_of(parse_code(source))
    assert set(found) == {"f", "k"}
    assert found["f"].lineno == 6


FUNCTION = "def f(s, n=2):\n    t = s.lower()\n    return t == t[::-1] and n > 'a'\n"


def form(source):
    return normal_form(functions_of(parse_code(source))["f"])


@pytest.mark.parametrize(
    "same",
    [
        'def f(s, n=2):\n    t = s.lower()\n    return t == t[::-1] and n > "a"\n',
        "def f(s, n=2):\n    '''Doc.'''\n    t = s.lower()\n    return t == t[::-1] and n > 'a'\n",
        "def f(s, n=2):  # why\n    # what\n    t = s.lower()\n\n    return (t == t[::-1]) and n > 'a'\n",
        "def f(s: str, n: int = 2) -> bool:\n    t: str = s.lower()\n    return t == t[::-1] and n > 'a'\n",
        "def f(s, n=2):\n    t: str\n    t = s.lower()\n    return t == t[::-1] and n > u'a'\n",
        "import re\n\n" + FUNCTION + "\nprint(f('abba'))\n",
    ],
    ids=[
        "quotes",
        "docstring",
        "comments and layout",
        "annotations",
        "bare annotation and u-string",
        "what is around it",
    ],
)
def test_what_does_not_change_the_code_does_not_count(same):
    assert form(same) == form(FUNCTION)


@pytest.mark.parametrize(
    "other",
    [
        FUNCTION.replace("-1", "-2"),
        FUNCTION.replace("lower", "upper"),
        FUNCTION.replace("n=2", "n=3"),
        FUNCTION.replace("n=2", "n"),
        FUNCTION.replace("'a'", "'b'"),
        FUNCTION.replace("and", "or"),
        "@cache\n" + FUNCTION,
        "async " + FUNCTION,
        FUNCTION.replace("    return", "    print(t)\n    return"),
    ],
)
def test_what_changes_the_code_counts(other):
    assert form(other) != form(FUNCTION)


def test_a_docstring_alone_is_an_empty_body():
    assert form("def f():\n    'doc'\n") == form("def f():\n    pass\n")


def test_docstrings_of_inner_functions_and_classes_go_too():
    inner = (
        "def f():\n    class A:\n        {}\n        def g(self):\n            {}\n            return 1\n    return A\n"
    )
    plain = "def f():\n    class A:\n        def g(self):\n            return 1\n    return A\n"
    assert form(inner.format("'a'", "'b'")) == form(plain)
