"""Which uploads name an image, and which references can be trusted to mean one image for ever."""

from pathlib import Path

import pytest

from tiltyard_sandbox.archives import UploadKind, inspect_upload, read_upload
from tiltyard_sandbox.pulls import fault_of_image, uses_containerd_store
from tiltyard_sandbox.references import ImageReference, NamedImage, is_registry, named_image
from tiltyard_sandbox.verdicts import Reason, SubmissionFault

DIGEST = "sha256:" + "0123456789abcdef" * 4
FIELDS = "name: probe\nbase_model: none\ntraining_data: none\nlicence: Apache-2.0\n"


@pytest.mark.parametrize(
    "name",
    [
        "registry.example/model",
        f"registry.example/{'x' * 238}",
        "registry.example:5000/team/my-model",
        "127.0.0.1:41000/a/b_c/d.e",
        "localhost/x",
    ],
)
def test_a_pinned_reference_is_read(name: str) -> None:
    reference = ImageReference.parse(f"{name}@{DIGEST}")
    assert str(reference) == f"{name}@{DIGEST}"
    assert f"{reference.registry}/{reference.repository}" == name
    assert is_registry(reference.registry)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("registry.example/model", "not pinned"),
        ("registry.example/model:latest", "not pinned"),
        ("registry.example/model@sha256:1234", "not pinned"),
        (f"registry.example/model@{DIGEST.upper()}", "not pinned"),
        (f"registry.example/model:1@{DIGEST}", "without a tag"),
        (f"model@{DIGEST}", "names no registry"),
        (f"team/model@{DIGEST}", "names no registry"),  # Docker Hub would be meant
        (f"registry.example/../model@{DIGEST}", "names no registry"),
        (f"registry.example//model@{DIGEST}", "names no registry"),
        (f"https://registry.example/model@{DIGEST}", "names no registry"),
        (f"user:secret@registry.example/model@{DIGEST}", "not pinned"),
        (f"registry.example/model?x=1@{DIGEST}", "names no registry"),
        (f"[::1]:5000/model@{DIGEST}", "names no registry"),
        (f"registry.example/{'x' * 239}@{DIGEST}", "shorter"),
        (f"-registry.example/model@{DIGEST}", "names no registry"),
    ],
)
def test_what_could_change_or_lead_elsewhere_is_refused(text: str, words: str) -> None:
    with pytest.raises(SubmissionFault, match=words) as caught:
        ImageReference.parse(text)
    assert caught.value.reason == Reason.IMAGE_REJECTED


def test_only_the_competitions_registries_are_asked() -> None:
    reference = ImageReference.parse(f"registry.example/model@{DIGEST}")
    reference.require_allowed(["other.example", "registry.example"])
    for allowed, words in (([], "takes no images from registries"), (["other.example"], "Allowed: other.example")):
        with pytest.raises(SubmissionFault, match=words):
            reference.require_allowed(allowed)


def test_an_upload_that_names_an_image(tmp_path: Path) -> None:
    path = tmp_path / "tiltyard.yaml"
    path.write_text(f"{FIELDS}image: registry.example/model@{DIGEST}\n")
    found = read_upload(path)
    assert isinstance(found, NamedImage)
    assert (found.manifest.name, found.reference.registry) == ("probe", "registry.example")
    assert inspect_upload(path) is UploadKind.REFERENCE
    assert "tiltyard.image" not in found.manifest.labels()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FIELDS, "not an archive"),
        (f"{FIELDS}image: registry.example/model:1\n", "not pinned"),
        (f"{FIELDS}image:\n", "not pinned"),
        (f"{FIELDS}image: [a]\n", "text"),
        (f"image: registry.example/model@{DIGEST}\n", "lacks name"),
        (f"{FIELDS}image: &a [*a]\n", "YAML"),
        (f"{FIELDS}  image: x\n : bad", "not an archive"),
    ],
)
def test_a_wrong_one_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "tiltyard.yaml"
    path.write_text(text)
    with pytest.raises(SubmissionFault, match=words):
        read_upload(path)


def test_large_files_and_binary_ones_are_not_read_for_a_reference(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"image: x\n" + b"#" * (1 << 20))
    assert named_image(path) is None
    path.write_bytes(b"image: x\n\0")
    assert named_image(path) is None


@pytest.mark.parametrize(
    ("complaint", "words"),
    [
        ("no matching manifest for linux/amd64 in the manifest list entries", "{platform}"),
        ("failed to register layer: Error processing tar file(exit status 1): unexpected EOF", "layer"),
        ("unsupported manifest media type and no default available: x", "manifest"),
        ("filesystem layer verification failed for digest sha256:00", "digests"),
        ("manifest for x@sha256:00 not found: manifest unknown: OCI index found", "public"),
        ("denied: requested access to the resource is denied", "public"),
    ],
)
def test_what_the_engine_says_of_a_bad_image_is_the_images_fault(complaint: str, words: str) -> None:
    assert words in (fault_of_image(complaint) or "")


@pytest.mark.parametrize(
    "complaint",
    [
        "open /var/lib/docker/tmp/GetImageBlob1: permission denied",
        "failed to register layer: mkdir /var/lib/docker/overlay2/x: permission denied",
        "failed to register layer: write /x: no space left on device",
        "dial tcp 127.0.0.1:1: connect: connection refused",
    ],
)
def test_what_the_engine_says_of_itself_is_not(complaint: str) -> None:
    assert fault_of_image(complaint) is None


def test_which_engines_let_containerd_fetch() -> None:
    assert uses_containerd_store({"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]})
    assert not uses_containerd_store({"DriverStatus": [["Backing Filesystem", "extfs"]]})
    assert not uses_containerd_store({"DriverStatus": None})
