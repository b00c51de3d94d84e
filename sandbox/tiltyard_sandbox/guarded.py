"""Read hostile tar files: forward only, with caps on every read and on the whole.

`tarfile` reads a header's announced length in one go, so a 10 GB comment would become 10 GB of memory; and seeking back
in a compressed file starts it again, so a small file could cost hours. `GuardedReader` allows neither.
"""

import errno
import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol

from tiltyard_sandbox.strict_tar import check_nothing_follows, strict_headers
from tiltyard_sandbox.verdicts import Reason, SubmissionFault

CHUNK_BYTES: Final = 128 * 1024
READ_MAX_BYTES: Final = 2 * CHUNK_BYTES
GZIP_MAGIC: Final = b"\x1f\x8b"
TAR_MAGIC: Final = b"ustar"
TAR_MAGIC_OFFSET: Final = 257

# What tarfile, zipfile and their helpers raise on malformed input.
MALFORMED: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    ValueError,
    OverflowError,
    EOFError,
    NotImplementedError,
    RecursionError,
    struct.error,
    zlib.error,
    gzip.BadGzipFile,
)


class Readable(Protocol):
    """All that a source of bytes must offer."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


@contextmanager
def damage_is_rejected() -> Iterator[None]:
    """Turn what a malformed archive makes the library raise into SubmissionFault(image_rejected)."""
    try:
        yield
    except MALFORMED as error:
        raise reject(f"The archive is damaged: {str(error)[:120] or type(error).__name__}.") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # the library was sent to a place before the file's start
            raise
        raise reject("The archive is damaged: it says that something lies outside of it.") from None


class Content(io.RawIOBase):
    """What is in an entry, read by whoever asked for it: damage is found only then."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, or all; raises SubmissionFault(image_rejected) where the archive is damaged."""
        with damage_is_rejected():
            return self._file.read(size)

    def close(self) -> None:
        """Close the entry as well."""
        self._file.close()
        super().close()


class GuardedReader(io.RawIOBase):
    """A file object for `tarfile` over any readable, seekable forwards only.

    Raises SubmissionFault(image_rejected) when more than `total_bytes_max` come out, when one read is implausibly
    large, or when something would go back.
    """

    def __init__(self, source: Readable, total_bytes_max: int) -> None:
        super().__init__()
        self._source = source
        self._total_bytes_max = total_bytes_max
        self._position = 0
        self._check_next: Callable[[bytes], None] | None = None
        # Of a file itself, what nobody asks for need not be read.
        is_file = isinstance(source, io.BufferedReader) and isinstance(source.raw, io.FileIO)
        self._end = os.fstat(source.fileno()).st_size if is_file else None  # type: ignore[attr-defined]

    def check_next(self, check: Callable[[bytes], None]) -> None:
        """Have `check` look at what the next read gives."""
        self._check_next = check

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Forwards."""
        return True

    def tell(self) -> int:
        """Bytes read or skipped so far."""
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        if not 0 <= size <= READ_MAX_BYTES:
            raise reject("The archive has a header that is too large.")
        parts = []
        missing = size
        while missing > 0 and (part := self._source.read(missing)):
            parts.append(part)
            missing -= len(part)
        self._position += size - missing
        self._check_size()
        content = b"".join(parts)
        check, self._check_next = self._check_next, None
        if check is not None:
            check(content)
        return content

    def _check_size(self) -> None:
        if self._position > self._total_bytes_max:
            raise reject(f"The archive holds more than {self._total_bytes_max} bytes when uncompressed.")

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Skip forward to `offset`; the end of the data stops it early."""
        if whence != io.SEEK_SET or offset < self._position:
            raise reject("The archive cannot be read in one go: it is malformed.")
        if self._end is not None and self._check_next is None:
            self._position = min(offset, self._end)
            self._source.seek(self._position)  # type: ignore[attr-defined]
            self._check_size()
        while self._position < offset:
            if not self.read(min(CHUNK_BYTES, offset - self._position)):
                break
        return self._position


@contextmanager
def tar_members(source: Readable, total_bytes_max: int) -> Iterator["MemberIterator"]:
    """Iterate over a tar file's members; malformed input raises SubmissionFault(image_rejected)."""
    with damage_is_rejected():
        reader = GuardedReader(source, total_bytes_max)
        headers = strict_headers(reader.check_next)
        with tarfile.TarFile(fileobj=reader, mode="r", errors="surrogateescape", tarinfo=headers) as archive:
            yield MemberIterator(archive, reader)


class MemberIterator:
    """The members of an open tar file, one at a time; a member's content can be read until the next is asked for."""

    def __init__(self, archive: tarfile.TarFile, reader: GuardedReader) -> None:
        self._archive = archive
        self._reader = reader

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while (member := self._archive.next()) is not None:
            if not getattr(member, "is_checked", False):
                raise RuntimeError("This Python's tarfile reads headers past strict_tar.py; no archive can be trusted.")
            # tarfile keeps every member and every global header: a long archive would fill the memory.
            self._archive.members = []  # type: ignore[attr-defined]
            self._archive.pax_headers = {}
            if member.issparse():
                raise reject(f"The archive holds a sparse file ({shown(member.name)}): pack it without --sparse.")
            yield member
        check_nothing_follows(self._reader.read, CHUNK_BYTES)

    def open(self, member: tarfile.TarInfo) -> IO[bytes]:
        """The content of the regular file that was just yielded."""
        file = self._archive.extractfile(member)
        if file is None:
            raise reject(f"{shown(member.name)} in the archive is not a file.")
        return file


@contextmanager
def open_maybe_gzip(path: Path) -> Iterator[Readable]:
    """The file's bytes, unpacked when they are gzip; zlib's errors are the reader's to catch."""
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        yield gzip.GzipFile(fileobj=file) if compressed else file


def chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """All that `read` gives, piece by piece."""
    while part := read(CHUNK_BYTES):
        yield part


def reject(message: str) -> SubmissionFault:
    """An upload that is refused, as an exception to raise."""
    return SubmissionFault(Reason.IMAGE_REJECTED, message)


def shown(name: str) -> str:
    """A hostile name, fit for a message: short and printable."""
    return ascii(name[:80])[1:-1]
