"""What the ``suite`` commands do, for both command lines: paths in, findings out.

Each raises ``GeneratorError``, ``SuiteError`` or ``OSError``, whose messages say what to do. Nothing here prints.
"""

from __future__ import annotations

import os
import secrets
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tiltyard_eval.build import MIN_SECRET_BYTES, build_suite, check_origin, load_recipe
from tiltyard_eval.build_twins import check_twins
from tiltyard_eval.generators.core import LEVELS, REGISTRY, GeneratorError, get_family
from tiltyard_eval.suite import Suite, SuiteError, check_secret, commitment_of, load_suite, verify_suite
from tiltyard_eval.suite.reading import MAX_ITEMS_PER_TASK

if TYPE_CHECKING:
    from tiltyard_eval.screening import Screened

_MAX_SECRET_BYTES: Final = 4096


@dataclass(frozen=True)
class Source:
    """What a suite is made of, as files.

    Args:
        recipe: YAML recipe.
        secret_file: The secret, used byte by byte.
        exclude: Folders of suites whose prompts must not occur.
        opened: Folder of the open suite that the twins are twins of, if the recipe makes any.
    """

    recipe: Path
    secret_file: Path
    exclude: Sequence[Path] = ()
    opened: Path | None = None

    def build(self, out: Path) -> Suite:
        """Make the suite in the folder `out`, which must not exist."""
        recipe, secret = load_recipe(self.recipe), read_secret(self.secret_file)
        return build_suite(recipe, secret, out, excluded(self.exclude), opened=_loaded(self.opened))

    def check(self, suite: Suite) -> None:
        """Build anew, and raise ``SuiteError`` unless that gives the same suite."""
        recipe, secret = load_recipe(self.recipe), read_secret(self.secret_file)
        check_origin(suite, recipe, secret, excluded(self.exclude), opened=_loaded(self.opened))


@dataclass(frozen=True)
class Commitment:
    """The hashes to publish before a round: of the secret, and of the suite if a recipe was given."""

    secret: str
    questions: str | None


def read_secret(path: Path) -> bytes:
    """The secret in a file."""
    with path.open("rb") as file:
        secret = file.read(_MAX_SECRET_BYTES + 1)
    if not MIN_SECRET_BYTES <= len(secret) <= _MAX_SECRET_BYTES:
        raise SuiteError(f"{path}: a secret has {MIN_SECRET_BYTES} to {_MAX_SECRET_BYTES} bytes")
    return secret


def excluded(folders: Sequence[Path]) -> frozenset[str]:
    """All prompts of these suites."""
    return frozenset[str]().union(*(load_suite(folder).prompts() for folder in folders))


def verify(
    folder: Path,
    *,
    sha256: str | None = None,
    secret_file: Path | None = None,
    recipe: Path | None = None,
    exclude: Sequence[Path] = (),
    opened: Path | None = None,
) -> tuple[Suite, tuple[str, ...]]:
    """Check a suite against whatever is given; returns it, and in words what has been checked."""
    suite, checked = verify_suite(folder), ["lock"]
    if sha256 and sha256.removeprefix("sha256:") != suite.sha256.removeprefix("sha256:"):
        raise SuiteError(f"the suite is not the published one: its hash is {suite.sha256}")
    checked += ["published hash"] if sha256 else []
    if recipe and not secret_file:
        raise SuiteError("--recipe needs --secret-file: both make the suite")
    if opened is not None:
        check_twins(suite, load_suite(opened))
        checked.append("twins")
    if secret_file:
        check_secret(suite, read_secret(secret_file))
        checked.append("secret")
        if recipe:
            Source(recipe, secret_file, exclude, opened).check(suite)
            checked.append("built again, the same")
    return suite, tuple(checked)


def commit(
    secret_file: Path, *, recipe: Path | None = None, exclude: Sequence[Path] = (), opened: Path | None = None
) -> Commitment:
    """Make the secret if there is none (32 random bytes, readable by its owner alone), and hash what it decides."""
    try:
        # 0600 from the start: no moment in which another user could read it.
        descriptor = os.open(secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
    secret = read_secret(secret_file)
    if recipe is None:
        return Commitment(commitment_of(secret), None)
    # The secret's hash alone leaves recipe and exclusions open; the suite's own binds every question.
    with tempfile.TemporaryDirectory(prefix="tiltyard-commit-") as folder:
        suite = Source(recipe, secret_file, exclude, opened).build(Path(folder) / "suite")
    return Commitment(commitment_of(secret), suite.sha256)


def reveal(folder: Path, source: Source, out: Path) -> tuple[Suite, str]:
    """Write the secret to `out` if the source gives the suite; returns this, and the arguments that check it."""
    suite, secret = verify_suite(folder), read_secret(source.secret_file)
    if out.resolve().is_relative_to(folder.resolve()):
        raise SuiteError(f"{out}: a file of its own does not belong in a suite; write the secret beside it")
    source.check(suite)
    with out.open("xb") as file:
        file.write(secret)
    check = ["suite", "verify", folder, "--sha256", suite.sha256, "--secret-file", out, "--recipe", source.recipe]
    check += [word for other in source.exclude for word in ("--exclude", other)]
    check += ["--open", source.opened] if source.opened else []
    return suite, shlex.join(map(str, check))


def screen(families: Sequence[str], items: int) -> Iterator[Screened]:
    """Screen these families, or all; each as soon as it is done."""
    from tiltyard_eval.screening import NO_DIGEST, digests_in_other_process, screen_family  # noqa: PLC0415  heavy

    if not len(LEVELS) <= items <= MAX_ITEMS_PER_TASK:
        raise GeneratorError(f"--items must be from {len(LEVELS)} to {MAX_ITEMS_PER_TASK}")
    chosen = [get_family(name) for name in families or REGISTRY]
    digests = digests_in_other_process([fam.name for fam in chosen], items)
    for fam in chosen:
        yield screen_family(fam, items=items, other_process_digest=digests.get(fam.name, NO_DIGEST))


def _loaded(folder: Path | None) -> Suite | None:
    return None if folder is None else load_suite(folder)
