"""A prefix cache as servers have one, over characters: it keeps the last texts, and reuses what begins alike."""

from collections import deque
from collections.abc import Sequence


class PrefixCache:
    """Args: kept: Texts that it holds; the oldest one goes first."""

    def __init__(self, kept: int) -> None:
        self._texts: deque[str] = deque(maxlen=kept)
        self.reused_chars = 0
        self.total_chars = 0

    def read(self, text: str) -> None:
        best = max((_common(text, other) for other in self._texts), default=0)
        self.reused_chars += best
        self.total_chars += len(text)
        self._texts.append(text)

    @property
    def share(self) -> float:
        """Share of all characters that needed no computing."""
        return self.reused_chars / max(1, self.total_chars)


def reused_share(texts: Sequence[str], kept: int) -> float:
    cache = PrefixCache(kept)
    for text in texts:
        cache.read(text)
    return cache.share


def _common(first: str, second: str) -> int:
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return number
    return min(len(first), len(second))
