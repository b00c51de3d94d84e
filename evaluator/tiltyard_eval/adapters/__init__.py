"""Wire adapters: how questions are put to a server, and how its answers are checked.

An adapter turns questions into requests and the parsed answers into exactly as many texts or log-likelihoods.
Whatever does not fit raises `AnswerFault`; nothing is guessed, because a guess (an empty text for `null`, the order for
a missing index, zero for a missing log-probability) can be worth points.
"""

from collections.abc import Callable
from typing import Final

from tiltyard_eval.adapters.base import Adapter, GenerationSettings, Likelihood, Post, Support, clip
from tiltyard_eval.adapters.native import NativeAdapter
from tiltyard_eval.adapters.neurips2023 import Neurips2023Adapter
from tiltyard_eval.adapters.openai import OpenAIAdapter

__all__ = ["ADAPTERS", "Adapter", "GenerationSettings", "Likelihood", "Post", "Support", "clip", "make_adapter"]

ADAPTERS: Final[dict[str, Callable[[], Adapter]]] = {
    "openai": OpenAIAdapter,
    "native": NativeAdapter,
    "neurips2023": Neurips2023Adapter,
}


def make_adapter(name: str) -> Adapter:
    """A fresh adapter; `name` is a key of `ADAPTERS`."""
    return ADAPTERS[name]()
