"""Backup and restore, by the commands, from and to either database."""

import gzip
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from bundles_for_tests import write_bundle
from psycopg import sql
from s3_server import BUCKET, S3Server, s3_server

REPOSITORY = Path(__file__).resolve().parents[3]
FILL = """
from django.utils import timezone
from pathlib import Path
import sys
from tiltyard.accounts.models import ApiToken, User
from tiltyard.competitions.bundle import import_bundle
from tiltyard.competitions.models import Competition
from tiltyard.submissions.intake import accept_upload
from django.contrib.auth.models import Group, Permission
from django.conf import settings
from tiltyard.submissions.manifests import public_key
competition = import_bundle(Path(sys.argv[1]), secrets_dir=Path(settings.SECRETS_DIR))
owner = User.objects.create_user("ada", "ada@example.org", "correct horse battery")
group = Group.objects.create(name="helpers")
group.permissions.add(Permission.objects.get(codename="view_run"))
owner.groups.add(group)
ApiToken.issue(owner, "laptop")
public_key()
for number in (1, 2):
    accept_upload(owner=owner, competition=competition, track=competition.tracks.get(), path=Path(sys.argv[number + 1]),
                  filename="é.tar.gz", now=timezone.now())
"""


@dataclass(frozen=True)
class Place:
    """A site of its own: a database and a data folder."""

    database: str
    data: Path
    store: dict[str, str] = field(default_factory=dict)  # settings of another store of artefacts than the disk

    def manage(self, *arguments: str | Path, fails: bool = False) -> str:
        environment = os.environ | {
            "TILTYARD_DATABASE_URL": self.database,
            "TILTYARD_DATA_DIR": str(self.data),
            "TILTYARD_REDIS_URL": "redis://127.0.0.1:1/0",
            **self.store,
        }
        command = [sys.executable, "manage.py", *map(str, arguments)]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    def run(self, code: str, *arguments: str | Path) -> str:
        script = self.data.with_name(f"{uuid.uuid4().hex}.py")
        script.write_text(f"import sys; sys.argv = {['', *map(str, arguments)]!r}\n{code}")
        return self.manage("shell", "-v", "0", "-c", f"exec(open({str(script)!r}).read(), {{'__name__': 'x'}})")


@pytest.fixture
def sqlite(tmp_path: Path) -> Place:
    return Place(f"sqlite:///{tmp_path}/{uuid.uuid4().hex}.sqlite3", tmp_path / "data")


@pytest.fixture
def other_sqlite(tmp_path: Path) -> Place:
    return Place(f"sqlite:///{tmp_path}/other.sqlite3", tmp_path / "other")


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Place]:
    url = os.environ.get("TILTYARD_TEST_POSTGRES_URL", "")
    if not url:
        pytest.skip("no PostgreSQL: make test starts one")
    name = f"backup_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield Place(re.sub(r"/[^/]*$", f"/{name}", url), tmp_path / "data-on-postgres")
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "objects") as server:
        yield server


def fill(place: Place, folder: Path) -> None:
    from uploads_for_tests import context_archive  # noqa: PLC0415

    place.manage("migrate", "-v", "0")
    archives = [context_archive(folder / f"{n}.tar.gz", files={"server.py": f"print({n})\n"}) for n in (1, 2)]
    place.run(FILL, write_bundle(folder / "bundle"), *archives)


def contents(backup: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows, and the hashes of the files by their places; without what a restore adds itself."""
    lines = gzip.decompress((backup / "database.jsonl.gz").read_bytes()).decode().splitlines()
    files = {entry["path"]: entry["sha256"] for entry in json.loads((backup / "manifest.json").read_text())["files"]}
    del files["database.jsonl.gz"]
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["model"] != "operations.auditentry"], files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "target"), [("sqlite", "other_sqlite"), ("sqlite", "postgres"), ("postgres", "other_sqlite")]
)
def test_a_site_comes_back_as_it_was(request: pytest.FixtureRequest, tmp_path: Path, source: str, target: str) -> None:
    before, after = (request.getfixturevalue(name) for name in (source, target))
    fill(before, tmp_path)
    before.manage("backup", tmp_path / "backup")
    rows, files = contents(tmp_path / "backup")
    assert any(row["fields"].get("created_at", "")[-10:-6].isdigit() for row in rows), "microseconds are kept"
    assert sum(path.startswith("files/artefacts/") for path in files) == 2
    assert {path.split("/")[1] for path in files} == {"artefacts", "suites", "secrets", "signing"}
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700

    after.manage("restore", tmp_path / "backup")
    after.manage("backup", tmp_path / "again")
    assert contents(tmp_path / "again") == (rows, files)

    # It is a site that works: passwords, groups and suites hold, and new rows get new keys.
    seen = after.run(
        "from tiltyard.accounts.models import User\n"
        "from tiltyard.competitions.models import Suite\n"
        "from tiltyard.submissions.models import Run\n"
        "from tiltyard_eval.suite import verify_suite\n"
        "ada = User.objects.get()\n"
        "assert ada.check_password('correct horse battery') and ada.has_perm('submissions.view_run')\n"
        "for suite in Suite.objects.all(): assert verify_suite(suite.directory).sha256.endswith(suite.sha256)\n"
        "User.objects.create_user('bob', 'bob@example.org', 'x')\n"
        "print(Run.objects.filter(state='queued').count())\n"
    )
    assert seen.split()[-1] == "2"


@pytest.mark.slow
@pytest.mark.parametrize(("source", "target"), [("postgres", "other_sqlite"), ("sqlite", "postgres")])
def test_artefacts_in_s3_come_back_as_they_were(
    request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server, source: str, target: str
) -> None:
    def objects(prefix: str) -> dict[str, bytes]:
        root = s3.directory / BUCKET / prefix / "artefacts"
        return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != "owner"}

    names = [f"{which}-of-{source}" for which in ("first", "second")]
    before, after = (
        replace(request.getfixturevalue(place), store=s3.environment(name))
        for place, name in zip((source, target), names, strict=True)
    )
    fill(before, tmp_path)
    before.run("from tiltyard.worker.tasks import collect_artefacts; collect_artefacts()")  # the store is its own now
    kept = objects(names[0])
    assert len(kept) == 2
    before.manage("backup", tmp_path / "backup")
    rows, files = contents(tmp_path / "backup")
    assert {path.rsplit("/", 1)[1] for path in files if path.startswith("files/artefacts/")} == set(kept)

    # Not into the first site's store, of which nothing is touched.
    shared = replace(after, store=before.store)
    assert "belongs to another site" in shared.manage("restore", tmp_path / "backup", fails=True)
    after.manage("restore", tmp_path / "backup")
    assert objects(names[0]) == objects(names[1]) == kept
    after.manage("backup", tmp_path / "again")
    assert contents(tmp_path / "again") == (rows, files)
    # What the database names, its store has; and nobody keeps copies on the disk.
    seen = after.run(
        "from tiltyard.submissions.models import Submission\n"
        "from tiltyard.submissions.stores import store\n"
        "from tiltyard.worker.tasks import collect_artefacts\n"
        "assert collect_artefacts() == 0\n"
        "for one in Submission.objects.all():\n"
        "    with store().fetched(one.artefact.sha256) as path: print(path.stat().st_size == one.artefact.size_bytes)\n"
    )
    assert seen.split() == ["True", "True"]
    for place in (before, after):
        assert [path for path in place.data.rglob("*") if path.is_file() and path.name in kept] == []
        assert list((place.data / "work").glob("artefact-*")) == []


def test_a_backup_of_a_store_that_is_away_or_was_changed_is_none(sqlite: Place, tmp_path: Path, s3: S3Server) -> None:
    site = replace(sqlite, store=s3.environment("lost"))
    fill(site, tmp_path)
    away = replace(site, store=site.store | {"TILTYARD_S3_ENDPOINT_URL": "http://127.0.0.1:1"})
    told = away.manage("backup", tmp_path / "away", fails=True)
    assert "Could not connect" in told
    assert "Try again later." in told
    changed = next(path for path in s3.objects() if "lost" in path.parts)
    changed.write_bytes(changed.read_bytes()[:-1] + b"!")
    assert "changed or damaged" in site.manage("backup", tmp_path / "changed", fails=True)
    assert not list(tmp_path.glob("*/manifest.json"))
    changed.unlink()
    assert "has lost it" in site.manage("backup", tmp_path / "gone", fails=True)


def test_a_restore_that_the_store_ends_is_taken_up_again(other_sqlite: Place, backup: Path, s3: S3Server) -> None:
    site = replace(other_sqlite, store=s3.environment("taken-up"))
    away = replace(site, store=site.store | {"TILTYARD_S3_ENDPOINT_URL": "http://127.0.0.1:1"})
    assert "cannot be reached" in away.manage("restore", backup, fails=True)
    site.manage("restore", backup)
    kept = {entry.name for entry in (backup / "files" / "artefacts").rglob("*") if entry.is_file()}
    assert {path.name for path in s3.objects() if "taken-up" in path.parts} == {*kept, "owner"}


def test_files_that_no_submission_refers_to_are_left_out(sqlite: Place, tmp_path: Path) -> None:
    fill(sqlite, tmp_path)
    # What stands between a file's row and its file: an upload under way, or one that lost the race for the last place.
    announce = (
        "from tiltyard.submissions.models import Artefact\nArtefact.objects.create(sha256='f' * 64, size_bytes=1)"
    )
    sqlite.run(announce)
    sqlite.manage("backup", tmp_path / "backup")
    rows, files = contents(tmp_path / "backup")
    named = {row["fields"]["sha256"] for row in rows if row["model"] == "submissions.artefact"}
    assert len(named) == 2
    assert {path.rsplit("/", 1)[1] for path in files if path.startswith("files/artefacts/")} == named

    # A submission that is deleted with its file once the rows are written, and one whose file alone is gone.
    first, second = sorted(named)
    removal = (
        "from pathlib import Path\n"
        "from tiltyard.operations.backups import back_up\n"
        "from tiltyard.submissions.models import Artefact, Submission\n"
        f"artefact = Artefact.objects.get(sha256={first!r})\n"
        "def say(text):\n"
        "    print(text)\n"
        "    if 'rows of' in text:\n"
        "        Submission.objects.filter(artefact=artefact).delete()\n"
        "        artefact.delete()\n"
        "        artefact.path.unlink()\n"
        "back_up(Path(sys.argv[1]), say)\n"
    )
    assert f"The artefact {first} was removed meanwhile" in sqlite.run(removal, tmp_path / "again")
    (sqlite.data / "artefacts" / second[:2] / second).unlink()
    assert "the site has lost it" in sqlite.manage("backup", tmp_path / "lost", fails=True)


@pytest.fixture
def backup(sqlite: Place, tmp_path: Path) -> Path:
    fill(sqlite, tmp_path)
    sqlite.manage("backup", tmp_path / "backup")
    return tmp_path / "backup"


def test_a_spare_does_not_share_the_store_unless_it_takes_it_over(other_sqlite: Place, backup: Path) -> None:
    store = other_sqlite.data / "artefacts"
    store.mkdir(parents=True)
    (store / "owner").write_text("the first site\n")
    told = other_sqlite.manage("restore", backup, fails=True)
    assert "belongs to another site" in told
    assert "restore --take-over-store" in told
    assert [path.name for path in store.iterdir()] == ["owner"]
    other_sqlite.manage("restore", "--take-over-store", backup)
    assert "the first site" not in (store / "owner").read_text()


def test_a_damaged_or_unfinished_backup_restores_nothing(other_sqlite: Place, backup: Path) -> None:
    artefact = next(path for path in backup.rglob("artefacts/*/*") if path.is_file())
    content = artefact.read_bytes()
    artefact.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "it was damaged" in other_sqlite.manage("restore", backup, fails=True)
    artefact.unlink()
    assert "is missing" in other_sqlite.manage("restore", backup, fails=True)
    artefact.write_bytes(content)
    manifest = (backup / "manifest.json").read_text()
    outside = json.loads(manifest)
    outside["files"].append({"path": "../../etc/passwd", "bytes": 0, "sha256": ""})
    (backup / "manifest.json").write_text(json.dumps(outside))
    assert "outside the backup" in other_sqlite.manage("restore", backup, fails=True)
    (backup / "manifest.json").unlink()
    assert "was not finished" in other_sqlite.manage("restore", backup, fails=True)
    assert not list((other_sqlite.data / "artefacts").glob("*/*"))
    (backup / "manifest.json").write_text(manifest)
    other_sqlite.manage("restore", backup)


def test_what_a_restore_could_overwrite_stops_it(sqlite: Place, other_sqlite: Place, backup: Path) -> None:
    assert "not empty" in sqlite.manage("restore", backup, fails=True)
    assert "not an empty folder" in sqlite.manage("backup", backup, fails=True)
    manifest = json.loads((backup / "manifest.json").read_text())
    manifest["migrations"] = manifest["migrations"][:-1]
    (backup / "manifest.json").write_text(json.dumps(manifest))
    assert "with other tables" in other_sqlite.manage("restore", backup, fails=True)


def test_a_site_that_lost_an_artefact_says_so(sqlite: Place, backup: Path, tmp_path: Path) -> None:
    artefact = next(path for path in (sqlite.data / "artefacts").glob("*/*"))
    content = artefact.read_bytes()
    artefact.chmod(0o600)
    artefact.write_bytes(content + b"!")
    assert "the disk has changed it" in sqlite.manage("backup", tmp_path / "second", fails=True)
    artefact.unlink()
    assert "the site has lost it" in sqlite.manage("backup", tmp_path / "third", fails=True)
    assert not (tmp_path / "third" / "manifest.json").exists()
