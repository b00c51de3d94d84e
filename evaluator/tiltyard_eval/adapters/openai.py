"""`openai`: `POST /v1/completions`, for conversations `POST /v1/chat/completions`.

Log-likelihoods are read from an echo of the prompt with `logprobs`, as lm-eval's `local-completions` reads them; `echo`
tells how the echo becomes numbers. What does not fit into the model's context is cut as lm-eval cuts it (`windows`),
where the server tells the context's length (`max_model_len` in `GET /v1/models`, `model_max_length` in
`GET /tokenizer_info`) and counts tokens (`POST /tokenize`, as vLLM has it).
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Final

from tiltyard_eval.adapters.base import (
    GenerationSettings,
    Likelihood,
    Post,
    Support,
    by_index,
    check_finish_reason,
    list_field,
    text_field,
)
from tiltyard_eval.adapters.echo import Echo, read_echoes
from tiltyard_eval.adapters.windows import Window, last_window, may_be_too_long, rolling_windows
from tiltyard_eval.config import MAX_CONTEXT_TOKENS
from tiltyard_eval.errors import AnswerFault
from tiltyard_eval.http_client import HttpClient

_NOT_OFFERED: Final = "http_status"
_CALIBRATION: Final = "Two plus three is five."
# One token's share of an answer, with its offset and its most likely alternative; a character is at most one token
# but for the rare ones of several bytes.
_ECHO_BYTES_PER_CHAR: Final = 256
_ECHO_BYTES_PER_TOKEN: Final = 1024
_TOKENIZED_BYTES_PER_CHAR: Final = 16
_LEAST_CONTEXT: Final = 8


class OpenAIAdapter:
    """Several prompts go as a list, one goes as a string; conversations go one by one."""

    name: Final = "openai"
    generate_path: Final = "/v1/completions"
    chat_path: Final = "/v1/chat/completions"
    score_path: Final = "/v1/completions"
    support: Final = Support(chat=True, batches=True, extra_settings=True)
    ready_paths: Final = ("/health",)
    ready_words: Final = "GET /health answers 200 once the model is loaded"
    expects: Final = MappingProxyType(
        {
            "generate": 'POST /v1/completions with "prompt", "max_tokens", "temperature", "stop" and "seed" is '
            'answered by {"choices": [{"index": 0, "text": "…", "finish_reason": "stop"}]}',
            "chat": 'POST /v1/chat/completions with "messages", "max_tokens", "temperature", "stop" and "seed" is '
            'answered by {"choices": [{"index": 0, "message": {"content": "…"}, "finish_reason": "stop"}]}',
            "loglikelihood": 'POST /v1/completions with "echo": true, "logprobs": 1 and "max_tokens": 1 is answered by '
            'choices with "logprobs": {"tokens", "token_logprobs", "top_logprobs"} over the whole prompt, and by '
            '"usage": {"prompt_tokens", "completion_tokens"}',
        }
    )

    def __init__(self) -> None:
        self.starts_texts = False
        self._model = "default"
        self._added_tokens = 0  # the server puts them before every text: a token that starts a document
        self._start = ""  # what we put before a text without context, when the server adds nothing
        self._start_number: int | None = None  # that token, or the server's own one, as a number
        self.context_tokens: int | None = None

    def is_ready(self, status: int) -> bool:
        return status == 200

    def state(self) -> dict[str, Any]:
        return {
            "model": self._model,
            "starts_texts": self.starts_texts,
            "added_tokens": self._added_tokens,
            "start": self._start,
            "start_number": self._start_number,
            "context_tokens": self.context_tokens,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._model = state["model"]
        self.starts_texts = state["starts_texts"]
        self._added_tokens = state["added_tokens"]
        self._start = state["start"]
        self._start_number = state["start_number"]
        self.context_tokens = state["context_tokens"]

    async def discover(self, client: HttpClient) -> None:
        """Take the first model of `GET /v1/models`; a server that has no such page gets the name `default`."""
        answer = await _get_if_offered(client, "/v1/models")
        if answer is None:
            return
        models = list_field(answer, "data")
        if not models or not isinstance(models[0], dict) or not isinstance(models[0].get("id"), str):
            raise AnswerFault("wrong_shape", 'GET /v1/models must answer {"data": [{"id": "a name"}]}')
        self._model = models[0]["id"]
        self._take_length(models[0].get("max_model_len"))

    async def discover_scoring(self, client: HttpClient, post: Post, seed: int) -> None:
        """See whether the server puts a start token before a text, or names one at `GET /tokenizer_info`."""
        (echo,) = await self._echo(post, [_CALIBRATION], seed)
        self._added_tokens = echo.added_tokens()
        answer = await _get_if_offered(client, "/tokenizer_info")
        info = answer if isinstance(answer, dict) else {}
        self._take_length(info.get("model_max_length"))
        names = [info.get(name) for name in ("bos_token", "eos_token")]
        start = next((name for name in names if isinstance(name, str) and name), "")
        self._start = "" if self._added_tokens else start
        self.starts_texts = bool(self._added_tokens or start)
        if self.context_tokens is not None:
            self._start_number = await self._number_of(post, start, seed)
            if self._start_number is None:
                self.context_tokens = None

    def _take_length(self, value: Any) -> None:
        """Believe a plausible length, unless one is known; some tokenizers say 10^30 for "no limit"."""
        if self.context_tokens is None and type(value) is int and _LEAST_CONTEXT <= value <= MAX_CONTEXT_TOKENS:
            self.context_tokens = value

    async def _number_of(self, post: Post, start: str, seed: int) -> int | None:
        """The start token's number, if the server counts tokens as it says and takes token numbers for a prompt."""
        try:
            numbers = await self._tokenize(post, start)
            calibration = await self._tokenize(post, _CALIBRATION)
            await self._echo_tokens(post, Window((*numbers, *calibration), 1), seed)
        except AnswerFault:
            return None
        return numbers[0] if len(numbers) == 1 and calibration else None

    async def generate(self, post: Post, prompts: Sequence[str], settings: GenerationSettings, seed: int) -> list[str]:
        body = {
            "model": self._model,
            "prompt": _one_or_all(prompts),
            **_settings_fields(settings, seed),
        }
        choices = by_index(list_field(await post(self.generate_path, body), "choices"), len(prompts))
        texts = [text_field(choice) for choice in choices]
        for choice in choices:
            check_finish_reason(choice)
        return texts

    async def chat(self, post: Post, messages: list[dict[str, Any]], settings: GenerationSettings, seed: int) -> str:
        body = {"model": self._model, "messages": messages, **_settings_fields(settings, seed)}
        (choice,) = by_index(list_field(await post(self.chat_path, body), "choices"), 1)
        check_finish_reason(choice)
        return text_field(choice.get("message"), "content")

    async def score(self, post: Post, pairs: Sequence[tuple[str, str]], seed: int) -> list[Likelihood]:
        cut = [await self._score_long(post, *pair, seed) if self._may_be_long(pair) else None for pair in pairs]
        fitting = [pair for pair, one in zip(pairs, cut, strict=True) if one is None]
        rest = iter(await self._score_short(post, fitting, seed) if fitting else [])
        return [next(rest) if one is None else one for one in cut]

    def _may_be_long(self, pair: tuple[str, str]) -> bool:
        return self.context_tokens is not None and may_be_too_long("".join(pair), self.context_tokens)

    async def _score_long(self, post: Post, context: str, continuation: str, seed: int) -> Likelihood | None:
        """One pair that does not fit into the context, by the token numbers of its windows; None if it does fit."""
        assert self.context_tokens is not None  # noqa: S101 - the caller has looked
        assert self._start_number is not None  # noqa: S101 - a length is only kept with it
        whole = await self._tokenize(post, context + continuation)
        if len(whole) + (1 if context and not self._added_tokens else 2) <= self.context_tokens:
            return None
        if context:
            border = len(await self._tokenize(post, context))
            windows = [last_window(whole[:border], whole[border:], self.context_tokens)]
        else:
            windows = rolling_windows(whole, self._start_number, self.context_tokens)
        parts = [await self._echo_tokens(post, window, seed) for window in windows]
        return Likelihood(sum(part.logprob for part in parts), all(part.is_greedy for part in parts))

    async def _tokenize(self, post: Post, text: str) -> list[int]:
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        answer = await post("/tokenize", body, extra_bytes=_TOKENIZED_BYTES_PER_CHAR * len(text))
        tokens = list_field(answer, "tokens")
        if not all(type(token) is int and token >= 0 for token in tokens):
            raise AnswerFault("wrong_shape", '"tokens" of /tokenize must be a list of token numbers')
        return tokens

    async def _echo_tokens(self, post: Post, window: Window, seed: int) -> Likelihood:
        body = {**self._echo_fields(seed), "prompt": list(window.tokens)}
        answer = await post(self.score_path, body, extra_bytes=_ECHO_BYTES_PER_TOKEN * len(window.tokens))
        (echo,) = read_echoes(answer, [""])
        if echo.prompt_tokens != len(window.tokens):
            raise AnswerFault(
                "wrong_count", f"the echo of {len(window.tokens)} token numbers has {echo.prompt_tokens} tokens"
            )
        return echo.likelihood(window.context_tokens)

    async def _score_short(self, post: Post, pairs: Sequence[tuple[str, str]], seed: int) -> list[Likelihood]:
        started = [(context or self._start, continuation) for context, continuation in pairs]
        echoes = await self._echo(post, [context + continuation for context, continuation in started], seed)
        lengths = [
            echo.prefix_length(len(context), self._added_tokens)
            for echo, (context, _) in zip(echoes, started, strict=True)
        ]
        # Where a token reaches across the border, or the pieces do not spell the text, the server counts the context.
        unclear = sorted({context for (context, _), length in zip(started, lengths, strict=True) if length is None})
        counted = dict(zip(unclear, await self._echo(post, unclear, seed), strict=True)) if unclear else {}
        return [
            echo.likelihood(counted[context].prompt_tokens if length is None else length)
            for echo, (context, _), length in zip(echoes, started, lengths, strict=True)
        ]

    async def _echo(self, post: Post, texts: Sequence[str], seed: int) -> list[Echo]:
        body = {**self._echo_fields(seed), "prompt": _one_or_all(texts)}
        extra_bytes = _ECHO_BYTES_PER_CHAR * sum(len(text) for text in texts)
        return read_echoes(await post(self.score_path, body, extra_bytes=extra_bytes), texts)

    def _echo_fields(self, seed: int) -> dict[str, Any]:
        """Everything but the prompt; one token is generated as lm-eval asks, since not every server takes 0."""
        return {
            **{"model": self._model, "max_tokens": 1, "temperature": 0},
            **{"logprobs": 1, "echo": True, "seed": seed},
        }


def _one_or_all(texts: Sequence[str]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else list(texts)


def _settings_fields(settings: GenerationSettings, seed: int) -> dict[str, Any]:
    return {
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "stop": list(settings.stop),
        "seed": seed,
        **settings.extra_fields(),
    }


async def _get_if_offered(client: HttpClient, path: str) -> Any:
    """The answer to a GET, or None where the server has no such page."""
    try:
        return await client.fetch_json("GET", path)
    except AnswerFault as fault:
        if fault.kind == _NOT_OFFERED:
            return None
        raise
