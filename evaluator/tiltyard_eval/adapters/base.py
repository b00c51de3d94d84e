"""What adapters have in common: settings, results, and the checks of single fields."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tiltyard_eval.errors import AnswerFault
from tiltyard_eval.http_client import HttpClient


@dataclass(frozen=True)
class GenerationSettings:
    """How one question is to be continued; `stop` strings end the text and are not part of it.

    `extra` are further settings of an lm-eval task (`top_p`, ...) as pairs of name and JSON text.
    """

    max_tokens: int
    temperature: float
    stop: tuple[str, ...]
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def max_chars(self) -> int:
        """Most characters of a generated text that are looked at.

        Long enough for any honest answer; short enough that no filter's regular expression takes long on it.
        """
        return max(4096, 4 * self.max_tokens)

    def extra_fields(self) -> dict[str, Any]:
        """The further settings as fields of a request."""
        return {name: json.loads(value) for name, value in self.extra}


@dataclass(frozen=True)
class Likelihood:
    """Natural log-probability (at most 0) of a continuation, and whether greedy decoding would give it."""

    logprob: float
    is_greedy: bool


@dataclass(frozen=True)
class Support:
    """What an adapter's protocol offers at all; whether a server keeps to it, the probe finds out."""

    chat: bool
    batches: bool
    extra_settings: bool


class Post(Protocol):
    """Sends one request, with retries, and returns the parsed JSON."""

    async def __call__(self, path: str, body: dict[str, Any], *, extra_bytes: int = 0) -> Any:
        """`extra_bytes` is how much larger than usual an honest answer may be."""


class Adapter(Protocol):
    """One wire protocol. `name` is the word of `--adapter`; a failed probe names the paths."""

    @property
    def name(self) -> str: ...
    @property
    def generate_path(self) -> str: ...
    @property
    def score_path(self) -> str: ...
    @property
    def support(self) -> Support: ...
    @property
    def starts_texts(self) -> bool:
        """Whether a text can be scored from its start; known after `discover_scoring`."""

    @property
    def expects(self) -> Mapping[str, str]:
        """For each kind of question, the request and the answer to it in words, for who has to write the server."""

    @property
    def ready_paths(self) -> tuple[str, ...]:
        """The pages of which one must say that the server is ready."""

    @property
    def ready_words(self) -> str:
        """What makes the server ready, in words."""

    def is_ready(self, status: int) -> bool:
        """Whether the status of a GET of a ready path says that the server is ready."""

    def state(self) -> dict[str, Any]:
        """What was found out about the server, for the journal."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""

    async def discover(self, client: HttpClient) -> None:
        """Ask the server what every request needs to know (a model's name), if anything."""

    async def discover_scoring(self, client: HttpClient, post: Post, seed: int) -> None:
        """Find out how the server begins a text."""

    async def generate(self, post: Post, prompts: Sequence[str], settings: GenerationSettings, seed: int) -> list[str]:
        """One continuation of each prompt, in order."""

    async def chat(self, post: Post, messages: list[dict[str, Any]], settings: GenerationSettings, seed: int) -> str:
        """The answer to one conversation."""

    async def score(self, post: Post, pairs: Sequence[tuple[str, str]], seed: int) -> list[Likelihood]:
        """The log-likelihood of each (context, continuation), in order.

        A context has no spaces at its end and is empty at the start of a text; no continuation is empty.
        """


def clip(text: str, settings: GenerationSettings) -> str:
    """The part of a generated text that counts: before the first stop string, and at most `max_chars` characters.

    NUL becomes the replacement character: no gold answer holds either, and databases do not store NUL in a text.
    """
    text = text[: settings.max_chars].replace("\0", "\ufffd")
    for stop in settings.stop:
        text = text.split(stop, 1)[0]
    return text


def list_field(answer: Any, name: str) -> list[Any]:
    """The list `name` of a JSON object."""
    if not isinstance(answer, dict) or not isinstance(answer.get(name), list):
        raise AnswerFault("wrong_shape", f'the answer is not a JSON object with a list "{name}"')
    return answer[name]  # type: ignore[no-any-return]


def check_count(entries: Sequence[Any], count: int, name: str) -> None:
    """One entry for each prompt."""
    if len(entries) != count:
        raise AnswerFault("wrong_count", f'{count} prompt(s) need {count} entries in "{name}", but {len(entries)} came')


def by_index(choices: Sequence[Any], count: int) -> list[dict[str, Any]]:
    """OpenAI choices in the order of their `index`, each of which must come exactly once."""
    check_count(choices, count, "choices")
    ordered: dict[int, dict[str, Any]] = {}
    for choice in choices:
        index = choice.get("index") if isinstance(choice, dict) else None
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise AnswerFault("bad_index", f"every choice needs an integer index from 0 to {count - 1}")
        if index in ordered:
            raise AnswerFault("bad_index", "two choices have the same index")
        ordered[index] = choice
    return [ordered[index] for index in range(count)]


def text_field(entry: Any, name: str = "text") -> str:
    """A generated text: a string that can be written as UTF-8."""
    text = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(text, str):
        raise AnswerFault("invalid_text", f'every generated "{name}" must be a string')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise AnswerFault("invalid_text", f'a generated "{name}" holds half of a surrogate pair') from error
    return text


def check_finish_reason(entry: dict[str, Any]) -> None:
    if not isinstance(entry.get("finish_reason"), str | None):
        raise AnswerFault("wrong_shape", 'a "finish_reason" must be a string or null')


def logprob(value: Any, name: str) -> float:
    """A natural log-probability: a finite number that is not positive."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AnswerFault("invalid_logprob", f'"{name}" must be a number')
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):  # 1e999 is valid JSON
        raise AnswerFault("invalid_logprob", f'"{name}" must be finite')
    if number > 0:
        raise AnswerFault("invalid_logprob", f'"{name}" is positive, which no logarithm of a probability is')
    return number


def count_field(entry: dict[str, Any], name: str) -> int:
    """A number of tokens: an integer that is not negative."""
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise AnswerFault("wrong_shape", f'"{name}" must be a count')
    return value
