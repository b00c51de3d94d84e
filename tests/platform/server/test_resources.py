"""What a run used: stored with its verdict, shown with two digits, and never made up."""

import json
from datetime import datetime

import pytest
from django.test import Client
from web_rows import Site, make_run

from tiltyard.accounts.models import ApiToken
from tiltyard.evaluation import Usage
from tiltyard.evaluation.metering import counters_of
from tiltyard.submissions.models import ResourceUse, Run
from tiltyard.submissions.states import RunState
from tiltyard.worker.recording import record_failure
from tiltyard.worker.speed import count_tokens
from tiltyard_sandbox.verdicts import Reason, SubmissionFault

USED = Usage(
    wall_s=12.345,
    cpu_s=7.891,
    memory_peak_bytes=123_456_789,
    gpu_utilisation=0.4567,
    gpu_memory_peak_bytes=34_567_890_123,
    energy_j=4321.0,
)


@pytest.fixture
def failed(site: Site, now: datetime) -> Run:
    run = Run.claim(make_run(site, "one").pk, "worker", now)
    assert run is not None
    for state in (RunState.BUILDING, RunState.EVALUATING):
        assert run.transition(state, "On.", now=now)
    assert record_failure(run, SubmissionFault(Reason.CRASHED, "It ended.\nMore."), USED)
    return run


def test_a_failed_runs_use_is_kept(failed: Run) -> None:
    used = ResourceUse.objects.get(run=failed)
    assert (used.wall_s, used.energy_j, used.attempt) == (12.345, 4321.0, 1)
    assert (used.tokens, used.tokens_per_s) == (None, None)
    assert failed.events.latest("pk").message == "It ended."


def test_a_stale_attempt_leaves_nothing(site: Site, now: datetime) -> None:
    stale = Run.claim(make_run(site, "one").pk, "worker", now)
    assert stale is not None
    assert Run.objects.get(pk=stale.pk).transition(RunState.QUEUED, "Taken back.", now=now)
    assert not record_failure(stale, SubmissionFault(Reason.CRASHED, "It ended."), USED)
    assert not ResourceUse.objects.exists()


def test_participants_see_two_digits(failed: Run, site: Site) -> None:
    _, token = ApiToken.issue(site.owner, "laptop")
    answer = Client(headers={"authorization": f"Bearer {token}"}).get(f"/api/v1/runs/{failed.pk}")
    assert json.loads(answer.content)["resources"] == {
        "wall_s": 12.0,
        "cpu_s": 7.9,
        "memory_peak_bytes": 120_000_000.0,
        "gpu_utilisation": 0.46,
        "gpu_memory_peak_bytes": 35_000_000_000.0,
        "energy_j": 4300.0,
        "tokens_per_s": None,
    }


def test_a_run_that_was_never_measured_says_so(site: Site) -> None:
    run = make_run(site, "one")
    _, token = ApiToken.issue(site.owner, "laptop")
    answer = Client(headers={"authorization": f"Bearer {token}"}).get(f"/api/v1/runs/{run.pk}")
    assert json.loads(answer.content)["resources"] is None


def test_a_board_gets_its_column_with_its_runs(failed: Run) -> None:
    (run,) = Run.objects.select_related("resources")
    assert run.resources.energy_j == 4321.0


def test_suites_add_up() -> None:
    both = USED + Usage(10.0, 1.0, 200_000_000, 0.1, 5, 100.0)
    assert (both.wall_s, both.cpu_s, both.memory_peak_bytes, both.energy_j) == (22.345, 8.891, 200_000_000, 4421.0)
    assert both.gpu_memory_peak_bytes == 34_567_890_123
    assert both.gpu_utilisation == pytest.approx((12.345 * 0.4567 + 1.0) / 22.345)


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    both = USED + Usage(10.0, 1.0, None)
    assert (both.memory_peak_bytes, both.energy_j, both.gpu_utilisation) == (None, None, None)


@pytest.mark.parametrize(
    ("stats", "counters"),
    [
        (  # control groups, version 1: the kernel keeps the peak
            {
                "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
                "memory_stats": {"usage": 10, "max_usage": 99, "limit": 1000},
            },
            (2.5, 99),
        ),
        (  # version 2
            {"cpu_stats": {"cpu_usage": {"total_usage": 1_000_000_000}}, "memory_stats": {"usage": 10, "stats": {}}},
            (1.0, 10),
        ),
        ({"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}, (None, None)),  # it runs no more
        ({"cpu_stats": {"cpu_usage": None}, "memory_stats": None}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_what_engines_answer(stats: dict[str, object], counters: tuple[float | None, int | None]) -> None:
    assert counters_of(stats) == counters


def test_tokens_are_counted_alike_for_all() -> None:
    assert count_tokens(["17", "three four, five!", "", "日本 語"]) == 1 + 5 + 0 + 2
