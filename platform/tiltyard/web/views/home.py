"""The front page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from tiltyard.competitions.models import Competition, Phase
from tiltyard.leaderboards.board import Entry, leaderboard
from tiltyard.web.access import is_staff

_TOP = 3


@dataclass(frozen=True)
class Card:
    """A competition as the front page shows it."""

    competition: Competition
    phase: Phase | None
    next_phase: Phase | None
    entries: int
    top: Sequence[Entry]


def home(request: HttpRequest) -> HttpResponse:
    """What Tiltyard is, and the competitions."""
    now = timezone.now()
    competitions = Competition.objects.all() if is_staff(request) else Competition.objects.visible()
    cards = [_card(competition, now) for competition in competitions.prefetch_related("tracks")]
    return render(request, "home.html", {"cards": cards, "now": now})


def _card(competition: Competition, now: datetime) -> Card:
    phase = competition.current_phase(now)
    next_phase = None if phase else competition.phases.filter(starts_at__gt=now).order_by("starts_at").first()
    boards = [leaderboard(competition, track, now=now) for track in competition.tracks.all()]
    entries = sum(len(board.entries) for board in boards)
    top = boards[0].entries[:_TOP] if boards else []
    return Card(competition, phase, next_phase, entries, top)
