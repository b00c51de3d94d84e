"""Images that are named, not sent: a `tiltyard.yaml` whose `image` is a registry's, pinned by its digest.

A tag can be moved to another image after the checks; a digest is over the content, so it cannot.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tiltyard_sandbox.guarded import reject, shown
from tiltyard_sandbox.manifest import FILE_NAME, MAX_BYTES, SubmissionManifest

# The grammar of distribution/reference, without tags, and with a registry always: else Docker Hub would be meant.
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_REGISTRY: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})+(?::[0-9]{{1,5}})?|{_LABEL}:[0-9]{{1,5}}|localhost)")
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART}){{0,7}}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_NAMES_IMAGE: Final = re.compile(rb"^image[ \t]*:", re.MULTILINE)
_NAME_CHARS_MAX: Final = 255  # of registry and repository, in the same grammar
_EXAMPLE: Final = "image: registry.example/my-model@sha256:…"


@dataclass(frozen=True)
class ImageReference:
    """Registry, repository and digest of one image."""

    registry: str  # host, with a port where it is not the usual one
    repository: str
    digest: str  # "sha256:…"

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}@{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reference in a text; raises SubmissionFault(image_rejected) on any that is not pinned by its digest."""
        name, _, digest = text.partition("@")
        registry, _, repository = name.partition("/")
        if not _DIGEST.fullmatch(digest):
            raise reject(
                f"{FILE_NAME}: the image {shown(text)} is not pinned by its digest, so it could change. "
                f"`docker push` prints the digest: write {_EXAMPLE}."
            )
        if not _REGISTRY.fullmatch(registry) or not _REPOSITORY.fullmatch(repository):
            raise reject(f"{FILE_NAME}: {shown(text)} names no registry and image. Write, without a tag, {_EXAMPLE}.")
        if len(name) > _NAME_CHARS_MAX:
            raise reject(
                f"{FILE_NAME}: the image's name has {len(name)} characters, of which engines take {_NAME_CHARS_MAX}. "
                "Push it under a shorter one."
            )
        return cls(registry, repository, digest)

    def require_allowed(self, registries: Collection[str]) -> None:
        """Raise SubmissionFault(image_rejected) unless the competition takes images from this registry."""
        if not registries:
            raise reject("This competition takes no images from registries. Send a Dockerfile or a saved image.")
        if self.registry not in registries:
            allowed = ", ".join(sorted(registries))
            raise reject(f"This competition takes no images from {shown(self.registry)}. Allowed: {allowed}.")


def is_registry(text: str) -> bool:
    """Whether this can stand before the first slash of a reference."""
    return _REGISTRY.fullmatch(text) is not None


@dataclass(frozen=True)
class NamedImage:
    """An upload that is nothing but a manifest with a reference."""

    reference: ImageReference
    manifest: SubmissionManifest


def named_image(path: Path) -> NamedImage | None:
    """What the file names when it is a `tiltyard.yaml` with an `image`; None for any other file.

    Raises SubmissionFault(image_rejected) when it is one and wrong.
    """
    if path.stat().st_size > MAX_BYTES:
        return None
    text = path.read_bytes()
    if b"\0" in text or not _NAMES_IMAGE.search(text):  # no archive is without zeros
        return None
    manifest = SubmissionManifest.from_yaml(text)
    return NamedImage(ImageReference.parse(manifest.image), manifest)
