"""Names that say whose something in the engine is, so that what a killed process left can be told from what is in use.

An owner is one attempt at a run, as dot-separated parts from the general to the particular: "site.run.attempt". What it
makes is named "owner.random", because nobody else may guess the name and no two makings may share one.
"""

import re
from typing import Final
from uuid import uuid4

RUN_TAG: Final = "tiltyard-run:"  # the name follows; of a loaded image
BUILD_LABEL: Final = "tiltyard.build."  # the name follows; of a build's steps and images
GAUGE_LABEL: Final = "tiltyard.gauge"  # the name is the value; of a disk gauge

OWNER_CHARS_MAX: Final = 95  # with a dot and the random part it fits into a tag's 128
_OWNER: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")
_NAME: Final = re.compile(rf"({_OWNER.pattern})\.[0-9a-f]{{32}}")


def named_by(owner: str) -> str:
    """A new name that tells its owner; raises ValueError when `owner` cannot be one."""
    if not _OWNER.fullmatch(owner) or len(owner) > OWNER_CHARS_MAX:
        raise ValueError(f"{owner!r} is no owner: parts of a-z, 0-9 and - with dots between, {OWNER_CHARS_MAX} in all.")
    return f"{owner}.{uuid4().hex}"


def owner_of(name: str) -> str:
    """The owner in a name that `named_by` made; of any other text, something that owns nothing."""
    match = _NAME.fullmatch(name)
    return match[1] if match else ""
