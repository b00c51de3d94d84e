"""Settings as they are in production, each in a process of its own, because they are read once."""

import json
import os
import subprocess
import sys
from pathlib import Path

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
    assert found == {"address": "203.0.113.9", "cache": "RedisCache"}


def test_with_no_proxy_a_callers_own_header_is_not_believed(tmp_path: Path) -> None:
    assert in_process(tmp_path, TILTYARD_PRODUCTION="0") == {"address": "10.0.0.2", "cache": "LocMemCache"}
