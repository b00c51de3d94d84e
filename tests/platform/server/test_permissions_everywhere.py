"""Who may do what, at every URL of the site and every operation of the API, seen from a stranger's side.

The site's URLs and the API's schema are walked: one that has no row here fails the first two tests, so nobody adds an
endpoint without saying what a stranger gets. Uploads in pieces, which Django does not see, are in
test_resumable_uploads.py.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from web_rows import Site, fail, make_run, make_site, score

from tiltyard.accounts.models import ApiToken, User
from tiltyard.api.api import api
from tiltyard.competitions.models import Page
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import FailureReason, RunState
from tiltyard.uploads.models import Upload

NOBODYS = "00000000-0000-0000-0000-000000000000"
LOGIN = 302  # to the page where one signs in, or back where one came from


@dataclass(frozen=True)
class Row:
    """What anonymous visitors, a stranger and the owner get at a URL of the owner's private, failed run."""

    anonymous: int
    stranger: int
    owner: int
    method: str = "GET"


PUBLIC = Row(200, 200, 200)
SIGNED_IN = Row(LOGIN, 200, 200)
OWN = Row(404, 404, 200)
PAGES: dict[str, Row] = {
    "": PUBLIC,
    "status/": PUBLIC,
    "healthz": PUBLIC,
    "readyz": Row(503, 503, 503),  # no broker in these tests
    "metrics": Row(404, 404, 404),  # for Prometheus alone: test_metrics.py
    "competitions/<slug:slug>/": PUBLIC,
    "competitions/<slug:slug>/tasks/": PUBLIC,
    "competitions/<slug:slug>/rules/": PUBLIC,
    "competitions/<slug:slug>/dates/": PUBLIC,
    "competitions/<slug:slug>/pages/<slug:page_slug>/": PUBLIC,
    "competitions/<slug:slug>/leaderboard/": PUBLIC,
    "competitions/<slug:slug>/leaderboard.csv": PUBLIC,
    "competitions/<slug:slug>/submissions/": SIGNED_IN,
    "competitions/<slug:slug>/submit/": SIGNED_IN,
    "competitions/<slug:slug>/uploads/<uuid:upload_id>/discard/": Row(LOGIN, 404, 302, "POST"),
    "competitions/<slug:slug>/uploads/<uuid:upload_id>/hand-in/": Row(LOGIN, 404, 302, "POST"),
    "runs/<uuid:run_id>/": OWN,
    "runs/<uuid:run_id>/live/": Row(404, 404, 286),  # 286 tells htmx that the run is over
    "runs/<uuid:run_id>/results/": OWN,
    "runs/<uuid:run_id>/logs/": OWN,
    "runs/<uuid:run_id>/manifest/<slug:suite>/": Row(404, 404, 404),  # it was not scored
    "runs/<uuid:run_id>/cancel/": Row(404, 404, 302, "POST"),
    "runs/<uuid:run_id>/samples/": Row(404, 404, 404),  # as above
    "account/submissions/": SIGNED_IN,
    "account/tokens/": SIGNED_IN,
    "account/tokens/<int:token_id>/revoke/": Row(LOGIN, 404, 302, "POST"),
    # allauth's own pages: of the visitor's own account, or public.
    "accounts/login/": Row(200, LOGIN, LOGIN),
    "accounts/logout/": Row(302, 200, 200),
    "accounts/inactive/": PUBLIC,
    "accounts/signup/": Row(200, LOGIN, LOGIN),
    "accounts/reauthenticate/": SIGNED_IN,
    "accounts/email/": SIGNED_IN,
    "accounts/confirm-email/": PUBLIC,
    "accounts/password/change/": SIGNED_IN,
    "accounts/password/set/": Row(LOGIN, LOGIN, LOGIN),
    "accounts/password/reset/": PUBLIC,
    "accounts/login/code/confirm/": Row(LOGIN, LOGIN, LOGIN),
    "accounts/^confirm-email/(?P<key>[-:\\w]+)/$": PUBLIC,
    "accounts/password/reset/key/done/": PUBLIC,
    "accounts/^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$": PUBLIC,
    "accounts/password/reset/done/": PUBLIC,
}
API_OWN = Row(401, 404, 200)
API_SIGNED_IN = Row(401, 200, 200)
OPERATIONS: dict[str, Row] = {
    "GET /me": API_SIGNED_IN,
    "GET /health": Row(503, 503, 503),
    "GET /signing-key": PUBLIC,
    "GET /competitions": PUBLIC,
    "GET /competitions/{slug}": PUBLIC,
    "GET /competitions/{slug}/leaderboard": PUBLIC,
    "GET /competitions/{slug}/suites/{name}/archive": Row(404, 404, 404),  # hidden, for everybody
    "POST /competitions/{slug}/submissions": Row(401, 422, 422, "POST"),  # no file came
    "GET /submissions": API_SIGNED_IN,
    "GET /runs/{run_id}": API_OWN,
    "GET /runs/{run_id}/events": API_OWN,
    "GET /runs/{run_id}/logs": API_OWN,
    "GET /runs/{run_id}/manifests": API_OWN,
    "POST /runs/{run_id}/cancel": Row(401, 404, 409, "POST"),  # it is over
}


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def walk(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield path
        else:
            yield from walk(pattern, path)


ROUTES = sorted(set(walk(get_resolver())))


def test_every_url_has_a_row() -> None:
    pages = {path for path in ROUTES if not path.startswith(("admin/", "api/"))}
    assert pages == set(PAGES)


def test_every_operation_of_the_api_has_a_row() -> None:
    schema = api.get_openapi_schema(path_prefix="")
    found = {f"{method.upper()} {path}" for path, methods in schema["paths"].items() for method in methods}
    assert found == set(OPERATIONS)
    in_schema = {re.sub(r"{\w+}", "<>", f"api/v1{operation.split(' ')[1]}") for operation in OPERATIONS}
    served = {re.sub(r"<\w+>", "<>", path) for path in ROUTES if path.startswith("api/")}
    assert served - in_schema == {"api/v1/", "api/v1/docs", "api/v1/openapi.json"}, "an operation outside the schema"


@dataclass
class Cast:
    """Three visitors, and what belongs to the owner."""

    clients: dict[str, Client]
    headers: dict[str, dict[str, str]]
    values: dict[str, str]


@pytest.fixture
def cast(site: Site) -> Cast:
    run = fail(make_run(site, "private", state=RunState.FAILED), FailureReason.CRASHED, "It crashed.")
    clients = {"anonymous": Client(), "stranger": Client(), "owner": Client()}
    clients["stranger"].force_login(site.stranger)
    clients["owner"].force_login(site.owner)
    upload = Upload.objects.create(
        owner=site.owner,
        competition=site.competition,
        track=site.track,
        filename="entry.tar.gz",
        size_bytes=10,
        expires_at=Upload.expiry(timezone.now()),
    )
    Page.objects.create(competition=site.competition, slug="questions", title="Questions", body="None yet.")
    token = ApiToken.issue(site.owner, "laptop")[0]
    people = {"stranger": site.stranger, "owner": site.owner}
    bearer = {name: {"Authorization": f"Bearer {ApiToken.issue(user, 't')[1]}"} for name, user in people.items()}
    values = {
        "slug": site.competition.slug,
        "page_slug": "questions",
        "upload_id": str(upload.pk),
        "run_id": str(run.pk),
        "suite": "demo-open",
        "name": "demo-hidden",
        "token_id": str(token.pk),
        "key": "abc",
        "uidb36": "1",
    }
    return Cast(clients, {"anonymous": {}, **bearer}, values)


def filled(route: str, values: dict[str, str]) -> str:
    """A URL pattern, or a path of the schema, with values in its places."""
    path = re.sub(r"\(\?P<(\w+)>[^)]*\)", lambda found: values[found[1]], route)
    path = re.sub(r"<(?:\w+:)?(\w+)>|{(\w+)}", lambda found: values[found[1] or found[2]], path)
    return "/" + path.replace("^", "").replace("$", "").lstrip("/")


@pytest.mark.parametrize("route", PAGES)
@pytest.mark.parametrize("who", ["anonymous", "stranger", "owner"])
def test_pages(cast: Cast, who: str, route: str) -> None:
    row = PAGES[route]
    response = cast.clients[who].generic(row.method, filled(route, cast.values))
    assert response.status_code == getattr(row, who), response.content[:300]
    if who == "anonymous" and row.anonymous == LOGIN and row.stranger != LOGIN and "logout" not in route:
        assert response.headers["Location"].startswith("/accounts/login/")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("who", ["anonymous", "stranger", "owner"])
def test_operations(cast: Cast, who: str, operation: str) -> None:
    row = OPERATIONS[operation]
    path = "/api/v1" + filled(operation.split(" ")[1], cast.values)
    response = Client().generic(row.method, path, headers=cast.headers[who])
    assert response.status_code == getattr(row, who), response.content[:300]


def test_what_is_refused_changes_nothing(cast: Cast, site: Site) -> None:
    run = make_run(site, "under-way", state=RunState.EVALUATING)
    values = cast.values | {"run_id": str(run.pk)}
    for route, row in PAGES.items():
        if row.method == "POST":
            cast.clients["stranger"].post(filled(route, values))
            cast.clients["anonymous"].post(filled(route, values))
    for operation, row in OPERATIONS.items():
        if row.method == "POST":
            Client().post("/api/v1" + filled(operation.split(" ")[1], values), headers=cast.headers["stranger"])
    run.refresh_from_db()
    assert (run.state, run.cancel_requested_at) == (RunState.EVALUATING, None)
    assert Upload.objects.get(pk=values["upload_id"]).state == Upload.State.RECEIVING
    assert ApiToken.objects.filter(pk=values["token_id"]).exists()
    assert Run.objects.count() == 2


@pytest.mark.parametrize("path", ["/account/submissions/", "/api/v1/submissions", "/competitions/{slug}/submissions/"])
def test_lists_hold_ones_own_alone(cast: Cast, path: str) -> None:
    path = path.replace("{slug}", cast.values["slug"])
    assert "private" in cast.clients["owner"].get(path).content.decode()
    assert "private" not in cast.clients["stranger"].get(path).content.decode()


def test_of_a_published_run_a_stranger_sees_scores_and_no_logs(cast: Cast, site: Site) -> None:
    run = score(make_run(site, "public", state=RunState.SCORED), 0.5, 0.5)
    run.build_log = run.server_log = "printed for the owner"
    run.save()
    for who, client in cast.clients.items():
        assert client.get(f"/runs/{run.pk}/").status_code == 200
        seen = "".join(client.get(f"/runs/{run.pk}/{part}").content.decode() for part in ("", "live/", "logs/"))
        assert ("printed for the owner" in seen) == (who == "owner")
    assert Client().get(f"/api/v1/runs/{run.pk}/logs", headers=cast.headers["stranger"]).status_code == 404


def test_what_does_not_exist_and_what_is_anothers_look_the_same(cast: Cast) -> None:
    for operation, row in OPERATIONS.items():
        if row.stranger == 404 and "run_id" in operation:
            theirs, nobodys = (
                Client().generic(
                    row.method,
                    "/api/v1" + filled(operation.split(" ")[1], cast.values | {"run_id": run_id}),
                    headers=cast.headers["stranger"],
                )
                for run_id in (cast.values["run_id"], NOBODYS)
            )
            assert (theirs.status_code, theirs.content) == (nobodys.status_code, nobodys.content)


def test_a_competition_that_is_not_public_exists_for_organisers_alone(cast: Cast, site: Site, now: datetime) -> None:
    hidden = make_site(now, title="Not yet", slug="not-yet").competition
    hidden.is_public = False
    hidden.save()
    Page.objects.create(competition=hidden, slug="questions", title="Questions", body="None yet.")
    values = cast.values | {"slug": hidden.slug}
    staff = Client()
    staff.force_login(site.staff)
    for route in PAGES:
        if "<slug:slug>" in route and "uploads" not in route:
            assert cast.clients["stranger"].get(filled(route, values)).status_code == 404, route
            assert staff.get(filled(route, values)).status_code == 200, route
    for operation, row in OPERATIONS.items():
        if "{slug}" in operation:
            path = "/api/v1" + filled(operation.split(" ")[1], values)
            file = {"file": SimpleUploadedFile("entry.tar.gz", b"x")}
            body = encode_multipart(BOUNDARY, file) if row.method == "POST" else b""
            answer = Client().generic(row.method, path, body, MULTIPART_CONTENT, headers=cast.headers["stranger"])
            assert answer.status_code == 404, operation
    assert "not-yet" not in Client().get("/api/v1/competitions").content.decode()
    assert "Not yet" not in cast.clients["stranger"].get("/").content.decode()


ADMIN = [path for path in ROUTES if path.startswith("admin/")]


@pytest.mark.parametrize("route", ADMIN)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_admin_is_closed(cast: Cast, site: Site, route: str, method: str) -> None:
    values = {"object_id": str(site.owner.pk), "content_type_id": "1", "id": str(site.owner.pk)}
    path = filled(route.replace("(?P<url>.*)", "anything"), values | {"app_label": "accounts"})
    is_public = path in {"/admin/login/"}
    for who in ("anonymous", "stranger"):
        response = cast.clients[who].generic(method, path)
        assert response.status_code in ({302, 403} if is_public else {302, 403, 404}), (who, path)
    assert User.objects.filter(pk=site.owner.pk).exists()
