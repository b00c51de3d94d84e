"""What a board needs to know of the items of its suites: which share a skeleton, and which are twins.

It is read from the suites' folders and never stored or shown by item: that an open item has a hidden twin is a secret
until the reveal.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tiltyard.competitions.models import Suite
from tiltyard.leaderboards.documents import Twins
from tiltyard_eval.stats.gap import LEVEL, holm
from tiltyard_eval.suite import SuiteError, load_suite
from tiltyard_eval.twins import MIN_PAIRS, ItemKey, Scores, TwinGap, TwinScores, twin_gap, twin_links

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SuiteLinks:
    """Of one suite: the clusters of each task's items, and of a hidden one its twins and the suite that they are of."""

    clusters: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    twins: Mapping[ItemKey, ItemKey] = field(default_factory=dict)
    twins_of: str | None = None  # SHA-256 of the open suite, hexadecimal digits only


def read_links(suite: Suite) -> SuiteLinks:
    """Read them from the suite's folder; empty for a suite of format lm-eval, or where the folder is not here."""
    try:
        found = load_suite(suite.directory)
    except (SuiteError, OSError) as error:
        logger.info("no clusters and twins of suite %s: %s", suite.pk, error)
        return SuiteLinks()
    twins_of = found.twins_of.sha256.removeprefix("sha256:") if found.twins_of else None
    return SuiteLinks({task.name: task.clusters() for task in found.tasks}, twin_links(found), twins_of)


@dataclass(frozen=True)
class SuitePair:
    """An open suite and the hidden one that holds twins of its items."""

    open: Suite
    hidden: Suite
    links: Mapping[ItemKey, ItemKey]


def twin_pair(suites: Sequence[Suite], links: Mapping[int, SuiteLinks]) -> SuitePair | None:
    """The first hidden suite with twins of an active open one, by primary key of the suites; None without any."""
    by_hash = {suite.sha256: suite for suite in suites}
    for suite in suites:
        found = links[suite.pk]
        opened = by_hash.get(found.twins_of or "")
        if suite.is_hidden and opened and len(found.twins) >= MIN_PAIRS:
            return SuitePair(opened, suite, found.twins)
    return None


def twin_statistics(pair: SuitePair, scores: Sequence[tuple[Scores, Scores]], references: Sequence[int]) -> list[Twins]:
    """Test every entry, all together.

    Args:
        pair: The two suites.
        scores: Of each entry by task, on the open and on the hidden suite.
        references: Places of the baselines in `scores`; they are compared with nothing.
    """
    weights = {str(task["name"]): float(task["weight"]) for task in pair.hidden.tasks}
    baselines = [TwinScores(*scores[place]) for place in references]
    gaps = [
        twin_gap(TwinScores(*both), pair.links, weights, baselines=() if place in references else baselines)
        for place, both in enumerate(scores)
    ]
    tested = [place for place in range(len(scores)) if place not in references]
    corrected = dict(zip(tested, holm([gaps[place].p_value for place in tested]), strict=True))
    return [_shown(gap, corrected.get(place)) for place, gap in enumerate(gaps)]


def _shown(found: TwinGap, p_value: float | None) -> Twins:
    gap = found.gap
    return Twins(
        value=round(gap.value, 6),
        low=round(gap.low, 6),
        high=round(gap.high, 6),
        pairs=found.pairs,
        p_value=p_value,
        flagged=p_value is not None and p_value <= LEVEL,
    )
