"""Which questions a batch of records contains, whole or in a large share of their n-grams."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tiltyard_eval.stats.contamination.words import Hashes, Runs
from tiltyard_eval.stats.types import FloatArray, IntArray


@dataclass(frozen=True)
class Overlap:
    """What of item `item` stands in record `record` of the batch: its share of n-grams, 1.0 when contained whole."""

    record: int
    item: int
    share: float
    contained: bool


@dataclass(frozen=True)
class _Table:
    """Runs of one length. `owners[starts[k]:starts[k + 1]]` are the items of `hashes[k]`, which are sorted."""

    hashes: Hashes
    starts: IntArray
    owners: IntArray


class OverlapIndex:
    """The runs of words of a suite.

    An n-gram that stands in more than `max_shared` items is the suite's manner of speaking, as in "how many words are
    in this list", and says nothing about any of them; it is left out. An item with fewer than n words, or without any
    n-gram of its own, can only be found whole.

    Args:
        items: For each item the hashes of its words, shape (words,); none empty.
        size: n, in words.
        max_shared: Items that may share an n-gram.
    """

    def __init__(self, items: Sequence[Hashes], *, size: int, max_shared: int) -> None:
        by_length: dict[int, list[tuple[Hashes, int]]] = {}
        for item, numbers in enumerate(items):
            by_length.setdefault(len(numbers), []).append((Runs(numbers).of_length(len(numbers)), item))
        self._whole = {length: _table(groups) for length, groups in by_length.items()}
        grams = [(np.unique(Runs(numbers).of_length(size)), item) for item, numbers in enumerate(items)]
        table = _table([(hashes, item) for hashes, item in grams if len(hashes) > 0])
        own = np.diff(table.starts) <= max_shared
        self._size = size
        self._grams = _Table(
            table.hashes[own],
            np.concatenate([[0], np.cumsum(np.diff(table.starts)[own])]).astype(np.int64),
            table.owners[np.repeat(own, np.diff(table.starts))],
        )
        self._grams_of_item: FloatArray = np.bincount(self._grams.owners, minlength=len(items)).astype(np.float64)

    def find(self, runs: Runs, ends: IntArray) -> Iterator[Overlap]:
        """Look through a batch of records, written one after the other.

        Args:
            runs: Of the words of all records; between records stands a hash that is no word's.
            ends: Where each record ends, counted in words, shape (records,).
        """
        contained = set()
        for length, table in self._whole.items():
            contained |= set(_pairs(table, runs.of_length(length), ends))
        shares: dict[tuple[int, int], int] = {}
        for pair in _pairs(self._grams, runs.of_length(self._size), ends):
            shares[pair] = shares.get(pair, 0) + 1
        for record, item in sorted(contained | shares.keys()):
            whole = (record, item) in contained
            share = 1.0 if whole else shares[record, item] / float(self._grams_of_item[item])
            yield Overlap(record, item, share, whole)


def _table(groups: list[tuple[Hashes, int]]) -> _Table:
    if not groups:
        return _Table(np.zeros(0, np.uint64), np.zeros(1, np.int64), np.zeros(0, np.int64))
    hashes = np.concatenate([group for group, _ in groups])
    owners = np.concatenate([np.full(len(group), item, dtype=np.int64) for group, item in groups])
    order = np.argsort(hashes, kind="stable")
    unique, starts = np.unique(hashes[order], return_index=True)
    return _Table(unique, np.append(starts, len(hashes)).astype(np.int64), owners[order])


def _pairs(table: _Table, runs: Hashes, ends: IntArray) -> Iterator[tuple[int, int]]:
    """A pair of record and item for each different run of the record that is one of the item's."""
    if len(runs) == 0 or len(table.hashes) == 0:
        return
    places = np.searchsorted(table.hashes, runs)
    places[places == len(table.hashes)] = 0
    hits = np.flatnonzero(table.hashes[places] == runs)  # words at which a known run begins
    records = np.searchsorted(ends, hits, side="right")
    found = np.unique(np.stack([records, places[hits]], axis=1), axis=0) if len(hits) else np.zeros((0, 2), np.int64)
    for record, place in found.tolist():
        for item in table.owners[table.starts[place] : table.starts[place + 1]].tolist():
            yield record, item
