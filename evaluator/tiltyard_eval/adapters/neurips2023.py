"""`neurips2023`: the API of the 2023 LLM Efficiency Challenge, so that its images can be evaluated unchanged.

`POST /process` {prompt, num_samples, max_new_tokens, top_k, temperature, seed, echo_prompt} → {text, tokens: [{text,
logprob, top_logprob}], logprob, request_time} and `POST /tokenize` {text, truncation, max_length} → {tokens,
request_time}, after the challenge's openapi.json and its lit-gpt sample. There are no stop strings (the text is cut
here), no batches and no `/health`: a server that answers a GET at all is ready, as the images load their model first.

The sample divides by the temperature, so greedy decoding is asked as HELM asked it, with 1e-7, and `top_k` 1. Its echo
pairs the prompt's tokens with the generated ones' numbers, so log-likelihoods are only taken from an echo that has as
many tokens as `/tokenize` counts, or one more.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Final

from tiltyard_eval.adapters.base import GenerationSettings, Likelihood, Post, Support, list_field, logprob, text_field
from tiltyard_eval.errors import AnswerFault
from tiltyard_eval.http_client import HttpClient

_GREEDY_TEMPERATURE: Final = 1e-7
_SAMPLED_TOP_K: Final = 200  # the API's own default
_WHOLE_VOCABULARY: Final = 1_000_000
_MAX_TOKENS: Final = 1_000_000
_BYTES_PER_CHAR: Final = 256
_COUNTS_KEPT: Final = 1024


class Neurips2023Adapter:
    """One prompt a request."""

    name: Final = "neurips2023"
    generate_path: Final = "/process"
    score_path: Final = "/process"
    tokenize_path: Final = "/tokenize"
    support: Final = Support(chat=False, batches=False, extra_settings=False)
    ready_paths: Final = ("/health", "/", "/tokenize")
    ready_words: Final = "GET /health, / or /tokenize is answered at all; a page that is not there counts, 500 does not"
    expects: Final = MappingProxyType(
        {
            "generate": 'POST /process with "prompt", "num_samples", "max_new_tokens", "top_k", "temperature", "seed" '
            'and "echo_prompt" is answered by {"text": "…"}, the text without the prompt',
            "loglikelihood": 'POST /tokenize with "text" is answered by {"tokens": [1, 2]}, and POST /process with '
            '"echo_prompt": true by "tokens": [{"text", "logprob", "top_logprob"}] over the whole prompt',
        }
    )

    def __init__(self) -> None:
        self.starts_texts = False
        self._counts: dict[str, int] = {}  # of the contexts asked last; the choices of a question share one

    def is_ready(self, status: int) -> bool:
        """501 is how Python's own HTTP server answers a GET when it was written for POST alone."""
        return status < 500 or status == 501

    def state(self) -> dict[str, Any]:
        return {"starts_texts": self.starts_texts}

    def restore(self, state: dict[str, Any]) -> None:
        self.starts_texts = state["starts_texts"]

    async def discover(self, client: HttpClient) -> None:
        """Nothing to find out: the requests name no model."""
        del client

    async def discover_scoring(self, client: HttpClient, post: Post, seed: int) -> None:
        """A tokenizer that gives the empty text a token puts a start token before every text."""
        del client, seed
        self.starts_texts = await self._count(post, "") > 0

    async def generate(self, post: Post, prompts: Sequence[str], settings: GenerationSettings, seed: int) -> list[str]:
        (prompt,) = prompts
        greedy = settings.temperature == 0
        body = {
            "prompt": prompt,
            "num_samples": 1,
            "max_new_tokens": settings.max_tokens,
            "top_k": 1 if greedy else _SAMPLED_TOP_K,
            "temperature": _GREEDY_TEMPERATURE if greedy else settings.temperature,
            "seed": seed,
            "echo_prompt": False,
        }
        return [text_field(await post(self.generate_path, body))]

    async def chat(self, post: Post, messages: list[dict[str, Any]], settings: GenerationSettings, seed: int) -> str:
        raise NotImplementedError(f"{self.name} has no conversations; `support` says so")

    async def score(self, post: Post, pairs: Sequence[tuple[str, str]], seed: int) -> list[Likelihood]:
        ((context, continuation),) = pairs
        whole = context + continuation
        context_tokens, whole_tokens = await self._count(post, context), await self._count(post, whole)
        if context_tokens < 1:
            raise AnswerFault("no_start_token", "the continuation begins a text, and no start token stands before it")
        body = {
            "prompt": whole,
            "num_samples": 1,
            "max_new_tokens": 1,  # the sample refuses 0
            "top_k": _WHOLE_VOCABULARY,
            "temperature": 1.0,
            "seed": seed,
            "echo_prompt": True,
        }
        answer = await post(self.score_path, body, extra_bytes=_BYTES_PER_CHAR * len(whole))
        tokens = list_field(answer, "tokens")
        if len(tokens) - whole_tokens not in (0, 1) or whole_tokens <= context_tokens:
            raise AnswerFault(
                "wrong_count",
                f"the echo has {len(tokens)} tokens, but /tokenize counts {whole_tokens} in the prompt and "
                f"{context_tokens} in its context; the log-probabilities of the prompt's own tokens are missing",
            )
        scored = [_likelihood(token) for token in tokens[context_tokens:whole_tokens]]
        return [
            Likelihood(logprob(sum(one.logprob for one in scored), "logprob"), all(one.is_greedy for one in scored))
        ]

    async def _count(self, post: Post, text: str) -> int:
        if text in self._counts:
            return self._counts[text]
        body = {"text": text, "truncation": False, "max_length": _MAX_TOKENS}
        tokens = list_field(await post(self.tokenize_path, body, extra_bytes=16 * len(text)), "tokens")
        if not all(isinstance(token, int) and not isinstance(token, bool) for token in tokens):
            raise AnswerFault("wrong_shape", '"tokens" of /tokenize must be a list of integers')
        if len(self._counts) >= _COUNTS_KEPT:
            self._counts.pop(next(iter(self._counts)))
        self._counts[text] = len(tokens)
        return len(tokens)


def _likelihood(token: Any) -> Likelihood:
    top = token.get("top_logprob") if isinstance(token, dict) else None
    if not isinstance(top, dict) or not top:
        raise AnswerFault("wrong_shape", 'every token needs "text", "logprob" and a "top_logprob" that is not empty')
    number = logprob(token.get("logprob"), "logprob")
    return Likelihood(number, number == max(logprob(value, "top_logprob") for value in top.values()))
