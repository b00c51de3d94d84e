"""What `make demo` does, stage by stage; the whole of it runs in `make demo DEMO=once`."""

import contextlib
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from bundles_for_tests import write_bundle
from django.conf import settings
from django.utils import timezone
from uploads_for_tests import DOCKERFILE, MANIFEST

from tiltyard.accounts.models import User
from tiltyard.competitions.bundle import import_bundle
from tiltyard.competitions.models import Competition
from tiltyard.demo import content, place, processes, watch
from tiltyard.leaderboards.board import leaderboard
from tiltyard.leaderboards.keys import ranking_basis
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState

Prepare = Callable[[Path], place.DemoPlace]
PASSWORDS = {"organiser": "a-password-for-tests", "demo": "another-for-tests"}


@pytest.fixture
def competition(db: None, tmp_path: Path) -> Competition:
    return import_bundle(write_bundle(tmp_path / "bundle"), secrets_dir=Path(settings.SECRETS_DIR))


@pytest.fixture
def organiser(db: None) -> User:
    return content.ensure_users(PASSWORDS)


@pytest.fixture(autouse=True)
def baselines_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three small folders in the place of the real ones, which hold models."""
    directory = tmp_path / "baselines"
    for name in content.BASELINES:
        folder = directory / name
        folder.mkdir(parents=True)
        (folder / "Dockerfile").write_text(DOCKERFILE.replace("runtime:cpu", "python:3.11"))
        (folder / "server.py").write_text(f"print({name!r})\n")
        (folder / "tiltyard.yaml").write_text(yaml.safe_dump(MANIFEST | {"name": name}))
    monkeypatch.setattr(content, "BASELINES_DIR", directory)
    return directory


def test_accounts_are_made_once_and_have_the_passwords_that_are_shown(organiser: User) -> None:
    again = content.ensure_users(PASSWORDS)
    assert again == organiser
    assert organiser.is_superuser
    assert organiser.check_password(PASSWORDS["organiser"])
    participant = User.objects.get(username="demo")
    assert not participant.is_staff
    assert participant.check_password(PASSWORDS["demo"])


def test_baselines_are_handed_in_once(organiser: User, competition: Competition) -> None:
    first = content.ensure_baselines(organiser, competition)
    assert [run.submission.name for run in first] == list(content.BASELINES)
    assert all(run.submission.is_baseline for run in first)
    assert content.ensure_baselines(organiser, competition) == first
    assert Run.objects.count() == 3


def test_changed_baseline_is_a_new_submission(organiser: User, competition: Competition, baselines_dir: Path) -> None:
    first = content.ensure_baselines(organiser, competition)
    (baselines_dir / "lora" / "server.py").write_text("print('another')\n")
    second = content.ensure_baselines(organiser, competition)
    assert [new == old for new, old in zip(second, first, strict=True)] == [True, False, True]


def test_scored_baseline_stays_and_a_failed_one_is_queued_again(organiser: User, competition: Competition) -> None:
    base, lora, memoriser = content.ensure_baselines(organiser, competition)
    Run.objects.filter(pk=base.pk).update(
        state=RunState.SCORED, score=0.5, score_low=0.4, score_high=0.6, ranking_basis=ranking_basis(competition)
    )
    Run.objects.filter(pk=lora.pk).update(state=RunState.FAILED)
    Run.objects.filter(pk=memoriser.pk).update(state=RunState.SCORED, ranking_basis="of suites that are gone")

    again = content.ensure_baselines(organiser, competition)
    assert again[0] == base
    assert again[1].state == again[2].state == RunState.QUEUED
    assert {again[1].submission, again[2].submission} == {lora.submission, memoriser.submission}


@pytest.mark.docker
def test_interrupted_run_is_queued_again_however_often(organiser: User, competition: Competition) -> None:
    run = content.ensure_baselines(organiser, competition)[0]
    for _ in range(settings.RUN_ATTEMPTS_MAX + 1):
        assert Run.claim(run.pk, "a worker that is gone", timezone.now()) is not None
        content.settle()
        run.refresh_from_db()
        assert (run.state, run.faults) == (RunState.QUEUED, 0)


def test_following_says_each_event_and_ends_with_the_last_run(organiser: User, competition: Competition) -> None:
    runs = content.ensure_baselines(organiser, competition)
    lines: list[str] = []

    def cancel_one() -> None:
        waiting = Run.objects.claimable().first()
        if waiting is not None:
            waiting.request_cancel(timezone.now())

    finished = watch.follow(runs, lines.append, cancel_one)
    assert [run.pk for run in finished] == [run.pk for run in runs]
    assert all(run.state == RunState.CANCELLED for run in finished)
    assert len(lines) == 6  # queued and cancelled, for each of three
    assert any("lora" in line and "Cancelled before it started." in line for line in lines)


def test_board_is_shown_as_aligned_text(organiser: User, competition: Competition) -> None:
    run = content.ensure_baselines(organiser, competition)[1]
    Run.objects.filter(pk=run.pk).update(
        state=RunState.SCORED, score=0.512, score_low=0.4, score_high=0.6, ranking_basis=ranking_basis(competition)
    )
    board = leaderboard(competition, run.submission.track, now=timezone.now())
    header, rule, row = watch.board_table(board).splitlines()
    assert header.split()[:3] == ["submission", "by", "score"]
    assert set(rule) == {"─", " "}
    assert row.split()[:5] == ["–", "lora", "organiser", "51.2", "[40.0,"]


@pytest.fixture
def prepare() -> Iterator[Prepare]:
    """As place.prepare; the ports are given back after the test."""
    with contextlib.ExitStack() as stack:

        def prepare(data_dir: Path) -> place.DemoPlace:
            here = place.prepare(data_dir)
            stack.enter_context(here.listener)
            return here

        yield prepare


def test_secrets_are_drawn_once_and_only_this_account_reads_them(tmp_path: Path, prepare: Prepare) -> None:
    first = prepare(tmp_path)
    second = prepare(tmp_path)
    assert first.passwords == second.passwords
    assert first.environment["TILTYARD_SECRET_KEY"] == second.environment["TILTYARD_SECRET_KEY"]
    assert len(first.environment["TILTYARD_SECRET_KEY"]) >= 40
    assert stat.S_IMODE((tmp_path / "demo-secrets.json").stat().st_mode) == 0o600
    assert prepare(tmp_path / "another").passwords != first.passwords


def test_process_that_ends_by_itself_is_reported_with_its_log(tmp_path: Path, prepare: Prepare) -> None:
    here = prepare(tmp_path)
    command = [sys.executable, "-c", "raise SystemExit('no database')"]
    with processes.started(here, "web", command) as running:
        running.process.wait(30)
        with pytest.raises(processes.ProcessError, match=r"status 1(.|\n)*no database"):
            running.check()


def test_process_is_ended_with_the_demo(tmp_path: Path, prepare: Prepare) -> None:
    here = prepare(tmp_path)
    with processes.started(here, "worker", [sys.executable, "-c", "import time; time.sleep(600)"]) as running:
        running.check()
    assert running.process.poll() is not None


def test_port_is_held_from_the_start(tmp_path: Path, prepare: Prepare) -> None:
    first, second = prepare(tmp_path / "a"), prepare(tmp_path / "b")
    assert first.address != second.address
