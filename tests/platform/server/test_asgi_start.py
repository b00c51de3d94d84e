"""The web server loads before it is ready what others of our processes never load."""

import os
import subprocess
import sys
from pathlib import Path


def _modules_loaded(code: str, data_dir: Path) -> list[str]:
    """The modules that the lines after `# then` load, in a process of its own."""
    code = code.replace("# then", "before = set(sys.modules)") + "\nprint(*sorted(set(sys.modules) - before))"
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tiltyard.settings",
        "TILTYARD_DATA_DIR": str(data_dir),
        "TILTYARD_DATABASE_URL": f"sqlite:///{data_dir}/none.sqlite3",
    }
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_first_request_loads_nothing_of_ours(tmp_path: Path) -> None:
    code = """
import tiltyard.asgi
# then
from django.test import Client
assert Client().get("/healthz").status_code == 200
import tiltyard.urls, tiltyard.api.api, tiltyard.worker.publishing
"""
    loaded = _modules_loaded(code, tmp_path)
    assert [name for name in loaded if name.startswith(("tiltyard", "ninja", "scipy", "celery"))] == []


def test_other_processes_do_without_the_pages(tmp_path: Path) -> None:
    loaded = _modules_loaded("# then\nimport django\ndjango.setup()", tmp_path)
    assert "tiltyard.uploads.models" in loaded
    assert not {"tiltyard.urls", "tiltyard.api.api", "scipy"} & set(loaded)


def test_the_web_server_does_without_what_computes_statistics(tmp_path: Path) -> None:
    loaded = _modules_loaded("# then\nimport tiltyard.asgi", tmp_path)
    assert "tiltyard.leaderboards.board" in loaded
    assert not {"scipy", "tiltyard.leaderboards.statistics"} & set(loaded), "a second and 60 MiB of each process"
