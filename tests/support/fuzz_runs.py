"""Hand fuzzed files to the real intake and the real import, and look at what each leaves behind."""

import hashlib
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from fuzz_archives import archive
from fuzz_bundles import break_bundle

from tiltyard.accounts.models import User
from tiltyard.competitions.bundle import BundleError, import_bundle
from tiltyard.competitions.models import Competition
from tiltyard.submissions.intake import UploadRefused, accept_upload
from tiltyard.submissions.models import Artefact, Submission
from tiltyard.submissions.stores import store

CASE_S_MAX: Final = 30.0  # on a busy machine; by itself a case takes milliseconds


class Hang(BaseException):
    """A case took too long."""


@dataclass
class Findings:
    """What came of the cases, and what should not have."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def run(self, seed: int, case: Callable[[], str]) -> None:
        start = time.monotonic()
        try:
            with _bounded(CASE_S_MAX):
                self.outcomes[case()] += 1
        except Hang:
            self.faults.append(f"seed {seed}: hangs")
        except Exception as error:  # every one is a finding
            self.faults.append(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
        self.slowest_s = max(self.slowest_s, time.monotonic() - start)


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def temporary_files_in(directory: Path) -> Iterator[Path]:
    """Have everything that this process calls temporary lie there, to see what stays."""
    directory.mkdir(parents=True)
    before, tempfile.tempdir = tempfile.tempdir, str(directory)
    try:
        yield directory
    finally:
        tempfile.tempdir = before


def fuzz_uploads(seeds: range, owner: User, competition: Competition, scratch: Path) -> Findings:
    """Hand in each seed's archive; whatever is accepted is checked and taken back."""
    findings = Findings()
    track = competition.tracks.get()
    with temporary_files_in(scratch / "temporary") as temporary:
        for seed in seeds:
            path = scratch / "upload"
            content = archive(seed)
            path.write_bytes(content)

            def case(path: Path = path, content: bytes = content) -> str:
                with transaction.atomic():
                    try:
                        submission = accept_upload(
                            owner=owner,
                            competition=competition,
                            track=track,
                            path=path,
                            filename="fuzzed",
                            now=timezone.now(),
                        )
                        sha256 = hashlib.sha256(content).hexdigest()
                        assert submission.artefact.sha256 == sha256
                        with store().fetched(sha256) as kept:
                            assert kept.read_bytes() == content
                        store().remove(sha256)
                        assert not path.exists()
                        return submission.artefact.kind
                    except UploadRefused:
                        assert path.read_bytes() == content
                        assert not Submission.objects.exists()
                        assert not Artefact.objects.exists()
                        path.unlink()
                        return "refused"
                    finally:
                        transaction.set_rollback(True)

            findings.run(seed, case)
            left = [*_files(temporary), *_files(Path(settings.ARTEFACT_DIR)), *_files(Path(settings.UPLOAD_DIR))]
            if left:
                findings.faults.append(f"seed {seed}: left {left[0]}")
                _empty(temporary, Path(settings.ARTEFACT_DIR))
    return findings


def fuzz_bundles(seeds: range, good: Path, scratch: Path) -> Findings:
    """Import each seed's bundle; whatever is refused must have changed nothing."""
    findings = Findings()
    with temporary_files_in(scratch / "temporary") as temporary:
        for seed in seeds:
            place, secrets = scratch / "bundle", scratch / "secrets"
            secrets.mkdir(exist_ok=True)
            break_bundle(good, place, seed)

            def case(place: Path = place, secrets: Path = secrets) -> str:
                with transaction.atomic():
                    try:
                        import_bundle(place, secrets_dir=secrets)
                        return "imported"
                    except BundleError:
                        assert not Competition.objects.exists()
                        assert _files(Path(settings.SUITE_DIR)) == []
                        return "refused"
                    finally:
                        transaction.set_rollback(True)

            findings.run(seed, case)
            if left := _files(temporary):
                findings.faults.append(f"seed {seed}: left {left[0]}")
            _empty(temporary, Path(settings.SUITE_DIR), secrets)
            shutil.rmtree(place)
    return findings


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if not path.is_dir()]


def _empty(*directories: Path) -> None:
    for directory in directories:
        for path in directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
