"""The rules that keep five packages in one repository from shadowing anything."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = {
    "platform": "tiltyard",
    "evaluator": "tiltyard_eval",
    "sandbox": "tiltyard_sandbox",
    "baselines": "tiltyard_baselines",
    "kernels": "tiltyard_kernels",
}
LINES_MAX = 400


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY_DIR, capture_output=True, check=True, text=True)
    paths = [REPOSITORY_DIR / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY_DIR, capture_output=True, check=False, text=True, timeout=120
    )


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_source_root_is_no_package(root: str) -> None:
    assert not (REPOSITORY_DIR / root / "__init__.py").exists()
    assert (REPOSITORY_DIR / root / SOURCE_ROOTS[root] / "__init__.py").exists()


def test_tests_have_no_packages() -> None:
    assert list((REPOSITORY_DIR / "tests").rglob("__init__.py")) == []


def test_distribution_is_not_named_after_another() -> None:
    project = tomllib.loads((REPOSITORY_DIR / "pyproject.toml").read_text())["project"]
    assert project["name"] == "tiltyard"


def test_no_installed_distribution_provides_kernels() -> None:
    found = run_python("-c", "import importlib.util; print(importlib.util.find_spec('kernels'))")
    spec = found.stdout.strip()
    # From the repository's root the folder is a namespace package at most, which transformers does not take for it.
    assert spec == "None" or "NamespaceLoader" in spec or "loader=None" in spec, spec


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import platform; platform.python_version(); print(platform.__file__)"),
        ("manage.py", "shell", "-v0", "-c", "import platform; platform.python_version(); print(platform.__file__)"),
    ],
    ids=["python -c", "manage.py"],
)
def test_platform_is_the_standard_librarys(arguments: tuple[str, ...]) -> None:
    result = run_python(*arguments)
    assert result.returncode == 0, result.stderr
    assert not Path(result.stdout.strip().splitlines()[-1]).is_relative_to(REPOSITORY_DIR)


def test_platform_is_the_standard_librarys_under_python_m_pytest(tmp_path: Path) -> None:
    test = tmp_path / "test_import.py"
    test.write_text(
        "import platform\nfrom pathlib import Path\n"
        f"def test_it():\n    assert not Path(platform.__file__).is_relative_to({str(REPOSITORY_DIR)!r})\n"
        "    assert platform.python_version()\n"
    )
    result = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pyproject.toml", str(test))
    assert result.returncode == 0, result.stdout


def test_files_stay_short() -> None:
    sources = [path for path in tracked_files() if path.suffix in {".py", ".sh", ".css", ".js", ".html"}]
    assert sources
    counts = {str(path.relative_to(REPOSITORY_DIR)): len(path.read_bytes().splitlines()) for path in sources}
    ours = {name: count for name, count in counts.items() if "/vendor/" not in name and "/migrations/" not in name}
    assert {name: count for name, count in ours.items() if count > LINES_MAX} == {}


def test_no_file_names_a_developers_directory() -> None:
    here = re.escape(os.fsencode(REPOSITORY_DIR))
    forbidden = re.compile(rb"/(?:home|Users)/[a-z]+/|/root/\.(?:venv|pyenv)|" + here + rb"\b")
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content[:8192] and path != Path(__file__) and forbidden.search(content):
            found.append(str(path.relative_to(REPOSITORY_DIR)))
    assert found == []


def test_imports_keep_to_the_layers() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [lint_imports, "--no-cache"], cwd=REPOSITORY_DIR, capture_output=True, check=False, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout


def test_command_starts_without_django_and_torch() -> None:
    code = (
        "import sys\nfrom tiltyard.cli import main\nsys.argv = ['tiltyard', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(sorted({'django', 'torch', 'lm_eval', 'celery'} & set(sys.modules)), file=sys.stderr)\n"
    )
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout
    assert result.stderr.strip().splitlines()[-1] == "[]"
