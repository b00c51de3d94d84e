"""A suite of format `lm-eval`: a tree of lm-eval's own task files, taken as they are.

Its YAML may name functions, includes and any template, so it is only loaded when it is trusted. What is checked here is
only what the lock needs: plain files, in known places, of bounded number and size.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from tiltyard_eval.suite.reading import LOCK_FILE, SUITE_FILE, SuiteError, read_bytes

MAX_FILES = 5000
MAX_FILE_BYTES = 256 * 1024 * 1024
_IGNORED_FILES = (LOCK_FILE, "README.md", SUITE_FILE)
_FOLDERS = ("tasks", "data")


def foreign_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but `suite.yaml` and the lock, by relative path.

    Raises:
        SuiteError: For links and other special files, what lies elsewhere, and Python's caches, which could hold other
            code than the files beside them.
    """
    digests: dict[str, str] = {}
    for relative in _files(folder):
        if len(digests) == MAX_FILES:
            raise SuiteError(f"{folder.name}: more than {MAX_FILES} files")
        digests[relative] = hashlib.sha256(read_bytes(folder, relative, MAX_FILE_BYTES)).hexdigest()
    return digests


def _files(folder: Path) -> list[str]:
    found: list[str] = []
    pending = [""]
    while pending:
        sub = pending.pop()
        for entry in sorted(os.scandir(folder / sub), key=lambda entry: entry.name):
            relative = f"{sub}/{entry.name}" if sub else entry.name
            kind = entry.stat(follow_symlinks=False).st_mode
            if not sub and entry.name in _IGNORED_FILES:
                continue
            if entry.name == "__pycache__":
                raise SuiteError(f"{relative}: Python's cache does not belong in a suite; remove it")
            if stat.S_ISDIR(kind) and (sub or entry.name in _FOLDERS):
                pending.append(relative)
            elif stat.S_ISREG(kind) and sub:
                found.append(relative)
            else:
                raise SuiteError(f"{relative}: only plain files in {list(_FOLDERS)} belong in a suite; remove it")
    return sorted(found)
