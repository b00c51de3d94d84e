"""The boards' statistics: when they are computed, what from, and that they are right about it."""

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from bundles_for_tests import RECIPE, write_bundle
from django.conf import settings
from django.utils import timezone
from web_rows import Site, make_run, score

from tiltyard.accounts.models import User
from tiltyard.competitions.bundle import import_bundle
from tiltyard.competitions.models import Competition, Suite
from tiltyard.leaderboards.board import leaderboard
from tiltyard.leaderboards.keys import ranking_basis
from tiltyard.leaderboards.models import BoardStatistics
from tiltyard.leaderboards.refresh import refresh, refresh_all
from tiltyard.leaderboards.rules import Question
from tiltyard.leaderboards.statistics import Entrant, board_statistics
from tiltyard.submissions.models import Run, SuiteResult, TaskResult
from tiltyard.submissions.states import RunState
from tiltyard_eval.build import build_suite, load_recipe
from tiltyard_eval.suite import load_suite

CHANCE = np.random.default_rng(11)


def entered(site: Site, name: str, open_score: float, hidden_score: float, *, is_baseline: bool = False) -> Run:
    owner = User.objects.create_user(f"owner-of-{name}", f"{name}@example.org", "x")
    run = make_run(site, name, owner=owner, is_baseline=is_baseline, state=RunState.SCORED)
    return score(run, open_score, hidden_score)


def later(now: datetime) -> datetime:
    return now + timedelta(hours=1)  # after any rest


def world(shares: list[tuple[float, float]], *, items: int = 200) -> list[Question]:
    """One open and one hidden task, answered rightly with these probabilities."""
    return [
        Question(
            suite="hidden" if is_hidden else "open",
            is_hidden=is_hidden,
            task="task",
            family="family",
            share=float(is_hidden),
            part_share=1.0,
            scores=(CHANCE.random((len(shares), items)) < np.array(shares)[:, [int(is_hidden)]]).astype(float),
        )
        for is_hidden in (False, True)
    ]


def who(*names: str, baselines: int = 0) -> list[Entrant]:
    return [Entrant(name, name, place < baselines, place < baselines) for place, name in enumerate(names)]


def test_ranks_count_participants_alone_but_groups_hold_everybody() -> None:
    found = board_statistics(
        who("base", "a", "b", "c", baselines=1),
        world([(0.5, 0.5), (0.9, 0.9), (0.9, 0.9), (0.1, 0.1)]),
        {"rule": "weighted_mean"},
    ).entries
    assert [(found[name].rank_low, found[name].rank_high) for name in ("base", "a", "b", "c")] == [
        (None, None),
        (1, 2),
        (1, 2),
        (3, 3),
    ]
    assert [found[name].group for name in ("a", "b", "base", "c")] == [1, 1, 2, 3]


def test_only_who_loses_more_than_every_baseline_is_flagged() -> None:
    found = board_statistics(
        who("base", "lora", "honest", "memoriser", baselines=2),
        world([(0.3, 0.3), (0.8, 0.65), (0.9, 0.75), (1.0, 0.3)]),
        {"rule": "weighted_mean"},
    )
    excess = {name: entry.excess for name, entry in found.entries.items()}
    assert excess["base"] is None
    assert excess["lora"] is None
    assert excess["honest"] is not None
    assert not excess["honest"].flagged
    assert excess["memoriser"] is not None
    assert excess["memoriser"].flagged
    assert excess["memoriser"].baseline == "lora"
    assert found.references == ["base", "lora"]


def test_without_baselines_nobody_is_flagged() -> None:
    found = board_statistics(who("a", "b"), world([(1.0, 0.0), (0.5, 0.5)]), {"rule": "weighted_mean"})
    assert all(entry.excess is None for entry in found.entries.values())


def test_correlation_needs_five_entries() -> None:
    few = board_statistics(who(*"abcd"), world([(p / 10, p / 10) for p in range(1, 8, 2)]), {"rule": "weighted_mean"})
    assert few.correlation is None
    shares = [(p / 10, p / 10) for p in range(1, 10)]
    many = board_statistics(who(*"abcdefghi"), world(shares), {"rule": "weighted_mean"})
    assert many.correlation is not None
    assert many.correlation.low > 0.5


def test_more_items_tell_smaller_differences() -> None:
    shares = [(0.5, 0.5), (0.6, 0.6)]
    small, large = (
        board_statistics(who("a", "b"), world(shares, items=items), {"rule": "weighted_mean"}).detectable["ranking"]
        for items in (50, 800)
    )
    assert small == pytest.approx(4 * large, rel=0.2)


def test_a_rule_that_cannot_be_applied_leaves_the_weighted_mean_and_says_why() -> None:
    scoring = {"rule": "normalised", "base": "base", "ceilings": {}}
    found = board_statistics(who("a", "b"), world([(0.5, 0.5), (0.6, 0.6)]), scoring)
    assert found.problem == "The baseline that counts as 0 has not been scored yet."
    assert found.entries["b"].score.value > found.entries["a"].score.value > 0.3


def test_they_are_computed_once_and_again_after_whatever_they_depend_on_has_changed(site: Site, now: datetime) -> None:
    entered(site, "first", 0.7, 0.6)
    assert refresh(site.track, now)
    assert not refresh(site.track, later(now))
    changes: list[Callable[[], object]] = [
        lambda: entered(site, "second", 0.8, 0.7),
        lambda: Competition.objects.update(reference_baselines=["base"]),
        lambda: Competition.objects.update(scoring={"rule": "geometric_mean_of_win_rates"}),
        lambda: Run.objects.filter(submission__name="second").delete(),
    ]
    for hours, change in enumerate(changes, 2):
        change()
        site.track.competition.refresh_from_db()
        if site.track.competition.scoring["rule"] != "weighted_mean":
            site.track.competition.scoring |= {"scenario": "task", "nulls": "loss", "smoothing": 0.5}
            site.track.competition.save()
        assert refresh(site.track, now + timedelta(hours=hours)), change
        assert not refresh(site.track, now + timedelta(hours=hours, minutes=30)), change


def test_a_board_shows_no_statistics_of_another_board(site: Site, now: datetime) -> None:
    entered(site, "first", 0.7, 0.6)
    refresh(site.track, now)
    assert leaderboard(site.competition, site.track, now=now).statistics is not None
    entered(site, "second", 0.8, 0.7)
    board = leaderboard(site.competition, site.track, now=now)
    assert (board.statistics, board.is_waiting) == (None, True)
    assert all(entry.statistics is None for entry in board.entries)


def test_new_weights_rank_nobody_until_entries_run_again(site: Site, now: datetime) -> None:
    entered(site, "first", 0.7, 0.6)
    refresh(site.track, now)
    Suite.objects.update(weight=3.0)
    board = leaderboard(site.competition, site.track, now=now)
    assert (list(board.entries), board.statistics) == ([], None)


def test_a_result_without_item_scores_is_on_the_board_but_not_compared(site: Site, now: datetime) -> None:
    old, new = entered(site, "old", 0.7, 0.6), entered(site, "new", 0.5, 0.5)
    TaskResult.objects.filter(suite_result__run=old).update(item_scores=[])
    refresh(site.track, now)
    found = {entry.run_id: entry.statistics for entry in leaderboard(site.competition, site.track, now=now).entries}
    assert found[old.pk] is None
    assert found[new.pk] is not None


def test_odd_data_of_one_track_do_not_hold_up_another(site: Site, now: datetime) -> None:
    broken = entered(site, "broken", 0.7, 0.6)
    task = TaskResult.objects.filter(suite_result__run=broken).first()
    assert task is not None
    task.item_scores[0] = 7.0
    task.save()
    other = site.competition.tracks.create(slug="gpu", title="GPU", hardware="One GPU", order=9)
    fine = entered(site, "fine", 0.5, 0.5)
    fine.submission.track = other
    fine.submission.save()
    assert refresh_all(now) == 1
    assert BoardStatistics.objects.get().track == other


@pytest.mark.parametrize(
    ("scoring", "order"),
    [
        ({"rule": "weighted_mean"}, ["steady", "spiky", "low"]),
        (
            {"rule": "geometric_mean_of_win_rates", "scenario": "task", "nulls": "loss", "smoothing": 0.5},
            ["steady", "low", "spiky"],
        ),
    ],
)
def test_the_rule_orders_the_board(site: Site, now: datetime, scoring: dict[str, object], order: list[str]) -> None:
    Suite.objects.filter(visibility="hidden").update(weight=4.0)
    for name, value in (("steady", 0.70), ("spiky", 0.66), ("low", 0.30)):
        entered(site, name, value, value)
    spiky = TaskResult.objects.filter(suite_result__run__submission__name="spiky", suite_result__suite=site.suites[1])
    for task in list(spiky)[:3]:  # loses all but the last to everybody
        task.item_scores = [0.0] * task.items
        task.save()
    site.competition.scoring = scoring
    site.competition.save()
    site.track.competition.refresh_from_db()
    refresh(site.track, now)
    board = leaderboard(site.competition, site.track, now=now)
    assert board.rule == scoring["rule"]
    assert [entry.name for entry in board.entries] == order
    assert [entry.rank for entry in board.entries] == [1, 2, 3]


def test_twins_show_who_knows_the_published_words(tmp_path: Path, site: Site, now: datetime) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    twins = RECIPE | {"name": "small-hidden", "visibility": "hidden", "items": 20}
    twins |= {"frames": ["qa"], "phrasings": ["b"], "twins": {"of": "small-open", "share": 0.5}}
    _twin_bundle(bundle, twins)
    competition = import_bundle(bundle, secrets_dir=settings.SECRETS_DIR)
    track = competition.tracks.get()
    suites = {suite.visibility: suite for suite in competition.suites.all()}
    hidden = load_suite(suites["hidden"].directory)
    assert sum(item.twin is not None for task in hidden.tasks for item in task.items) >= 8
    for name, hidden_share in (("base", 1.0), ("parrot", 0.0)):
        run = entered(site, name, 0.5, 0.5, is_baseline=name == "base")
        run.submission.competition, run.submission.track = competition, track
        run.submission.save()
        SuiteResult.objects.filter(run=run).delete()
        for visibility, suite in suites.items():
            _answer(run, suite, 1.0 if visibility == "open" else hidden_share)
    Run.objects.update(ranking_basis=ranking_basis(competition))
    refresh(track, timezone.now())
    found = {entry.name: entry.statistics for entry in leaderboard(competition, track, now=now).entries}
    assert found["base"] is not None
    assert found["parrot"] is not None
    base, parrot = found["base"].twins, found["parrot"].twins
    assert base is not None
    assert parrot is not None
    assert (base.value, base.p_value, base.flagged) == (0.0, None, False)
    assert (parrot.value, parrot.flagged, parrot.pairs) == (1.0, True, base.pairs)


def _twin_bundle(bundle: Path, recipe: dict[str, object]) -> None:
    opened = RECIPE | {"name": "small-open", "visibility": "open", "items": 20}
    (bundle / "open.recipe.yaml").write_text(yaml.safe_dump(opened))
    (bundle / "hidden.recipe.yaml").write_text(yaml.safe_dump(recipe))
    shutil.rmtree(bundle / "open")
    build_suite(load_recipe(bundle / "open.recipe.yaml"), b"a secret for tests", bundle / "open")


def _answer(run: Run, suite: Suite, share: float) -> None:
    result = SuiteResult.objects.create(
        run=run, suite=suite, score=share, low=share, high=share, repro_hash="sha256:0", wall_s=1.0, result={}
    )
    for task in suite.tasks:
        fields = {name: task[name] for name in ("name", "title", "family", "weight", "items")}
        scores = [share] * task["items"]
        TaskResult.objects.create(suite_result=result, score=share, low=0, high=1, item_scores=scores, **fields)
