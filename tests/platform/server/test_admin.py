"""The organiser's view: everything can be looked at, little can be done, and nothing by a participant."""

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries
from web_rows import Site, make_run, score

from tiltyard.accounts.models import ApiToken
from tiltyard.submissions.models import Gpu, Run
from tiltyard.submissions.states import RunState

PAGES = [
    "competitions/competition/",
    "submissions/submission/",
    "submissions/run/",
    "submissions/artefact/",
    "submissions/gpu/",
    "accounts/user/",
    "accounts/apitoken/",
]


@pytest.fixture
def organiser(site: Site) -> Client:
    client = Client()
    client.force_login(site.staff)
    return client


@pytest.mark.parametrize("page", PAGES)
def test_the_lists(organiser: Client, site: Site, page: str) -> None:
    score(make_run(site, "mine", state=RunState.SCORED), 0.5, 0.5)
    ApiToken.issue(site.owner, "laptop")
    assert organiser.get(f"/admin/{page}").status_code == 200


def test_a_token_cannot_be_read(organiser: Client, site: Site) -> None:
    token, text = ApiToken.issue(site.owner, "laptop")
    page = organiser.get(f"/admin/accounts/apitoken/{token.pk}/change/").content.decode()
    assert "laptop" in page
    assert text not in page
    assert token.digest not in page


def test_a_run_with_its_history(organiser: Client, site: Site) -> None:
    run = score(make_run(site, "mine", state=RunState.SCORED), 0.5, 0.5)
    page = organiser.get(f"/admin/submissions/run/{run.pk}/change/").content.decode()
    assert "Accepted and queued." in page
    assert run.submission.name in page


def test_nothing_is_edited_by_hand(organiser: Client, site: Site) -> None:
    run = make_run(site, "mine")
    assert organiser.post(f"/admin/submissions/run/{run.pk}/change/", {"state": "scored"}).status_code == 403
    assert organiser.get("/admin/competitions/competition/add/").status_code == 403
    run.refresh_from_db()
    assert run.state == RunState.QUEUED


def test_run_again_queues_what_is_not_under_way(organiser: Client, site: Site) -> None:
    over, under_way = make_run(site, "over", state=RunState.FAILED), make_run(site, "under-way")
    chosen = [str(run.submission_id) for run in (over, under_way)]
    organiser.post("/admin/submissions/submission/", {"action": "run_again", "_selected_action": chosen})
    assert Run.objects.filter(submission=over.submission, state=RunState.QUEUED).count() == 1
    assert Run.objects.filter(submission=under_way.submission).count() == 1


def test_cancel(organiser: Client, site: Site) -> None:
    run = make_run(site, "mine")
    organiser.post("/admin/submissions/run/", {"action": "cancel", "_selected_action": [str(run.pk)]})
    run.refresh_from_db()
    assert run.state == RunState.CANCELLED


@pytest.mark.parametrize(("action", "priority"), [("run_first", 1), ("run_last", -1)])
def test_what_waits_is_moved(organiser: Client, site: Site, action: str, priority: int) -> None:
    waiting, over = make_run(site, "mine"), make_run(site, "over", state=RunState.FAILED)
    chosen = [str(waiting.pk), str(over.pk)]
    organiser.post("/admin/submissions/run/", {"action": action, "_selected_action": chosen})
    assert [Run.objects.get(pk=run.pk).priority for run in (waiting, over)] == [priority, 0]


def test_a_gpu_is_released(organiser: Client, site: Site) -> None:
    gpu = Gpu.acquire("GPU-6f1c2d3e", "worker", site.now)
    assert gpu is not None
    assert gpu.quarantine("Not clean after a run: the processes 12 still use it.", site.now)
    assert b"the processes 12 still use it" in organiser.get("/admin/submissions/gpu/").content
    organiser.post("/admin/submissions/gpu/", {"action": "release", "_selected_action": [gpu.pk]})
    gpu.refresh_from_db()
    assert (gpu.quarantined_at, gpu.quarantine_reason) == (None, "")


def test_a_participant_sees_none_of_it(site: Site) -> None:
    client = Client()
    client.force_login(site.owner)
    assert all(client.get(f"/admin/{page}").status_code == 302 for page in PAGES)


def test_the_list_of_runs_takes_as_many_queries_for_many(
    organiser: Client, site: Site, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(12):
        make_run(site, f"run-{number}")
    with django_assert_max_num_queries(12):
        organiser.get("/admin/submissions/run/")
