"""What of hidden scores may be shown: the one place that decides it.

A competition may withhold hidden scores while its round is on (`feedback` in competition.yaml), because whoever sees
every score can fit a model to the hidden questions without ever seeing one. With `ladder` a participant is shown only
what the Ladder publishes (`tiltyard_eval.stats.ladder`), with `none` nothing. When the last phase is over everything is
shown. Organisers see everything at any time.

Whatever shows a run to somebody takes it through `show_run`, whatever lists its suites' results takes them from
`shown_results`, and boards are made by `board.leaderboard`. The statistics of a board come from hidden items, so a
board that withholds has none.
"""

import hashlib
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.db import IntegrityError, transaction
from django.db.models import Prefetch, QuerySet, prefetch_related_objects

from tiltyard.competitions.models import Competition, Phase, Suite, Track
from tiltyard.leaderboards.changes import board_changed
from tiltyard.leaderboards.models import LadderScore
from tiltyard.leaderboards.ranking import RankingScores, ranking_basis
from tiltyard.submissions.models import Run, Submission, SuiteResult
from tiltyard.submissions.states import RunState
from tiltyard_eval.stats.ladder import LadderState, ladder_update

_CLIMB_ATTEMPTS = 20


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
    return [withhold(run, *found[run.submission.competition_id]) for run in runs]


def withhold(run: Run, feedback: Feedback, shares: Shares) -> Run:
    """Replace what must not be shown in the run's columns, in memory."""
    if feedback == Feedback.FULL or run.score is None:
        return run
    hidden = published(run) if feedback == Feedback.LADDER else None
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


def scored_message(competition: Competition, ranking: RankingScores, now: datetime) -> str:
    """The event that ends a scored run, which everybody may read for ever."""
    if feedback_now(competition, now) != Feedback.FULL:
        return "Scored."
    score = ranking.score
    return f"Scored {score.value:.1%} (95 % interval {score.low:.1%} to {score.high:.1%})."


def climb(run: Run, now: datetime) -> None:
    """Let the run's participant climb the Ladder with every scored run that has not been published yet, in order."""
    competition = run.submission.competition
    if competition.feedback["mode"] == Feedback.LADDER:
        _climb(competition, run.submission.track, participant_of(run.submission), now)


def settle(track: Track, now: datetime) -> int:
    """The same for everybody in a track, such as after a change of `feedback`; returns how many runs were published."""
    if track.competition.feedback["mode"] != Feedback.LADDER:
        return 0
    waiting = _scored(track).filter(ladder=None).select_related("submission")
    names = {participant_of(run.submission) for run in waiting}
    published = sum(_climb(track.competition, track, name, now) for name in sorted(names))
    if published:
        board_changed([track.pk])
    return published


def participant_of(submission: Submission) -> str:
    """Whose Ladder a submission climbs: its owner's, and for organisers' entries one for each name."""
    return f"baseline:{submission.name}" if submission.is_baseline else f"owner:{submission.owner_id}"


def hidden_basis(suites: Iterable[Suite]) -> str:
    """Names the hidden suites and weights that a Ladder is climbed on; other ones are another Ladder."""
    parts = sorted(f"{suite.sha256}:{suite.weight!r}" for suite in suites if suite.is_hidden)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _scored(track: Track) -> QuerySet[Run]:
    basis = ranking_basis(track.competition)
    scored = Run.objects.filter(submission__track=track, state=RunState.SCORED, ranking_basis=basis)
    return scored.filter(hidden_score__isnull=False)


def _climb(competition: Competition, track: Track, participant: str, now: datetime) -> int:
    """Publish the participant's runs that wait; another worker that does the same at once is joined."""
    basis = hidden_basis(competition.suites.filter(is_active=True))
    kind, _, name = participant.partition(":")
    mine = _scored(track).filter(ladder=None, submission__is_baseline=kind == "baseline")
    mine = mine.filter(submission__name=name) if kind == "baseline" else mine.filter(submission__owner_id=int(name))
    rungs = LadderScore.objects.filter(track=track, participant=participant, hidden_basis=basis)
    for _ in range(_CLIMB_ATTEMPTS):
        waiting = list(mine.order_by("finished_at", "pk"))
        blank = LadderScore(
            track=track, participant=participant, hidden_basis=basis, step=competition.feedback["step"], made_at=now
        )
        try:
            with transaction.atomic():
                _publish(waiting, rungs.order_by("-number").first(), blank)
        except IntegrityError:  # another worker took the next number or one of the runs
            continue
        return len(waiting)
    return 0  # the periodic job settles what is left


def _publish(runs: Sequence[Run], last: LadderScore | None, blank: LadderScore) -> None:
    """Write the runs' rungs after the `last` one, each a copy of `blank`."""
    state = LadderState(last.value, last.number) if last else LadderState()
    for run in runs:
        state = ladder_update(state, min(1.0, max(0.0, run.hidden_score or 0.0)), step=blank.step)
        rung = copy(blank)
        rung.run, rung.number, rung.value = run, state.submissions, state.best or 0.0
        rung.save(force_insert=True)
