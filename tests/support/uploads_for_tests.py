"""Archives as participants upload them, good and bad."""

import gzip
import io
import tarfile
from pathlib import Path

import yaml

MANIFEST = {
    "name": "tiny",
    "base_model": "squire",
    "training_data": "Nothing: it answers by rote.",
    "licence": "Apache-2.0",
    "adapter": "openai",
}
DOCKERFILE = 'ARG BASE=tiltyard/runtime:cpu\nFROM ${BASE}\nCOPY . /app\nCMD ["python3", "/app/server.py"]\n'


def context_archive(
    path: Path,
    *,
    dockerfile: str | None = DOCKERFILE,
    manifest: dict[str, object] | str | None = None,
    files: dict[str, str] | None = None,
) -> Path:
    """A .tar.gz with a Dockerfile (unless None), a tiltyard.yaml and further files; times are fixed."""
    members = dict(files or {"server.py": "print('hello')\n"})
    if dockerfile is not None:
        members["Dockerfile"] = dockerfile
    members["tiltyard.yaml"] = manifest if isinstance(manifest, str) else yaml.safe_dump(MANIFEST | (manifest or {}))
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, text in sorted(members.items()):
            content = text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
