"""ROUGE-L (Lin 2004, Text Summarization Branches Out): F1 over the longest common subsequence of words."""

import re
from typing import Any


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return {"rougeL": rouge_l(results[0], str(doc["summary"]))}


def rouge_l(candidate: str, reference: str) -> float:
    """0..1; words are runs of letters and digits in lower case. 0 where either has no word."""
    ours, theirs = (re.findall(r"[a-z0-9]+", text.lower()) for text in (candidate, reference))
    if not ours or not theirs:
        return 0.0
    common = _longest_common_subsequence(ours, theirs)
    return 2.0 * common / (len(ours) + len(theirs))


def _longest_common_subsequence(one: list[str], other: list[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for place, against in enumerate(other, 1):
            above = row[place]
            row[place] = diagonal + 1 if word == against else max(above, row[place - 1])
            diagonal = above
    return row[-1]
