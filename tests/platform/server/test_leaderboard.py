"""Who stands where."""

import csv
import io
from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from web_rows import Site, make_run, score

from tiltyard.accounts.models import User
from tiltyard.leaderboards.board import Board, leaderboard
from tiltyard.leaderboards.export import CSV_HEADER, board_csv
from tiltyard.leaderboards.kept import Kept
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import FailureReason, RunState


def entered(site: Site, name: str, value: float, owner: User | None = None, *, is_baseline: bool = False) -> Run:
    run = make_run(site, name, owner=owner, is_baseline=is_baseline, state=RunState.SCORED)
    return score(run, value, value)


def people(count: int) -> list[User]:
    return [User.objects.create_user(f"p{index}", f"p{index}@example.org", "x") for index in range(count)]


def ranks(site: Site) -> list[tuple[int | None, str]]:
    board = leaderboard(site.competition, site.track, now=timezone.now())
    return [(entry.rank, entry.name) for entry in board.entries]


def test_an_empty_board(site: Site) -> None:
    assert ranks(site) == []


def test_the_best_run_of_each_participant_counts(site: Site) -> None:
    entered(site, "worse", 0.3)
    entered(site, "better", 0.5)
    entered(site, "theirs", 0.4, site.stranger)
    assert ranks(site) == [(1, "better"), (2, "theirs")]


def test_equal_scores_share_a_rank_and_the_next_is_skipped(site: Site) -> None:
    for minutes, (user, value) in enumerate(zip(people(4), (0.5, 0.5, 0.7, 0.4), strict=True)):
        submission = entered(site, user.username, value, user).submission
        submission.created_at += timedelta(minutes=minutes)
        submission.save()
    assert ranks(site) == [(1, "p2"), (2, "p0"), (2, "p1"), (4, "p3")]
    board = leaderboard(site.competition, site.track, now=timezone.now())
    assert [entry.is_tied for entry in board.entries] == [False, True, True, False]


def test_baselines_stand_in_their_place_without_a_rank(site: Site) -> None:
    entered(site, "base", 0.3, site.staff, is_baseline=True)
    entered(site, "lora", 0.6, site.staff, is_baseline=True)
    entered(site, "base", 0.2, site.staff, is_baseline=True)
    entered(site, "mine", 0.5)
    entered(site, "theirs", 0.1, site.stranger)
    assert ranks(site) == [(None, "lora"), (1, "mine"), (None, "base"), (2, "theirs")]


def test_an_organiser_makes_baselines_of_organisers_entries_alone(site: Site, client: Client) -> None:
    theirs, mine = entered(site, "ours", 0.6, site.staff), entered(site, "mine", 0.5)
    client.force_login(site.staff)
    chosen = [str(run.submission_id) for run in (theirs, mine)]
    client.post("/admin/submissions/submission/", {"action": "make_baseline", "_selected_action": chosen})
    assert ranks(site) == [(None, "ours"), (1, "mine")]


def test_failed_and_unfinished_runs_are_never_ranked(site: Site) -> None:
    failed = make_run(site, "failed", state=RunState.FAILED)
    failed.failure_reason, failed.score = FailureReason.CRASHED, 0.99
    failed.save()
    make_run(site, "running", state=RunState.EVALUATING)
    assert ranks(site) == []


def test_a_score_on_other_suites_does_not_count(site: Site) -> None:
    entered(site, "old", 0.9)
    assert ranks(site) == [(1, "old")]
    site.suites[1].weight = 5
    site.suites[1].save()
    assert ranks(site) == []


def test_of_equal_runs_of_one_participant_the_first_counts(site: Site, now: datetime) -> None:
    later, first = entered(site, "later", 0.5), entered(site, "first", 0.5)
    first.submission.created_at = now - timedelta(hours=1)
    first.submission.save()
    board = leaderboard(site.competition, site.track, now=now)
    assert [entry.run_id for entry in board.entries] == [first.pk]
    assert later.score == first.score


def test_other_tracks_are_apart(site: Site) -> None:
    entered(site, "mine", 0.5)
    other = site.competition.tracks.create(slug="gpu", title="GPU", hardware="One GPU")
    assert leaderboard(site.competition, other, now=timezone.now()).entries == []


def test_the_number_of_queries_does_not_grow(site: Site, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    for user in people(12):
        entered(site, user.username, 0.5, user)
    with django_assert_num_queries(3):  # suites, runs, statistics
        board = leaderboard(site.competition, site.track, now=timezone.now())
        assert len([(entry.owner_name, entry.name, entry.submitted_at) for entry in board.entries]) == 12


def test_csv(site: Site) -> None:
    run = entered(site, "=SUM(A1)", 0.5)
    board = leaderboard(site.competition, site.track, now=timezone.now())
    header, row = csv.reader(io.StringIO(board_csv(board)))
    assert header == CSV_HEADER
    values = dict(zip(header, row, strict=True))
    assert (values["rank"], values["name"], values["score"], values["run_id"]) == (
        "1",
        "'=SUM(A1)",
        "0.500000",
        str(run.pk),
    )
    assert float(values["gap"]) == pytest.approx(0)


def test_what_another_thread_clears_at_once_is_still_given() -> None:
    class ClearedAtOnce(dict[Hashable, Any]):
        def __setitem__(self, name: Hashable, value: Any) -> None:
            super().__setitem__(name, value)
            self.clear()

    kept = Kept("", cast(Board, None), 0.0, 0.0, ClearedAtOnce())
    assert kept.made("csv", lambda: "text") == "text"
