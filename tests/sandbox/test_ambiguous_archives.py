"""Archives that Python's tar reader and the engine's would read differently are refused, wherever they hide."""

import io
import struct
import tarfile
from pathlib import Path
from typing import Literal

import pytest

from tiltyard_sandbox.archives import UploadKind, inspect_upload
from tiltyard_sandbox.guarded import tar_members
from tiltyard_sandbox.layers import layer_digests, scan_layer
from tiltyard_sandbox.verdicts import SubmissionFault

Form = Literal[0, 1, 2]  # tarfile's own numbers of the formats
MIB = 1 << 20
END = b"\0" * 1024
MANIFEST = b"name: a\nbase_model: squire\ntraining_data: mine\nlicence: MIT\n"


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, form: Form = tarfile.USTAR_FORMAT) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    return info.tobuf(form) + content + b"\0" * (-len(content) % 512)


def patched(block: bytes, offset: int, content: bytes) -> bytes:
    """The header with some bytes replaced and its checksum made right again."""
    header = bytearray(block[:512])
    header[offset : offset + len(content)] = content
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + block[512:]


def pax(body: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return entry("pax", body, kind)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest) + 1
    while len(str(size)) + len(rest) != size:
        size += 1
    return str(size).encode() + rest


HIDDEN = entry("hidden", b"secret")
LAYERS = {
    "a size that begins with NUL": patched(entry("a"), 124, b"\x0000000001000") + b"\0" * 1024 + HIDDEN,
    "a second archive behind the end": entry("a") + END + HIDDEN,
    "another header behind one empty block": entry("a") + b"\0" * 512 + HIDDEN,
    "a number that only Go reads": entry("a") + patched(entry("b"), 136, b"\xc0" + b"\0" * 11),
    "a number with an underscore": patched(entry("a"), 100, b"0_000644"),
    "a checksum that is wrong": entry("a") + entry("b").replace(b"0000644", b"0000645"),
    "half a header": entry("a") + HIDDEN[:100],
    "a global header": pax(record(b"path", b"b"), tarfile.XGLTYPE) + entry("a"),
    "a Solaris header": pax(record(b"path", b"b"), tarfile.SOLARIS_XHDTYPE) + entry("a"),
    "two pax headers": pax(record(b"path", b"b")) + pax(record(b"path", b"c")) + entry("a"),
    "pax and a long name": pax(record(b"path", b"b")) + entry("l", b"c\0", tarfile.GNUTYPE_LONGNAME) + entry("a"),
    "an empty path": pax(record(b"path", b"")) + entry("a"),
    "a length with a sign": pax(b"+" + record(b"path", b"bb")) + entry("a"),
    "a record cut short": pax(record(b"path", b"b")[:-1]) + entry("a"),
    "a character set": pax(record(b"hdrcharset", b"BINARY")) + entry("a"),
    "a sparse name": pax(record(b"GNU.sparse.name", b"b")) + entry("a"),
    "an old file whose later name makes it a folder": pax(record(b"path", b"d/"))
    + patched(entry("a", HIDDEN), 156, b"\0"),
    "a prefix in a GNU header": patched(entry("srv/sda", form=tarfile.GNU_FORMAT), 345, b"dev"),
}  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_ambiguous_layers_are_refused_by_the_scan_and_by_the_digest(layer: bytes) -> None:
    with pytest.raises(SubmissionFault):
        scan_layer(io.BytesIO(layer + END), MIB)
    with pytest.raises(SubmissionFault):
        layer_digests(io.BytesIO(layer + END), MIB)


def test_ambiguous_uploads_are_refused(tmp_path: Path) -> None:
    files = entry("Dockerfile", b"FROM x") + entry("tiltyard.yaml", MANIFEST)
    (tmp_path / "good.tar").write_bytes(files + END)
    assert inspect_upload(tmp_path / "good.tar") is UploadKind.CONTEXT
    (tmp_path / "bad.tar").write_bytes(files + END + HIDDEN + END)
    with pytest.raises(SubmissionFault, match="behind its end"):
        inspect_upload(tmp_path / "bad.tar")


def test_what_stands_behind_the_end_counts_towards_the_cap() -> None:
    with pytest.raises(SubmissionFault, match="holds more than"):
        scan_layer(io.BytesIO(entry("a") + b"\0" * (2 * MIB)), MIB)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_ordinary_format_is_read(form: Form) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name in ("a", "deep/" * 15 + "x" * 90):
            info = tarfile.TarInfo(name)
            info.uid, info.mtime = 2_000_000, 1_700_000_000
            info.pax_headers = {"SCHILY.xattr.user.x": "a=b\nc"} if form == tarfile.PAX_FORMAT else {}
            archive.addfile(info)
    out.seek(0)
    with tar_members(out, MIB) as members:
        assert [len(member.name) for member in members] == [1, 165]


def test_large_numbers_in_binary_are_read() -> None:
    header = patched(entry("a"), 108, struct.pack(">Q", 1 << 63 | 3_000_000))
    with tar_members(io.BytesIO(header + END), MIB) as members:
        assert [member.uid for member in members] == [3_000_000]
