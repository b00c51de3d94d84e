"""`tiltyard suite …`: make, check, screen, commit to and reveal suites, by the evaluator's own code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.options import JsonOption
from tiltyard.cli.output import Output

if TYPE_CHECKING:
    from tiltyard_eval.suite import Suite

app = typer.Typer(help="Make, check, screen, commit to and reveal suites.", no_args_is_help=True, rich_markup_mode=None)

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="The YAML recipe.")]
SuiteArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The suite's folder.")]
SecretOption = Annotated[Path, typer.Option("--secret-file", metavar="FILE", help="The secret: 16 to 4,096 bytes.")]
RecipeOption = Annotated[Path, typer.Option("--recipe", metavar="FILE", help="The recipe that made the suite.")]
ExcludeOption = Annotated[
    list[Path] | None,
    typer.Option("--exclude", metavar="DIR", help="Leave out every prompt of this suite. Can be given several times."),
]
OpenOption = Annotated[
    Path | None, typer.Option("--open", metavar="DIR", help="The open suite that the twins are twins of.")
]


@app.command("build")
def build(
    recipe: RecipeArgument,
    *,
    secret_file: SecretOption,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make; must not exist.")],
    exclude: ExcludeOption = None,
    opened: OpenOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Make a locked suite from a recipe and a secret."""
    with _faults():
        from tiltyard_eval.commands.suite_actions import Source  # noqa: PLC0415  other commands start without it

        suite = Source(recipe, secret_file, exclude or (), opened).build(out)
    _report(Output(json_mode=json_mode), suite)


@app.command("lock")
def lock(folder: SuiteArgument, json_mode: JsonOption = False) -> None:
    """Check a suite and write its lock."""
    with _faults():
        from tiltyard_eval.suite import lock_suite  # noqa: PLC0415

        suite = lock_suite(folder)
    _report(Output(json_mode=json_mode), suite)


@app.command("verify")
def verify(
    folder: SuiteArgument,
    *,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HASH", help="The hash that was published before the round.")
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option("--secret-file", metavar="FILE", help="The revealed secret; must be the committed one."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="With the secret: build anew from this, and compare."),
    ] = None,
    exclude: ExcludeOption = None,
    opened: OpenOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Check a suite against its lock and whatever else is given."""
    with _faults():
        from tiltyard_eval.commands import suite_actions  # noqa: PLC0415

        suite, checked = suite_actions.verify(
            folder, sha256=sha256, secret_file=secret_file, recipe=recipe, exclude=exclude or (), opened=opened
        )
    output = Output(json_mode=json_mode)
    _report(output, suite, checked=list(checked))
    output.say(f"Checked: {', '.join(checked)}.")


@app.command("commit")
def commit(
    secret_file: Annotated[
        Path, typer.Option("--secret-file", metavar="FILE", help="Made, 32 random bytes, if it does not exist.")
    ],
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="FILE", help="Print the hash of this recipe's questions as well.")
    ] = None,
    exclude: ExcludeOption = None,
    opened: OpenOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Make a secret, and print the hashes to publish before the round."""
    with _faults():
        from tiltyard_eval.commands import suite_actions  # noqa: PLC0415

        found = suite_actions.commit(secret_file, recipe=recipe, exclude=exclude or (), opened=opened)
    output = Output(json_mode=json_mode)
    output.document({"secret": found.secret, "questions": found.questions})
    output.say(f"secret     {found.secret}")
    if found.questions:
        output.say(f"questions  {found.questions}")


@app.command("reveal")
def reveal(
    folder: SuiteArgument,
    *,
    secret_file: SecretOption,
    recipe: RecipeOption,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file for the secret; must not exist.")],
    exclude: ExcludeOption = None,
    opened: OpenOption = None,
    json_mode: JsonOption = False,
) -> None:
    """After the round: check the secret, and write it where all may see it."""
    with _faults():
        from tiltyard_eval.commands import suite_actions  # noqa: PLC0415

        source = suite_actions.Source(recipe, secret_file, exclude or (), opened)
        suite, check = suite_actions.reveal(folder, source, out)
    output = Output(json_mode=json_mode)
    _report(output, suite, secret_file=str(out), check=f"tiltyard {check}")
    output.say(f"Publish {out}, {recipe} and the suite. Anyone can then check that they belong together:")
    output.say("(the hash must be the one that was published before the round)")
    output.say(f"  tiltyard {check}")


@app.command("screen")
def screen(
    families: Annotated[list[str] | None, typer.Argument(metavar="[FAMILY]...", help="Default: all.")] = None,
    items: Annotated[int, typer.Option("--items", help="Questions of each family.")] = 1000,
    json_mode: JsonOption = False,
) -> int:
    """Try families of questions before a suite uses them."""
    output, found = Output(json_mode=json_mode), []
    output.say(f"{'family':20} {'different':>9} {'best guess':>10}  verdict")
    with _faults():
        from tiltyard_eval.commands import suite_actions  # noqa: PLC0415

        for one in suite_actions.screen(families or (), items):
            found.append(one)
            output.say(f"{one.family:20} {one.different:>9} {one.best_guess:>10.1%}  {one.verdict}")
    refused = sum(bool(one.faults) for one in found)
    output.document(
        {
            "refused": refused,
            "families": [
                {
                    "family": one.family,
                    "different": one.different,
                    "best_guesses": one.best_guesses,
                    "faults": one.faults,
                }
                for one in found
            ],
        }
    )
    if refused:
        output.note(f"{refused} of {len(found)} families were refused.")
    return ExitCode.USAGE if refused else ExitCode.OK


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what the evaluator finds wrong, or a part of it that is not installed, into the command's one error."""
    try:
        from tiltyard_eval.generators.core import GeneratorError  # noqa: PLC0415
        from tiltyard_eval.suite import SuiteError  # noqa: PLC0415

        try:
            yield
        except (GeneratorError, SuiteError) as error:
            raise CliError(f"{str(error).rstrip('.')}.") from None
    except ModuleNotFoundError as error:
        raise CliError(
            f"{error.name} is not installed. Install what suites need: pip install 'tiltyard[eval,suites]'."
        ) from None
    except OSError as error:
        raise CliError(f"{error.filename}: {error.strerror}. Check the path and its permissions.") from None


def _report(output: Output, suite: "Suite", **more: object) -> None:
    tasks, items = len(suite.tasks), suite.item_count
    document = {"name": suite.name, "version": suite.version, "tasks": tasks, "items": items, "sha256": suite.sha256}
    output.document(document | more)
    output.say(f"{suite.name} version {suite.version}: {tasks} tasks, {items} items, {suite.sha256}")
