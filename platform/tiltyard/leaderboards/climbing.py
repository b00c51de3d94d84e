"""Publish on the Ladder what scored runs gave, while a competition withholds its hidden scores (`feedback.py`).

The Ladder itself is `tiltyard_eval.stats.ladder`; here its rungs are rows, of which workers on several machines add one
after the other.
"""

import hashlib
from collections.abc import Iterable, Sequence
from copy import copy
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from tiltyard.competitions.models import Competition, Suite, Track
from tiltyard.leaderboards.changes import board_changed
from tiltyard.leaderboards.feedback import Feedback
from tiltyard.leaderboards.keys import ranking_basis
from tiltyard.leaderboards.models import LadderScore
from tiltyard.submissions.models import Run, Submission
from tiltyard.submissions.states import RunState
from tiltyard_eval.stats.ladder import LadderState, ladder_update

_CLIMB_ATTEMPTS = 20


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
