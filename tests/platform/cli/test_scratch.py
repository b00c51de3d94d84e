"""What a killed call has packed is removed by the next; what a living one packs is left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiltyard.cli import scratch
from tiltyard.cli.config import cache_dir

PACKING = """
import sys, time
from tiltyard.cli.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "submission.tar.gz").write_bytes(b"packed")
    print(folder, flush=True)
    time.sleep(60)
"""


def _packing() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", PACKING], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def _age(folder: Path) -> None:
    long_ago = time.time() - 3600
    os.utime(folder, (long_ago, long_ago))


def test_a_killed_calls_copy_is_removed_by_the_next_and_a_living_ones_stays() -> None:
    (killed, left), (alive, kept) = _packing(), _packing()
    with killed, alive:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        _age(left)
        _age(kept)
        assert (left / "submission.tar.gz").exists()
        with scratch.scratch_folder() as own:
            assert own.is_dir()
            assert not left.exists()
            assert (kept / "submission.tar.gz").exists()
        assert not own.exists()
        alive.kill()


def test_a_folder_that_was_just_made_is_left_to_be_locked() -> None:
    young = cache_dir() / "upload-young"
    young.mkdir()
    with scratch.scratch_folder():
        assert young.exists()
    _age(young)
    with scratch.scratch_folder():
        assert not young.exists()


def test_what_is_no_folder_of_ours_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    link = cache_dir() / "upload-link"
    link.symlink_to(elsewhere)
    file = cache_dir() / "upload-file"
    file.touch()
    os.utime(elsewhere, (0, 0))
    os.utime(file, (0, 0))
    with scratch.scratch_folder():
        assert (elsewhere / "kept").exists()
        assert link.is_symlink()
        assert file.exists()


def test_submit_sweeps(tiltyard, monkeypatch: pytest.MonkeyPatch) -> None:
    left = cache_dir() / "upload-left"
    left.mkdir()
    (left / "submission.tar.gz").touch()
    _age(left)
    monkeypatch.setattr("tiltyard.cli.commands.entries.ApiClient.me", lambda _: {})
    monkeypatch.setattr("tiltyard.cli.commands.entries.ApiClient.competition", lambda _self, _slug: {})
    ran = tiltyard("submit", "./none.zip", "--competition", "demo", "--server", "http://127.0.0.1:1")
    assert ran.exit_code != 0
    assert "does not exist" in ran.stderr
    assert not left.exists()
