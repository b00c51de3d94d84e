"""A web server in a process of its own, with a competition and two people: it can be killed and started again.

Run as a program it migrates the database, makes what is missing, and serves on a given port.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

OWNER_TOKEN = "ty_owner-of-the-tests"
STRANGER_TOKEN = "ty_stranger-of-the-tests"
SLUG = "little-questions"
_REPOSITORY_DIR = Path(__file__).resolve().parents[2]


@dataclass
class UploadServer:
    """The server's process and address; `restart` keeps both port and data."""

    data_dir: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if not self.port:
            with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
                self.port = listener.getsockname()[1]
        with (self.data_dir / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(self.port)],
                env=os.environ
                | {
                    "TILTYARD_DATA_DIR": str(self.data_dir),
                    "TILTYARD_DATABASE_URL": f"sqlite:///{self.data_dir}/tiltyard.sqlite3",
                    "TILTYARD_REDIS_URL": "redis://127.0.0.1:1/0",
                    "DJANGO_SETTINGS_MODULE": "tiltyard.settings",
                }
                | self.environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 120  # it may have to migrate, on a busy machine
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.options(f"{self.url}/uploads/", timeout=5)
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError((self.data_dir / "server.log").read_text()[-4000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """As a power cut would: no handler runs."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def rss_bytes(self) -> int:
        """Resident memory of the process now."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def running(data_dir: Path, **environment: str) -> Iterator[UploadServer]:
    server = UploadServer(data_dir, environment)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.terminate()
            server.process.wait(timeout=20)


def _serve(port: int) -> None:
    import django  # noqa: PLC0415

    django.setup()
    from django.conf import settings  # noqa: PLC0415
    from django.core.management import call_command  # noqa: PLC0415
    from django.utils import timezone  # noqa: PLC0415

    if not Path(str(settings.DATABASES["default"]["NAME"])).exists():
        from web_rows import make_site  # noqa: PLC0415

        from tiltyard.accounts.models import ApiToken  # noqa: PLC0415

        call_command("migrate", verbosity=0)
        site = make_site(timezone.now(), slug=SLUG)
        site.competition.phases.update(daily_quota=0, total_quota=0, concurrent_quota=0)
        for user, token in ((site.owner, OWNER_TOKEN), (site.stranger, STRANGER_TOKEN)):
            ApiToken.objects.create(user=user, name="tests", digest=ApiToken.digest_of(token))
    import uvicorn  # noqa: PLC0415

    uvicorn.run("tiltyard.asgi:application", host="127.0.0.1", port=port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    sys.path[:0] = [str(_REPOSITORY_DIR / "tests" / "support")]
    _serve(int(sys.argv[1]))
