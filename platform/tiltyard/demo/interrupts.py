"""Ctrl-C and requests to end, as one exception."""

import signal

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The demo is to end. Not an Exception: nothing on the way up may take it for an error."""


def install() -> None:
    """Raise Interrupted at the first signal, and ignore the rest, so that the clean-up is not cut short."""
    for number in _NUMBERS:
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: object) -> None:
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    raise Interrupted
