"""Reading a suite's folder as hostile input: only plain files, in known places, of bounded size."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltyard_eval.safe_yaml import MAX_YAML_BYTES, YamlError, load_plain_yaml

MAX_TASKS = 200
MAX_DATA_BYTES = 16 * 1024 * 1024
MAX_ITEMS_PER_TASK = 20_000
MAX_PROMPT_CHARS = 20_000
MAX_ANSWER_CHARS = 2_000

SUITE_FILE = "suite.yaml"
LOCK_FILE = "suite.lock"
_IGNORED_FILES = ("README.md",)
_ITEM_KEYS = {"prompt", "answer", "task", "level"}
# lm-eval reads data through Arrow, which turns a column of ISO dates into time stamps and so changes the text.
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\b.*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class SuiteError(ValueError):
    """A suite cannot be used; the message names the file and what to do, and holds no question or answer."""


@dataclass(frozen=True)
class SuiteItem:
    """One question of a suite; ``extra`` are the further fields of its line: task and level, where given."""

    prompt: str
    answer: str
    extra: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The line as it stands in the file, as a JSON object."""
        return {"prompt": self.prompt, "answer": self.answer, **self.extra}


def check_name(value: object, where: str) -> str:
    """A name of a suite or task, safe as a file name; raises ``SuiteError``."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise SuiteError(f"{where}: {value!r} is no name: use a-z, 0-9, _ and -, at most 64 characters")
    return value


def check_text(value: object, where: str, max_chars: int) -> str:
    """Non-empty text that can be written as UTF-8; raises ``SuiteError`` without quoting the text."""
    if not isinstance(value, str) or not value or len(value) > max_chars:
        raise SuiteError(f"{where}: must be text of 1 to {max_chars} characters")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise SuiteError(f"{where}: holds a lone surrogate, which UTF-8 cannot write") from None
    return value


def list_files(folder: Path) -> list[str]:
    """The suite's files but its lock, as sorted relative paths with ``/``.

    Raises:
        SuiteError: When the folder is missing or holds anything but plain files in the places of the format.
    """
    if not folder.is_dir():
        raise SuiteError(f"{folder}: no such folder; a suite is a folder with {SUITE_FILE}")
    found: list[str] = []
    for sub, suffix in (("", None), ("tasks", ".yaml"), ("data", ".jsonl")):
        try:
            entries = sorted(os.scandir(folder / sub), key=lambda entry: entry.name)
        except OSError as error:
            raise SuiteError(f"{folder.name}/{sub}: cannot be listed: {error.strerror}") from error
        for entry in entries:
            relative = f"{sub}/{entry.name}" if sub else entry.name
            kind = entry.stat(follow_symlinks=False).st_mode
            if not sub and entry.name in ("tasks", "data") and stat.S_ISDIR(kind):
                continue
            if not stat.S_ISREG(kind):
                raise SuiteError(f"{relative}: only plain files are allowed, no links, folders or devices")
            if suffix is None and entry.name in (LOCK_FILE, *_IGNORED_FILES):
                continue
            if (suffix is None and entry.name != SUITE_FILE) or (
                suffix is not None and not entry.name.endswith(suffix)
            ):
                raise SuiteError(f"{relative}: does not belong in a suite; remove it")
            found.append(relative)
    if SUITE_FILE not in found:
        raise SuiteError(f"{folder}: {SUITE_FILE} is missing")
    if len(found) > 2 * MAX_TASKS + 1:
        raise SuiteError(f"{folder.name}: {len(found)} files; a suite has at most {MAX_TASKS} tasks")
    return found


def read_bytes(folder: Path, relative: str, max_bytes: int) -> bytes:
    """Read one plain file without following a link at its end; raises ``SuiteError``."""
    try:
        descriptor = os.open(folder / relative, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SuiteError(f"{relative}: only plain files are allowed")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise SuiteError(f"{relative}: cannot be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise SuiteError(f"{relative}: larger than {max_bytes} bytes")
    return content


def read_yaml_file(folder: Path, relative: str) -> dict[str, Any]:
    """Read one YAML file of the suite; raises ``SuiteError``."""
    try:
        return load_plain_yaml(read_bytes(folder, relative, MAX_YAML_BYTES), relative)
    except YamlError as error:
        raise SuiteError(str(error)) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def read_items(folder: Path, relative: str) -> tuple[SuiteItem, ...]:
    """Read the questions of one data file; prompts must differ. Raises ``SuiteError``, naming the line."""
    lines = read_bytes(folder, relative, MAX_DATA_BYTES).splitlines()
    if not 1 <= len(lines) <= MAX_ITEMS_PER_TASK:
        raise SuiteError(f"{relative}: {len(lines)} lines; must be 1 to {MAX_ITEMS_PER_TASK}")
    items = tuple(_parse_item(line, f"{relative} line {number}") for number, line in enumerate(lines, 1))
    seen: set[str] = set()
    for number, item in enumerate(items, 1):
        if item.prompt in seen:
            raise SuiteError(f"{relative} line {number}: the prompt stands twice")
        seen.add(item.prompt)
    return items


def _parse_item(line: bytes, where: str) -> SuiteItem:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise SuiteError(f"{where}: not a JSON object") from None
    if not isinstance(row, dict) or set(row) - _ITEM_KEYS:
        raise SuiteError(f"{where}: must be a JSON object with no keys but {sorted(_ITEM_KEYS)}")
    prompt = check_text(row.pop("prompt", None), f"{where}: prompt", MAX_PROMPT_CHARS)
    answer = check_text(row.pop("answer", None), f"{where}: answer", MAX_ANSWER_CHARS)
    if answer != answer.strip() or "\n" in answer:
        raise SuiteError(f"{where}: the answer must be one line without spaces at its ends")
    if _ISO_DATE.fullmatch(answer):
        raise SuiteError(f"{where}: the answer must not begin with a date like 2001-12-31; write dates in another form")
    if "task" in row:
        check_text(row["task"], f"{where}: task", 64)
    if "level" in row and type(row["level"]) is not int:
        raise SuiteError(f"{where}: level must be an integer")
    return SuiteItem(prompt, answer, row)
