"""Whole runs whose artefacts lie in a real S3 server, fetched by workers that share no folder with the site."""

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import tiny_server
from bundles_for_tests import write_bundle
from cut_connections import cutter
from own_images import make_own_images
from s3_server import BUCKET, S3Server, s3_place, serving
from uploads_for_tests import context_archive
from worker_system import SUBMIT, System, until

from tiltyard.submissions.stores import StoreError
from tiltyard.submissions.stores.s3 import S3Store

NO_BROKER = "redis://127.0.0.1:1/0"
RING = """
import django
django.setup()
from django.utils import timezone
from tiltyard.worker.maintenance import publish_unpublished
assert publish_unpublished(timezone.now()) == 1
"""
OVER = {"scored", "failed", "cancelled"}
DOCKERFILE = 'ARG BASE=tiltyard/python:3.11\nFROM ${BASE}\nCOPY . /app\nCMD ["python3", "/app/server.py"]\n'


@pytest.fixture
def place(tmp_path: Path) -> S3Server:
    return s3_place(tmp_path / "s3" / "objects")


class SiteWithWorkers:
    """A site that hands one submission in, and workers elsewhere: only the suites lie in both places."""

    def __init__(self, system: System, place: S3Server, folder: Path) -> None:
        self.system = system
        self.place = place
        self.folder = folder
        system.environment |= place.environment("runs")
        archive = context_archive(
            folder / "entry.tar.gz",
            dockerfile=DOCKERFILE,
            files={"server.py": Path(tiny_server.__file__).read_text()},
        )
        self.sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        system.python("-c", SUBMIT, str(write_bundle(folder / "bundle")), str(archive))
        self.elsewhere = folder / "elsewhere"
        for name in ("ARTEFACT", "UPLOAD", "WORK"):
            system.environment[f"TILTYARD_{name}_DIR"] = str(self.elsewhere / name.lower())

    def files(self) -> set[str]:
        """What lies in the folders of artefacts and uploads, and every copy of an artefact, of site and workers."""
        kept = [path / name for path in (self.folder, self.elsewhere) for name in ("artefacts", "artefact", "uploads")]
        found = [path for folder in kept for path in folder.rglob("*") if path.is_file()]
        return {str(path) for path in [*found, *self.folder.rglob("artefact-*")]}

    def row(self, columns: str) -> Any:
        with sqlite3.connect(self.folder / "db.sqlite3", timeout=20) as database:
            return database.execute(f"SELECT {columns} FROM submissions_run").fetchone()  # noqa: S608  a test's own


@pytest.fixture
def system(tmp_path: Path, redis_url: str, docker_client: docker.DockerClient) -> Iterator[System]:
    make_own_images()
    made = System(tmp_path, redis_url)
    yield made
    made.stop()


@pytest.mark.docker
@pytest.mark.redis
@pytest.mark.slow
def test_a_submission_in_s3_is_fetched_built_and_scored_elsewhere(
    system: System, place: S3Server, tmp_path: Path
) -> None:
    with serving(place):
        site = SiteWithWorkers(system, place, tmp_path)
        [stored] = place.objects()
        assert stored.name == site.sha256
        assert site.files() == set()
        system.worker("cpu")
        until(system, lambda: system.run()[0] in OVER)
        assert system.run() == ("scored", 1), system.logs()
    build_log, digest = site.row("build_log, image_digest")
    assert "COPY . /app" in build_log
    assert digest.startswith("sha256:")
    assert site.files() == set(), "the worker's copy is gone"
    [stored] = place.objects()
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == site.sha256


@pytest.mark.docker
@pytest.mark.redis
@pytest.mark.slow
def test_a_run_waits_for_a_store_that_is_away(system: System, place: S3Server, tmp_path: Path) -> None:
    broker, system.environment["TILTYARD_REDIS_URL"] = system.environment["TILTYARD_REDIS_URL"], NO_BROKER
    with serving(place):
        site = SiteWithWorkers(system, place, tmp_path)
        system.environment["TILTYARD_REDIS_URL"] = broker
        worker = system.worker("cpu", "--loglevel", "INFO")
        until(system, lambda: " ready." in system.logs())
    system.python("-c", RING)  # the worker hears of the run when the store has just gone
    until(system, lambda: "The store of artefacts, s3://" in system.logs())
    assert system.run() == ("queued", 0), "no attempt was spent on it"
    with serving(place):
        until(system, lambda: system.run()[0] in OVER)
        assert system.run() == ("scored", 1), system.logs()
    assert worker.poll() is None
    assert site.files() == set()


@pytest.mark.docker
@pytest.mark.redis
@pytest.mark.slow
def test_an_artefact_that_was_changed_in_s3_is_never_built(system: System, place: S3Server, tmp_path: Path) -> None:
    with serving(place):
        site = SiteWithWorkers(system, place, tmp_path)
        [stored] = place.objects()
        stored.write_bytes(stored.read_bytes()[:-1] + b"!")
        system.worker("cpu")
        until(system, lambda: system.run()[0] in OVER)
    assert system.run() == ("failed", 3), system.logs()
    reason, build_log, faults = site.row("failure_reason, build_log, faults")
    assert (reason, build_log, faults) == ("infra_error", "", 3)  # which no quota counts
    assert "it was changed or damaged" in system.logs()
    assert site.files() == set()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, place: S3Server) -> None:
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)


def _store(url: str, scratch_dir: Path) -> S3Store:
    return S3Store(bucket=BUCKET, prefix="cut", endpoint_url=url, region="us-east-1", scratch_dir=scratch_dir)


def test_a_fetch_goes_on_where_the_connection_was_cut(keys: None, place: S3Server, tmp_path: Path) -> None:
    content = os.urandom(12 << 20)
    sha256 = hashlib.sha256(content).hexdigest()
    (tmp_path / "upload").write_bytes(content)
    with serving(place), cutter(("127.0.0.1", place.port)) as way:
        _store(place.url, tmp_path).put(tmp_path / "upload", sha256)
        cut_short = _store(way.url, tmp_path)
        way.answer_bytes_max = 5 << 20
        with cut_short.fetched(sha256) as fetched:
            assert fetched.read_bytes() == content
        assert way.cuts == 2
        assert sum(line.startswith("GET ") for line in way.asked) == 3
        way.answer_bytes_max = 100_000  # it would never come to an end
        with pytest.raises(StoreError, match="breaks each time"), cut_short.fetched(sha256):
            pytest.fail("it is not there")
    assert list(tmp_path.glob("artefact-*")) == []
