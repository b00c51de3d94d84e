"""Make the local base images: tiltyard/python:3.11, tiltyard/runtime:cpu and tiltyard/evaluator:local.

Nothing is pulled. The bare Python comes from Debian's archive through mmdebstrap (as root, on Debian), or is any image
that --base names. Third-party packages are copied from the virtual environment that runs this script, so they are the
pinned ones, built for this Python; each image's heavy layer is apart from the project's own, thin one. Every image
carries the hash of its inputs as a label, and an image whose label is right is left alone.
"""

import argparse
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import IO

import docker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tiltyard.evaluation.evaluator_image import own_tag
from tiltyard_eval.source import SOURCE_LABEL, source_sha256
from tiltyard_sandbox.build_proxy import PROXY_IMAGE

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGES = REPOSITORY / "sandbox" / "images"
STAMP_LABEL = "tiltyard.stamp"
PYTHON_IMAGE = "tiltyard/python:3.11"
RUNTIME_IMAGE = "tiltyard/runtime:cpu"
EVALUATOR_IMAGE = "tiltyard/evaluator:local"
MTIME = 315_532_800  # 1980-01-01, the earliest that zip files can say: images carry no build time

MMDEBSTRAP = [
    "mmdebstrap",
    "--quiet",
    "--variant=minbase",
    "--include=python3,ca-certificates",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    '--customize-hook=ln -s python3 "$1/usr/bin/python"',
    '--customize-hook=rm -f "$1"/usr/lib/python3.11/EXTERNALLY-MANAGED',
    # No program gains rights, and nothing remembers this machine or this day.
    '--customize-hook=find "$1" -xdev -type f -perm /6000 -exec chmod a-s {} +',
    '--customize-hook=rm -rf "$1"/etc/machine-id "$1"/etc/hostname "$1"/etc/resolv.conf',
    '--customize-hook=rm -rf "$1"/var/cache/ldconfig "$1"/var/lib/apt/lists/* "$1"/var/log/*',
    '--customize-hook=find "$1"/usr -name "*.pyc" -delete',
    "bookworm",
    "-",
]
# squid refuses to start without its pages, of which English ones are enough.
PROXY_MMDEBSTRAP = [
    *(option for option in MMDEBSTRAP[:-2] if not option.startswith(("--include", "--customize-hook=ln"))),
    "--include=squid,socat",
    "--dpkgopt=path-exclude=/usr/share/squid/errors/*",
    "--dpkgopt=path-include=/usr/share/squid/errors/en/*",
    "--dpkgopt=path-include=/usr/share/squid/errors/templates/*",
    *MMDEBSTRAP[-2:],
]
PROXY_CHANGES = ["ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin", 'CMD ["squid", "-v"]']
PYTHON_CHANGES = [
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV LANG=C.UTF-8",
    "ENV PYTHONUNBUFFERED=1",
    "ENV PYTHONDONTWRITEBYTECODE=1",
    'CMD ["python3"]',
]
# Parts of packages that no server and no evaluation reads.
UNUSED = (
    "torch/test/",
    "torch/include/",
    "torch/share/",
    "torch/bin/protoc",
    "pyarrow/include/",
    "pyarrow/tests/",
    "pandas/tests/",
    "sympy/polys/benchmarks/",
    "numpy/_core/include/",
)
UNUSED_SUFFIXES = (".pyc", ".pyi", ".a", ".lib", ".pxd")
UNUSED_METADATA = {"INSTALLER", "REQUESTED", "direct_url.json", "RECORD"}  # they differ from one install to the next


@dataclass(frozen=True)
class Package:
    """An image that is made: a heavy one of third-party packages, or a thin one of the project's own code."""

    tag: str
    folder: str  # under sandbox/images
    base: str
    warm: Sequence[str] = ()  # modules to import, so that byte code is made for all they need
    requirements: Sequence[str] = ()
    sources: Sequence[tuple[str, Path]] = ()  # (path in the context, folder here)
    own_tag: str = ""  # of this very content, which no other checkout's build takes away
    labels: tuple[tuple[str, str], ...] = ()


def main() -> None:
    """Make the images that are missing or out of date."""
    options = _options()
    client = docker.from_env(timeout=600)
    if options.build_proxy:
        make_debian_image(client, PROXY_IMAGE, PROXY_MMDEBSTRAP, PROXY_CHANGES)
        return
    if options.base == PYTHON_IMAGE:
        make_debian_image(client, PYTHON_IMAGE, MMDEBSTRAP, PYTHON_CHANGES)
    if options.only_python:
        return
    for package in planned(options.base, without_squire=options.without_squire):
        make(client, package)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", default=PYTHON_IMAGE, help="an image with Python 3.11, instead of making one")
    parser.add_argument("--without-squire", action="store_true", help="leave the base model out of the runtime image")
    parser.add_argument("--build-proxy", action="store_true", help=f"make {PROXY_IMAGE} and no other")
    parser.add_argument("--only-python", action="store_true", help=f"make {PYTHON_IMAGE} and no other")
    options = parser.parse_args()
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"The images hold Python 3.11, but this is {sys.version.split()[0]}: run it with Python 3.11.")
    return options


def planned(base: str, *, without_squire: bool) -> list[Package]:
    """The images in the order of their making."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    squire = REPOSITORY / "baselines" / "squire"
    if not squire.is_dir() and not without_squire:
        sys.exit("baselines/squire is missing: train it first, or pass --without-squire.")
    return [
        Package(
            "tiltyard/runtime-dependencies:cpu",
            "dependencies",
            base,
            requirements=[*extras["baselines"], "pyyaml", "pip"],
            warm=[
                "torch._dynamo",
                "transformers.models.llama.modeling_llama",
                "transformers.models.auto.modeling_auto",
                "transformers.models.auto.tokenization_auto",
                "transformers.generation.utils",
                "transformers.integrations.peft",
                "peft.tuners.lora",
                "safetensors.torch",
                "starlette.applications",
                "starlette.responses",
                "uvicorn.protocols.http.h11_impl",
                "uvicorn.lifespan.on",
                "uvicorn.loops.asyncio",
            ],
        ),
        Package(
            RUNTIME_IMAGE,
            "runtime",
            "tiltyard/runtime-dependencies:cpu",
            sources=[
                ("project/tiltyard_baselines", REPOSITORY / "baselines" / "tiltyard_baselines"),
                ("project/tiltyard_kernels", REPOSITORY / "kernels" / "tiltyard_kernels"),
                ("squire", squire),
            ],
        ),
        Package(
            "tiltyard/evaluator-dependencies:local",
            "dependencies",
            base,
            requirements=[*project["dependencies"], *extras["eval"]],
            warm=["lm_eval.evaluator", "lm_eval.tasks", "lm_eval.api.registry", "aiohttp", "rich.progress", "yaml"],
        ),
        Package(
            EVALUATOR_IMAGE,
            "evaluator",
            "tiltyard/evaluator-dependencies:local",
            sources=[("project/tiltyard_eval", REPOSITORY / "evaluator" / "tiltyard_eval")],
            own_tag=own_tag(),
            labels=((SOURCE_LABEL, source_sha256()),),
        ),
    ]


def make_debian_image(
    client: docker.DockerClient, tag: str, mmdebstrap: Sequence[str], image_changes: Sequence[str]
) -> None:
    """Debian's minimal system with some packages as an image, unless it is there."""
    stamp = hashlib.sha256(repr((list(mmdebstrap), list(image_changes))).encode()).hexdigest()
    if is_current(client, tag, stamp):
        return
    if shutil.which("mmdebstrap") is None:
        sys.exit("mmdebstrap is missing: apt-get install mmdebstrap, or pass --base IMAGE with Python 3.11.")
    started = time.monotonic()
    print(f"{tag}: downloading Debian packages (some 40 MB)", flush=True)
    with tempfile.TemporaryFile(prefix="tiltyard-debian-") as root:
        subprocess.run(mmdebstrap, check=True, stdin=subprocess.DEVNULL, stdout=root)
        root.seek(0)
        repository, _, version = tag.partition(":")
        changes = [*image_changes, f"LABEL {STAMP_LABEL}={stamp}"]
        client.api.import_image(src=root, repository=repository, tag=version, changes=changes)
    report(client, tag, started)


def make(client: docker.DockerClient, package: Package) -> None:
    """Build one image, unless it is there already from the same inputs."""
    distributions = closure(package.requirements)
    stamp = _stamp(client, package, distributions)
    if is_current(client, package.tag, stamp) or _is_current_by_its_own_tag(client, package, stamp):
        return
    started = time.monotonic()
    print(f"{package.tag}: building", flush=True)
    replaced = [str(image.id) for image in client.images.list(name=package.tag)]
    with tempfile.TemporaryFile(prefix="tiltyard-context-") as context:
        with tarfile.open(fileobj=context, mode="w") as archive:
            _fill(archive, package, distributions)
        context.seek(0)
        _build(client, package, context, stamp)
    if package.own_tag:
        client.images.get(package.tag).tag(package.own_tag)
    report(client, package.tag, started)
    for image_id in set(replaced) - {str(client.images.get(package.tag).id)}:
        _remove_untagged(client, image_id)


def _is_current_by_its_own_tag(client: docker.DockerClient, package: Package, stamp: str) -> bool:
    """Whether the image is there and has only lost its ordinary name to another checkout; takes the name back."""
    if not package.own_tag or not is_current(client, package.own_tag, stamp):
        return False
    client.images.get(package.own_tag).tag(package.tag)
    return True


def _remove_untagged(client: docker.DockerClient, image_id: str) -> None:
    """Remove the image that a new one replaced, unless it has another name, is built upon, or runs."""
    try:
        if not client.images.get(image_id).tags:
            client.images.remove(image_id)
    except docker.errors.APIError as error:
        if error.status_code not in {404, 409}:
            raise


def _fill(archive: tarfile.TarFile, package: Package, distributions: Iterable[Distribution]) -> None:
    for name in ("Dockerfile", "warm.py"):
        source = IMAGES / package.folder / name
        if source.exists():
            _add(archive, name, source)
    for arcname, folder in package.sources:
        _add_folder(archive, arcname)
        for path in _files(folder):
            _add(archive, f"{arcname}/{path.relative_to(folder)}", path)
    for one in distributions:
        for inside, path in sorted(installed_files(one)):
            _add(archive, f"site/{inside}", path)


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    info = tarfile.TarInfo(name)
    status = path.stat()
    info.size = status.st_size
    info.mode = 0o755 if status.st_mode & 0o100 else 0o644
    info.mtime = MTIME
    with path.open("rb") as file:
        archive.addfile(info, file)


def _add_folder(archive: tarfile.TarFile, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, MTIME
    archive.addfile(info, io.BytesIO())


def _build(client: docker.DockerClient, package: Package, context: IO[bytes], stamp: str) -> None:
    lines: list[str] = []
    for message in client.api.build(
        fileobj=context,
        custom_context=True,
        tag=package.tag,
        rm=True,
        forcerm=True,
        network_mode="none",
        decode=True,
        buildargs={"BASE": package.base, "WARM": " ".join(package.warm)},
        labels={STAMP_LABEL: stamp, **dict(package.labels)},
    ):
        lines.append(str(message.get("stream", "")))
        if "error" in message:
            sys.exit(f"{package.tag} failed to build: {message['error']}\n{''.join(lines[-40:])}")


def closure(requirements: Iterable[str]) -> list[Distribution]:
    """The installed distributions that these requirements bring with them, sorted by name."""
    pending = [Requirement(text) for text in requirements]
    seen: set[tuple[str, str]] = set()
    found: dict[str, Distribution] = {}
    while pending:
        requirement = pending.pop()
        for extra in ["", *sorted(requirement.extras)]:
            name = canonicalize_name(requirement.name)
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                found[name] = distribution(name)
            except PackageNotFoundError:
                sys.exit(f"{name} is not installed here: pip install -c constraints.txt '{requirement}'")
            for text in found[name].requires or []:
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    pending.append(further)
    return [found[name] for name in sorted(found)]


def installed_files(one: Distribution) -> Iterator[tuple[str, Path]]:
    """(path under site-packages, file here) for what the distribution installed and an image needs."""
    for file in one.files or []:
        inside = file.as_posix()
        unused = inside.startswith(("..", "/", *UNUSED)) or inside.endswith(UNUSED_SUFFIXES)
        if unused or file.name in UNUSED_METADATA:
            continue
        path = Path(str(one.locate_file(file)))
        if path.is_file():
            yield inside, path


def _stamp(client: docker.DockerClient, package: Package, distributions: Iterable[Distribution]) -> str:
    digest = hashlib.sha256()
    for part in (package.tag, package.labels, _label(client, package.base), package.warm, UNUSED, UNUSED_SUFFIXES):
        digest.update(repr(part).encode())
    for one in distributions:
        digest.update(f"{one.name}=={one.version}\n".encode())
    for arcname, folder in (("image", IMAGES / package.folder), *package.sources):
        for path in _files(folder):
            digest.update(f"{arcname}/{path.relative_to(folder)}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _label(client: docker.DockerClient, tag: str) -> str:
    """The image's stamp, its id when it has none, or nothing when there is no such image yet."""
    try:
        image = client.images.get(tag)
    except docker.errors.ImageNotFound:
        return ""
    return str(image.labels.get(STAMP_LABEL) or image.id)


def is_current(client: docker.DockerClient, tag: str, stamp: str) -> bool:
    """Whether the image is there, made from these inputs; says so."""
    current = _label(client, tag) == stamp
    if current:
        print(f"{tag}: up to date")
    return current


def report(client: docker.DockerClient, tag: str, started: float) -> None:
    """Say how large the image is and how long it took."""
    size = client.images.get(tag).attrs["Size"]
    print(f"{tag}: {size / 1e6:.0f} MB in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except docker.errors.DockerException as error:
        sys.exit(f"The Docker engine failed: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]} failed with status {error.returncode}; what it said stands above.")
