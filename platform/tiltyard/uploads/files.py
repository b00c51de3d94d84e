"""The files of unfinished uploads: one writer each, appended to, hashed as they grow.

The lock is the kernel's (flock), so it ends with the process that held it, however that ended. The length of the file
is the upload's offset: after a kill, whatever reached the file counts as received, and nothing else does. Beside it
lies how far it is hashed, so that no process begins to hash anew.
"""

import fcntl
import os
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Final, Self
from uuid import UUID

import xxhash
from django.conf import settings

from tiltyard.uploads import disk, hashes

_READ_BYTES: Final = 4 << 20
_SAVE_EVERY_BYTES: Final = 64 << 20  # what has to be hashed again after a kill, at most
_PIECE_BYTES_MIN: Final = 1 << 20
_PIECES_MAX: Final = 4096  # of one file
# One buffer of each upload is hashed at a time; more at once than these would not be quicker on a few cores.
_hashers = ThreadPoolExecutor(4, thread_name_prefix="hash-upload")


def _folder() -> Path:
    """A folder of their own, which the sweep of broken form uploads leaves alone."""
    return Path(settings.UPLOAD_DIR) / "resumable"


def path_of(upload: UUID) -> Path:
    """Where the upload's bytes are."""
    return _folder() / f"{upload}.part"


def state_path_of(upload: UUID) -> Path:
    """Where it is written how far the file is hashed."""
    return path_of(upload).with_suffix(".state")


def all_paths() -> list[Path]:
    """The files of all uploads, whatever became of them."""
    return [path for path in _folder().glob("*") if path.is_file()]


def upload_of(path: Path) -> UUID | None:
    """Whose file this is; None for what no upload can have made."""
    try:
        return UUID(path.stem)
    except ValueError:
        return None


def offset_of(upload: UUID) -> int | None:
    """How many bytes have arrived; None when the file is gone."""
    try:
        return path_of(upload).stat().st_size
    except FileNotFoundError:
        return None


def checked_of(upload: UUID) -> int:
    """Up to where the client's digests of the file's pieces were right, as far as is known."""
    return hashes.load(state_path_of(upload), offset_of(upload) or 0).checked.end_bytes


def create(upload: UUID) -> None:
    path = path_of(upload)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def remove(upload: UUID) -> None:
    path_of(upload).unlink(missing_ok=True)
    state_path_of(upload).unlink(missing_ok=True)


class Growing:
    """An upload's file, locked for one writer, and the SHA-256 of what is in it.

    Bytes are hashed as they are appended, out of the processor's cache; a hash that is behind, because the process died
    that was writing, catches up first. The file is *checked* up to where the client's digests of its pieces were right.
    """

    def __init__(self, upload: UUID, descriptor: int) -> None:
        self.upload = upload
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self.offset_bytes = status.st_size
        # The store of artefacts has the same file by now, and made it read-only: no byte of it may change any more.
        self.is_sealed = not status.st_mode & stat.S_IWUSR
        progress = hashes.load(state_path_of(upload), self.offset_bytes)
        self._hashed, self._checked = progress.hashed, progress.checked
        self._pieces = [] if self.is_sealed else list(progress.pieces)
        self._is_promised = progress.is_promised and not self.is_sealed
        # The machine started anew since: the disk may not have what was checked.
        self._checks_again = bool(self._pieces) and self._checked.end_bytes < self._pieces[-1].end_bytes
        if self._checks_again:
            self._hashed = self._checked.copy()
        self._saved = self._hashed.end_bytes, self._checked.end_bytes
        self._tail = disk.Tail(path_of(upload), descriptor)
        self._start: hashes.Mark | None = None

    @property
    def checked_bytes(self) -> int:
        """Up to where the client's digests were right."""
        return self._checked.end_bytes

    def catch_up(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """Hash what is in the file and not hashed yet: to be called before the first `append`.

        Where the machine was started anew, pieces are held against their digests again, and the file goes back to where
        they were right last. `is_stopped` is asked before each block; how far it is hashed by then is kept.
        """
        again = xxhash.xxh3_128()
        while self._hashed.end_bytes < self.offset_bytes:
            if is_stopped():
                return
            piece = self._unchecked_piece()
            if piece is None and self._checks_again:
                break  # what came after the last piece: nobody has said anything of it
            end_bytes = self.offset_bytes if piece is None else min(piece.end_bytes, self.offset_bytes)
            block = self._read(self._hashed.end_bytes, end_bytes)
            self._hashed.update(block)
            again.update(block)
            if piece is not None and self._hashed.end_bytes == piece.end_bytes:
                if again.digest() != piece.digest:
                    break
                self._checked = self._hashed.copy()
                again.reset()
        if self._checks_again:
            self._checks_again = False
            self._cut(self._checked)
        self._start = self._hashed.copy()

    def _unchecked_piece(self) -> hashes.Piece | None:
        """The first that the file is still to be held to."""
        place = bisect_right(self._pieces, self._checked.end_bytes, key=itemgetter(0))
        return self._pieces[place] if place < len(self._pieces) else None

    def promise(self) -> None:
        """Note that the client gives digests: of such a file nothing counts as whole that none of them covers."""
        if not self._is_promised:
            self._is_promised = True
            self._save()

    def hold_to_promises(self) -> None:
        """Go back to where the client's digests were right, if it gives any: a request may have ended before its own
        was looked at."""
        if self._is_promised and self._checked.end_bytes < self.offset_bytes:
            self._cut(self._checked)

    def begin_piece(self, is_stopped: Callable[[], bool] = lambda: False) -> xxhash.xxh3_128:
        """The hash of what has arrived and is not checked, for `end_piece` once the rest of the piece is in it."""
        running = xxhash.xxh3_128()
        place = self._checked.end_bytes
        while place < self.offset_bytes and not is_stopped():
            block = self._read(place, self.offset_bytes)
            running.update(block)
            place += len(block)
        return running

    def end_piece(self, running: xxhash.xxh3_128, digest: bytes, *, size_bytes: int) -> bool:
        """Whether the piece that ends here has this digest; else the file goes back to where it was last right.

        A small one before the end of the file, of `size_bytes`, counts as checked only together with what follows it:
        the list of them is read and written with every request.
        """
        if running.digest() != digest:
            self._cut(self._checked)
            return False
        least = max(_PIECE_BYTES_MIN, size_bytes // _PIECES_MAX)
        if self.offset_bytes - self._checked.end_bytes < least and self.offset_bytes < size_bytes:
            return True
        self._pieces.append(hashes.Piece(self.offset_bytes, digest))
        self._checked = self._hashed.copy()
        return True

    def _read(self, start_bytes: int, end_bytes: int) -> bytes:
        block = os.pread(self._descriptor, min(_READ_BYTES, end_bytes - start_bytes), start_bytes)
        if not block:
            raise OSError(f"{self.upload}: the file became shorter")
        return block

    def append(self, content: memoryview) -> None:
        """Write it at the end, from memory that can be written to. Raises OSError, as when the disk is full, with a
        part written.

        Memory that is aligned as the file is (`disk.Buffer`) is written fastest.
        """
        before = self._hashed.copy()
        # Beside the writing, in which the disk is waited for; it is behind again where not all of it can be written.
        hashing = _hashers.submit(self._hashed.update, content)
        end_bytes = self.offset_bytes + len(content)
        try:
            while self.offset_bytes < end_bytes:
                written = self._tail.write(content, self.offset_bytes)
                self.offset_bytes += written
                content = content[written:]
        finally:
            hashing.result()
            if self.offset_bytes < end_bytes:
                self._hashed = before
        if self.offset_bytes >= self._saved[0] + _SAVE_EVERY_BYTES:
            self._save()

    def rewind(self) -> None:
        """Forget all that was appended since `catch_up`."""
        if self._start is not None:
            self._cut(self._start)

    def sha256(self) -> str:
        """Of all that has arrived."""
        self.catch_up()
        return self._hashed.running.hexdigest()

    def _cut(self, mark: hashes.Mark) -> None:
        self._hashed = mark.copy()
        self._pieces = [piece for piece in self._pieces if piece.end_bytes <= mark.end_bytes]
        self._save()  # before the file is cut: what is written must never tell of bytes that are others by now
        os.ftruncate(self._descriptor, mark.end_bytes)
        self.offset_bytes = mark.end_bytes

    def _save(self) -> None:
        hashes.save(state_path_of(self.upload), self._progress())
        self._saved = self._hashed.end_bytes, self._checked.end_bytes

    def _progress(self) -> hashes.Progress:
        return hashes.Progress(self._hashed, self._checked, tuple(self._pieces), self._is_promised)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            is_changed = self._saved != (self._hashed.end_bytes, self._checked.end_bytes)
            if is_changed and path_of(self.upload).exists():  # else the upload has been ended meanwhile
                self._save()
        finally:
            self._tail.close()
            os.close(self._descriptor)  # and with it the lock


def lock(upload: UUID) -> Growing | None:
    """The upload's file for this caller alone, as a context; None when somebody else is writing.

    Raises FileNotFoundError when the file is gone.
    """
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path_of(upload), os.O_RDWR | os.O_APPEND | flags)
    except PermissionError:  # sealed, unless we are root
        descriptor = os.open(path_of(upload), os.O_RDONLY | flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Growing(upload, descriptor)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def linked(upload: UUID) -> Iterator[Path]:
    """A second name of the file, to be moved away: the first stays until the database says that it was accepted.

    A store that takes the file itself must make it read-only before it counts on it; see `Growing.is_sealed`.
    """
    path = path_of(upload)
    link = path.with_suffix(".whole")
    link.unlink(missing_ok=True)
    os.link(path, link)
    try:
        yield link
    finally:
        link.unlink(missing_ok=True)
