"""Faults of a server, injected by a proxy in front of it, and what nothing may object to. They need ``--npuconf-engine server``."""

from __future__ import annotations

from pytest_npuconf.faults import serving, serving_between, serving_pooling, serving_streams
from pytest_npuconf.faults.base import Fault, Injector


def _fault(name: str, description: str, magnitude: str, expected: str, inject: Injector, seen: str = "") -> Fault:
    return Fault(name, description, magnitude, expected, inject, seen=seen, target="server")


def _benign(name: str, description: str, magnitude: str, inject: Injector) -> Fault:
    return Fault(f"benign-{name}", description, magnitude, "nothing", inject, benign=True, target="server")


PROMPTS: tuple[Fault, ...] = (
    _fault("stale-prefix-cache", "a prompt that was asked before gets what the first one with the same beginning gets",
           "key of 1 token, 4 characters", "serving.repeat", serving_between.stale_prefix,
           "vllm-project/vllm-ascend#5269: garbled text from the second identical request on; tenstorrent/vllm#415"),
    _fault("first-request-garbage", "the first request that generates is answered as if its prompt stood backwards", "1 request",
           "serving.first_request", serving_between.first_request_garbage),
    _fault("chunk-boundary", "of prompts of more than 128 tokens the one behind the boundary is lost, its slot has the first",
           "1 token, at 128", "serving.boundaries", serving.token_lost_at(128),
           "tinygrad/tinygrad#15182: chunked prefill feeds wrong tokens to prompts beyond 32"),
    _fault("silent-truncation", "a prompt that leaves no room for the answer loses its beginning, with status 200",
           "what is too long", "serving.context", serving.cut_from_the_left,
           "ollama/ollama#17889: 200 and a prompt cut to 2050 tokens; JustVugg/colibri#506"),
    _fault("wrong-template", "a chat is put to the model as headings and paragraphs, not through its template", "every chat",
           "serving.chat", serving.other_template,
           "QwenLM/Qwen3-Embedding#71: scores far off where the served model's own template is not applied"),
    _fault("double-bos", "the token that the chat template begins with stands twice before texts and chats", "1 token",
           "serving.chat, serving.usage", serving.first_token_twice,
           "vllm-project/vllm#27515, sgl-project/sglang#888: the template has one and the tokenizer adds one"),
)  # fmt: skip

ENDS: tuple[Fault, ...] = (
    _fault("eos-ignored", "generation goes on behind the end-of-sequence token", "every answer", "serving.stop",
           serving.eos_ignored),
    _fault("stop-string-kept", "the stop string stays at the end of the text", "every stop", "serving.stop",
           serving.stop_string_kept, "huggingface/text-generation-inference#1724: the stop sequence is in the output"),
    _fault("stop-reason-wrong", "finish_reason is stop, also where max_tokens cut the answer", "every answer", "serving.stop",
           serving.always_stop, "PaddlePaddle/FastDeploy#4543, ggml-org/llama.cpp#7198: stop where it is length"),
    _fault("wrong-usage", "usage counts one completion token more than there are", "1 token", "serving.usage",
           serving.one_token_more, "lm-sys/FastChat#3843: off by one; vllm-project/vllm#8625: wrong counts in a stream"),
)  # fmt: skip

SAMPLING: tuple[Fault, ...] = (
    _fault("temperature-ignored", "temperature is 1 where another above 0 is asked for", "1", "serving.sampling",
           serving.temperature_ignored, "vllm-project/vllm#15241: temperature is ignored"),
    _fault("temperature-not-zero", "temperature is 1 where 0 is asked for", "1", "serving.tokens, serving.repeat",
           serving.temperature_not_zero(1.0)),
    _fault("top-k-off-by-one", "one candidate fewer than top_k", "1 token", "serving.sampling", serving.top_k_less_one,
           "vllm-project/vllm#17075: another top_k than asked for reaches the sampler"),
    _fault("seed-ignored", "the seed of a request is ignored", "every request", "serving.seed", serving.seed_ignored,
           "vllm-project/vllm#51226: ignored on CPU beside a request without one; vllm-project/vllm#21310"),
)  # fmt: skip

BETWEEN_REQUESTS: tuple[Fault, ...] = (
    _fault("cross-talk", "two requests that come together get each other's answer", "each pair within 0.1 s",
           "serving.concurrency", serving_between.cross_talk(0.1),
           "vllm-project/vllm#13408: responses leak between concurrent requests; vllm-project/vllm#9910"),
    _fault("lost-requests", "the connection is closed without an answer", "1 request in 100", "serving.concurrency, speed.run",
           serving_between.lost(100)),
    _fault("duplicated-answer", "an answer is the one before once more, whole", "1 answer in 100", "serving.concurrency",
           serving_between.duplicated(100)),
    _fault("batch-dependent", "a request that comes while another is under way is sampled", "temperature 0.3", "serving.batch",
           serving_between.warm_beside_others(0.3),
           "vllm-project/vllm#5607: greedy answers change with concurrent requests"),
)  # fmt: skip

STREAMS: tuple[Fault, ...] = (
    _fault("dropped-tail", "the last text of a stream is lost", "1 event", "serving.stream", serving_streams.tail_dropped,
           "codelibs/fess#3096: the last chunk is dropped although it has content"),
    _fault("broken-utf8", "a stream is decoded token by token: characters of several tokens are lost", "each such character",
           "serving.stream", serving_streams.characters_split,
           "antonellof/ferrox#124, exo-explore/exo#1691: emoji and Chinese come out as U+FFFD"),
)  # fmt: skip

POOLING: tuple[Fault, ...] = (
    _fault("wrong-pooling-token", "an embedding is that of the text without its last token", "1 token", "pooling.embeddings",
           serving_pooling.last_token_missing,
           "embeddings-benchmark/mteb#5237: no EOS, so the last content token is pooled; vllm-project/vllm#16892"),
    _fault("unnormalised-embedding", "embeddings have another norm than 1", "norm x 10", "pooling.embeddings",
           serving_pooling.of_norm(10.0), "ggml-org/llama.cpp#5954: embeddings are not normalised"),
    _fault("embeddings-second-differs", "from its second time on an input gets another embedding", "cosine 0.58",
           "pooling.repeat", serving_pooling.second_differs(0.58),
           "vllm-project/vllm-ascend#5725: cosine 0.585 between the first and the second time"),
    _fault("embeddings-batch-order", "in a request of several inputs the first two get each other's embedding", "2 inputs",
           "pooling.batch", serving_pooling.two_swapped),
    _fault("sign-flipped-score", "scores are 1 - score: the logit has the other sign", "every score",
           "pooling.rerank, pooling.score", serving_pooling.sign_flipped,
           "vllm-project/vllm#21681, vllm-project/vllm#20794: wrong scores and order of Qwen3-Reranker"),
    _fault("unsorted-rerank", "a ranking comes in the order of the documents", "every ranking", "pooling.rerank",
           serving_pooling.unsorted),
)  # fmt: skip

HARMLESS: tuple[Fault, ...] = (
    _benign("proxy", "everything goes through a proxy", "nothing", serving_streams.nothing),
    _benign("delay", "every request takes 20 ms longer", "20 ms", serving_streams.delay(0.02)),
    _benign("coalesced-stream", "of a stream's events that carry text two and two come as one", "2 events",
            serving_streams.coalesced),
    _benign("field-order", "the fields of every JSON object come in the opposite order", "order",
            serving_streams.fields_backwards),
    _benign("extra-field", "answers have a field that nobody knows", "1 field", serving_streams.unknown_field),
)  # fmt: skip

SERVING: tuple[Fault, ...] = (*PROMPTS, *ENDS, *SAMPLING, *BETWEEN_REQUESTS, *STREAMS, *POOLING, *HARMLESS)
