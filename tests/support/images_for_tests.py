"""Submissions' images for tests: built and loaded with small limits, remembered, and saved images made by hand."""

import dataclasses
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import docker

from tiltyard_sandbox import images
from tiltyard_sandbox.images import BuiltImage
from tiltyard_sandbox.limits import Limits

PYTHON_IMAGE = "tiltyard/python:3.11"
MANIFEST = b"name: probe\nbase_model: none\ntraining_data: none\nlicence: Apache-2.0\n"
PLAIN = b"FROM tiltyard/python:3.11\nCOPY . /app\n"

Pack = Callable[..., Path]


class Builder:
    """Builds and loads with a test's limits, keeps the log, and removes every image at the end."""

    def __init__(self, client: docker.DockerClient, limits: Limits) -> None:
        self.client = client
        self.limits = limits
        self.log: list[str] = []
        self.cancel = threading.Event()
        self.made: list[str] = []
        self.owner = "test"
        self.gauge_image: str | None = PYTHON_IMAGE

    def build(self, archive: Path, **changes: Any) -> BuiltImage:
        built = images.build_image(
            self.client,
            archive,
            allowed_bases=[PYTHON_IMAGE],
            base_args={},
            limits=dataclasses.replace(self.limits, **changes),
            on_log=self.log.append,
            cancel=self.cancel,
            owner=self.owner,
            gauge_image=self.gauge_image,
        )
        self.made.append(built.image_id)
        return built

    def load(self, archive: Path, **changes: Any) -> BuiltImage:
        built = images.load_image(
            self.client,
            archive,
            limits=dataclasses.replace(self.limits, **changes),
            on_log=self.log.append,
            cancel=self.cancel,
            owner=self.owner,
            gauge_image=self.gauge_image,
        )
        self.made.append(built.image_id)
        return built


def context(dockerfile: bytes, **files: bytes) -> dict[str, bytes]:
    return {"Dockerfile": dockerfile, "tiltyard.yaml": MANIFEST, **files}


def image_archive(
    path: Path,
    *members: tuple[str, bytes, str],
    tags: list[str] | None = None,
    labels: bool = True,
    config: Mapping[str, object] | None = None,
) -> Path:
    """A `docker save` archive with one layer of (name, type, content or link target) members."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.devmajor, info.devminor = kind, 0o4755, 1, 3
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content
            archive.addfile(info, io.BytesIO(content.encode()))
    raw = layer.getvalue()
    diff_id = "sha256:" + hashlib.sha256(raw).hexdigest()
    names = ("name", "base_model", "training_data", "licence")
    settings = {"Cmd": ["/x"], "Labels": {f"tiltyard.{name}": "x" for name in names} if labels else {}}
    description = {
        "architecture": "amd64",
        "os": "linux",
        "config": {**settings, **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    manifest = [{"Config": "c.json", "RepoTags": tags, "Layers": ["l/layer.tar"]}]
    with tarfile.open(path, "w:gz") as outer:
        for name, content in (
            ("l/layer.tar", raw),
            ("c.json", json.dumps(description).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
            ("repositories", json.dumps({"tiltyard/python": {"3.11": "l"}}).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            outer.addfile(info, io.BytesIO(content))
    return path
