"""Refuse tar headers that Python's reader and the engine's, which is written in Go, understand differently.

What one reader skips and the other unpacks would pass the scan of layers and enter no digest. So a header must be
written in the one way that both agree on, and nothing may stand behind the end. Compared with each other: CPython's
`tarfile`, and Go's archive/tar (`reader.go` and `strconv.go`). Field offsets: POSIX.1-2017, pax, "ustar Interchange
Format".
"""

import re
import tarfile
from collections.abc import Callable
from functools import partial
from typing import Final, Self, cast

from tiltyard_sandbox.verdicts import Reason, SubmissionFault

# Offset and size of each number: mode, owner, group, size, time, checksum, the device's two.
_NUMBERS: Final = ((100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (148, 8), (329, 8), (337, 8))
# Octal, ended by blanks and NULs; or nothing; or, in the two forms that both readers take, binary. Python reads
# "\0" and digits as 0, Go as the digits.
_NUMBER: Final = re.compile(rb" *[0-7]+[ \0]*|[ \0]*|[\x80\xff].*", re.DOTALL)
_PREFIX: Final = slice(345, 512)  # Python takes it for a part of the name in every format, Go in POSIX's alone
_STAR_TRAILER: Final = b"tar\0"
_RECORD: Final = re.compile(rb"([1-9][0-9]{0,6}) ([^=\n\0]+)=")
_OVERRIDES: Final = frozenset({b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"atime", b"ctime"})
# These two describe the member that follows them.
_PAX: Final = tarfile.XHDTYPE
_LONG: Final = frozenset({tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})
_REFUSED_TYPES: Final = {
    tarfile.XGLTYPE: "a global header",
    tarfile.SOLARIS_XHDTYPE: "a Solaris header",
    tarfile.AREGTYPE: "a file in the format of 1979",
}
_BODY_MAX_BYTES: Final = 256 * 1024


def strict_headers(expect_body: Callable[[Callable[[bytes], None]], None]) -> type[tarfile.TarInfo]:
    """A class for `TarFile(tarinfo=…)` that raises SubmissionFault(image_rejected) on ambiguous headers.

    `expect_body` is called after a header whose body describes the next member, with the check of that body; the very
    next read is it.
    """
    before: list[bytes] = []  # the types of the headers since the last member, all of which describe the next

    class StrictTarInfo(tarfile.TarInfo):
        """One header, checked before it is understood."""

        is_checked = False

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            """As TarInfo's, but a header that is no header is an error, not the archive's end."""
            read = super().frombuf
            if hasattr(tarfile.TarInfo, "_frombuf"):
                return read(buf, encoding, errors)  # comes to ours below
            return cls._checked(buf, partial(read, buf, encoding, errors))

        @classmethod
        def _frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str, **options: bool) -> Self:
            # Python with its security updates of 2026 reads headers through this method instead, around frombuf.
            read = super()._frombuf  # type: ignore[misc]
            return cls._checked(buf, partial(read, buf, encoding, errors, **options))

        @classmethod
        def _checked(cls, buf: bytes | bytearray, read: Callable[[], tarfile.TarInfo]) -> Self:
            _check_header(bytes(buf))
            try:
                found = cast(Self, read())
            except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
                raise
            except tarfile.HeaderError as error:
                raise _damaged(str(error)) from None
            found.is_checked = True
            if found.type == _PAX or found.type in _LONG:
                if found.type in before or (before and _PAX in {found.type, *before}):
                    raise _damaged("several headers describe one member")
                before.append(found.type)
                if found.size > _BODY_MAX_BYTES:
                    raise _fault("has a header that is too large")
                if found.type == _PAX:
                    expect_body(lambda body: _check_records(body[: found.size]))
            else:
                before.clear()
            return found

    return StrictTarInfo


def _check_header(block: bytes) -> None:
    if len(block) != tarfile.BLOCKSIZE or not block.strip(b"\0"):
        return  # the end, or cut off: tarfile tells
    for offset, size in _NUMBERS:
        if not _NUMBER.fullmatch(block[offset : offset + size]):
            raise _damaged("a number in a header is malformed")
    if block[_PREFIX].strip(b"\0") and (block[257:263] != tarfile.POSIX_MAGIC[:6] or block[508:] == _STAR_TRAILER):
        raise _damaged("a header has fields of an unusual format")
    if block[156:157] in _REFUSED_TYPES:
        raise _fault(f"holds {_REFUSED_TYPES[block[156:157]]}: pack it in another format")


def _check_records(body: bytes) -> None:
    """A pax header's records, without what only one of the readers would skip: POSIX.1-2017, pax Extended Header."""
    at = 0
    while at < len(body):
        match = _RECORD.match(body, at)
        end = at + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(body) or body[end - 1 : end] != b"\n":
            raise _damaged("a pax header is malformed")
        value = body[match.end() : end - 1]
        if match[2].startswith(b"GNU.sparse"):
            raise _fault("holds a sparse file: pack it without --sparse")
        is_plain = value and b"\0" not in value if match[2] in _OVERRIDES else match[2] != b"hdrcharset"
        if not is_plain or (match[2] in {b"size", b"uid", b"gid"} and not value.isdigit()):
            raise _damaged("a pax header is malformed")
        at = end


def check_nothing_follows(read: Callable[[int], bytes], chunk_bytes: int) -> None:
    """Read to the end: the engine may go on where tarfile stops. Raises SubmissionFault(image_rejected)."""
    while part := read(chunk_bytes):
        if part.strip(b"\0"):
            raise _damaged("something stands behind its end")


def _damaged(what: str) -> SubmissionFault:
    return _fault(f"is damaged: {what}")


def _fault(what: str) -> SubmissionFault:
    return SubmissionFault(Reason.IMAGE_REJECTED, f"The archive {what}.")
