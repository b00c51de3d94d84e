"""``generate`` and ``suite …``: make training data and suites from generators, lock and verify suites."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltyard_eval.build import MIN_SECRET_BYTES, build_suite, check_origin, load_recipe
from tiltyard_eval.files import write_atomically
from tiltyard_eval.generators.core import REGISTRY, GeneratorError
from tiltyard_eval.generators.mix import draw_mix, load_mix
from tiltyard_eval.suite import Suite, SuiteError, check_secret, load_suite, lock_suite, verify_suite

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[Any]  # the parser's class is the caller's

EXIT_BAD_INPUT = 2
_MAX_SECRET_BYTES = 4096


def add_commands(subparsers: Subparsers) -> None:
    """Add ``generate``, ``families`` and ``suite`` to the command line; each sets ``func(args) -> int``."""
    _add_generate(subparsers)
    families = subparsers.add_parser("families", help="list the families of questions that generators make")
    families.set_defaults(func=_reporting(_families))
    suite = subparsers.add_parser("suite", help="build, lock and verify suites")
    actions = suite.add_subparsers(dest="suite_command", required=True)
    build = actions.add_parser("build", help="make a suite from a recipe and a secret")
    build.add_argument("recipe", type=Path, help="YAML recipe")
    build.add_argument("--secret-file", type=Path, required=True, help=f"at least {MIN_SECRET_BYTES} bytes, used as is")
    build.add_argument("--out", type=Path, required=True, help="folder to make; must not exist")
    _add_exclude(build)
    build.set_defaults(func=_reporting(_build))
    lock = actions.add_parser("lock", help="check a suite and write its lock")
    lock.add_argument("suite", type=Path)
    lock.set_defaults(func=_reporting(lambda args: _report(lock_suite(args.suite))))
    verify = actions.add_parser("verify", help="check a suite against its lock and, when given, its secret")
    verify.add_argument("suite", type=Path)
    verify.add_argument("--secret-file", type=Path, help="the revealed secret; must match the commitment")
    verify.add_argument("--recipe", type=Path, help="with the secret: build anew from this recipe and compare")
    _add_exclude(verify)
    verify.set_defaults(func=_reporting(_verify))


def _add_generate(subparsers: Subparsers) -> None:
    generate = subparsers.add_parser("generate", help="write questions and answers as JSON Lines, for training")
    source = generate.add_mutually_exclusive_group(required=True)
    source.add_argument("--mix", type=Path, help="YAML mix of families, levels and surfaces")
    source.add_argument("--suite-recipe", type=Path, help="recipe of a suite; its tasks are the mix")
    generate.add_argument("--seed", type=int, required=True, help="non-negative integer; same seed, same bytes")
    generate.add_argument("--count", type=int, required=True, help="number of lines")
    generate.add_argument("--out", type=Path, required=True, help="file to write")
    _add_exclude(generate)
    generate.set_defaults(func=_reporting(_generate))


def _add_exclude(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exclude",
        type=Path,
        action="append",
        default=[],
        metavar="SUITE_DIR",
        help="leave out every prompt of this suite; can be given several times",
    )


def _reporting(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    """Turn a wrong request into one line on standard error and exit status 2."""

    def run(args: argparse.Namespace) -> int:
        try:
            command(args)
        except (GeneratorError, SuiteError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201  the command's own message
            return EXIT_BAD_INPUT
        return 0

    return run


def _excluded(folders: list[Path]) -> frozenset[str]:
    return frozenset[str]().union(*(load_suite(folder).prompts() for folder in folders))


def _generate(args: argparse.Namespace) -> None:
    if args.seed < 0 or args.count < 1:
        raise GeneratorError("--seed must not be negative and --count must be at least 1")
    tasks = load_mix(args.mix) if args.mix else load_recipe(args.suite_recipe).tasks
    items = draw_mix(tasks, args.seed, args.count, _excluded(args.exclude))
    write_atomically(args.out, (item.to_json() + "\n" for item in items))


def _families(_args: argparse.Namespace) -> None:
    for fam in REGISTRY.values():
        print(f"{fam.name:20} {fam.group:12} {fam.title}")  # noqa: T201  the command's output


def _read_secret(path: Path) -> bytes:
    with path.open("rb") as file:
        secret = file.read(_MAX_SECRET_BYTES + 1)
    if not MIN_SECRET_BYTES <= len(secret) <= _MAX_SECRET_BYTES:
        raise SuiteError(f"{path}: a secret has {MIN_SECRET_BYTES} to {_MAX_SECRET_BYTES} bytes")
    return secret


def _build(args: argparse.Namespace) -> None:
    recipe = load_recipe(args.recipe)
    _report(build_suite(recipe, _read_secret(args.secret_file), args.out, _excluded(args.exclude)))


def _verify(args: argparse.Namespace) -> None:
    suite = verify_suite(args.suite)
    if args.recipe and not args.secret_file:
        raise SuiteError("--recipe needs --secret-file: both make the suite")
    if args.secret_file:
        secret = _read_secret(args.secret_file)
        check_secret(suite, secret)
        if args.recipe:
            check_origin(suite, load_recipe(args.recipe), secret, _excluded(args.exclude))
    _report(suite)


def _report(suite: Suite) -> None:
    tasks, items = len(suite.tasks), suite.item_count
    print(f"{suite.name} version {suite.version}: {tasks} tasks, {items} items, {suite.sha256}")  # noqa: T201  output
