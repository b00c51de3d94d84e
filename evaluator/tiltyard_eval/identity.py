"""The identity of a result: what was asked, of what, by which code. Hardware and time are not part of it."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Serialise so that equal values give equal bytes: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, as hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def repro_hash(identity: dict[str, Any]) -> str:
    """The hash printed beside a score; the same hash promises the same score."""
    return "sha256:" + sha256_of(identity)
