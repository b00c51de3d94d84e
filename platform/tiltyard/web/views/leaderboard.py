"""The leaderboard of a track: table, plot and CSV."""

from dataclasses import dataclass

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from tiltyard.competitions.models import Competition, Track
from tiltyard.leaderboards.board import Entry, board_csv
from tiltyard.leaderboards.board import leaderboard as make_board
from tiltyard.web.access import signed_in_user, visible_competition
from tiltyard.web.scatter import Measured, plot
from tiltyard.web.views.competition import frame

# A gap is marked when even the lower end of its interval is above this: ten points lost on unseen questions.
LARGE_GAP = 0.10


@dataclass(frozen=True)
class Row:
    entry: Entry
    is_mine: bool
    is_large_gap: bool


def leaderboard(request: HttpRequest, slug: str) -> HttpResponse:
    competition = visible_competition(request, slug)
    now = timezone.now()
    tracks = list(competition.tracks.all())
    track = _chosen_track(request, tracks)
    board = make_board(competition, track, now=now) if track else None
    user = signed_in_user(request)
    rows = [
        Row(entry, user is not None and entry.submission.owner_id == user.pk, has_large_gap(entry))
        for entry in (board.entries if board else ())
    ]
    context = frame(competition, "leaderboard", now) | {
        "tracks": tracks,
        "track": track,
        "rows": rows,
        "plot": plot(_measured(rows)),
    }
    return render(request, "competition/leaderboard.html", context)


def leaderboard_csv(request: HttpRequest, slug: str) -> HttpResponse:
    competition = visible_competition(request, slug)
    track = _chosen_track(request, list(competition.tracks.all()))
    if track is None:
        raise Http404
    response = HttpResponse(
        board_csv(make_board(competition, track, now=timezone.now())), content_type="text/csv; charset=utf-8"
    )
    response.headers["Content-Disposition"] = f'attachment; filename="{_filename(competition, track)}"'
    return response


def has_large_gap(entry: Entry) -> bool:
    return entry.gap is not None and entry.gap.low > LARGE_GAP


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


def _measured(rows: list[Row]) -> list[Measured]:
    return [
        Measured(
            label=row.entry.name,
            url=row.entry.run.get_absolute_url(),
            open=(row.entry.open.value, row.entry.open.low, row.entry.open.high),
            hidden=(row.entry.hidden.value, row.entry.hidden.low, row.entry.hidden.high),
            is_baseline=row.entry.is_baseline,
            is_large_gap=row.is_large_gap,
        )
        for row in rows
        if row.entry.open and row.entry.hidden
    ]
