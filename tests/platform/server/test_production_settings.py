"""Settings as they are in production, each in a process of its own, because they are read once."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tiltyard.settings import DEVELOPMENT_SECRET

REPOSITORY = Path(__file__).resolve().parents[3]
PUBLIC = {
    "DJANGO_SETTINGS_MODULE": "tiltyard.settings",
    "TILTYARD_PRODUCTION": "1",
    "TILTYARD_SECRET_KEY": secrets.token_urlsafe(48),
    "TILTYARD_SITE_URL": "https://tiltyard.example.org",
    "TILTYARD_ALLOWED_HOSTS": "tiltyard.example.org",
}

PRINT_SETTINGS = """
import json
import django
django.setup()
from allauth.core.internal.httpkit import get_client_ip
from django.conf import settings
from django.core.cache import caches
from django.test import RequestFactory
request = RequestFactory().get("/", headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}, REMOTE_ADDR="10.0.0.2")
print(json.dumps({"address": get_client_ip(request), "cache": type(caches["default"]).__name__}))
"""


def in_process(data_dir: Path, **environment: str) -> dict[str, str]:
    variables = {"DJANGO_SETTINGS_MODULE": "tiltyard.settings", "TILTYARD_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-c", PRINT_SETTINGS]
    done = subprocess.run(command, env=os.environ | variables | environment, capture_output=True, text=True, check=True)
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def test_behind_the_proxy_failed_logins_are_counted_by_caller_and_in_one_place(tmp_path: Path) -> None:
    found = in_process(tmp_path, TILTYARD_PRODUCTION="1", TILTYARD_SECRET_KEY="x" * 40)
    assert found == {"address": "203.0.113.9", "cache": "ForgivingRedisCache"}


def test_with_no_proxy_a_callers_own_header_is_not_believed(tmp_path: Path) -> None:
    assert in_process(tmp_path, TILTYARD_PRODUCTION="0") == {"address": "10.0.0.2", "cache": "LocMemCache"}


ASK = """
import django
django.setup()
from django.test import Client
client = Client(headers={"Host": "tiltyard.example.org"})
print([client.get(path).status_code for path in ("/healthz", "/status/")])
"""


def test_supervisors_ask_without_tls_and_nobody_else(tmp_path: Path) -> None:
    environment = os.environ | PUBLIC | {"TILTYARD_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[200, 301]"


SIGN_OR_READ = """
import sys
import django
django.setup()
from django.core import signing
print(signing.dumps("signed in") if len(sys.argv) == 1 else signing.loads(sys.argv[1]))
"""


def test_a_new_secret_key_reads_what_the_old_one_signed_while_that_is_named(tmp_path: Path) -> None:
    old, new = secrets.token_urlsafe(48), secrets.token_urlsafe(48)
    place = PUBLIC | {"TILTYARD_DATA_DIR": str(tmp_path)}

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SIGN_OR_READ, *arguments]
        return subprocess.run(
            command, env=os.environ | place | environment, capture_output=True, text=True, check=False
        )

    text = run(TILTYARD_SECRET_KEY=old).stdout.strip()
    rotated = run(text, TILTYARD_SECRET_KEY=new, TILTYARD_SECRET_KEY_FALLBACKS=old)
    assert rotated.stdout.strip() == "signed in", rotated.stderr
    assert "BadSignature" in run(text, TILTYARD_SECRET_KEY=new).stderr


CHECK_DEPLOY = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "DEBUG"]


def test_djangos_own_list_for_deployment_finds_nothing(tmp_path: Path) -> None:
    environment = PUBLIC | {"TILTYARD_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        CHECK_DEPLOY, cwd=REPOSITORY, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no issues (0 silenced)" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TILTYARD_TRUSTED_PROXY_NETWORKS", "proxy.example", "Write networks as"),
        ("TILTYARD_LOG_FORMAT", "xml", "use plain or json"),
    ],
)
def test_a_setting_that_makes_no_sense_stops_the_start(tmp_path: Path, name: str, value: str, says: str) -> None:
    environment = os.environ | {"TILTYARD_DATA_DIR": str(tmp_path), name: value}
    done = subprocess.run(
        [*CHECK_DEPLOY[:3]], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert name in done.stderr
    assert says in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TILTYARD_SECRET_KEY", None),
        ("TILTYARD_SECRET_KEY", ""),
        ("TILTYARD_SECRET_KEY", DEVELOPMENT_SECRET),
        ("TILTYARD_SECRET_KEY", "x" * 39),
        ("TILTYARD_DEBUG", "1"),
    ],
)
def test_production_does_not_start_with_what_is_for_development(tmp_path: Path, name: str, value: str | None) -> None:
    environment = {key: given for key, given in os.environ.items() if key != name} | PUBLIC
    environment |= {"TILTYARD_DATA_DIR": str(tmp_path)}
    environment.pop(name, None)
    if value is not None:
        environment[name] = value
    command = [sys.executable, "-c", "import django; django.setup()"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{name} must be" in done.stderr
