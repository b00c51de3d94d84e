"""Wire adapters: how a list of prompts is asked, and how the answer is checked.

An adapter turns prompts into one request body and the parsed answer into exactly as many texts. Whatever does
not fit raises `AnswerFault`; nothing is guessed, because a guess (an empty text for `null`, the order for a missing
index) can be worth points.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tiltyard_eval.errors import AnswerFault
from tiltyard_eval.http_client import HttpClient

_NOT_OFFERED: Final = "http_status"


@dataclass(frozen=True)
class GenerationSettings:
    """How one question is to be continued; `stop` strings end the text and are not part of it."""

    max_tokens: int
    temperature: float
    stop: tuple[str, ...]

    @property
    def max_chars(self) -> int:
        """Most characters of a generated text that are looked at.

        Long enough for any honest answer; short enough that no filter's regular expression takes long on it.
        """
        return max(4096, 4 * self.max_tokens)


class Adapter(Protocol):
    """One wire protocol. `name` is the word of `--adapter`; `model` is the server's name for its model, or empty."""

    name: str
    path: str
    model: str

    async def discover(self, client: HttpClient) -> None:
        """Ask the server what the requests need to know (a model's name), if anything."""

    def body(self, prompts: Sequence[str], settings: GenerationSettings, seed: int) -> dict[str, Any]:
        """The JSON body that asks for one continuation of each prompt."""

    def texts(self, answer: Any, count: int) -> list[str]:
        """The generated texts in the order of the prompts; `AnswerFault` unless there are exactly `count`."""


class OpenAIAdapter:
    """`POST /v1/completions`; several prompts go as a list, one goes as a string."""

    name = "openai"
    path = "/v1/completions"

    def __init__(self) -> None:
        self.model = "default"

    async def discover(self, client: HttpClient) -> None:
        """Take the first model of `GET /v1/models`; a server that has no such page gets the name `default`."""
        try:
            answer = await client.fetch_json("GET", "/v1/models")
        except AnswerFault as fault:
            if fault.kind == _NOT_OFFERED:
                return
            raise
        models = _list_field(answer, "data")
        if not models or not isinstance(models[0], dict) or not isinstance(models[0].get("id"), str):
            raise AnswerFault("wrong_shape", 'GET /v1/models must answer {"data": [{"id": "a name"}]}')
        self.model = models[0]["id"]

    def body(self, prompts: Sequence[str], settings: GenerationSettings, seed: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": prompts[0] if len(prompts) == 1 else list(prompts),
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "stop": list(settings.stop),
            "seed": seed,
        }

    def texts(self, answer: Any, count: int) -> list[str]:
        choices = _list_field(answer, "choices")
        _check_count(choices, count, "choices")
        ordered: list[str | None] = [None] * count
        for choice in choices:
            index = choice.get("index") if isinstance(choice, dict) else None
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
                raise AnswerFault("bad_index", f"every choice needs an integer index from 0 to {count - 1}")
            if ordered[index] is not None:
                raise AnswerFault("bad_index", "two choices have the same index")
            ordered[index] = _text(choice)
        return [text for text in ordered if text is not None]


class NativeAdapter:
    """`POST /v1/generate`; always a list of prompts."""

    name = "native"
    path = "/v1/generate"
    model = ""

    async def discover(self, client: HttpClient) -> None:
        """Nothing to find out: the requests name no model."""
        del client

    def body(self, prompts: Sequence[str], settings: GenerationSettings, seed: int) -> dict[str, Any]:
        return {
            "prompts": list(prompts),
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "stop": list(settings.stop),
            "seed": seed,
        }

    def texts(self, answer: Any, count: int) -> list[str]:
        outputs = _list_field(answer, "outputs")
        _check_count(outputs, count, "outputs")
        return [_text(output) for output in outputs]


ADAPTERS: Final[dict[str, Callable[[], Adapter]]] = {"openai": OpenAIAdapter, "native": NativeAdapter}


def make_adapter(name: str) -> Adapter:
    """A fresh adapter; `name` is a key of `ADAPTERS`."""
    return ADAPTERS[name]()


def clip(text: str, settings: GenerationSettings) -> str:
    """The part of a generated text that counts: before the first stop string, and at most `max_chars` characters.

    NUL becomes the replacement character: no gold answer holds either, and databases do not store NUL in a text.
    """
    text = text[: settings.max_chars].replace("\0", "\ufffd")
    for stop in settings.stop:
        text = text.split(stop, 1)[0]
    return text


def _list_field(answer: Any, name: str) -> list[Any]:
    if not isinstance(answer, dict) or not isinstance(answer.get(name), list):
        raise AnswerFault("wrong_shape", f'the answer is not a JSON object with a list "{name}"')
    return answer[name]  # type: ignore[no-any-return]


def _check_count(entries: Sequence[Any], count: int, name: str) -> None:
    if len(entries) != count:
        raise AnswerFault("wrong_count", f'{count} prompt(s) need {count} entries in "{name}", but {len(entries)} came')


def _text(entry: Any) -> str:
    text = entry.get("text") if isinstance(entry, dict) else None
    if not isinstance(text, str):
        raise AnswerFault("invalid_text", 'every generated "text" must be a string')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise AnswerFault("invalid_text", 'a generated "text" holds half of a surrogate pair') from error
    if not isinstance(entry.get("finish_reason"), str | None):
        raise AnswerFault("wrong_shape", 'a "finish_reason" must be a string or null')
    return text
