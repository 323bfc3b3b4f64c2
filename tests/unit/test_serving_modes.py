"""The modes of a card: which must start, which must be refused, and in which words."""

from pathlib import Path

import pytest

from pytest_npuconf.cards.schema import Card, Refusal, Serving, ServingMode
from pytest_npuconf.errors import EngineError, NpuconfError, WeightsError
from pytest_npuconf.serving.modes import modes, must_refuse

REFUSED = ServingMode("classify", refused=Refusal("score.weight", "0.19.0"))
ALWAYS = ServingMode("classify", refused=Refusal("score.weight"))
GENERATE, EMBED = ServingMode("generate"), ServingMode("embed")


class Bench:
    """Starts what ``fails`` does not name; says what was asked."""

    def __init__(self, *of_card, fails=(), started=(), error=EngineError):
        self._card = Card("m", Path("card.toml"), serving=Serving(modes=of_card))
        self.fails, self.error, self.asked = dict(fails), error, []
        self.started = {("m", "bfloat16", mode): "log" for mode in started}

    def card(self, model):
        assert model == "m"
        return self._card

    def served(self, model, dtype, mode):
        self.asked.append((model, dtype, mode))
        if mode in self.fails:
            raise self.error(self.fails[mode])


def judged(bench, version="0.18.0"):
    return modes(bench, "m", "bfloat16", version)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.18.0", True), ("0.18.9", True), ("0.19.0rc1", True), ("0.19.0", False), ("0.19.1", False), ("0.32.0+cpu", False),
     ("0.18.0.dev3+gabc", True), ("0.9.0", True)],
)  # fmt: skip
def test_a_version_is_compared_as_a_version(version, expected):
    assert must_refuse(REFUSED, version) is expected
    assert must_refuse(ALWAYS, version)
    assert not must_refuse(GENERATE, version)


def test_every_mode_starts():
    bench = Bench(GENERATE, EMBED)
    measured = judged(bench)
    assert (measured.value, measured.n) == (0, 2)
    assert measured.data["outcomes"] == {"generate": "starts", "embed": "starts"}
    assert [mode for *_, mode in bench.asked] == ["generate", "embed"]


def test_what_has_started_in_this_run_is_not_started_again():
    bench = Bench(GENERATE, EMBED, started=("generate",))
    assert judged(bench).value == 0
    assert bench.asked == [("m", "bfloat16", "embed")]


def test_what_started_at_another_dtype_is_started():
    bench = Bench(GENERATE, started=("generate",))
    assert modes(bench, "m", "float32", "0.18.0").value == 0
    assert bench.asked == [("m", "float32", "generate")]


def test_a_mode_that_does_not_start_is_found_and_the_others_are_still_asked():
    bench = Bench(GENERATE, EMBED, fails={"generate": "exit status 1\n  last lines: CUDA"})
    measured = judged(bench)
    assert [(row.place, row.detail) for row in measured.rows] == [
        ("generate", "does not start: exit status 1\n  last lines: CUDA")
    ]
    assert [mode for *_, mode in bench.asked] == ["generate", "embed"]


def test_a_refusal_in_the_cards_words_is_right():
    refuses = Bench(GENERATE, REFUSED, fails={"classify": "KeyError: 'score.weight' is missing"})
    assert judged(refuses).value == 0
    assert "score.weight" in judged(refuses).data["outcomes"]["classify"]


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ({}, "expected a refusal with 'score.weight': it starts"),
        ({"classify": "out of memory"}, "expected a refusal with 'score.weight': out of memory"),
    ],
)
def test_a_refusal_in_other_words_or_none(fails, said):
    for mode in (REFUSED, ALWAYS):
        assert judged(Bench(mode, fails=fails)).worst.detail == said


def test_a_later_version_must_start():
    assert judged(Bench(REFUSED), "0.19.0").value == 0
    again = judged(Bench(REFUSED, fails={"classify": "score.weight"}), "0.19.0")
    assert again.worst.detail == "does not start: score.weight"
    assert judged(Bench(ALWAYS), "9.0").value == 1


@pytest.mark.parametrize("error", [WeightsError, NpuconfError, ValueError])
def test_what_is_no_refusal_of_the_engine_is_an_error(error):
    with pytest.raises(error, match="damaged"):
        judged(Bench(REFUSED, fails={"classify": "score.weight is damaged"}, error=error))
