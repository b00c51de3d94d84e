"""What of hidden scores may be shown: the one place that decides it.

A competition may withhold hidden scores while its round is on (`feedback` in competition.yaml), because whoever sees
every score can fit a model to the hidden questions without ever seeing one. With `ladder` a participant is shown only
what the Ladder publishes (`climbing.py`), with `none` nothing. When the last phase is over everything is
shown. Organisers see everything at any time.

Whatever shows a run to somebody takes it through `show_run`, whatever lists its suites' results takes them from
`shown_results` or `shown_among`, and boards are made by `board.leaderboard`. The statistics of a board come from hidden
items, so a board that withholds has none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from django.db.models import Prefetch, QuerySet, prefetch_related_objects

from tiltyard.competitions.models import Competition, Phase, Suite
from tiltyard.leaderboards.models import LadderScore
from tiltyard.leaderboards.standings import Standing
from tiltyard.submissions.models import Run, SuiteResult
from tiltyard_eval.stats.types import Interval

T = TypeVar("T", Run, Standing)


class Feedback(StrEnum):
    """What is shown of hidden scores now."""

    FULL = "full"
    LADDER = "ladder"
    NONE = "none"


@dataclass(frozen=True)
class Shares:
    """How much open and hidden suites count in the ranking score, adding up to 1; 0 and 0 without active suites."""

    open: float
    hidden: float

    @classmethod
    def of(cls, suites: Iterable[Suite]) -> "Shares":
        weights = {True: 0.0, False: 0.0}
        for suite in suites:
            weights[suite.is_hidden] += suite.weight
        total = sum(weights.values()) or 1.0
        return cls(weights[False] / total, weights[True] / total)


def feedback_now(competition: Competition, now: datetime, *, is_organiser: bool = False) -> Feedback:
    """What of hidden scores this competition shows; one query at most."""
    mode = Feedback(competition.feedback["mode"])
    if mode == Feedback.FULL or is_organiser or not competition.phases.filter(ends_at__gt=now).exists():
        return Feedback.FULL
    return mode


def feedback_in(
    competition: Competition, phases: Iterable[Phase], now: datetime, *, is_organiser: bool = False
) -> Feedback:
    """The same for who has read all its phases."""
    mode = Feedback(competition.feedback["mode"])
    is_over = not any(phase.ends_at > now for phase in phases)
    return Feedback.FULL if mode == Feedback.FULL or is_organiser or is_over else mode


def show_run(run: Run, now: datetime, *, is_organiser: bool = False) -> Run:
    """The run with only those scores in its columns that may be shown; for showing it, never for saving it."""
    return show_runs([run], now, is_organiser=is_organiser)[0]


def show_runs(runs: Iterable[Run], now: datetime, *, is_organiser: bool = False) -> list[Run]:
    """The same for many runs, in a number of queries that does not depend on how many there are."""
    runs = list(runs)
    competitions = {run.submission.competition_id: run.submission.competition for run in runs}
    withheld = [one for one in competitions.values() if Feedback(one.feedback["mode"]) != Feedback.FULL]
    if withheld and not is_organiser:
        active = Prefetch("suites", Suite.objects.filter(is_active=True), to_attr="active_suites")
        prefetch_related_objects(withheld, "phases", active)
    found: dict[int, tuple[Feedback, Shares]] = {}
    for key, competition in competitions.items():
        phases = competition.phases.all() if competition in withheld and not is_organiser else ()
        feedback = feedback_in(competition, phases, now, is_organiser=is_organiser)
        active_suites: Iterable[Suite] = getattr(competition, "active_suites", ()) if feedback != Feedback.FULL else ()
        found[key] = feedback, Shares.of(active_suites)
    shown = ((run, *found[run.submission.competition_id]) for run in runs)
    return [
        withhold(run, feedback, shares, published(run) if feedback == Feedback.LADDER else None)
        for run, feedback, shares in shown
    ]


def withhold(run: T, feedback: Feedback, shares: Shares, ladder: float | None) -> T:
    """Replace what must not be shown in the run's columns, in memory; `ladder` is what was published with this run."""
    if feedback == Feedback.FULL or run.score is None:
        return run
    hidden = ladder if feedback == Feedback.LADDER else None
    run.hidden_score = hidden
    run.hidden_low = run.hidden_high = None
    run.gap = run.gap_low = run.gap_high = None
    if shares.hidden == 0.0 or (feedback == Feedback.NONE and run.open_score is not None):
        run.score, run.score_low, run.score_high = run.open_score, run.open_low, run.open_high
    else:
        run.score = public_score(run.open_score, hidden, shares)
        run.score_low = run.score_high = None
    return run


def public_score(open_score: float | None, ladder: float | None, shares: Shares) -> float | None:
    """The ranking score with the Ladder's value in the hidden score's place; None while there is none."""
    if ladder is None or (open_score is None and shares.open > 0):
        return None
    return shares.open * (open_score or 0.0) + shares.hidden * ladder


def published(run: Run) -> float | None:
    """What the Ladder published with this run, or None."""
    try:
        return run.ladder.value
    except LadderScore.DoesNotExist:
        return None


def shown_results(run: Run, now: datetime, *, is_organiser: bool = False) -> QuerySet[SuiteResult]:
    """The results of a run's suites that may be shown, with their suites; those of hidden ones not while withheld."""
    results = run.suite_results.select_related("suite")
    if feedback_now(run.submission.competition, now, is_organiser=is_organiser) == Feedback.FULL:
        return results
    return results.exclude(suite__visibility=Suite.Visibility.HIDDEN)


def shown_among(
    results: Iterable[SuiteResult], run: Run, now: datetime, *, is_organiser: bool = False
) -> list[SuiteResult]:
    """The same of the run's results that have been read, with their suites."""
    if feedback_now(run.submission.competition, now, is_organiser=is_organiser) == Feedback.FULL:
        return list(results)
    return [result for result in results if not result.suite.is_hidden]


def scored_message(competition: Competition, score: Interval, now: datetime) -> str:
    """The event that ends a scored run, which everybody may read for ever."""
    if feedback_now(competition, now) != Feedback.FULL:
        return "Scored."
    return f"Scored {score.value:.1%} (95 % interval {score.low:.1%} to {score.high:.1%})."
