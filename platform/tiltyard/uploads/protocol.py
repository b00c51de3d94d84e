"""The words of the tus protocol, version 1.0.0 (https://tus.io/protocols/resumable-upload): headers in, headers out.

Extensions: creation, creation-with-upload, expiration, checksum, termination. A client says in Upload-Metadata to which
`competition` and `track` the file goes, its `filename` and, if it likes, the `sha256` of the whole.
"""

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import Final, Self
from uuid import UUID

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,expiration,checksum,termination"
# The protocol demands sha1. crc32, big-endian, finds what a line damages and costs a third of the time: whether the
# whole file is the announced one is for its SHA-256 to say.
CHECKSUM_ALGORITHMS: Final = ("sha1", "sha256", "sha512", "crc32")
CONTENT_TYPE: Final = "application/offset+octet-stream"
CHECKSUM_MISMATCH: Final = 460
PREFIX: Final = "/uploads/"

_METADATA_CHARACTERS_MAX: Final = 4096
_DIGITS_MAX: Final = 18  # below 2**63
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PIECE_DIGEST: Final = re.compile(r"xxh3-128=:([A-Za-z0-9+/]{22}==):; *from=([0-9]{1,18})")


@dataclass
class TusError(Exception):
    """A request that is not carried out: its status, and what a person should do."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """What a client said about its file."""

    filename: str
    competition: str
    track: str | None
    sha256: str  # "" where the client did not say

    @classmethod
    def read(cls, header: str) -> Self:
        """From Upload-Metadata: pairs of a key and Base64, with commas between."""
        pairs = _metadata(header)
        sha256 = pairs.get("sha256", "").lower()
        if sha256 and not _SHA256.fullmatch(sha256):
            raise TusError(400, "Upload-Metadata: sha256 must be 64 hexadecimal digits.")
        if not pairs.get("competition"):
            raise TusError(400, "Upload-Metadata must name the competition (its slug, in Base64).")
        filename = pairs.get("filename") or pairs.get("name") or "upload"
        return cls(filename, pairs["competition"], pairs.get("track") or None, sha256)


def upload_id(path: str) -> UUID | None:
    """The upload that a path below PREFIX names; None for the collection. Raises TusError for anything else."""
    rest = path.removeprefix(PREFIX).strip("/")
    if not rest:
        return None
    try:
        return UUID(rest)
    except ValueError:
        raise TusError(404, "There is no such upload.") from None


def count(headers: Mapping[str, str], name: str) -> int:
    """A header that must be a whole number of bytes."""
    text = headers.get(name.lower(), "")
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX):
        raise TusError(400, f"{name} must be a whole number of bytes.")
    return int(text)


@dataclass(frozen=True)
class PieceDigest:
    """The XXH3-128 of the file from where the server has checked it up to, to the end of a request's body."""

    from_bytes: int
    digest: bytes


@dataclass(frozen=True)
class Promised:
    """What a client says of the bytes in a request, so that they are not taken for others."""

    algorithm: str  # of the checksum over the request's body; "" where the client sent none
    checksum: bytes
    piece: PieceDigest | None

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> Self:
        """From Upload-Checksum (tus) and Upload-Piece-Digest (ours, written as in RFC 9530)."""
        algorithm, _, encoded = headers.get("upload-checksum", "").partition(" ")
        if algorithm and algorithm not in CHECKSUM_ALGORITHMS:
            raise TusError(400, f"Upload-Checksum: use one of {', '.join(CHECKSUM_ALGORITHMS)}.")
        piece = None
        if promised := headers.get("upload-piece-digest", ""):
            match = _PIECE_DIGEST.fullmatch(promised)
            if match is None:
                raise TusError(400, "Upload-Piece-Digest must be xxh3-128=:BASE64:;from=OFFSET, of 16 bytes.")
            piece = PieceDigest(int(match[2]), _base64(match[1], "Upload-Piece-Digest"))
        return cls(algorithm, _base64(encoded, "Upload-Checksum"), piece)


class Checksum:
    """A running checksum of one of CHECKSUM_ALGORITHMS."""

    def __init__(self, algorithm: str) -> None:
        self._hash = None if algorithm == "crc32" else hashlib.new(algorithm)
        self._crc32 = 0

    def update(self, block: memoryview) -> None:
        if self._hash is None:
            self._crc32 = zlib.crc32(block, self._crc32)
        else:
            self._hash.update(block)

    def digest(self) -> bytes:
        return self._crc32.to_bytes(4, "big") if self._hash is None else self._hash.digest()


def upload_headers(
    size_bytes: int, offset_bytes: int, checked_bytes: int, expires_at: datetime | None
) -> dict[str, str]:
    """What every answer about an upload says of it."""
    headers = {"upload-offset": str(offset_bytes), "upload-length": str(size_bytes), "cache-control": "no-store"}
    headers["upload-checked-offset"] = str(checked_bytes)
    if expires_at is not None:
        headers["upload-expires"] = format_datetime(expires_at, usegmt=True)
    return headers


def server_headers(bytes_max: int) -> dict[str, str]:
    """The answer to OPTIONS."""
    return {
        "tus-version": VERSION,
        "tus-extension": EXTENSIONS,
        "tus-max-size": str(bytes_max),
        "tus-checksum-algorithm": ",".join(CHECKSUM_ALGORITHMS),
    }


def _metadata(header: str) -> dict[str, str]:
    if len(header) > _METADATA_CHARACTERS_MAX:
        raise TusError(400, f"Upload-Metadata has more than {_METADATA_CHARACTERS_MAX} characters.")
    pairs = {}
    for part in header.split(","):
        key, _, encoded = part.strip().partition(" ")
        try:
            pairs[key] = _base64(encoded, "Upload-Metadata").decode("utf-8")
        except UnicodeDecodeError:
            raise TusError(400, "Upload-Metadata: the values must be UTF-8 text in Base64.") from None
        if "\0" in pairs[key]:  # which no text in a database may have
            raise TusError(400, "Upload-Metadata: the values must be text without the character NUL.")
    return pairs


def _base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise TusError(400, f"{where}: the values must be Base64.") from None
