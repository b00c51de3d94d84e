"""Image layers: scanned for what must not be in them, and hashed without time stamps."""

import gzip
import hashlib
import json
import tarfile
from typing import IO, Final

from tiltyard_sandbox.guarded import GZIP_MAGIC, MemberIterator, Readable, chunks, reject, shown, tar_members

LAYER_ENTRIES_MAX: Final = 1_000_000


def scan_layer(layer: IO[bytes], bytes_max: int) -> int:
    """The uncompressed bytes of the layer's files; raises SubmissionFault(image_rejected) on anything unsafe.

    Devices and paths that leave the root are refused; but for devices in /dev, which the runtime covers with its own.
    Set-user-id files are not refused: `no-new-privileges` makes them inert, and every Debian image has some.
    """
    total_bytes = 0
    with tar_members(_inflated(layer), bytes_max) as members:
        for count, member in enumerate(members):
            if count >= LAYER_ENTRIES_MAX:
                raise reject(f"A layer of the image has more than {LAYER_ENTRIES_MAX} entries.")
            if member.isdev() and not member.isfifo() and not member.name.removeprefix("./").startswith("dev/"):
                raise reject(f"The image holds a device: {shown(member.name)}.")
            if not _stays_inside(member.name) or (member.islnk() and not _stays_inside(member.linkname)):
                raise reject(f"A layer of the image holds a path that leaves it: {shown(member.name)}.")
            total_bytes += member.size + tarfile.BLOCKSIZE
    return total_bytes


def _stays_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")


def _inflated(layer: Readable) -> Readable:
    """The layer's tar, unpacked when it is gzip (some engines save compressed layers)."""
    head = layer.read(len(GZIP_MAGIC))
    rest = _Rejoined(head, layer)
    return gzip.GzipFile(fileobj=rest) if head == GZIP_MAGIC else rest  # type: ignore[call-overload]


class _Rejoined:
    """A stream with the bytes that were taken from its front put back."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        taken, self._head = self._head[:size], self._head[size:]
        return taken or self._rest.read(size)


def layer_digests(layer: Readable, bytes_max: int) -> tuple[str, str]:
    """(diff id, content digest) of a layer, both as hexadecimal SHA-256.

    The diff id is over the raw tar; the content digest over each entry's path, type, mode, owner, link target, device
    numbers, extended attributes and content, in the archive's order, without time stamps and names of owners.
    """
    raw = _Hashing(_inflated(layer))
    digest = hashlib.sha256()
    with tar_members(raw, bytes_max) as members:
        for member in members:
            digest.update(_entry_line(member))
            if member.isreg():
                digest.update(_content_digest(members, member))
    for _ in chunks(raw.read):
        pass  # the padding after the last entry belongs to the diff id
    return raw.hash.hexdigest(), digest.hexdigest()


class _Hashing:
    """Passes a stream on and hashes it."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.hash = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        part = self._source.read(size)
        self.hash.update(part)
        return part


def _entry_line(member: tarfile.TarInfo) -> bytes:
    attributes = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
    name = "/".join(part for part in member.name.split("/") if part not in {"", "."})
    kind = "file" if member.isreg() else member.type.decode("latin-1")
    fields = [
        name,
        kind,
        member.mode,
        member.uid,
        member.gid,
        member.linkname,
        member.size,
        member.devmajor,
        member.devminor,
        sorted(attributes.items()),
    ]
    return json.dumps(fields).encode() + b"\n"


def _content_digest(members: MemberIterator, member: tarfile.TarInfo) -> bytes:
    digest = hashlib.sha256()
    with members.open(member) as file:
        for part in chunks(file.read):
            digest.update(part)
    return digest.digest()
