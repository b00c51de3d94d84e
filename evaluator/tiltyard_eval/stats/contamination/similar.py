"""Texts that resemble a question: MinHash signatures in bands, then the Jaccard index itself.

With 32 bands of 4 rows a pair with Jaccard index J becomes a candidate with probability 1 − (1 − J⁴)³²: 0.9998 at 0.7,
0.87 at 0.5, 0.05 at 0.2. Candidates are then compared exactly, so that nothing is reported by chance.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tiltyard_eval.stats.contamination.words import Hashes, Runs
from tiltyard_eval.stats.types import IntArray

SHINGLE_WORDS = 3
BANDS = 32
ROWS = 4
_CHUNK_SHINGLES = 16_384  # times 128 hashes of 8 bytes: 16 MB


@dataclass(frozen=True)
class Likeness:
    """Text `text` of the batch has the Jaccard index `jaccard` with item `item`."""

    text: int
    item: int
    jaccard: float


def shingles_of(short_runs: Sequence[Hashes], begin: int, end: int) -> Hashes:
    """The distinct 3-grams of words `begin` to `end` as hashes, sorted; for fewer words the one run that there is."""
    length = min(SHINGLE_WORDS, end - begin)
    return np.unique(short_runs[length - 1][begin : end - length + 1])


def short_runs_of(runs: Runs) -> list[Hashes]:
    """The hashes of all runs of 1, 2 and 3 words, as `shingles_of` takes them."""
    return [runs.of_length(length) for length in range(1, SHINGLE_WORDS + 1)]


class SimilarIndex:
    """The signatures of a suite's items.

    Args:
        items: For each item the hashes of its words, shape (words,); none empty.
        least: The lowest Jaccard index that is reported, above 0.
    """

    def __init__(self, items: Sequence[Hashes], *, least: float) -> None:
        self._least = least
        self._shingles = [shingles_of(short_runs_of(Runs(numbers)), 0, len(numbers)) for numbers in items]
        sizes = [len(shingles) for shingles in self._shingles]
        # |A ∩ B|/|A ∪ B| is at most the smaller size by the larger, so other texts need not be looked at.
        self._sizes = (least * min(sizes), max(sizes) / least)
        keys = _band_keys(self._shingles)  # (items, bands)
        orders = np.argsort(keys, axis=0, kind="stable")
        self._owners = orders.T
        self._keys = np.take_along_axis(keys, orders, axis=0).T  # (bands, items), sorted within a band

    def worth_comparing(self, runs: Runs, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, Hashes]]:
        """The texts that can resemble any item at all, by their number of shingles.

        Args:
            runs: Of the words of a batch.
            spans: First word and end of each text; none empty.

        Yields:
            Pairs of a text's place in `spans` and its shingles.
        """
        short_runs = short_runs_of(runs)
        for place, (begin, end) in enumerate(spans):
            # A text has at most as many distinct shingles as places to begin one at.
            if max(1, end - begin - SHINGLE_WORDS + 1) >= self._sizes[0]:
                shingles = shingles_of(short_runs, begin, end)
                if self._sizes[0] <= len(shingles) <= self._sizes[1]:
                    yield place, shingles

    def find(self, texts: Sequence[Hashes]) -> Iterator[Likeness]:
        """Compare a batch of texts, given by their `shingles_of`."""
        if not texts:
            return
        candidates: set[tuple[int, int]] = set()
        for band, keys in enumerate(_band_keys(texts).T):
            low = np.searchsorted(self._keys[band], keys, side="left")
            high = np.searchsorted(self._keys[band], keys, side="right")
            for text in np.flatnonzero(high > low).tolist():
                candidates |= {(text, int(item)) for item in self._owners[band, low[text] : high[text]]}
        for text, item in sorted(candidates):
            both = len(np.intersect1d(texts[text], self._shingles[item], assume_unique=True))
            jaccard = both / (len(texts[text]) + len(self._shingles[item]) - both)
            if jaccard >= self._least:
                yield Likeness(text, item, jaccard)


def _constants() -> tuple[Hashes, Hashes, Hashes]:
    rng = np.random.default_rng(20_240)  # fixed: the same data gives the same candidates
    draws = rng.integers(0, 2**64, size=(3, BANDS * ROWS), dtype=np.uint64)
    return draws[0] | np.uint64(1), draws[1], draws[2] | np.uint64(1)


_FACTORS, _OFFSETS, _MIXERS = _constants()


def _band_keys(texts: Sequence[Hashes]) -> Hashes:
    """One number for each text and band, equal where all rows of the band agree; shape (texts, bands)."""
    sizes = np.array([len(text) for text in texts], dtype=np.int64)
    keys = np.empty((len(texts), BANDS), dtype=np.uint64)
    begin = 0
    while begin < len(texts):
        fitting = np.searchsorted(np.cumsum(sizes[begin:]), _CHUNK_SHINGLES, side="right")
        end = begin + max(1, int(fitting))
        keys[begin:end] = _keys_of_chunk(np.concatenate(texts[begin:end]), sizes[begin:end])
        begin = end
    return keys


def _keys_of_chunk(shingles: Hashes, sizes: IntArray) -> Hashes:
    hashed = shingles[None, :] * _FACTORS[:, None] + _OFFSETS[:, None]  # (bands · rows, shingles)
    hashed ^= hashed >> np.uint64(29)  # a product's low bits do not depend on the factor's high ones
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    signatures = np.minimum.reduceat(hashed, starts, axis=1)  # (bands · rows, texts)
    mixed = (signatures * _MIXERS[:, None]).reshape(BANDS, ROWS, len(sizes))
    return np.asarray(np.bitwise_xor.reduce(mixed ^ (mixed >> np.uint64(31)), axis=1).T)
