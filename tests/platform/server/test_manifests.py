"""Signed manifests of runs: signed when scored, given to whoever may see the run, and verified by the command."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from eval_results import example_result
from pytest_django.fixtures import Settings
from web_rows import Site, make_run, score

from tiltyard.accounts.models import ApiToken, User
from tiltyard.operations.models import AuditEntry
from tiltyard.submissions.manifests import public_key, signed_manifest
from tiltyard.submissions.models import Run, SuiteResult
from tiltyard.submissions.states import RunState
from tiltyard_eval.manifest import ManifestError, verify


@pytest.fixture(autouse=True)
def _own_key(settings: Settings, tmp_path: Path) -> None:
    settings.SIGNING_DIR = tmp_path / "signing"


@pytest.fixture
def run(site: Site) -> Run:
    """A scored run whose results are signed."""
    run = score(make_run(site, "mine", state=RunState.SCORED), 0.5, 0.4)
    for result in run.suite_results.all():
        result.signed = signed_manifest(run, example_result(), "sha256:evaluator")
        result.save()
    return run


def get(path: str, user: User | None) -> Any:
    headers = {"Authorization": f"Bearer {ApiToken.issue(user, 'test')[1]}"} if user else {}
    return Client().get(f"/api/v1{path}", headers=headers)


def test_what_the_database_gives_back_still_verifies(run: Run) -> None:
    signed = SuiteResult.objects.filter(run=run)[0].signed
    manifest = verify(signed, public_key())
    assert manifest["run"] == str(run.pk)
    assert manifest["submission"] == "mine"
    assert manifest["evaluator_image_digest"] == "sha256:evaluator"
    assert manifest["artefact_sha256"] == run.submission.artefact.sha256
    assert manifest["repro_hash"] == "sha256:feed"
    assert manifest["score"] == {"value": 0.625, "low": 0.5, "high": 0.75}


def test_kinds_of_failures_are_not_in_it(run: Run) -> None:
    # Of a hidden suite the server chooses which questions fail and how, so that the kinds could spell one.
    assert "http_status" not in json.dumps(run.suite_results.all()[0].signed)


def test_a_failed_result_has_none(run: Run) -> None:
    with pytest.raises(ValueError, match="only a scored result"):
        signed_manifest(run, replace(example_result(), score=None), "sha256:evaluator")


def test_the_key_stays_and_is_private(run: Run, tmp_path: Path) -> None:
    before = public_key()
    private = tmp_path / "signing" / "signing-key.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    signed_manifest(run, example_result(), "sha256:evaluator")
    assert public_key() == before
    private.unlink()  # as for a web server that may not read the worker's key
    assert public_key() == before


def test_api_gives_the_key_and_the_owners_manifests(run: Run, site: Site) -> None:
    key = get("/signing-key", None).json()
    assert key == {"algorithm": "ed25519", "public_key": public_key(), "retired": []}
    found = get(f"/runs/{run.pk}/manifests", site.owner).json()
    assert [verify(document, key["public_key"])["run"] for document in found] == [str(run.pk)] * 2
    found[0]["manifest"]["score"]["value"] = 1.0
    with pytest.raises(ManifestError):
        verify(found[0], key["public_key"])


def test_a_strangers_run_is_as_good_as_none(run: Run, site: Site) -> None:
    assert get(f"/runs/{run.pk}/manifests", site.stranger).status_code == 404
    assert get(f"/runs/{run.pk}/manifests", None).status_code == 401


def test_the_runs_page_links_a_download(run: Run, site: Site) -> None:
    browser = Client()
    browser.force_login(site.owner)
    suite = run.suite_results.all()[0].suite.name
    path = f"/runs/{run.pk}/manifest/{suite}/"
    assert path in browser.get(f"/runs/{run.pk}/").content.decode()
    response = browser.get(path)
    assert response.headers["Content-Disposition"] == f'attachment; filename="{suite}.manifest.json"'
    assert verify(response.json(), public_key())["run"] == str(run.pk)
    assert browser.get(f"/runs/{run.pk}/manifest/none/").status_code == 404


def test_a_result_from_before_there_were_manifests_has_no_link(site: Site) -> None:
    old = score(make_run(site, "old", state=RunState.SCORED), 0.5, 0.4)
    browser = Client()
    browser.force_login(site.owner)
    assert "Signed manifest" not in browser.get(f"/runs/{old.pk}/").content.decode()
    assert get(f"/runs/{old.pk}/manifests", site.owner).json() == []


def test_after_a_rotation_old_manifests_verify_by_the_old_key_and_new_ones_by_the_new(
    run: Run, settings: Settings
) -> None:
    signed, old = signed_manifest(run, example_result(), "sha256:evaluator"), public_key()
    call_command("rotate_signing_key")
    call_command("rotate_signing_key")
    new = public_key()
    keys = get("/signing-key", None).json()
    assert (keys["public_key"], keys["retired"][-1], len(keys["retired"])) == (new, old, 2)
    assert verify(signed, old)["run"] == str(run.pk)
    with pytest.raises(ManifestError):
        verify(signed, new)
    assert verify(signed_manifest(run, example_result(), "sha256:evaluator"), new)["run"] == str(run.pk)
    assert stat.S_IMODE((settings.SIGNING_DIR / "signing-key.pem").stat().st_mode) == 0o600
    assert AuditEntry.objects.filter(act="rotate_signing_key").count() == 2


def test_a_rotation_that_was_killed_halfway_leaves_no_wrong_public_key(run: Run, settings: Settings) -> None:
    old = public_key()
    (settings.SIGNING_DIR / "signing-key.pem").unlink()  # what the command does first
    signed = signed_manifest(run, example_result(), "sha256:evaluator")
    assert public_key() != old
    assert verify(signed, public_key())["run"] == str(run.pk)
