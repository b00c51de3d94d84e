"""Progress for three readers: a terminal (rich bar), a log (plain lines), and the worker (JSON lines)."""

import json
import sys
import time
from typing import Protocol, TextIO

_PLAIN_EVERY_S = 5.0
_JSON_EVERY_S = 0.5


class Reporter(Protocol):
    def stage(self, name: str) -> None:
        """A stage begins: waiting, probing, asking or scoring."""

    def progress(self, done: int, total: int) -> None:
        """`done` of `total` questions have an answer."""

    def close(self) -> None:
        """Nothing more comes."""


class PlainReporter:
    """Lines on standard error, one every few seconds."""

    def __init__(self) -> None:
        self._last_s = -_PLAIN_EVERY_S

    def stage(self, name: str) -> None:
        print(f"{name} …", file=sys.stderr, flush=True)  # noqa: T201

    def progress(self, done: int, total: int) -> None:
        now_s = time.monotonic()
        if done == total or now_s - self._last_s >= _PLAIN_EVERY_S:
            self._last_s = now_s
            print(f"answered {done} of {total}", file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        return None


class JsonReporter:
    """One event a line on standard output; progress at most twice a second, and always the last one."""

    def __init__(self) -> None:
        self._stream: TextIO | None = sys.stdout  # kept: libraries' prints are redirected away from it later
        self._last_s = -_JSON_EVERY_S

    def stage(self, name: str) -> None:
        self._emit({"event": "stage", "stage": name})

    def progress(self, done: int, total: int) -> None:
        now_s = time.monotonic()
        if done in (0, total) or now_s - self._last_s >= _JSON_EVERY_S:
            self._last_s = now_s
            self._emit({"event": "progress", "done": done, "total": total})

    def close(self) -> None:
        return None

    def _emit(self, event: dict[str, object]) -> None:
        if self._stream is None:
            return
        try:
            print(json.dumps(event), file=self._stream, flush=True)
        except BrokenPipeError:
            self._stream = None  # the reader went away; the run goes on without it


class RichReporter:
    """A bar on the terminal."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only a terminal pays for rich
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        self._bar = Progress(
            TextColumn("[bold]{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("starting", total=None)
        self._bar.start()

    def stage(self, name: str) -> None:
        self._bar.update(self._task, description=name)

    def progress(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)

    def close(self) -> None:
        self._bar.stop()


def make_reporter(kind: str) -> Reporter:
    """The reporter for `--progress`; `auto` is a bar on a terminal and plain lines elsewhere."""
    if kind == "json":
        return JsonReporter()
    if kind == "rich" or (kind == "auto" and sys.stderr.isatty()):
        return RichReporter()
    return PlainReporter()
