"""The names of boards and of their statistics: two with the same key look the same."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tiltyard.competitions.models import Competition, Suite, Track
from tiltyard.leaderboards.standings import Standing

_VERSION: Final = 1  # raise it when the same rows make another board
_STATISTICS_VERSION: Final = 2  # the same for statistics


def ranking_basis(competition: Competition, suites: Iterable[Suite] | None = None) -> str:
    """Names the active suites and their weights; scores are comparable only under the same basis."""
    active = suites if suites is not None else competition.suites.filter(is_active=True)
    parts = sorted(f"{suite.sha256}:{suite.weight!r}" for suite in active)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def board_key(track: Track, suites: Sequence[Suite], feedback: str) -> str:
    """Names what everybody, or an organiser, is shown of a track's board: its rows, by the track's revision, and what
    its competition's bundle says.

    The track must have been read before the rows are: then an old revision may name newer rows, but never the reverse.
    """
    competition = track.competition
    parts = [
        _VERSION,
        track.pk,
        track.board_revision,
        ranking_basis(competition, suites),
        competition.scoring,
        competition.reference_baselines,
        track.columns,
        track.rank_by,
        feedback,
    ]
    return _digest(parts)


def full_key(track: Track, suites: Sequence[Suite], feedback: str, statistics: str) -> str:
    """Names all that a board is made from, in three words: what may be shown, `board_key`, and the statistics."""
    same = Track(pk=track.pk, competition=track.competition, columns=track.columns, rank_by=track.rank_by)
    return f"{feedback}:{board_key(same, suites, '')} {board_key(track, suites, feedback)} {statistics}"


def shows_the_same(one: str, other: str) -> bool:
    """Whether boards with these full keys show and withhold the same, of other rows perhaps."""
    return one.partition(" ")[0] == other.partition(" ")[0]


def name_in(full_key: str) -> str:
    """The `board_key` in a full key, which names the rows."""
    return full_key.split()[1]


def fingerprint(track: Track, suites: Sequence[Suite], standings: Sequence[Standing]) -> str:
    """Names what the statistics of this board are computed from."""
    competition = track.competition
    parts = [
        _STATISTICS_VERSION,
        ranking_basis(competition, suites),
        competition.scoring,
        competition.reference_baselines,
        [[str(one.run_id), one.name, one.is_baseline] for one in standings],
    ]
    return _digest(parts)


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
