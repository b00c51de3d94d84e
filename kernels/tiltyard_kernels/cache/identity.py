"""What compiled kernels depend on besides their sources' arguments: architecture, Triton, this library."""

from __future__ import annotations

import hashlib
import importlib
from functools import cache
from pathlib import Path

import triton

LIBRARY = Path(__file__).parents[1]


@cache
def identity(arch: int) -> dict[str, str]:
    """Of kernels for the compute capability `arch` (90 for 9.0), as this installation compiles them."""
    return {
        "architecture": f"sm{arch}",
        "triton": triton.__version__,
        "triton_build": hashlib.sha256(_triton_key().encode()).hexdigest(),
        "library": library_digest(),
    }


def library_digest() -> str:
    """Of every source file and table of this library."""
    digest = hashlib.sha256()
    for path in sorted([*LIBRARY.rglob("*.py"), *LIBRARY.rglob("tables/*.json")]):
        digest.update(f"{path.relative_to(LIBRARY).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _triton_key() -> str:
    """Triton's own digest of its sources and compiled parts, which is in every key of its cache."""
    for name in ("triton.runtime.cache", "triton.compiler.compiler"):
        found = getattr(importlib.import_module(name), "triton_key", None)
        if found is not None:
            return str(found())
    raise RuntimeError(f"Triton {triton.__version__} has no key of its build where this library looks for it")
