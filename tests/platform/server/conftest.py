"""A site of its own for every test: directories, an open competition, and three people."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import web_rows
from pytest_django.fixtures import Settings
from uploads_for_tests import context_archive
from web_rows import Site

from tiltyard.celery import app

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)


@pytest.fixture(autouse=True)
def own_directories(settings: Settings, tmp_path: Path) -> None:
    for name in ("ARTEFACT_DIR", "UPLOAD_DIR", "SUITE_DIR", "WORK_DIR", "SECRETS_DIR"):
        directory = tmp_path / name.lower()
        directory.mkdir(mode=0o700)
        setattr(settings, name, directory)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick, and nobody's password
    settings.FILE_UPLOAD_TEMP_DIR = str(settings.UPLOAD_DIR)
    settings.INSTANCE = f"test-{tmp_path.name}"[:40]


@pytest.fixture(autouse=True)
def no_broker(settings: Settings) -> None:
    """Nothing listens on port 1: what is queued stays in the database unless a test brings a broker."""
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    app.conf.update(broker_url=settings.REDIS_URL, broker_read_url=None, broker_write_url=None)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def site(db: None, now: datetime) -> Site:
    return web_rows.make_site(now)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A small archive with a Dockerfile, as a participant would upload it."""
    return context_archive(tmp_path / "entry.tar.gz")
