"""A large upload, interrupted ten times, beside an uninterrupted `curl -T` of the same file to nginx on the same disk.

    python benchmarks/upload_resumed.py --gigabytes 10

Four times the client is killed, three times the server, and three times the connection is cut in the middle of a piece.
The clock runs from the first client's start to the server's word that the submission is queued, so hashing, checking,
and all restarts are in it, and the file is on the disk. nginx neither hashes nor checks nor syncs what it gets; how
long it takes until that is on the disk is told beside. Needs nginx with its DAV module, and curl.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY_DIR = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY_DIR / "tests" / "support"))

from upload_server import OWNER_TOKEN, SLUG, UploadServer, running  # noqa: E402
from uploads_for_tests import DOCKERFILE, MANIFEST  # noqa: E402

# A client whose connection breaks in the middle of the pieces that hold the given bytes.
CLIENT = """
import sys
from pathlib import Path
import httpx
from tiltyard.cli.client import ApiClient
cuts = [int(part) for part in sys.argv[4].split(",") if part]
class Http(httpx.Client):
    def patch(self, url, *, headers, content):
        offset, length = int(headers["Upload-Offset"]), int(headers["Content-Length"])
        if not cuts or offset + length < cuts[0]:
            return super().patch(url, headers=headers, content=content)
        cuts.pop(0)
        def broken():
            sent = 0
            for block in content:
                yield block
                sent += len(block)
                if sent > length // 2:
                    print("cut", flush=True)
                    raise httpx.WriteError("cut on purpose")
        return super().patch(url, headers=headers, content=broken())
httpx.Client = Http
with ApiClient(sys.argv[1], sys.argv[2]) as client:
    sent = client.submit("SLUG", Path(sys.argv[3]), "entry.tar", None,
                         on_offset=lambda offset: print(offset, flush=True), say=lambda text: None)
print("done", sent["run_id"], flush=True)
""".replace("SLUG", SLUG)


def make_archive(path: Path, size_bytes: int) -> None:
    """An uncompressed archive with a Dockerfile and random weights of about `size_bytes`."""
    weights = path.with_suffix(".bin")
    with weights.open("wb") as file:
        for _ in range(size_bytes // (64 << 20)):
            file.write(os.urandom(64 << 20))
    small = {"Dockerfile": DOCKERFILE, "tiltyard.yaml": json.dumps(MANIFEST)}
    with tarfile.open(path, "w") as archive:
        for name, text in small.items():
            source = path.with_name(name)
            source.write_text(text)
            archive.add(source, name)
        archive.add(weights, "weights.bin")
    weights.unlink()


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[str]:
    """An nginx that takes PUT into `folder`; its address."""
    folder.mkdir()
    port = 18080
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; user root; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ client_body_temp_path {folder}/body; access_log off; client_max_body_size 0; server {{\n"
        f"listen 127.0.0.1:{port}; root {folder}/files; location / {{ dav_methods PUT; }} }} }}\n"
    )
    (folder / "files").mkdir()
    process = subprocess.Popen([program("nginx"), "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is missing: apt-get install nginx-light curl")
    return found


def settle() -> float:
    """Let nobody inherit another's dirty pages; gives how many cores are busy meanwhile, with others' work."""
    os.sync()
    time.sleep(1)
    before, start = busy_seconds(), time.monotonic()
    time.sleep(4)
    return (busy_seconds() - before) / (time.monotonic() - start)


def busy_seconds() -> float:
    """Of all cores, since the machine started (proc(5), /proc/stat)."""
    user, nice, system, _idle, _wait, irq, softirq, *_ = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")


def report_others(cores: float) -> None:
    print(f"others' work        {cores:7.2f} of {os.cpu_count()} cores", flush=True)


def curl_seconds(archive: Path, scratch: Path) -> tuple[float, float]:
    """Until nginx has answered, and until the disk has the file."""
    report_others(settle())
    with nginx(scratch / "nginx") as address:
        start = time.monotonic()
        subprocess.run([program("curl"), "-sf", "-T", str(archive), f"{address}entry.tar"], check=True)
        answered = time.monotonic() - start
        os.sync()
        synced = time.monotonic() - start
    shutil.rmtree(scratch / "nginx")
    return answered, synced


class Peak(threading.Thread):
    """Watches the server's resident memory."""

    def __init__(self, server: UploadServer) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.before: dict[int, int] = {}
        self.growth_bytes = 0
        self.is_over = False

    def take_baseline(self) -> None:
        """The server has just answered its first request."""
        self.before[self.server.pid] = self.server.rss_bytes()

    def run(self) -> None:
        while not self.is_over:
            with contextlib.suppress(OSError, ValueError, IndexError):  # it is just being killed
                pid, resident = self.server.pid, self.server.rss_bytes()
                self.growth_bytes = max(self.growth_bytes, resident - self.before.get(pid, resident))
            time.sleep(0.05)


@dataclass
class Resumed:
    """How the upload in pieces went."""

    seconds: float = 0.0
    restart_seconds: float = 0.0  # of them, without a server
    growth_bytes: int = 0  # of the server's resident memory, at most
    counts: dict[str, int] = field(default_factory=lambda: {"client": 0, "server": 0, "connection": 0})
    sha256: str = ""  # of what arrived


def resumed(archive: Path, scratch: Path, interruptions: int) -> Resumed:
    report_others(settle())
    size = archive.stat().st_size
    kinds = [
        ("client", "server", "connection", "client", "server", "connection", "client")[i % 7]
        for i in range(interruptions)
    ]
    marks = [size * (i + 1) // (interruptions + 1) for i in range(interruptions)]
    cuts = [mark for mark, kind in zip(marks, kinds, strict=True) if kind == "connection"]
    kills = [(mark, kind) for mark, kind in zip(marks, kinds, strict=True) if kind != "connection"]
    went = Resumed()
    data = scratch / "site"
    data.mkdir()
    environment = os.environ | {"XDG_CACHE_HOME": str(scratch)}
    with running(data) as server:
        peak = Peak(server)
        peak.take_baseline()
        peak.start()
        start = time.monotonic()
        finished = ""
        while not finished:
            arguments = [server.url, OWNER_TOKEN, str(archive), ",".join(map(str, cuts))]
            command = [sys.executable, "-c", CLIENT, *arguments]
            client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            for line in client.stdout or ():
                if line.startswith("done"):
                    finished = line.split()[1]
                elif line.startswith("cut"):
                    cuts.pop(0)
                    went.counts["connection"] += 1
                elif kills and int(line) >= kills[0][0]:
                    kind = kills.pop(0)[1]
                    went.counts[kind] += 1
                    if kind == "client":
                        client.send_signal(signal.SIGKILL)
                    else:
                        killed = time.monotonic()
                        server.kill()
                        server.start()
                        went.restart_seconds += time.monotonic() - killed
                        peak.take_baseline()
            if client.wait() not in {0, -signal.SIGKILL}:
                raise SystemExit("the client failed")
        went.seconds = time.monotonic() - start
        peak.is_over = True
    [artefact] = [path for path in (data / "artefacts").rglob("*") if path.is_file()]
    with artefact.open("rb") as file:
        went.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    shutil.rmtree(data)
    went.growth_bytes = peak.growth_bytes
    return went


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--interruptions", type=int, default=10)
    parser.add_argument("--scratch", type=Path, help="a folder on the disk to measure (default: the system's)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
        scratch = Path(name)
        archive = scratch / "entry.tar"
        make_archive(archive, int(arguments.gigabytes * 1e9))
        size = archive.stat().st_size
        with archive.open("rb") as file:
            expected = hashlib.file_digest(file, "sha256").hexdigest()
        peer, synced = curl_seconds(archive, scratch)
        went = resumed(archive, scratch, arguments.interruptions)
    ours = went.seconds
    print(f"file                {size / 1e9:.2f} GB, checksum {'right' if went.sha256 == expected else 'WRONG'}")
    print(f"curl -T to nginx    {peer:7.1f} s  {size / peer / 1e6:6.0f} MB/s  on the disk after {synced:.1f} s")
    print(f"in pieces           {ours:7.1f} s  {size / ours / 1e6:6.0f} MB/s  interrupted: {went.counts}")
    print(f"without a server    {went.restart_seconds:7.1f} s")
    print(f"speed ratio         {peer / ours:.2f}, until on the disk {synced / ours:.2f}")
    print(f"server memory       grew by {went.growth_bytes / 2**20:.1f} MiB at most")


if __name__ == "__main__":
    main()
