"""Restore a backup into a site that is empty: everything is checked before anything is written."""

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from django.conf import settings
from django.core import serializers
from django.core.management import call_command
from django.core.management.color import no_style
from django.db import connection, transaction

from tiltyard.operations.backups.contents import (
    DATABASE,
    FILES,
    MANIFEST,
    SCHEMA,
    BackupError,
    folders,
    migrations,
    sha256_of,
    stored_models,
)
from tiltyard.submissions.ownership import claim_store
from tiltyard.submissions.stores import DISK, StoreError, store


def restore(directory: Path, say: Callable[[str], None], *, takes_over: bool = False) -> dict[str, Any]:
    """Bring a backup's rows and files into this site and return its manifest.

    The database must hold no rows and is migrated first; files that are there already must be the same, and the store
    of artefacts nobody's, unless it is taken over. Raises BackupError; before the rows are written, nothing but the
    store's owner, and files that a second try takes up, has changed.
    """
    manifest = _read_manifest(directory)
    _check_files(directory, manifest)
    say(f"{len(manifest['files'])} files have the hashes that the manifest names")
    call_command("migrate", interactive=False, verbosity=0)
    if migrations() != manifest["migrations"]:
        raise BackupError(
            f"The backup was made by Tiltyard {manifest['version']} with other tables. Restore it with that version, "
            "then update the site."
        )
    filled = [model._meta.label for model in stored_models() if model._base_manager.exists()]
    if filled:
        raise BackupError(f"The database is not empty: it has rows of {filled[0]}. Restore into a new one.")
    try:
        claim_store(takes_over=takes_over)
    except StoreError as error:
        raise BackupError(f"{error} Here: manage.py restore --take-over-store.") from error
    _place_files(directory, manifest)
    _load_rows(directory / DATABASE, manifest)
    say(f"{sum(manifest['rows'].values())} rows are restored")
    return manifest


def _read_manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise BackupError(f"{directory} has no {MANIFEST}: it is no backup, or one that was not finished.") from None
    except ValueError:
        raise BackupError(f"{directory / MANIFEST} is not JSON: it was damaged.") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise BackupError(f"{directory / MANIFEST} is not of {SCHEMA}.")
    return manifest


def _check_files(directory: Path, manifest: dict[str, Any]) -> None:
    for entry in manifest["files"]:
        path = directory / _relative(entry["path"])
        if not path.is_file() or path.is_symlink():
            raise BackupError(f"{path} is missing from the backup.")
        if path.stat().st_size != entry["bytes"] or sha256_of(path) != entry["sha256"]:
            raise BackupError(f"{path} does not have the hash that the manifest names: it was damaged.")
    if DATABASE not in {entry["path"] for entry in manifest["files"]}:
        raise BackupError(f"The manifest does not name {DATABASE}.")


def _relative(path: str) -> PurePosixPath:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise BackupError(f"The manifest names a file outside the backup: {path[:200]!r}.")
    return pure


def _place_files(directory: Path, manifest: dict[str, Any]) -> None:
    roots = folders()
    for entry in manifest["files"]:
        parts = _relative(entry["path"]).parts
        if parts[0] != FILES or len(parts) < 3:
            continue
        if parts[1] not in roots:
            raise BackupError(f"The manifest names a folder that this version does not know: {parts[1][:80]!r}.")
        place = roots[parts[1]].joinpath(*parts[2:])
        if parts[1] == "artefacts" and settings.ARTEFACT_STORE != DISK:
            _store(directory.joinpath(*parts), entry["sha256"])
            continue
        if place.exists():
            if sha256_of(place) != entry["sha256"]:
                raise BackupError(f"{place} is there already with another content. Restore into empty folders.")
            continue
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _copy_whole(directory.joinpath(*parts), place, 0o600 if parts[1] in {"secrets", "signing"} else 0o444)
    suites = roots["suites"]
    for folder in [suites, *(path for path in suites.rglob("*") if path.is_dir())]:
        folder.chmod(0o755 if folder != suites else 0o700)  # the evaluator's account reads a mounted suite


def _store(path: Path, sha256: str) -> None:
    try:
        store().send_ahead(path, sha256)  # which leaves the backup's file where it is
    except StoreError as error:
        raise BackupError(f"{error} Start anew when the store answers: what is there is not sent again.") from error


def _copy_whole(source: Path, place: Path, mode: int) -> None:
    """Under another name first, so that a file that is there is whole."""
    scratch = place.with_name(f".{place.name}.restoring")
    shutil.copyfile(source, scratch)
    scratch.chmod(mode)
    scratch.replace(place)


def _load_rows(path: Path, manifest: dict[str, Any]) -> None:
    loaded: Counter[str] = Counter()
    tables = [model._meta.db_table for model in stored_models()]
    with transaction.atomic(), connection.constraint_checks_disabled():
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in serializers.deserialize("jsonl", file, handle_forward_references=True):
                row.save()
                loaded[row.object._meta.label] += 1
        connection.check_constraints(table_names=tables)
        expected = {label: count for label, count in manifest["rows"].items() if count}
        if dict(loaded) != expected:
            raise BackupError("The database's file does not hold the rows that the manifest counts.")
        _reset_sequences()


def _reset_sequences() -> None:
    """Rows came with their keys, so the counters that give new ones must begin behind them."""
    statements = connection.ops.sequence_reset_sql(no_style(), stored_models())
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
