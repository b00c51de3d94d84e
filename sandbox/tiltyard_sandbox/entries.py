"""The files in an uploaded .zip, .tar or .tar.gz, each checked before anyone sees it."""

import posixpath
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Final, cast

from tiltyard_sandbox.guarded import (
    GZIP_MAGIC,
    TAR_MAGIC,
    TAR_MAGIC_OFFSET,
    Content,
    GuardedReader,
    damage_is_rejected,
    open_maybe_gzip,
    reject,
    shown,
    tar_members,
)

ENTRIES_MAX: Final = 100_000
PATH_MAX: Final = 1024
ZIP_DIRECTORY_MAX_BYTES: Final = 16 << 20
ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")
_OTHER_FORMATS: Final = {
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
}
_JUNK_NAMES: Final = {"__MACOSX", ".DS_Store"}  # what macOS adds to every archive


class EntryKind(StrEnum):
    """What an entry is; devices, FIFOs and sockets are refused."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"


@dataclass(frozen=True)
class Entry:
    """One checked entry: `path` is relative, without `.` and `..`; a link's target lies inside the archive."""

    path: str
    kind: EntryKind
    size_bytes: int
    executable: bool
    target: str = ""


OpenEntry = Callable[[], IO[bytes]]  # call it before the next entry is asked for


def walk(path: Path, total_bytes_max: int) -> Iterator[tuple[Entry, OpenEntry]]:
    """Each entry of the archive and a way to read it; raises SubmissionFault(image_rejected) on anything unsafe."""
    seen: set[str] = set()
    folders: set[str] = set()
    for count, (entry, opener) in enumerate(_walk_any(path, total_bytes_max)):
        if count >= ENTRIES_MAX:
            raise reject(f"The archive has more than {ENTRIES_MAX} entries.")
        if not _JUNK_NAMES.isdisjoint(entry.path.split("/")) or not entry.path:
            continue
        if entry.path in seen and entry.kind is not EntryKind.FOLDER:
            raise reject(f"The archive holds {shown(entry.path)} twice.")
        if entry.kind is EntryKind.HARDLINK and entry.target not in seen:
            raise reject(f"The archive links {shown(entry.path)} to {shown(entry.target)}, which is not in it.")
        _require_folders_above(entry, seen, folders)
        seen.add(entry.path)
        yield entry, lambda opener=opener: _opened(opener)  # type: ignore[misc]


def _opened(opener: OpenEntry) -> IO[bytes]:
    with damage_is_rejected():
        return cast(IO[bytes], Content(opener()))


def _require_folders_above(entry: Entry, seen: set[str], folders: set[str]) -> None:
    """The engine would fail to unpack what lies beneath a file."""
    above = entry.path if entry.kind is EntryKind.FOLDER else posixpath.dirname(entry.path)
    while above and above not in folders:
        if above in seen:
            raise reject(f"The archive holds {shown(entry.path)}, and {shown(above)} is not a folder.")
        folders.add(above)
        above = posixpath.dirname(above)
    if entry.kind is not EntryKind.FOLDER and entry.path in folders:
        raise reject(f"The archive holds {shown(entry.path)} as a folder and as something else.")


def _walk_any(path: Path, total_bytes_max: int) -> Iterator[tuple[Entry, OpenEntry]]:
    with path.open("rb") as file:
        head = file.read(TAR_MAGIC_OFFSET + len(TAR_MAGIC))
    if head.startswith(ZIP_MAGIC):
        return _walk_zip(path, total_bytes_max)
    if head.startswith(GZIP_MAGIC) or head[TAR_MAGIC_OFFSET:] == TAR_MAGIC:
        return _walk_tar(path, total_bytes_max)
    for magic, name in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise reject(f"This is a {name} file. Upload a .zip, .tar or .tar.gz.")
    raise reject("This is not an archive. Upload a .zip, .tar or .tar.gz that holds a Dockerfile, or a saved image.")


def _walk_tar(path: Path, total_bytes_max: int) -> Iterator[tuple[Entry, OpenEntry]]:
    with open_maybe_gzip(path) as source, tar_members(source, total_bytes_max) as members:
        for member in members:
            name = safe_path(member.name)
            executable = bool(member.mode & 0o100)
            if member.isreg():
                entry = Entry(name, EntryKind.FILE, member.size, executable)
            elif member.isdir():
                entry = Entry(name, EntryKind.FOLDER, 0, executable)
            elif member.issym():
                entry = Entry(name, EntryKind.SYMLINK, 0, executable, safe_target(name, member.linkname))
            elif member.islnk():
                entry = Entry(name, EntryKind.HARDLINK, 0, executable, safe_path(member.linkname))
            else:
                raise reject(f"The archive holds a device or another special file: {shown(member.name)}.")
            # Bound now: the loop variable will have moved on when the opener is called.
            yield entry, lambda member=member: members.open(member)  # type: ignore[misc]


def _walk_zip(path: Path, total_bytes_max: int) -> Iterator[tuple[Entry, OpenEntry]]:
    _check_zip_directory(path)
    with damage_is_rejected(), zipfile.ZipFile(path) as archive:
        total_bytes = 0
        for info in archive.infolist():
            total_bytes += info.file_size
            if total_bytes > total_bytes_max:
                raise reject(f"The archive holds more than {total_bytes_max} bytes when uncompressed.")
            if info.flag_bits & 0x1:
                raise reject("The archive is encrypted. Pack it without a password.")
            if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise reject("The archive uses an unusual compression. Pack it as a plain .zip or .tar.gz.")
            # zipfile itself stops at the announced size, so what was counted above is all that can come out.
            yield _zip_entry(archive, info), lambda info=info: archive.open(info)  # type: ignore[misc]


def _zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    name = safe_path(info.filename)
    mode = info.external_attr >> 16
    executable = bool(mode & 0o100)
    kind = stat.S_IFMT(mode)
    if info.is_dir():
        return Entry(name, EntryKind.FOLDER, 0, executable)
    if kind == stat.S_IFLNK:
        with archive.open(info) as file:
            target = GuardedReader(file, PATH_MAX).read(PATH_MAX).decode()
        return Entry(name, EntryKind.SYMLINK, 0, executable, safe_target(name, target))
    if kind not in {0, stat.S_IFREG}:
        raise reject(f"The archive holds a device or another special file: {shown(info.filename)}.")
    return Entry(name, EntryKind.FILE, info.file_size, executable)


def _check_zip_directory(path: Path) -> None:
    """Refuse a zip whose directory is implausibly large: zipfile would read all of it into memory.

    Record layouts: PKWARE's APPNOTE.TXT, sections 4.3.14 to 4.3.16.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size_bytes - 65_535 - 22))
        tail = file.read()
        end = tail.rfind(b"PK\x05\x06")
        if end < 0 or len(tail) - end < 22:
            raise reject("The archive is damaged: it is cut off at its end. Upload it again.")
        (directory_bytes,) = struct.unpack_from("<I", tail, end + 12)
        locator_at = max(0, size_bytes - len(tail) + end - 20)
        file.seek(locator_at)
        locator = file.read(20)
        if locator.startswith(b"PK\x06\x07"):
            # zipfile reads the record right before the locator, wherever the locator says that it is.
            (record_at,) = struct.unpack_from("<Q", locator, 8)
            if record_at != locator_at - 56:
                raise reject("The archive is damaged: its directory cannot be found.")
            file.seek(record_at)
            record = file.read(56)
            if not record.startswith(b"PK\x06\x06"):
                raise reject("The archive is damaged: its directory cannot be found.")
            (directory_bytes,) = struct.unpack_from("<Q", record, 40)
    if directory_bytes > ZIP_DIRECTORY_MAX_BYTES:
        raise reject("The archive's directory is implausibly large.")


def safe_path(name: str) -> str:
    """The name as a plain relative path, "" for the top itself; raises SubmissionFault(image_rejected) otherwise."""
    if name.startswith("/"):
        raise reject(f"The archive holds an absolute path: {shown(name)}.")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise reject(f"The archive holds a path that leaves it: {shown(name)}.")
    if len(name) > PATH_MAX or not name.isprintable() or "\\" in name:
        raise reject(f"The archive holds a name that is too long or has unusual characters: {shown(name)}.")
    return "/".join(parts)


def safe_target(path: str, target: str) -> str:
    """A symbolic link's target, unless it leaves the archive; raises SubmissionFault(image_rejected)."""
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if target.startswith("/") or resolved == ".." or resolved.startswith("../"):
        raise reject(f"The archive holds a symbolic link that leaves it: {shown(path)} -> {shown(target)}.")
    if not target or len(target) > PATH_MAX or not target.isprintable():
        raise reject(f"The archive holds a damaged symbolic link: {shown(path)}.")
    return target
