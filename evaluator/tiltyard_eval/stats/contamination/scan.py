"""From a suite's questions and files of training data to a report of what they share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tiltyard_eval.stats.contamination.overlap import OverlapIndex
from tiltyard_eval.stats.contamination.reading import Record, ScanError, read_records
from tiltyard_eval.stats.contamination.similar import SimilarIndex
from tiltyard_eval.stats.contamination.words import Runs, numbers_of, words_of

_BATCH_WORDS = 200_000
_MAX_PLACES = 5
_SEPARATOR = 0x5E9A_0A70_12C4_77B1  # no hash of a word, but for a chance of 2^-64


@dataclass(frozen=True)
class Item:
    """A question to look for: the name of its task, its number in it, and its text."""

    task: str
    index: int
    text: str


@dataclass(frozen=True)
class Rules:
    """What counts as found.

    Attributes:
        words: Length of the n-grams, at least 2.
        overlap: Share of an item's n-grams that one record has to hold, above 0 and at most 1.
        jaccard: Jaccard index of 3-grams from which on a text is similar, at least 0.5 and at most 1.
        max_shared: Items that may share an n-gram before it counts as the suite's manner of speaking.
    """

    words: int = 8
    overlap: float = 0.7
    jaccard: float = 0.8
    max_shared: int = 2

    def __post_init__(self) -> None:
        if self.words < 2 or self.max_shared < 1:
            raise ScanError("an n-gram has at least two words, and at least one item must be allowed to hold it")
        if not 0.0 < self.overlap <= 1.0:
            raise ScanError("the overlap is a share above 0 and at most 1, such as 0.7")
        if not 0.5 <= self.jaccard <= 1.0:
            raise ScanError("the Jaccard index is a number from 0.5 to 1, such as 0.8: MinHash misses lower ones")


@dataclass(frozen=True)
class Finding:
    """One item that the data holds.

    Attributes:
        task, index: The item.
        contained: Whether some record holds it whole.
        overlap: The largest share of its n-grams in one record.
        jaccard: The largest Jaccard index with one text; 0 below the threshold.
        records: How many records hold it by any rule.
        places: The first of them, as `file:line`; at most five.
    """

    task: str
    index: int
    contained: bool
    overlap: float
    jaccard: float
    records: int
    places: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Items and records looked at, how many lines were no JSON, and the items found, in the suite's order."""

    items: int
    records: int
    not_json: int
    findings: tuple[Finding, ...]

    @property
    def share(self) -> float:
        """Share of the items that were found, 0..1."""
        return len(self.findings) / self.items

    def by_task(self) -> dict[str, int]:
        """How many items of each task were found; tasks without any are left out."""
        counts: dict[str, int] = {}
        for finding in self.findings:
            counts[finding.task] = counts.get(finding.task, 0) + 1
        return counts


@dataclass
class _Seen:
    contained: bool = False
    overlap: float = 0.0
    jaccard: float = 0.0
    records: int = 0
    places: list[str] = field(default_factory=list)


@dataclass
class _Batch:
    """Records that are looked at together: their words one after the other, and the texts as spans of words."""

    records: list[Record] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    record_of_span: list[int] = field(default_factory=list)

    def add(self, record: Record) -> None:
        begin, texts = len(self.numbers), 0
        for text in record.texts:
            first = len(self.numbers)
            self.numbers += numbers_of(words_of(text))
            texts += self._add_span(first)
        if texts > 1:
            self._add_span(begin)
        self.records.append(record)
        self.numbers.append(_SEPARATOR)
        self.ends.append(len(self.numbers))

    def _add_span(self, first: int) -> bool:
        if first == len(self.numbers):
            return False
        self.spans.append((first, len(self.numbers)))
        self.record_of_span.append(len(self.records))
        return True


def scan_files(items: Sequence[Item], paths: Iterable[Path], rules: Rules | None = None) -> Report:
    """Look for a suite's questions in files of training data.

    Args:
        items: The questions; each needs a word.
        paths: Files of JSON Lines, or of plain text. Of a JSON record all strings count, one after the other.
        rules: What counts as found.

    Raises:
        ScanError: When there is no item, an item has no word, or a line is too long.
        OSError: When a file cannot be read.
    """
    return _Scanner(items, rules or Rules()).scan(paths)


class _Scanner:
    def __init__(self, items: Sequence[Item], rules: Rules) -> None:
        numbers = [np.array(numbers_of(words_of(item.text)), dtype=np.uint64) for item in items]
        if not items:
            raise ScanError("the suite has no questions that could be looked for")
        for item, found in zip(items, numbers, strict=True):
            if len(found) == 0:
                raise ScanError(f"item {item.index} of task {item.task} has no word")
        self._items = items
        self._rules = rules
        self._overlap = OverlapIndex(numbers, size=rules.words, max_shared=rules.max_shared)
        self._similar = SimilarIndex(numbers, least=rules.jaccard)
        self._seen: dict[int, _Seen] = {}

    def scan(self, paths: Iterable[Path]) -> Report:
        records = not_json = 0
        batch = _Batch()
        for path in paths:
            for record in read_records(path):
                records += 1
                not_json += not record.is_json
                batch.add(record)
                if len(batch.numbers) >= _BATCH_WORDS:
                    self._look_at(batch)
                    batch = _Batch()
        self._look_at(batch)
        return Report(len(self._items), records, not_json, self._findings())

    def _look_at(self, batch: _Batch) -> None:
        if not batch.records:
            return
        held: set[tuple[int, int]] = set()
        runs = Runs(np.array(batch.numbers, dtype=np.uint64))
        for overlap in self._overlap.find(runs, np.array(batch.ends, dtype=np.int64)):
            if overlap.share >= self._rules.overlap:
                seen = self._seen.setdefault(overlap.item, _Seen())
                seen.contained |= overlap.contained
                seen.overlap = max(seen.overlap, overlap.share)
                held.add((overlap.record, overlap.item))
        texts = list(self._similar.worth_comparing(runs, batch.spans))
        for likeness in self._similar.find([shingles for _, shingles in texts]):
            seen = self._seen.setdefault(likeness.item, _Seen())
            seen.jaccard = max(seen.jaccard, likeness.jaccard)
            held.add((batch.record_of_span[texts[likeness.text][0]], likeness.item))
        for record, item in sorted(held):
            seen = self._seen[item]
            seen.records += 1
            if len(seen.places) < _MAX_PLACES:
                seen.places.append(f"{batch.records[record].file}:{batch.records[record].line}")

    def _findings(self) -> tuple[Finding, ...]:
        return tuple(
            Finding(
                task=self._items[item].task,
                index=self._items[item].index,
                contained=seen.contained,
                overlap=seen.overlap,
                jaccard=seen.jaccard,
                records=seen.records,
                places=tuple(seen.places),
            )
            for item, seen in sorted(self._seen.items())
        )
