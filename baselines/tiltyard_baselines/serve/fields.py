"""Typed, bounded reading of a JSON request; anything wrong is a ``RequestError`` that names the field."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiltyard_baselines.serve.jobs import RequestError

MAX_PROMPTS = 256
MAX_PROMPT_CHARS = 100_000
MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 256
MAX_TEMPERATURE = 10.0
MIN_TEMPERATURE = 1e-3  # below this a division of logits gains nothing over greedy


@dataclass(frozen=True)
class GenerationSettings:
    """The settings both protocols share."""

    max_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    seed: int | None


def read_settings(body: Mapping[str, Any], min_tokens: int = 1) -> GenerationSettings:
    temperature = read_number(body, "temperature", 0.0, 0.0, MAX_TEMPERATURE)
    seed = body.get("seed")
    if seed is not None:
        seed = read_integer(body, "seed", 0, -(2**63), 2**63 - 1)
    return GenerationSettings(
        max_tokens=read_integer(body, "max_tokens", 16, min_tokens, 1_000_000),
        temperature=0.0 if temperature < MIN_TEMPERATURE else temperature,
        top_p=read_number(body, "top_p", 1.0, 1e-6, 1.0),
        stop=_read_stop(body.get("stop")),
        seed=seed,
    )


def read_integer(body: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} must be an integer from {low} to {high}")
    return value


def read_number(body: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise RequestError(f"{name} must be a number from {low:g} to {high:g}")
    return float(value)


def read_flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false")
    return value


def read_strings(value: object, name: str) -> list[str]:
    """Return a non-empty list of at most ``MAX_PROMPTS`` strings of bounded length."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_PROMPTS:
        raise RequestError(f"{name} must be a list of 1 to {MAX_PROMPTS} strings")
    return [read_text(entry, f"{name}[{index}]") for index, entry in enumerate(value)]


def read_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{name} must be a string")
    if len(value) > MAX_PROMPT_CHARS:
        raise RequestError(f"{name} has {len(value)} characters; at most {MAX_PROMPT_CHARS} are allowed")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{name} holds half of a surrogate pair") from error
    return value


def read_token_ids(value: Sequence[object], name: str, vocabulary_size: int) -> tuple[int, ...]:
    """Return token numbers, each checked against the vocabulary."""
    ids = []
    for token in value:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocabulary_size:
            raise RequestError(f"{name} must hold token numbers below {vocabulary_size}")
        ids.append(token)
    return tuple(ids)


def _read_stop(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or len(strings) > MAX_STOP_STRINGS:
        raise RequestError(f"stop must be a string or a list of at most {MAX_STOP_STRINGS} strings")
    for string in strings:
        if not isinstance(string, str) or not 1 <= len(string) <= MAX_STOP_CHARS:
            raise RequestError(f"every stop string must have 1 to {MAX_STOP_CHARS} characters")
    return tuple(strings)
