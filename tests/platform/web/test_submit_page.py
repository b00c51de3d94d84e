"""Handing in an archive through the page, with and without a script."""

import json
import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import web_rows
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings
from uploads_for_tests import context_archive
from web_rows import Site

from tiltyard.submissions.models import Artefact, Submission
from tiltyard.uploads import files
from tiltyard.uploads.models import Upload


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    return context_archive(tmp_path / "entry.tar.gz").read_bytes()


def address(site: Site) -> str:
    return site.competition.get_absolute_url() + "submit/"


def form(content: bytes, track: str = "cpu") -> dict[str, object]:
    return {"track": track, "file": SimpleUploadedFile("entry.tar.gz", content)}


def test_an_accepted_archive_leads_to_the_page_of_its_run(owner: Client, site: Site, archive: bytes) -> None:
    response = owner.post(address(site), form(archive))

    submission = Submission.objects.get()
    assert response.status_code == 302
    assert response.headers["Location"] == submission.runs.get().get_absolute_url()
    assert submission.owner == site.owner
    assert submission.artefact.path.read_bytes() == archive


def test_the_script_gets_the_address_of_the_run_as_json(owner: Client, site: Site, archive: bytes) -> None:
    response = owner.post(address(site), form(archive), headers={"accept": "application/json"})

    assert response.status_code == 201
    assert json.loads(response.content) == {"url": Submission.objects.get().runs.get().get_absolute_url()}


def test_the_page_states_limits_and_quota(owner: Client, site: Site) -> None:
    page = owner.get(address(site)).content.decode()

    assert "at most 50 GiB" in page
    assert 'data-limit-bytes="53687091200"' in page
    assert "0 of 5" in page
    assert "15 min for each suite" in page


def test_a_refusal_stands_in_the_page_and_the_choice_of_track_stays(owner: Client, site: Site) -> None:
    response = owner.post(address(site), form(b"this is no archive at all"))

    page = response.content.decode()
    assert response.status_code == 422
    assert "Not accepted." in page
    assert re.search(r'value="cpu"\s+required\s+checked', page)
    assert not Artefact.objects.exists()


def test_the_script_gets_the_refusal_as_json(owner: Client, site: Site) -> None:
    response = owner.post(address(site), form(b"no archive"), headers={"accept": "application/json"})

    assert response.status_code == 422
    assert json.loads(response.content)["detail"]


@pytest.mark.parametrize("track", ["", "none"])
def test_a_missing_track_is_asked_for(owner: Client, site: Site, archive: bytes, track: str) -> None:
    response = owner.post(address(site), form(archive, track))

    assert response.status_code == 422
    assert "Choose the track" in response.content.decode()


def test_a_missing_file_is_asked_for(owner: Client, site: Site) -> None:
    response = owner.post(address(site), {"track": "cpu"})

    assert response.status_code == 422
    assert "Choose a file" in response.content.decode()


def test_a_file_over_the_competitions_limit_gets_413_and_a_clear_message(
    owner: Client, site: Site, archive: bytes
) -> None:
    site.competition.upload_bytes_max = 100
    site.competition.save()

    response = owner.post(address(site), form(archive), headers={"accept": "application/json"})

    assert response.status_code == 413
    assert "100 bytes allowed" in json.loads(response.content)["detail"]


def test_a_body_over_the_sites_limit_is_refused_by_its_declared_length(
    owner: Client, site: Site, settings: Settings, archive: bytes
) -> None:
    settings.UPLOAD_BYTES_MAX = 1000

    response = owner.post(address(site), form(archive + b"\0" * 100_000))

    assert response.status_code == 413
    assert not Submission.objects.exists()


def test_a_used_up_quota_is_said_before_and_after(owner: Client, site: Site, archive: bytes) -> None:
    for number in range(2):
        web_rows.make_run(site, f"waiting-{number}")

    before = owner.get(address(site)).content.decode()
    after = owner.post(address(site), form(archive), headers={"accept": "application/json"})

    assert "2 of your runs are still queued or running" in before
    assert after.status_code == 429
    assert "2 of your runs" in json.loads(after.content)["detail"]


def test_a_competition_that_is_over_takes_nothing(owner: Client, site: Site, archive: bytes) -> None:
    site.competition.phases.update(ends_at=site.now)

    assert "no phase is open" in owner.get(address(site)).content.decode()
    assert owner.post(address(site), form(archive)).status_code == 429


def test_a_passer_by_hands_in_nothing(client: Client, site: Site, archive: bytes) -> None:
    assert client.post(address(site), form(archive)).status_code == 302
    assert not Submission.objects.exists()


def test_it_takes_the_form_of_the_page(site: Site, archive: bytes) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(site.owner)

    assert client.post(address(site), form(archive)).status_code == 403
    assert not Submission.objects.exists()


def _complete_upload(site: Site, archive: Path) -> Upload:
    upload = Upload.objects.create(
        owner=site.owner,
        competition=site.competition,
        track=site.track,
        filename="entry.tar.gz",
        size_bytes=archive.stat().st_size,
        state=Upload.State.HELD,
        detail="You have used today's 5 submissions.",
        expires_at=timezone.now() + timedelta(days=1),
    )
    files.create(upload.pk)
    shutil.copy(archive, files.path_of(upload.pk))
    return upload


def test_an_upload_that_the_quota_held_back_is_handed_in_later(owner: Client, site: Site, tmp_path: Path) -> None:
    upload = _complete_upload(site, context_archive(tmp_path / "entry.tar.gz"))
    page = owner.get(f"/competitions/{site.competition.slug}/submit/").content.decode()
    assert "Complete, but not handed in: You have used today&#x27;s 5 submissions." in page
    response = owner.post(f"/competitions/{site.competition.slug}/uploads/{upload.pk}/hand-in/")
    assert response.status_code == 302
    assert response.headers["Location"].startswith("/runs/")
    assert Submission.objects.get().original_filename == "entry.tar.gz"
    assert files.offset_of(upload.pk) is None


def test_a_held_upload_stays_held_while_the_quota_is_used(owner: Client, site: Site, tmp_path: Path) -> None:
    site.competition.phases.update(ends_at=timezone.now() - timedelta(hours=1))
    upload = _complete_upload(site, context_archive(tmp_path / "entry.tar.gz"))
    owner.post(f"/competitions/{site.competition.slug}/uploads/{upload.pk}/hand-in/")
    upload.refresh_from_db()
    assert (upload.state, Submission.objects.count()) == (Upload.State.HELD, 0)
    assert "no phase is open" in upload.detail


def test_nobody_touches_anothers_upload(site: Site, tmp_path: Path) -> None:
    upload = _complete_upload(site, context_archive(tmp_path / "entry.tar.gz"))
    stranger = Client()
    for act in ("hand-in", "discard"):
        address = f"/competitions/{site.competition.slug}/uploads/{upload.pk}/{act}/"
        assert "/accounts/login/" in stranger.post(address).headers["Location"]
    stranger.force_login(site.stranger)
    for act in ("hand-in", "discard"):
        assert stranger.post(f"/competitions/{site.competition.slug}/uploads/{upload.pk}/{act}/").status_code == 404
    assert files.offset_of(upload.pk) == upload.size_bytes
