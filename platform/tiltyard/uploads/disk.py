"""Bytes onto the disk as they come, past the page cache where that can be had.

A file of gigabytes that goes through the page cache is copied there, throws out what others need of it, and stops its
writer whenever the kernel has to catch up. Written directly (O_DIRECT) it costs a seventh of the processor's time, and
is on the disk when the call returns. The kernel then asks that place in the file, place in memory and length are whole
multiples of a block; what is not, at both ends of what a broken connection brought, goes through the cache.
"""

import ctypes
import errno
import mmap
import os
from pathlib import Path
from typing import Final

ALIGNMENT: Final = 4096  # of today's disks and file systems the largest block
BUFFER_BYTES: Final = 2 << 20

_O_DIRECT: Final = getattr(os, "O_DIRECT", 0)
_FLUSH_EVERY_BYTES: Final = 16 << 20
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h: begin, and wait for nothing
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)


class Buffer:
    """Memory for what is to be written from some place in a file on, which ends at a whole multiple of ALIGNMENT."""

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, BUFFER_BYTES))
        self._start = self._end = 0

    def begin(self, offset_bytes: int) -> None:
        """Be empty, for what comes at this place: there, memory is aligned as the file is."""
        self._start = self._end = offset_bytes % ALIGNMENT

    def fill(self, content: memoryview) -> int:
        """Take as much as there is room for; how many bytes that were."""
        taken = min(len(content), BUFFER_BYTES - self._end)
        self._memory[self._end : self._end + taken] = content[:taken]
        self._end += taken
        return taken

    @property
    def is_full(self) -> bool:
        return self._end == BUFFER_BYTES

    @property
    def content(self) -> memoryview:
        return self._memory[self._start : self._end]


class Tail:
    """The end of a file, at which its one writer adds."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """`descriptor` is open for appending, and stays the caller's to close."""
        self._descriptor = descriptor
        self._flushed_bytes: int | None = None
        self._direct: int | None = None
        if _O_DIRECT:
            try:
                self._direct = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | _O_DIRECT)
            except OSError:  # a file system in memory, a read-only file
                self._direct = None

    def write(self, content: memoryview, offset_bytes: int) -> int:
        """Write some of it at the file's end, which is there; how many bytes. Raises OSError."""
        if self._direct is not None and offset_bytes % ALIGNMENT == 0 and len(content) >= ALIGNMENT:
            try:
                return os.pwrite(self._direct, content[: len(content) - len(content) % ALIGNMENT], offset_bytes)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self.close()  # larger blocks, or memory that is not aligned: through the cache then
        if self._direct is not None and (to_boundary := -offset_bytes % ALIGNMENT):
            content = content[:to_boundary]
        written = os.write(self._descriptor, content)
        if self._direct is None:
            self._begin_writing(offset_bytes, offset_bytes + written)
        return written

    def close(self) -> None:
        """Write through the cache from now on."""
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def _begin_writing(self, start_bytes: int, end_bytes: int) -> None:
        """Have the kernel write to the disk while more comes in, in place of all at the end, where somebody waits.

        That it failed, fsync will say. Does nothing where there is no such call.
        """
        if self._flushed_bytes is None or self._flushed_bytes > start_bytes:
            self._flushed_bytes = start_bytes
        if _sync_file_range is not None and end_bytes >= self._flushed_bytes + _FLUSH_EVERY_BYTES:
            start, size = ctypes.c_int64(self._flushed_bytes), ctypes.c_int64(end_bytes - self._flushed_bytes)
            _sync_file_range(self._descriptor, start, size, ctypes.c_uint(_SYNC_FILE_RANGE_WRITE))
            self._flushed_bytes = end_bytes
