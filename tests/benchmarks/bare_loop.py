"""The least that the precision suite must do: load the same models, make the same passes, once, and nothing else.

``python -m tests.benchmarks.bare_loop`` prints the number of passes.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from pytest_npuconf.cards import find_card
from pytest_npuconf.engines.variants import REFERENCE_VARIANT, YARDSTICK
from pytest_npuconf.options import Settings
from pytest_npuconf.weights import find_weights


def main() -> None:
    card = find_card("smollm2-135m-instruct")
    folder = find_weights(card, Settings(cache=Path("~/.cache/npuconf").expanduser())).folder
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    documents = [torch.tensor([tokenizer(p.text)["input_ids"]]) for p in (*card.logits_prompts, *card.perplexity_texts)]
    load = transformers.AutoModelForCausalLM.from_pretrained
    reference, yardstick, candidate = (
        load(folder, dtype=d).eval() for d in (torch.float32, torch.bfloat16, torch.bfloat16)
    )
    passes = 0
    with torch.inference_mode():
        for ids in documents:
            for model in (reference, candidate):
                model(ids, use_cache=False).logits.float()
                passes += 1
            for variant in dict.fromkeys((*YARDSTICK, REFERENCE_VARIANT)):
                with variant.applied(yardstick):
                    yardstick(ids, use_cache=False).logits.float()
                passes += 1
    print(f"{passes} passes over {len(documents)} documents")


if __name__ == "__main__":
    main()
