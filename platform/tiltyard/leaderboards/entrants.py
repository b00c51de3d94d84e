"""Who is on a board: of each participant the best run, of the baselines the best run of each name.

What is best: the score that is shown; in a track that is ranked by a column that column, among the runs that have the
score it asks for.
"""

from collections.abc import Sequence

from django.db.models import (
    Case,
    CharField,
    ExpressionWrapper,
    F,
    FloatField,
    IntegerField,
    OrderBy,
    Value,
    When,
    Window,
)
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast, Concat, RowNumber

from tiltyard.competitions.columns import COLUMNS
from tiltyard.competitions.models import Suite, Track
from tiltyard.leaderboards.feedback import Feedback, Shares
from tiltyard.leaderboards.figures import columns_of, in_sql
from tiltyard.leaderboards.keys import ranking_basis
from tiltyard.leaderboards.standings import FIELDS, Standing
from tiltyard.submissions.models import ResourceUse, Run
from tiltyard.submissions.states import RunState


def entrants(track: Track, suites: Sequence[Suite], feedback: Feedback = Feedback.FULL) -> list[Standing]:
    """The runs on the track's board, best first, of equal ones the earlier.

    Only scored runs of the present suites and weights count. What is best is decided by what is shown: while hidden
    scores are withheld, the true ones must not show in the order either, nor in which run stands for a participant.
    """
    submission = F("submission__created_at")
    scored = Run.objects.filter(
        submission__track=track,
        state=RunState.SCORED,
        score__isnull=False,
        ranking_basis=ranking_basis(track.competition, suites),
    )
    scored = scored.annotate(shown_score=_shown_score(Shares.of(suites), feedback)).filter(shown_score__isnull=False)
    order: list[OrderBy] = [F("shown_score").desc(), submission.asc(), F("pk").asc()]
    if track.rank_by:
        column, least = COLUMNS[track.rank_by["column"]], track.rank_by["min_score"]
        is_enough = Case(When(shown_score__gte=least, then=Value(1)), default=Value(0), output_field=IntegerField())
        scored = scored.annotate(is_enough=is_enough, figure=in_sql(column, F("shown_score")))
        best_first = OrderBy(F("figure"), descending=bool(column.more_is_better), nulls_last=True)
        order = [F("is_enough").desc(), best_first, *order]
    place = Window(RowNumber(), partition_by=[_participant()], order_by=order)
    used = sorted({column.source for column in columns_of(track.columns)})
    best = scored.annotate(place=place).filter(place=1).order_by(*order)
    rows = best.values_list(*FIELDS, *(f"resources__{source}" for source in used))
    if not used:
        return [Standing(*row) for row in rows]
    known = len(FIELDS)
    return [Standing(*row[:known], resources=ResourceUse(**dict(zip(used, row[known:], strict=True)))) for row in rows]


def _participant() -> Case:
    baseline = When(submission__is_baseline=True, then=Concat(Value("baseline:"), F("submission__name")))
    return Case(baseline, default=Cast(F("submission__owner_id"), CharField()), output_field=CharField())


def _shown_score(shares: Shares, feedback: Feedback) -> Combinable:
    """The same in SQL as `feedback.withhold` gives for one run."""
    if feedback == Feedback.FULL:
        return F("score")
    if feedback == Feedback.NONE or shares.hidden == 0.0:
        return F("open_score")
    hidden = F("ladder__value") * Value(shares.hidden)
    shown = hidden if shares.open == 0.0 else hidden + F("open_score") * Value(shares.open)
    return ExpressionWrapper(shown, output_field=FloatField())
