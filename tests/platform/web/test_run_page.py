"""A run's page: what it shows at every stage, and to whom."""

import pytest
import web_rows
from django.test import Client
from eval_results import example_result
from web_rows import Site

from tiltyard.submissions.models import Run
from tiltyard.submissions.states import FailureReason, RunState
from tiltyard.worker.failures import with_log_end


@pytest.fixture
def running(site: Site) -> Run:
    return web_rows.make_run(site, "racer", state=RunState.EVALUATING)


@pytest.fixture
def scored(site: Site) -> Run:
    return web_rows.score(web_rows.make_run(site, "racer", state=RunState.SCORED), 0.70, 0.60)


def text(client: Client, path: str) -> str:
    return client.get(path).content.decode()


def test_the_owner_sees_the_stages_and_the_progress(owner: Client, running: Run) -> None:
    page = text(owner, running.get_absolute_url())

    assert '<li class="now" aria-current="step">Evaluation' in page
    assert page.count('<li class="done"') == 3
    assert "118 of 240 questions" in page
    assert "Cancel the run" in page
    assert 'http-equiv="refresh"' in page  # inside <noscript>


def test_the_live_part_asks_again_until_the_run_is_over(owner: Client, running: Run) -> None:
    path = running.get_absolute_url() + "live/"

    going = owner.get(path)
    running.request_cancel(running.queued_at)
    Run.objects.filter(pk=running.pk).update(state=RunState.CANCELLED, finished_at=running.queued_at)
    over = owner.get(path)

    assert going.status_code == 200
    assert 'hx-trigger="every 1s"' in going.content.decode()
    assert over.status_code == 286
    assert over.headers["HX-Trigger"] == "run-finished"
    assert "hx-trigger" not in over.content.decode()


def test_a_stage_is_announced_once(owner: Client, running: Run) -> None:
    path = running.get_absolute_url() + "live/"

    assert "run-announcement" in text(owner, path + "?seen=building")
    assert "run-announcement" not in text(owner, path + "?seen=evaluating")


def test_scores_of_suites_and_tasks_are_public_once_scored(client: Client, scored: Run) -> None:
    page = text(client, scored.get_absolute_url())

    assert "65.0" in page
    assert "Sorting words" in page
    assert "Riddles" in page
    assert scored.image_digest in page


def test_results_are_made_of_the_report_s_parts_and_tell_no_kinds_or_times_of_a_hidden_suite(
    client: Client, scored: Run
) -> None:
    for result in scored.suite_results.all():
        result.result = example_result().to_json()
        result.save()
        result.tasks.update(item_failures={"http_status": 3, "timeout": 1})

    page = text(client, scored.get_absolute_url())

    opened, hidden = (result for result in scored.suite_results.order_by("suite__order"))
    first, second = page.index(f'id="suite-{opened.pk}"'), page.index(f'id="suite-{hidden.pk}"')
    assert first < second
    of_open, of_hidden = page[first:second], page[second:]
    for part in (of_open, of_hidden):
        assert "Answers by outcome" in part
        assert '<svg class="stack-bar"' in part
        assert '<td data-label="Faulty answers" class="right">4</td>' in part
    assert "had another status than 200" in of_open
    assert '<figure class="histogram">' in of_open
    assert "Faulty responses" in of_hidden
    assert not any(word in of_hidden for word in ("status than 200", "http_status", "timeout", "histogram", "Latency"))


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.EVALUATING, RunState.FAILED, RunState.CANCELLED])
@pytest.mark.parametrize("part", ["", "live/", "results/", "logs/", "samples/"])
def test_a_run_without_a_score_does_not_exist_for_a_stranger(
    stranger: Client, site: Site, state: RunState, part: str
) -> None:
    run = web_rows.make_run(site, "racer", state=state)

    assert stranger.get(run.get_absolute_url() + part).status_code == 404


def test_logs_are_for_the_owner_and_the_organisers(
    owner: Client, organiser: Client, stranger: Client, client: Client, scored: Run
) -> None:
    path = scored.get_absolute_url() + "logs/"

    assert "Step 2/4" in text(owner, path)
    assert "Step 2/4" in text(organiser, path)
    assert stranger.get(path).status_code == 404
    assert client.get(path).status_code == 404
    assert "Step 2/4" not in text(stranger, scored.get_absolute_url())
    assert scored.submission.original_filename not in text(stranger, scored.get_absolute_url())


@pytest.mark.parametrize("reason", list(FailureReason))
def test_every_verdict_says_what_it_means_and_what_to_do(owner: Client, site: Site, reason: FailureReason) -> None:
    run = web_rows.fail(web_rows.make_run(site, "racer", state=RunState.FAILED), reason, "It <b>broke</b> at line 3.")

    page = text(owner, run.get_absolute_url())

    assert reason.label in page
    assert "It &lt;b&gt;broke&lt;/b&gt; at line 3." in page
    assert "Submit again" in page


@pytest.mark.parametrize(
    ("reason", "limit"),
    [(FailureReason.START_TIMEOUT, "within 3 min."), (FailureReason.TIME_LIMIT, "allows: 7 min for")],
)
def test_a_verdict_about_time_names_the_tracks_limit(
    owner: Client, site: Site, reason: FailureReason, limit: str
) -> None:
    site.track.limits |= {"start_s": 180, "evaluate_s": 420}
    site.track.save()
    run = web_rows.fail(web_rows.make_run(site, "racer", state=RunState.FAILED), reason, "It broke.")

    assert limit in text(owner, run.get_absolute_url())


def test_what_was_found_out_stands_apart_from_the_end_of_the_log(owner: Client, client: Client, site: Site) -> None:
    run = web_rows.make_run(site, "racer", state=RunState.FAILED)
    web_rows.fail(run, FailureReason.CRASHED, with_log_end("It ended with status 3.", "reading weights\n\nout of luck"))

    page = text(owner, run.get_absolute_url())

    assert '<p class="said">It ended with status 3.</p>' in page
    assert "The log ends:\nreading weights\n\nout of luck</pre>" in page
    assert "out of luck" not in text(client, run.get_absolute_url())


def test_a_log_cannot_bring_markup_into_the_page(owner: Client, scored: Run) -> None:
    Run.objects.filter(pk=scored.pk).update(server_log="</pre><script>alert(1)</script>")

    assert "<script>alert" not in text(owner, scored.get_absolute_url())


def test_the_owner_cancels_a_queued_run(owner: Client, site: Site) -> None:
    run = web_rows.make_run(site, "racer")

    response = owner.post(run.get_absolute_url() + "cancel/", follow=True)

    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    assert "being cancelled" in response.content.decode()


def test_a_stranger_cannot_cancel(stranger: Client, client: Client, site: Site, running: Run) -> None:
    for visitor in (stranger, client):
        assert visitor.post(running.get_absolute_url() + "cancel/").status_code == 404
    running.refresh_from_db()
    assert running.cancel_requested_at is None


def test_cancelling_takes_a_post(owner: Client, running: Run) -> None:
    assert owner.get(running.get_absolute_url() + "cancel/").status_code == 405


def test_cancelling_needs_the_form_of_the_page(site: Site, running: Run) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(site.owner)

    assert client.post(running.get_absolute_url() + "cancel/").status_code == 403
