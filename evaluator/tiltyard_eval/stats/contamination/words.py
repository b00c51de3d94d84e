"""Texts as sequences of 64-bit numbers, one for each word, and the hashes of runs of words."""

import re
import unicodedata
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_WORD = re.compile(r"\w+|[^\w\s]")
_MAX_CACHED = 1_000_000
# A polynomial modulo 2^64 in an odd, hence invertible, base. Its coefficients are cryptographic hashes of words, so two
# different runs agree with a probability of about 2^-64.
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)

_cache: dict[str, int] = {}


def words_of(text: str) -> list[str]:
    """Words and single marks, in lower case and in Unicode's compatible composed form."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def numbers_of(words: list[str]) -> list[int]:
    """The hash of each word."""
    found = []
    for word in words:
        number = _cache.get(word)
        if number is None:
            if len(_cache) >= _MAX_CACHED:
                _cache.clear()
            number = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
            _cache[word] = number
        found.append(number)
    return found


class Runs:
    """The hashes of all runs of consecutive words of a text, for any length.

    Args:
        numbers: Hashes of the words, shape (words,).
    """

    def __init__(self, numbers: Hashes) -> None:
        self._powers = _powers(_BASE, len(numbers) + 1)
        self._sums = np.zeros(len(numbers) + 1, dtype=np.uint64)
        np.cumsum(numbers * _powers(_INVERSE, len(numbers)), out=self._sums[1:])

    def of_length(self, length: int) -> Hashes:
        """Hashes of the runs that begin at word 0, 1, …; shape (words − length + 1,), empty for too long a run."""
        count = max(0, len(self._sums) - length)
        # Σ nⱼ·b⁻ʲ over the run, moved to its beginning.
        return np.asarray((self._sums[length:] - self._sums[:count]) * self._powers[:count])


def _powers(base: int, count: int) -> Hashes:
    """1, base, base², … modulo 2^64, shape (count,)."""
    factors = np.full(max(count, 1), base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)[:count]
