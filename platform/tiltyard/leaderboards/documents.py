"""What a board's statistics are stored and exported as. Pages need these; what computes them needs SciPy besides."""

import math

from pydantic import BaseModel, ConfigDict

from tiltyard_eval.stats.types import Interval

DIGITS = 6


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(_Document):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Interval) -> "Range":
        return cls(value=round(found.value, DIGITS), low=round(found.low, DIGITS), high=round(found.high, DIGITS))


class Excess(_Document):
    """How much more an entry loses from open to hidden than the reference baseline that speaks most for it."""

    value: float
    low: float
    high: float
    baseline: str
    p_value: float  # of losing at most the margin more; corrected for all entries tested
    flagged: bool


class Twins(_Document):
    """Open minus hidden over questions that differ in their wording only."""

    value: float
    low: float
    high: float
    pairs: int
    p_value: float | None  # of at most the margin more than every baseline; corrected for all entries; None for those
    flagged: bool


class EntryStatistics(_Document):
    """One entry of a board.

    Attributes:
        score: By the competition's rule.
        rank_low, rank_high: Which ranks are possible among participants; None for organisers' entries.
        group: Tie group, 1 is best. Nobody in a group is shown to be worse than its best entry.
        excess: None for reference baselines, and where there is no open or no hidden suite or no baseline.
        win_rate: Mean share of the other entries that it beats in a task.
        strength: Bradley–Terry log-strength; 0 is the board's average.
        twins: None where suites have no twins.
    """

    score: Range
    rank_low: int | None
    rank_high: int | None
    group: int
    excess: Excess | None
    win_rate: float | None
    strength: Range | None
    twins: Twins | None

    @property
    def chance(self) -> Range | None:
        """The strength as the probability of doing better than an average entry on a question where the two differ."""
        if self.strength is None:
            return None
        value, low, high = (
            1.0 / (1.0 + math.exp(-part)) for part in (self.strength.value, self.strength.low, self.strength.high)
        )
        return Range(value=value, low=low, high=high)


class BoardDocument(_Document):
    """All statistics of a board.

    Attributes:
        entries: By the run's id.
        correlation: Spearman's rank correlation of open and hidden scores; None with fewer than five entries.
        detectable: The smallest difference of two scores that is found with 80 % probability, for `ranking`, `open` and
            `hidden` scores, 0..1: the median over pairs of entries, or planned for the worst case when there is one.
        references: Names of the baselines that gaps are compared with.
        margin: How much more than every baseline an honest entry may lose, 0..1.
        problem: Why the competition's rule could not be applied and the weighted mean ranks instead; empty otherwise.
    """

    entries: dict[str, EntryStatistics]
    correlation: Range | None
    detectable: dict[str, float]
    references: list[str]
    margin: float
    problem: str
