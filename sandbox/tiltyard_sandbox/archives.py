"""Uploads: what kind they are and what they say about themselves. (Being filled in.)"""

from enum import StrEnum
from pathlib import Path

from tiltyard_sandbox.manifest import SubmissionManifest


class UploadKind(StrEnum):
    """What an uploaded archive holds."""

    CONTEXT = "context"  # a Dockerfile and what it needs: .zip, .tar or .tar.gz
    IMAGE = "image"  # the output of `docker save`


def inspect_upload(path: Path) -> UploadKind:
    """Which kind of upload this is, after every check that needs no engine; raises SubmissionFault(image_rejected)."""
    raise NotImplementedError


def read_manifest(path: Path) -> SubmissionManifest:
    """The upload's `tiltyard.yaml`, or the labels of its image; raises SubmissionFault(image_rejected)."""
    raise NotImplementedError
