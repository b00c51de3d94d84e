"""Health, metrics, log lines and the status page: right numbers, to whom they are meant for, and no hidden text."""

import json
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from django.conf import settings as settings_of_django
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django.fixtures import Settings
from web_rows import Site, fail, make_run

from tiltyard.competitions.models import Track
from tiltyard.operations import views
from tiltyard.operations.logs import RunFilter, about_run, json_formatter
from tiltyard.operations.metrics import exposition
from tiltyard.operations.queues import Queue, expected_wait_s, queues
from tiltyard.submissions.models import Run, RunEvent
from tiltyard.submissions.models.gpus import Gpu
from tiltyard.submissions.states import EventKind, FailureReason, RunState

TOKEN = "t" * 40
RULES = Path(__file__).resolve().parents[3] / "deploy" / "prometheus" / "tiltyard.rules.yml"


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture(autouse=True)
def _looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "QUEUES_KEPT_S", 0)


def samples(now: datetime) -> dict[tuple[str, ...], float]:
    """Each number of the page, by its name and its labels' values, which stand in the order of the labels' names."""
    families = text_string_to_metric_families(exposition(now).decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


# --- health ---


@pytest.mark.django_db
def test_live_needs_nothing(client: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert client.get("/healthz").json() == {"status": "ok"}
    assert len(queries) == 0


@pytest.mark.django_db
def test_ready_says_which_part_is_missing(client: Client, settings: Settings, tmp_path: Path) -> None:
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"status": "degraded", "database": True, "broker": False, "storage": True}
    settings.UPLOAD_DIR = tmp_path / "unmounted"
    assert client.get("/readyz").json()["storage"] is False


@pytest.mark.django_db
def test_ready(client: Client, broker: redis.Redis) -> None:
    response = client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "ok")


# --- metrics ---


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer "])
def test_metrics_are_for_prometheus_alone(site: Site, settings: Settings, authorization: str) -> None:
    settings.METRICS_TOKEN = TOKEN
    assert Client().get("/metrics", headers={"Authorization": authorization}).status_code == 404
    organiser = Client()
    organiser.force_login(site.staff)
    assert organiser.get("/metrics").status_code == 404


def test_without_a_token_in_the_settings_there_are_none(site: Site, settings: Settings) -> None:
    assert settings.METRICS_TOKEN == ""
    assert Client().get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


def test_prometheus_reads_them(site: Site, settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN
    response = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"tiltyard_runs{" in response.content


def test_runs_are_counted_by_state_and_failures_by_reason(site: Site, now: datetime) -> None:
    for _ in range(2):
        fail(make_run(site, "a", state=RunState.FAILED), FailureReason.CRASHED, "gone")
    make_run(site, "b", state=RunState.EVALUATING)
    make_run(site, "c")
    found = samples(now)
    assert found["tiltyard_runs", "failed"] == 2
    assert found["tiltyard_runs", "queued"] == found["tiltyard_runs", "evaluating"] == 1
    assert found["tiltyard_failed_runs_total", "crashed"] == 2
    assert found["tiltyard_failed_runs_total", "infra_error"] == 0
    assert found["tiltyard_queue_waiting_runs", "cpu"] == found["tiltyard_queue_running_runs", "cpu"] == 1
    assert found["tiltyard_queue_oldest_wait_seconds", "cpu"] == pytest.approx(240, abs=10)


def test_the_rules_for_alarms_ask_for_metrics_and_labels_that_there_are(site: Site, now: datetime) -> None:
    Gpu.objects.create(uuid="GPU-a")
    families = list(text_string_to_metric_families(exposition(now).decode()))
    there = {one.name: set(one.labels) for family in families for one in family.samples}
    values = {value for family in families for one in family.samples for value in one.labels.values()}
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len(rules) >= 6
    for rule in rules:
        asked = re.findall(r"(tiltyard_\w+)(?:{(\w+)!?=\"(\w+)\"})?", rule["expr"])
        assert asked or rule["expr"].startswith("up{"), rule["alert"]
        for metric, label, value in asked:
            assert metric in there, f"{rule['alert']} asks for {metric}"
            assert not label or (label in there[metric] and value in values), f"{rule['alert']}: {label}={value}"
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert all(label in there[metric] for metric, *_ in asked), rule["alert"]


def test_stages_are_timed_from_the_events(site: Site, now: datetime) -> None:
    run = make_run(site, "a")
    for state, seconds in ((RunState.PREPARING, 200), (RunState.BUILDING, 190), (RunState.EVALUATING, 100)):
        RunEvent.objects.create(run=run, attempt=1, at=now - timedelta(seconds=seconds), state=state, message="…")
    found = samples(now)
    name = "tiltyard_stage_seconds"
    assert found[f"{name}_count", "queued"] == found[f"{name}_count", "building"] == 1
    assert found[f"{name}_count", "evaluating"] == 0, "it has not ended"
    assert found[f"{name}_sum", "building"] == pytest.approx(90, abs=1)
    assert found[f"{name}_bucket", "60.0", "building"] == 0
    assert found[f"{name}_bucket", "180.0", "building"] == found[f"{name}_bucket", "+Inf", "building"] == 1


def test_gpus_are_shown_in_their_state(db: None, now: datetime) -> None:
    Gpu.objects.create(uuid="GPU-a")
    Gpu.objects.create(uuid="GPU-b", holder="w", lease_expires_at=now + timedelta(seconds=9))
    Gpu.objects.create(uuid="GPU-c", quarantined_at=now, quarantine_reason="a process stayed")
    found = samples(now)
    states = {key[2]: key[1] for key, value in found.items() if key[0] == "tiltyard_gpu" and value == 1}
    assert states == {"GPU-a": "free", "GPU-b": "held", "GPU-c": "quarantined"}


def test_the_number_of_queries_does_not_grow_with_runs(site: Site, now: datetime) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            exposition(now)
        return len(queries)

    make_run(site, "first", state=RunState.SCORED)
    before = count()
    for number in range(20):
        make_run(site, f"run-{number}", state=RunState.SCORED)
    assert count() == before


def test_nothing_that_participants_or_suites_say_is_in_them(site: Site, now: datetime) -> None:
    run = fail(make_run(site, "a-name-of-mine", state=RunState.FAILED), FailureReason.CRASHED, "a message of mine")
    Run.objects.filter(pk=run.pk).update(current_suite="Hidden suite", server_log="a question")
    page = exposition(now).decode() + Client().get("/status/").content.decode()
    for text in ("a-name-of-mine", "a message of mine", "Hidden suite", "a question", site.owner.username + "@"):
        assert text not in page


# --- the status page ---


@pytest.mark.parametrize(
    ("waiting", "running", "workers", "run_s", "expected"),
    [
        (0, 0, 1, None, 0.0),  # a worker is free
        (0, 1, 1, 60.0, 30.0),  # one run is half done, by expectation
        (4, 2, 2, 60.0, 150.0),
        (1, 1, 1, None, None),  # nobody knows how long a run takes
        (3, 0, 0, 60.0, None),  # no worker was seen
    ],
)
def test_expected_wait(waiting: int, running: int, workers: int, run_s: float | None, expected: float | None) -> None:
    assert expected_wait_s(waiting, running, workers, run_s) == expected


def test_a_worker_counts_while_it_holds_a_run_and_an_hour_after(site: Site, now: datetime) -> None:
    for name, changes in {
        "holds": {"state": RunState.EVALUATING, "lease_expires_at": now + timedelta(seconds=30)},
        "dead": {"state": RunState.EVALUATING, "lease_expires_at": now - timedelta(seconds=30)},
        "rests": {"state": RunState.SCORED, "finished_at": now - timedelta(minutes=20)},
        "gone": {"state": RunState.SCORED, "finished_at": now - timedelta(hours=2)},
    }.items():
        run = make_run(site, name, state=RunState(changes["state"]))  # type: ignore[arg-type]
        Run.objects.filter(pk=run.pk).update(worker=f"host:{name}", **changes)
    (queue,) = queues(now)
    assert (queue.name, queue.workers, queue.running) == ("cpu", 2, 2)


def _the_queue(now: datetime) -> Queue:
    (queue,) = queues(now)
    return queue


def _text(page: Any) -> str:
    return " ".join(re.sub("<[^>]*>", " ", page.content.decode()).split())


def test_where_nothing_waits_a_worker_that_was_not_seen_for_long_may_be_there(site: Site, now: datetime) -> None:
    assert _the_queue(now).last_report_at is None
    assert "cpu: No worker has reported yet. Nothing waits there" in _text(Client().get("/status/"))
    run = make_run(site, "gone", state=RunState.SCORED)
    last = datetime(2026, 3, 14, 13, 5, tzinfo=UTC)
    Run.objects.filter(pk=run.pk).update(worker="host:1", finished_at=last)
    queue = _the_queue(now)
    assert (queue.workers, queue.last_report_at, queue.is_deserted) == (0, last, False)
    said = _text(Client().get("/status/"))
    assert "cpu: No worker has reported since 14 Mar 2026, 13:05 UTC . Nothing waits there" in said


def test_a_worker_that_leaves_runs_waiting_is_gone_however_lately_it_was_seen(
    site: Site, now: datetime, broker: redis.Redis
) -> None:
    ended = make_run(site, "ended", state=RunState.SCORED)
    last = now - timedelta(minutes=20)
    Run.objects.filter(pk=ended.pk).update(worker="host:1", finished_at=last, started_at=last - timedelta(minutes=1))
    assert (_the_queue(now).workers, _the_queue(now).expected_wait_s) == (1, 0.0)
    waiting = make_run(site, "waits", owner=site.stranger)
    queued_at = timedelta(seconds=settings_of_django.QUEUE_DEADLINE_S)
    for minutes, is_deserted in ((1, False), (3, True)):
        Run.objects.filter(pk=waiting.pk).update(deadline_at=now - timedelta(minutes=minutes) + queued_at)
        queue = _the_queue(now)
        assert (queue.is_deserted, queue.workers) == (is_deserted, 0 if is_deserted else 1)
    assert queue.expected_wait_s is None
    assert queue.last_report_at == last
    said = _text(Client().get("/status/"))
    assert "Runs wait, and no worker takes them." in said
    assert f"cpu: 1 run waits. No worker has reported since {last:%-d %b %Y, %H:%M} UTC" in said
    assert "not known" in said
    # Somebody is at work: then a run waits for its turn, and not for a worker.
    busy = make_run(site, "busy", state=RunState.EVALUATING)
    Run.objects.filter(pk=busy.pk).update(worker="host:2", lease_expires_at=now + timedelta(seconds=30))
    queue = _the_queue(now)
    assert (queue.is_deserted, queue.workers) == (False, 2)
    assert "No worker has reported" not in _text(Client().get("/status/"))


def test_runs_that_wait_for_their_owners_other_runs_miss_no_worker(site: Site, now: datetime) -> None:
    make_run(site, "waits")
    assert _the_queue(now).is_deserted
    Track.objects.create(competition=site.competition, slug="gpu", title="GPU", hardware="A GPU", queue="gpu")
    elsewhere = make_run(site, "elsewhere", state=RunState.EVALUATING)
    Run.objects.filter(pk=elsewhere.pk).update(
        queue="gpu", worker="host:2", lease_expires_at=now + timedelta(seconds=30)
    )
    cpu, gpu = queues(now)
    assert (cpu.name, cpu.waiting, cpu.is_deserted) == ("cpu", 1, False)
    assert (gpu.name, gpu.workers) == ("gpu", 1)


def test_what_others_ended_for_a_dead_worker_is_no_word_of_its_own(site: Site, now: datetime) -> None:
    """The reaper queues its run again, without its name, and in the end gives it up, long after it was heard of."""
    begun = now - timedelta(hours=3)
    run = make_run(site, "lost")
    RunEvent.objects.create(run=run, attempt=1, at=begun, kind=EventKind.CLAIMED, state=RunState.PREPARING, message="…")
    RunEvent.objects.create(run=run, attempt=1, at=now, kind=EventKind.REQUEUED, state=RunState.QUEUED, message="…")
    Run.objects.filter(pk=run.pk).update(attempt=1)
    queue = _the_queue(now)
    assert (queue.workers, queue.last_report_at, queue.is_deserted) == (0, begun, True)
    Run.objects.filter(pk=run.pk).update(
        state=RunState.FAILED, failure_reason=FailureReason.INFRA_ERROR, worker="host:1", finished_at=now
    )
    queue = _the_queue(now)
    assert (queue.workers, queue.last_report_at) == (0, begun)


def test_the_status_page_is_for_everybody(site: Site) -> None:
    make_run(site, "waits")
    page = Client().get("/status/")
    assert page.status_code == 200
    text = page.content.decode()
    assert "Broker" in text
    assert "does not answer" in text
    assert '<td data-label="Waiting" class="num">1</td>' in text
    assert "not known" in text


# --- log lines ---


def test_lines_as_json_carry_the_run(caplog: pytest.LogCaptureFixture) -> None:
    def line(message: str, **extra: Any) -> dict[str, Any]:
        record = logging.LogRecord("tiltyard.worker", logging.ERROR, __file__, 1, message, None, None)
        record.__dict__.update(extra)
        RunFilter().filter(record)
        document: dict[str, Any] = json.loads(json_formatter().format(record))
        return document

    with about_run("0b5e", 2):
        during = line('broken "quotes"\nand lines')
    assert during["run_id"] == "0b5e"
    assert (during["attempt"], during["level"], during["logger"]) == (2, "ERROR", "tiltyard.worker")
    assert during["message"] == 'broken "quotes"\nand lines'
    assert "run_id" not in line("afterwards")


def test_the_queues_are_looked_at_once_for_all_who_ask_within_seconds(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "QUEUES_KEPT_S", 60)
    with CaptureQueriesContext(connection) as first:
        said = _text(Client().get("/status/"))
    with CaptureQueriesContext(connection) as second:
        assert _text(Client().get("/status/")) == said
    assert len(second) < len(first)
    assert not any("submissions_run" in query["sql"] for query in second.captured_queries)
