"""What a local evaluation needs to be the server's: suites, limits, base images, seed and evaluator image."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tiltyard.cli.client import ApiClient, Document
from tiltyard.cli.config import cache_dir
from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.unpacking import ARCHIVE_BYTES_MAX, suite_root, unpack_suite
from tiltyard_sandbox.limits import Limits

DEFAULT_EVALUATOR_IMAGE: Final = "tiltyard/evaluator:local"
DEFAULT_BASES: Final = ("tiltyard/runtime:cpu", "tiltyard/python:3.11")
_BUNDLE_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True)
class PlannedSuite:
    """An open suite on disk, checked against its lock."""

    name: str
    title: str
    directory: Path
    sha256: str  # "sha256:…"
    is_open: bool


@dataclass(frozen=True)
class Plan:
    """Everything about an evaluation but the submission."""

    suites: tuple[PlannedSuite, ...]
    limits: Limits
    base_images: tuple[str, ...]
    seed: int = 0
    evaluator_image: str = DEFAULT_EVALUATOR_IMAGE
    evaluator_version: str = ""  # of the server; empty when it is not known
    registries: tuple[str, ...] = ()  # from which named images are fetched


def plan_from_server(client: ApiClient, slug: str, track: str | None) -> Plan:
    """The plan that the server follows for `slug`, with its open suites downloaded once and kept."""
    competition = client.competition(slug)
    evaluator = competition.get("evaluator")
    evaluator = evaluator if isinstance(evaluator, dict) else {}
    suites = [suite for suite in _mappings(competition, "suites") if suite.get("visibility") == "open"]
    if not suites:
        raise CliError(f"{slug} has no open suite, so it cannot be evaluated here. Use `tiltyard submit`.")
    return Plan(
        suites=tuple(_cached_suite(client, slug, suite) for suite in suites),
        limits=_limits(_choose_track(competition, track)),
        base_images=_texts(competition.get("base_images")) or DEFAULT_BASES,
        seed=_seed(evaluator.get("seed", 0)),
        evaluator_image=_evaluator_image(evaluator.get("image")),
        evaluator_version=str(evaluator.get("version", "")),
    )


def plan_from_bundle(directory: Path, track: str | None) -> Plan:
    """The same plan from a competition's bundle on disk, without a server."""
    path = directory / "competition.yaml"
    try:
        with path.open("rb") as file:
            competition = yaml.safe_load(file.read(_BUNDLE_BYTES_MAX))
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}. --competition-dir names a bundle's folder.") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise CliError(f"{path} is not valid YAML.") from None
    if not isinstance(competition, dict):
        raise CliError(f"{path} is not a competition's description.")
    suites = []
    for entry in _mappings(competition, "suites"):
        if not entry.get("path"):
            continue  # drawn from a recipe with the organiser's secret: hidden
        suite_dir = (directory / str(entry["path"])).resolve()
        if not suite_dir.is_relative_to(directory.resolve()):
            raise CliError(f"{path}: the suite {entry.get('path')!r} lies outside the bundle.")
        suite = local_suite(suite_dir)
        if suite.is_open:
            suites.append(suite)
    if not suites:
        raise CliError(f"{path} names no open suite that is present.")
    return Plan(
        suites=tuple(suites),
        limits=_limits(_choose_track(competition, track)),
        base_images=_texts(competition.get("base_images")) or DEFAULT_BASES,
        seed=_seed(competition.get("evaluation_seed", 0)),
        evaluator_image=_evaluator_image(None),
        registries=_texts(competition.get("registries")),
    )


def plan_from_suite(directory: Path) -> Plan:
    """One suite under default limits: for a suite of one's own."""
    return Plan((local_suite(directory),), Limits(), DEFAULT_BASES, evaluator_image=_evaluator_image(None))


def local_suite(directory: Path) -> PlannedSuite:
    """The suite in `directory`, checked against its lock; raises CliError when it differs from it."""
    from tiltyard_eval.suite import SuiteError, verify_suite  # noqa: PLC0415  a fifth of a second, not for --help

    try:
        suite = verify_suite(directory)
    except SuiteError as error:
        raise CliError(f"The suite {directory}: {error}") from None
    return PlannedSuite(suite.name, suite.title, directory.resolve(), suite.sha256, suite.visibility == "open")


def _cached_suite(client: ApiClient, slug: str, suite: Document) -> PlannedSuite:
    """The suite from the cache, which is keyed by its hash, or downloaded into it."""
    digest = str(suite.get("sha256", "")).removeprefix("sha256:")
    if len(digest) != 64 or not all(character in "0123456789abcdef" for character in digest):
        raise CliError(f"The server gives no hash for the suite {suite.get('name')!r}.", ExitCode.PLATFORM)
    kept = cache_dir() / "suites" / digest
    if not kept.is_dir():
        _download(client, slug, str(suite.get("name")), digest, kept)
    return _matching(suite_root(kept), digest)


def _download(client: ApiClient, slug: str, name: str, digest: str, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".download-") as scratch:
        archive, unpacked = Path(scratch) / "suite.tar.gz", Path(scratch) / "suite"
        client.download_suite(slug, name, archive, ARCHIVE_BYTES_MAX)
        unpack_suite(archive, unpacked)
        _matching(suite_root(unpacked), digest)
        if not kept.is_dir():
            unpacked.rename(kept)


def _matching(directory: Path, digest: str) -> PlannedSuite:
    suite = local_suite(directory)
    if suite.sha256.removeprefix("sha256:") != digest:
        raise CliError(
            f"The suite in {directory} is not the one that the competition names. Delete that folder and try again; "
            "if it stays, tell the organisers.",
            ExitCode.PLATFORM,
        )
    return suite


def _choose_track(competition: Mapping[str, Any], wanted: str | None) -> Document:
    tracks = _mappings(competition, "tracks")
    by_slug = {str(track.get("slug")): track for track in tracks}
    if wanted is None and tracks:
        return tracks[0]
    if wanted not in by_slug:
        raise CliError(f"There is no track {wanted!r}. Tracks: {', '.join(by_slug) or 'none'}.")
    return by_slug[wanted]


def _limits(track: Document) -> Limits:
    try:
        return Limits.from_mapping(track.get("limits") or {})
    except (ValueError, TypeError) as error:
        raise CliError(
            f"The track's limits are not understood: {error} Update `tiltyard`.", ExitCode.PLATFORM
        ) from None


def _seed(seed: object) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise CliError("The competition's seed is not a non-negative whole number.", ExitCode.PLATFORM)
    return seed


def _evaluator_image(named_by_server: object) -> str:
    own_choice = os.environ.get("TILTYARD_EVALUATOR_IMAGE")
    return own_choice or (named_by_server if isinstance(named_by_server, str) else "") or DEFAULT_EVALUATOR_IMAGE


def _mappings(values: Mapping[str, Any], key: str) -> list[Document]:
    found = values.get(key)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise CliError(f"The competition has no list of {key}.", ExitCode.PLATFORM)
    return found


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, Sequence) else ()
