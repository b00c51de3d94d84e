"""Where a result lies: the folder that an evaluation wrote, or the one above it when there is one suite in it."""

from pathlib import Path

from tiltyard_eval.config import RESULT_FILE


class FolderError(ValueError):
    """There is no result, or not just one; the message says what to name instead."""


def result_folder(folder: Path) -> Path:
    """The folder with the result: `folder` itself, or its only subfolder that has one.

    Raises:
        FolderError: None or several of them have one.
    """
    if (folder / RESULT_FILE).is_file():
        return folder
    if not folder.is_dir():
        raise FolderError(f"{folder} is no folder: name the one that an evaluation wrote")
    found = sorted(path.parent for path in folder.glob(f"*/{RESULT_FILE}") if path.is_file())
    if not found:
        raise FolderError(f"{folder} holds no {RESULT_FILE}: name the folder that an evaluation wrote")
    if len(found) > 1:
        raise FolderError(f"{folder} holds several results: name one of {', '.join(map(str, found[:5]))}")
    return found[0]


def names_of(a: Path, b: Path) -> tuple[str, str]:
    """What to call two results: their folders' names, with the folder above where those are the same."""
    one, other = a.resolve(), b.resolve()
    if one.name != other.name or one == other:
        return one.name, other.name
    return f"{one.parent.name}/{one.name}", f"{other.parent.name}/{other.name}"
