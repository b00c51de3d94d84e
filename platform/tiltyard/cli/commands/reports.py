"""`tiltyard report` and `tiltyard compare`: results on disk as pages, by the evaluator's own engine."""

from pathlib import Path
from typing import Annotated

import typer

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.options import JsonOption
from tiltyard.cli.output import Output

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder that an evaluation wrote, or a suite's folder in it.")
]
FirstArgument = Annotated[Path, typer.Argument(metavar="A", help="A result's folder: what is compared against.")]
SecondArgument = Annotated[Path, typer.Argument(metavar="B", help="The other result's folder.")]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The HTML file to write.")]
NamesOption = Annotated[
    tuple[str, str] | None,
    typer.Option("--names", metavar="A B", help="What to call the two. Default: their folders' names."),
]
HiddenOption = Annotated[bool, typer.Option("--with-hidden", help="Show the items of a hidden suite as well.")]


def report(
    folder: FolderArgument, out: OutOption = None, with_hidden: HiddenOption = False, json_mode: JsonOption = False
) -> int:
    """Write a result as one HTML page that loads nothing."""
    from tiltyard_eval.commands.report import write_report  # noqa: PLC0415  other commands start without it

    output = Output(json_mode=json_mode)
    try:
        path = write_report(folder, out, with_hidden=with_hidden)
    except OSError as error:
        raise CliError(_unreadable(error)) from None
    except ValueError as error:
        raise CliError(f"{folder}: {error}.") from None
    output.document({"report": str(path)})
    output.say(f"Report: {path}")
    return ExitCode.OK


def compare(
    a: FirstArgument,
    b: SecondArgument,
    *,
    names: NamesOption = None,
    out: OutOption = None,
    with_hidden: HiddenOption = False,
    json_mode: JsonOption = False,
) -> int:
    """Compare two results on one suite, item by item."""
    try:
        from tiltyard_eval.comparison import compare_folders  # noqa: PLC0415  imports NumPy and SciPy
        from tiltyard_eval.comparison_page import render_comparison  # noqa: PLC0415
        from tiltyard_eval.comparison_text import comparison_document, comparison_text  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise CliError(
            f"{error.name} is not installed. Install what comparing needs: pip install 'tiltyard[eval]'."
        ) from None
    from tiltyard_eval.files import write_atomically  # noqa: PLC0415
    from tiltyard_eval.results_folder import names_of, result_folder  # noqa: PLC0415

    output = Output(json_mode=json_mode)
    try:
        first, second = result_folder(a), result_folder(b)
        name_a, name_b = names or names_of(first, second)
        found = compare_folders(first, second)
        if out is not None:
            write_atomically(out, [render_comparison(found, name_a, name_b, with_hidden=with_hidden)])
    except OSError as error:
        raise CliError(_unreadable(error)) from None
    except ValueError as error:
        raise CliError(f"{error}.") from None
    output.document(comparison_document(found) | {"report": str(out) if out else None})
    output.say(comparison_text(found, name_a, name_b))
    if out is not None:
        output.say(f"Report: {out}")
    return ExitCode.OK


def _unreadable(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}. Check the path and its permissions."
