"""An archive of compiled kernels: written from a folder of Triton's cache, checked as hostile, unpacked into another.

A zip: `manifest.json` first, then `KEY/NAME.cubin` and `KEY/NAME.json` as Triton keeps them. Names are held to a
pattern that has no way out of the folder, sizes are limited while reading, and every file to the manifest's digest.
Triton's list of a kernel's files has absolute paths and is written anew here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from tiltyard_kernels.cache.identity import identity

FORMAT = 1
FILES_MAX = 4096
FILE_BYTES_MAX = 16 << 20
ALL_BYTES_MAX = 512 << 20
MANIFEST = "manifest.json"
# Triton's keys are SHA-256 in base 32, its kernels' names are Python's; what else it keeps begins with two underscores.
_MEMBER = re.compile(r"([A-Z2-7]{52})/((?!__)[A-Za-z_][A-Za-z0-9_]{0,150})\.(json|cubin)")


# What Python's zipfile raises over bytes that are no zip, or a broken one, UnicodeDecodeError among ValueErrors.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    EOFError,
)


class CacheError(ValueError):
    """An archive that cannot be used here; the message says why."""


def pack(folder: Path, arch: int, out: Path) -> int:
    """Write the kernels in `folder`, a Triton cache, to `out`; return how many there are."""
    members = {}
    for path in sorted(folder.glob("*/*")):
        name = path.relative_to(folder).as_posix()
        if _MEMBER.fullmatch(name):
            members[name] = path.read_bytes()
    kernels = sum(name.endswith(".cubin") for name in members)
    if not kernels:
        raise CacheError(f"{folder} holds no compiled kernels")
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    manifest = {"format": FORMAT, "identity": identity(arch), "files": digests}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {MANIFEST: json.dumps(manifest, indent=1).encode(), **members}.items():
            # Fixed times and modes, so that the same kernels make the same archive.
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return kernels


def use(
    archive: Path | str, *, into: Path | str | None = None, sha256: str | None = None, arch: int | None = None
) -> int:
    """Unpack an archive into Triton's cache, or the folder `into`; return how many kernels it has.

    `arch` is what it must be for (90 for compute capability 9.0): by default this machine's GPU, if it has one.
    `sha256` is the digest that the archive's bytes must have. What is there already is left as it is. Raises CacheError
    for an archive of another architecture, Triton or library, or one that is damaged or not what it should be, before
    anything is written.
    """
    path = Path(archive)
    with path.open("rb") as source:
        whole = source.read(ALL_BYTES_MAX + 1)  # once, so that what is checked is what is used
    if len(whole) > ALL_BYTES_MAX:
        raise CacheError(f"{path} has more than {ALL_BYTES_MAX >> 20} MiB")
    if sha256 is not None and (found := hashlib.sha256(whole).hexdigest()) != sha256.lower():
        raise CacheError(f"{path} has the SHA-256 {found}, not {sha256}")
    members = _checked(path, whole, arch if arch is not None else _arch_here())
    folder = Path(into) if into is not None else _triton_folder()
    names: dict[str, list[str]] = {}
    for name in members:
        key, file = name.split("/")
        names.setdefault(key, []).append(file)
    for key, files in names.items():
        target = folder / key
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            _write(target / file, members[f"{key}/{file}"])
        for file in files:
            if file.endswith(".json"):
                stem = file.removesuffix(".json")
                group = {each: str(target / each) for each in files if each.rsplit(".", 1)[0] == stem}
                _write(target / f"__grp__{file}", json.dumps({"child_paths": group}).encode())
    return sum(name.endswith(".cubin") for name in members)


def _checked(path: Path, whole: bytes, arch: int | None) -> dict[str, bytes]:
    """The archive's files by name, all of them checked."""
    try:
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            infos = archive.infolist()
            if not infos or infos[0].filename != MANIFEST:
                raise CacheError(f"{path} is no archive of compiled kernels: it does not begin with {MANIFEST}")
            if len(infos) - 1 > FILES_MAX:
                raise CacheError(f"{path} has {len(infos) - 1} files; at most {FILES_MAX} are taken")
            digests = _manifest(path, _read(archive, infos[0], path), arch)
            members: dict[str, bytes] = {}
            total = 0
            for info in infos[1:]:
                if not _MEMBER.fullmatch(info.filename) or info.filename in members:
                    raise CacheError(f"{path} has a file {info.filename!r}, which no cache of kernels has")
                data = _read(archive, info, path)
                total += len(data)
                if total > ALL_BYTES_MAX:
                    raise CacheError(f"{path} unpacks to more than {ALL_BYTES_MAX >> 20} MiB")
                if hashlib.sha256(data).hexdigest() != digests.get(info.filename):
                    raise CacheError(f"{path}: {info.filename} is not what the manifest says")
                members[info.filename] = data
    except CacheError:
        raise
    except _DAMAGE as error:
        raise CacheError(f"{path} is damaged or no zip: {error}") from error
    if missing := digests.keys() - members.keys():
        raise CacheError(f"{path} lacks {min(missing)}, which the manifest names")
    for name in members:
        other = (
            name.removesuffix(".json") + ".cubin" if name.endswith(".json") else name.removesuffix(".cubin") + ".json"
        )
        if other not in members:
            raise CacheError(f"{path} has {name} without {other}")
    return members


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bytes:
    """At most so many bytes of a member, whatever its header says of its size."""
    with archive.open(info) as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise CacheError(f"{path}: {info.filename} has more than {FILE_BYTES_MAX >> 20} MiB")
    return data


def _manifest(path: Path, data: bytes, arch: int | None) -> dict[str, str]:
    """The digests by name, if the archive is for this installation."""
    try:
        manifest: Any = json.loads(data)
    except ValueError as error:
        raise CacheError(f"{path}: {MANIFEST} is no JSON") from error
    parts = manifest if isinstance(manifest, dict) else {}
    theirs, digests = parts.get("identity"), parts.get("files")
    if parts.get("format") != FORMAT or not isinstance(theirs, dict) or not isinstance(digests, dict):
        raise CacheError(f"{path}: {MANIFEST} is not of format {FORMAT}")
    ours = identity(arch if arch is not None else 0)
    for name, value in ours.items():
        if (name != "architecture" or arch is not None) and theirs.get(name) != value:
            raise CacheError(
                f"{path} is for {name.replace('_', ' ')} {theirs.get(name)!r}, and this is {value!r}: "
                "build one here with python -m tiltyard_kernels.cache build"
            )
    return digests


def _arch_here() -> int | None:
    import torch  # noqa: PLC0415  # only to look for a GPU

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def _triton_folder() -> Path:
    from triton import knobs  # noqa: PLC0415  # only where it is wanted

    return Path(knobs.cache.dir)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: another process may be reading the cache. What is there stays, links included."""
    if os.path.lexists(path):
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
