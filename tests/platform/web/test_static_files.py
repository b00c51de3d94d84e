"""Addresses of static files in production."""

from pathlib import Path

import pytest
from django.core.management import call_command
from pytest_django.fixtures import Settings

from tiltyard.web.static_files import KnownStaticFiles


def test_addresses_are_those_of_the_manifest_and_kept(settings: Settings, tmp_path: Path) -> None:
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": "tiltyard.web.static_files.KnownStaticFiles"}}
    call_command("collectstatic", interactive=False, verbosity=0)
    storage = KnownStaticFiles()

    address = storage.url("tiltyard/css/base.css")

    name = storage.stored_name("tiltyard/css/base.css")
    assert name != "tiltyard/css/base.css"
    assert address == settings.STATIC_URL + name
    storage.hashed_files = {}
    assert storage.url("tiltyard/css/base.css") == address
    with pytest.raises(ValueError, match="Missing staticfiles manifest entry"):
        storage.url("tiltyard/css/none.css")
