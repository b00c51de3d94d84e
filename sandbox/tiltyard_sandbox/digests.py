"""The content digest: an image's name that time stamps, the build's day and the engine cannot change.

SHA-256 over the configuration that matters when a container runs (`_CONFIG_FIELDS` and the manifest's labels) and,
layer by layer, the digest of `layers.layer_digests`. Two builds of one archive on one base agree; image ids do not.
Layers are remembered by their diff id, so that an image whose layers are all known is not read again; and by the name
under which the engine exports them, which follows from them and those below, so that of a new image on a known base
only what is new is hashed.
"""

import hashlib
import json
import os
import posixpath
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import docker

from tiltyard_sandbox.engine import ENGINE_ERRORS
from tiltyard_sandbox.guarded import tar_members
from tiltyard_sandbox.layers import layer_digests
from tiltyard_sandbox.manifest import LABELS
from tiltyard_sandbox.verdicts import InfraFault, SubmissionFault

SCHEMA: Final = "tiltyard.image-digest/1"
_NAMES: Final = "names in exports"
_CONFIG_FIELDS: Final = ("Env", "Entrypoint", "Cmd", "WorkingDir", "User", "ExposedPorts", "Volumes")
_REMEMBERED_MAX: Final = 4096  # layers; every image brings one or two that nobody will ask for again
_EXPORT_BYTES_MAX: Final = 1 << 45  # our own engine's output: the guard is for headers, not for size


def content_digest(client: docker.DockerClient, image_id: str, cache_file: Path | None = None) -> str:
    """The image's content digest as "sha256:…".

    `cache_file` remembers layers between calls; it is written atomically, and may be deleted at any time. Raises
    InfraFault when the engine cannot export the image.
    """
    try:
        details = client.images.get(image_id).attrs
        diff_ids = [str(diff_id).removeprefix("sha256:") for diff_id in details["RootFS"]["Layers"]]
        cache = _LayerCache.load(cache_file)
        if not set(diff_ids) <= cache.digests.keys():
            _read_layers(client, image_id, cache)
            cache.use(diff_ids)
            cache.save()
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine could not export the image: {str(error)[:300]}") from error
    missing = [diff_id for diff_id in diff_ids if diff_id not in cache.digests]
    if missing:
        raise InfraFault("The Docker engine exported the image without one of its layers.")
    identity = [SCHEMA, _config_identity(details), [cache.digests[diff_id] for diff_id in diff_ids]]
    return "sha256:" + hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _config_identity(details: dict[str, Any]) -> dict[str, Any]:
    config = details.get("Config") or {}
    labels = config.get("Labels") or {}
    identity = {name: config.get(name) or None for name in _CONFIG_FIELDS}
    identity["Labels"] = {label: labels[label] for label in sorted(LABELS.values()) if label in labels}
    identity["Platform"] = [details.get("Os"), details.get("Architecture")]
    return identity


def _read_layers(client: docker.DockerClient, image_id: str, cache: "_LayerCache") -> None:
    """Remember every layer in the engine's export of the image."""
    export = _Joined(client.api.get_image(image_id))
    with tar_members(export, _EXPORT_BYTES_MAX) as members:
        for member in members:
            is_layer = posixpath.basename(member.name) == "layer.tar" or member.name.startswith("blobs/")
            if not member.isreg() or not is_layer or cache.knows(member.name):
                continue
            with members.open(member) as file:
                try:
                    diff_id, digest = layer_digests(file, _EXPORT_BYTES_MAX)
                except SubmissionFault:
                    continue  # newer engines keep other things than layers among the blobs
            cache.digests[diff_id] = digest
            cache.names[member.name] = diff_id


class _Joined:
    """A stream of chunks as something that can be read in any size."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        while not self._left:
            part = next(self._parts, None)
            if part is None:
                return b""
            self._left = part
        taken, self._left = self._left[:size], self._left[size:]
        return taken


@dataclass
class _LayerCache:
    path: Path | None
    digests: dict[str, str] = field(default_factory=dict)  # by diff id, what was used last at the end
    names: dict[str, str] = field(default_factory=dict)  # diff ids, by the name in an export

    @classmethod
    def load(cls, path: Path | None) -> "_LayerCache":
        """What is remembered; a missing or damaged file is an empty memory."""
        if path is None or not path.exists():
            return cls(path)
        try:
            known = json.loads(path.read_text())
        except (OSError, ValueError):
            known = {}
        known = known if isinstance(known, dict) else {}
        layers, names = known.get(SCHEMA), known.get(_NAMES)
        return cls(
            path, dict(layers) if isinstance(layers, dict) else {}, dict(names) if isinstance(names, dict) else {}
        )

    def knows(self, name: str) -> bool:
        return self.names.get(name) in self.digests

    def use(self, diff_ids: Iterable[str]) -> None:
        """Let these be the last that are forgotten."""
        for diff_id in diff_ids:
            if diff_id in self.digests:
                self.digests[diff_id] = self.digests.pop(diff_id)

    def save(self) -> None:
        """Replace the file in one step, so that a reader never sees half of it."""
        if self.path is None:
            return
        digests = dict(list(self.digests.items())[-_REMEMBERED_MAX:])
        names = {name: diff_id for name, diff_id in self.names.items() if diff_id in digests}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
            json.dump({SCHEMA: digests, _NAMES: names}, file)
        os.replace(file.name, self.path)  # noqa: PTH105  atomic, and clearer than Path.replace on a name
