"""The `native` protocol: batches of strings in, one object per string out, in the same order."""

import asyncio
from collections.abc import Mapping
from typing import Any

from tiltyard_baselines.serve.engine import Engine
from tiltyard_baselines.serve.fields import MAX_PROMPTS, read_settings, read_strings, read_text
from tiltyard_baselines.serve.jobs import GenerationJob, RequestError, ScoringJob


async def generate(engine: Engine, body: Mapping[str, Any]) -> dict[str, Any]:
    """``POST /v1/generate``."""
    prompts = read_strings(body.get("prompts"), "prompts")
    settings = read_settings(body)
    jobs = [
        GenerationJob(
            prompt_ids=engine.runner.encode(prompt),
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            stop=settings.stop,
            seed=settings.seed,
        )
        for prompt in prompts
    ]
    engine.submit(jobs)
    results = await asyncio.gather(*(asyncio.wrap_future(job.done) for job in jobs))
    outputs = [{"text": r.text, "finish_reason": r.finish_reason, "tokens": len(r.token_ids)} for r in results]
    return {"outputs": outputs}


async def loglikelihood(engine: Engine, body: Mapping[str, Any]) -> dict[str, Any]:
    """``POST /v1/loglikelihood``."""
    pairs = body.get("pairs")
    if not isinstance(pairs, list) or not 1 <= len(pairs) <= MAX_PROMPTS:
        raise RequestError(f"pairs must be a list of 1 to {MAX_PROMPTS} [context, continuation] pairs")
    encoded = [_encode_pair(engine, pair, f"pairs[{index}]") for index, pair in enumerate(pairs)]
    jobs = [ScoringJob(context + continuation) for context, continuation in encoded]
    engine.submit(jobs)
    outputs = []
    for job, (_, continuation) in zip(jobs, encoded, strict=True):
        scores = (await asyncio.wrap_future(job.done))[-len(continuation) :]
        outputs.append(
            {
                "logprob": sum(score.logprob for score in scores),
                "is_greedy": all(score.is_greedy for score in scores),
                "tokens": len(continuation),
            }
        )
    return {"outputs": outputs}


def _encode_pair(engine: Engine, pair: object, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokenise context and continuation as one text, split where the context alone ends.

    Spaces at the context's end belong to the continuation, as lm-eval has it: tokenizers join them to the next word.
    """
    if not isinstance(pair, list) or len(pair) != 2:
        raise RequestError(f"{name} must be [context, continuation]")
    context, continuation = read_text(pair[0], f"{name}[0]"), read_text(pair[1], f"{name}[1]")
    if not continuation:
        raise RequestError(f"{name}[1] must not be empty")
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    context_ids = engine.runner.encode(stripped)
    whole = (
        engine.runner.encode(stripped + continuation)
        if stripped
        else (*context_ids, *engine.runner.encode(continuation))
    )
    return whole[: len(context_ids)], whole[len(context_ids) :]
