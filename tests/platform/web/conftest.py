"""A competition that is open now, in directories of the test's own, and who looks at it: owner, stranger, organiser."""

from pathlib import Path

import pytest
import web_rows
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings
from web_rows import Site

from tiltyard.accounts.models import User
from tiltyard.leaderboards.kept import forget_all


@pytest.fixture(autouse=True)
def own_directories(settings: Settings, tmp_path: Path) -> None:
    for name in ("ARTEFACT_DIR", "UPLOAD_DIR", "SUITE_DIR", "WORK_DIR"):
        directory = tmp_path / name.lower()
        directory.mkdir(mode=0o700)
        setattr(settings, name, directory)
    cache.clear()
    forget_all()  # boards of the tests before, whose tracks had the same keys
    settings.FILE_UPLOAD_TEMP_DIR = str(settings.UPLOAD_DIR)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick, and nobody's password
    settings.WHITENOISE_AUTOREFRESH = True  # no list of every static file for every client


@pytest.fixture
def site(db: None) -> Site:
    return web_rows.make_site(timezone.now())


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def owner(site: Site) -> Client:
    return signed_in(site.owner)


@pytest.fixture
def stranger(site: Site) -> Client:
    return signed_in(site.stranger)


@pytest.fixture
def organiser(site: Site) -> Client:
    return signed_in(site.staff)
