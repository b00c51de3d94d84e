"""Training data as a stream of records: JSON Lines, or any text line by line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 64 * 1024 * 1024


class ScanError(ValueError):
    """The data or the suite cannot be scanned; the message says what to do, and holds no question."""


@dataclass(frozen=True)
class Record:
    """One line. `texts` are the string values of its JSON in their order, or the line itself when it is no JSON."""

    file: str
    line: int
    texts: tuple[str, ...]
    is_json: bool


def read_records(path: Path) -> Iterator[Record]:
    """Read a file line by line; empty lines are left out.

    Raises:
        ScanError: When a line is larger than 64 MiB.
        OSError: When the file cannot be read.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(_lines(file, path), 1):
            if raw.strip():
                yield _record(raw, path.name, number)


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise ScanError(f"{path.name} line {number} is larger than {MAX_LINE_BYTES} bytes; break it into records")
        yield raw


def _record(raw: bytes, file: str, line: int) -> Record:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        # Not to be skipped: a broken line must not hide what it holds.
        return Record(file, line, (raw.decode("utf-8", "replace"),), is_json=False)
    return Record(file, line, tuple(_strings(value)), is_json=True)


def _strings(value: object) -> Iterator[str]:
    """All strings within, keys of objects excepted, in the order of the text."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            left.extend(reversed(list(one.values())))
        elif isinstance(one, list):
            left.extend(reversed(one))
