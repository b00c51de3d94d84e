"""Which board is shown after it has changed, who makes the next one, and what processes share of it."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from queue import SimpleQueue
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries
from web_rows import Site, make_run, score

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Phase
from tiltyard.leaderboards import kept, shared, shelf
from tiltyard.leaderboards.changes import board_changed
from tiltyard.leaderboards.kept import Kept, kept_board
from tiltyard.leaderboards.shelf import Shelf, _Thread
from tiltyard.submissions.models import ResourceUse, Run
from tiltyard.submissions.states import RunState


def enter(site: Site, name: str, value: float, owner: User | None = None) -> Run:
    """As a worker does: with the board's new revision."""
    run = score(make_run(site, name, owner=owner, state=RunState.SCORED), value, value)
    board_changed([site.track.pk])
    return run


def names(found: Kept) -> list[str]:
    return [entry.name for entry in found.board.entries]


class Process:
    """A web process: its own boards, of which it makes the next one when the test says so."""

    def __init__(self, site: Site, now: datetime) -> None:
        self.site, self.now = site, now
        self.orders: list[Callable[[], None]] = []
        self.shelf = Shelf(beside=self.orders.append)

    def look(self, **options: Any) -> Kept:
        """As a request does: with what the database says now."""
        site = self.site
        site.track.refresh_from_db()
        site.competition.refresh_from_db()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kept, "_shelf", self.shelf)
            return kept_board(site.competition, site.track, now=self.now, **options)

    def work(self) -> None:
        while self.orders:
            self.orders.pop(0)()


@pytest.fixture
def process(site: Site, now: datetime) -> Process:
    return Process(site, now)


@pytest.fixture
def other(site: Site, now: datetime) -> Process:
    return Process(site, now)


@pytest.fixture
def long_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every board is long, and made again at once."""
    monkeypatch.setattr(shelf, "LONG_ENTRIES", 1)
    monkeypatch.setattr(shelf, "REST", 0.0)


@pytest.fixture
def long_board(site: Site, long_boards: None, process: Process) -> Kept:
    """One that has changed since."""
    enter(site, "mine", 0.5)
    found = process.look()
    enter(site, "theirs", 0.6, site.stranger)
    return found


def test_of_a_long_board_the_last_one_is_shown_while_the_next_is_made(long_board: Kept, process: Process) -> None:
    assert not long_board.is_behind
    shown = process.look()
    assert (shown.board, shown.is_behind) == (long_board.board, True)
    assert process.look().is_behind
    assert len(process.orders) == 1  # however many ask
    process.work()
    shown = process.look()
    assert (names(shown), shown.is_behind) == (["theirs", "mine"], False)


@pytest.mark.usefixtures("long_board")
def test_it_is_not_shown_for_longer_than_some_seconds(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "STALE_S", 0.0)
    shown = process.look()
    assert (names(shown), shown.is_behind, process.orders) == (["theirs", "mine"], False, [])


@pytest.mark.usefixtures("long_board")
def test_it_rests_after_it_was_made(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "REST", 1e9)
    assert process.look().is_behind
    assert process.orders == []


@pytest.mark.usefixtures("long_board")
def test_when_making_fails_who_asks_later_makes_it(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no memory")

    process.look()
    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "_make", fails)
        process.work()
    assert process.look().is_behind
    process.work()
    assert names(process.look()) == ["theirs", "mine"]


@pytest.mark.usefixtures("long_board")
def test_another_bundle_is_another_board_at_once(site: Site, process: Process) -> None:
    site.track.columns = ["wall_s"]
    site.track.save()
    assert [column.name for column in process.look().board.columns] == ["wall_s"]


def test_other_weights_are_another_board_at_once(site: Site, long_board: Kept, process: Process) -> None:
    site.competition.suites.update(weight=3.0)
    shown = process.look()
    assert shown.board is not long_board.board
    assert not shown.is_behind


def test_what_is_withheld_now_is_so_at_once(site: Site, long_board: Kept, process: Process) -> None:
    assert any(entry.hidden for entry in long_board.board.entries)
    site.competition.feedback = {"mode": "none"}
    site.competition.save()
    for _ in range(2):
        assert not any(entry.hidden for entry in process.look().board.entries)
        process.work()
    assert any(entry.hidden for entry in process.look(is_organiser=True).board.entries)


def test_a_short_board_is_always_the_present_one(site: Site, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "REST", 1e9)
    enter(site, "mine", 0.5)
    assert len(process.look().board.entries) == 1
    enter(site, "theirs", 0.6, site.stranger)
    assert len(process.look().board.entries) == 2


@pytest.mark.usefixtures("long_boards")
def test_another_process_takes_the_rows_and_reads_none(
    site: Site, now: datetime, process: Process, other: Process, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    site.track.columns = ["tokens_per_s", "wall_s"]
    site.track.save()
    run = enter(site, "mine", 0.5)
    ResourceUse.objects.create(run=run, attempt=1, wall_s=10.25, tokens_per_s=12.5)
    first = process.look()
    Run.objects.filter(pk=run.pk).update(score=0.9)  # by hand, past the revision: whoever reads the rows would see it

    # Track, competition, suites, and for the key and the board itself the statistics, of which there are none.
    with django_assert_num_queries(5):
        taken = other.look()

    assert taken.board.entries == first.board.entries
    assert taken.board.entries[0].figures == {"tokens_per_s": 12.0, "wall_s": 10.0}
    assert taken.board.made_at == now


@pytest.mark.usefixtures("long_board")
def test_no_process_shows_an_older_board_than_another_has_shown(
    site: Site, now: datetime, process: Process, other: Process
) -> None:
    assert names(other.look()) == ["theirs", "mine"]
    enter(site, "again", 0.7)
    shown = process.look()
    assert (names(shown), shown.is_behind) == (["theirs", "mine"], False)
    assert process.look().is_behind  # and now goes on as ever


@pytest.mark.usefixtures("long_board")
def test_nor_when_the_rows_are_gone_from_the_cache(
    process: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.look()
    monkeypatch.setattr(shared, "rows_of", lambda _: None)
    assert names(process.look()) == ["theirs", "mine"]


@pytest.mark.usefixtures("long_board")
def test_one_process_makes_it_for_all(site: Site, process: Process) -> None:
    process.look()
    assert shared.begin((site.track.pk, "full"))  # another one has begun
    process.work()
    assert process.look().is_behind
    shared.end((site.track.pk, "full"))
    process.work()
    assert not process.look().is_behind


@pytest.mark.usefixtures("long_board")
def test_a_board_that_was_made_late_does_not_push_out_a_newer_one(
    site: Site, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.look()
    enter(site, "again", 0.7)
    with monkeypatch.context() as patch:
        patch.setattr(shelf, "STALE_S", 0.0)
        assert names(process.look()) == ["again", "theirs"]
    process.work()  # what was ordered before
    shown = process.look()
    assert (names(shown), shown.is_behind) == (["again", "theirs"], False)


@pytest.mark.usefixtures("long_boards")
def test_the_cache_holds_no_score_that_is_withheld_from_anybody(
    site: Site, now: datetime, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    monkeypatch.setattr(shared, "share", lambda *values: given.append(values))
    Phase.objects.filter(competition=site.competition).update(ends_at=now + timedelta(days=9))
    for mode in ("ladder", "none"):
        site.competition.feedback = {"mode": mode, "step": 0.05}
        site.competition.save()
        enter(site, f"mine-{mode}", 0.5)
        process.look()
        process.look(is_organiser=True)
        process.work()
    site.competition.feedback = {"mode": "full"}
    site.competition.is_public = False
    site.competition.save()
    enter(site, "mine", 0.5)
    process.look()
    process.work()
    assert given == []
    site.competition.is_public = True
    site.competition.save()
    enter(site, "theirs", 0.6, site.stranger)
    process.look()
    process.work()
    assert len(given) == 1


class Broken:
    """A cache that keeps nothing, as Redis while it is away, or gives nonsense."""

    def __init__(self, found: object) -> None:
        self.found = found

    def get(self, *_: object) -> object:
        return self.found

    def set(self, *_: object) -> None: ...

    def add(self, *_: object) -> bool:
        return True

    def delete(self, *_: object) -> None: ...


@pytest.mark.usefixtures("long_boards")
@pytest.mark.parametrize("found", [None, b"no board", 7, "text", "[]", "[1, 2]"])
def test_without_a_cache_each_process_makes_its_own(
    site: Site, process: Process, monkeypatch: pytest.MonkeyPatch, found: object
) -> None:
    monkeypatch.setattr(shared, "cache", Broken(found))
    enter(site, "mine", 0.5)
    process.look()
    enter(site, "theirs", 0.6, site.stranger)
    assert process.look().is_behind
    process.work()
    assert names(process.look()) == ["theirs", "mine"]


@pytest.mark.usefixtures("long_boards")
def test_rows_of_another_version_are_not_taken(site: Site, process: Process) -> None:
    enter(site, "mine", 0.5)
    found = process.look()
    rows = shared.rows_of(shared.name_in(found.key))
    assert rows is not None
    assert rows.standings[0].name == "mine"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "_COLUMNS", shared._COLUMNS[:-1])
        shared.share("another", rows)
    assert shared.rows_of("another") is None


def test_pages_do_not_wait_for_it() -> None:
    names: SimpleQueue[str] = SimpleQueue()
    _Thread().run(lambda: names.put(threading.current_thread().name))
    assert names.get(timeout=30).startswith("board")


@pytest.mark.usefixtures("long_boards")
def test_the_page_says_that_newer_scores_are_on_their_way(
    client: Client, site: Site, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_shelf", process.shelf)
    enter(site, "mine", 0.5)
    address = f"/competitions/{site.competition.slug}/leaderboard/"
    assert "Newer scores are being added" not in client.get(address).content.decode()
    enter(site, "theirs", 0.6, site.stranger)
    page = client.get(address).content.decode()
    assert "Newer scores are being added" in page
    assert "theirs" not in page
    process.work()
    page = client.get(address).content.decode()
    assert "Newer scores are being added" not in page
    assert "theirs" in page
