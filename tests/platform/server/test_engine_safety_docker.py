"""A worker takes no run on an engine that does not hold, proves it once, and proves it again after a change."""

import json
import os
from pathlib import Path
from typing import Any

import docker
import pytest
from own_images import make_own_images
from pytest_django.fixtures import Settings

from tiltyard.worker import engine_safety
from tiltyard.worker.fitness import Unfit, fit_machine
from tiltyard_sandbox.containers import submission_options
from tiltyard_sandbox.selfcheck import Report, run_selfcheck

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(autouse=True)
def with_selfcheck(settings: Settings, docker_client: docker.DockerClient) -> None:
    make_own_images()
    settings.WORKER_SELFCHECK = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """The self-checks that were made: a real one, which counts for the next ones too."""
    reports: list[Report] = []

    def check(*arguments: Any, **named: Any) -> Report:
        reports.append(reports[0] if reports else run_selfcheck(*arguments, **named))
        return reports[-1]

    monkeypatch.setattr(engine_safety, "run_selfcheck", check)
    return reports


def test_a_safe_engine_is_proved_once_and_again_after_a_change(
    settings: Settings, made: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        with fit_machine():
            pass
    assert [report.failed for report in made] == [[]]
    assert len(made[0].checks) > 90
    monkeypatch.setattr(engine_safety, "_boot_id", lambda: "another boot")
    with fit_machine():
        assert len(made) == 2
    both = sorted(Path(settings.WORK_DIR).glob("selfcheck-*.json"))
    assert len(both) == 2, "engines of hosts that share this folder are remembered beside each other"
    kept = both[0]
    fingerprint = json.loads(kept.read_text())["fingerprint"]
    assert engine_safety._is_remembered(fingerprint)
    kept.write_text(json.dumps({"fingerprint": fingerprint, "at": 0}))
    assert not engine_safety._is_remembered(fingerprint)
    kept.write_text("{")
    assert not engine_safety._is_remembered(fingerprint)
    os.utime(kept, (0, 0))
    engine_safety._remember("another")
    assert not kept.exists()
    assert both[1].exists()


def test_a_worker_refuses_an_engine_on_which_one_limit_is_lifted(
    settings: Settings, made: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an engine would that ignores the option: it warns, and makes the container all the same."""

    def without_process_limit(*arguments: Any, **named: Any) -> dict[str, Any]:
        return submission_options(*arguments, **named) | {"pids_limit": 300}

    monkeypatch.setattr("tiltyard_sandbox.selfcheck.submission_options", without_process_limit)
    with (
        pytest.raises(Unfit, match=r"does not hold submissions: fork_bomb \(IT WORKED: "),
        fit_machine(),
    ):
        pass
    assert {check.name for check in made[0].failed} == {"fork_bomb", "thread_bomb"}
    assert not list(Path(settings.WORK_DIR).glob("selfcheck-*"))


def test_a_runtime_that_the_engine_lacks_is_named(settings: Settings) -> None:
    settings.WORKER_RUNTIME = "runsc"
    with pytest.raises(Unfit, match=r"the engine has no runtime runsc, only .*runc"), fit_machine():
        pass
    settings.WORKER_RUNTIME = "--privileged"
    with pytest.raises(Unfit, match="TILTYARD_WORKER_RUNTIME: runtime must be"), fit_machine():
        pass


def test_without_the_check_a_site_in_production_takes_nothing(settings: Settings) -> None:
    settings.WORKER_SELFCHECK = False
    with fit_machine():
        pass
    settings.PRODUCTION = True
    with pytest.raises(Unfit, match="leave it out in production"), fit_machine():
        pass
