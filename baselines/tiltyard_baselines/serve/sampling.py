"""Choosing the next token, and finding where a text stops."""

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from tiltyard_baselines.serve.jobs import TokenScore


class Sampler:
    """Draws the tokens of one row; a row's draws depend on its own seed and logits alone, not on its neighbours."""

    def __init__(self, temperature: float, top_p: float, seed: int | None) -> None:
        self._temperature = temperature
        self._top_p = top_p
        self._generator = torch.Generator()  # on the CPU, so that a seed means the same on every device
        self._generator.manual_seed(secrets.randbits(63) if seed is None else seed)

    def pick(self, logits: Tensor, likeliest: int) -> int:
        """Return the next token for ``logits`` (V,), whose argmax is known."""
        if self._temperature == 0.0:
            return likeliest
        probabilities = (logits.double().cpu() / self._temperature).softmax(-1)
        return int(torch.multinomial(nucleus(probabilities, self._top_p), 1, generator=self._generator))


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of tokens whose mass reaches ``top_p`` (Holtzman et al., 2020); input is (V,)."""
    if top_p >= 1.0:
        return probabilities
    ordered, order = probabilities.sort(descending=True)
    mass_before = ordered.cumsum(-1) - ordered
    keep = torch.zeros_like(probabilities, dtype=torch.bool)
    keep[order] = (mass_before < top_p) | (torch.arange(len(order)) == 0)
    return probabilities * keep


def score_tokens(logits: Tensor, tokens: Sequence[int], top: int) -> tuple[TokenScore, ...]:
    """Score ``tokens`` (T,) under ``logits`` (T, V), with the ``top`` likeliest alternatives of each place."""
    logprobs = logits.float().log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    values, indices = logprobs.topk(min(max(top, 1), logits.shape[-1]))
    alternatives = zip(indices.tolist(), values.tolist(), strict=True)
    return tuple(
        TokenScore(token, logprob, tuple(zip(ids, scores, strict=True)))
        for token, logprob, (ids, scores) in zip(tokens, chosen, alternatives, strict=True)
    )


def cut_at_stop(text: str, stop: Sequence[str]) -> str | None:
    """Return ``text`` up to the earliest stop string, or None when there is none."""
    found = [at for at in (text.find(string) for string in stop) if at >= 0]
    return text[: min(found)] if found else None
