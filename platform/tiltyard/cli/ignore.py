"""Which files of a folder are packed: `.dockerignore` as Docker reads it, and names that never go along."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final, Self

from tiltyard.cli.errors import CliError

# Version control, environments, caches, results and secrets: never part of a submission, whatever .dockerignore says.
NEVER_PACKED: Final = (
    ".git",
    ".hg",
    ".svn",
    ".venv",
    ".env",
    "__pycache__",
    "*.py[cod]",
    "node_modules",
    ".ipynb_checkpoints",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".DS_Store",
    "tiltyard-results",
)
# The platform reads these, so they are packed even when .dockerignore names them, as Docker does with its two.
ALWAYS_PACKED: Final = frozenset({"Dockerfile", ".dockerignore", "tiltyard.yaml"})


def is_never_packed(path: Path) -> bool:
    """Whether the name of `path`, or being a virtual environment, keeps it out of every archive."""
    return any(fnmatchcase(path.name, pattern) for pattern in NEVER_PACKED) or (path / "pyvenv.cfg").is_file()


@dataclass(frozen=True)
class DockerIgnore:
    """The rules of a `.dockerignore` in order, each (pattern, is an exception). The last that matches decides."""

    rules: tuple[tuple[re.Pattern[str], bool], ...] = ()

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The rules in `directory/.dockerignore`; none when there is no such file. Raises CliError on a bad line."""
        path = directory / ".dockerignore"
        if not path.is_file():
            return cls()
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"{path} cannot be read ({error}). Save it as UTF-8 text.") from None
        return cls(tuple(rule for line in lines if (rule := _parse(line)) is not None))

    def excludes(self, path: PurePosixPath) -> bool:
        """Whether `path`, relative to the folder, is kept out."""
        if str(path) in ALWAYS_PACKED:
            return False
        excluded = False
        for pattern, is_exception in self.rules:
            if pattern.fullmatch(str(path)):
                excluded = not is_exception
        return excluded


def _parse(line: str) -> tuple[re.Pattern[str], bool] | None:
    text = line.strip()
    if not text or line.startswith("#"):
        return None
    is_exception = text.startswith("!")
    pattern = text.removeprefix("!").strip().strip("/")
    parts = [part for part in pattern.split("/") if part not in {"", "."}]
    if not parts or ".." in parts:
        raise CliError(f".dockerignore: {text!r} is not a pattern inside this folder. Remove the line.")
    try:
        # A pattern that matches a folder also covers everything below it.
        return re.compile(_translate("/".join(parts)) + r"(?:/.*)?", re.DOTALL), is_exception
    except re.error:
        raise CliError(f".dockerignore: {text!r} has a [ ] that makes no sense. Mend the line.") from None


_TOKEN: Final = re.compile(r"\*\*/?|\*|\?|\[\^?(?:\\.|[^\]\\])+\]|\\.|.", re.DOTALL)


def _translate(pattern: str) -> str:
    """Go's filepath.Match with Docker's `**` (any number of folders), as a regular expression."""
    fixed = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    parts = []
    for piece in _TOKEN.findall(pattern):
        if piece == "[":
            raise re.error("a [ without its ]")
        if piece in fixed:
            parts.append(fixed[piece])
        elif piece.startswith("["):
            parts.append(piece)
        else:
            parts.append(re.escape(piece[1:] if piece.startswith("\\") and len(piece) == 2 else piece))
    return "".join(parts)
