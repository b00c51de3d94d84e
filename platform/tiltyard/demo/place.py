"""Where the demo lives: its directory, its address, its secrets. Needs no Django, whose settings follow from it."""

import errno
import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

REPOSITORY_DIR = Path(__file__).resolve().parents[3]
_PORTS = range(8000, 8100)
USERS = ("organiser", "demo")


@dataclass(frozen=True)
class DemoPlace:
    """What every process of the demo agrees on."""

    data_dir: Path
    listener: socket.socket  # held from the start, so that nobody takes the port while images are made
    passwords: dict[str, str]
    environment: dict[str, str]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "log"


def prepare(data_dir: Path) -> DemoPlace:
    """Choose a port, and draw the secrets the first time; they stay in the data directory, for this account only."""
    data_dir = data_dir.resolve()
    (data_dir / "log").mkdir(parents=True, exist_ok=True)
    kept = _kept_secrets(data_dir / "demo-secrets.json")
    listener = _listener()
    environment = {
        "DJANGO_SETTINGS_MODULE": "tiltyard.settings",
        "PYTHONUNBUFFERED": "1",
        "TILTYARD_DATA_DIR": str(data_dir),
        "TILTYARD_SECRET_KEY": kept["secret_key"],
        "TILTYARD_SITE_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
    }
    return DemoPlace(data_dir, listener, {name: kept[name] for name in USERS}, environment)


def _kept_secrets(path: Path) -> dict[str, str]:
    if not path.exists():
        drawn = {"secret_key": secrets.token_urlsafe(48)} | {name: secrets.token_urlsafe(12) for name in USERS}
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(drawn, file, indent=1)
    return dict(json.loads(path.read_text()))


def _listener() -> socket.socket:
    """Listen on the first port from 8000 on that is free on the loopback interface."""
    for port in _PORTS:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise SystemExit(f"None of the ports {_PORTS.start} to {_PORTS.stop - 1} is free.")
