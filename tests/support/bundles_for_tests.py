"""A small competition bundle: one published suite, one to be drawn, everything else as in a real one."""

from pathlib import Path
from typing import Any

import yaml

from tiltyard_eval.build import build_suite, load_recipe

RECIPE = {
    "title": "Small suite",
    "version": "1",
    "description": "A few short questions.",
    "items": 4,
    "max_gen_toks": 16,
    "frames": ["plain"],
    "phrasings": ["a"],
    "levels": {2: 1},
    "tasks": [{"family": "addition"}, {"family": "sort_numbers"}],
}
BUNDLE: dict[str, Any] = {
    "schema": "tiltyard.competition/1",
    "slug": "small",
    "title": "Small competition",
    "summary": "For tests.",
    "base_models": ["squire"],
    "base_images": ["tiltyard/python:3.11"],
    "upload_bytes_max": "10 MiB",
    "evaluation_seed": 5,
    "pages": [{"slug": "overview", "title": "Overview", "file": "overview.md"}],
    "tracks": [
        {
            "slug": "cpu",
            "title": "CPU",
            "hardware": "One core",
            "limits": {"cpus": 1, "memory_bytes": "256 MiB", "start_s": 15, "evaluate_s": 30, "build_s": 60},
        }
    ],
    "phases": [
        {"slug": "main", "title": "Main", "starts_at": "2020-01-01T00:00:00Z", "ends_at": "2090-01-01T00:00:00Z"}
    ],
    "suites": [{"path": "open", "weight": 0}, {"recipe": "hidden.recipe.yaml", "weight": 1}],
}


def write_bundle(directory: Path, **changes: object) -> Path:
    """The bundle in `directory`, with keys of competition.yaml changed; None removes a key."""
    directory.mkdir(parents=True, exist_ok=True)
    values = {key: value for key, value in (BUNDLE | changes).items() if value is not None}
    (directory / "competition.yaml").write_text(yaml.safe_dump(values))
    (directory / "overview.md").write_text("# Small\n")
    for visibility in ("open", "hidden"):
        recipe = RECIPE | {"name": f"small-{visibility}", "visibility": visibility}
        (directory / f"{visibility}.recipe.yaml").write_text(yaml.safe_dump(recipe))
    if not (directory / "open").exists():
        build_suite(load_recipe(directory / "open.recipe.yaml"), b"a secret for tests", directory / "open")
    return directory
