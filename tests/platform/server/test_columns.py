"""Columns of what runs used: declared by a bundle, shown and sorted on the board, in CSV and API, and ranked by."""

import csv
import io
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from bundles_for_tests import write_bundle
from django.test import Client
from web_rows import Site, make_run, score

from tiltyard.accounts.models import User
from tiltyard.competitions.bundle import BundleError, import_bundle
from tiltyard.competitions.columns import COLUMNS
from tiltyard.leaderboards.board import leaderboard
from tiltyard.leaderboards.figures import in_words
from tiltyard.leaderboards.kept import kept_board
from tiltyard.leaderboards.refresh import refresh
from tiltyard.submissions.models import ResourceUse, Run
from tiltyard.submissions.states import RunState

SPEED = {"column": "tokens_per_s", "min_score": 0.5}


def ran(site: Site, name: str, owner: User, mean: float, **used: float | None) -> Run:
    run = score(make_run(site, name, owner=owner, state=RunState.SCORED), mean, mean)
    if used:
        ResourceUse.objects.create(run=run, attempt=1, wall_s=60.0, **used)
    return run


def person(name: str) -> User:
    return User.objects.create_user(name, f"{name}@columns.example", "correct horse battery")


@pytest.fixture
def speed(site: Site) -> Site:
    """A speed track: who answers nothing is fastest, and one was not measured."""
    site.track.columns = ["tokens_per_s", "accuracy_per_joule"]
    site.track.rank_by = SPEED
    site.track.save()
    ran(site, "careful", site.owner, 0.9, tokens_per_s=50.0, energy_j=9000.0)
    ran(site, "careful-slower", site.owner, 0.95, tokens_per_s=20.0, energy_j=9000.0)
    ran(site, "quick", site.stranger, 0.6, tokens_per_s=123.4, energy_j=3000.0)
    ran(site, "quick-too", person("third"), 0.7, tokens_per_s=119.9, energy_j=None)
    ran(site, "empty", person("fourth"), 0.1, tokens_per_s=900.0, energy_j=10.0)
    ran(site, "unmeasured", person("fifth"), 0.8)
    return site


def test_the_column_ranks_with_equal_figures_sharing_and_too_low_scores_below(speed: Site, now: datetime) -> None:
    board = leaderboard(speed.competition, speed.track, now=now)
    assert [(entry.name, entry.rank, entry.is_tied) for entry in board.entries] == [
        ("quick-too", 1, True),  # both 120 when rounded; of equals the better score stands before
        ("quick", 1, True),
        ("careful", 3, False),  # and not the slower one, though it scores more
        ("unmeasured", None, False),
        ("empty", None, False),
    ]
    quick = board.entries[1]
    assert quick.figures == {"tokens_per_s": 120.0, "accuracy_per_joule": 0.0002}
    assert board.ranked_by == COLUMNS["tokens_per_s"]


def test_less_is_better_where_the_column_says_so(speed: Site, now: datetime) -> None:
    speed.track.columns, speed.track.rank_by = ["energy_j"], {"column": "energy_j", "min_score": 0.5}
    board = leaderboard(speed.competition, speed.track, now=now)
    assert [(entry.name, entry.rank) for entry in board.entries][:2] == [("quick", 1), ("careful-slower", 2)]


def test_accuracy_by_energy_picks_the_run_and_ranks(speed: Site, now: datetime) -> None:
    speed.track.rank_by = {"column": "accuracy_per_joule", "min_score": 0.5}
    board = leaderboard(speed.competition, speed.track, now=now)
    assert [(entry.name, entry.rank) for entry in board.entries][:2] == [("quick", 1), ("careful-slower", 2)]


def test_columns_without_rank_by_leave_the_ranking_alone(speed: Site, now: datetime) -> None:
    speed.track.rank_by = None
    board = leaderboard(speed.competition, speed.track, now=now)
    assert [entry.name for entry in board.entries][:2] == ["careful-slower", "unmeasured"]
    assert board.entries[1].figures == {"tokens_per_s": None, "accuracy_per_joule": None}


def test_while_scores_are_withheld_no_column_tells_of_the_hidden_one(speed: Site, now: datetime) -> None:
    speed.competition.feedback = {"mode": "none"}
    speed.competition.save()
    Run.objects.filter(submission__name="quick").update(open_score=0.3, hidden_score=0.9)
    board = leaderboard(speed.competition, speed.track, now=now)
    quick = next(entry for entry in board.entries if entry.name == "quick")
    assert (quick.rank, quick.figures["accuracy_per_joule"]) == (None, 0.0001)


def test_page_csv_and_api_show_them(speed: Site, now: datetime) -> None:
    refresh(speed.track, now)
    address = speed.competition.get_absolute_url() + "leaderboard"
    page = Client().get(address + "/").content.decode()
    assert "ranked by <strong>tokens per second</strong>" in page
    assert "120 tokens/s" in page
    assert "20 points/kJ" in page
    assert "not measured" in page
    assert "Group 1" not in page
    rows = list(csv.DictReader(io.StringIO(Client().get(address + ".csv").content.decode())))
    assert [(row["name"], row["rank"], row["tokens_per_s"]) for row in rows][1] == ("quick", "1", "120")
    answer = Client().get("/api/v1/competitions/little-questions/leaderboard?limit=2&offset=1").json()
    assert (answer["ranked_by"], answer["entries_total"]) == ("tokens_per_s", 5)
    assert [entry["name"] for entry in answer["entries"]] == ["quick", "careful"]
    assert answer["entries"][0]["figures"] == {"tokens_per_s": 120.0, "accuracy_per_joule": 0.0002}


def test_a_visitor_sorts_by_a_column(speed: Site) -> None:
    address = speed.competition.get_absolute_url() + "leaderboard/"
    page = Client().get(address + "?sort=accuracy_per_joule").content.decode()
    names = ["empty", "quick", "careful", "quick-too", "unmeasured"]
    places = [page.index(f">{name}</a>") for name in names]
    assert places == sorted(places)
    assert 'aria-sort="descending"' in page
    for unknown in ("energy_j", "score", "__class__"):  # not of this track, or no column at all
        assert Client().get(address + f"?sort={unknown}").status_code == 404


def test_a_runs_page_says_what_was_and_what_was_not_measured(speed: Site) -> None:
    run = Run.objects.get(submission__name="quick")
    page = Client().get(run.get_absolute_url()).content.decode()
    assert "What it used" in page
    assert "120 tokens/s" in page
    assert "3 kJ" in page
    assert page.count("not measured") == 4  # cpu, memory, GPU memory and utilisation
    assert (
        "What it used"
        not in Client().get(Run.objects.get(submission__name="unmeasured").get_absolute_url()).content.decode()
    )


def test_a_kept_board_follows_its_track(speed: Site, now: datetime) -> None:
    first = kept_board(speed.competition, speed.track, now=now)
    assert kept_board(speed.competition, speed.track, now=now) is first
    speed.track.rank_by = None
    assert kept_board(speed.competition, speed.track, now=now).board.ranked_by is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("tokens_per_s", 4600.0, "4,600 tokens/s"),
        ("memory_peak_bytes", 1.2e8, "110 MiB"),
        ("memory_peak_bytes", 4.0e9, "3.7 GiB"),
        ("gpu_utilisation", 0.46, "46 %"),
        ("energy_j", 120.0, "120 J"),
        ("accuracy_per_cpu_s", 0.0046, "28 points/min"),
        ("cpu_s", None, "not measured"),
    ],
)
def test_in_words(name: str, value: float | None, text: str) -> None:
    assert in_words(COLUMNS[name], value) == text


@pytest.mark.parametrize(
    ("track", "says"),
    [
        ({"columns": ["speed"]}, "'speed' is no column; there are tokens_per_s"),
        ({"columns": ["wall_s", "wall_s"]}, "stands there twice"),
        ({"columns": ["energy_j"]}, "energy_j is measured on GPUs only"),
        ({"rank_by": SPEED}, "'tokens_per_s' is not among columns"),
        ({"columns": ["tokens_per_s"], "rank_by": {"column": "tokens_per_s"}}, "min_score"),
        (
            {"columns": ["gpu_utilisation"], "gpu": True, "rank_by": {"column": "gpu_utilisation", "min_score": 0}},
            "nothing is ranked by gpu_utilisation",
        ),
    ],
)
def test_what_a_bundle_may_not_declare(db: None, tmp_path: Path, track: dict[str, object], says: str) -> None:
    with pytest.raises(BundleError, match=says):
        import_bundle(bundle_with(tmp_path, track), secrets_dir=tmp_path / "secrets")


def test_an_import_keeps_the_boards_revision(db: None, tmp_path: Path) -> None:
    directory = bundle_with(tmp_path, {"columns": ["tokens_per_s"], "rank_by": SPEED})
    track = import_bundle(directory, secrets_dir=tmp_path / "secrets").tracks.get()
    assert (track.columns, track.rank_by) == (["tokens_per_s"], SPEED)
    track.board_revision = 7
    track.save()
    document = yaml.safe_load((directory / "competition.yaml").read_text())
    document["tracks"][0]["title"] = "Another title"
    (directory / "competition.yaml").write_text(yaml.safe_dump(document))
    track = import_bundle(directory, secrets_dir=tmp_path / "secrets").tracks.get()
    assert (track.title, track.board_revision) == ("Another title", 7)


def bundle_with(tmp_path: Path, track: dict[str, object]) -> Path:
    directory = write_bundle(tmp_path / "bundle")
    document = yaml.safe_load((directory / "competition.yaml").read_text())
    document["tracks"][0] |= track
    (directory / "competition.yaml").write_text(yaml.safe_dump(document))
    return directory


def test_a_kept_board_shows_a_new_name(speed: Site, now: datetime) -> None:
    person = speed.owner
    speed.track.refresh_from_db()
    name, revision = person.username, speed.track.board_revision
    person.save(update_fields=["last_login"])
    speed.track.refresh_from_db()
    assert speed.track.board_revision == revision
    assert name in {entry.owner_name for entry in kept_board(speed.competition, speed.track, now=now).board.entries}
    person.username = "countess"
    person.save()
    speed.track.refresh_from_db()
    found = {entry.owner_name for entry in kept_board(speed.competition, speed.track, now=now).board.entries}
    assert "countess" in found
    assert name not in found
