"""Tables of a card that describe the model itself: what loads, and errors that name file, line and key."""

import pytest

from pytest_npuconf.cards import Message, Sample, find_card
from tests.unit.test_cards import loaded, refused

HEAD = 'name = "m"\n'


def sample(**keys):
    base = {
        "name": '"s"',
        "messages": '[{ role = "user", content = "Hi" }]',
        "max_new_tokens": "8",
        "contains": '["a"]',
        **keys,
    }
    return HEAD + "\n".join(["[[samples]]", *(f"{key} = {value}" for key, value in base.items() if value is not None)])


def problem(folder, **keys):
    """The error about a sample; its line is the one of the only key that is given."""
    return refused(folder, sample(**{key: f"{value} # <-- here" for key, value in keys.items()}))


# ---------------------------------------------------------------- what loads


def test_what_a_card_does_not_state_is_empty(tmp_path):
    card = loaded(tmp_path, HEAD)
    assert (card.generation_config, card.parameters, card.files, card.minimum, card.samples) == ({}, None, (), {}, ())


def test_every_table(tmp_path):
    card = loaded(
        tmp_path,
        """\
        name = "m"
        files = ["config.json", "onnx/model.onnx"]

        [generation_config]
        temperature = 0.6
        eos_token_id = [151645, 151643]

        [size]
        parameters = 4022468096

        [minimum]
        python = "3.10"
        vllm_ascend = "0.18.0rc1"
        cann = "8.2.RC1"
        device_memory_gib = 16
        cpu_count = 8
        memory_gib = 31.5

        [[samples]]
        name = "one"
        messages = [{ role = "system", content = "Be brief." }, { role = "user", content = "2+2?" }]
        max_new_tokens = 16
        thinking = false
        number = 4

        [[samples]]
        name = "two"
        messages = [{ role = "user", content = "Palindrome?" }]
        max_new_tokens = 99
        contains = ["def", "return"]
        contains_any = ["==", "reversed"]
        code = "def f(s):\\n    return s == s[::-1]"
        code_function = "f"
        """,
    )
    assert card.files == ("config.json", "onnx/model.onnx")
    assert card.generation_config == {"temperature": 0.6, "eos_token_id": [151645, 151643]}
    assert card.parameters == 4022468096
    assert card.minimum == {
        "python": "3.10", "vllm_ascend": "0.18.0rc1", "cann": "8.2.RC1",
        "device_memory_gib": 16.0, "cpu_count": 8.0, "memory_gib": 31.5,
    }  # fmt: skip
    assert card.samples == (
        Sample(
            "one", (Message("system", "Be brief."), Message("user", "2+2?")), 16, thinking=False, number=4.0
        ),
        Sample(
            "two", (Message("user", "Palindrome?"),), 99, contains=("def", "return"), contains_any=("==", "reversed"),
            code="def f(s):\n    return s == s[::-1]", code_function="f",
        ),
    )  # fmt: skip


def test_a_number_of_zero_is_an_expectation(tmp_path):
    assert loaded(tmp_path, sample(contains=None, number="0")).samples[0].number == 0.0


# ---------------------------------------------------------------- size, files, minimum


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[size]\nparameters = 0 # <-- here", "size.parameters must be at least 1, got 0"),
        ("[size]\nparameters = 1.5 # <-- here", "size.parameters must be an integer, got 1.5"),
        ("[size]\nparameters = true # <-- here", "size.parameters must be an integer, got True"),
        ("[size]\nparameter = 5 # <-- here", "size.parameter is not a key of a card; did you mean 'parameters'?"),
        ('files = "config.json" # <-- here', "files must be a list, got 'config.json'"),
        ("files = [1] # <-- here", "files must be a list of non-empty strings, got 1"),
        ('files = ["../x"] # <-- here', "files must name files inside the checkpoint's folder, got '../x'"),
        (
            'files = ["/etc/passwd"] # <-- here',
            "files must name files inside the checkpoint's folder, got '/etc/passwd'",
        ),
        ('files = ["a", "a"] # <-- here', "files names the same file twice"),
        ("generation_config = 1 # <-- here", "generation_config must be a table, got 1"),
        ("[minimum]\npython = 3.1 # <-- here", "minimum.python must be a string, got 3.1"),
        ('[minimum]\ntorch = "new" # <-- here', "minimum.torch must be a version such as '2.9.0', got 'new'"),
        ('[minimum]\ntorch = "" # <-- here', "minimum.torch is empty"),
        (
            '[minimum]\ntorch-npu = "2.9" # <-- here',
            "minimum.torch-npu is not a key of a card; did you mean 'torch_npu'",
        ),
        ("[minimum]\nmemory_gib = 0 # <-- here", "minimum.memory_gib must be a finite number above 0, got 0.0"),
        ("[minimum]\nmemory_gib = inf # <-- here", "minimum.memory_gib must be a finite number above 0, got inf"),
        ('[minimum]\ncpu_count = "8" # <-- here', "minimum.cpu_count must be a number, got '8'"),
    ],
)
def test_what_is_refused(tmp_path, text, expected):
    assert refused(tmp_path, HEAD + text).startswith(expected)


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", "7", "samples.name must be a string, got 7"),
        ("name", '" "', "samples.name is empty"),
        ("messages", '"Hi"', "samples.messages must be a list, got 'Hi'"),
        ("messages", "[]", "samples.messages must end with a message of the user"),
        ("messages", '["Hi"]', "samples.messages must be tables with role and content, got 'Hi'"),
        ("messages", '[{ role = "user" }]', "samples.messages must be tables with role and content"),
        ("messages", '[{ role = "user", content = "a", name = "b" }]', "samples.messages must be tables with role and"),
        ("messages", '[{ role = "tool", content = "a" }]', "samples.messages has the role 'tool', which is none of"),
        ("messages", '[{ role = "user", content = 4 }]', "samples.messages has no text in"),
        ("messages", '[{ role = "user", content = "" }]', "samples.messages has no text in"),
        ("messages", '[{ role = "assistant", content = "a" }]', "samples.messages must end with a message of the user"),
        ("max_new_tokens", "0", "samples.max_new_tokens must be at least 1, got 0"),
        ("max_new_tokens", "1.5", "samples.max_new_tokens must be an integer, got 1.5"),
        ("thinking", '"yes"', "samples.thinking must be true or false, got 'yes'"),
        ("contains", '"a"', "samples.contains must be a list, got 'a'"),
        ("contains", '[""]', "samples.contains must be a list of non-empty strings, got ''"),
        ("contains_any", "[1]", "samples.contains_any must be a list of non-empty strings, got 1"),
        ("number", '"4"', "samples.number must be a number, got '4'"),
        ("number", "nan", "samples.number must be finite, got nan"),
        ("code", '"def f(:"', "samples.code is not Python: line 1: "),
        ("code", '"a = 1"', "samples.code must define one function at its top level, it defines 0"),
        (
            "code",
            '"def f(): pass\\ndef g(): pass"',
            "samples.code must define one function at its top level, it defines 2",
        ),
        ("code", '""', "samples.code is empty"),
        ("code_function", '"f()"', "samples.code_function must be a function's name, got 'f()'"),
        ("contain", '["a"]', "samples.contain is not a key of a card; did you mean 'contains'"),
    ],
)
def test_a_sample_that_is_refused(tmp_path, key, value, expected):
    assert problem(tmp_path, **{key: value}).startswith(expected)


@pytest.mark.parametrize("key", ["name", "messages", "max_new_tokens"])
def test_what_a_sample_must_have(tmp_path, key):
    text = sample(**{key: None}).replace("[[samples]]", "[[samples]] # <-- here")
    assert refused(tmp_path, text) == f"samples.{key} is missing"


def test_a_sample_that_expects_nothing_is_refused(tmp_path):
    text = sample(contains=None, name='"s" # <-- here')
    assert refused(tmp_path, text) == "samples.name 's' expects nothing"


def test_two_samples_of_one_name_are_refused_at_the_second(tmp_path):
    second = sample(name='"s" # <-- here').removeprefix(HEAD)
    assert refused(tmp_path, sample() + "\n" + second) == "samples.name 's' appears twice"


def test_the_stand_in_states_its_size_and_samples():
    card = find_card("smollm2-135m-instruct")
    assert card.parameters == 134515008
    assert [s.name for s in card.samples] == ["capital", "function"]


# ---------------------------------------------------------------- documents


def test_documents_are_relative_to_the_card(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "模型.md").write_text("# m")
    (tmp_path / "README.md").write_text("# m")
    card = loaded(tmp_path, HEAD + '[audit]\ndocuments = ["README.md", "sub/模型.md"]')
    assert card.documents == (tmp_path / "README.md", tmp_path / "sub" / "模型.md")
    assert loaded(tmp_path, HEAD).documents == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('documents = ["gone.md"]', "audit.documents names 'gone.md', which is no file: "),
        ('documents = ["."]', "audit.documents names '.', which is no file: "),
        ('documents = ["card.toml", "./card.toml"]', "audit.documents names the same file twice"),
        ('documents = "card.toml"', "audit.documents must be a list"),
        ('document = ["card.toml"]', "audit.document is not a key of a card; did you mean 'documents'"),
    ],
)
def test_documents_that_are_refused(tmp_path, text, expected):
    assert refused(tmp_path, f"{HEAD}[audit]\n{text} # <-- here").startswith(expected)
