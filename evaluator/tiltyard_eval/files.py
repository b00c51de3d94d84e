"""Writing files so that a reader sees either the old content or the whole new one."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, chunks: Iterable[str]) -> None:
    """Write text to `path` by way of a temporary neighbour, fsync and rename.

    Raises:
        OSError: When the folder is not writable or full; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, [json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False), "\n"])


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_atomically(path, (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
