"""`tiltyard init` and `tiltyard data`: start a submission, make training data for it."""

import importlib.util
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.options import JsonOption
from tiltyard.cli.output import Output


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write: new, or empty.")],
    json_mode: JsonOption = False,
) -> None:
    """Write a complete submission to start from."""
    output = Output(json_mode=json_mode)
    try:
        written = write_template(directory)
    except OSError as error:
        raise CliError(f"{directory} cannot be written: {error.strerror or error}.") from None
    output.say(f"Wrote {', '.join(written)} to {directory}.")
    output.say("It is a valid submission already: the base model as it is. README.md there says how to go on.")
    output.say(f"Next: tiltyard evaluate {directory} --competition demo")
    output.document({"directory": str(directory.resolve()), "files": written})


def write_template(directory: Path) -> list[str]:
    """Copy the template's files to `directory`; returns their names. Raises CliError rather than overwrite anything."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CliError(f"{directory} exists and is not an empty folder. Nothing was written: name a new folder.")
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    with as_file(files("tiltyard.cli") / "template") as template:
        for source in sorted(path for path in template.iterdir() if path.is_file()):
            # Not package-data dotfiles: some installers and archives drop those.
            name = source.name.replace("dot_", ".", 1) if source.name.startswith("dot_") else source.name
            with (directory / name).open("xb") as file:
                file.write(source.read_bytes())
            written.append(name)
    return sorted(written)


def data(
    recipe: Annotated[Path, typer.Option("--recipe", metavar="FILE", help="YAML mix of question families and levels.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The JSON Lines file to write.")],
    count: Annotated[int, typer.Option("--count", min=1, help="How many questions.")] = 20_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same file.")] = 0,
    json_mode: JsonOption = False,
) -> None:
    """Make training data.

    The questions come from the generators that suites are made with: python -m tiltyard_eval generate.
    """
    if importlib.util.find_spec("tiltyard_eval.generators") is None:
        raise CliError("The evaluator is not installed. Install it: pip install 'tiltyard[eval]'.")
    command = [sys.executable, "-m", "tiltyard_eval", "generate", "--mix", str(recipe), "--seed", str(seed)]
    done = subprocess.run(
        [*command, "--count", str(count), "--out", str(out)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        message = done.stderr.strip().removeprefix("error: ") or f"the generator exited with {done.returncode}"
        raise CliError(message, ExitCode.USAGE if done.returncode == 2 else ExitCode.UNEXPECTED)
    output = Output(json_mode=json_mode)
    output.say(f"Wrote {count} questions to {out}.")
    output.document({"file": str(out.resolve()), "count": count, "seed": seed})
