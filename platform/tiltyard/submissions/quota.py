"""How much a participant may still hand in."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition, Phase
from tiltyard.submissions.states import FINAL, FailureReason, RunState

# Every upload asks this, and once more under the lock that decides. As SQL, because Django takes ten times as long to
# put it together, three milliseconds, as PostgreSQL to answer it. Not charged is what failed by our fault, nor what was
# cancelled before a start.
_CHARGED = """
    submission.phase_id = %(phase)s AND NOT submission.is_baseline AND run.failure_reason <> %(infra)s
    AND NOT (run.state = %(cancelled)s AND run.started_at IS NULL)
"""
_USED = f"""
    SELECT
        COUNT(DISTINCT submission.id) FILTER (WHERE {_CHARGED} AND submission.created_at >= %(today)s),
        COUNT(DISTINCT submission.id) FILTER (WHERE {_CHARGED}),
        COUNT(*) FILTER (WHERE run.state NOT IN ({", ".join(f"%(final{place})s" for place in range(len(FINAL)))}))
    FROM submissions_run run JOIN submissions_submission submission ON submission.id = run.submission_id
    WHERE submission.owner_id = %(owner)s AND submission.competition_id = %(competition)s
"""  # noqa: S608  nothing but the names of its parameters is put in


@dataclass(frozen=True)
class Quota:
    """What is used of each allowance of the current phase; a limit of 0 means none."""

    phase_title: str | None  # None: no phase is open
    daily_used: int
    daily_limit: int
    total_used: int
    total_limit: int
    running: int
    concurrent_limit: int
    resets_at: datetime

    def refusal(self) -> str | None:
        """Why nothing may be handed in now, or None when it may."""
        if self.phase_title is None:
            return "The competition takes no submissions now: no phase is open. See its dates."
        if self.concurrent_limit and self.running >= self.concurrent_limit:
            return (
                f"{self.running} of your runs are still queued or running, and {self.concurrent_limit} may be at once. "
                "Wait for one to end, or cancel one."
            )
        if self.daily_limit and self.daily_used >= self.daily_limit:
            return (
                f"You have used today's {self.daily_limit} submissions. "
                f"The count starts again at {self.resets_at:%H:%M} UTC."
            )
        if self.total_limit and self.total_used >= self.total_limit:
            return f"You have used all {self.total_limit} submissions of the phase “{self.phase_title}”."
        return None


def quota_for(owner: User, competition: Competition, now: datetime, phase: Phase | None = None) -> Quota:
    """The owner's quota in the phase that is open at `now`, for a caller who knows it already in `phase`.

    A submission counts when any of its runs does: one that failed by the platform's fault, or was cancelled before it
    started, costs nothing.
    """
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    resets_at = today + timedelta(days=1)
    phase = phase or competition.current_phase(now)
    if phase is None:
        return Quota(None, 0, 0, 0, 0, 0, 0, resets_at)
    with connection.cursor() as cursor:
        cursor.execute(
            _USED,
            {
                "phase": phase.pk,
                "owner": owner.pk,
                "competition": competition.pk,
                "today": connection.ops.adapt_datetimefield_value(today),
                "infra": FailureReason.INFRA_ERROR,
                "cancelled": RunState.CANCELLED,
                **{f"final{place}": state for place, state in enumerate(sorted(FINAL))},
            },
        )
        daily_used, total_used, running = cursor.fetchone()
    return Quota(
        phase_title=phase.title,
        daily_used=daily_used,
        daily_limit=phase.daily_quota,
        total_used=total_used,
        total_limit=phase.total_quota,
        running=running,
        concurrent_limit=phase.concurrent_quota,
        resets_at=resets_at,
    )
