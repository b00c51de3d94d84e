"""How much a participant may still hand in."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db.models import Count, Q

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition, Phase
from tiltyard.submissions.models import CHARGED, Run
from tiltyard.submissions.states import FINAL


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
    in_phase = CHARGED & Q(submission__phase=phase, submission__is_baseline=False)
    # Counted in one statement: this is asked on every upload, and again under the lock that decides.
    used = Run.objects.filter(submission__owner=owner, submission__competition=competition).aggregate(
        today=Count("submission", distinct=True, filter=in_phase & Q(submission__created_at__gte=today)),
        total=Count("submission", distinct=True, filter=in_phase),
        running=Count("pk", filter=~Q(state__in=FINAL)),
    )
    return Quota(
        phase_title=phase.title,
        daily_used=used["today"],
        daily_limit=phase.daily_quota,
        total_used=used["total"],
        total_limit=phase.total_quota,
        running=used["running"],
        concurrent_limit=phase.concurrent_quota,
        resets_at=resets_at,
    )
