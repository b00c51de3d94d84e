"""Inside an image being built: put /opt/tiltyard on Python's path and compile the project's own code and all that the
modules named on the command line import.

Byte code is written with unchecked hashes: it stays valid whatever time stamps the files carry, and says nothing of
when it was made.
"""

import importlib
import py_compile
import site
import sys
from pathlib import Path

ROOT = Path("/opt/tiltyard")
FOLDERS = [str(ROOT / "project"), str(ROOT / "site")]


def main() -> None:
    """Write the .pth file, import the named modules, compile all that came with them, and the project's code."""
    packages = Path(site.getsitepackages()[0])
    packages.mkdir(parents=True, exist_ok=True)
    (packages / "tiltyard.pth").write_text("\n".join(FOLDERS) + "\n")
    sys.dont_write_bytecode = True
    sys.path[:0] = FOLDERS
    for name in sys.argv[1:]:
        importlib.import_module(name)
    sources = {str(getattr(module, "__file__", "")) for module in list(sys.modules.values())}
    sources |= {str(path) for path in (ROOT / "project").rglob("*.py")}
    for source in sorted(sources):
        if source.startswith("/opt/tiltyard/") and source.endswith(".py"):
            py_compile.compile(source, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


main()
