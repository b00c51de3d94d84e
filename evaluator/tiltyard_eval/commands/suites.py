"""``generate`` and ``suite …``: make training data and suites from generators, lock and verify suites."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltyard_eval.build import MIN_SECRET_BYTES, load_recipe
from tiltyard_eval.commands import suite_actions as actions
from tiltyard_eval.files import write_atomically
from tiltyard_eval.generators.core import REGISTRY, GeneratorError
from tiltyard_eval.generators.mix import draw_mix, load_mix
from tiltyard_eval.suite import Suite, SuiteError, lock_suite

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[Any]  # the parser's class is the caller's

EXIT_BAD_INPUT = 2


def add_commands(subparsers: Subparsers) -> None:
    """Add ``generate``, ``families`` and ``suite`` to the command line; each sets ``func(args) -> int``."""
    _add_generate(subparsers)
    families = subparsers.add_parser("families", help="list the families of questions that generators make")
    families.set_defaults(func=_reporting(_families))
    suite = subparsers.add_parser("suite", help="build, lock and verify suites")
    commands = suite.add_subparsers(dest="suite_command", required=True)
    build = commands.add_parser("build", help="make a suite from a recipe and a secret")
    build.add_argument("recipe", type=Path, help="YAML recipe")
    build.add_argument("--secret-file", type=Path, required=True, help=f"at least {MIN_SECRET_BYTES} bytes, used as is")
    build.add_argument("--out", type=Path, required=True, help="folder to make; must not exist")
    _add_exclude(build)
    _add_open(build)
    build.set_defaults(func=_reporting(_build))
    lock = commands.add_parser("lock", help="check a suite and write its lock")
    lock.add_argument("suite", type=Path)
    lock.set_defaults(func=_reporting(lambda args: _report(lock_suite(args.suite))))
    verify = commands.add_parser("verify", help="check a suite against its lock and, when given, its secret")
    verify.add_argument("suite", type=Path)
    verify.add_argument("--sha256", help="the hash that was published before the round")
    verify.add_argument("--secret-file", type=Path, help="the revealed secret; must match the commitment")
    verify.add_argument("--recipe", type=Path, help="with the secret: build anew from this recipe and compare")
    _add_exclude(verify)
    _add_open(verify)
    verify.set_defaults(func=_reporting(_verify))
    commit = commands.add_parser("commit", help="make a secret, and print the hashes to publish before the round")
    commit.add_argument("--secret-file", type=Path, required=True, help="made, 32 random bytes, if it does not exist")
    commit.add_argument("--recipe", type=Path, help="the suite's recipe: prints the hash of its questions as well")
    _add_exclude(commit)
    _add_open(commit)
    commit.set_defaults(func=_reporting(_commit))
    reveal = commands.add_parser("reveal", help="after the round: check the secret and write it where all may see it")
    reveal.add_argument("suite", type=Path)
    reveal.add_argument("--secret-file", type=Path, required=True, help="the secret that made the suite")
    reveal.add_argument("--recipe", type=Path, required=True, help="the recipe that made it; published beside it")
    reveal.add_argument("--out", type=Path, required=True, help="file for the revealed secret; must not exist")
    _add_exclude(reveal)
    _add_open(reveal)
    reveal.set_defaults(func=_reporting(_reveal))
    screen = commands.add_parser("screen", help="try families of questions before a suite uses them")
    screen.add_argument("families", nargs="*", metavar="FAMILY", help="default: all")
    screen.add_argument("--items", type=int, default=1000, help="questions of each family (default 1000)")
    screen.set_defaults(func=_reporting(_screen))


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


def _add_open(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--open", type=Path, metavar="SUITE_DIR", help="the open suite that the twins are twins of")


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


def _generate(args: argparse.Namespace) -> None:
    if args.seed < 0 or args.count < 1:
        raise GeneratorError("--seed must not be negative and --count must be at least 1")
    tasks = load_mix(args.mix) if args.mix else load_recipe(args.suite_recipe).tasks
    items = draw_mix(tasks, args.seed, args.count, actions.excluded(args.exclude))
    write_atomically(args.out, (item.to_json() + "\n" for item in items))


def _families(_args: argparse.Namespace) -> None:
    for fam in REGISTRY.values():
        print(f"{fam.name:20} {fam.group:22} {fam.title}")  # noqa: T201  the command's output


def _source(args: argparse.Namespace) -> actions.Source:
    return actions.Source(args.recipe, args.secret_file, args.exclude, args.open)


def _build(args: argparse.Namespace) -> None:
    _report(_source(args).build(args.out))


def _verify(args: argparse.Namespace) -> None:
    suite, checked = actions.verify(
        args.suite,
        sha256=args.sha256,
        secret_file=args.secret_file,
        recipe=args.recipe,
        exclude=args.exclude,
        opened=args.open,
    )
    _report(suite)
    print(f"checked: {', '.join(checked)}")  # noqa: T201  the command's output


def _commit(args: argparse.Namespace) -> None:
    found = actions.commit(args.secret_file, recipe=args.recipe, exclude=args.exclude, opened=args.open)
    print(f"secret     {found.secret}")  # noqa: T201  the command's output
    if found.questions:
        print(f"questions  {found.questions}")  # noqa: T201  the command's output


def _reveal(args: argparse.Namespace) -> None:
    suite, check = actions.reveal(args.suite, _source(args), args.out)
    _report(suite)
    print(f"Publish {args.out}, {args.recipe} and the suite. Anyone can then check that they belong together:")  # noqa: T201
    print("(the hash must be the one that was published before the round)")  # noqa: T201
    print(f"  python -m tiltyard_eval {check}")  # noqa: T201


def _screen(args: argparse.Namespace) -> None:
    refused = count = 0
    print(f"{'family':20} {'different':>9} {'best guess':>10}  verdict")  # noqa: T201  the command's output
    for found in actions.screen(args.families, args.items):
        count, refused = count + 1, refused + bool(found.faults)
        print(f"{found.family:20} {found.different:>9} {found.best_guess:>10.1%}  {found.verdict}", flush=True)  # noqa: T201
    if refused:
        raise GeneratorError(f"{refused} of {count} families were refused")


def _report(suite: Suite) -> None:
    tasks, items = len(suite.tasks), suite.item_count
    print(f"{suite.name} version {suite.version}: {tasks} tasks, {items} items, {suite.sha256}")  # noqa: T201  output
