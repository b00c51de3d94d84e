import gzip
import io
import tarfile
from pathlib import Path

import pytest

from tiltyard.cli import unpacking
from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.unpacking import suite_root, unpack_suite


def archive_of(path: Path, *entries: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                member = tarfile.TarInfo(entry[0])
                member.size = len(entry[1])
                archive.addfile(member, io.BytesIO(entry[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_files_and_folders(tmp_path: Path) -> None:
    folder = special("open/data", tarfile.DIRTYPE)
    archive = archive_of(tmp_path / "a.tar.gz", folder, ("open/suite.yaml", b"name: x"), ("open/data/a.jsonl", b"{}"))
    unpack_suite(archive, tmp_path / "out")
    assert suite_root(tmp_path / "out") == tmp_path / "out" / "open"
    assert (tmp_path / "out/open/data/a.jsonl").read_bytes() == b"{}"


@pytest.mark.parametrize(
    "entry",
    [
        ("../evil", b"x"),
        ("/tmp/evil", b"x"),
        ("a/../../evil", b"x"),
        ("a\\b", b"x"),
        special("evil", tarfile.SYMTYPE, "/etc/passwd"),
        special("evil", tarfile.LNKTYPE, "suite.yaml"),
        special("evil", tarfile.FIFOTYPE),
        special("evil", tarfile.CHRTYPE),
    ],
)
def test_hostile_entry_is_refused_and_nothing_leaves_the_folder(
    tmp_path: Path, entry: tarfile.TarInfo | tuple[str, bytes]
) -> None:
    archive = archive_of(tmp_path / "a.tar.gz", ("suite.yaml", b"name: x"), entry)
    with pytest.raises(CliError) as caught:
        unpack_suite(archive, tmp_path / "below" / "out")
    assert caught.value.exit_code == ExitCode.PLATFORM
    assert {path.name for path in tmp_path.rglob("*")} <= {"a.tar.gz", "below", "out", "suite.yaml"}


def test_writing_through_a_planted_link_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = special("dir", tarfile.SYMTYPE, str(outside))
    archive = archive_of(tmp_path / "a.tar.gz", link, ("dir/evil", b"x"))
    with pytest.raises(CliError):
        unpack_suite(archive, tmp_path / "out")
    assert list(outside.iterdir()) == []


def test_the_same_name_twice(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tar.gz", ("suite.yaml", b"1"), ("./suite.yaml", b"2"))
    with pytest.raises(CliError, match="twice"):
        unpack_suite(archive, tmp_path / "out")


def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "UNPACKED_BYTES_MAX", 1000)
    archive = archive_of(tmp_path / "a.tar.gz", ("suite.yaml", b"0" * 5000))
    with pytest.raises(CliError, match="too many bytes"):
        unpack_suite(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "suite.yaml").exists()


@pytest.mark.parametrize(
    "content", [b"", b"not an archive", gzip.compress(b"not a tar"), gzip.compress(b"x" * 600)[:40]]
)
def test_not_an_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(CliError, match="cannot be unpacked"):
        unpack_suite(tmp_path / "a.tar.gz", tmp_path / "out")


def test_without_a_suite(tmp_path: Path) -> None:
    unpack_suite(archive_of(tmp_path / "a.tar.gz", ("readme", b"x")), tmp_path / "out")
    with pytest.raises(CliError, match=r"no suite\.yaml"):
        suite_root(tmp_path / "out")
