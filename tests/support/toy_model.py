"""A toy language model for tests: a tokenizer whose tokens reach across borders, and log-probabilities from hashes.

The same text always has the same tokens and the same log-probabilities, on every machine. Standard library only.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BOS = "<s>"
# A word is cut into pieces of four letters, the space before it belongs to the first: a context that ends within a word
# may end within a token. What is not ASCII is cut into bytes.
_PIECE = re.compile(r"<s>| ?[A-Za-z]{1,4}|\n+| |[^A-Za-z\s]|\s", re.ASCII)
_START = b"start"


@dataclass(frozen=True)
class Scored:
    """A token's bytes, its log-probability after all before it, and the best one's; both None for a text's first."""

    token: bytes
    logprob: float | None
    best: float | None

    @property
    def piece(self) -> str:
        return self.token.decode(errors="replace")


def encode(text: str) -> list[bytes]:
    return [token for match in _PIECE.finditer(text) for token in _tokens(match.group())]


def _tokens(piece: str) -> list[bytes]:
    raw = piece.encode()
    return [raw] if raw.isascii() else [raw[at : at + 1] for at in range(len(raw))]


def decode(tokens: Sequence[bytes]) -> str:
    return b"".join(tokens).decode(errors="replace")


def score(tokens: Sequence[bytes]) -> list[Scored]:
    """Every token with its log-probability. A start token changes nothing for what follows it."""
    return list(_score(tokens))


def _score(tokens: Sequence[bytes]) -> Iterator[Scored]:
    state = _START
    for number, token in enumerate(tokens):
        if token == BOS.encode():
            yield Scored(token, None, None)
            state = _START
            continue
        state = hashlib.sha256(state + token).digest()
        if number == 0:
            yield Scored(token, None, None)
            continue
        logprob = -0.01 - 8 * state[0] / 256 - state[1] / 4096
        yield Scored(token, logprob, logprob if state[2] % 4 else logprob / 2)


def likelihood(context: str, continuation: str) -> tuple[float, bool, int]:
    """Log-likelihood, whether greedy, number of tokens; cut where lm-eval cuts."""
    stripped = context.rstrip()
    whole = encode(BOS + context + continuation)
    scored = score(whole)[len(encode(BOS + stripped)) :]
    return sum(one.logprob or 0.0 for one in scored), all(one.logprob == one.best for one in scored), len(scored)


def generate(prompt: str, stop: Sequence[str], max_tokens: int) -> str:
    """A text that is sometimes an answer to be found, sometimes a number, and cut at the stop strings."""
    digest = hashlib.sha256(prompt.encode()).digest()
    digits = re.findall(r"[0-9]", prompt)
    number = int(digits[-1]) if digits and digest[0] % 2 else digest[0] % 7
    forms = (
        f" {number}",
        f" The answer is {number}.\n\nQuestion: more",
        f"  YES\n{number}",
        f" #### {number}\n",
        " ünïcode – “quotes”\n",
        "",
        f" {number} {digest[1] % 7} {digest[2] % 7}",
    )
    text = forms[digest[3] % len(forms)]
    for one in stop:
        text = text.split(one, 1)[0]
    return decode(encode(text)[:max_tokens]) if math.isfinite(max_tokens) else text
