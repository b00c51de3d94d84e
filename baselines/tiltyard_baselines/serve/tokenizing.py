"""The tokenizer over HTTP, as vLLM serves it: what lm-eval's `local-completions` needs to run without the tokenizer.

With `tokenizer_backend=remote` lm-eval asks `GET /tokenizer_info` for the special tokens, cuts contexts with
`POST /tokenize` {prompt, add_special_tokens} → {tokens, count, max_model_len}, and reads texts back with
`POST /detokenize` {tokens} → {prompt}.
"""

from collections.abc import Mapping
from typing import Any

from tiltyard_baselines.serve.engine import Engine
from tiltyard_baselines.serve.fields import MAX_PROMPT_CHARS, read_flag, read_text, read_token_ids
from tiltyard_baselines.serve.jobs import RequestError


async def tokenizer_info(engine: Engine, body: Mapping[str, Any]) -> dict[str, Any]:
    """``GET /tokenizer_info``: special tokens as texts, or null where there is none; the context in tokens."""
    del body
    tokenizer = engine.runner.tokenizer
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    return {
        "tokenizer_class": type(tokenizer).__name__,
        **{name: getattr(tokenizer, name, None) for name in names},
        "model_max_length": engine.runner.context_tokens,
        "chat_template": getattr(tokenizer, "chat_template", None),
    }


async def tokenize(engine: Engine, body: Mapping[str, Any]) -> dict[str, Any]:
    """``POST /tokenize``. An empty text has no tokens here, unlike in a prompt, where it starts a document."""
    text = read_text(body.get("prompt"), "prompt")
    read_flag(body, "add_special_tokens")  # this tokenizer adds none to a text in any case
    tokens = list(engine.runner.encode(text)) if text else []
    return {"tokens": tokens, "count": len(tokens), "max_model_len": engine.runner.context_tokens}


async def detokenize(engine: Engine, body: Mapping[str, Any]) -> dict[str, Any]:
    """``POST /detokenize``."""
    tokens = body.get("tokens")
    if not isinstance(tokens, list) or len(tokens) > MAX_PROMPT_CHARS:
        raise RequestError(f"tokens must be a list of at most {MAX_PROMPT_CHARS} token numbers")
    return {"prompt": engine.runner.tokenizer.decode(read_token_ids(tokens, "tokens", engine.runner.vocabulary_size))}
