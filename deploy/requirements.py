"""Print what the distribution and the named extras require, one a line: `python deploy/requirements.py web sandbox`."""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYPROJECT = next(folder / "pyproject.toml" for folder in (HERE, HERE.parent) if (folder / "pyproject.toml").exists())

if __name__ == "__main__":
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = [requirement for name in sys.argv[1:] for requirement in project["optional-dependencies"][name]]
    sys.stdout.write("".join(f"{requirement}\n" for requirement in [*project["dependencies"], *extras]))
