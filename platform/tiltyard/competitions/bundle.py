"""Import a competition from its bundle: a folder with competition.yaml, pages in Markdown, and suites.

An import makes the database say what the bundle says. Importing the same bundle twice changes nothing.
"""

import hashlib
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from django.db import transaction
from django.db.models import Model, ProtectedError, QuerySet

from tiltyard.competitions.models import Competition, Page, Phase, Suite, Track
from tiltyard.competitions.schema import (
    FILE_NAME,
    WORKERS_OWN_LIMITS,
    BundleError,
    BundleFile,
    SuiteEntry,
    TrackEntry,
    read_bundle_file,
)
from tiltyard.competitions.suite_store import content_name, draw_suite, install_suite, read_published
from tiltyard_eval import suite as suites
from tiltyard_sandbox.pair import WRITING_S

__all__ = ["BundleError", "import_bundle"]

_PAGE_BYTES_MAX = 1 << 20
M = TypeVar("M", bound=Model)


def import_bundle(directory: Path, *, secrets_dir: Path, trust_suites: bool = False) -> Competition:
    """Create or update the competition that `directory` describes.

    Args:
        directory: The bundle.
        secrets_dir: Where the secrets of drawn suites are kept, one file each, readable by this account only.
        trust_suites: Take published suites whose task files may run any code (format lm-eval); for bundles of one's
            own only.

    Raises:
        BundleError: When anything is wrong with the bundle; nothing has been changed then.
    """
    _check_kinds(directory)
    bundle = read_bundle_file(directory)
    _check_deadline(directory, bundle)
    pages = [_read_page(directory, entry.file) for entry in bundle.pages]
    with tempfile.TemporaryDirectory(prefix="tiltyard-suites-") as scratch:
        loaded = _load_suites(directory, bundle, secrets_dir / bundle.slug, Path(scratch), trusted=trust_suites)
        _check_trust(directory, bundle, loaded)
        _check_scoring(directory, bundle, loaded)
        for suite in loaded:
            install_suite(suite, trusted=trust_suites)
        with transaction.atomic():
            competition = _save_competition(bundle, _bundle_sha256(directory, pages, loaded))
            _save_pages(competition, bundle, pages)
            _save_tracks(competition, bundle)
            _save_phases(competition, bundle)
            _save_suites(competition, bundle.suites, loaded)
    return competition


def _check_kinds(directory: Path) -> None:
    """Refuse what is no file: a pipe would be waited for, and a device read, for ever."""
    for path in directory.rglob("*"):
        try:
            mode = path.stat().st_mode
        except OSError:  # a link that leads nowhere, or in a circle: who reads it says so
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise BundleError(f"{path} is neither a file nor a folder. Remove it.")


def _check_deadline(directory: Path, bundle: BundleFile) -> None:
    """Refuse a track on which an honest run could outlast the deadline of an attempt, and be stopped as our failure."""
    for order, track in enumerate(bundle.tracks):
        limits = track.limits
        suite_s = limits.start_s + limits.evaluate_s + WRITING_S
        attempt_s = limits.build_s + len(bundle.suites) * suite_s
        if attempt_s > settings.RUN_DEADLINE_S:
            raise BundleError(
                f"{directory / FILE_NAME}: tracks.{order}.limits: a run may take {attempt_s:g} s (build_s, and for "
                f"each suite start_s, evaluate_s and {WRITING_S:g} s to score), more than this site's "
                f"{settings.RUN_DEADLINE_S} s. Lower them, or raise TILTYARD_RUN_DEADLINE_S."
            )


def _check_trust(directory: Path, bundle: BundleFile, loaded: Iterable[suites.Suite]) -> None:
    """Refuse suites that believe the server in tracks where anybody's server may run."""
    for suite in loaded:
        for order, track in enumerate(bundle.tracks):
            if suite.trusts_server and not track.trusted_submissions:
                raise BundleError(
                    f"{directory / FILE_NAME}: tracks.{order}.trusted_submissions: the suite {suite.name!r} has "
                    "trusts_server: true, so it sends gold answers to the server and believes the log-likelihoods that "
                    "it reports. A cheat could report anything. Say trusted_submissions: true if every submission in "
                    f"the track {track.slug!r} is trusted, or use a suite that asks for texts."
                )


def _check_scoring(directory: Path, bundle: BundleFile, loaded: Iterable[suites.Suite]) -> None:
    known = {task.name for suite in loaded for task in suite.tasks}
    if unknown := sorted(set(bundle.scoring.ceilings) - known):
        raise BundleError(
            f"{directory / FILE_NAME}: scoring.ceilings: no suite has the task{'s' * (len(unknown) > 1)} "
            f"{', '.join(map(repr, unknown))}. Tasks are {', '.join(sorted(known))}."
        )
    if bundle.feedback.mode != "full" and not any(suite.visibility == "hidden" for suite in loaded):
        raise BundleError(
            f"{directory / FILE_NAME}: feedback: there is no hidden suite whose scores could be withheld. "
            "Remove the key, or add a hidden suite."
        )


def _inside(directory: Path, relative: str) -> Path:
    try:
        path = (directory / relative).resolve()
    except RuntimeError:  # a link that leads to itself
        raise BundleError(f"{directory / FILE_NAME}: {relative} is a link that leads nowhere.") from None
    if not path.is_relative_to(directory.resolve()):
        raise BundleError(f"{directory / FILE_NAME}: {relative} leads out of the bundle.")
    return path


def _read_page(directory: Path, relative: str) -> str:
    path = _inside(directory, relative)
    try:
        with path.open("rb") as file:
            content = file.read(_PAGE_BYTES_MAX + 1)
        text = content.decode("utf-8")
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise BundleError(f"{path} is not UTF-8 text.") from None
    if len(content) > _PAGE_BYTES_MAX:
        raise BundleError(f"{path} is larger than {_PAGE_BYTES_MAX >> 20} MiB.")
    return text


def _load_suites(
    directory: Path, bundle: BundleFile, secrets_dir: Path, scratch: Path, *, trusted: bool
) -> list[suites.Suite]:
    """The suites in the bundle's order; drawn ones never repeat a question of the published ones."""
    published = {
        entry.path: read_published(_inside(directory, entry.path), trusted=trusted)
        for entry in bundle.suites
        if entry.path
    }
    prompts: set[str] = set().union(*(suite.prompts() for suite in published.values()))
    loaded = []
    for entry in bundle.suites:
        if entry.path:
            loaded.append(published[entry.path])
        elif entry.recipe:
            recipe = _inside(directory, entry.recipe)
            secret = secrets_dir / f"{recipe.name.split('.')[0]}.secret"
            suite = draw_suite(recipe, secret, scratch, prompts, published.values())
            prompts |= suite.prompts()
            loaded.append(suite)
    if len({suite.name for suite in loaded}) != len(loaded):
        raise BundleError(f"{directory / FILE_NAME}: suites: two suites have the same name.")
    return loaded


def _bundle_sha256(directory: Path, pages: Iterable[str], loaded: Iterable[suites.Suite]) -> str:
    digest = hashlib.sha256((directory / FILE_NAME).read_bytes())
    for part in (*pages, *(suite.sha256 for suite in loaded)):
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def _save_competition(bundle: BundleFile, sha256: str) -> Competition:
    return _upsert(
        Competition.objects.filter(slug=bundle.slug),
        Competition(slug=bundle.slug),
        title=bundle.title,
        summary=bundle.summary,
        is_public=bundle.public,
        allowed_base_models=bundle.base_models,
        allowed_training_data=bundle.training_data,
        base_images=bundle.base_images,
        registries=bundle.registries,
        upload_bytes_max=bundle.upload_bytes_max or 0,
        evaluation_seed=bundle.evaluation_seed,
        reference_baselines=bundle.baselines,
        scoring=bundle.scoring.stored(),
        feedback=bundle.feedback.stored(),
        bundle_sha256=sha256,
    )


def _save_pages(competition: Competition, bundle: BundleFile, texts: Iterable[str]) -> None:
    for order, (entry, text) in enumerate(zip(bundle.pages, texts, strict=True)):
        existing = competition.pages.filter(slug=entry.slug)
        _upsert(existing, Page(competition=competition, slug=entry.slug), title=entry.title, body=text, order=order)
    competition.pages.exclude(slug__in=[entry.slug for entry in bundle.pages]).delete()


def _save_tracks(competition: Competition, bundle: BundleFile) -> None:
    for order, entry in enumerate(bundle.tracks):
        _upsert(
            competition.tracks.filter(slug=entry.slug),
            Track(competition=competition, slug=entry.slug),
            title=entry.title,
            hardware=entry.hardware,
            queue=entry.queue,
            needs_gpu=entry.gpu,
            trusted_submissions=entry.trusted_submissions,
            columns=entry.columns,
            rank_by=entry.rank_by.model_dump() if entry.rank_by else None,
            limits=_limits(entry),
            order=order,
        )
    _delete_unused(competition.tracks.exclude(slug__in=[entry.slug for entry in bundle.tracks]), "track")


def _limits(entry: TrackEntry) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(entry.limits).items() if name not in WORKERS_OWN_LIMITS}
    if hosts := kept.pop("build_hosts"):  # left out when there are none: commands of before do not know it
        kept["build_hosts"] = list(hosts)
    return kept


def _save_phases(competition: Competition, bundle: BundleFile) -> None:
    for order, entry in enumerate(bundle.phases):
        existing = competition.phases.filter(slug=entry.slug)
        fields = entry.model_dump(exclude={"slug"})
        _upsert(existing, Phase(competition=competition, slug=entry.slug), order=order, **fields)
    _delete_unused(competition.phases.exclude(slug__in=[entry.slug for entry in bundle.phases]), "phase")


def _save_suites(competition: Competition, entries: Iterable[SuiteEntry], loaded: Iterable[suites.Suite]) -> None:
    kept = []
    for order, (entry, suite) in enumerate(zip(entries, loaded, strict=True)):
        sha256 = content_name(suite)
        kept.append(sha256)
        _upsert(
            competition.suites.filter(sha256=sha256),
            Suite(competition=competition, sha256=sha256),
            name=suite.name,
            title=suite.title,
            version=suite.version,
            visibility=suite.visibility,
            weight=entry.weight,
            tasks=[
                {"name": t.name, "title": t.title, "family": t.family, "weight": t.weight, "items": len(t.items)}
                for t in suite.tasks
            ],
            is_active=True,
            order=order,
        )
    competition.suites.exclude(sha256__in=kept).update(is_active=False)


def _upsert(existing: QuerySet[M], new: M, **fields: Any) -> M:
    """The one row of `existing`, or `new`, with these fields; saved only when something differs."""
    row = existing.first() or new
    if row.pk is not None and all(getattr(row, name) == value for name, value in fields.items()):
        return row
    for name, value in fields.items():
        setattr(row, name, value)
    # Of an old row these fields alone: what else is in it, such as a board's revision, others write meanwhile.
    row.save(update_fields=None if row.pk is None else list(fields))
    return row


def _delete_unused(rows: QuerySet[Any], kind: str) -> None:
    for row in rows:
        try:
            row.delete()
        except ProtectedError:
            raise BundleError(
                f"The {kind} {row.slug!r} has submissions, so it cannot be removed. Put it back into {FILE_NAME}."
            ) from None
