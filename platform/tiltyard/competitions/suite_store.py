"""Where suites lie on this machine: one read-only directory per content, named by its hash.

SUITE_DIR/<sha256>/        mounted read-only into evaluator containers
SUITE_DIR/<sha256>.tar.gz  of open suites, for participants
"""

import gzip
import os
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

from django.conf import settings

from tiltyard.competitions.schema import BundleError
from tiltyard_eval.build import build_suite, load_recipe
from tiltyard_eval.generators.core import GeneratorError
from tiltyard_eval.suite import Suite, SuiteError, load_suite

SECRET_BYTES = 32


def content_name(suite: Suite) -> str:
    """The suite's hash without its prefix: 64 hexadecimal digits."""
    return suite.sha256.removeprefix("sha256:")


def read_published(folder: Path, *, trusted: bool = False) -> Suite:
    """A locked suite of a bundle; raises BundleError when it differs from its lock or would have to be trusted."""
    try:
        return load_suite(folder, trusted=trusted)
    except SuiteError as error:
        raise BundleError(f"{folder}: {error}") from error


def draw_suite(
    recipe_path: Path, secret_path: Path, scratch: Path, exclude: AbstractSet[str], published: Iterable[Suite]
) -> Suite:
    """Make a recipe's suite in `scratch`, with the secret kept at `secret_path`, drawn at the first call.

    The open suite that its twins are of, if any, is one of `published`.
    """
    try:
        recipe = load_recipe(recipe_path)
        opened = None
        if (plan := recipe.twins) is not None:
            opened = next((suite for suite in published if suite.name == plan.of), None)
            if opened is None:
                raise BundleError(
                    f"{recipe_path}: twins: the bundle has no published suite {plan.of!r}. Add its folder to suites."
                )
        secret = _secret(secret_path)
        return build_suite(recipe, secret, scratch / recipe.name, exclude=frozenset(exclude), opened=opened)
    except (GeneratorError, SuiteError) as error:
        raise BundleError(f"{recipe_path}: {error}") from error


def install_suite(suite: Suite, *, trusted: bool = False) -> None:
    """Copy a suite to its place and verify the copy there; one that is there already is only verified."""
    target = Path(settings.SUITE_DIR) / content_name(suite)
    if not target.exists():
        staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=settings.SUITE_DIR))
        try:
            shutil.copytree(suite.root, staged, dirs_exist_ok=True)
            _make_read_only(staged)
            staged.rename(target)
        except BaseException:  # also on an interrupt: leave no half-made directory
            _remove(staged)
            raise
    if load_suite(target, trusted=trusted).sha256 != suite.sha256:
        raise BundleError(f"{target} does not hold what its name says. Remove it and import again.")
    if suite.visibility == "open":
        _archive(suite, target)


def _archive(suite: Suite, source: Path) -> None:
    """The suite as a deterministic .tar.gz: sorted, no times, no owners."""
    target = source.with_name(f"{source.name}.tar.gz")
    if target.exists():
        return
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    with (
        staged.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path in sorted(source.rglob("*")):
            archive.add(path, arcname=f"{suite.name}/{path.relative_to(source)}", recursive=False, filter=_plain)
    staged.rename(target)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o755 if member.isdir() else 0o644
    return member


def _secret(path: Path) -> bytes:
    """The secret at `path`, drawn once. It decides hidden questions, so only the platform's own account may read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        secret = path.read_bytes()
        if len(secret) != SECRET_BYTES:
            raise BundleError(
                f"{path} does not hold a secret of {SECRET_BYTES} bytes. Restore it from a backup; a new "
                "secret makes a new hidden suite, and scores on the old one are no longer ranked."
            ) from None
        return secret
    with os.fdopen(descriptor, "wb") as file:
        secret = secrets.token_bytes(SECRET_BYTES)
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    return secret


def _make_read_only(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def _remove(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(root, ignore_errors=True)
