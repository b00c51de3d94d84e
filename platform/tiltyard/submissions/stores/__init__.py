"""Where artefacts are kept: files named by their SHA-256, never changed, each stored once.

By default on the local disk; in any S3-compatible store where TILTYARD_ARTEFACT_STORE names one. Who asks for a file
gets it whole and, where it came over a network, checked against its name.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from tiltyard.submissions.stores.disk import DiskStore
from tiltyard.submissions.stores.errors import StoreError

__all__ = ["DISK", "Store", "StoreError", "store"]

DISK = "disk"


class Store(Protocol):
    """Files by their SHA-256, in hexadecimal digits."""

    def send_ahead(self, path: Path, sha256: str) -> None:
        """Do what takes long of `put`, which comes later; the file stays. Raises StoreError."""
        ...

    def put(self, path: Path, sha256: str) -> None:
        """Keep the file, durably; it may be moved away from `path`. Raises StoreError."""
        ...

    def holds(self, sha256: str) -> bool:
        """Whether the file is there. Raises StoreError."""
        ...

    def fetched(self, sha256: str) -> AbstractContextManager[Path]:
        """The file on this machine, not to be changed. Raises StoreError when it is missing or not the one named."""
        ...

    def remove(self, sha256: str) -> None:
        """Forget the file; it is no error when it is gone. Raises StoreError."""
        ...

    def stored(self) -> Iterator[tuple[str, datetime]]:
        """Every file's hash, and since when it is there. Raises StoreError."""
        ...

    def sweep(self, before: datetime) -> int:
        """Remove what was begun before then and never became a file; how many. Raises StoreError."""
        ...

    def owner(self) -> str | None:
        """The site that may remove files here, as `ownership` says it; None: nobody's yet. Raises StoreError."""
        ...

    def set_owner(self, owner: str) -> None:
        """Write down whose it is. Raises StoreError."""
        ...

    def answers(self) -> bool:
        """Whether the store can be reached."""
        ...


def store() -> Store:
    """The store that the settings name."""
    return _store(settings.ARTEFACT_STORE, str(settings.ARTEFACT_DIR))


@lru_cache(maxsize=4)
def _store(name: str, directory: str) -> Store:
    if name == DISK:
        return DiskStore(Path(directory))
    parts = urlsplit(name)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise ImproperlyConfigured(f"TILTYARD_ARTEFACT_STORE is {name!r}: use disk, or s3://BUCKET/PREFIX.")
    from tiltyard.submissions.stores.s3 import S3Store  # noqa: PLC0415 - a second of imports, only where it is used

    return S3Store(
        bucket=parts.netloc,
        prefix=parts.path.strip("/"),
        endpoint_url=settings.S3_ENDPOINT_URL or None,
        region=settings.S3_REGION,
        scratch_dir=Path(settings.WORK_DIR),
    )
