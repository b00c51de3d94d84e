"""The front page."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import SafeString

from tiltyard.competitions.models import Competition, Phase
from tiltyard.leaderboards.feedback import feedback_in
from tiltyard.leaderboards.models import BoardSummary
from tiltyard.leaderboards.summaries import Leader
from tiltyard.statements import Statement
from tiltyard.web.access import is_staff

_COMPETITIONS = Statement(Competition.objects.all)
_PHASES = Statement(Phase.objects.all)
_SUMMARIES = Statement(lambda: BoardSummary.objects.select_related("track").order_by("track__order"))


@dataclass(frozen=True)
class Card:
    """A competition as the front page shows it."""

    competition: Competition
    phase: Phase | None
    next_phase: Phase | None
    board: SafeString


def home(request: HttpRequest) -> HttpResponse:
    """What Tiltyard is, and the competitions."""
    now = timezone.now()
    sees_all = is_staff(request)
    phases: defaultdict[int, list[Phase]] = defaultdict(list)
    for phase in _PHASES.ask():
        phases[phase.competition_id].append(phase)
    summaries: defaultdict[int, list[BoardSummary]] = defaultdict(list)
    for summary in _SUMMARIES.ask():
        summaries[summary.track.competition_id].append(summary)
    cards = [
        _card(competition, phases[competition.pk], summaries[competition.pk], now)
        for competition in _COMPETITIONS.ask()
        if competition.is_public or sees_all
    ]
    return render(request, "home.html", {"cards": cards, "now": now})


def _card(competition: Competition, phases: Sequence[Phase], summaries: Sequence[BoardSummary], now: datetime) -> Card:
    phase = next((one for one in phases if one.starts_at <= now < one.ends_at), None)
    coming = [] if phase else [one for one in phases if one.starts_at > now]
    # Under another rule of feedback it was made for other eyes: the job will write a new one in a moment.
    is_current = bool(summaries) and summaries[0].feedback == feedback_in(competition, phases, now)
    return Card(
        competition=competition,
        phase=phase,
        next_phase=min(coming, key=lambda one: one.starts_at, default=None),
        board=_board(
            sum(summary.entries for summary in summaries),
            tuple(Leader.model_validate(one) for one in summaries[0].top) if is_current else (),
        ),
    )


@lru_cache(maxsize=500)
def _board(entries: int, top: tuple[Leader, ...]) -> SafeString:
    """What a card says of a board, kept by all that it says: the boards of most competitions stay as they are."""
    return render_to_string("competition/_card_board.html", {"entries": entries, "top": top})
