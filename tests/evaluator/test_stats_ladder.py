"""The Ladder, and attackers who learn from feedback."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltyard_eval.stats.ladder import LadderState, ladder_bound, ladder_step, ladder_update
from tiltyard_eval.stats.types import BoolArray, FloatArray

ITEMS = 4000
SUBMISSIONS = 1000
STEP = 0.1


@dataclass
class Board:
    """What a participant is shown: each score, or with a step what the Ladder publishes."""

    step: float | None = None
    state: LadderState = field(default_factory=LadderState)

    def show(self, score: float) -> float:
        if self.step is None:
            return score
        self.state = ladder_update(self.state, score, step=self.step)
        assert self.state.best is not None
        return self.state.best


def majority_attack(rng: np.random.Generator, board: Board) -> tuple[float, float]:
    """Blum and Hardt, §4: send random answers, keep those that seem better than chance, send the majority of them.

    Returns:
        What the board shows at last, and the gain: the majority's score on the hidden items beyond its true score, one
        half.
    """
    gold = rng.random(ITEMS) < 0.5
    votes, last = np.zeros(ITEMS), 0.5
    for _ in range(SUBMISSIONS - 1):
        answers = rng.random(ITEMS) < 0.5
        shown = board.show(float((answers == gold).mean()))
        # A board that shows every score is read against chance, one that shows the best against what it showed before.
        votes += np.sign(shown - (0.5 if board.step is None else last)) * (2 * answers - 1)
        last = shown
    score = float((guess(rng, votes) == gold).mean())
    return board.show(score), score - 0.5


def guess(rng: np.random.Generator, votes: FloatArray) -> BoolArray:
    return np.asarray(np.where(votes == 0, rng.random(len(votes)) < 0.5, votes > 0), dtype=np.bool_)


def climbing_attack(rng: np.random.Generator, board: Board) -> tuple[float, float]:
    """Change some answers at random and keep the change whenever the feedback rises."""
    gold = rng.random(ITEMS) < 0.5
    best = rng.random(ITEMS) < 0.5
    shown = board.show(float((best == gold).mean()))
    for _ in range(SUBMISSIONS - 1):
        tried = best ^ (rng.random(ITEMS) < 0.02)
        answer = board.show(float((tried == gold).mean()))
        if answer > shown:
            best, shown = tried, answer
    return shown, float((best == gold).mean()) - 0.5


@pytest.mark.slow
@pytest.mark.parametrize("attack", [majority_attack, climbing_attack])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_thousand_submissions_gain_no_more_than_the_bound(
    attack: Callable[[np.random.Generator, Board], tuple[float, float]], seed: int
) -> None:
    bound = ladder_bound(ITEMS, SUBMISSIONS, step=STEP)
    assert bound < 0.25  # so that it says something about a score that is really one half
    shown, gain = attack(np.random.default_rng(seed), Board(STEP))
    _, free_gain = attack(np.random.default_rng(seed), Board())
    assert shown - 0.5 <= bound
    assert gain <= STEP / 2
    assert free_gain > 2 * max(gain, STEP / 2)


def test_only_clear_improvements_are_published_and_rounded() -> None:
    state, shown = LadderState(), []
    for score in (0.52, 0.55, 0.56, 0.40, 0.66, 0.67):
        state = ladder_update(state, score, step=0.05)
        shown.append(state.best)
    assert shown == pytest.approx([0.5, 0.5, 0.55, 0.55, 0.65, 0.65])
    assert state.submissions == 6


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60), st.sampled_from([0.01, 0.05, 0.1, 0.3, 1.0]))
def test_the_published_best_rises_and_stays_within_a_step(scores: list[float], step: float) -> None:
    state = LadderState()
    published = []
    for score in scores:
        state = ladder_update(state, score, step=step)
        assert state.best is not None
        published.append(state.best)
    assert published == sorted(published)
    assert len(set(published)) <= 1 / step + 2
    assert -step - 1e-9 <= max(scores) - published[-1] <= 1.5 * step + 1e-9


def test_the_bound_by_hand() -> None:
    leaves = (1 / 0.1 + 2) * math.log(4 * 1000 / 0.1) + 1
    epsilon = math.sqrt((leaves + math.log(20)) / (2 * 4000))
    assert ladder_bound(4000, 1000, step=0.1) == pytest.approx(0.1 + epsilon)
    # Put into the theorem, that ε gives the failure probability that was asked for.
    assert math.exp(-2 * epsilon**2 * 4000 + leaves) == pytest.approx(0.05)


def test_the_best_step_is_a_minimum() -> None:
    step = ladder_step(4000, 1000)
    best = ladder_bound(4000, 1000, step=step)
    assert best < min(ladder_bound(4000, 1000, step=step * factor) for factor in (0.7, 1.4))
    assert ladder_step(400_000, 1000) < step


@pytest.mark.parametrize(("score", "step"), [(1.2, 0.1), (math.nan, 0.1), (0.5, 0.0), (0.5, 2.0)])
def test_wrong_numbers_are_refused(score: float, step: float) -> None:
    with pytest.raises(ValueError, match="number"):
        ladder_update(LadderState(), score, step=step)
