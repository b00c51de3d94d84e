"""What every page of a competition reads, by statements that are written once (`statements.py`)."""

from django.db.models import BigIntegerField

from tiltyard.competitions.models import Competition, Page, Phase, Suite, Track
from tiltyard.statements import Given, Statement

_COMPETITION = Given("competition", BigIntegerField())
_PHASES = Statement(lambda: Phase.objects.filter(competition=_COMPETITION))
_PAGES = Statement(lambda: Page.objects.filter(competition=_COMPETITION))
_TRACKS = Statement(lambda: Track.objects.filter(competition=_COMPETITION))
_ACTIVE_SUITES = Statement(lambda: Suite.objects.filter(competition=_COMPETITION, is_active=True).order_by("order"))


def phases_of(competition: Competition) -> list[Phase]:
    """All its phases, in their order."""
    return _PHASES.ask(competition=competition.pk)


def pages_of(competition: Competition) -> list[Page]:
    """All its own pages, in their order."""
    return _PAGES.ask(competition=competition.pk)


def tracks_of(competition: Competition) -> list[Track]:
    """All its tracks, in their order, which know their competition."""
    tracks = _TRACKS.ask(competition=competition.pk)
    for track in tracks:
        track.competition = competition
    return tracks


def active_suites_of(competition: Competition) -> list[Suite]:
    """The suites that are asked now, in their order."""
    return _ACTIVE_SUITES.ask(competition=competition.pk)
