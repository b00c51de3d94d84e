"""Skeletons: what a family drew for a question, apart from the words that the question is put into.

Two items with the same skeleton ask the same thing, on the same surface or on two. So they are not independent: a
suite's statistics cluster them, and a hidden item with the skeleton of an open one is its paraphrase twin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiltyard_eval.identity import sha256_of

CLUSTER_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A family's name and the fields that its phrasings may name, as text."""

    family: str
    fields: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a suite's data, fields by name."""
        return {"family": self.family, "fields": dict(sorted(self.fields.items()))}

    def cluster(self, answer: str) -> str:
        """Name of the cluster of all items with this skeleton and answer: 16 hexadecimal digits of a SHA-256.

        Who knows the family can find the fields again by trying them all, so it is as secret as the question.
        """
        return sha256_of([self.family, dict(self.fields), answer])[:CLUSTER_DIGITS]
