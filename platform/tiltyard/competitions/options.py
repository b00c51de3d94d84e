"""What a bundle may say of scoring, feedback and baselines; the checks that need no suite."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

EntryName = Annotated[str, Field(min_length=1, max_length=80)]
Ceiling = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
DEFAULT_STEP = 0.05


class ScoringEntry(BaseModel):
    """`scoring:` of competition.yaml: how suites and tasks become the number by which a board is ranked.

    `weighted_mean` is Σ share·task mean. `normalised` puts each task between a baseline's mean (0) and a ceiling (1)
    first. `geometric_mean_of_win_rates` is the 2023 LLM Efficiency Challenge's: within each suite the geometric mean,
    over scenarios, of the share of other entries that an entry beats.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Literal["weighted_mean", "normalised", "geometric_mean_of_win_rates"] = "weighted_mean"
    base: EntryName | None = None
    ceilings: dict[str, Ceiling] = {}
    scenario: Literal["task", "family"] | None = None
    nulls: Literal["loss", "skip"] | None = None
    smoothing: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _keys_of_the_rule(self) -> Self:
        allowed = {
            "weighted_mean": set[str](),
            "normalised": {"base", "ceilings"},
            "geometric_mean_of_win_rates": {"scenario", "nulls", "smoothing"},
        }[self.rule]
        if stray := sorted(self.model_fields_set - {"rule"} - allowed):
            known = ", ".join(sorted(allowed)) or "no other key"
            raise ValueError(f"{', '.join(stray)}: not for rule {self.rule}, which takes {known}")
        if self.rule == "normalised" and self.base is None:
            raise ValueError("base: name the baseline whose score counts as 0")
        return self

    def stored(self) -> dict[str, object]:
        """As the database keeps it: every option of the rule, with its default."""
        if self.rule == "normalised":
            return {"rule": self.rule, "base": self.base, "ceilings": dict(sorted(self.ceilings.items()))}
        if self.rule == "geometric_mean_of_win_rates":
            return {
                "rule": self.rule,
                "scenario": self.scenario or "task",
                "nulls": self.nulls or "loss",
                "smoothing": 0.5 if self.smoothing is None else self.smoothing,
            }
        return {"rule": self.rule}


class FeedbackEntry(BaseModel):
    """`feedback:` of competition.yaml: what of hidden scores is shown while a round is on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["full", "ladder", "none"] = "full"
    step: Annotated[float, Field(ge=0.001, le=0.5, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _step_of_the_ladder(self) -> Self:
        if self.step is not None and self.mode != "ladder":
            raise ValueError(f"step: not for mode {self.mode}; only a ladder has steps")
        return self

    def stored(self) -> dict[str, object]:
        return {"mode": self.mode} | ({"step": self.step or DEFAULT_STEP} if self.mode == "ladder" else {})


def feedback_mode(value: object) -> object:
    """`feedback: ladder` is short for `feedback: {mode: ladder}`."""
    return {"mode": value} if isinstance(value, str) else value


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError("a name stands there twice")
    return names


BaselineNames = Annotated[list[EntryName], AfterValidator(_distinct)]
