"""Faults between the modules and behind them: each module alone is right, what goes from one to the next is not."""

from __future__ import annotations

from pytest_npuconf.faults import embeddings, outputs, weights
from pytest_npuconf.faults.base import Fault

EVERY = ("float32", "bfloat16", "float16")

BETWEEN: tuple[Fault, ...] = (
    Fault("embedding-shard", "the decoder scales the embeddings of one shard of the vocabulary", "x1.06, 1/16 of the words",
          "kl.noise_ratio", embeddings.scaled_shard(0.06), precisions=EVERY,
          scaled=embeddings.scaled_shard, magnitudes=(0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.3)),
    Fault("embeddings-past-256", "the decoder scales the embeddings from position 256 on", "x1.045", "kl.positions",
          embeddings.scaled_past(0.045, 256), precisions=EVERY, beyond=256),
    Fault("residual-scaled", "the last layer is handed the residual stream scaled", "x1.03", "hidden.states",
          embeddings.scaled_residual(0.03), precisions=EVERY,
          scaled=embeddings.scaled_residual, magnitudes=(0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1)),
    Fault("states-scaled", "the head is handed the final states scaled: another temperature", "x1.015",
          "kl.noise_ratio, logits.rel_l2", outputs.scaled(0.015), precisions=EVERY,
          scaled=outputs.scaled, magnitudes=(0.0003, 0.001, 0.003, 0.01, 0.015, 0.03, 0.1)),
    Fault("states-scaled-past-256", "the same from row 256 on", "x1.04", "kl.positions, logits.rel_l2",
          outputs.scaled_past(0.04, 256), precisions=EVERY, beyond=256),
    Fault("state-of-the-token-before", "the head is handed the state of the position before, for one token id in 997",
          "1 of 997", "token.match", outputs.of_the_token_before(53)),
    Fault("next-token-leaks", "the next token's own logit is too high: what lies ahead has leaked", "0.1", "ppl.delta",
          outputs.trace_of_the_next(0.1), precisions=EVERY,
          scaled=outputs.trace_of_the_next, magnitudes=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3)),
    Fault("weight-left-in-float32", "one weight was not converted to the dtype of the run", "1 tensor", "model.placement",
          weights.left_in_float32, precisions=("bfloat16", "float16")),
)  # fmt: skip
