"""Generators of short questions whose answers can be checked by program.

``REGISTRY`` maps stable family names to families; importing this package fills it with every built-in family.
"""

from tiltyard_eval.generators import (  # noqa: F401  importing registers the families
    algebra,
    arithmetic,
    code,
    constraints,
    deduction,
    everyday,
    graphs,
    grids,
    gym,
    instructions,
    lists,
    reading,
    strings,
)
from tiltyard_eval.generators.core import (
    FRAMES,
    LEVELS,
    MAX_ANSWER_CHARS,
    MAX_PROMPT_CHARS,
    REGISTRY,
    Family,
    GeneratorError,
    Item,
    Rng,
    get_family,
)

__all__ = [
    "FRAMES",
    "LEVELS",
    "MAX_ANSWER_CHARS",
    "MAX_PROMPT_CHARS",
    "REGISTRY",
    "Family",
    "GeneratorError",
    "Item",
    "Rng",
    "get_family",
]
