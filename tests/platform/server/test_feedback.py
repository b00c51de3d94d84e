"""What of hidden scores gets out while a round is on: looked for wherever a participant or a stranger can look."""

import json
import re
import threading
import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from web_rows import Site, make_run, make_site, score

from tiltyard.accounts.models import ApiToken, User
from tiltyard.api.api import api
from tiltyard.competitions.models import Phase
from tiltyard.leaderboards.board import leaderboard
from tiltyard.leaderboards.climbing import climb, settle
from tiltyard.leaderboards.feedback import scored_message
from tiltyard.leaderboards.models import LadderScore
from tiltyard.leaderboards.refresh import refresh
from tiltyard.submissions.models import Run, SuiteResult
from tiltyard.submissions.states import RunState
from tiltyard.web.urls import urlpatterns
from tiltyard_eval.stats import Interval

# Hidden, whole, gap and task scores of the runs below, as pages, CSV and JSON could write them.
OPEN, HIDDEN = 0.7137, 0.4337


@pytest.fixture
def live(db: None) -> Site:
    """A site whose round is on now, by the clock that requests go by; the fixture `site` has another."""
    return make_site(timezone.now())


def withhold(site: Site, mode: str, step: float = 0.1) -> None:
    site.competition.feedback = {"mode": mode} | ({"step": step} if mode == "ladder" else {})
    site.competition.save()
    site.track.refresh_from_db()


def entered(
    site: Site, name: str, hidden: float, *, owner: User | None = None, open_score: float = OPEN, minutes: int = 0
) -> Run:
    run = make_run(site, name, owner=owner, state=RunState.SCORED)
    run.finished_at = site.now + timedelta(minutes=minutes)
    run.save()
    score(run, open_score, hidden)
    run.submission.created_at = run.finished_at
    run.submission.save()
    SuiteResult.objects.filter(run=run, suite__visibility="hidden").update(
        signed={"manifest": {"score": {"value": hidden}}}
    )
    run.refresh_from_db()
    climb(run, site.now)
    return run


def places(site: Site, run: Run) -> dict[str, str]:
    """Every address of the site and of the API that a run, a competition or nothing at all has, by name.

    They are taken from the URL configuration and the API's own description, so that a new page is looked at as well.
    """
    values = {"slug": site.competition.slug, "run_id": run.pk, "suite": "demo-hidden", "page_slug": "overview"}
    found = {"duels": f"/competitions/{site.competition.slug}/leaderboard/?view=duels"}
    for pattern in urlpatterns:
        wanted = set(pattern.pattern.converters)
        if wanted <= set(values):
            found[str(pattern.name)] = reverse(pattern.name, kwargs={name: values[name] for name in wanted})
    for path, methods in api.get_openapi_schema()["paths"].items():
        address = path.replace("{slug}", site.competition.slug).replace("{run_id}", str(run.pk))
        if "get" in methods and "{" not in address:
            found[f"api {path.removeprefix('/api/v1')}"] = address
    return found


def hidden_numbers(run: Run) -> set[str]:
    """What would give a hidden score away: it, the whole, the gap, their bounds and the hidden tasks' scores."""
    values = [run.hidden_score, run.hidden_low, run.hidden_high, run.score, run.score_low, run.score_high]
    values += [run.gap, run.gap_low, run.gap_high]
    hidden = run.suite_results.get(suite__visibility="hidden")
    for task in hidden.tasks.all():
        values += [task.score, task.low, task.high]
    known = {f"{100 * value:.1f}" for value in (run.open_score, run.open_low, run.open_high) if value is not None}
    for task in run.suite_results.get(suite__visibility="open").tasks.all():
        known |= {f"{100 * value:.1f}" for value in (task.score, task.low, task.high)}
    texts = set()
    for value in values:
        if value is not None and value not in {0.0, 1.0}:
            texts |= {f"{100 * value:.1f}", f"{value:.6f}", repr(value)}
    return texts - known


def leaks(page: str, run: Run) -> set[str]:
    text = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    return {number for number in hidden_numbers(run) if re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", text)}


def ask(user: User | None, address: str) -> str:
    client = Client()
    headers = {}
    if user and address.startswith("/api/"):
        headers = {"Authorization": f"Bearer {ApiToken.issue(user, 'test')[1]}"}
    elif user:
        client.force_login(user)
    response = client.get(address, headers=headers)
    return b"".join(response).decode() if response.streaming else response.content.decode()


@pytest.mark.parametrize("mode", ["ladder", "none"])
@pytest.mark.parametrize("viewer", ["owner", "stranger", "passer-by"])
def test_no_hidden_score_gets_out_while_the_round_is_on(live: Site, mode: str, viewer: str) -> None:
    withhold(live, mode)
    run = entered(live, "mine", HIDDEN)
    refresh(live.track, live.now)
    user = {"owner": live.owner, "stranger": live.stranger, "passer-by": None}[viewer]

    found = {name: leaks(ask(user, address), run) for name, address in places(live, run).items()}

    assert {name: numbers for name, numbers in found.items() if numbers} == {}


def test_the_search_for_leaks_finds_them_when_nothing_is_withheld(live: Site) -> None:
    withhold(live, "full")
    run = entered(live, "mine", HIDDEN)
    refresh(live.track, live.now)
    found = {name for name, address in places(live, run).items() if leaks(ask(live.owner, address), run)}
    assert found >= {"leaderboard", "leaderboard-csv", "run", "run-results", "run-manifest", "home"}
    assert found >= {"submissions", "competition-submissions", "api /submissions", "api /runs/{run_id}"}
    assert found >= {"api /competitions/{slug}/leaderboard", "api /runs/{run_id}/manifests"}


@pytest.mark.parametrize("mode", ["ladder", "none"])
def test_everything_is_shown_when_the_last_phase_is_over(live: Site, mode: str) -> None:
    withhold(live, mode)
    run = entered(live, "mine", HIDDEN)
    Phase.objects.update(ends_at=live.now)
    assert leaks(ask(None, places(live, run)["leaderboard"]), run)
    assert leaks(ask(live.owner, places(live, run)["api /runs/{run_id}"]), run)


def test_between_two_phases_scores_stay_withheld(live: Site) -> None:
    withhold(live, "ladder")
    run = entered(live, "mine", HIDDEN)
    Phase.objects.update(ends_at=live.now - timedelta(days=1))
    live.competition.phases.create(
        slug="final", title="Final", starts_at=live.now + timedelta(days=1), ends_at=live.now + timedelta(days=2)
    )
    assert not leaks(ask(None, places(live, run)["leaderboard"]), run)


def test_organisers_see_the_scores_and_are_told_what_others_see(live: Site) -> None:
    withhold(live, "ladder")
    run = entered(live, "mine", HIDDEN)
    page = ask(live.staff, places(live, run)["leaderboard"])
    assert leaks(page, run)
    assert "You see the full hidden scores as an organiser" in page
    assert leaks(ask(live.staff, places(live, run)["api /runs/{run_id}"]), run)


def test_the_ladder_shows_steps_in_place_of_scores(live: Site) -> None:
    withhold(live, "ladder", step=0.1)
    run = entered(live, "mine", HIDDEN)
    shown = json.loads(ask(live.owner, places(live, run)["api /runs/{run_id}"]))
    assert shown["hidden"] == {"value": pytest.approx(0.4), "low": None, "high": None}
    assert shown["score"] == {"value": pytest.approx((OPEN + 0.4) / 2), "low": None, "high": None}
    assert shown["gap"] is None
    assert [suite["visibility"] for suite in shown["suites"]] == ["open"]
    page = ask(None, places(live, run)["leaderboard"])
    assert "Hidden scores are shown in steps of 10.0 points" in page
    assert "<strong>40.0</strong>" in page


def test_a_small_gain_changes_nothing_that_is_shown(live: Site) -> None:
    withhold(live, "ladder", step=0.1)
    entered(live, "first", 0.43)
    better = entered(live, "slightly better", 0.49, minutes=1)
    worse = entered(live, "much worse", 0.05, minutes=2)
    assert [rung.value for rung in LadderScore.objects.order_by("number")] == pytest.approx([0.4, 0.4, 0.4])
    much = entered(live, "much better", 0.56, minutes=3)
    assert (better.ladder.value, worse.ladder.value, much.ladder.value) == pytest.approx((0.4, 0.4, 0.6))


def test_the_order_of_the_board_and_who_stands_for_a_participant_give_nothing_away(live: Site) -> None:
    withhold(live, "ladder", step=0.1)
    first = entered(live, "first", 0.41)
    entered(live, "truly better", 0.49, minutes=1)
    entered(live, "theirs", 0.44, owner=live.stranger, minutes=2)
    board = leaderboard(live.competition, live.track, now=live.now)
    assert board.entries[0].run_id == first.pk
    assert [(entry.rank, entry.score.value) for entry in board.entries] == [
        (1, pytest.approx((OPEN + 0.4) / 2)),
        (1, pytest.approx((OPEN + 0.4) / 2)),
    ]


def test_without_feedback_the_order_is_that_of_the_open_scores(live: Site) -> None:
    withhold(live, "none")
    entered(live, "hidden champion", 0.9, open_score=0.5)
    entered(live, "theirs", 0.1, owner=live.stranger, open_score=0.6)
    board = leaderboard(live.competition, live.track, now=live.now)
    assert [(entry.name, entry.hidden) for entry in board.entries] == [("theirs", None), ("hidden champion", None)]


def test_what_was_published_stays_whatever_is_computed_later(live: Site) -> None:
    withhold(live, "ladder", step=0.1)
    first, second = entered(live, "first", 0.83), entered(live, "second", 0.2, minutes=1)
    before = list(LadderScore.objects.values())
    Run.objects.filter(pk=first.pk).update(hidden_score=0.1)  # scored anew, by whatever mistake
    settle(live.track, live.now)
    climb(second, live.now)
    refresh(live.track, live.now)
    assert list(LadderScore.objects.values()) == before
    withhold(live, "ladder", step=0.3)
    third = entered(live, "third", 0.85, minutes=2)
    assert third.ladder.value == pytest.approx(0.8)


@pytest.mark.django_db(transaction=True)
def test_workers_that_score_at_once_take_one_rung_after_the_other() -> None:
    live = make_site(timezone.now())
    withhold(live, "full")
    runs = [entered(live, f"run-{number}", 0.2 * number, minutes=number) for number in range(1, 5)]
    withhold(live, "ladder", step=0.1)
    started = threading.Barrier(len(runs))

    def score_one(run_id: uuid.UUID) -> None:
        run = Run.objects.select_related("submission__competition", "submission__track").get(pk=run_id)
        started.wait()
        climb(run, live.now)
        connection.close()

    threads = [threading.Thread(target=score_one, args=(run.pk,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rungs = LadderScore.objects.order_by("number").values_list("number", "value")
    assert list(rungs) == [
        (1, pytest.approx(0.2)),
        (2, pytest.approx(0.4)),
        (3, pytest.approx(0.6)),
        (4, pytest.approx(0.8)),
    ]


def test_participants_and_baselines_climb_apart(live: Site) -> None:
    withhold(live, "ladder", step=0.1)
    mine, theirs = entered(live, "mine", 0.9), entered(live, "theirs", 0.3, owner=live.stranger)
    assert (mine.ladder.value, theirs.ladder.value) == pytest.approx((0.9, 0.3))
    assert (mine.ladder.number, theirs.ladder.number) == (1, 1)


def test_another_hidden_suite_is_another_ladder(live: Site) -> None:
    withhold(live, "ladder", step=0.1)
    entered(live, "first", 0.9)
    hidden = live.suites[1]
    hidden.weight = 3.0
    hidden.save()
    assert entered(live, "second", 0.4, minutes=1).ladder.value == pytest.approx(0.4)


def test_a_competition_that_withholds_from_now_on_publishes_older_runs_in_order(live: Site) -> None:
    withhold(live, "full")
    late, early = entered(live, "late", 0.8, minutes=5), entered(live, "early", 0.4)
    assert not LadderScore.objects.exists()
    withhold(live, "ladder", step=0.1)
    assert leaderboard(live.competition, live.track, now=live.now).entries == []
    assert settle(live.track, live.now) == 2
    assert settle(live.track, live.now) == 0
    early.refresh_from_db()
    late.refresh_from_db()
    assert (early.ladder.number, late.ladder.number) == (1, 2)


@pytest.mark.parametrize(("mode", "tells"), [("full", True), ("ladder", False), ("none", False)])
def test_the_event_that_ends_a_run(live: Site, mode: str, tells: bool) -> None:
    withhold(live, mode)
    half = Interval(0.5, 0.4, 0.6)
    message = scored_message(live.competition, half, live.now)
    assert ("50.0%" in message) is tells


def test_withholding_costs_a_fixed_number_of_queries(
    live: Site, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    withhold(live, "ladder")
    for number in range(6):
        owner = User.objects.create_user(f"p{number}", f"p{number}@example.org", "x")
        entered(live, f"entry-{number}", 0.1 * number, owner=owner)
    with django_assert_num_queries(3):  # suites, phases, runs with their rungs
        assert len(leaderboard(live.competition, live.track, now=live.now).entries) == 6
