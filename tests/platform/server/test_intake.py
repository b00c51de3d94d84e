"""From a file to a queued run, and every refusal with its message."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from pytest_django.fixtures import Settings
from uploads_for_tests import MANIFEST, context_archive
from web_rows import Site, make_run, make_site

from tiltyard.competitions.models import Track
from tiltyard.submissions.intake import QuotaExceeded, UploadRefused, UploadTooLarge, accept_upload
from tiltyard.submissions.models import Artefact, Run, Submission
from tiltyard.submissions.states import RunState

Accept = Callable[..., Submission]


@pytest.fixture
def accept(site: Site, now: datetime) -> Accept:
    def call(path: Path, **changes: object) -> Submission:
        arguments = {
            "owner": site.owner,
            "competition": site.competition,
            "track": site.track,
            "path": path,
            "filename": path.name,
            "now": now,
        }
        return accept_upload(**(arguments | changes))  # type: ignore[arg-type]

    return call


def refusal(accept: Accept, path: Path, **changes: object) -> str:
    with pytest.raises(UploadRefused) as refused:
        accept(path, **changes)
    assert path.exists(), "a refused file stays where it was"
    assert not Submission.objects.exists()
    assert not Artefact.objects.exists()
    return refused.value.message


def test_an_accepted_file_is_kept_and_queued(accept: Accept, archive: Path, site: Site, now: datetime) -> None:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    submission = accept(archive)
    assert (submission.name, submission.manifest["base_model"]) == ("tiny", "squire")
    assert (submission.artefact.sha256, submission.artefact.kind) == (sha256, Artefact.Kind.DOCKER_CONTEXT)
    assert hashlib.sha256(submission.artefact.path.read_bytes()).hexdigest() == sha256
    assert submission.artefact.path.stat().st_mode & 0o777 == 0o400
    assert not archive.exists()
    run = submission.runs.get()
    assert (run.state, run.queued_at, run.attempt) == (RunState.QUEUED, now, 0)
    assert [event.message for event in run.events.all()] == ["Accepted and queued."]


def test_the_same_file_is_stored_once(accept: Accept, tmp_path: Path) -> None:
    first, second = (accept(context_archive(tmp_path / name)) for name in ("a.tar.gz", "b.tar.gz"))
    assert first.artefact == second.artefact
    assert first.pk != second.pk
    assert second.original_filename == "b.tar.gz"


@pytest.mark.django_db(transaction=True)
def test_without_a_broker_the_upload_still_succeeds(accept: Accept, archive: Path) -> None:
    run = accept(archive).runs.get()
    assert (run.state, run.published_at) == (RunState.QUEUED, None)


def test_not_an_archive(accept: Accept, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("I am no archive.\n")
    assert refusal(accept, path) == (
        "This is not an archive. Upload a .zip, .tar or .tar.gz that holds a Dockerfile, or a saved image."
    )


def test_after_too_many_refusals_nothing_is_read_for_the_rest_of_the_hour(
    accept: Accept, tmp_path: Path, site: Site, now: datetime, settings: Settings
) -> None:
    settings.REFUSED_UPLOADS_MAX = 2
    archive, path = context_archive(tmp_path / "entry.tar.gz"), tmp_path / "notes.txt"
    path.write_text("I am no archive.\n")
    for _ in range(2):
        assert refusal(accept, path).startswith("This is not an archive.")
    with pytest.raises(QuotaExceeded, match="2 of your uploads were refused this hour"):
        accept(archive)
    assert accept(context_archive(tmp_path / "other.tar.gz"), owner=site.stranger)
    assert accept(archive, now=now + timedelta(hours=1))


def test_an_archive_without_a_dockerfile(accept: Accept, tmp_path: Path) -> None:
    path = context_archive(tmp_path / "a.tar.gz", dockerfile=None)
    assert refusal(accept, path) == (
        "There is no Dockerfile at the archive's root or in its single top folder. Found: server.py, tiltyard.yaml."
    )


def test_a_manifest_that_lacks_a_field(accept: Accept, tmp_path: Path) -> None:
    path = context_archive(tmp_path / "a.tar.gz", manifest="name: tiny\nbase_model: squire\nlicence: MIT\n")
    assert refusal(accept, path) == (
        "tiltyard.yaml lacks training_data. Required: name, base_model, training_data, licence."
    )


def test_a_base_model_that_is_not_allowed(accept: Accept, tmp_path: Path) -> None:
    path = context_archive(tmp_path / "a.tar.gz", manifest={"base_model": "gpt-9"})
    assert refusal(accept, path) == "tiltyard.yaml: the base model 'gpt-9' is not allowed here. Allowed: squire."


def test_a_base_image_that_is_not_allowed(accept: Accept, tmp_path: Path) -> None:
    path = context_archive(tmp_path / "a.tar.gz", dockerfile="FROM evil/image:latest\n")
    message = refusal(accept, path)
    assert "evil/image:latest" in message
    assert "tiltyard/runtime:cpu" in message


def test_a_file_over_the_competitions_limit(accept: Accept, archive: Path, site: Site) -> None:
    site.competition.upload_bytes_max = 100
    with pytest.raises(UploadTooLarge, match=r"which is more than the 100 bytes allowed\. Leave out"):
        accept(archive)


def test_the_sites_limit_stands_above_the_competitions(accept: Accept, archive: Path, settings: Settings) -> None:
    settings.UPLOAD_BYTES_MAX = 50
    assert "more than the 50 bytes allowed" in refusal(accept, archive)


def test_a_used_up_quota(accept: Accept, archive: Path, site: Site) -> None:
    for name in ("one", "two"):
        make_run(site, name)
    with pytest.raises(QuotaExceeded, match="2 of your runs are still queued or running"):
        accept(archive)
    assert archive.exists()


def test_a_closed_competition(accept: Accept, archive: Path, now: datetime) -> None:
    late = now + timedelta(days=100)
    assert refusal(accept, archive, now=late).startswith("The competition takes no submissions now")
    assert refusal(accept, archive, now=late, is_baseline=True).startswith("The competition takes no submissions now")


def test_baselines_are_free_of_quotas(accept: Accept, archive: Path, site: Site) -> None:
    for name in ("one", "two"):
        make_run(site, name)
    assert accept(archive, is_baseline=True).is_baseline
    assert Run.objects.count() == 3


def test_a_track_of_another_competition(accept: Accept, archive: Path, site: Site, now: datetime) -> None:
    other = make_site(now, slug="other", title="Other")
    assert Track.objects.count() == 2
    assert refusal(accept, archive, track=other.track) == "The competition Little Questions has no such track."


def test_a_file_name_is_kept_without_its_path(accept: Accept, archive: Path) -> None:
    assert accept(archive, filename="../../etc/" + "x" * 300).original_filename == "x" * 255


def test_an_image_that_is_named_in_an_allowed_registry(accept: Accept, site: Site, tmp_path: Path) -> None:
    reference = f"registry.example/team/entry@sha256:{'0123456789abcdef' * 4}"
    path = tmp_path / "tiltyard.yaml"
    text = yaml.safe_dump(MANIFEST | {"image": reference})
    path.write_text(text)
    assert "takes no images from registries" in refusal(accept, path)
    site.competition.registries = ["other.example"]
    assert "Allowed: other.example" in refusal(accept, path)
    site.competition.registries = ["other.example", "registry.example"]
    path.write_text(text.replace("@sha256:", ":"))
    assert "not pinned" in refusal(accept, path)
    path.write_text(text)
    submission = accept(path)
    assert submission.artefact.kind == Artefact.Kind.IMAGE_REFERENCE
    assert submission.manifest["image"] == reference
    assert submission.artefact.path.read_text() == text
