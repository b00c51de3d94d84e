"""Have the kernel write to the disk while more comes in, in place of all at the end, where somebody waits for it."""

import ctypes
from typing import Final

_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h: begin, and wait for nothing
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)


def begin_writing(descriptor: int, start_bytes: int, size_bytes: int) -> None:
    """Begin to write this part of a file; that it failed, fsync will say. Does nothing where there is no such call."""
    if _sync_file_range is not None:
        start, size = ctypes.c_int64(start_bytes), ctypes.c_int64(size_bytes)
        _sync_file_range(descriptor, start, size, ctypes.c_uint(_SYNC_FILE_RANGE_WRITE))
