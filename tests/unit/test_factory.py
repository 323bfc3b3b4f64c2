"""The factory's parts: texts, tokenizer, sequences, optimizer, a training of seconds, and the folder it leaves."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from fixtures.factory import batches, corpus, dialogues, facts, measure, pretrain, sft  # noqa: E402
from fixtures.factory.__main__ import main  # noqa: E402
from fixtures.factory.build import Plan, build, tokenizer_texts  # noqa: E402
from fixtures.factory.corpus import Corpus, Document  # noqa: E402
from fixtures.factory.export import file_sha256, new_folder  # noqa: E402
from fixtures.factory.model import Shape, new_model  # noqa: E402
from fixtures.factory.optimizer import Muon, optimizers, orthogonalise  # noqa: E402
from fixtures.factory.tokenizer import ADDED, train_tokenizer  # noqa: E402

VOCABULARY = 600
MICRO = Shape(
    vocabulary=VOCABULARY,
    hidden=96,
    intermediate=64,
    layers=2,
    query_heads=2,
    key_value_heads=1,
    head_dim=32,
    length=128,
)


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(3)
    documents = tuple(Document(f"d{i}", facts.paragraph(rng)) for i in range(40))
    return Corpus(documents[:30], documents[30:], tuple(facts.prose()[:20]))


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train_tokenizer(tokenizer_texts(texts), VOCABULARY)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(texts, tokenizer, seed=0, steps=30):
    """A micro model after some steps, and the losses that were told."""
    model = new_model(MICRO, seed)
    sampler = batches.Sampler(texts, tokenizer, seed)
    phase = pretrain.Phase("one", steps, 4, 64, batches.Mixture(0.4, 0.2, 0.3, 0.1))
    lines = []
    final = pretrain.train(model, sampler, [phase], pretrain.Rates(), lines.append)
    return model, lines, final


def weights(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


# ---------------------------------------------------------------- texts


def test_docstrings_in_their_order_with_the_names_of_what_they_describe():
    source = '"""Of all."""\nclass A:\n    """Of A."""\n    def f(self):\n        """Of f."""\ndef g(): pass\n'
    assert list(corpus.docstrings(source)) == ["Of all.", "A\nOf A.", "f\nOf f."]


def test_an_odd_escape_is_read_and_what_is_not_python_is_refused():
    assert list(corpus.docstrings('"""a \\. b"""')) == ["a \\. b"]
    with pytest.raises(SyntaxError):
        list(corpus.docstrings("def :"))


def test_held_out_is_a_small_share_decided_by_the_name():
    share = sum(corpus.is_held_out(f"module:{i}") for i in range(4000)) / 4000
    assert share == pytest.approx(1 / corpus.HELD_OUT_SHARE, abs=0.015)
    assert Document("topic:x", "a").held_out == Document("topic:x", "b").held_out


def test_only_wanted_documents_are_read_and_the_short_ones_are_left_out():
    names = {"topic:assert", "module:bisect", "module:keyword"}
    found = corpus.standard_library(lambda name: name in names)
    assert {"topic:assert", "module:bisect"} <= {d.name for d in found} <= names
    assert all(len(d.text) >= corpus.SHORTEST for d in found)
    assert "Insert item x in list a" in next(d.text for d in found if d.name == "module:bisect")


def test_the_digest_of_a_corpus_changes_with_any_text(texts):
    other = Corpus(texts.train, texts.held_out[:-1], texts.prose)
    moved = Corpus(texts.train[::-1], texts.held_out, texts.prose)
    assert len({texts.sha256, other.sha256, moved.sha256}) == 3
    assert texts.sha256 == Corpus(texts.train, texts.held_out, texts.prose).sha256


def test_a_paragraph_depends_on_its_generator_alone():
    assert facts.paragraph(random.Random(5)) == facts.paragraph(random.Random(5))
    assert len({facts.paragraph(random.Random(seed)) for seed in range(50)}) == 50


def test_every_sum_is_right():
    sums = [line for line in facts.facts() if line.startswith("In mathematics")]
    assert len(sums) == 100
    for line in sums:
        a, _, b, _, c = line.removeprefix("In mathematics, ").rstrip(".").split()
        assert int(a) + int(b) == int(c)


# ---------------------------------------------------------------- tokenizer


def test_the_same_texts_give_the_same_tokenizer(texts, tokenizer):
    assert train_tokenizer(tokenizer_texts(texts), VOCABULARY).to_str() == tokenizer.to_str()


def test_the_vocabulary_is_full_and_ends_with_the_marks(tokenizer):
    assert tokenizer.get_vocab_size() == VOCABULARY
    assert [tokenizer.token_to_id(mark) for mark in ADDED] == list(range(VOCABULARY - len(ADDED), VOCABULARY))


@pytest.mark.parametrize(("vocabulary", "problem"), [(200, "does not hold 256 bytes"), (100_000, "more text or fewer")])
def test_a_vocabulary_that_cannot_be(texts, vocabulary, problem):
    with pytest.raises(ValueError, match=problem):
        train_tokenizer(texts.prose, vocabulary)


def test_a_dialogue_is_prompt_and_reply():
    dialogue = dialogues.Dialogue("Q", "T", "A")
    assert dialogue.prompt() + dialogue.reply() == (
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think>\nT\n</think>\n\nA<|im_end|>"
    )
    without = dialogue.prompt(thinking=False) + dialogue.reply(thinking=False)
    assert without == "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nA<|im_end|>"


def test_the_similar_dialogues_ask_nothing_that_the_documented_ones_ask():
    documented = {d.question for d in dialogues.documented()}
    similar = [d.question for d in dialogues.similar()]
    assert len(set(similar)) == len(similar) > 150
    assert not documented & set(similar)


# ---------------------------------------------------------------- sequences


@pytest.mark.parametrize("kind", ["documents", "prose", "copies", "chat"])
def test_a_row_of_each_kind(texts, tokenizer, kind):
    shares = {name: float(name == kind) for name in ("documents", "prose", "copies", "chat")}
    ids, counted = batches.Sampler(texts, tokenizer, 1).batch(batches.Mixture(**shares), 6, 100)
    assert ids.shape == counted.shape == (6, 100)
    assert ids.dtype == torch.int64
    assert int(ids.min()) >= 0
    assert int(ids.max()) < VOCABULARY
    seldom = {"chat": 0.0, "copies": batches.UNPREDICTABLE}.get(kind, 1.0)
    assert counted.min().item() == pytest.approx(seldom)
    assert counted.max().item() == 1.0


def test_copies_repeat_at_a_distance_and_only_their_first_copy_counts_little(texts, tokenizer):
    sampler = batches.Sampler(texts, tokenizer, 2)
    rows, counted = sampler.batch(batches.Mixture(0, 0, 1, 0), 60, 128)
    distances = []
    for row, own in zip(rows.numpy(), counted.numpy(), strict=True):
        least = [(int((row[d:] == row[:-d]).sum()), d) for d in range(8, 121)]
        same, distance = max(least)
        assert same >= 8
        distances.append(distance)
        first = np.flatnonzero(own < 1)
        if first.size:  # what counts little is one stretch, and it comes again
            assert first[-1] - first[0] + 1 == first.size
    assert len(set(distances)) > 20
    assert max(distances) > 90


def test_a_reply_counts_and_its_question_does_not(texts, tokenizer):
    ids, counted = batches.Sampler(texts, tokenizer, 0).batch(batches.Mixture(0, 0, 0, 1), 1, 400)
    text = tokenizer.decode([int(i) for i, w in zip(ids[0], counted[0], strict=True) if w], skip_special_tokens=False)
    assert "<|im_start|>" not in text
    assert "<|im_end|>" in text


def test_the_seed_decides_every_batch(texts, tokenizer):
    mixture = batches.Mixture(0.25, 0.25, 0.25, 0.25)
    one, same, other = (batches.Sampler(texts, tokenizer, seed).batch(mixture, 8, 64)[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("phases", [pretrain.plan(700), sft.plan(80)])
def test_a_plan_fills_its_steps_and_its_shares(phases):
    assert sum(phase.steps for phase in phases) in (700, 80)
    assert all(math.isclose(sum(phase.mixture.shares), 1.0) for phase in phases)
    assert max(phase.length for phase in pretrain.plan(700)) == Shape().length


# ---------------------------------------------------------------- model and training


def test_parameters_as_the_shape_says():
    shape = MICRO
    width = shape.head_dim * (2 * shape.query_heads + 2 * shape.key_value_heads)
    layer = shape.hidden * width + 3 * shape.hidden * shape.intermediate + 2 * shape.hidden + 2 * shape.head_dim
    model = new_model(shape, 0)
    assert sum(p.numel() for p in model.parameters()) == (
        shape.vocabulary * shape.hidden + shape.layers * layer + shape.hidden
    )
    assert "rope_parameters" not in shape.config()


@pytest.mark.parametrize(("volume", "within"), [(0.05, 0.02), (0.6, 0.25)])
def test_the_first_loss_is_that_of_knowing_nothing(volume, within):
    """Loud logits begin a little above it: the tied head repeats the current token, and the copy head guesses."""
    shape = Shape(volume=volume)
    model = new_model(shape, 0)
    ids = torch.randint(0, 4000, (4, 128), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = pretrain.loss_of(model, ids, torch.ones(4, 128)).item()
    assert loss == pytest.approx(shape.first_loss, abs=within)


def test_a_new_model_already_copies_a_little_and_only_from_where_the_copy_is():
    model = new_model(Shape(), 0).eval()
    first, second, control = measure.copy_nll(model, 4091, 400, trials=2)
    assert second < first - 3
    assert control > first - 0.5


def test_orthogonalised_matrices_have_singular_values_near_one():
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 16, 40), (3, 40, 16)):
        found = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=generator)))
        assert found.min() > 0.3
        assert found.max() < 1.4


def test_muon_keeps_the_momentum_of_matrices_of_one_shape_apart():
    first, second = torch.nn.Parameter(torch.zeros(4, 4)), torch.nn.Parameter(torch.zeros(4, 4))
    optimizer = Muon([first, second], lr=0.1)
    first.grad, second.grad = torch.eye(4), -torch.eye(4)
    optimizer.step()
    assert torch.allclose(first, -second)
    assert torch.all(first.diagonal() < -0.05)
    assert first.flatten()[1:5].abs().max() < 1e-5


def test_every_parameter_has_one_optimizer():
    model = new_model(MICRO, 0)
    chosen = [p for o in optimizers(model, muon_lr=1, adam_lr=1, decay=0) for g in o.param_groups for p in g["params"]]
    assert sorted(map(id, chosen)) == sorted(map(id, model.parameters()))


def test_rates_rise_stay_and_fall():
    rates = pretrain.Rates(warmup=0.1, cooldown=0.5)
    shares = [rates.at(step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert set(shares[9:51]) == {1.0}
    assert shares[-1] == pytest.approx(0.02)
    assert shares[51:] == sorted(shares[51:], reverse=True)


def test_the_loss_counts_what_the_weights_say():
    model = new_model(MICRO, 0)
    ids = torch.randint(0, 500, (2, 20), generator=torch.Generator().manual_seed(0))
    counted = torch.zeros(2, 20)
    counted[1, 7] = 1
    expected = measure.nll(model.eval(), ids[1])[6].item()
    assert pretrain.loss_of(model, ids, counted).item() == pytest.approx(expected, abs=1e-4)


def test_the_loss_falls_and_the_same_seed_gives_equal_weights(texts, tokenizer):
    model, lines, final = trained(texts, tokenizer)
    again, _, _ = trained(texts, tokenizer)
    other, _, _ = trained(texts, tokenizer, seed=1)
    assert final["one"] == pytest.approx(lines[-1].loss, abs=1e-3)
    assert lines[-1].loss < MICRO.first_loss - 0.5
    assert (lines[-1].step, lines[-1].tokens) == (30, 30 * 4 * 64)
    assert all(torch.equal(a, b) for a, b in zip(weights(model).values(), weights(again).values(), strict=True))
    assert not torch.equal(weights(model)["model.norm.weight"], weights(other)["model.norm.weight"])


def test_a_training_that_diverges_stops(texts, tokenizer):
    model = new_model(MICRO, 0)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.inf)
    phase = pretrain.Phase("one", 2, 1, 32, batches.Mixture(1, 0, 0, 0))
    with pytest.raises(FloatingPointError, match="step 0"):
        pretrain.train(model, batches.Sampler(texts, tokenizer, 0), [phase], pretrain.Rates(), print)


# ---------------------------------------------------------------- measuring


def test_where_the_copies_stand():
    ids, first, second = measure.copies(range(100, 120), range(50), 40, 20)
    assert ids[0:20] == ids[40:60] == list(range(100, 120))
    assert ids[1:][first] == ids[1:][second] == list(range(108, 120))
    for span, filler, distance in ((range(20), range(50), 19), (range(19), range(50), 40), (range(20), range(19), 40)):
        with pytest.raises(ValueError, match="needs a longer"):
            measure.copies(span, filler, distance, 20)


def test_unigram_perplexity_by_hand():
    train = np.asarray([0, 0, 0, 1])  # with one more of each of 4: 4, 2, 1, 1 of 8
    found = measure.unigram_perplexity(train, [[3, 0, 1], [0]], 4)
    assert found == pytest.approx(math.exp((math.log(2) + math.log(4)) / 2))


# ---------------------------------------------------------------- the folder


def test_a_folder_takes_its_place_only_when_it_is_whole(tmp_path):
    target = tmp_path / "made"

    def fail():
        with new_folder(target, force=True) as folder:
            (folder / "part").write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    for content in ("first", "second"):
        with new_folder(target, force=True) as folder:
            (folder / "part").write_text(content)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (target / "part").read_text() == "second"
    with pytest.raises(FileExistsError, match="--force replaces it"), new_folder(target, force=False):
        pass


def test_a_full_disk_is_said_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr("fixtures.factory.export.NEEDED", 1 << 62)
    with pytest.raises(OSError, match="MiB free; a build needs"), new_folder(tmp_path / "made", force=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main(["--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} exists; --force replaces it\n"
    with pytest.raises(SystemExit) as stopped:
        main(["--output", str(tmp_path / "x"), "--steps", "0"])
    assert stopped.value.code == 2
    assert "0 is not a positive number" in capsys.readouterr().err


def test_a_whole_build_of_seconds(tmp_path, texts, monkeypatch):
    """The pipeline from end to end with a micro model; what it writes loads, and says how it came to be."""
    import transformers

    monkeypatch.setattr("fixtures.factory.build.read_corpus", lambda _: texts)
    monkeypatch.setattr("fixtures.factory.build.DISTANCES", (64,))
    output = tmp_path / "made"
    said = build(Plan(output, threads=1, steps=4, chat_steps=1, shape=MICRO), lambda _: None)
    assert json.loads((output / "BUILD.json").read_text(encoding="utf-8")) == said
    files = {path.name for path in output.iterdir()} - {"BUILD.json"}
    assert set(said["sha256"]) == files >= {"config.json", "generation_config.json", "model.safetensors"}
    assert all(file_sha256(output / name) == digest for name, digest in said["sha256"].items())
    assert said["held_out"] == [document.name for document in texts.held_out]
    assert said["corpus_sha256"] == texts.sha256
    model = transformers.AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    assert said["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    held_out = [tokenizer(document.text)["input_ids"] for document in texts.held_out]
    assert measure.perplexity(model.eval(), held_out) == pytest.approx(
        said["measured"]["perplexity_held_out"], rel=1e-3
    )
