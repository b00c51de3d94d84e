"""The REST API, endpoint by endpoint: what it gives, and to whom."""

import io
import tarfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bundles_for_tests import write_bundle
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings
from web_rows import Site, fail, make_run, make_site, score

from tiltyard.accounts.models import ApiToken, User
from tiltyard.competitions.bundle import import_bundle
from tiltyard.competitions.models import Competition
from tiltyard.leaderboards.kept import kept_board
from tiltyard.submissions.models import Run, Submission, TaskResult
from tiltyard.submissions.states import FailureReason, RunState

NOBODYS = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def now() -> datetime:
    """The API looks at the real clock."""
    return timezone.now()


class Caller:
    """Someone with a token."""

    def __init__(self, user: User | None) -> None:
        self.client = Client()
        self.headers = {"Authorization": f"Bearer {ApiToken.issue(user, 'test')[1]}"} if user else {}

    def get(self, path: str, status: int = 200) -> Any:
        response = self.client.get(f"/api/v1{path}", headers=self.headers)
        assert response.status_code == status, response.content
        return response.json()

    def post(self, path: str, status: int = 200, **data: object) -> Any:
        response = self.client.post(f"/api/v1{path}", data, headers=self.headers)
        assert response.status_code == status, response.content
        return response.json()


@pytest.fixture
def owner(site: Site) -> Caller:
    return Caller(site.owner)


@pytest.fixture
def stranger(site: Site) -> Caller:
    return Caller(site.stranger)


@pytest.fixture
def staff(site: Site) -> Caller:
    return Caller(site.staff)


@pytest.fixture
def anyone(db: None) -> Caller:
    return Caller(None)


def upload(archive: Path, name: str = "entry.tar.gz") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, archive.read_bytes())


# --- who calls ---


def test_me(owner: Caller, site: Site) -> None:
    assert owner.get("/me") == {"username": site.owner.username, "email": site.owner.email, "is_staff": False}
    assert ApiToken.objects.get(user=site.owner).last_used_at is not None


@pytest.mark.parametrize("path", ["/me", "/submissions", f"/runs/{NOBODYS}", f"/runs/{NOBODYS}/logs"])
def test_without_a_token(anyone: Caller, path: str) -> None:
    assert "Make one on your account page" in anyone.get(path, 401)["detail"]


def test_a_wrong_token(anyone: Caller) -> None:
    anyone.headers = {"Authorization": "Bearer ty_wrong"}
    anyone.get("/me", 401)


def test_the_token_of_a_closed_account(owner: Caller, site: Site) -> None:
    site.owner.is_active = False
    site.owner.save()
    owner.get("/me", 401)


def test_a_session_serves_as_well_but_needs_its_csrf_token(site: Site) -> None:
    run = make_run(site, "mine")
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(site.owner)
    path = f"/api/v1/runs/{run.pk}/cancel"
    assert browser.get("/api/v1/me").status_code == 200
    assert browser.post(path).status_code == 403
    assert Run.objects.get().cancel_requested_at is None
    browser.get("/accounts/password/change/")  # any page with a form gives the token
    token = browser.cookies["csrftoken"].value
    assert browser.post(path, headers={"X-CSRFToken": token}).status_code == 200


# --- competitions ---


def test_competitions(anyone: Caller, site: Site, now: datetime) -> None:
    site.phase.starts_at, site.phase.ends_at = now - timedelta(days=1), now + timedelta(days=1)
    site.phase.save()
    hidden = make_site(now, slug="secret", title="Secret").competition
    hidden.is_public = False
    hidden.save()
    (found,) = anyone.get("/competitions")
    assert (found["slug"], found["current_phase"]["title"]) == ("little-questions", "Main phase")


def test_a_competition_with_all_that_a_local_evaluation_needs(anyone: Caller, tmp_path: Path) -> None:
    competition = import_bundle(write_bundle(tmp_path / "bundle"), secrets_dir=tmp_path / "secrets")
    Competition.objects.update(registries=["registry.example/team"])
    found = anyone.get("/competitions/small")
    assert found["base_images"] == ["tiltyard/python:3.11"]
    assert found["registries"] == ["registry.example/team"]
    assert found["upload_bytes_max"] == 10 << 20
    assert found["evaluator"]["seed"] == 5
    assert found["tracks"][0]["limits"]["memory_bytes"] == 256 << 20
    suites = {suite["visibility"]: suite for suite in found["suites"]}
    assert suites["hidden"]["archive_url"] is None
    hidden = competition.suites.get(visibility="hidden")
    assert suites["hidden"]["commitment"] == hidden.commitment
    assert str(hidden.commitment).startswith("sha256:")
    assert suites["open"]["archive_url"].endswith("/api/v1/competitions/small/suites/small-open/archive")
    assert suites["hidden"]["tasks"][0]["title"] == "Addition"


def test_no_such_competition(anyone: Caller) -> None:
    assert anyone.get("/competitions/none", 404) == {"detail": "There is nothing here, or it is not yours."}


def test_an_open_suite_can_be_fetched_and_a_hidden_one_cannot(anyone: Caller, tmp_path: Path) -> None:
    import_bundle(write_bundle(tmp_path / "bundle"), secrets_dir=tmp_path / "secrets")
    response = anyone.client.get("/api/v1/competitions/small/suites/small-open/archive")
    content = b"".join(response.streaming_content)  # type: ignore[arg-type]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert "small-open/suite.lock" in archive.getnames()
    for name in ("small-hidden", "none", "..%2f..%2fsecrets"):
        assert anyone.client.get(f"/api/v1/competitions/small/suites/{name}/archive").status_code == 404


def test_a_caller_cannot_fill_the_memory_with_parts_of_a_board(anyone: Caller, site: Site) -> None:
    score(make_run(site, "mine", state=RunState.SCORED), 0.5, 0.4)
    address = "/competitions/little-questions/leaderboard"
    assert len(anyone.get(address)["entries"]) == 1
    for offset in range(1, 4):
        assert anyone.get(f"{address}?limit=5000&offset={offset}")["entries"] == []
    competition = Competition.objects.get()
    kept = kept_board(competition, competition.tracks.get(), now=timezone.now())
    assert list(kept._made) == ["api"]


def test_the_leaderboard(anyone: Caller, site: Site) -> None:
    run = score(make_run(site, "mine", state=RunState.SCORED), 0.6, 0.4)
    board = anyone.get("/competitions/little-questions/leaderboard?track=cpu")
    (entry,) = board["entries"]
    assert (entry["rank"], entry["name"], entry["run_id"]) == (1, "mine", str(run.pk))
    assert entry["gap"]["value"] == pytest.approx(0.2)
    assert anyone.get("/competitions/little-questions/leaderboard")["track"] == "cpu"
    missing = anyone.get("/competitions/little-questions/leaderboard?track=gpu", 404)
    assert missing["detail"] == "The competition little-questions has no track 'gpu'. Its tracks: cpu."


# --- submissions ---


def test_submitting(owner: Caller, site: Site, archive: Path) -> None:
    answer = owner.post("/competitions/little-questions/submissions", 201, file=upload(archive), track="cpu")
    run = Run.objects.get()
    assert answer["run_id"] == str(run.pk)
    assert answer["submission_id"] == str(run.submission_id)
    assert answer["url"].endswith(run.get_absolute_url())
    assert run.submission.owner == site.owner
    assert run.submission.artefact.path.read_bytes()


def test_submitting_without_an_account(anyone: Caller, site: Site, archive: Path) -> None:
    anyone.post("/competitions/little-questions/submissions", 401, file=upload(archive))


def test_refusals_keep_their_kinds_apart(owner: Caller, site: Site, archive: Path) -> None:
    path = "/competitions/little-questions/submissions"
    bad = owner.post(path, 422, file=SimpleUploadedFile("a.txt", b"I am no archive."))
    assert bad["detail"].startswith("This is not an archive.")
    assert owner.post(path, 404, file=upload(archive), track="gpu")["detail"].endswith("Its tracks: cpu.")
    owner.post("/competitions/none/submissions", 404, file=upload(archive))
    for name in ("one", "two"):
        make_run(site, name)
    assert "may be at once" in owner.post(path, 429, file=upload(archive))["detail"]


def test_a_file_over_the_limit(owner: Caller, archive: Path, settings: Settings) -> None:
    settings.UPLOAD_BYTES_MAX = 100
    answer = owner.post("/competitions/little-questions/submissions", 413, file=upload(archive))
    assert "is more than the 100 bytes allowed" in answer["detail"]


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"a=1", "multipart/form-data", "not a complete form"),
        (b"a=1", "multipart/form-data; boundary=" + "=" * 300, "not a complete form"),
        (
            "".join(f'--b\r\nContent-Disposition: form-data; name="f{i}"\r\n\r\nx\r\n' for i in range(1500)),
            "",
            "fields",
        ),
    ],
    ids=["no boundary", "an impossible boundary", "too many fields"],
)
def test_a_body_that_is_no_form(owner: Caller, caplog: Any, body: bytes | str, content_type: str, says: str) -> None:
    data = body if isinstance(body, bytes) else f"{body}--b--\r\n".encode()
    response = owner.client.post(
        "/api/v1/competitions/little-questions/submissions",
        data,
        content_type=content_type or "multipart/form-data; boundary=b",
        headers=owner.headers,
    )
    assert response.status_code == 400
    assert says in response.json()["detail"]
    assert not [record for record in caplog.records if record.exc_info]


def test_my_submissions(owner: Caller, stranger: Caller, site: Site) -> None:
    run = make_run(site, "mine")
    make_run(site, "theirs", owner=site.stranger)
    (found,) = owner.get("/submissions")
    assert (found["name"], found["runs"][0]["id"]) == ("mine", str(run.pk))
    assert [entry["name"] for entry in stranger.get("/submissions")] == ["theirs"]
    assert owner.get("/submissions?limit=1&offset=1") == []


# --- runs ---


def test_a_scored_run(owner: Caller, site: Site) -> None:
    run = score(make_run(site, "mine", state=RunState.SCORED), 0.6, 0.4)
    found = owner.get(f"/runs/{run.pk}")
    assert (found["state"], found["is_final"], found["score"]["value"]) == ("scored", True, pytest.approx(0.5))
    assert [suite["visibility"] for suite in found["suites"]] == ["open", "hidden"]
    assert len(found["suites"][0]["tasks"]) == 4


def test_of_a_hidden_suite_only_the_number_of_failures_is_told(owner: Caller, site: Site) -> None:
    """A server chooses which kind of failure a question gets, so it could spell the question in the counts."""
    run = score(make_run(site, "mine", state=RunState.SCORED), 0.6, 0.4)
    TaskResult.objects.filter(suite_result__run=run).update(item_failures={"timeout": 2, "http_error": 1})
    suites = {suite["visibility"]: suite for suite in owner.get(f"/runs/{run.pk}")["suites"]}
    assert suites["open"]["tasks"][0]["item_failures"] == {"timeout": 2, "http_error": 1}
    assert all(task["item_failures"] == {"any": 3} for task in suites["hidden"]["tasks"])


def test_a_failed_run_says_why(owner: Caller, site: Site) -> None:
    run = fail(make_run(site, "mine", state=RunState.FAILED), FailureReason.CRASHED, "It crashed.")
    found = owner.get(f"/runs/{run.pk}")
    assert (found["failure_reason"], found["failure_message"], found["score"]) == ("crashed", "It crashed.", None)


def test_events_after_one(owner: Caller, site: Site) -> None:
    run = make_run(site, "mine", state=RunState.EVALUATING)
    events = owner.get(f"/runs/{run.pk}/events")
    assert [event["state"] for event in events] == ["queued", "preparing", "building", "evaluating"]
    assert owner.get(f"/runs/{run.pk}/events?after={events[1]['id']}") == events[2:]


def test_logs(owner: Caller, staff: Caller, site: Site) -> None:
    run = make_run(site, "mine", state=RunState.EVALUATING)
    assert "Step 1/4" in owner.get(f"/runs/{run.pk}/logs")["build_log"]
    assert "Step 1/4" in staff.get(f"/runs/{run.pk}/logs")["build_log"]


def test_cancelling(owner: Caller, site: Site) -> None:
    queued, active = make_run(site, "queued"), make_run(site, "active", state=RunState.EVALUATING)
    assert owner.post(f"/runs/{queued.pk}/cancel") == {"state": "cancelled", "cancel_requested": True}
    assert owner.post(f"/runs/{active.pk}/cancel") == {"state": "evaluating", "cancel_requested": True}
    assert owner.post(f"/runs/{queued.pk}/cancel", 409)["detail"] == "The run is over already: cancelled."


@pytest.mark.parametrize("what", ["", "/events", "/logs"])
def test_a_strangers_run_does_not_exist(stranger: Caller, staff: Caller, site: Site, what: str) -> None:
    run = make_run(site, "mine")
    assert stranger.get(f"/runs/{run.pk}{what}", 404) == stranger.get(f"/runs/{NOBODYS}{what}", 404)
    staff.get(f"/runs/{run.pk}{what}")


def test_a_stranger_cannot_cancel(stranger: Caller, site: Site) -> None:
    run = make_run(site, "mine")
    stranger.post(f"/runs/{run.pk}/cancel", 404)
    run.refresh_from_db()
    assert (run.state, Submission.objects.count()) == (RunState.QUEUED, 1)


# --- the service ---


def test_health_says_what_is_missing(anyone: Caller) -> None:
    assert anyone.get("/health", 503) == {"status": "degraded", "database": True, "redis": False}


@pytest.mark.redis
def test_health(anyone: Caller, settings: Settings, redis_url: str) -> None:
    settings.REDIS_URL = redis_url
    assert anyone.get("/health")["status"] == "ok"


def test_the_reference_works_offline(anyone: Caller) -> None:
    paths = anyone.get("/openapi.json")["paths"]
    assert "/api/v1/competitions/{slug}/submissions" in paths
    page = anyone.client.get("/api/v1/docs").content.decode()
    assert "swagger-ui" in page
    assert "http://" not in page
    assert "https://" not in page
