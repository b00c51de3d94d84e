"""Which evaluator this is, to the byte: the hash that its image carries as a label.

The version number stays the same between two checkouts of one release in the making; the files do not.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

SOURCE_LABEL: Final = "tiltyard.evaluator-source"
_FOLDER: Final = Path(__file__).resolve().parent


@cache
def source_sha256() -> str:
    """SHA-256 over every file of this package with its path, in hexadecimal digits; as it was when first asked."""
    digest = hashlib.sha256()
    for path in sorted(_FOLDER.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(_FOLDER).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()
