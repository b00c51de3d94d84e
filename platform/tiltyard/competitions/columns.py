"""Columns that a track may have beside the score, made of what its runs used; a track may also be ranked by one.

The figures are measured from outside (`evaluation.metering`) and public with two digits that count, because a server
could write a hidden question into the last digits of what it uses.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


@dataclass(frozen=True)
class Column:
    """One figure of a run.

    Attributes:
        name: As in competition.yaml, CSV and API.
        source: The field of ResourceUse that it is made of.
        more_is_better: None where neither is, and nothing is ranked by it.
        of_score: Whether it is the score, 0..1, divided by the source.
        needs_gpu: Whether it is measured on GPUs only.
    """

    name: str
    title: str
    unit: str
    source: str
    more_is_better: bool | None
    of_score: bool = False
    needs_gpu: bool = False


COLUMNS: Final[dict[str, Column]] = {
    column.name: column
    for column in (
        Column("tokens_per_s", "Tokens per second", "tokens/s", "tokens_per_s", True),
        Column("wall_s", "Time", "s", "wall_s", False),
        Column("cpu_s", "CPU time", "s", "cpu_s", False),
        Column("memory_peak_bytes", "Peak memory", "bytes", "memory_peak_bytes", False),
        Column("accuracy_per_cpu_s", "Accuracy per CPU second", "1/s", "cpu_s", True, of_score=True),
        Column("energy_j", "Energy", "J", "energy_j", False, needs_gpu=True),
        Column("accuracy_per_joule", "Accuracy per joule", "1/J", "energy_j", True, of_score=True, needs_gpu=True),
        Column("gpu_utilisation", "GPU utilisation", "share", "gpu_utilisation", None, needs_gpu=True),
        Column("gpu_memory_peak_bytes", "Peak GPU memory", "bytes", "gpu_memory_peak_bytes", False, needs_gpu=True),
    )
}


def _known(name: str) -> str:
    if name not in COLUMNS:
        raise ValueError(f"{name!r} is no column; there are {', '.join(COLUMNS)}")
    return name


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError("a column stands there twice")
    return names


ColumnName = Annotated[str, AfterValidator(_known)]
ColumnNames = Annotated[list[ColumnName], Field(max_length=4), AfterValidator(_distinct)]


class RankByEntry(BaseModel):
    """`rank_by:` of a track: entries stand in the order of a column, those with less than `min_score` below, unranked.

    Without a bound the fastest way to answer is to answer nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: ColumnName
    min_score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _can_rank(self) -> Self:
        if COLUMNS[self.column].more_is_better is None:
            raise ValueError(f"column: nothing is ranked by {self.column}, of which neither more nor less is better")
        return self


def check_columns(columns: list[str], rank_by: RankByEntry | None, *, has_gpu: bool) -> None:
    """Raise ValueError where a track could never show what it declares."""
    if rank_by is not None and rank_by.column not in columns:
        raise ValueError(f"rank_by.column: {rank_by.column!r} is not among columns; add it there")
    if not has_gpu and (blind := [name for name in columns if COLUMNS[name].needs_gpu]):
        raise ValueError(f"columns: {', '.join(blind)} {'is' if len(blind) == 1 else 'are'} measured on GPUs only")
