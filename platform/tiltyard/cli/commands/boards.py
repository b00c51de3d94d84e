"""`tiltyard competitions` and `tiltyard leaderboard`."""

from typing import Annotated, Any

import typer

from tiltyard.cli.options import JsonOption, ServerOption, Session, TrackOption
from tiltyard.cli.tables import duels_table, leaderboard_notes, leaderboard_table, table


def competitions(server: ServerOption = None, json_mode: JsonOption = False) -> None:
    """List the competitions of a server."""
    session = Session.open(server, json_mode=json_mode)
    with session.client() as client:
        found = client.competitions()
    session.output.document({"competitions": found})
    if not found:
        session.output.say(f"{session.server} has no competition.")
        return
    rows = [[row.get("slug"), row.get("title"), _phase(row), row.get("summary")] for row in found]
    session.output.show(table(["Slug", "Title", "Phase", "Summary"], rows))


def leaderboard(  # noqa: PLR0917  typer makes options of them, and calls it by name
    competition: Annotated[str, typer.Argument(metavar="COMPETITION", help="The competition's slug.")],
    track: TrackOption = None,
    duels: Annotated[
        bool, typer.Option("--duels", help="Show win rates, strengths and gaps beyond the baselines.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=5000, help="How many entries to show.")] = 100,
    offset: Annotated[int, typer.Option("--offset", min=0, help="How many to pass over before.")] = 0,
    server: ServerOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Show a competition's leaderboard."""
    session = Session.open(server, json_mode=json_mode)
    with session.client() as client:
        board = client.leaderboard(competition, track, limit=limit, offset=offset)
    session.output.document(board)
    session.output.show(duels_table(board) if duels else leaderboard_table(board))
    for note in leaderboard_notes(board):
        session.output.say(note)


def _phase(competition: dict[str, Any]) -> str:
    phase = competition.get("current_phase")
    return str(phase.get("title") if isinstance(phase, dict) else phase or "closed")
