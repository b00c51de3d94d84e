"""The overfit gap, its flag, and twins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from tiltyard_eval.stats import Stratum
from tiltyard_eval.stats.gap import OpenHidden, gap, holm, overfit_tests, twin_gap

BASELINES = [(0.35, 0.40), (0.50, 0.58), (0.60, 0.72)]  # gaps of −5, −8 and −12 points
MEMORISER = (1.00, 0.30)


def play(rng: np.random.Generator, means: list[tuple[float, float]], *, tasks: int, items: int) -> list[OpenHidden]:
    """Entries with these open and hidden means; what is hard for one tends to be hard for all."""
    shared = [rng.standard_normal((tasks, items)) for _ in range(2)]
    entries = []
    for pair in means:
        suites = [
            np.sqrt(0.5) * ease + np.sqrt(0.5) * rng.standard_normal((tasks, items)) for ease in shared
        ]  # (tasks, items) each, standard normal
        strata = [
            [Stratum(list((row < mean).astype(float)), 1.0) for row in ndtr(suite)]
            for suite, mean in zip(suites, pair, strict=True)
        ]
        entries.append(OpenHidden(*strata))
    return entries


SIZES = pytest.mark.parametrize(
    ("tasks", "items", "competitions"), [(8, 60, 1000), (8, 20, 200), (4, 10, 400)], ids=["usual", "fewer", "few"]
)


@pytest.mark.slow
@SIZES
def test_honest_entries_are_not_flagged(tasks: int, items: int, competitions: int) -> None:
    """An entry with the gap of the nearest baseline, even without a margin, and one that loses all that is allowed."""
    rng = np.random.default_rng(1)
    equal = beyond = 0
    for _ in range(competitions):
        *baselines, honest, lenient = play(rng, [*BASELINES, (0.55, 0.60), (0.60, 0.60)], tasks=tasks, items=items)
        equal += overfit_tests([honest], baselines, margin=0.0)[0].flagged
        beyond += overfit_tests([lenient], baselines)[0].flagged
    assert equal / competitions <= 0.05
    assert beyond / competitions <= 0.05


@pytest.mark.slow
def test_a_whole_board_of_honest_entries_is_hardly_ever_accused() -> None:
    """Honest gaps differ: here by 3 points (standard deviation), and six entries are tested at once."""
    rng = np.random.default_rng(2)
    accused = 0
    for _ in range(300):
        gaps, levels = rng.normal(-0.08, 0.03, 9), rng.uniform(0.3, 0.7, 9)
        means = [(float(level), float(level - lost)) for level, lost in zip(levels, gaps, strict=True)]
        entries = play(rng, means, tasks=8, items=60)
        accused += any(test.flagged for test in overfit_tests(entries[3:], entries[:3]))
    assert accused / 300 <= 0.05


@pytest.mark.slow
@SIZES
def test_the_memoriser_is_found(tasks: int, items: int, competitions: int) -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(competitions):
        *baselines, memoriser, honest = play(rng, [*BASELINES, MEMORISER, (0.5, 0.55)], tasks=tasks, items=items)
        found += overfit_tests([memoriser, honest], baselines)[0].flagged
    assert found / competitions >= 0.95


def test_the_nearest_baseline_speaks_for_the_entry() -> None:
    *baselines, memoriser = play(np.random.default_rng(4), [*BASELINES, MEMORISER], tasks=8, items=60)
    (found,) = overfit_tests([memoriser], baselines)
    gaps = [gap(baseline.open, baseline.hidden).value for baseline in baselines]
    assert found.excess.value == pytest.approx(found.gap.value - gaps[found.nearest])
    assert found.p_value == max(overfit_tests([memoriser], [baseline])[0].p_value for baseline in baselines)
    assert found.p_value < 1e-6


def test_a_baseline_is_never_flagged_against_itself() -> None:
    baselines = play(np.random.default_rng(5), [*BASELINES, MEMORISER], tasks=4, items=20)
    for test in overfit_tests(baselines, baselines, margin=0.0):
        assert not test.flagged


def test_the_flag_needs_baselines_on_the_same_items() -> None:
    one, other = (play(np.random.default_rng(0), [MEMORISER], tasks=2, items=n) for n in (5, 6))
    with pytest.raises(ValueError, match="give at least one"):
        overfit_tests(one, [])
    with pytest.raises(ValueError, match="same items"):
        overfit_tests(one, other)


def test_the_gap_is_a_difference_of_scores() -> None:
    found = gap([Stratum([1.0] * 80 + [0.0] * 20, 1.0)], [Stratum([1.0] * 40 + [0.0] * 60, 5.0)])
    assert found.value == pytest.approx(0.4)
    half_width = 1.96 * np.sqrt(0.8 * 0.2 / 100 + 0.4 * 0.6 / 100)
    assert (found.low, found.high) == pytest.approx((0.4 - half_width, 0.4 + half_width), abs=0.01)
    with pytest.raises(ValueError, match="needs items"):
        gap([Stratum([1.0], 1.0)], [])


def test_twins_show_memorising_that_difficulty_hides() -> None:
    """Items between very easy and very hard: pairs tell 10 points of memorising, where loose items cannot."""
    rng = np.random.default_rng(8)
    ease = np.where(rng.random(150) < 0.5, 0.02, 0.9)
    hidden = (rng.random(150) < ease).astype(float)
    opened = np.maximum(hidden, rng.random(150) < 0.1)
    paired = twin_gap([Stratum(list(opened), 1.0)], [Stratum(list(hidden), 1.0)])
    loose = gap([Stratum(list(opened), 1.0)], [Stratum(list(hidden), 1.0)])
    assert paired.value == pytest.approx(loose.value)
    assert paired.low > 0.0 > loose.low
    assert paired.p_value < 0.05


def test_twins_of_one_skeleton_are_one_observation() -> None:
    opened, hidden = [1.0, 0.0] * 20, [0.0, 0.0] * 20
    alone = twin_gap([Stratum(opened, 1.0)], [Stratum(hidden, 1.0)])
    skeletons = [index // 10 for index in range(40)]
    shared = twin_gap([Stratum(opened, 1.0, skeletons)], [Stratum(hidden, 1.0, skeletons)])
    assert shared.value == alone.value
    with pytest.raises(ValueError, match="same items"):
        twin_gap([Stratum([1.0, 0.0], 1.0)], [Stratum([1.0], 1.0)])


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_holms_correction(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= min(1.0, p * len(p_values)) + 1e-12 for p, c in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
