"""Log lines that say which run they are about, as text or as one JSON object a line (TILTYARD_LOG_FORMAT).

A worker works on one run at a time, in one process, with threads beside it (the heartbeat). So the run under way is
kept for the whole process, and each line that is logged meanwhile carries its id and attempt.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pythonjsonlogger.json import JsonFormatter

_under_way: dict[str, Any] = {}


@contextmanager
def about_run(run_id: object, attempt: int) -> Iterator[None]:
    """Meanwhile lines of this process are about this attempt at this run."""
    _under_way.update(run_id=str(run_id), attempt=attempt)
    try:
        yield
    finally:
        _under_way.clear()


class RunFilter(logging.Filter):
    """Puts `run_id` and `attempt` on records, for the JSON format to show."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.__dict__.update(_under_way)
        return True


def json_formatter() -> logging.Formatter:
    """Time, level, logger and message under stable names, then what the record carries beside them."""
    return JsonFormatter(
        "{asctime}{levelname}{name}{message}",
        style="{",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
