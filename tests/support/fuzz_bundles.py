"""Bundles that are wrong: a good one, copied, with something in it changed as a seed says."""

import os
import random
import shutil
from pathlib import Path
from typing import Any, Final

import yaml
from fuzz_archives import VALUES

TEXTS: Final = [
    b"",
    b"\xff\xfe\0",
    b"&a [*a]",
    b"{" * 20_000,
    b"[" * 3000,
    b"- " * 5000,
    b"\0" * 100,
    b"!!python/object:os.system x",
]
STRINGS: Final = [
    "../../etc/passwd",
    "/etc/passwd",
    ".",
    "",
    "x" * 400,
    "a\nb",
    "2020-13-01",
    "1e999 GiB",
    "-1",
    "NaN",
    "é",
    "cpu",
]


def break_bundle(good: Path, place: Path, seed: int) -> None:
    """Write to `place` the bundle `good` with the changes of this seed."""
    chance = random.Random(seed)  # noqa: S311 - cases, no secrets
    shutil.copytree(good, place, symlinks=True)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        files = sorted(path for path in place.rglob("*") if path.is_file() and not path.is_symlink())
        # The one file that is read first would else hide what is wrong with all others.
        path = place / "competition.yaml" if chance.random() < 0.4 else chance.choice(files or [place / "x"])
        if path.is_symlink():  # made in an earlier round: written to, it would damage this machine's own file
            path.unlink()
        if path.suffix in {".yaml", ".lock"} and path.is_file() and not path.is_symlink() and chance.random() < 0.7:
            _twist_yaml(chance, path)
        else:
            chance.choice(_ACTS)(chance, path)


def _twist_yaml(chance: random.Random, path: Path) -> None:
    try:
        values = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return
    _put(path, yaml.safe_dump(_twisted(chance, values)).encode())


def _twisted(chance: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        act = chance.random()
        if act < 0.15:
            return {name: kept for name, kept in value.items() if name != key}
        if act < 0.25:
            return {**value, chance.choice(["x", key + "s" if isinstance(key, str) else "y"]): value[key]}
        return {**value, key: _twisted(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        if chance.random() < 0.2:
            return [*value, value[at]]
        return [*value[:at], _twisted(chance, value[at]), *value[at + 1 :]]
    return chance.choice([*VALUES, *STRINGS])


def _content(path: Path) -> bytearray:
    """Of a file in the bundle; what a link leads to is not the bundle's, and a pipe would be waited for."""
    return bytearray(path.read_bytes() if path.is_file() and not path.is_symlink() else b"")


def _put(path: Path, content: bytes) -> None:
    """A new file, in place of whatever is there: never through a link."""
    _remove(path)
    path.write_bytes(content)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _bytes(chance: random.Random, path: Path) -> None:
    content = _content(path)
    for _ in range(chance.choice([1, 4, 30])):
        if content:
            content[chance.randrange(len(content))] = chance.randrange(256)
    _put(path, content)


def _cut(chance: random.Random, path: Path) -> None:
    content = _content(path)
    _put(path, content[: chance.randrange(len(content) + 1)])


def _replace(chance: random.Random, path: Path) -> None:
    _put(path, chance.choice(TEXTS))


def _repeat(_: random.Random, path: Path) -> None:
    _put(path, _content(path) * 2)


def _away(_: random.Random, path: Path) -> None:
    _remove(path)


def _folder(_: random.Random, path: Path) -> None:
    _remove(path)
    path.mkdir()


def _link(chance: random.Random, path: Path) -> None:
    _remove(path)
    path.symlink_to(chance.choice(["/etc/passwd", "/proc/self/environ", path.name, "..", "nowhere", "/dev/zero"]))


def _pipe(_: random.Random, path: Path) -> None:
    _remove(path)
    os.mkfifo(path)


_ACTS: Final = [_bytes, _bytes, _cut, _replace, _repeat, _away, _folder, _link, _pipe]
