import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tiltyard.cli.errors import CliError
from tiltyard.cli.packing import pack_directory, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small submission with something to leave out."""
    root = tmp_path / "folder"
    for name, text in {
        "Dockerfile": "FROM x\n",
        "tiltyard.yaml": "name: a\nbase_model: squire\ntraining_data: none\nlicence: MIT\n",
        "adapter/weights.bin": "w" * 1000,
        "serve.py": "pass\n",
        "data/train.jsonl": "{}\n",
        "data/keep/notes.md": "kept\n",
        ".git/config": "secret",
        ".env": "TOKEN=1",
        "env/pyvenv.cfg": "home = /usr",
        "env/bin/python": "x",
        "__pycache__/serve.cpython-311.pyc": "x",
        "tiltyard-results/1/result.json": "{}",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def names_in(archive: Path) -> set[str]:
    with tarfile.open(archive) as packed:
        return set(packed.getnames())


def test_packs_the_submission_and_leaves_out_what_never_goes_along(folder: Path, tmp_path: Path) -> None:
    packed = pack_directory(folder, tmp_path / "a.tar.gz")
    expected = {"Dockerfile", "tiltyard.yaml", "adapter", "adapter/weights.bin", "serve.py", "data"}
    expected |= {"data/train.jsonl", "data/keep", "data/keep/notes.md"}
    assert names_in(packed.path) == expected
    assert set(packed.files) == expected
    assert packed.size_bytes == packed.path.stat().st_size


def test_same_files_same_bytes_whatever_their_times_owners_and_order(folder: Path, tmp_path: Path) -> None:
    first = pack_directory(folder, tmp_path / "a.tar.gz")
    other = tmp_path / "elsewhere"
    for path in sorted(folder.rglob("*"), reverse=True):  # written in another order, at another time
        target = other / path.relative_to(folder)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            target.chmod(0o600)
            os.utime(target, (1, 1))
    second = pack_directory(other, tmp_path / "another-name.tar.gz")
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_changed_byte_and_an_executable_bit_change_the_archive(folder: Path, tmp_path: Path) -> None:
    first = pack_directory(folder, tmp_path / "a.tar.gz")
    (folder / "serve.py").chmod(0o755)
    second = pack_directory(folder, tmp_path / "b.tar.gz")
    (folder / "serve.py").write_text("exit\n")
    third = pack_directory(folder, tmp_path / "c.tar.gz")
    assert len({first.sha256, second.sha256, third.sha256}) == 3


@pytest.mark.parametrize(
    ("rules", "left_out"),
    [
        ("data\n", {"data", "data/train.jsonl", "data/keep", "data/keep/notes.md"}),
        ("/data/\n", {"data", "data/train.jsonl", "data/keep", "data/keep/notes.md"}),
        ("# data\n\n*.jsonl\n", set()),  # a pattern without ** matches at the root only, as Docker's
        ("**/*.jsonl\n", {"data/train.jsonl"}),
        ("data/*\n!data/keep\n", {"data/train.jsonl"}),
        ("!data\ndata\n", {"data", "data/train.jsonl", "data/keep", "data/keep/notes.md"}),
        ("data/t?ain.json[a-l]\n", {"data/train.jsonl"}),
        ("data/[^k]*\n", {"data/train.jsonl"}),
        ("**\n!adapter\n!serve.py\n", {"data", "data/train.jsonl", "data/keep", "data/keep/notes.md"}),
        ("train.jsonl\nkeep\n", set()),
        ("Dockerfile\ntiltyard.yaml\n.dockerignore\n", set()),  # the platform needs these
    ],
)
def test_dockerignore(folder: Path, tmp_path: Path, rules: str, left_out: set[str]) -> None:
    everything = set(pack_directory(folder, tmp_path / "all.tar.gz").files)
    (folder / ".dockerignore").write_text(rules)
    packed = pack_directory(folder, tmp_path / "some.tar.gz")
    assert everything - set(packed.files) == left_out


@pytest.mark.parametrize("line", ["../outside", "[unfinished"])
def test_dockerignore_line_that_makes_no_sense(folder: Path, tmp_path: Path, line: str) -> None:
    (folder / ".dockerignore").write_text(f"data\n{line}\n")
    with pytest.raises(CliError, match=r"\.dockerignore"):
        pack_directory(folder, tmp_path / "a.tar.gz")


def test_a_link_inside_becomes_its_file(folder: Path, tmp_path: Path) -> None:
    (folder / "model.bin").symlink_to("adapter/weights.bin")
    packed = pack_directory(folder, tmp_path / "a.tar.gz")
    with tarfile.open(packed.path) as archive:
        member = archive.getmember("model.bin")
        assert member.isreg()
        assert member.size == 1000


def link_outside(folder: Path) -> None:
    (folder / "password").symlink_to("/etc/passwd")


def link_to_folder(folder: Path) -> None:
    (folder / "loop").symlink_to(".")


def broken_link(folder: Path) -> None:
    (folder / "gone").symlink_to("nowhere")


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def unix_socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket"))  # a socket's path is short, tmp_path is not


@pytest.mark.parametrize("plant", [link_outside, link_to_folder, broken_link, fifo, unix_socket])
def test_what_cannot_travel_is_refused_by_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(folder)
    plant(folder)
    with pytest.raises(CliError, match=r"\.dockerignore") as caught:
        pack_directory(folder, tmp_path / "a.tar.gz")
    assert any(name in caught.value.message for name in ("password", "loop", "gone", "pipe", "socket"))


@pytest.mark.parametrize("missing", ["Dockerfile", "tiltyard.yaml"])
def test_a_folder_that_is_no_submission(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(CliError, match=f"has no {missing}") as caught:
        read_manifest(folder)
    assert "tiltyard init" in caught.value.message


def test_a_bad_manifest_says_what_is_wrong(folder: Path) -> None:
    (folder / "tiltyard.yaml").write_text("name: a\n")
    with pytest.raises(CliError, match="lacks base_model"):
        read_manifest(folder)
