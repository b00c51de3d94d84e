"""Write a backup: a snapshot of the rows, then the files that they name."""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core import serializers
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, models, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

import tiltyard_eval
from tiltyard.operations.backups.contents import (
    DATABASE,
    FILES,
    MANIFEST,
    SCHEMA,
    BackupError,
    described,
    folders,
    migrations,
    stored_models,
)
from tiltyard.submissions.models import Artefact, Submission
from tiltyard.submissions.stores import StoreError, store

_CHUNK_ROWS = 500


def back_up(directory: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Write a backup into a new or empty folder and return its manifest, which is written last.

    A folder without a manifest is no backup: the command was stopped. Raises BackupError.
    """
    _make_private(directory)
    with _snapshot():
        rows = _write_rows(directory / DATABASE)
        artefacts = list(_referred_to(Artefact).order_by("sha256").values_list("sha256", flat=True))
        applied = migrations()
    say(f"{sum(rows.values())} rows of {len(rows)} models")
    entries = [described(directory / DATABASE, directory)]
    for source, place in _files(artefacts, directory / FILES, say):
        entries.append(_copy(source, place, directory))
    say(f"{len(entries) - 1} files, {sum(entry['bytes'] for entry in entries)} bytes in all")
    manifest = {
        "schema": SCHEMA,
        "made_at": timezone.now().isoformat(),
        "version": tiltyard_eval.__version__,
        "database": connection.vendor,
        "migrations": applied,
        "rows": rows,
        "files": entries,
    }
    _write_durably(directory / MANIFEST, json.dumps(manifest, indent=1).encode())
    return manifest


def _make_private(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise BackupError(f"{directory} exists and is not an empty folder. Name a new one.")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)


@contextmanager
def _snapshot() -> Iterator[None]:
    """All rows as they were at one moment, while others go on writing."""
    if connection.vendor == "postgresql":
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield
        return
    # Django would begin an IMMEDIATE transaction, which keeps writers out; a deferred one reads a snapshot of the log.
    if connection.in_atomic_block:
        raise BackupError("A backup is made outside of a transaction.")
    with connection.cursor() as cursor:
        cursor.execute("BEGIN DEFERRED")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


def _write_rows(path: Path) -> dict[str, int]:
    """Every row as one line; how many of each model."""
    rows: dict[str, int] = {}
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=6) as file:
        for model in stored_models():
            label = model._meta.label
            rows[label] = 0
            for line in _lines(model):
                file.write(line)
                rows[label] += 1
    path.chmod(0o600)
    return rows


def _referred_to(model: type[models.Model]) -> models.QuerySet[Any]:
    """Its rows, of artefacts those of submissions: another's file may not be there yet, or may never come."""
    rows = model._base_manager.all()
    return rows.filter(Exists(Submission.objects.filter(artefact=OuterRef("pk")))) if model is Artefact else rows


def _lines(model: type[models.Model]) -> Iterator[str]:
    for row in _referred_to(model).order_by("pk").iterator(chunk_size=_CHUNK_ROWS):
        yield serializers.serialize("jsonl", [row], use_natural_foreign_keys=True, cls=_ExactEncoder)


class _ExactEncoder(DjangoJSONEncoder):
    """Times to the microsecond; Django's own encoder cuts them."""

    def default(self, value: Any) -> Any:
        return value.isoformat() if isinstance(value, datetime) else super().default(value)


def _files(artefacts: list[str], place: Path, say: Callable[[str], None]) -> Iterator[tuple[Path, Path]]:
    """Each file with its place in the backup: the artefacts that the rows name, and all of the other folders."""
    for name, root in folders().items():
        if name == "artefacts":
            for sha256 in artefacts:
                with ExitStack() as fetching:
                    try:
                        source = fetching.enter_context(store().fetched(sha256))
                    except StoreError as error:
                        if Submission.objects.filter(artefact__sha256=sha256).exists():
                            is_lost = store().answers()
                            advice = "The database names it: the site has lost it." if is_lost else "Try again later."
                            raise BackupError(f"{error} {advice}") from error
                        say(f"The artefact {sha256} was removed meanwhile, with its submissions: it is left out.")
                        continue
                    yield source, place / name / sha256[:2] / sha256
        elif root.is_dir():
            for path in sorted(root.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    yield path, place / name / path.relative_to(root)


def _copy(source: Path, place: Path, root: Path) -> dict[str, Any]:
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        shutil.copyfile(source, place)
    except FileNotFoundError:
        raise BackupError(f"{source} is missing, though the database names it: the site has lost it.") from None
    place.chmod(0o600)
    entry = described(place, root)
    if "artefacts" in place.parts[len(root.parts) :][:2] and entry["sha256"] != place.name:
        raise BackupError(f"{source} does not have the content that its name says: the disk has changed it.")
    return entry


def _write_durably(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
