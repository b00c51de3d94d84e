"""Archives that are wrong in many ways, as a seed says: broken bytes, and sound bytes that say wrong things."""

import gzip
import io
import json
import random
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, Final

import yaml

_BYTES_MAX: Final = 1 << 20
MANIFEST: Final = {"name": "tiny", "base_model": "squire", "training_data": "none", "licence": "Apache-2.0"}
DOCKERFILE: Final = b'FROM tiltyard/runtime:cpu\nCOPY . /app\nCMD ["python3", "/app/server.py"]\n'
NAMES: Final = [
    "Dockerfile",
    "tiltyard.yaml",
    "manifest.json",
    "oci-layout",
    "a",
    "a/b",
    "a/../b",
    "../x",
    "/etc/passwd",
    "./x",
    "x\x00y",
    "x\ny",
    "",
    ".",
    "..",
    "a" * 300,
    "d/" * 200 + "x",
    "café",
    "x\udcff",
    "__MACOSX/x",
    "C:\\x",
    "layer.tar",
    "blobs/sha256/" + "0" * 64,
]
VALUES: Final = [None, True, -1, 0, 2**63, 1e308, "", "x" * 5000, "\u202e", [], [[]], {}, {"a": {"b": []}}, ["x"] * 300]


def archive(seed: int) -> bytes:
    """The archive of this seed: the same on every machine."""
    chance = random.Random(seed)  # noqa: S311 - cases, no secrets
    content = chance.choice(_MAKERS)(chance)
    for _ in range(chance.choice([0, 0, 1, 1, 1, 2, 5])):
        content = chance.choice(_BREAKERS)(chance, content)[:_BYTES_MAX]
    if chance.random() < 0.1:
        content = gzip.compress(content, 1, mtime=0)
    return content


def _flip(chance: random.Random, content: bytes) -> bytes:
    broken = bytearray(content)
    for _ in range(chance.choice([1, 1, 8, 64])):
        if broken:
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
    return bytes(broken)


def _overwrite(chance: random.Random, content: bytes) -> bytes:
    start = chance.randrange(len(content) + 1)
    new = chance.choice([chance.randbytes(chance.randrange(1, 600)), b"\0" * 512, b"\xff" * 8, b"9" * 12])
    return content[:start] + new + content[start + len(new) :]


def _cut(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _remove(chance: random.Random, content: bytes) -> bytes:
    start = chance.randrange(len(content) + 1)
    return content[:start] + content[start + chance.choice([1, 511, 512, 513, 4096]) :]


def _repeat(chance: random.Random, content: bytes) -> bytes:
    start = chance.randrange(len(content) + 1)
    part = content[start : start + chance.choice([1, 512, 1024, 8192])]
    return content[:start] + part * chance.choice([2, 3, 50]) + content[start:]


def _append(chance: random.Random, content: bytes) -> bytes:
    return content + chance.choice([b"\0" * 1024, b"x", content, chance.randbytes(700), _zip(chance)])


def _in_headers(chance: random.Random, content: bytes) -> bytes:
    """A field of a tar header, with a checksum that is right again: what a careless reader believes."""
    broken = bytearray(content)
    blocks = [start for start in range(0, len(broken) - 511, 512) if broken[start + 257 : start + 262] == b"ustar"]
    if not blocks:
        return _flip(chance, content)
    start = chance.choice(blocks)
    offset, size = chance.choice([(0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100)])
    choices = [b"\0" * size, b"7" * size, b"\x80" + b"\xff" * (size - 1), chance.randbytes(size), b"-1".ljust(size)]
    if size == 1:
        choices = [bytes([byte]) for byte in b"0123456789gxLKSVMNADE\0Z"]
    broken[start + offset : start + offset + size] = chance.choice(choices)
    broken[start + 148 : start + 156] = b" " * 8
    total = sum(broken[start : start + 512])
    broken[start + 148 : start + 156] = f"{total:06o}\0 ".encode()
    return bytes(broken)


_BREAKERS: Final = [_flip, _overwrite, _cut, _remove, _repeat, _append, _in_headers, _in_headers]


def _manifest(chance: random.Random) -> bytes:
    values: dict[Any, Any] = dict(MANIFEST)
    for _ in range(chance.choice([0, 0, 0, 0, 0, 1, 3])):
        key = chance.choice([*values, "image", "adapter", "description", "x", 7, "name"])
        values[key] = chance.choice(
            [*VALUES, "openai", f"registry.example/x@sha256:{'a' * 64}", "registry.example/x:1"]
        )
    text = yaml.safe_dump(values).encode()
    return chance.choice(
        [text] * 8 + [text + b"x: *a\n", b"&a [*a]", b"{" * 5000, b"\xff\xfe" + text, text * (80_000 // len(text) + 1)]
    )


def _members(chance: random.Random) -> list[tuple[str, bytes]]:
    top = chance.choice(["", "", "", "folder/"])
    docker = chance.choice(
        [DOCKERFILE] * 12 + [b"", b"FROM x\n", b"FROM scratch\nADD http://x /\n", chance.randbytes(200)]
    )
    found = [(f"{top}Dockerfile", docker), (f"{top}tiltyard.yaml", _manifest(chance))]
    for _ in range(chance.choice([0, 1, 1, 4])):
        name = chance.choice(NAMES) if chance.random() < 0.4 else f"server{len(found)}.py"
        found.append((name, chance.randbytes(chance.choice([0, 10, 3000]))))
    if chance.random() < 0.2:
        chance.shuffle(found)
    return found if chance.random() < 0.9 else found[1:]


def _tar(chance: random.Random, members: list[tuple[str, bytes]] | None = None) -> bytes:
    out = io.BytesIO()
    form = chance.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as packed:
        for name, content in members or _members(chance):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if chance.random() < 0.06:
                info.type = chance.choice([bytes([byte]) for byte in b"1234567LKSgx"])
                info.linkname = chance.choice(NAMES).replace("\x00", "")
                info.size = 0
            if chance.random() < 0.04:
                info.pax_headers = {chance.choice(["size", "path", "GNU.sparse.map", "linkpath", "mtime"]): "9" * 20}
            try:
                packed.addfile(info, io.BytesIO(content))
            except (ValueError, UnicodeError, struct.error):
                continue  # this format cannot say it
    return out.getvalue()


def _tar_gz(chance: random.Random) -> bytes:
    return gzip.compress(_tar(chance), chance.choice([0, 1, 9]), mtime=0)


def _zip(chance: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, content in _members(chance):
            info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode().replace("\x00", "") or "x")
            info.compress_type = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
            info.external_attr = chance.choice([0, 0o120777, 0o100755, 0o040755, 0o020644]) << 16
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a name that is there twice is meant
                packed.writestr(
                    info, content * (1 if info.compress_type == zipfile.ZIP_BZIP2 else chance.choice([1, 1, 1, 200]))
                )
    broken = bytearray(out.getvalue())
    if chance.random() < 0.4:  # a field in the directory: flags, method, sizes, offsets, the number of entries
        at = broken.rfind(chance.choice([b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04"]))
        if at >= 0:
            offset = at + chance.randrange(4, 22)
            broken[offset : offset + 2] = chance.choice([b"\0\0", b"\xff\xff", b"\x01\0", chance.randbytes(2)])
    return bytes(broken)


def _saved_image(chance: random.Random) -> bytes:
    layer = _tar(chance, [(name, b"x") for name in chance.sample(NAMES, 5)])
    if chance.random() < 0.3:
        layer = gzip.compress(layer, 1, mtime=0)
    labels = {f"tiltyard.{key}": value for key, value in MANIFEST.items()}
    config: Any = {"config": {"Cmd": ["/x"], "Labels": labels}, "rootfs": {"diff_ids": [f"sha256:{zlib.crc32(layer)}"]}}
    images: Any = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l/layer.tar"]}]
    if chance.random() < 0.5:
        images = _twisted(chance, images)
    if chance.random() < 0.3:
        config = _twisted(chance, config)
    texts = [b"[" * 100_000, b"\xff", b"", json.dumps(images).encode()[:-1]]
    described = chance.choice([json.dumps(images).encode()] * 8 + texts)
    members = [("l/layer.tar", layer), ("c.json", json.dumps(config).encode()), ("manifest.json", described)]
    if chance.random() < 0.2:
        members.append((chance.choice(["repositories", "oci-layout", "index.json", "manifest.json"]), b"{}"))
    return _tar(chance, members)


def _twisted(chance: random.Random, value: Any) -> Any:
    """The same with something inside replaced by something else."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(list(value))
        return {**value, key: _twisted(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], _twisted(chance, value[at]), *value[at + 1 :]]
    return chance.choice([*VALUES, *NAMES[:16], ["l/layer.tar"] * 130])


_MAKERS: Final[list[Callable[[random.Random], bytes]]] = [
    _tar,
    _tar_gz,
    _tar_gz,
    _zip,
    _zip,
    _saved_image,
    _saved_image,
    _manifest,
    lambda chance: chance.randbytes(chance.randrange(2000)),
]
