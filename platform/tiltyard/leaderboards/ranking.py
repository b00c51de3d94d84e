"""A run's ranking score from the results of its suites."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltyard.competitions.models import Suite
from tiltyard_eval.stats import Interval, Stratum
from tiltyard_eval.stats.gap import gap
from tiltyard_eval.stats.scores import score_strata


@dataclass(frozen=True)
class SuiteScores:
    """The item scores (0..1) of each task of one suite, with the tasks' weights."""

    suite: Suite
    tasks: Sequence[Stratum]


@dataclass(frozen=True)
class RankingScores:
    """What the board shows of a run; a part is None when the competition has no suite of that kind."""

    score: Interval
    open: Interval | None
    hidden: Interval | None
    gap: Interval | None

    def run_fields(self) -> dict[str, float | None]:
        """The same as the columns of Run."""
        fields: dict[str, float | None] = {}
        parts = [("", self.score), ("open_", self.open), ("hidden_", self.hidden), ("gap_", self.gap)]
        for prefix, part in parts:
            name = "gap" if prefix == "gap_" else f"{prefix}score"
            low, high = ("score_low", "score_high") if not prefix else (f"{prefix}low", f"{prefix}high")
            fields |= {
                name: part.value if part else None,
                low: part.low if part else None,
                high: part.high if part else None,
            }
        return fields


def rank_suites(results: Sequence[SuiteScores]) -> RankingScores:
    """Combine suites by their weights; raises ValueError when no suite with a weight has a result."""
    shares = [result.suite.weight for result in results]
    open_part = _part(results, Suite.Visibility.OPEN)
    hidden_part = _part(results, Suite.Visibility.HIDDEN)
    return RankingScores(
        score=_score(_strata(results, shares)),
        open=_score(open_part) if open_part else None,
        hidden=_score(hidden_part) if hidden_part else None,
        gap=gap(open_part, hidden_part) if open_part and hidden_part else None,
    )


def _part(results: Sequence[SuiteScores], visibility: str) -> list[Stratum]:
    """The strata of the open or of the hidden suites; equal shares when all of them have weight 0 in the ranking."""
    chosen = [result for result in results if result.suite.visibility == visibility]
    shares = [result.suite.weight for result in chosen]
    return _strata(chosen, shares if any(shares) else [1.0] * len(chosen))


def _strata(results: Sequence[SuiteScores], shares: Sequence[float]) -> list[Stratum]:
    strata = []
    for result, share in zip(results, shares, strict=True):
        total = sum(task.weight for task in result.tasks)
        strata += [Stratum(task.scores, share * task.weight / total) for task in result.tasks if share > 0]
    return strata


def _score(strata: Sequence[Stratum]) -> Interval:
    score, _ = score_strata(strata)
    return Interval(score.value, score.low, score.high)
