"""Image archives as `docker save` writes them: read, scanned layer by layer, and passed on without their names.

A tag inside an archive would replace an image of ours, and a few megabytes of gzip can become terabytes of layers. So
the layers are scanned first, and what the engine gets is a copy of the stream without tags or other indexes. Format:
the image specification's "combined image JSON + filesystem changeset" (moby/moby, image/spec/v1.2).
"""

import hashlib
import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from tiltyard_sandbox.entries import EntryKind, OpenEntry, walk
from tiltyard_sandbox.guarded import chunks, reject, shown
from tiltyard_sandbox.layers import scan_layer
from tiltyard_sandbox.manifest import SubmissionManifest

_T = TypeVar("_T")

LAYERS_MAX: Final = 127  # overlayfs has no room for more
# Other descriptions of the same image, by which another engine might find names.
_DROPPED: Final = frozenset({"manifest.json", "repositories", "index.json", "oci-layout"})


@dataclass(frozen=True)
class ImageArchive:
    """The one image in an archive: the paths of its configuration and layers, lowest first."""

    config_path: str
    image_id: str  # "sha256:…" over the configuration, which is what an engine has it by
    layer_paths: tuple[str, ...]
    manifest: SubmissionManifest


def parse_image_archive(contents: Mapping[str, bytes], manifest: SubmissionManifest | None = None) -> ImageArchive:
    """The image that the small files of an archive describe, with its labels or `manifest` as its manifest.

    Raises SubmissionFault(image_rejected).
    """
    if "manifest.json" not in contents:
        raise reject("This looks like a bare OCI layout. Save the image with `docker save IMAGE -o image.tar`.")
    images = _json(contents["manifest.json"], "manifest.json", list)
    if len(images) != 1 or not isinstance(images[0], dict):
        raise reject(f"The image archive holds {len(images)} images. Save exactly one.")
    config_path, layer_paths = images[0].get("Config"), images[0].get("Layers")
    if not isinstance(config_path, str) or not isinstance(layer_paths, list):
        raise reject("The image archive's manifest.json is malformed. Save the image with `docker save`.")
    if not 0 < len(layer_paths) <= LAYERS_MAX or not all(isinstance(path, str) for path in layer_paths):
        raise reject(f"The image must have between 1 and {LAYERS_MAX} layers, not {len(layer_paths)}.")
    if config_path not in contents:
        raise reject("The image archive lacks its configuration. Save the image again.")
    labels = _config_section(contents[config_path]).get("Labels") or {}
    if not isinstance(labels, dict):
        raise reject("The image's labels are malformed.")
    texts = {str(name): value for name, value in labels.items() if isinstance(value, str)}
    image_id = "sha256:" + hashlib.sha256(contents[config_path]).hexdigest()
    found = manifest or SubmissionManifest.from_labels(texts)
    return ImageArchive(config_path, image_id, tuple(layer_paths), found)


def scan_layers(path: Path, image: ImageArchive, total_bytes_max: int) -> int:
    """Look at every layer's entries; how many bytes they have, uncompressed.

    Raises SubmissionFault(image_rejected) on devices, escapes and bombs.
    """
    missing = set(image.layer_paths)
    files = set()
    aliases = set()
    left_bytes = total_bytes_max
    for entry, opener in walk(path, total_bytes_max):
        if entry.path not in missing:
            continue
        if entry.kind is EntryKind.SYMLINK:
            aliases.add(posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), entry.target)))
        elif entry.kind is EntryKind.FILE:
            with opener() as layer:
                left_bytes -= scan_layer(layer, left_bytes)
            files.add(entry.path)
        else:
            raise reject(f"The layer {shown(entry.path)} is not a file.")
        missing.discard(entry.path)
    # `docker save` writes a repeated layer as a link to its first copy: that copy, a file and no further
    # link, must be among those scanned.
    if missing or not aliases <= files:
        raise reject("The image archive lacks some of its layers. Save the image again.")
    return total_bytes_max - left_bytes


def renamed(path: Path, image: ImageArchive, name: str | None, total_bytes_max: int) -> Iterator[bytes]:
    """The archive as a plain tar stream with the one image in it, under this one name ("repository:tag") or none."""
    wanted = {image.config_path, *image.layer_paths}
    for entry, opener in walk(path, total_bytes_max):
        if entry.path in _DROPPED or entry.path not in wanted:
            continue
        info = tarfile.TarInfo(entry.path)
        if entry.kind is EntryKind.SYMLINK:
            info.type, info.linkname = tarfile.SYMTYPE, entry.target
            yield info.tobuf()
        else:
            info.size = entry.size_bytes
            yield info.tobuf()
            yield from _padded(opener, entry.size_bytes)
    manifest = [{"Config": image.config_path, "RepoTags": [name] if name else None, "Layers": list(image.layer_paths)}]
    content = json.dumps(manifest).encode()
    info = tarfile.TarInfo("manifest.json")
    info.size = len(content)
    yield info.tobuf() + content + b"\0" * (-len(content) % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _padded(opener: OpenEntry, size_bytes: int) -> Iterator[bytes]:
    with opener() as file:
        yield from chunks(file.read)
    yield b"\0" * (-size_bytes % tarfile.BLOCKSIZE)


def _config_section(content: bytes) -> dict[str, Any]:
    section = _json(content, "the image's configuration", dict).get("config") or {}
    if not isinstance(section, dict):
        raise reject("The image's configuration is malformed.")
    return section


def _json(content: bytes, what: str, kind: type[_T]) -> _T:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise reject(f"{what} in the image archive is not valid JSON.") from None
    if not isinstance(value, kind):
        raise reject(f"{what} in the image archive is malformed.")
    return value
