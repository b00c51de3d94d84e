"""No page, list of the API or list of the admin asks the database more often when there are more rows.

Every address that the site serves is asked for twice, with few rows and with many of every kind. The addresses are
walked, not listed, so that a new one is counted as well. Boards that are kept are forgotten before.
"""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
import web_rows
from django.contrib import admin
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from web_rows import Site

from tiltyard.accounts.models import ApiToken, User
from tiltyard.api.api import api
from tiltyard.competitions.models import Page, Track
from tiltyard.leaderboards.kept import forget_all
from tiltyard.leaderboards.refresh import refresh_all
from tiltyard.operations.urls import urlpatterns as operations_urls
from tiltyard.submissions.models import Gpu, ResourceUse, Run, RunEvent, SuiteResult
from tiltyard.submissions.states import FailureReason, RunState
from tiltyard.uploads.models import Upload
from tiltyard.web.urls import urlpatterns as web_urls

Get = Callable[[str], None]


def scored(site: Site, name: str, owner: User, value: float) -> Run:
    run = web_rows.score(web_rows.make_run(site, name, owner=owner, state=RunState.SCORED), value, value - 0.1)
    ResourceUse.objects.create(run=run, attempt=1, wall_s=10.0, cpu_s=5.0, tokens_per_s=12.5)
    SuiteResult.objects.filter(run=run).update(signed={"signature": "x"})
    return run


def grow(site: Site, *, start: int, count: int) -> None:
    """More of everything that a page could list."""
    for number in range(start, start + count):
        other = web_rows.make_site(timezone.now(), title=f"Round {number}", slug=f"round-{number}")
        other.competition.feedback = {"mode": "ladder", "step": 0.05}
        other.competition.save()
        Track.objects.filter(pk=other.track.pk).update(queue=f"queue-{number}", columns=["tokens_per_s"])
        scored(other, f"theirs-{number}", other.owner, 0.6)
        scored(other, f"mine-there-{number}", site.owner, 0.5)
        person = User.objects.create_user(f"person-{number}", f"person-{number}@rows.example", "correct horse battery")
        scored(site, f"entry-{number}", person, 0.4 + number / 50)
        scored(site, f"mine-{number}", site.owner, 0.3 + number / 50)
        web_rows.fail(web_rows.make_run(site, "fallen", state=RunState.FAILED), FailureReason.CRASHED, "gone")
        web_rows.make_run(site, f"waits-{number}")
        web_rows.make_run(site, f"busy-{number}", state=RunState.EVALUATING)
        ApiToken.issue(site.owner, f"token-{number}")
        Gpu.objects.create(uuid=f"GPU-{number}")
        Page.objects.create(competition=site.competition, slug=f"page-{number}", title="More", body="More.")
        Upload.objects.create(
            owner=site.owner,
            competition=site.competition,
            track=site.track,
            filename="entry.tar.gz",
            size_bytes=10,
            expires_at=timezone.now() + timedelta(days=1),
        )
        for run in Run.objects.all():
            RunEvent.objects.create(run=run, attempt=1, state=run.state, message="Something more.")
    refresh_all(timezone.now() + timedelta(hours=1))
    forget_what_is_kept()


def forget_what_is_kept() -> None:
    """Boards, and the state of the queues, which would be asked for in some seconds again."""
    forget_all()
    cache.clear()


def addresses(site: Site, run: Run) -> list[str]:
    """Every page that can be read, every readable operation of the API, every list of the admin."""
    values = {"slug": site.competition.slug, "page_slug": "page-0", "run_id": run.pk, "suite": "demo-open"}
    values |= {"name": "demo-open"}
    found = []
    for pattern in [*web_urls, *operations_urls]:
        names = re.findall(r"<\w+:(\w+)>", str(pattern.pattern))
        if set(names) <= set(values):
            found.append(reverse(str(pattern.name), kwargs={name: values[name] for name in names}))
    for path, methods in api.get_openapi_schema(path_prefix="")["paths"].items():
        if "get" in methods and "archive" not in path:
            found.append("/api/v1" + re.sub(r"{(\w+)}", lambda name: str(values[name[1]]), path))
    found += [
        reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist") for model in admin.site._registry
    ]
    return found


@pytest.mark.parametrize("who", ["organiser", "owner", "anonymous"])
def test_it_does_not_grow(site: Site, who: str) -> None:
    run = scored(site, "watched", site.owner, 0.7)
    clients = {"organiser": site.staff, "owner": site.owner, "anonymous": None}
    client = Client()
    if clients[who]:
        client.force_login(clients[who])

    def counts() -> dict[str, tuple[int, int]]:
        found = {}
        for address in addresses(site, run):
            with CaptureQueriesContext(connection) as queries:
                status = client.get(address).status_code
            found[address] = status, len(queries)
        return found

    grow(site, start=0, count=1)
    counts()  # what is looked up once in a process: sites, content types
    forget_what_is_kept()
    few = counts()
    grow(site, start=1, count=4)
    many = counts()

    assert len(few) > 40
    assert {address: status for address, (status, _) in few.items()} == {
        address: status for address, (status, _) in many.items()
    }
    assert {address: both for address in few if (both := (few[address][1], many[address][1]))[0] < both[1]} == {}
    assert max(count for address, (_, count) in many.items() if not address.startswith("/admin/")) <= 16
