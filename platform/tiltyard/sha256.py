"""SHA-256 that can be put aside and taken up again, by another process as well: a large file is hashed once.

hashlib's objects cannot leave their process. The functions below them in libcrypto keep all they know in a plain
structure (SHA256_CTX in openssl/sha.h), which is its own serialisation; they are deprecated since OpenSSL 3.0, but
there. Where the library was built without them, or Python has it built in so that nothing else can call it, hashlib's
own object is used, and there is no state to put aside.
"""

import _hashlib  # the extension that brings libcrypto
import ctypes
import hashlib
from typing import Final, Protocol, Self

_CONTEXT_BYTES: Final = 112  # 8 words, 2 of length, a block of 64 bytes, 2 counters
_PROBE: Final = bytes(range(200))  # more than one block, and no whole number of them


class Sha256(Protocol):
    """A running SHA-256."""

    def update(self, content: bytes | memoryview, /) -> object:
        """Add these bytes, of a writable view if of a view; other threads run meanwhile."""
        ...

    def hexdigest(self) -> str:
        """Of all bytes so far; more can follow."""
        ...

    def copy(self) -> Self:
        """Another one that goes on from here."""
        ...


class _Movable:
    """The same over libcrypto's plain structure."""

    def __init__(self, library: ctypes.CDLL, state: bytes | None = None) -> None:
        self._library = library
        self._context = ctypes.create_string_buffer(state or b"", _CONTEXT_BYTES)
        if state is None:
            self._call("SHA256_Init", self._context)

    def update(self, content: bytes | memoryview, /) -> None:
        size = len(content)
        data = content if isinstance(content, bytes) else (ctypes.c_char * size).from_buffer(content)
        self._call("SHA256_Update", self._context, data, ctypes.c_size_t(size))

    def hexdigest(self) -> str:
        digest = ctypes.create_string_buffer(hashlib.sha256().digest_size)
        self._call("SHA256_Final", digest, ctypes.create_string_buffer(self.state(), _CONTEXT_BYTES))
        return digest.raw.hex()

    def copy(self) -> "_Movable":
        return _Movable(self._library, self.state())

    def state(self) -> bytes:
        return self._context.raw

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._library, name)(*arguments) != 1:
            raise RuntimeError(f"libcrypto's {name} failed")


def _find_library() -> ctypes.CDLL | None:
    """libcrypto, if what it computes here is right, put aside in between."""
    try:
        library = ctypes.CDLL(_hashlib.__file__)  # a look-up in it goes on to the libraries that it needs
        probe = _Movable(library)
        probe.update(_PROBE[:70])
        probe = _Movable(library, probe.state())
        probe.update(_PROBE[70:])
        is_right = probe.hexdigest() == hashlib.sha256(_PROBE).hexdigest()
    except (AttributeError, OSError, RuntimeError):
        return None
    return library if is_right else None


_library = _find_library()


def new() -> Sha256:
    """The hash of nothing yet."""
    return hashlib.sha256() if _library is None else _Movable(_library)


def state_of(running: Sha256) -> bytes | None:
    """What `resumed` goes on from, fit for a file on this machine; None where that cannot be had."""
    return running.state() if isinstance(running, _Movable) else None


def resumed(state: bytes) -> Sha256 | None:
    """The hash that `state_of` described; None where that cannot be had. The state must come from this machine."""
    if _library is None or len(state) != _CONTEXT_BYTES:
        return None
    return _Movable(_library, state)
