"""An order of texts in which those with a long common beginning stand together, and which is random otherwise.

Servers keep the keys and values of a text's beginning for the next text that begins alike. In depth-first order over
the tree of shared prefixes each of them is computed once even where the cache holds only one text (Zheng et al.,
"SGLang: efficient execution of structured language model programs", NeurIPS 2024, theorem 3.1). Siblings are shuffled.

The order follows from the texts and the seed, both of which say nothing about tasks, documents or gold answers: a
server learns from it only what it sees in the texts themselves.
"""

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

MIN_SHARED_CHARS: Final = 64  # some 16 tokens, the least that servers keep; shorter beginnings are left to chance


def prefix_order(texts: Sequence[str], draw: random.Random) -> list[int]:
    """Positions of the texts in the new order, which depends on nothing but them and `draw`."""
    ranked = sorted(range(len(texts)), key=lambda position: texts[position])
    shared = [0] + [_common(texts[ranked[n - 1]], texts[ranked[n]]) for n in range(1, len(ranked))]
    order: list[int] = []
    # Ranges of ranks, each with the length of the beginning that all of it shares.
    pending = [(0, len(ranked), 0)] if ranked else []
    while pending:
        low, high, depth = pending.pop()
        if high - low == 1:
            order.append(ranked[low])
            continue
        parts = _split(shared, low, high, depth)
        draw.shuffle(parts)
        pending += parts
    return order


def _split(shared: Sequence[int], low: int, high: int, depth: int) -> list[tuple[int, int, int]]:
    """Cut the ranks from `low` to before `high` where neighbours share less than `MIN_SHARED_CHARS` beyond `depth`."""
    cuts = [low, *(rank for rank in range(low + 1, high) if shared[rank] < depth + MIN_SHARED_CHARS), high]
    return [(start, end, min(shared[start + 1 : end], default=0)) for start, end in pairwise(cuts)]


def _common(first: str, second: str) -> int:
    """Length of the common beginning, by bisection over slices: far faster than by characters where it is long."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
