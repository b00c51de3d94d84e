"""Texts longer than a model's context, cut as lm-eval cuts them, by the server's own token numbers.

lm-eval's `TemplateAPI` scores a pair that is too long by its last tokens, and a text from its start in windows: each
token is predicted once, with one token of context at a window's beginning, and with more of it in the last window. One
token of the context is left for the one that a completion must generate. Sources: `batch_loglikelihood_requests` in
`lm_eval/models/api_models.py`, `get_rolling_token_windows` and `make_disjoint_window` in `lm_eval/utils.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltyard_eval.errors import AnswerFault


@dataclass(frozen=True)
class Window:
    """Token numbers to be sent, of which the first `context_tokens` only are context."""

    tokens: tuple[int, ...]
    context_tokens: int


def may_be_too_long(text: str, context_tokens: int) -> bool:
    """Whether a text could need more tokens than fit, with a start token and a generated one; no request is needed.

    A token stands for at least one byte, so that most texts are seen to fit.
    """
    return len(text.encode()) + 2 > context_tokens


def last_window(context: Sequence[int], continuation: Sequence[int], context_tokens: int) -> Window:
    """A pair's last tokens.

    Raises:
        AnswerFault: `too_long` when the continuation alone fills the context; lm-eval breaks off there.
    """
    kept = min(len(context) + len(continuation), context_tokens - 1)
    left = kept - len(continuation)
    if left < 1:
        raise AnswerFault("too_long", f"the continuation does not fit into a context of {context_tokens} tokens")
    return Window((*context, *continuation)[-kept:], left)


def rolling_windows(tokens: Sequence[int], start: int, context_tokens: int) -> list[Window]:
    """A whole text after the token `start`, in windows of equal size; in the last one the new tokens may be fewer."""
    size = context_tokens - 2  # tokens that are predicted: beside them stand one of context and the generated one
    windows = [Window((start, *tokens[:size]), 1)]
    for done in range(size, len(tokens), size):
        end = min(done + size, len(tokens))
        first = end - size - 1
        windows.append(Window(tuple(tokens[first:end]), done - first))
    return windows
