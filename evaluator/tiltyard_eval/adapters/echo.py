"""Log-likelihoods out of an OpenAI completion that echoes its prompt with log-probabilities.

The answer lists the prompt's tokens and at most one generated token. lm-eval cuts the list at the number of the
context's tokens, which it counts with a tokenizer of its own, and trusts that exactly one token was generated. Here the
server is the only one that can count. Where the pieces of the answer spell the prompt and one begins where the context
ends, the pieces before it are the context's own tokens: tokenizers that merge pairs or choose the likeliest split cut a
text at such a place as they cut its parts. Otherwise the caller asks the server for the length of the context alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tiltyard_eval.adapters.base import Likelihood, by_index, count_field, list_field, logprob
from tiltyard_eval.errors import AnswerFault


@dataclass(frozen=True)
class Echo:
    """One echoed prompt.

    Args:
        text: The prompt that was sent.
        pieces: Text of each token of the prompt, as the server spells it.
        logprobs: As they came, one for each piece; that of a first token is usually null.
        tops: The most likely alternatives at each piece, as they came.
    """

    text: str
    pieces: tuple[str, ...]
    logprobs: tuple[Any, ...]
    tops: tuple[Any, ...]

    @property
    def prompt_tokens(self) -> int:
        return len(self.pieces)

    def added_tokens(self) -> int:
        """How many tokens the server put before the text (0 or 1); raises `AnswerFault` when the text is not there."""
        for added in (0, 1):
            if "".join(self.pieces[added:]).lstrip(" ") == self.text:  # SentencePiece puts a space before a text
                return added
        raise AnswerFault("wrong_shape", 'the "tokens" of the echo do not spell the prompt')

    def prefix_length(self, boundary: int, added: int) -> int | None:
        """Number of tokens before character `boundary`, with the `added` ones; None when the pieces do not tell."""
        if "".join(self.pieces[added:]) != self.text:
            return None
        at = 0
        for number, piece in enumerate(self.pieces[added:], added):
            if at == boundary and piece:
                return number
            at += len(piece)
        return None

    def likelihood(self, context_tokens: int) -> Likelihood:
        """Sum over the tokens after the context's.

        Raises:
            AnswerFault: `no_start_token` when the first of them is the text's first, which has no log-probability;
                `wrong_count` when none is left; `invalid_logprob`, `wrong_shape`.
        """
        if context_tokens < 1:
            raise AnswerFault("no_start_token", "the continuation begins a text, and no start token stands before it")
        if context_tokens >= len(self.pieces):
            raise AnswerFault("wrong_count", "the echo has no token for the continuation")
        numbers = [logprob(value, "token_logprobs") for value in self.logprobs[context_tokens:]]
        best = [_best(top) for top in self.tops[context_tokens:]]
        return Likelihood(
            logprob(sum(numbers), "token_logprobs"), all(one == top for one, top in zip(numbers, best, strict=True))
        )


def read_echoes(answer: Any, texts: Sequence[str]) -> list[Echo]:
    """The echoes in the order of the texts.

    Raises:
        AnswerFault: When a list is missing or of another length than the rest, or does not hold the whole prompt and
            at most one token more.
    """
    choices = by_index(list_field(answer, "choices"), len(texts))
    lists = [_lists(choice) for choice in choices]
    generated = _generated(answer, lists, texts)
    return [
        Echo(text, *(tuple(column[: len(column) - extra]) for column in columns))
        for text, columns, extra in zip(texts, lists, generated, strict=True)
    ]


def _lists(choice: dict[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        raise AnswerFault("wrong_shape", 'every choice needs "logprobs" when the prompt is echoed with them')
    pieces, numbers, tops = (list_field(logprobs, name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not len(pieces) == len(numbers) == len(tops):
        raise AnswerFault("wrong_count", '"tokens", "token_logprobs" and "top_logprobs" must be equally long')
    if not all(isinstance(piece, str) for piece in pieces):
        raise AnswerFault("wrong_shape", '"tokens" must be a list of strings')
    return pieces, numbers, tops


def _generated(answer: dict[str, Any], lists: Sequence[tuple[list[Any], ...]], texts: Sequence[str]) -> list[int]:
    """How many tokens at each list's end were generated: 0 or 1.

    The counts in `usage` decide: a generated end of text may be spelled "", and then the pieces alone do not tell.
    """
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        raise AnswerFault("wrong_shape", 'the answer has no "usage", without which the prompt\'s tokens are not known')
    prompt, completion = count_field(usage, "prompt_tokens"), count_field(usage, "completion_tokens")
    total = sum(len(columns[0]) for columns in lists)
    if total != prompt + completion:
        raise AnswerFault(
            "wrong_count",
            f'the echo has {total} tokens, but "usage" counts {prompt} of the prompt and {completion} generated ones',
        )
    if completion not in (0, len(texts)):
        raise AnswerFault(
            "wrong_count", f'{completion} tokens were generated for {len(texts)} prompt(s) and "max_tokens" 1'
        )
    return [completion // len(texts)] * len(texts)


def _best(top: Any) -> float:
    if not isinstance(top, dict) or not top:
        raise AnswerFault("wrong_shape", 'every entry of "top_logprobs" must be an object with at least one token')
    return max(logprob(value, "top_logprobs") for value in top.values())
