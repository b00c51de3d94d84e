"""Uploads: each kind is recognised, and each hostile or mistaken one gets its own message, in bounded memory."""

import gzip
import io
import json
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tiltyard_sandbox.archives import UploadKind, check_bases, inspect_upload, read_manifest
from tiltyard_sandbox.verdicts import Reason, SubmissionFault

MANIFEST = b"name: a\nbase_model: squire\ntraining_data: mine\nlicence: MIT\n"
CONTEXT = {"Dockerfile": b"FROM plain\n", "tiltyard.yaml": MANIFEST, "weights/a.bin": b"\0" * 1000}
MIB = 1 << 20

Pack = Callable[..., Path]


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_members(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def image_files(labels: dict[str, str], tags: list[str] | None = None) -> dict[str, bytes]:
    manifest = [{"Config": "c.json", "RepoTags": tags, "Layers": ["1/layer.tar"]}]
    config = {"config": {"Labels": labels}}
    return {"1/layer.tar": b"", "c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}


LABELS = {f"tiltyard.{name}": "x" for name in ("name", "base_model", "training_data", "licence")}


def test_contexts_are_recognised_in_every_packing(tmp_path: Path, pack: Pack) -> None:
    in_folder = {f"sub/{name}": content for name, content in CONTEXT.items()}
    plain = tmp_path / "plain.tar"
    plain.write_bytes(gzip.decompress(pack(CONTEXT).read_bytes()))
    junk = {"__MACOSX/._Dockerfile": b"x", **in_folder}
    for path in (
        pack(CONTEXT),
        pack(in_folder, "folder.tgz"),
        plain,
        write_zip(tmp_path / "a.zip", CONTEXT),
        write_zip(tmp_path / "b.zip", junk),
    ):
        assert inspect_upload(path) is UploadKind.CONTEXT
        assert read_manifest(path).name == "a"


def test_a_saved_image_is_recognised(pack: Pack) -> None:
    path = pack(image_files(LABELS))
    assert inspect_upload(path) is UploadKind.IMAGE
    assert read_manifest(path).licence == "x"


def test_the_bases_can_be_checked_at_upload(pack: Pack) -> None:
    check_bases(pack(CONTEXT), allowed_bases=["plain"], base_args={})
    with pytest.raises(SubmissionFault, match="'plain' is not one of"):
        check_bases(pack(CONTEXT), allowed_bases=["other"], base_args={})


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "empty"),
        ({"readme": b""}, "no Dockerfile.*Found: readme"),
        ({"a/Dockerfile": b"", "b/x": b""}, "no Dockerfile.*Found: a, b"),
        ({"a/b/Dockerfile": b""}, "no Dockerfile.*Found: a"),
        ({"Dockerfile": b"FROM x"}, "no tiltyard.yaml beside"),
        ({"x/Dockerfile": b"FROM x", "tiltyard.yaml": MANIFEST}, "no Dockerfile"),
        ({"Dockerfile": b"FROM x", "tiltyard.yaml": b"name: x"}, "lacks base_model"),
        (image_files({}), "no label tiltyard.name"),
        ({**image_files(LABELS), "manifest.json": b"[]"}, "holds 0 images"),
        ({**image_files(LABELS), "manifest.json": b"nope"}, "not valid JSON"),
        ({"oci-layout": b"{}", "index.json": b"{}"}, "docker save"),
        ({**CONTEXT, "../evil": b""}, "path that leaves it"),
        ({**CONTEXT, "a/../../evil": b""}, "path that leaves it"),
        ({**CONTEXT, "/etc/passwd": b""}, "absolute path"),
        ({**CONTEXT, "a\nb": b""}, "unusual characters"),
        ({**CONTEXT, "./Dockerfile": b"FROM evil"}, "twice"),
        ({**CONTEXT, "Dockerfile/x": b""}, "Dockerfile is not a folder"),
        ({**CONTEXT, "weights": b""}, "as a folder and as something else"),
    ],
)
def test_each_mistaken_archive_has_its_own_message(files: dict[str, bytes], says: str, pack: Pack) -> None:
    with pytest.raises(SubmissionFault, match=says) as caught:
        inspect_upload(pack(files))
    assert caught.value.reason is Reason.IMAGE_REJECTED


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not an archive"),
        (b"hello", "not an archive"),
        (b"\x89PNG" + b"\0" * 600, "not an archive"),
        (b"BZh91AY" + b"\0" * 100, "bzip2"),
        (b"\xfd7zXZ\x00", "xz file"),
        (b"\x1f\x8b" + b"rubbish" * 10, "damaged"),
        (gzip.compress(b"not a tar" * 200), "damaged"),
        (b"PK\x03\x04" + b"\0" * 50, "cut off"),
    ],
)
def test_other_files_are_told_what_to_upload(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(content)
    with pytest.raises(SubmissionFault, match=says):
        inspect_upload(path)


def test_a_truncated_upload_is_damaged(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(pack({**CONTEXT, "big": bytes(range(256)) * 4000}).read_bytes()[:-500])
    with pytest.raises(SubmissionFault, match="damaged"):
        inspect_upload(path)


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (member("d", tarfile.CHRTYPE), "device"),
        (member("d", tarfile.BLKTYPE), "device"),
        (member("d", tarfile.FIFOTYPE), "device or another special"),
        (member("l", tarfile.SYMTYPE, "/etc/passwd"), "symbolic link that leaves it"),
        (member("a/l", tarfile.SYMTYPE, "../../x"), "symbolic link that leaves it"),
        (member("l", tarfile.LNKTYPE, "../x"), "path that leaves it"),
        (member("l", tarfile.LNKTYPE, "absent"), "which is not in it"),
    ],
)
def test_special_members_are_refused(info: tarfile.TarInfo, says: str, tmp_path: Path) -> None:
    path = write_members(tmp_path / "a.tar", (member("Dockerfile"), b"FROM plain"), (info, b""))
    with pytest.raises(SubmissionFault, match=says):
        inspect_upload(path)


def test_links_inside_are_fine(tmp_path: Path) -> None:
    path = write_members(
        tmp_path / "a.tar",
        (member("Dockerfile"), b"FROM plain"),
        (member("tiltyard.yaml"), MANIFEST),
        (member("a/l", tarfile.SYMTYPE, "../Dockerfile"), b""),
        (member("h", tarfile.LNKTYPE, "Dockerfile"), b""),
    )
    assert inspect_upload(path) is UploadKind.CONTEXT


def test_a_dockerfile_that_is_a_link_is_no_dockerfile(tmp_path: Path) -> None:
    path = write_members(
        tmp_path / "a.tar",
        (member("real"), b"FROM plain"),
        (member("Dockerfile", tarfile.SYMTYPE, "real"), b""),
    )
    with pytest.raises(SubmissionFault, match="no Dockerfile"):
        inspect_upload(path)


def test_zip_symlinks_that_leave_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "../../etc/passwd")
    with pytest.raises(SubmissionFault, match="symbolic link that leaves it"):
        inspect_upload(path)


def peak_bytes(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(path: Path, says: str, unpacked_bytes_max: int = 64 * MIB) -> Callable[[], None]:
    def run() -> None:
        with pytest.raises(SubmissionFault, match=says):
            inspect_upload(path, unpacked_bytes_max=unpacked_bytes_max)

    return run


def test_a_gzip_bomb_is_stopped_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        header = member("big")
        header.size = 200 * MIB
        file.write(header.tobuf())
        for _ in range(200):
            file.write(b"\0" * MIB)
    assert path.stat().st_size < 2 * MIB
    assert peak_bytes(refused(path, "holds more than")) < 8 * MIB


def test_a_header_that_announces_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "pax.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        header = member("x", tarfile.XHDTYPE)
        header.size = 60 * MIB
        file.write(header.tobuf(format=tarfile.USTAR_FORMAT))
        for _ in range(60):
            file.write(b"\0" * MIB)
    assert peak_bytes(refused(path, "header that is too large")) < 8 * MIB


def test_a_zip_bomb_is_refused_by_its_announced_size(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bomb.zip", {"big": b"\0" * (70 * MIB)})
    refused(path, "holds more than")()


def test_a_zip_that_lies_about_its_directory_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", CONTEXT)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.rfind(b"PK\x05\x06") + 12, 0xF0000000)
    path.write_bytes(content)
    refused(path, "implausibly large")()


def zip64_tail(directory_bytes: int, record_at: int) -> bytes:
    """A record with this size of a directory, then a locator that points to `record_at`: APPNOTE.TXT, 4.3.14 and 15."""
    record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, directory_bytes, 0)
    return record + struct.pack("<4sIQI", b"PK\x06\x07", 0, record_at, 1)


@pytest.mark.parametrize("comment", [b"", b"c" * 65_535])
def test_a_zip64_directory_is_measured_where_zipfile_reads_it(comment: bytes, tmp_path: Path) -> None:
    content = write_zip(tmp_path / "a.zip", CONTEXT).read_bytes()
    at = content.rfind(b"PK\x05\x06")
    decoy = zip64_tail(100, 0)[:56]
    end = content[at : at + 20] + struct.pack("<H", len(comment)) + comment
    (tmp_path / "lies.zip").write_bytes(content[:at] + decoy + zip64_tail(0xF0000000, at) + end)
    refused(tmp_path / "lies.zip", "directory cannot be found")()
    (tmp_path / "large.zip").write_bytes(content[:at] + zip64_tail(0xF0000000, at) + end)
    refused(tmp_path / "large.zip", "implausibly large")()


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiltyard_sandbox.entries.ENTRIES_MAX", 50)
    path = write_zip(tmp_path / "a.zip", {f"f{index}": b"" for index in range(51)})
    refused(path, "more than 50 entries")()


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    header = member("x", tarfile.GNUTYPE_SPARSE)
    block = bytearray(header.tobuf(format=tarfile.GNU_FORMAT))
    block[148:156] = b"        "
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    path = tmp_path / "sparse.tar"
    path.write_bytes(bytes(block) + b"\0" * 1024)
    refused(path, "sparse")()
