"""The streaming budget: 4,096 positions x 151,936 words in at most 1 GB beyond the models."""

from __future__ import annotations

import json
import sys

import pytest

SCRIPT = """
import json, resource, sys, threading, time
import psutil, torch
from pathlib import Path
from transformers import Qwen3Config, Qwen3ForCausalLM
from tests.plugin.conftest import write_tokenizer
from pytest_npuconf import measurements
from pytest_npuconf.comparison import Document, compare
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.documents import windows
from pytest_npuconf.engines.transformers_engine import TransformersEngine
from pytest_npuconf.options import Settings
from pytest_npuconf.precisions import Precision
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.weights import read_checkpoint

folder, positions = Path(sys.argv[1]), int(sys.argv[2])
config = Qwen3Config(vocab_size=151936, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=16, max_position_embeddings=8192, tie_word_embeddings=True)
torch.manual_seed(0)
Qwen3ForCausalLM(config).save_pretrained(folder)
write_tokenizer(folder)
checkpoint, pair = read_checkpoint(folder, "test", ""), Precision("bfloat16", "float32")
live = LiveReference(checkpoint, Settings(), Progress())
candidate = TransformersEngine(checkpoint, CpuDevice(), "bfloat16")
short = Document("text 1", "text", "", tuple(range(8)))
long = Document("text 2", "text", "", tuple((7919 * i) % 151936 for i in range(positions)))
cut = Document("en-1", "document", "", long.ids[:1025], windows(1025))
prompts = [Document(f"prompt {i}", "prompt", "", tuple(range(i, i + 8))) for i in (1, 2)]
def go(documents):
    return compare(documents, lambda d: candidate.forward(d.ids), lambda d: live.forward(pair, d), live.yardstick(pair),
                   words=lambda d: live.words(pair, d))
go([short])  # everything is loaded and every library has its pools
process = psutil.Process()
before, peak, stop = process.memory_info().rss, 0, threading.Event()
def watch():
    global peak
    while not stop.is_set():
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.005)
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
comparison = go([short, long, cut, *prompts])
stop.set()
watcher.join()
print(json.dumps({"grown": peak - before, "whole": measurements.kl_ratio(comparison).data["positions"],
                  "all": measurements.token_match(comparison).n, "windows": len(cut.positions)}))
"""


@pytest.mark.slow
def test_four_thousand_positions_of_a_large_vocabulary_stay_below_a_gigabyte(pytester, monkeypatch, tmp_path, request):
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # another worker runs beside
    script = pytester.makepyfile(script=SCRIPT)
    result = pytester.run(sys.executable, script, tmp_path, "4096")
    assert result.ret == 0, result.stderr.str()
    found = json.loads(result.outlines[-1])
    assert found["whole"] == 4096 + 24 + found["windows"]
    assert found["all"] == 4096 + 24 + 1025
    full_logits = 4096 * 151936 * 4
    print(f"grown by {found['grown'] / 2**20:.0f} MiB")
    assert found["grown"] < 2**30 < full_logits
