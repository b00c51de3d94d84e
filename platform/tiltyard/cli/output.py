"""Where text goes: results to standard output, progress and errors to standard error, JSON alone when asked for."""

import json
import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 200  # a table in a pipe must not be cut to the 80 columns that rich assumes there


def printable(text: str) -> str:
    """`text` without control characters: logs and server answers are hostile, and a terminal obeys escapes."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t")


class Output:
    """One command's output. With `json_mode`, standard output gets the single document and nothing else."""

    def __init__(self, *, json_mode: bool) -> None:
        self.json_mode = json_mode

    @cached_property
    def console(self) -> "Console":
        """The rich console on standard output, for people."""
        return _console(stderr=False)

    @cached_property
    def error_console(self) -> "Console":
        """The rich console on standard error, for progress and notes."""
        return _console(stderr=True)

    def say(self, text: str = "") -> None:
        """A line for people on standard output; dropped in JSON mode."""
        if not self.json_mode:
            self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line of progress on standard error, in both modes."""
        self.error_console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def show(self, renderable: Any) -> None:
        """A rich table or panel on standard output; dropped in JSON mode."""
        if not self.json_mode:
            self.console.print(renderable)

    def document(self, value: object) -> None:
        """The JSON document; dropped when people read."""
        if self.json_mode:
            write_json(value)


def write_json(value: object) -> None:
    """Write the single JSON document of `--json` to standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console  # noqa: PLC0415  half of the start-up time, and --help needs none of it

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(stderr=stderr, width=width)
