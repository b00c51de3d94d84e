"""What the competition rests on: an evaluation on a participant's machine is the server's, item by item.

One folder goes both ways, each through the program that a person would use: `tiltyard submit` and a worker's run here,
`tiltyard evaluate` there. Both build the image anew.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_server
import yaml
from bundles_for_tests import write_bundle
from uploads_for_tests import MANIFEST

from tiltyard.accounts.models import ApiToken, User
from tiltyard.celery import app
from tiltyard.cli.config import Config
from tiltyard.competitions.bundle import import_bundle
from tiltyard.submissions.models import Run, Sample
from tiltyard.submissions.states import RunState
from tiltyard.worker.tasks import execute_run

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),  # static files are not collected for tests
]

DOCKERFILE = """\
ARG BASE=tiltyard/python:3.11
FROM ${BASE}
COPY server.py /app/
RUN python3 -m compileall -q /app
CMD ["python3", "/app/server.py"]
"""
FIELDS = ("prompt", "answer", "expected", "score", "failure")

Item = tuple[object, ...]


@pytest.fixture(autouse=True)
def _own_folders(settings: Any, tmp_path: Path) -> None:
    for name in ("ARTEFACT_DIR", "UPLOAD_DIR", "SUITE_DIR", "WORK_DIR", "SECRETS_DIR", "SIGNING_DIR"):
        (tmp_path / name).mkdir()
        setattr(settings, name, tmp_path / name)
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "UPLOAD_DIR")
    settings.INSTANCE = f"test-{tmp_path.name}"
    settings.REDIS_URL = "redis://127.0.0.1:1/0"  # nobody listens: the test itself carries the run out
    app.conf.update(broker_url=settings.REDIS_URL, broker_read_url=None, broker_write_url=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A submission that is right about additions and mostly wrong about the rest."""
    directory = tmp_path / "entry"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "server.py").write_text(Path(tiny_server.__file__).read_text())
    (directory / "tiltyard.yaml").write_text(yaml.safe_dump(MANIFEST))
    return directory


def items_on_server(run: Run) -> dict[tuple[str, int], Item]:
    samples = Sample.objects.filter(task_result__suite_result__run=run).select_related("task_result")
    return {(one.task_result.name, one.index): tuple(getattr(one, field) for field in FIELDS) for one in samples}


def items_here(samples: Path) -> dict[tuple[str, int], Item]:
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    for row in rows:
        row["failure"] = row["failure"] or ""
    return {(row["task"], row["index"]): tuple(row[field] for field in FIELDS) for row in rows}


def test_a_local_evaluation_is_the_servers(
    live_server: Any, tiltyard_process: Callable, folder: Path, tmp_path: Path
) -> None:
    import_bundle(write_bundle(tmp_path / "bundle"), secrets_dir=tmp_path / "SECRETS_DIR")
    owner = User.objects.create_user("ada", "ada@example.org", "a good password")
    Config(live_server.url, {live_server.url: ApiToken.issue(owner, "laptop")[1]}).save()

    submitted = tiltyard_process("submit", folder, "--competition", "small", "--json")
    assert submitted.exit_code == 0, submitted.stderr
    execute_run(str(Run.objects.get().pk))
    run = Run.objects.get()
    assert run.state == RunState.SCORED, run.failure_message

    here = tiltyard_process("evaluate", folder, "--competition", "small", "--out", tmp_path / "out", "--json")
    assert here.exit_code == 0, here.stderr
    (suite,) = here.document["suites"]
    served = run.suite_results.get(suite__visibility="open")

    on_server = items_on_server(run)
    assert items_here(tmp_path / "out" / "small-open" / "samples.jsonl") == on_server
    assert {item[3] for item in on_server.values()} == {0.0, 1.0}, "the comparison must be of more than all or nothing"
    assert here.document["image_digest"] == run.image_digest
    assert suite["repro_hash"] == served.repro_hash
    assert suite["score"]["value"] == served.score
