"""How long a kept board is shown after the board has changed."""

from datetime import datetime

import pytest
from web_rows import Site, make_run, score

from tiltyard.accounts.models import User
from tiltyard.leaderboards import kept
from tiltyard.leaderboards.changes import board_changed
from tiltyard.leaderboards.kept import Kept, kept_board
from tiltyard.submissions.states import RunState


def enter(site: Site, name: str, value: float, owner: User | None = None) -> None:
    """As a worker does: with the board's new revision."""
    score(make_run(site, name, owner=owner, state=RunState.SCORED), value, value)
    board_changed([site.track.pk])


def look(site: Site, now: datetime) -> Kept:
    site.track.refresh_from_db()
    return kept_board(site.competition, site.track, now=now)


@pytest.fixture
def long_board(site: Site, now: datetime, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """One that took long to make, and has changed since."""
    monkeypatch.setattr(kept, "LONG_S", -1.0)
    monkeypatch.setattr(kept, "REST", 1e9)
    enter(site, "mine", 0.5)
    found = look(site, now)
    enter(site, "theirs", 0.6, site.stranger)
    return found


def test_a_long_board_is_shown_for_a_while_after_a_change(
    site: Site, now: datetime, long_board: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(site, now) is long_board
    monkeypatch.setattr(kept, "REST", 0.0)
    assert [entry.name for entry in look(site, now).board.entries] == ["theirs", "mine"]


def test_another_bundle_is_another_board_at_once(site: Site, now: datetime, long_board: Kept) -> None:
    site.track.columns = ["wall_s"]
    site.track.save()
    shown = look(site, now)
    assert shown is not long_board
    assert [column.name for column in shown.board.columns] == ["wall_s"]


def test_other_weights_are_another_board_at_once(site: Site, now: datetime, long_board: Kept) -> None:
    site.competition.suites.update(weight=3.0)
    assert look(site, now) is not long_board


def test_what_is_withheld_now_is_so_at_once(site: Site, now: datetime, long_board: Kept) -> None:
    assert any(entry.hidden for entry in long_board.board.entries)
    site.competition.feedback = {"mode": "none"}
    site.competition.save()
    assert not any(entry.hidden for entry in look(site, now).board.entries)


def test_a_short_board_is_always_the_present_one(site: Site, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "LONG_S", 1e9)
    monkeypatch.setattr(kept, "REST", 1e9)
    enter(site, "mine", 0.5)
    assert len(look(site, now).board.entries) == 1
    enter(site, "theirs", 0.6, site.stranger)
    assert len(look(site, now).board.entries) == 2
