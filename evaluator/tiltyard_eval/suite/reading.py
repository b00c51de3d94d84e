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

from tiltyard_eval.checks import Check, CheckError, fulfils, parse_checks
from tiltyard_eval.safe_yaml import MAX_YAML_BYTES, YamlError, load_plain_yaml
from tiltyard_eval.skeletons import Skeleton

MAX_TASKS = 200
MAX_DATA_BYTES = 16 * 1024 * 1024
MAX_ITEMS_PER_TASK = 20_000
MAX_PROMPT_CHARS = 20_000
MAX_ANSWER_CHARS = 2_000

SUITE_FILE = "suite.yaml"
LOCK_FILE = "suite.lock"
_IGNORED_FILES = ("README.md",)
MAX_CHOICES = 32
MAX_FIELDS = 16
_ITEM_KEYS = {"prompt", "answer", "task", "level", "skeleton", "twin"}
_WRITTEN_KEYS = _ITEM_KEYS | {"checks"}
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
# lm-eval reads data through Arrow, which turns a column of ISO dates into time stamps and so changes the text.
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\b.*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class SuiteError(ValueError):
    """A suite cannot be used; the message names the file and what to do, and holds no question or answer."""


@dataclass(frozen=True)
class SuiteItem:
    """One question of a suite; ``extra`` are the further fields of its line, checked, as far as they are given.

    They are choices, checks, task, level, skeleton and twin. None of them is ever sent to a server.
    """

    prompt: str
    answer: str
    extra: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """What may stand only once in a suite: the prompt, or where it is empty the answer."""
        return self.prompt or self.answer

    @property
    def skeleton(self) -> Skeleton | None:
        """What the item's family drew, where the line says it."""
        value = self.extra.get("skeleton")
        return None if value is None else Skeleton(value["family"], value["fields"])

    @property
    def cluster(self) -> str | None:
        """The same for all items of one skeleton; None where the line names none."""
        skeleton = self.skeleton
        return None if skeleton is None else skeleton.cluster(self.answer)

    @property
    def twin(self) -> tuple[str, int] | None:
        """Task and index of the open item whose paraphrase twin this is."""
        value = self.extra.get("twin")
        return None if value is None else (value["task"], value["index"])

    @property
    def checks(self) -> tuple[Check, ...]:
        """What every right answer fulfils; empty where the gold answer alone is right."""
        return tuple(Check(entry["check"], entry["value"]) for entry in self.extra.get("checks", ()))

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


def check_folder(folder: Path) -> None:
    """Raise ``SuiteError`` unless the folder exists and names itself a suite."""
    if not folder.is_dir():
        raise SuiteError(f"{folder}: no such folder; a suite is a folder with {SUITE_FILE}")
    if not os.path.lexists(folder / SUITE_FILE):
        raise SuiteError(f"{folder}: {SUITE_FILE} is missing")


def list_files(folder: Path) -> list[str]:
    """The suite's files but its lock, as sorted relative paths with ``/``.

    Raises:
        SuiteError: When the folder is missing or holds anything but plain files in the places of the format.
    """
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


def read_items(folder: Path, relative: str, output_type: str = "generate_until") -> tuple[SuiteItem, ...]:
    """Read the questions of one data file; no two may be the same. Raises ``SuiteError``, naming the line."""
    lines = read_bytes(folder, relative, MAX_DATA_BYTES).splitlines()
    if not 1 <= len(lines) <= MAX_ITEMS_PER_TASK:
        raise SuiteError(f"{relative}: {len(lines)} lines; must be 1 to {MAX_ITEMS_PER_TASK}")
    parse = _parse_item if output_type == "generate_until" else _parse_scored_item
    items = tuple(parse(line, f"{relative} line {number}", output_type) for number, line in enumerate(lines, 1))
    seen: set[str] = set()
    for number, item in enumerate(items, 1):
        if item.identity in seen:
            raise SuiteError(f"{relative} line {number}: the prompt stands twice")
        seen.add(item.identity)
    return items


def _parse_row(line: bytes, where: str, keys: set[str]) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise SuiteError(f"{where}: not a JSON object") from None
    if not isinstance(row, dict) or set(row) - keys:
        raise SuiteError(f"{where}: must be a JSON object with no keys but {sorted(keys)}")
    if "task" in row:
        check_text(row["task"], f"{where}: task", 64)
    if "level" in row and type(row["level"]) is not int:
        raise SuiteError(f"{where}: level must be an integer")
    if "skeleton" in row:
        _check_skeleton(row["skeleton"], f"{where}: skeleton")
    if "twin" in row:
        _check_twin(row["twin"], f"{where}: twin", has_skeleton="skeleton" in row)
    return row


def _check_skeleton(value: object, where: str) -> None:
    if not isinstance(value, dict) or value.keys() != {"family", "fields"}:
        raise SuiteError(f"{where}: must be an object with family and fields")
    check_text(value["family"], f"{where}: family", 64)
    fields = value["fields"]
    if not isinstance(fields, dict) or not 1 <= len(fields) <= MAX_FIELDS:
        raise SuiteError(f"{where}: fields must be an object with 1 to {MAX_FIELDS} texts")
    for name, text in fields.items():
        if not _FIELD_NAME.fullmatch(name):
            raise SuiteError(f"{where}: a field's name is made of a-z, 0-9 and _")
        _refuse_date(check_text(text, f"{where}: {name}", MAX_PROMPT_CHARS), f"{where}: {name}")


def _check_twin(value: object, where: str, *, has_skeleton: bool) -> None:
    if not isinstance(value, dict) or value.keys() != {"task", "index"}:
        raise SuiteError(f"{where}: must be an object with the task and the index of an open item")
    check_name(value["task"], f"{where}: task")
    if type(value["index"]) is not int or not 0 <= value["index"] < MAX_ITEMS_PER_TASK:
        raise SuiteError(f"{where}: index must be an integer from 0 to {MAX_ITEMS_PER_TASK - 1}")
    if not has_skeleton:
        raise SuiteError(f"{where}: a twin needs a skeleton")


def _parse_item(line: bytes, where: str, _output_type: str) -> SuiteItem:
    row = _parse_row(line, where, _WRITTEN_KEYS)
    prompt = check_text(row.pop("prompt", None), f"{where}: prompt", MAX_PROMPT_CHARS)
    answer = check_text(row.pop("answer", None), f"{where}: answer", MAX_ANSWER_CHARS)
    if answer != answer.strip() or "\n" in answer:
        raise SuiteError(f"{where}: the answer must be one line without spaces at its ends")
    _refuse_date(answer, f"{where}: the answer")
    if "checks" in row:
        _check_checks(row["checks"], answer, f"{where}: checks")
    return SuiteItem(prompt, answer, row)


def _check_checks(value: object, answer: str, where: str) -> None:
    try:
        checks = parse_checks(value)
    except CheckError as error:
        raise SuiteError(f"{where}: {error}") from None
    if not fulfils(answer, checks):
        raise SuiteError(f"{where}: the line's own answer does not fulfil them")


def _parse_scored_item(line: bytes, where: str, output_type: str) -> SuiteItem:
    """A question whose answer is scored, not written: it may have any form, and the prompt may be empty."""
    several = output_type == "multiple_choice"
    row = _parse_row(line, where, _ITEM_KEYS | ({"choices"} if several else set()))
    prompt = row.pop("prompt", "")
    if prompt != "":
        check_text(prompt, f"{where}: prompt", MAX_PROMPT_CHARS)
    answer = check_text(row.pop("answer", None), f"{where}: answer", MAX_PROMPT_CHARS)
    _refuse_date(answer, f"{where}: the answer")
    if several:
        choices = row.get("choices")
        if not isinstance(choices, list) or not 2 <= len(choices) <= MAX_CHOICES:
            raise SuiteError(f"{where}: choices must be a list of 2 to {MAX_CHOICES}")
        for choice in choices:
            _refuse_date(check_text(choice, f"{where}: a choice", MAX_ANSWER_CHARS), f"{where}: a choice")
        if len(set(choices)) != len(choices) or answer not in choices:
            raise SuiteError(f"{where}: the choices must differ, and the answer must be one of them")
    return SuiteItem(prompt, answer, row)


def _refuse_date(text: str, where: str) -> None:
    if _ISO_DATE.fullmatch(text):
        raise SuiteError(f"{where} must not begin with a date like 2001-12-31; write dates in another form")
