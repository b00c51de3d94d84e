"""Read a Dockerfile, refuse what would reach outside, and write it again in one unambiguous form.

The engine would pull an image that a `FROM` or `COPY --from` names and that it does not have, and it fetches the URLs
of an `ADD` itself, with the host's network. So every name is resolved and checked here. What the engine gets is not the
participant's file but the one that `rendered` writes from what was understood: one instruction a line, no directives,
no comments, no continuation lines, base images by name. A trick that makes two parsers disagree has nothing left to
work on. Syntax: docs.docker.com/reference/dockerfile, without BuildKit's additions.

Two instructions are not where, or not what, they were. VOLUME stands at the end: what a step writes below a volume lies
on the engine's disk but in no layer, so neither the disk's guard nor the image's size would see it. LABEL is left out:
labels say who owns what in the engine (`owners`), and nobody reads those of participants.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from tiltyard_sandbox.verdicts import Reason, SubmissionFault

MAX_BYTES: Final = 64 * 1024
INSTRUCTIONS: Final = frozenset(
    {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"}
    | {"RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}
)
_DIRECTIVE: Final = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_BLANKS: Final = re.compile(r"[\t ]+")
_STAGE_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]*")
_FLAG: Final = re.compile(r"--(from|chown)=([A-Za-z0-9_.:/@-]+)")
_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_./*?@%+=,~-]+")
_ARCHIVES: Final = (".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst")
_VARIABLE: Final = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?-([^${}]*))?\})")
_ARGUMENT: Final = re.compile(r"([A-Za-z_]\w*)(?:=(\"[^\"\\]*\"|'[^'\\]*'|[^\s\"'\\]*))?")
RESERVED_PREFIX: Final = "tiltyard."  # of labels: the platform's own


@dataclass(frozen=True)
class Instruction:
    """One instruction: where it began, its keyword in capitals, and all that follows, on one line."""

    line: int
    keyword: str
    rest: str


@dataclass(frozen=True)
class CheckedDockerfile:
    """A Dockerfile that reaches nothing but `bases`, with its base images resolved."""

    instructions: tuple[Instruction, ...]  # without VOLUME and LABEL
    volumes: tuple[Instruction, ...]  # of the last stage and those that it is built upon
    bases: frozenset[str]
    escape: str

    def rendered(self, stage_head: str = "") -> bytes:
        """The file to give to the engine; `stage_head` stands behind each FROM that names a base image.

        Not behind one that names a stage: what the head sets is handed on, and the stage's own ENV could change it.
        """
        head = "" if self.escape == "\\" else f"# escape={self.escape}\n"
        lines = (
            f"{one.keyword} {one.rest}\n" + stage_head * (one.keyword == "FROM" and one.rest.split()[0] in self.bases)
            for one in (*self.instructions, *self.volumes)
        )
        return (head + "".join(lines)).encode()


def check(content: bytes, *, allowed_bases: Collection[str], base_args: Mapping[str, str]) -> CheckedDockerfile:
    """The Dockerfile in checked form; raises SubmissionFault(build_failed) naming the line and what to do."""
    instructions, escape = parse(content)
    checker = _Checker(frozenset(_with_tag(name) for name in allowed_bases), base_args)
    checked = tuple(kept for one in instructions if (kept := checker.check(one)) is not None)
    if not checker.stages:
        raise _fault(0, "it has no FROM. Start it with: ARG BASE=tiltyard/runtime:cpu, then FROM ${BASE}.")
    return CheckedDockerfile(checked, tuple(checker.volumes), frozenset(checker.bases), escape)


def parse(content: bytes) -> tuple[list[Instruction], str]:
    """The instructions and the escape character; raises SubmissionFault(build_failed)."""
    lines = _lines(content)
    escape = _escape_directive(lines)
    instructions = []
    parts: list[str] = []
    begin = 0
    for number, raw in enumerate(lines, start=1):
        line = raw.strip("\t ")
        if line.startswith("#") or not line:
            continue  # comments and blank lines vanish, between the lines of an instruction too
        begin = begin if parts else number
        if line.endswith(2 * escape):
            raise _fault(number, f"it ends with a stray {escape}.")  # engines disagree on what that means
        if line.endswith(escape):
            # What stood before the escape character stays as it was written, blanks included.
            parts.append((raw.lstrip("\t ") if not parts else raw).rstrip("\t ")[:-1])
            continue
        parts.append(line if not parts else raw)
        instructions.append(_instruction(begin, "".join(parts), escape))
        parts = []
    if parts:
        instructions.append(_instruction(begin, "".join(parts), escape))
    return instructions, escape


def _lines(content: bytes) -> list[str]:
    if len(content) > MAX_BYTES:
        raise _fault(0, f"it is larger than {MAX_BYTES // 1024} KiB.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _fault(0, "it is not UTF-8 text.") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    for number, line in enumerate(lines, start=1):
        if any(not character.isprintable() and character != "\t" for character in line):
            raise _fault(number, "it has control characters.")
    return lines


def _escape_directive(lines: list[str]) -> str:
    """Directives stand at the very top; `syntax` would choose a BuildKit front end, which is not used here."""
    for number, line in enumerate(lines, start=1):
        match = _DIRECTIVE.fullmatch(line.strip("\t "))
        if match is None:
            return "\\"
        if match[1].lower() == "escape":
            if match[2] not in {"\\", "`"}:
                raise _fault(number, "the escape character must be \\ or `.")
            return match[2]
    return "\\"


def _instruction(line: int, text: str, escape: str) -> Instruction:
    keyword, *rest = _BLANKS.split(text.strip("\t "), maxsplit=1)
    if keyword.upper() == "ONBUILD":
        raise _fault(line, "ONBUILD is not allowed.")
    if keyword.upper() not in INSTRUCTIONS:
        raise _fault(
            line, f"unknown instruction {keyword[:40]!r} (here-documents and other BuildKit syntax do not work)."
        )
    if not rest:
        raise _fault(line, f"{keyword.upper()} needs arguments.")
    if rest[0].endswith(escape):
        raise _fault(line, f"it ends with a stray {escape}.")
    return Instruction(line, keyword.upper(), rest[0])


class _Checker:
    """Follows the build arguments and stages while the instructions pass by."""

    def __init__(self, allowed: frozenset[str], base_args: Mapping[str, str]) -> None:
        self._allowed = allowed
        self._base_args = base_args
        self._arguments: dict[str, str] = {}  # those before the first FROM: the only ones a FROM can see
        self._stages = 0
        # The stages before the current one, which are all that the engine knows, with the volumes of each.
        self._finished: dict[str, tuple[Instruction, ...]] = {}
        self._current_name = ""
        self.volumes: list[Instruction] = []  # of the current stage, those of its parents among them
        self.bases: set[str] = set()

    @property
    def stages(self) -> int:
        return self._stages

    def check(self, one: Instruction) -> Instruction | None:
        """The instruction as it is written again, or None when it is not, or not here."""
        if one.keyword == "FROM":
            return self._from(one)
        if one.keyword == "ARG":
            if not self._stages:
                self._argument(one)
            return one
        if not self._stages:
            raise _fault(one.line, f"{one.keyword} stands before the first FROM.")
        if one.keyword == "LABEL":
            _check_labels(one)
            return None
        if one.keyword == "VOLUME":
            if "$" in one.rest:  # further down it may have another value
                raise _fault(one.line, "VOLUME takes plain paths only, no variables.")
            self.volumes.append(one)
            return None
        if one.keyword in {"COPY", "ADD"}:
            self._copy(one)
        # A file that hides that it is an archive is not unpacked: no step would be seen to write what is in it.
        return Instruction(one.line, "COPY", one.rest) if one.keyword == "ADD" else one

    def _argument(self, one: Instruction) -> None:
        for word in _BLANKS.split(one.rest):
            match = _ARGUMENT.fullmatch(word)
            if match is None:
                raise _fault(one.line, f"cannot read the argument {word[:60]!r}; write ARG NAME=value.")
            default = self._resolved(one.line, (match[2] or "").strip("\"'"))
            self._arguments[match[1]] = self._base_args.get(match[1], default)

    def _from(self, one: Instruction) -> Instruction:
        words = _BLANKS.split(one.rest)
        if words[0].startswith("--"):
            raise _fault(one.line, "FROM takes no options here.")
        if len(words) not in {1, 3} or (len(words) == 3 and words[1].upper() != "AS"):
            raise _fault(one.line, "write FROM image, or FROM image AS name.")
        image = self._resolved(one.line, words[0].strip("\"'"))
        if self._current_name:
            self._finished[self._current_name] = tuple(self.volumes)
        is_stage = image.lower() in self._finished
        resolved = image if is_stage else self._base(one.line, image)
        self.volumes = list(self._finished[image.lower()]) if is_stage else []
        self._current_name = words[2].lower() if len(words) == 3 else ""
        if len(words) == 3 and not _STAGE_NAME.fullmatch(self._current_name):
            raise _fault(one.line, f"{words[2][:60]!r} is not a stage's name.")
        self._stages += 1
        return Instruction(one.line, "FROM", f"{resolved} AS {self._current_name}" if self._current_name else resolved)

    def _base(self, line: int, image: str) -> str:
        if _with_tag(image) not in self._allowed:
            raise _fault(
                line,
                f"the base image {image[:120]!r} is not one of the competition's: {', '.join(sorted(self._allowed))}.",
            )
        self.bases.add(_with_tag(image))
        return _with_tag(image)

    def _copy(self, one: Instruction) -> None:
        words = _BLANKS.split(one.rest)
        while words and words[0].startswith("--"):
            match = _FLAG.fullmatch(words.pop(0))
            if match is None:
                raise _fault(one.line, f"{one.keyword} takes only --from=stage and --chown=user here.")
            if match[1] == "from":
                self._copy_source(one.line, match[2])
        if one.keyword == "ADD":
            _check_added(one.line, words)

    def _copy_source(self, line: int, source: str) -> None:
        """Only a finished stage is one: the engine takes the current stage's own name for an image, and pulls it."""
        is_finished = source.lower() in self._finished or (source.isdecimal() and int(source) < self._stages - 1)
        if not is_finished:
            self._base(line, source)

    def _resolved(self, line: int, text: str) -> str:
        """The text with its variables replaced, as the engine would before the first FROM."""

        def value(match: re.Match[str]) -> str:
            found = self._arguments.get(match[1] or match[2], "")
            return found or match[3] or ""

        resolved = _VARIABLE.sub(value, text)
        if not resolved.isascii() or any(character in resolved for character in "$\\\"'`{} "):
            raise _fault(line, f"cannot resolve {text[:80]!r}; use ${{NAME}} of an ARG that stands before FROM.")
        return resolved


def _check_labels(one: Instruction) -> None:
    """Say that a label is reserved, however it is quoted. What this does not see through is left out all the same."""
    plain = re.sub(r"[\\`\"']", "", one.rest).lower()
    if any(word.startswith(RESERVED_PREFIX) for word in _BLANKS.split(plain)):
        raise _fault(one.line, f"labels that begin with {RESERVED_PREFIX} are the platform's own. Remove that one.")


def _check_added(line: int, words: list[str]) -> None:
    """ADD's sources must be plain file names: the engine would fetch an URL itself, outside the build's isolation."""
    text = " ".join(words)
    if text.startswith("["):
        try:
            words = [str(word) for word in json.loads(text)]
        except ValueError:
            raise _fault(line, "ADD's list is not valid JSON.") from None
    if not all(_PLAIN_WORD.fullmatch(word) for word in words):
        raise _fault(line, "ADD takes plain file names only, no URLs or variables. Use COPY.")
    if any(word.lower().endswith(_ARCHIVES) for word in words[:-1]):
        raise _fault(line, "ADD unpacks no archives here. Use COPY, and unpack it with RUN.")


def _with_tag(image: str) -> str:
    """The name as the engine stores it: with `:latest` when it has neither tag nor digest."""
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def _fault(line: int, message: str) -> SubmissionFault:
    where = f"Dockerfile, line {line}: " if line else "The Dockerfile cannot be used: "
    return SubmissionFault(Reason.BUILD_FAILED, where + message)
