"""A log that cannot grow: its first lines and its last are kept, what lies between is counted."""

import threading
from collections import deque

HEAD_CHARS = 16 * 1024
TAIL_CHARS = 48 * 1024
LINE_CHARS = 2000


class CappedLog:
    """Thread-safe; lines come in from the threads that read containers."""

    def __init__(self, head_chars: int = HEAD_CHARS, tail_chars: int = TAIL_CHARS) -> None:
        self._lock = threading.Lock()
        self._head: list[str] = []
        self._head_room = head_chars
        self._tail: deque[str] = deque()
        self._tail_chars = 0
        self._tail_limit = tail_chars
        self._dropped_lines = 0
        self._is_changed = False

    def add(self, line: str) -> None:
        """Append one line; control characters that a terminal or a database would trip over are replaced."""
        text = _printable(line.rstrip("\r\n"))
        if len(text) > LINE_CHARS:
            text = text[:LINE_CHARS] + "…"
        with self._lock:
            self._is_changed = True
            if self._head_room > 0 and not self._tail:
                self._head.append(text)
                self._head_room -= len(text) + 1
                return
            self._tail.append(text)
            self._tail_chars += len(text) + 1
            while self._tail_chars > self._tail_limit:
                self._tail_chars -= len(self._tail.popleft()) + 1
                self._dropped_lines += 1

    def text(self) -> str:
        with self._lock:
            gap = [f"… {self._dropped_lines} lines left out …"] if self._dropped_lines else []
            return "\n".join([*self._head, *gap, *self._tail])

    def take_changed(self) -> str | None:
        """The text, if a line came since this was last asked."""
        with self._lock:
            is_changed, self._is_changed = self._is_changed, False
        return self.text() if is_changed else None

    def last_lines(self, count: int) -> str:
        with self._lock:
            return "\n".join([*self._head, *self._tail][-count:])


def _printable(line: str) -> str:
    text = line.encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)
