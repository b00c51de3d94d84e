"""The front page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from tiltyard.competitions.models import Competition, Phase, Track
from tiltyard.leaderboards.feedback import feedback_in
from tiltyard.leaderboards.models import BoardSummary
from tiltyard.leaderboards.summaries import Leader
from tiltyard.web.access import is_staff


@dataclass(frozen=True)
class Card:
    """A competition as the front page shows it."""

    competition: Competition
    phase: Phase | None
    next_phase: Phase | None
    entries: int
    top: Sequence[Leader]


def home(request: HttpRequest) -> HttpResponse:
    """What Tiltyard is, and the competitions."""
    now = timezone.now()
    competitions = Competition.objects.all() if is_staff(request) else Competition.objects.visible()
    tracks = Prefetch("tracks", Track.objects.select_related("summary"))
    cards = [_card(competition, now) for competition in competitions.prefetch_related("phases", tracks)]
    return render(request, "home.html", {"cards": cards, "now": now})


def _card(competition: Competition, now: datetime) -> Card:
    phases = list(competition.phases.all())
    phase = next((one for one in phases if one.starts_at <= now < one.ends_at), None)
    coming = [] if phase else [one for one in phases if one.starts_at > now]
    summaries = [found for track in competition.tracks.all() if (found := _summary(track)) is not None]
    # Under another rule of feedback it was made for other eyes: the job will write a new one in a moment.
    is_current = bool(summaries) and summaries[0].feedback == feedback_in(competition, phases, now)
    return Card(
        competition=competition,
        phase=phase,
        next_phase=min(coming, key=lambda one: one.starts_at, default=None),
        entries=sum(summary.entries for summary in summaries),
        top=[Leader.model_validate(one) for one in summaries[0].top] if is_current else [],
    )


def _summary(track: Track) -> BoardSummary | None:
    try:
        return track.summary
    except BoardSummary.DoesNotExist:
        return None
