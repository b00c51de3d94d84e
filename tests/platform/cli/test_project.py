import json
import tomllib
from pathlib import Path

import pytest

import tiltyard.cli
from tiltyard.cli.packing import pack_directory, read_manifest

FILES = {".dockerignore", "Dockerfile", "README.md", "mix.yaml", "serve.py", "tiltyard.yaml", "train.py"}


def test_init_writes_a_valid_submission(tiltyard, tmp_path: Path) -> None:
    ran = tiltyard("init", tmp_path / "deep" / "mine")
    assert ran.exit_code == 0
    assert {path.name for path in (tmp_path / "deep" / "mine").iterdir()} == FILES
    assert read_manifest(tmp_path / "deep" / "mine").base_model == "squire"
    assert "tiltyard evaluate" in ran.stdout


def test_init_json(tiltyard, tmp_path: Path) -> None:
    ran = tiltyard("init", tmp_path / "mine", "--json")
    assert ran.document == {"directory": str(tmp_path / "mine"), "files": sorted(FILES)}


def test_init_fills_an_empty_folder(tiltyard, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert tiltyard("init", tmp_path / "mine").exit_code == 0


def test_init_overwrites_nothing(tiltyard, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "train.py").write_text("mine")
    for name in ("file", "folder"):
        ran = tiltyard("init", tmp_path / name)
        assert ran.exit_code == 2
        assert "Nothing was written" in ran.stderr
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["train.py"]


def test_training_leftovers_stay_at_home(submission: Path, tmp_path: Path) -> None:
    (submission / "train.jsonl").write_text("{}\n")
    (submission / "adapter").mkdir()
    (submission / "adapter" / "adapter_config.json").write_text("{}")
    packed = pack_directory(submission, tmp_path / "a.tar.gz")
    assert set(packed.files) == FILES - {"mix.yaml"} | {"adapter", "adapter/adapter_config.json"}


def test_template_is_part_of_the_wheel() -> None:
    """The template is package data: it must lie inside a package that the build includes."""
    root = Path(tiltyard.cli.__file__).resolve().parents[3]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "platform/tiltyard" in wheel["packages"]
    assert not any("template" in pattern for pattern in wheel.get("exclude", []))


def test_data_makes_questions(tiltyard_process, submission: Path) -> None:
    out = submission / "train.jsonl"
    ran = tiltyard_process("data", "--recipe", submission / "mix.yaml", "--count", "50", "--out", out, "--json")
    assert ran.document == {"file": str(out), "count": 50, "seed": 0}
    items = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(items) == 50
    assert all({"prompt", "answer", "task", "level"} <= set(item) for item in items)


@pytest.mark.parametrize("options", [["--count", "0"], ["--seed", "-1"]])
def test_data_out_of_range(tiltyard, submission: Path, options: list[str]) -> None:
    ran = tiltyard("data", "--recipe", submission / "mix.yaml", "--out", submission / "x.jsonl", *options)
    assert ran.exit_code == 2


def test_data_says_what_is_wrong_with_a_recipe(tiltyard, submission: Path) -> None:
    (submission / "mix.yaml").write_text("levels: {1: 1}\ntasks:\n  - {family: juggling}\n")
    ran = tiltyard("data", "--recipe", submission / "mix.yaml", "--out", submission / "x.jsonl")
    assert ran.exit_code == 2
    assert "juggling" in ran.stderr
