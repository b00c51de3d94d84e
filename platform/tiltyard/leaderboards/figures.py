"""What the columns of a track say of a run: figures of its resources, rounded for the public."""

from collections.abc import Sequence
from typing import Final

from django.db.models import Expression, ExpressionWrapper, F, FloatField, Value
from django.db.models.functions import NullIf

from tiltyard.competitions.columns import COLUMNS, Column
from tiltyard.leaderboards.standings import Standing
from tiltyard.submissions.models import ResourceUse, Run
from tiltyard.submissions.models.resources import two_digits

_KILO: Final = 1000.0


def columns_of(names: Sequence[str]) -> list[Column]:
    return [COLUMNS[name] for name in names if name in COLUMNS]


def figures(standing: Standing, columns: Sequence[Column]) -> dict[str, float | None]:
    """By the column's name; None for what was not measured. `standing` holds only scores that may be shown."""
    return {column.name: _figure(standing, column) for column in columns}


def _resources(run: Run) -> ResourceUse | None:
    try:
        return run.resources
    except ResourceUse.DoesNotExist:
        return None


def _figure(standing: Standing, column: Column) -> float | None:
    value = None if standing.resources is None else standing.resources.shown()[column.source]
    if value is None or not column.of_score:
        return value
    return two_digits(standing.score / value) if standing.score is not None and value > 0 else None


def resources_of(run: Run) -> list[tuple[str, str | None]]:
    """(title, figure in words) of all that is measured, None for what was not; empty where nothing could be."""
    used = _resources(run)
    if used is None:
        return []
    shown = used.shown()
    measured = [column for column in COLUMNS.values() if not column.of_score]
    return [
        (column.title, None if shown[column.source] is None else in_words(column, shown[column.source]))
        for column in measured
    ]


def in_sql(column: Column, shown_score: F) -> F | Expression:
    """The same figure for the database, not rounded: it only chooses between the runs of one participant."""
    source = F(f"resources__{column.source}")
    if not column.of_score:
        return source
    return ExpressionWrapper(shown_score / NullIf(source, Value(0.0)), output_field=FloatField())


def in_words(column: Column, value: float | None) -> str:
    """A figure as pages and the command show it."""
    if value is None:
        return "not measured"
    if column.of_score:  # as points of a hundred for what one can imagine: a kilojoule, a minute
        scale, unit = (100 * _KILO, "points/kJ") if column.source == "energy_j" else (6000.0, "points/min")
        return f"{plain(scale * value)} {unit}"
    if column.unit == "bytes":
        return f"{plain(value / 2**20)} MiB" if value < 2**30 else f"{plain(value / 2**30)} GiB"
    if column.unit == "share":
        return f"{plain(100 * value)} %"
    if column.unit == "J" and value >= _KILO:
        return f"{plain(value / _KILO)} kJ"
    return f"{plain(value)} {column.unit}"


def plain(value: float) -> str:
    """Two digits that count without an exponent: 0.0046, 4.6, 46, 460, 4,600."""
    rounded = two_digits(value)
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.10f}".rstrip("0").rstrip(".")
