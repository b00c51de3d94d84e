"""What a backup holds, and how its files are named and hashed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core import serializers
from django.db import connection, models
from django.db.migrations.recorder import MigrationRecorder

SCHEMA: Final = "tiltyard.backup/1"
MANIFEST: Final = "manifest.json"
DATABASE: Final = "database.jsonl.gz"
FILES: Final = "files"
_BLOCK_BYTES: Final = 1 << 20
# Made by migrations, or worth nothing elsewhere.
_LEFT_OUT: Final = frozenset(
    {
        "contenttypes.ContentType",
        "auth.Permission",
        "sessions.Session",
        "uploads.Upload",
        "submissions.StoreOwner",
    }
)


class BackupError(Exception):
    """A backup cannot be made or restored; the message says what to do."""


def stored_models() -> list[type[models.Model]]:
    """Every model whose rows are kept, those that others refer to by name first."""
    chosen = {
        config: [model for model in config.get_models() if model._meta.label not in _LEFT_OUT]
        for config in apps.get_app_configs()
    }
    ordered: list[type[models.Model]] = serializers.sort_dependencies(chosen.items(), allow_cycles=True)
    return [model for model in ordered if not model._meta.proxy and model._meta.managed]


def folders() -> dict[str, Path]:
    """The folders whose files are kept, by their name in a backup."""
    return {
        "artefacts": Path(settings.ARTEFACT_DIR),
        "suites": Path(settings.SUITE_DIR),
        "secrets": Path(settings.SECRETS_DIR),
        "signing": Path(settings.SIGNING_DIR),
    }


def migrations() -> list[str]:
    """The migrations that the database has seen, as `app.name`."""
    return sorted(f"{app}.{name}" for app, name in MigrationRecorder(connection).applied_migrations())


def blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    for block in blocks(path):
        digest.update(block)
    return digest.hexdigest()


def described(path: Path, root: Path) -> dict[str, Any]:
    """A file's entry in the manifest."""
    return {"path": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
