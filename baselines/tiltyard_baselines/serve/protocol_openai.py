"""The `openai` protocol: ``POST /v1/completions`` and ``GET /v1/models``, as far as evaluation needs them.

Prompts may be strings or token numbers. ``echo`` with ``logprobs`` scores the prompt, which is how lm-eval's
``local-completions`` reads log-likelihoods. Streaming, ``n`` > 1 and suffixes are refused by name.
"""

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiltyard_baselines.serve.engine import Engine
from tiltyard_baselines.serve.fields import (
    MAX_PROMPTS,
    GenerationSettings,
    read_flag,
    read_integer,
    read_settings,
    read_strings,
    read_text,
    read_token_ids,
)
from tiltyard_baselines.serve.jobs import Completion, GenerationJob, Job, RequestError, ScoringJob, TokenScore

MAX_LOGPROBS = 5


def models(name: str, context_tokens: int | None) -> dict[str, Any]:
    """``GET /v1/models``; `max_model_len` is vLLM's name for the context in tokens, null while the model loads."""
    model = {"id": name, "object": "model", "created": 0, "owned_by": "tiltyard", "max_model_len": context_tokens}
    return {"object": "list", "data": [model]}


@dataclass(frozen=True)
class _Choice:
    prompt_ids: tuple[int, ...]
    generation: GenerationJob | None
    scoring: ScoringJob | None

    def jobs(self) -> list[Job]:
        return [job for job in (self.generation, self.scoring) if job is not None]


async def completions(engine: Engine, model_name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """``POST /v1/completions``; the request's ``model`` is not checked, there is only one."""
    _refuse_unsupported(body)
    echo = read_flag(body, "echo")
    logprobs = body.get("logprobs")
    top = None if logprobs is None else read_integer(body, "logprobs", 0, 0, MAX_LOGPROBS)
    settings = read_settings(body, min_tokens=0 if echo else 1)
    prompts = _read_prompts(engine, body.get("prompt"))
    choices = [_plan(ids, settings, echo, top) for ids in prompts]
    engine.submit([job for choice in choices for job in choice.jobs()])
    answers = [await _answer(engine, index, choice, echo, top) for index, choice in enumerate(choices)]
    prompt_tokens = sum(len(ids) for ids in prompts)
    completion_tokens = sum(made for _, made in answers)
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model_name,
        "choices": [choice for choice, _ in answers],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    for name, neutral in (("stream", False), ("n", 1), ("best_of", 1), ("suffix", None)):
        if body.get(name) not in (neutral, None):
            raise RequestError(f"{name} is not supported; leave it out")


def _read_prompts(engine: Engine, prompt: object) -> list[tuple[int, ...]]:
    runner = engine.runner
    if isinstance(prompt, str):
        return [runner.encode(read_text(prompt, "prompt"))]
    if not isinstance(prompt, list) or not prompt:
        raise RequestError("prompt must be a string, a list of strings, or a list of token numbers")
    if isinstance(prompt[0], str):
        return [runner.encode(text) for text in read_strings(prompt, "prompt")]
    rows = prompt if isinstance(prompt[0], list) else [prompt]
    if len(rows) > MAX_PROMPTS or not all(isinstance(row, list) and row for row in rows):
        raise RequestError(f"prompt must hold at most {MAX_PROMPTS} non-empty lists of token numbers")
    return [read_token_ids(row, "prompt", runner.vocabulary_size) for row in rows]


def _plan(ids: tuple[int, ...], settings: GenerationSettings, echo: bool, top: int | None) -> _Choice:
    generation = None
    if settings.max_tokens:
        generation = GenerationJob(
            prompt_ids=ids,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            stop=settings.stop,
            seed=settings.seed,
            top_logprobs=0 if top is None else max(top, 1),
        )
    scoring = ScoringJob(ids, max(top, 1)) if echo and top is not None else None
    return _Choice(ids, generation, scoring)


async def _answer(
    engine: Engine, index: int, choice: _Choice, echo: bool, top: int | None
) -> tuple[dict[str, Any], int]:
    """Wait for one choice and return it with the number of tokens that were generated."""
    made: Completion | None = None
    if choice.generation is not None:
        made = await asyncio.wrap_future(choice.generation.done)
    text = made.text if made else ""
    scores: list[TokenScore | None] = list(made.scores) if made else []
    if choice.scoring is not None:
        scores = [None, *(await asyncio.wrap_future(choice.scoring.done)), *scores]
    tokens = (*(choice.prompt_ids if echo else ()), *(made.token_ids if made else ()))
    answer = {
        "index": index,
        "text": engine.runner.tokenizer.decode(choice.prompt_ids) + text if echo else text,
        "finish_reason": made.finish_reason if made else "length",
        "logprobs": None if top is None else _logprobs(engine, tokens, scores, top),
    }
    return answer, len(made.token_ids) if made else 0


def _logprobs(engine: Engine, tokens: Sequence[int], scores: Sequence[TokenScore | None], top: int) -> dict[str, Any]:
    decode = engine.runner.tokenizer.decode
    pieces = [decode([token]) for token in tokens]
    offsets, at = [], 0
    for piece in pieces:
        offsets.append(at)
        at += len(piece)
    # Of two tokens that decode to the same text the likelier one keeps its place.
    tops = [None if score is None else {decode([t]): p for t, p in reversed(score.top[:top])} for score in scores]
    return {
        "tokens": pieces,
        "token_logprobs": [None if score is None else score.logprob for score in scores],
        "top_logprobs": tops if top else None,
        "text_offset": offsets,
    }
