"""Participants who hand in tiny archives as quickly as a site takes them, and readers who look at its pages.

    python uploader.py http://127.0.0.1:8000 TOKENS_FILE FIRST COUNT_MAX SECONDS THREADS PAGES_PER_S

The archives are numbered from FIRST on. Prints one JSON object: how many uploads had which answer (0: broken), how long
each took, and each page's times.
"""

import gzip
import http.client
import io
import itertools
import json
import sys
import tarfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MANIFEST = "name: {name}\nbase_model: squire\ntraining_data: none\nlicence: Apache-2.0\n"
DOCKERFILE = "FROM tiltyard/python:3.11\nCOPY . /app\n"
PAGES = ("/", "/competitions/small/", "/competitions/small/leaderboard/", "/status/")
BOUNDARY = "tiltyard-benchmark"


class Uploads:
    """Counts what threads have sent; every archive has a content of its own."""

    def __init__(self, address: str, tokens: list[str], numbers: range, until_s: float) -> None:
        self.times_s: list[float] = []
        self.answers: Counter[int] = Counter()
        self._host = urlsplit(address).netloc
        self._tokens = tokens
        self._numbers = iter(numbers)
        self._until_s = until_s
        self._lock = threading.Lock()

    def work(self) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        while time.monotonic() < self._until_s:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            began = time.monotonic()
            try:
                status = self._send(connection, number)
            except (OSError, http.client.HTTPException):
                connection.close()
                status = 0
            with self._lock:
                self.answers[status] += 1
                self.times_s.append(time.monotonic() - began)

    def _send(self, connection: http.client.HTTPConnection, number: int) -> int:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="entry.tar.gz"\r\n\r\n'
        body = head.encode() + archive(f"entry-{number}") + f"\r\n--{BOUNDARY}--\r\n".encode()
        headers = {
            "Authorization": f"Bearer {self._tokens[number % len(self._tokens)]}",
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        }
        connection.request("POST", "/api/v1/competitions/small/submissions", body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def archive(name: str) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0, compresslevel=1) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as members,
    ):
        for file, text in (("Dockerfile", DOCKERFILE), ("tiltyard.yaml", MANIFEST.format(name=name))):
            info = tarfile.TarInfo(file)
            info.size = len(text)
            members.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def read_pages(address: str, per_s: float, until_s: float, times_s: dict[str, list[float]]) -> None:
    """Ask for one page after the other, `per_s` a second; one that does not answer 200 counts as endless."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    for page in itertools.cycle(PAGES):
        began = time.monotonic()
        if began >= until_s:
            return
        try:
            connection.request("GET", page)
            answer = connection.getresponse()
            answer.read()
            is_good = answer.status == http.client.OK
        except (OSError, http.client.HTTPException):
            connection.close()
            is_good = False
        took_s = time.monotonic() - began
        times_s[page].append(took_s if is_good else float("inf"))
        time.sleep(max(0.0, 1 / per_s - took_s))


def main() -> None:
    address, tokens_file, first, count_max, seconds, threads, pages_per_s = sys.argv[1:]
    until_s = time.monotonic() + float(seconds)
    numbers = range(int(first), int(first) + int(count_max))
    uploads = Uploads(address, Path(tokens_file).read_text().split(), numbers, until_s)
    pages: dict[str, list[float]] = {page: [] for page in PAGES}
    workers = [threading.Thread(target=uploads.work) for _ in range(int(threads))]
    reader = threading.Thread(target=read_pages, args=(address, float(pages_per_s), until_s, pages), daemon=True)
    began = time.monotonic()
    for thread in (*workers, reader):
        thread.start()
    for thread in workers:
        thread.join()
    report: dict[str, Any] = {"seconds": time.monotonic() - began, "answers": uploads.answers}
    print(json.dumps(report | {"times_s": uploads.times_s, "pages": pages}))


if __name__ == "__main__":
    main()
