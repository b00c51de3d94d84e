"""The leaderboard of a track: tables, plot and CSV, from a board that is kept (`leaderboards/kept.py`)."""

from urllib.parse import urlencode

from django.core.paginator import Page, Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import conditional_page, require_safe

from tiltyard.competitions.models import Competition, Track
from tiltyard.competitions.reading import phases_of, tracks_of
from tiltyard.leaderboards.board import Entry
from tiltyard.leaderboards.export import board_csv
from tiltyard.leaderboards.feedback import Feedback, feedback_in
from tiltyard.leaderboards.kept import Kept, kept_board
from tiltyard.web.access import is_staff, signed_in_user, visible_competition
from tiltyard.web.board_page import PAGE_ENTRIES, BoardPage, Choice, place_of
from tiltyard.web.views.competition import frame

VIEWS = ("scores", "duels")
_SEARCH_CHARS = 80


@require_safe
@conditional_page
def leaderboard(request: HttpRequest, slug: str) -> HttpResponse:
    """?track=SLUG&view=scores|duels&sort=COLUMN&q=text&page=N."""
    competition = visible_competition(request, slug)
    now = timezone.now()
    phases = phases_of(competition)
    context = frame(competition, "leaderboard", now, phases)
    tracks = tracks_of(competition)
    track = _chosen_track(request, tracks)
    context |= {"tracks": tracks, "track": track, "view": VIEWS[0]}
    if track is None:
        return render(request, "competition/leaderboard.html", context)
    organises = is_staff(request)
    kept = kept_board(competition, track, now=now, is_organiser=organises, phases=phases)
    choice = _choice(request, kept)
    user = signed_in_user(request)
    place = None if user is None else place_of(kept, user.pk)
    page = _page(request, kept, choice)
    shown = BoardPage(kept, choice, page, mine=place)
    context |= {
        "board": kept.board,
        "is_behind": kept.is_behind,
        "view": choice.view,
        "sort": choice.sort,
        "search": choice.search,
        "page": page,
        "shown": shown,
        "filters": urlencode({"track": track.slug, **choice.parameters()}),
        "is_withheld_from_others": organises and feedback_in(competition, phases, now) != Feedback.FULL,
        "is_long": len(kept.board.entries) > PAGE_ENTRIES,
        "my_entry": _elsewhere(kept, shown, place),
        "my_page": None if place is None else place // PAGE_ENTRIES + 1,
    }
    return render(request, "competition/leaderboard.html", context)


@require_safe
@conditional_page
def leaderboard_csv(request: HttpRequest, slug: str) -> HttpResponse:
    competition = visible_competition(request, slug)
    track = _chosen_track(request, tracks_of(competition))
    if track is None:
        raise Http404
    kept = kept_board(competition, track, now=timezone.now(), is_organiser=is_staff(request))
    response = HttpResponse(kept.made("csv", lambda: board_csv(kept.board)), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{_filename(competition, track)}"'
    return response


def _choice(request: HttpRequest, kept: Kept) -> Choice:
    """What the address asks for; Http404 for a view or a column that does not exist."""
    view, sort = request.GET.get("view", VIEWS[0]), request.GET.get("sort", "")
    if view not in VIEWS or (sort and sort not in {column.name for column in kept.board.columns}):
        raise Http404
    if kept.board.statistics is None:
        view = VIEWS[0]
    search = request.GET.get("q", "").replace("\x00", "")[:_SEARCH_CHARS].strip()
    return Choice(view, sort, search)


def _page(request: HttpRequest, kept: Kept, choice: Choice) -> Page[Entry]:
    return Paginator(choice.entries(kept), PAGE_ENTRIES).get_page(request.GET.get("page"))


def _elsewhere(kept: Kept, shown: BoardPage, place: int | None) -> Entry | None:
    """The visitor's own entry, when it is on the board and not on this page."""
    if place is None or shown.has_mine:
        return None
    return kept.board.entries[place]


def _chosen_track(request: HttpRequest, tracks: list[Track]) -> Track | None:
    """The track that ?track= names, else the first; Http404 for a name that does not exist."""
    slug = request.GET.get("track")
    if slug is None:
        return tracks[0] if tracks else None
    for track in tracks:
        if track.slug == slug:
            return track
    raise Http404


def _filename(competition: Competition, track: Track) -> str:
    return f"{competition.slug}-{track.slug}.csv"  # both are slugs: letters, digits, hyphens, underscores
