"""Run attacks one by one, each in a process of its own, and print what came of each as one JSON object a line.

An attack is a function that returns what it got when it worked, and raises when it did not: an OSError or `Refused`
when something held, `Absent` when this kernel has no such thing to attack. Whatever else ends it is a broken attack,
which proves nothing.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

ATTACK_S: Final = 20
_ATTACKS: dict[str, Callable[["Aims"], str]] = {}
_NOT_THERE: Final = frozenset({errno.ENOSYS, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT})


class Refused(Exception):  # noqa: N818  an attack that was refused is no error
    """Something held; the text says how."""


class Absent(Exception):  # noqa: N818
    """There is nothing here to attack; the text says what is missing."""


class Aims(NamedTuple):
    """What to aim at: the limits that should hold, and whatever the host has put up to be reached."""

    limits: dict[str, int]
    targets: dict[str, Any]

    def target(self, name: str) -> Any:
        """Raises Absent when there is none."""
        if name not in self.targets:
            raise Absent(f"no {name} to aim at")
        return self.targets[name]


def attack(function: Callable[[Aims], str]) -> Callable[[Aims], str]:
    """Make a function an attack, under its own name."""
    _ATTACKS[function.__name__] = function
    return function


def run_all(argument: str) -> None:
    """Run the attacks that the JSON argument names: {"attacks": [name], "limits": {…}, "targets": {…}}."""
    wanted = json.loads(argument)
    aims = Aims(wanted["limits"], wanted["targets"])
    for name in wanted["attacks"]:
        outcome, saw = _apart(_ATTACKS[name], aims)
        _print({"attack": name, "outcome": outcome, "saw": saw})
    _print({"attack": None, "outcome": "done", "saw": ""})


def _print(record: dict[str, str | None]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def _apart(function: Callable[[Aims], str], aims: Aims) -> tuple[str, str]:
    """The attack in a process group of its own, so that it may die or hang."""
    reader, writer = os.pipe()
    child = _forked()
    if child == 0:
        os.close(reader)
        os.setpgid(0, 0)
        signal.alarm(ATTACK_S)
        # Should memory run out, the kernel is to choose this process, and not the one that reports.
        Path("/proc/self/oom_score_adj").write_text("1000")
        outcome, saw = _outcome(function, aims)
        os.write(writer, json.dumps([outcome, saw[:300]]).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    _end_group(child)  # before reading: whatever it started has the pipe's other end too
    _tidy()
    content = os.read(reader, 4096)
    os.close(reader)
    if content:
        outcome, saw = json.loads(content)
        return outcome, saw
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in {signal.SIGKILL, signal.SIGSYS, signal.SIGXFSZ}:
        return "refused", f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return "broken", f"ended with wait status {status}"


def _forked() -> int:
    """A fork, for which there is room again some time after a fork bomb was ended."""
    deadline = time.monotonic() + ATTACK_S
    while True:
        try:
            return os.fork()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _end_group(group: int) -> None:
    """End whatever the attack has left, so that it does not disturb the next one."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _tidy() -> None:
    """Files in memory outlive the process that was killed over them."""
    for folder in ("/tmp", "/dev/shm"):  # noqa: S108
        for path in Path(folder).glob("bomb*"):
            path.unlink(missing_ok=True)


def _outcome(function: Callable[[Aims], str], aims: Aims) -> tuple[str, str]:
    try:
        return "worked", function(aims)
    except Refused as held:
        return "refused", str(held)
    except Absent as missing:
        return "absent", str(missing)
    except MemoryError:
        return "refused", "MemoryError"
    except OSError as error:
        kind = "absent" if error.errno in _NOT_THERE else "refused"
        return kind, errno.errorcode.get(error.errno or 0, str(error))
    except Exception:
        return "broken", traceback.format_exc()[-300:]


_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def system_call(number: int, *arguments: Any) -> int:
    """A system call by its number; raises OSError."""
    ctypes.set_errno(0)
    result = int(_LIBC.syscall(ctypes.c_long(number), *(_as_argument(one) for one in arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def _as_argument(value: Any) -> Any:
    return ctypes.c_long(value) if isinstance(value, int) else value


def reaches_the_kernel(number: int, *arguments: Any) -> str:
    """Make a call with arguments that come to nothing: it worked when the kernel looked at them.

    A filter and a missing capability answer EPERM, EACCES or ENOSYS before that. Raises OSError with those.
    """
    try:
        result = system_call(number, *arguments)
    except OSError as error:
        if error.errno in {errno.EPERM, errno.EACCES, *_NOT_THERE}:
            raise
        return f"the kernel looked at the arguments: {errno.errorcode.get(error.errno or 0, error.errno)}"
    return f"it returned {result}"
