"""Shipped caches of compiled kernels: an archive for another installation, damaged or hostile is refused."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiltyard_kernels.cache import CacheError, archive, use
from tiltyard_kernels.cache.__main__ import main
from tiltyard_kernels.cache.identity import identity

KEY = "A" * 52
FILES = {f"{KEY}/some_kernel.cubin": b"machine code", f"{KEY}/some_kernel.json": b'{"shared": 0}'}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as Triton leaves it, with parts that are not shipped."""
    made = tmp_path / "triton"
    (made / KEY).mkdir(parents=True)
    for name, data in FILES.items():
        (made / name).write_bytes(data)
    (made / KEY / "__grp__some_kernel.json").write_text("{}")
    (made / KEY / "some_kernel.ttir").write_text("module")
    (made / ("B" * 52)).mkdir()
    (made / ("B" * 52) / "__triton_launcher.so").write_bytes(b"host code")
    return made


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    out = tmp_path / "kernels.zip"
    assert archive.pack(folder, 90, out) == 1
    return out


def test_a_kernel_comes_back_where_triton_looks_for_it(packed: Path, tmp_path: Path) -> None:
    target = tmp_path / "cache"
    assert use(packed, into=target, arch=90) == 1
    group = json.loads((target / KEY / "__grp__some_kernel.json").read_text())["child_paths"]
    assert {name: Path(path).read_bytes() for name, path in group.items()} == {
        name.split("/")[1]: data for name, data in FILES.items()
    }
    assert sorted(path.name for path in target.rglob("*")) == sorted([KEY, *group, "__grp__some_kernel.json"])
    assert use(packed, into=target, arch=90) == 1  # a second time, over itself


def test_an_archive_is_the_same_every_time(folder: Path, packed: Path, tmp_path: Path) -> None:
    archive.pack(folder, 90, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def rewritten(
    packed: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None], *, digests: bool = True
) -> Path:
    """The archive after `change` of its manifest and files, digests made anew."""
    files = dict(FILES)
    manifest: dict[str, Any] = {"format": 1, "identity": dict(identity(90)), "files": {}}
    change(manifest, files)
    if digests:
        manifest["files"] |= {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    with zipfile.ZipFile(packed, "w") as written:
        written.writestr("manifest.json", json.dumps(manifest))
        for name, data in files.items():
            written.writestr(name, data)
    return packed


@pytest.mark.parametrize("part", ["triton", "triton_build", "library", "architecture"])
def test_another_installations_kernels_are_refused(part: str, packed: Path, tmp_path: Path) -> None:
    rewritten(packed, lambda manifest, _files: manifest["identity"].update({part: "another"}))
    with pytest.raises(CacheError, match=rf"is for {part.replace('_', ' ')} 'another', and this is '.*build one here"):
        use(packed, into=tmp_path / "cache", arch=90)
    assert not (tmp_path / "cache").exists()


def test_without_a_gpu_the_architecture_is_not_asked_for(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="is for architecture 'sm90', and this is 'sm80'"):
        use(packed, into=tmp_path / "cache", arch=80)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.cubin",
        f"{KEY}/../../outside.json",
        f"/{KEY}/some_kernel.json",
        f"{KEY}/__triton_launcher.so",
        f"{KEY}/deeper/some_kernel.cubin",
        f"{KEY}\\some_kernel.cubin",
        "short/some_kernel.cubin",
        f"{KEY}/some_kernel.cubin\n",
    ],
)
def test_names_that_no_cache_has_are_refused(name: str, packed: Path, tmp_path: Path) -> None:
    rewritten(packed, lambda _manifest, files: files.update({name: b"x"}))
    with pytest.raises(CacheError, match="which no cache of kernels has"):
        use(packed, into=tmp_path / "cache", arch=90)
    assert not (tmp_path / "cache").exists()


def test_what_differs_from_its_digest_is_refused(packed: Path, tmp_path: Path) -> None:
    def swap(manifest: dict[str, Any], files: dict[str, bytes]) -> None:
        manifest["files"] = {name: hashlib.sha256(b"other").hexdigest() for name in files}

    rewritten(packed, swap, digests=False)
    with pytest.raises(CacheError, match="is not what the manifest says"):
        use(packed, into=tmp_path / "cache", arch=90)


def test_missing_and_lone_files_are_refused(packed: Path, tmp_path: Path) -> None:
    rewritten(packed, lambda manifest, _files: manifest["files"].update({f"{KEY}/more.cubin": "0"}))
    with pytest.raises(CacheError, match=r"lacks A+/more.cubin, which the manifest names"):
        use(packed, into=tmp_path / "cache", arch=90)
    rewritten(packed, lambda _manifest, files: files.pop(f"{KEY}/some_kernel.json") and None)
    with pytest.raises(CacheError, match=r"has A+/some_kernel.cubin without A+/some_kernel.json"):
        use(packed, into=tmp_path / "cache", arch=90)


@pytest.mark.parametrize(
    "limits",
    [
        ("FILE_BYTES_MAX", 1 << 10, "has more than"),
        ("ALL_BYTES_MAX", 1000, "has more than|unpacks to more than"),
        ("FILES_MAX", 1, "has 2 files; at most 1 are taken"),
    ],
)
def test_sizes_and_numbers_are_limited(
    limits: tuple[str, int, str], packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, value, message = limits
    monkeypatch.setattr(archive, limit, value)
    rewritten(packed, lambda _manifest, files: files.update({f"{KEY}/some_kernel.cubin": b"0" * 2000}))
    with pytest.raises(CacheError, match=message):
        use(packed, into=tmp_path / "cache", arch=90)


def test_damage_anywhere_is_named(packed: Path, tmp_path: Path) -> None:
    """Every byte in turn; what the zip does not need may change unseen, and nothing else is raised."""
    whole = packed.read_bytes()
    refused = 0
    for place in range(len(whole)):
        packed.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            use(packed, into=tmp_path / f"cache-{place}", arch=90)
        except CacheError:
            refused += 1
            assert not (tmp_path / f"cache-{place}").exists()
    assert refused > len(whole) // 2


def test_no_archive_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kernels.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(CacheError, match="is damaged or no zip"):
        use(path, into=tmp_path)
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("other.txt", "")
    with pytest.raises(CacheError, match=r"does not begin with manifest.json"):
        use(path, into=tmp_path)
    assert main(["use", str(path), "--into", str(tmp_path)]) == 1
    assert "does not begin with manifest.json" in capsys.readouterr().err


def test_the_whole_archives_digest_can_be_asked_for(packed: Path, tmp_path: Path) -> None:
    wanted = hashlib.sha256(packed.read_bytes()).hexdigest()
    assert use(packed, into=tmp_path / "cache", sha256=wanted, arch=90) == 1
    with pytest.raises(CacheError, match="has the SHA-256"):
        use(packed, into=tmp_path / "cache", sha256="0" * 64, arch=90)


def test_what_is_there_is_left(packed: Path, tmp_path: Path) -> None:
    """A link in the cache is not written through."""
    target, outside = tmp_path / "cache" / KEY, tmp_path / "outside"
    target.mkdir(parents=True)
    outside.write_bytes(b"mine")
    (target / "some_kernel.cubin").symlink_to(outside)
    use(packed, into=tmp_path / "cache", arch=90)
    assert outside.read_bytes() == b"mine"


@pytest.mark.slow
@pytest.mark.parametrize("gpu", ["nvidia-h200", "nvidia-a100"])
def test_a_small_models_kernels_are_compiled_without_a_gpu(gpu: str, tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
    config |= {"num_key_value_heads": 2, "vocab_size": 64, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "tiltyard_kernels.cache", "build", "--gpu", gpu, "--model", str(tmp_path)]
    bases = ["bfloat16", "nf4", "int4", *(["fp8", "fp8-dynamic"] if gpu == "nvidia-h200" else [])]
    command += [
        "--rank",
        "0",
        "8",
        "--base",
        *bases,
        "--tokens",
        "256",
        "--rows",
        "1",
        "--out",
        str(tmp_path / "k.zip"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[2] / "kernels")}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert run.returncode == 0, run.stderr[-3000:]
    arch = {"nvidia-h200": 90, "nvidia-a100": 80}[gpu]
    assert use(tmp_path / "k.zip", into=tmp_path / "cache", arch=arch) >= 8
    names = {path.stem for path in (tmp_path / "cache").rglob("*.cubin")}
    assert {"gemm_kernel", "rms_norm_kernel", "rotary_kernel", "skinny_kernel", "dequantise_kernel"} <= names
    assert ("quantise_rows_kernel" in names) == ("fp8-dynamic" in bases)
