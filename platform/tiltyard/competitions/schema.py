"""The format of competition.yaml, checked strictly: an unknown or misspelt key is an error that names it."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from tiltyard.competitions.columns import ColumnNames, RankByEntry, check_columns
from tiltyard.competitions.options import BaselineNames, FeedbackEntry, ScoringEntry, feedback_mode
from tiltyard_sandbox.limits import Limits, parse_size
from tiltyard_sandbox.references import is_registry

SCHEMA = "tiltyard.competition/1"
FILE_NAME = "competition.yaml"
MAX_BYTES = 256 * 1024
NESTING_MAX = 20


class BundleError(Exception):
    """The bundle cannot be imported; the message names the file, the key and what is expected there."""


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _inside(path: str) -> str:
    """A path that stays within the bundle, as text; links are checked when it is opened."""
    pure = Path(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise ValueError("must be a path inside the bundle")
    return path


def _registry(text: str) -> str:
    if not is_registry(text):
        raise ValueError("must be a registry's host in lower case, such as registry.example or registry.example:5000")
    return text


WORKERS_OWN_LIMITS = frozenset({"gpu_uuid", "cpuset", "runtime"})  # a machine's, and not a competition's, to say


def _limits(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of limits, such as cpus: 2")
    if "gpu_uuid" in value:
        raise ValueError("gpu_uuid belongs to a worker, not to a competition; set gpu: true")
    if "cpuset" in value:
        raise ValueError("cpuset belongs to a worker, not to a competition; set cpus")
    if "runtime" in value:
        raise ValueError("runtime belongs to a worker, not to a competition; see TILTYARD_WORKER_RUNTIME")
    return Limits.from_mapping(value)


Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,48}$")]
BundlePath = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_inside)]
Bytes = Annotated[int, BeforeValidator(_size), Field(ge=1024, lt=2**63)]
SubmissionLimits = Annotated[Limits, BeforeValidator(_limits)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class PageEntry(_Entry):
    slug: Slug
    title: str = Field(min_length=1, max_length=80)
    file: BundlePath


class TrackEntry(_Entry):
    slug: Slug
    title: str = Field(min_length=1, max_length=80)
    hardware: str = Field(min_length=1, max_length=120)
    queue: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$")] = "cpu"
    gpu: bool = False
    # Its servers are believed when they report log-likelihoods, which nothing can verify.
    trusted_submissions: bool = False
    columns: ColumnNames = []
    rank_by: RankByEntry | None = None
    limits: SubmissionLimits

    @model_validator(mode="after")
    def _columns_that_are_measured(self) -> Self:
        check_columns(self.columns, self.rank_by, has_gpu=self.gpu)
        return self


class PhaseEntry(_Entry):
    slug: Slug
    title: str = Field(min_length=1, max_length=80)
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    daily_quota: int = Field(default=0, ge=0, lt=2**31)
    total_quota: int = Field(default=0, ge=0, lt=2**31)
    concurrent_quota: int = Field(default=2, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.ends_at <= self.starts_at:
            raise ValueError("ends_at must be after starts_at")
        return self


class SuiteEntry(_Entry):
    """Either a published, locked suite (`path`), or a recipe from which the platform draws one with its own secret."""

    path: BundlePath | None = None
    recipe: BundlePath | None = None
    weight: float = Field(ge=0, le=1000, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.recipe is None):
            raise ValueError("give either path (a locked suite) or recipe (to be drawn with a secret)")
        return self


class BundleFile(_Entry):
    """The whole of competition.yaml."""

    schema_: Literal["tiltyard.competition/1"] = Field(alias="schema")
    slug: Slug
    title: str = Field(min_length=1, max_length=120)
    summary: str = Field(min_length=1, max_length=300)
    public: bool = True
    base_models: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(min_length=1)
    training_data: str = Field(default="", max_length=4000)
    base_images: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(min_length=1)
    registries: list[Annotated[str, Field(max_length=200), AfterValidator(_registry)]] = []
    upload_bytes_max: Bytes | None = None
    evaluation_seed: int = Field(default=0, ge=0, lt=2**31)
    pages: list[PageEntry] = Field(min_length=1)
    tracks: list[TrackEntry] = Field(min_length=1)
    phases: list[PhaseEntry] = Field(min_length=1)
    suites: list[SuiteEntry] = Field(min_length=1)
    baselines: BaselineNames = []
    scoring: ScoringEntry = ScoringEntry()
    feedback: Annotated[FeedbackEntry, BeforeValidator(feedback_mode)] = FeedbackEntry()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, entries in (("pages", self.pages), ("tracks", self.tracks), ("phases", self.phases)):
            slugs = [entry.slug for entry in entries]
            if len(set(slugs)) != len(slugs):
                raise ValueError(f"{name}: two entries have the same slug")
        if not any(suite.weight > 0 for suite in self.suites):
            raise ValueError("suites: at least one needs a weight above 0")
        if self.scoring.base is not None and self.scoring.base not in self.baselines:
            raise ValueError(f"scoring.base: {self.scoring.base!r} is not among baselines; add it there")
        return self


def read_bundle_file(directory: Path) -> BundleFile:
    """Read and check competition.yaml; raises BundleError naming every wrong key."""
    path = directory / FILE_NAME
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    if len(text) > MAX_BYTES:
        raise BundleError(f"{path} is larger than {MAX_BYTES // 1024} KiB.")
    try:
        _check_shape(path, text)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path} is not valid YAML: {error}") from error
    try:
        return BundleFile.model_validate(values)
    except ValidationError as error:
        raise BundleError("\n".join(_explain(path, problem) for problem in error.errors())) from error


def _check_shape(path: Path, text: bytes) -> None:
    """Refuse what no bundle needs: aliases describe gigabytes in a few bytes, and each level slows the parser."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise BundleError(f"{path} uses YAML aliases (*name). Write the values out.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > NESTING_MAX:
            raise BundleError(f"{path} is nested more than {NESTING_MAX} levels deep.")


def _explain(path: Path, problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unknown key; remove it or correct its spelling"
    return f"{path}: {key}: {message}."
