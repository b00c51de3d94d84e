"""`native`: `POST /v1/generate` and `POST /v1/loglikelihood`, batches of strings that the server tokenises."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Final

from tiltyard_eval.adapters.base import (
    GenerationSettings,
    Likelihood,
    Post,
    Support,
    check_count,
    check_finish_reason,
    count_field,
    list_field,
    logprob,
    text_field,
)
from tiltyard_eval.errors import AnswerFault
from tiltyard_eval.http_client import HttpClient


class NativeAdapter:
    """The project's own protocol. The server splits context and continuation, and begins texts by itself."""

    name: Final = "native"
    generate_path: Final = "/v1/generate"
    score_path: Final = "/v1/loglikelihood"
    support: Final = Support(chat=False, batches=True, extra_settings=False)
    ready_paths: Final = ("/health",)
    ready_words: Final = "GET /health answers 200 once the model is loaded"
    expects: Final = MappingProxyType(
        {
            "generate": 'POST /v1/generate with "prompts", "max_tokens", "temperature", "stop" and "seed" is answered '
            'by {"outputs": [{"text": "…", "finish_reason": "stop", "tokens": 3}]}, one for each prompt',
            "loglikelihood": 'POST /v1/loglikelihood with "pairs": [["context", "continuation"]] is answered by '
            '{"outputs": [{"logprob": -1.5, "is_greedy": false, "tokens": 2}]}, one for each pair',
        }
    )

    def __init__(self) -> None:
        self.starts_texts = True

    def is_ready(self, status: int) -> bool:
        return status == 200

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        del state

    async def discover(self, client: HttpClient) -> None:
        """Nothing to find out: the requests name no model."""
        del client

    async def discover_scoring(self, client: HttpClient, post: Post, seed: int) -> None:
        """Nothing to find out: an empty context is the server's to fill."""
        del client, post, seed

    async def generate(self, post: Post, prompts: Sequence[str], settings: GenerationSettings, seed: int) -> list[str]:
        body = {
            "prompts": list(prompts),
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "stop": list(settings.stop),
            "seed": seed,
        }
        outputs = list_field(await post(self.generate_path, body), "outputs")
        check_count(outputs, len(prompts), "outputs")
        texts = [text_field(output) for output in outputs]
        for output in outputs:
            check_finish_reason(output)
        return texts

    async def chat(self, post: Post, messages: list[dict[str, Any]], settings: GenerationSettings, seed: int) -> str:
        raise NotImplementedError(f"{self.name} has no conversations; `support` says so")

    async def score(self, post: Post, pairs: Sequence[tuple[str, str]], seed: int) -> list[Likelihood]:
        del seed  # nothing is drawn
        outputs = list_field(await post(self.score_path, {"pairs": [list(pair) for pair in pairs]}), "outputs")
        check_count(outputs, len(pairs), "outputs")
        return [_likelihood(output) for output in outputs]


def _likelihood(output: Any) -> Likelihood:
    if not isinstance(output, dict) or not isinstance(output.get("is_greedy"), bool):
        raise AnswerFault("wrong_shape", 'every output needs "logprob", "is_greedy" (true or false) and "tokens"')
    if count_field(output, "tokens") < 1:
        raise AnswerFault(
            "wrong_shape", '"tokens" must count the continuation\'s tokens, of which there is at least one'
        )
    return Likelihood(logprob(output.get("logprob"), "logprob"), output["is_greedy"])
