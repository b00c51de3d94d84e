"""What the web side asks of the engine, and what it gets back."""

from concurrent.futures import Future
from dataclasses import dataclass, field


class RequestError(ValueError):
    """The request itself is at fault; the message goes to the client with status 400."""


class OverloadedError(RuntimeError):
    """The queue is full; the client may try again (status 429)."""


class EngineError(RuntimeError):
    """The model failed on a batch (status 500)."""


@dataclass(frozen=True)
class TokenScore:
    """Log-probability (natural log, over the full vocabulary) of one token and of the likeliest ones in its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]

    @property
    def is_greedy(self) -> bool:
        return self.top[0][0] == self.token


@dataclass(frozen=True)
class Completion:
    """A finished generation; ``text`` ends before the first stop string, ``tokens`` counts all that were made."""

    text: str
    finish_reason: str  # "stop" or "length"
    token_ids: tuple[int, ...]
    scores: tuple[TokenScore, ...]  # empty unless asked for


@dataclass(frozen=True)
class GenerationJob:
    """One prompt to continue. ``temperature`` 0 greedy; ``seed`` None draws one; ``top_logprobs`` 0 is off."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    top_logprobs: int = 0
    done: "Future[Completion]" = field(default_factory=Future, compare=False)


@dataclass(frozen=True)
class ScoringJob:
    """One text to score. The result has one ``TokenScore`` for every token but the first."""

    token_ids: tuple[int, ...]
    top_logprobs: int = 1
    done: "Future[tuple[TokenScore, ...]]" = field(default_factory=Future, compare=False)


Job = GenerationJob | ScoringJob
