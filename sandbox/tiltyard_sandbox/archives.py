"""Uploads: what kind they are and what they say about themselves, found by one pass that trusts nothing.

Everything here works on the archive alone, without an engine, so that the web page can answer at once.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from tiltyard_sandbox import dockerfile
from tiltyard_sandbox.entries import EntryKind, OpenEntry, walk
from tiltyard_sandbox.guarded import reject, shown
from tiltyard_sandbox.image_archive import ImageArchive, parse_image_archive
from tiltyard_sandbox.limits import GIB
from tiltyard_sandbox.manifest import FILE_NAME, SubmissionManifest
from tiltyard_sandbox.references import NamedImage, named_image

UNPACKED_BYTES_MAX: Final = 16 * GIB
KEPT_FILE_MAX_BYTES: Final = 1 << 20
KEPT_TOTAL_MAX_BYTES: Final = 32 << 20
IMAGE_MARKERS: Final = frozenset({"manifest.json", "oci-layout"})
_WANTED: Final = frozenset({"Dockerfile", FILE_NAME})


class UploadKind(StrEnum):
    """What an uploaded archive holds."""

    CONTEXT = "context"  # a Dockerfile and what it needs: .zip, .tar or .tar.gz
    IMAGE = "image"  # the output of `docker save`
    REFERENCE = "reference"  # a tiltyard.yaml that names an image in a registry


@dataclass(frozen=True)
class BuildContext:
    """An archive with a Dockerfile; paths inside it are relative to `prefix` ("" or "folder/")."""

    prefix: str
    dockerfile: bytes
    manifest: SubmissionManifest


Upload = BuildContext | ImageArchive | NamedImage


def inspect_upload(path: Path, *, unpacked_bytes_max: int = UNPACKED_BYTES_MAX) -> UploadKind:
    """Which kind of upload this is, after every check that needs no engine.

    Raises SubmissionFault: image_rejected for the archive and its manifest, build_failed for an unreadable Dockerfile.
    """
    upload = read_upload(path, unpacked_bytes_max=unpacked_bytes_max)
    if isinstance(upload, ImageArchive):
        return UploadKind.IMAGE
    if isinstance(upload, NamedImage):
        return UploadKind.REFERENCE
    dockerfile.parse(upload.dockerfile)
    return UploadKind.CONTEXT


def check_bases(path: Path, *, allowed_bases: Collection[str], base_args: Mapping[str, str]) -> None:
    """Check a context's Dockerfile against the competition's base images; raises SubmissionFault(build_failed)."""
    upload = read_upload(path)
    if isinstance(upload, BuildContext):
        dockerfile.check(upload.dockerfile, allowed_bases=allowed_bases, base_args=base_args)


def read_manifest(path: Path) -> SubmissionManifest:
    """The upload's `tiltyard.yaml`, or the labels of its image; raises SubmissionFault(image_rejected)."""
    return read_upload(path).manifest


def read_upload(
    path: Path, *, unpacked_bytes_max: int = UNPACKED_BYTES_MAX, manifest: SubmissionManifest | None = None
) -> Upload:
    """The upload, walked through once and checked; raises SubmissionFault(image_rejected).

    `manifest` is known already of an image that was named: its labels need not tell it.
    """
    if (named := named_image(path)) is not None:
        return named
    kept = _Kept()
    for entry, opener in walk(path, unpacked_bytes_max):
        kept.note(entry.path, entry.kind, entry.size_bytes, opener)
    if "Dockerfile" not in kept.contents and kept.names_at_top & IMAGE_MARKERS:
        return parse_image_archive(kept.contents, manifest)
    return _context(kept)


class _Kept:
    """What one pass over an archive remembers: names near the top, and the small files that say what it is."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.names_at_top: set[str] = set()
        self._kept_bytes = 0

    def note(self, path: str, kind: EntryKind, size_bytes: int, opener: OpenEntry) -> None:
        top, _, below = path.partition("/")
        self.names_at_top.add(top)
        if kind is not EntryKind.FILE or size_bytes > KEPT_FILE_MAX_BYTES or not _is_wanted(path, below):
            return
        if self._kept_bytes + size_bytes > KEPT_TOTAL_MAX_BYTES:
            raise reject("The archive has implausibly many small files at its top.")
        with opener() as file:
            self.contents[path] = file.read(KEPT_FILE_MAX_BYTES)
        self._kept_bytes += size_bytes


def _is_wanted(path: str, below: str) -> bool:
    in_context = path in _WANTED or below in _WANTED
    in_image = path in IMAGE_MARKERS or (not below and path.endswith(".json")) or path.startswith("blobs/sha256/")
    return in_context or in_image


def _context(kept: _Kept) -> BuildContext:
    prefix = _prefix(kept)
    name = prefix + FILE_NAME
    if name not in kept.contents:
        raise reject(f"There is no {FILE_NAME} beside the Dockerfile. It names the model, its base, data and licence.")
    manifest = SubmissionManifest.from_yaml(kept.contents[name])
    if manifest.image:
        raise reject(f"There is a Dockerfile, and {FILE_NAME} names an image: remove one of both.")
    return BuildContext(prefix, kept.contents[prefix + "Dockerfile"], manifest)


def _prefix(kept: _Kept) -> str:
    if "Dockerfile" in kept.contents:
        return ""
    if len(kept.names_at_top) == 1:
        (top,) = kept.names_at_top
        if f"{top}/Dockerfile" in kept.contents:
            return f"{top}/"
    if not kept.names_at_top:
        raise reject("The archive is empty. It must hold a Dockerfile, at its root or in its single top folder.")
    names = ", ".join(shown(name) for name in sorted(kept.names_at_top)[:6])
    more = ", …" if len(kept.names_at_top) > 6 else ""
    raise reject(f"There is no Dockerfile at the archive's root or in its single top folder. Found: {names}{more}.")
