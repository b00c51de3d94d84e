"""A site of its own for every test: directories, an open competition, and three people."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
import web_rows
from asgiref.sync import SyncToAsync
from django.core.cache import cache
from django.db import connections
from pytest_django.fixtures import Settings
from uploads_for_tests import context_archive
from web_rows import Site

from tiltyard.celery import app
from tiltyard.leaderboards.kept import forget_all

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)


@pytest.fixture(scope="session")
def known_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digests of the machine's images, which would take every test with a container seven seconds."""
    return tmp_path_factory.mktemp("layers") / "digests.json"


@pytest.fixture(autouse=True)
def own_directories(settings: Settings, tmp_path: Path, known_layers: Path) -> Iterator[None]:
    for name in ("ARTEFACT_DIR", "UPLOAD_DIR", "SUITE_DIR", "WORK_DIR", "SECRETS_DIR"):
        directory = tmp_path / name.lower()
        directory.mkdir(mode=0o700)
        setattr(settings, name, directory)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick, and nobody's password
    settings.FILE_UPLOAD_TEMP_DIR = str(settings.UPLOAD_DIR)
    cache.clear()
    forget_all()  # boards of the tests before, whose tracks had the same keys
    settings.INSTANCE = f"test-{tmp_path.name}"[:40]
    digests = settings.WORK_DIR / known_layers.name
    if known_layers.exists():
        shutil.copy(known_layers, digests)
    yield
    if digests.exists():
        shutil.copy(digests, known_layers)
    # A thread keeps its connection: this one's is of a test's database, and the next test may be allowed none.
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


def use_broker(settings: Settings, url: str) -> None:
    settings.REDIS_URL = url
    app.conf.update(broker_url=url)
    app._after_fork()  # forget the pools of connections to the broker before


@pytest.fixture(autouse=True)
def no_broker(settings: Settings) -> None:
    """Nothing listens on port 1: what is queued stays in the database unless a test brings a broker."""
    use_broker(settings, "redis://127.0.0.1:1/0")


@pytest.fixture
def broker(settings: Settings, redis_url: str) -> Iterator[redis.Redis]:
    """A real Redis as the broker, empty."""
    use_broker(settings, redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        yield client


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
