"""The leaderboard as the command shows it, from documents as servers send them."""

from typing import Any

from rich.console import Console

from tiltyard.cli.tables import duels_table, leaderboard_notes, leaderboard_table

STATISTICS = {
    "rank_low": 1,
    "rank_high": 3,
    "group": 2,
    "win_rate": 0.75,
    "strength": {"value": 0.5, "low": 0.25, "high": 0.75},
    "excess": {"value": 0.3, "low": 0.2, "high": 0.4, "baseline": "lora", "p_value": 0.001, "flagged": True},
    "twins": None,
}


def entry(**changes: object) -> dict[str, Any]:
    score = {"value": 0.5, "low": 0.45, "high": 0.55}
    row = {"rank": 1, "name": "mine", "owner": "ada", "is_baseline": False, "is_reference": False}
    row |= {"score": score, "open": score, "hidden": score, "gap": score, "statistics": STATISTICS}
    return row | changes


def shown(table: object) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_possible_ranks_groups_and_flags() -> None:
    text = shown(leaderboard_table({"entries": [entry(), entry(rank=None, is_baseline=True, statistics=None)]}))
    assert "1–3" in text
    assert "50.0 [45.0, 55.0] flagged" in text
    assert "mine (example)" in text


def test_a_board_without_statistics_has_no_columns_for_them() -> None:
    text = shown(leaderboard_table({"entries": [entry(statistics=None)]}))
    assert "Possible" not in text
    assert "flagged" not in text


def test_what_the_ladder_publishes_has_no_bounds() -> None:
    ladder = {"value": 0.4, "low": None, "high": None}
    board = {"feedback": "ladder", "entries": [entry(score=ladder, hidden=ladder, gap=None, statistics=None)]}
    assert "40.0 [" not in shown(leaderboard_table(board))
    assert leaderboard_notes(board) == ["Hidden scores are published in steps until the round is over."]


def test_win_rates_and_gaps_beyond_the_baselines() -> None:
    text = shown(duels_table({"entries": [entry()]}))
    assert "75.0" in text
    assert "30.0 [20.0, 40.0] over lora" in text


def test_what_the_board_says_of_itself() -> None:
    board = {
        "detectable": {"ranking": 0.021},
        "correlation": {"value": 0.8312, "low": 0.4, "high": 0.95},
        "problem": "The baseline has not been scored yet.",
    }
    assert leaderboard_notes(board) == [
        "Entries closer than 2.1 points cannot be relied on to be told apart.",
        "Rank correlation of open and hidden scores: 0.83 [0.40, 0.95].",
        "Ranked by the weighted mean for now: The baseline has not been scored yet.",
    ]


def test_an_older_servers_board_is_shown_too() -> None:
    row = {key: value for key, value in entry().items() if key not in {"statistics", "is_reference"}}
    assert "mine (baseline)" in shown(leaderboard_table({"entries": [row | {"is_baseline": True}]}))
    assert leaderboard_notes({"entries": [row]}) == []
