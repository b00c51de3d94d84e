"""The command against a real server: Django's own, over HTTP, with the real API and database."""

import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from django.utils import timezone
from eval_results import example_result

from tiltyard.accounts.models import ApiToken, User
from tiltyard.celery import app
from tiltyard.cli.client import ApiClient
from tiltyard.cli.config import Config, config_path
from tiltyard.cli.plan import plan_from_bundle, plan_from_server
from tiltyard.competitions.bundle import import_bundle
from tiltyard.competitions.models import Competition
from tiltyard.submissions.manifests import public_key, rotate_key, signed_manifest
from tiltyard.submissions.models import Run, Submission, SuiteResult
from tiltyard.submissions.states import FailureReason, RunState

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),  # static files are not collected for tests
]


@pytest.fixture(autouse=True)
def _own_folders(settings: Any, tmp_path: Path) -> None:
    for name in ("ARTEFACT_DIR", "UPLOAD_DIR", "SUITE_DIR", "WORK_DIR", "SECRETS_DIR", "SIGNING_DIR"):
        (tmp_path / name).mkdir()
        setattr(settings, name, tmp_path / name)
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "UPLOAD_DIR")
    # Nothing listens on port 1: what is queued stays in the database, and no worker of this machine hears of it.
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    app.conf.update(broker_url=settings.REDIS_URL, broker_read_url=None, broker_write_url=None)


@pytest.fixture
def bundle(tmp_path: Path, demo_suite: Path) -> Path:
    """A small competition whose one suite is the demo's open one."""
    directory = tmp_path / "bundle"
    shutil.copytree(demo_suite, directory / "suites" / "open")
    (directory / "overview.md").write_text("# Joust\n")
    now = timezone.now()
    description = {
        "schema": "tiltyard.competition/1",
        "slug": "joust",
        "title": "Joust",
        "summary": "A small competition.",
        "base_models": ["squire"],
        "base_images": ["tiltyard/runtime:cpu", "tiltyard/python:3.11"],
        "upload_bytes_max": "1 MiB",
        "evaluation_seed": 7,
        "pages": [{"slug": "overview", "title": "Overview", "file": "overview.md"}],
        "tracks": [
            {"slug": "small", "title": "Small", "hardware": "2 cores", "limits": {"cpus": 2, "memory_bytes": "2 GiB"}},
            {"slug": "large", "title": "Large", "hardware": "8 cores", "limits": {"cpus": 8}},
        ],
        "phases": [
            {
                "slug": "main",
                "title": "Main phase",
                "starts_at": (now - timedelta(days=1)).isoformat(),
                "ends_at": (now + timedelta(days=1)).isoformat(),
                "total_quota": 2,
            }
        ],
        "suites": [{"path": "suites/open", "weight": 1}],
    }
    (directory / "competition.yaml").write_text(yaml.safe_dump(description))
    return directory


@pytest.fixture
def site(live_server: Any, bundle: Path, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A server with the competition, and its participant logged in with the command."""
    competition = import_bundle(bundle, secrets_dir=tmp_path / "SECRETS_DIR")
    user = User.objects.create_user("ada", "ada@example.org", "a good password")
    _, token = ApiToken.issue(user, "laptop")
    Config(live_server.url, {live_server.url: token}).save()
    yield SimpleNamespace(url=live_server.url, competition=competition, user=user, token=token)
    for path in [tmp_path, *tmp_path.rglob("*")]:  # installed suites are read-only, and pytest wants to remove them
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)


def queued_run(timeout_s: float = 30.0) -> Run:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if run := Run.objects.filter(state=RunState.QUEUED).first():
            return run
        time.sleep(0.05)
    raise AssertionError("no run was queued in time")


def carry_out(run: Run, state: RunState, **fields: Any) -> Run:
    """Take a run through its states as a worker does, to its end."""
    taken = Run.claim(run.pk, "test", timezone.now())
    assert taken is not None
    for step in (RunState.BUILDING, RunState.EVALUATING):
        assert taken.transition(step, f"Now {step}.")
    if state == RunState.SCORED:
        assert taken.transition(RunState.SCORING, "Scoring.")
    assert taken.transition(state, "Over.", **fields)
    return taken


# Accounts


def test_login_stores_a_token_that_works(tiltyard_process, site) -> None:
    config_path().unlink()
    ran = tiltyard_process("login", "--server", site.url, "--json", stdin=f"{site.token}\n")
    assert ran.exit_code == 0
    assert ran.document == {"server": site.url, "username": "ada", "config": str(config_path())}
    assert stat.S_IMODE(config_path().stat().st_mode) == 0o600
    assert Config.load().tokens == {site.url: site.token}
    assert site.token not in ran.stdout + ran.stderr


def test_login_takes_the_token_from_the_environment(tiltyard, site, monkeypatch: pytest.MonkeyPatch) -> None:
    config_path().unlink()
    monkeypatch.setenv("TILTYARD_TOKEN", site.token)
    assert tiltyard("login", "--server", site.url).exit_code == 0
    assert Config.load().tokens == {site.url: site.token}


@pytest.mark.parametrize(("text", "code"), [("ty_wrong", 5), ("", 2), ("two words", 2), ("ünïcode", 2)])
def test_login_with_a_bad_token_stores_nothing(tiltyard_process, site, text: str, code: int) -> None:
    config_path().unlink()
    ran = tiltyard_process("login", "--server", site.url, stdin=f"{text}\n")
    assert ran.exit_code == code
    assert "token" in ran.stderr
    assert not config_path().exists()


# Reading


def test_competitions(tiltyard, site) -> None:
    ran = tiltyard("competitions", "--json")
    assert [row["slug"] for row in ran.document["competitions"]] == ["joust"]
    assert "Main phase" in tiltyard("competitions").stdout


def test_leaderboard_names_the_tracks_when_there_is_no_such(tiltyard, site) -> None:
    assert tiltyard("leaderboard", "joust", "--json").document["track"] == "small"
    assert tiltyard("leaderboard", "joust", "--track", "large", "--json").document["track"] == "large"
    ran = tiltyard("leaderboard", "joust", "--track", "huge")
    assert ran.exit_code == 5
    assert "small, large" in ran.stderr


def test_unknown_competition_and_run(tiltyard, site) -> None:
    for arguments in (["leaderboard", "nope"], ["status", "00000000-0000-0000-0000-000000000000"]):
        ran = tiltyard(*arguments, "--json")
        assert ran.exit_code == 5
        assert ran.document["error"]["kind"] == "refused"
        assert ran.document["error"]["status"] == 404
    assert tiltyard("status", "not-a-run").exit_code == 2


def test_without_a_token(tiltyard, site) -> None:
    config_path().unlink()
    ran = tiltyard("status", "--server", site.url)
    assert ran.exit_code == 5
    assert f"tiltyard login --server {site.url}" in ran.stderr


# Submitting


def test_submit_and_read_back(tiltyard, site, submission: Path) -> None:
    ran = tiltyard("submit", submission, "--competition", "joust", "--json")
    assert ran.exit_code == 0, ran.stderr
    run = Run.objects.get()
    assert ran.document["run_id"] == str(run.pk)
    assert ran.document["submission_id"] == str(run.submission_id)
    assert ran.document["url"].endswith(run.get_absolute_url())
    with tarfile.open(run.submission.artefact.path) as archive:
        assert "train.py" in archive.getnames()
    assert run.submission.track.slug == "small"

    status = tiltyard("status", run.pk, "--json").document
    assert (status["id"], status["state"]) == (str(run.pk), "queued")
    listed = tiltyard("status", "--json").document["submissions"]
    assert [row["runs"][0]["id"] for row in listed] == [str(run.pk)]
    assert str(run.pk) in tiltyard("status").stdout
    assert "my-first-model" in tiltyard("status").stdout


def test_submitting_the_same_folder_twice_stores_it_once(tiltyard, site, submission: Path) -> None:
    for track in ("small", "large"):
        assert tiltyard("submit", submission, "--competition", "joust", "--track", track).exit_code == 0
    first, second = Submission.objects.order_by("created_at")
    assert first.artefact == second.artefact
    assert second.track.slug == "large"


def test_over_the_quota(tiltyard, site, submission: Path) -> None:
    for _ in range(2):
        assert tiltyard("submit", submission, "--competition", "joust").exit_code == 0
    ran = tiltyard("submit", submission, "--competition", "joust", "--json")
    assert ran.exit_code == 5
    assert ran.document["error"]["status"] == 429
    assert Run.objects.count() == 2


def test_not_an_archive(tiltyard, site, tmp_path: Path) -> None:
    (tmp_path / "thing.zip").write_text("not a zip")
    ran = tiltyard("submit", tmp_path / "thing.zip", "--competition", "joust")
    assert ran.exit_code == 2
    assert "thing.zip" in ran.stderr or "archive" in ran.stderr
    assert not Submission.objects.exists()


def test_too_large_is_refused_before_the_upload(tiltyard, site, submission: Path) -> None:
    (submission / "weights.bin").write_bytes(os.urandom(2 << 20))
    ran = tiltyard("submit", submission, "--competition", "joust")
    assert ran.exit_code == 2
    assert "1,048,576" in ran.stderr


@pytest.mark.parametrize("target", ["./nowhere", "model.tar.gz"])
def test_a_path_that_is_not_there(tiltyard, site, target: str) -> None:
    ran = tiltyard("submit", target, "--competition", "joust")
    assert ran.exit_code == 2
    assert target in ran.stderr


def test_nothing_is_left_in_the_cache(tiltyard, site, submission: Path, tmp_path: Path) -> None:
    tiltyard("submit", submission, "--competition", "joust")
    assert list((tmp_path / "cache" / "tiltyard").iterdir()) == []


# Following


@pytest.mark.parametrize(
    ("end", "fields", "code"),
    [
        (RunState.SCORED, {"score": 0.5, "score_low": 0.4, "score_high": 0.6}, 0),
        (RunState.FAILED, {"failure_reason": FailureReason.CRASHED, "failure_message": "It died."}, 3),
        (RunState.FAILED, {"failure_reason": FailureReason.INFRA_ERROR, "failure_message": "Ours."}, 4),
        (RunState.CANCELLED, {}, 3),
    ],
)
def test_wait_ends_with_the_verdict(site, submission: Path, end: RunState, fields: dict[str, Any], code: int) -> None:
    command = [sys.executable, "-m", "tiltyard.cli", "submit", str(submission), "--competition", "joust", "--wait"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        run = carry_out(queued_run(), end, **fields)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    document = yaml.safe_load(stdout)
    assert document["run_id"] == str(run.pk)
    assert document["run"]["state"] == end.value
    assert "evaluating: Now evaluating." in stderr


def test_status_shows_the_verdict_and_its_log(tiltyard, site, submission: Path) -> None:
    tiltyard("submit", submission, "--competition", "joust")
    fields = {"failure_reason": FailureReason.BUILD_FAILED, "failure_message": "The build failed.", "build_log": "boom"}
    run = carry_out(queued_run(), RunState.FAILED, **fields, server_log="\x1b[31mred\x07\n")
    ran = tiltyard("status", run.pk)
    assert ran.exit_code == 0
    assert "build_failed. The build failed." in ran.stdout
    assert tiltyard("status", run.pk, "--wait").exit_code == 3
    assert tiltyard("logs", run.pk).stdout == "boom\n"
    assert tiltyard("logs", run.pk, "--server-log").stdout == "[31mred\n"  # an escape must not reach the terminal
    assert tiltyard("logs", run.pk, "--json").document["server_log"] == "\x1b[31mred\x07\n"


def test_manifests_are_fetched_and_verified(tiltyard, site, submission: Path, tmp_path: Path) -> None:
    tiltyard("submit", submission, "--competition", "joust")
    run = carry_out(queued_run(), RunState.SCORED, score=0.6, score_low=0.5, score_high=0.7)
    assert tiltyard("manifest", run.pk, "--out", tmp_path / "none").exit_code == 5
    suite = site.competition.suites.get()
    signed = signed_manifest(run, example_result(), "sha256:evaluator")
    fields = {"score": 0.625, "low": 0.5, "high": 0.75, "repro_hash": "sha256:feed", "wall_s": 1.0, "result": {}}
    SuiteResult.objects.create(run=run, suite=suite, signed=signed, **fields)
    assert tiltyard("manifest", run.pk, "--out", tmp_path / "signed").exit_code == 0
    (path,) = (tmp_path / "signed").iterdir()
    ran = tiltyard("verify", path)
    assert ran.exit_code == 0, ran.stderr
    assert "62.5% [50.0%, 75.0%], sha256:feed" in ran.stdout
    assert tiltyard("verify", path, "--key", public_key(), "--json").document["manifest"]["run"] == str(run.pk)
    rotate_key(timezone.now())
    assert tiltyard("verify", path).exit_code == 0, "what an older key signed is still believed"
    path.write_text(path.read_text().replace("0.625", "0.925"))
    forged = tiltyard("verify", path)
    assert forged.exit_code == 5
    assert "changed after it was signed" in forged.stderr
    assert "cannot be read: No such file" in tiltyard("verify", tmp_path / "none.json").stderr


def test_cancel(tiltyard, site, submission: Path) -> None:
    tiltyard("submit", submission, "--competition", "joust")
    run = queued_run()
    assert tiltyard("cancel", run.pk, "--json").document == {"state": "cancelled", "cancel_requested": True}
    ran = tiltyard("cancel", run.pk)
    assert ran.exit_code == 5
    assert "over already" in ran.stderr


def test_interrupting_leaves_the_run_alone(site, submission: Path) -> None:
    command = [sys.executable, "-m", "tiltyard.cli", "submit", str(submission), "--competition", "joust", "--wait"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        run = queued_run()
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith("Queued.") or "queued:" in line:
                break
        process.send_signal(2)
        stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    error = yaml.safe_load(stdout)["error"]
    assert error["run_id"] == str(run.pk)
    assert f"tiltyard cancel {run.pk}" in error["message"]
    run.refresh_from_db()
    assert run.state == RunState.QUEUED


# The plan of a local evaluation


def test_the_servers_plan_and_the_bundles_are_the_same(site, bundle: Path) -> None:
    with ApiClient(site.url, None) as client:
        online = plan_from_server(client, "joust", "large")
        again = plan_from_server(client, "joust", "large")
    offline = plan_from_bundle(bundle, "large")
    track = site.competition.tracks.get(slug="large")
    assert online.limits == offline.limits == track.sandbox_limits()
    assert online.base_images == offline.base_images == ("tiltyard/runtime:cpu", "tiltyard/python:3.11")
    assert online.seed == offline.seed == 7
    assert [suite.sha256 for suite in online.suites] == [suite.sha256 for suite in offline.suites]
    assert online == again  # the second time from the cache


def test_a_changed_suite_is_not_taken_from_the_cache(tiltyard, site, submission: Path, tmp_path: Path) -> None:
    with ApiClient(site.url, None) as client:
        kept = plan_from_server(client, "joust", None).suites[0].directory
    (kept / "data" / "addition.jsonl").write_text('{"prompt": "1+1=", "answer": "3"}\n')
    ran = tiltyard("evaluate", submission, "--competition", "joust", "--out", tmp_path / "out")
    assert ran.exit_code == 2
    assert "addition.jsonl" in ran.stderr
    assert str(kept) in ran.stderr


def test_a_suite_that_is_not_the_promised_one_is_refused(tiltyard, site, submission: Path, tmp_path: Path) -> None:
    suite = site.competition.suites.get()
    Competition.objects.get().suites.update(sha256="0" * 64)
    for name in ("", ".tar.gz"):
        (tmp_path / "SUITE_DIR" / f"{suite.sha256}{name}").rename(tmp_path / "SUITE_DIR" / f"{'0' * 64}{name}")
    ran = tiltyard("evaluate", submission, "--competition", "joust", "--out", tmp_path / "out")
    assert ran.exit_code == 4
    assert "not the one that the competition names" in ran.stderr
