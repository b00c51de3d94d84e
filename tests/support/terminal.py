"""A person's terminal: a real bash on a pseudo-terminal, in which commands are typed and prompts are answered."""

import contextlib
import os
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

_DONE = "[done {}]"  # the prompt, with the last command's status
_DONE_PATTERN = re.compile(r"\[done (\d+)\]")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A session of bash. What it shows is echo and output together, as on a screen."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self._process = process
        self._descriptor = descriptor

    @classmethod
    @contextlib.contextmanager
    def opened(cls, directory: Path, environment: Mapping[str, str]) -> Iterator[Self]:
        """Start bash with this environment and no other, and end it with all that it started."""
        ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (40, 120))
        shell = ["setsid", "--ctty", "bash", "--norc", "--noprofile", "--noediting", "-i"]
        settings = dict(environment) | {"PS1": _DONE.format("$?"), "PS2": "", "TERM": "xterm"}
        process = subprocess.Popen(shell, cwd=directory, env=settings, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        try:
            terminal = cls(process, ours)
            terminal._read_until(_DONE_PATTERN, 20.0)
            yield terminal
        finally:
            os.close(ours)  # the kernel hangs up: bash and what runs in the foreground get SIGHUP
            process.wait(20)

    def run(self, command: str, *, answers: Mapping[str, str] | None = None, timeout_s: float = 120.0) -> str:
        """Type a command, answer what it asks (by the end of the prompt), and return what was shown.

        Fails with all that was shown when the command's status is not 0.
        """
        self._type(command)
        shown = ""
        for prompt, answer in (answers or {}).items():
            shown += self._read_until(re.compile(re.escape(prompt)), timeout_s)
            self._type(answer)
        shown += self._read_until(_DONE_PATTERN, timeout_s)
        statuses = _DONE_PATTERN.findall(shown)
        assert statuses[-1] == "0", f"{command} ended with status {statuses[-1]}:\n{shown}"
        return shown

    def _type(self, text: str) -> None:
        os.write(self._descriptor, f"{text}\n".encode())

    def _read_until(self, pattern: re.Pattern[str], timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        raw = b""
        while True:
            shown = _ESCAPES.sub("", raw.decode(errors="replace")).replace("\r\n", "\n")
            if pattern.search(shown):
                return shown
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"nothing like {pattern.pattern!r} within {timeout_s:.0f} s, but:\n{shown}"
            if select.select([self._descriptor], [], [], left_s)[0]:
                raw += os.read(self._descriptor, 65536)
