"""A test's server as a process of its own, which says by a file on which port it listens. Standard library only."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving_process(script: str, folder: Path, arguments: Sequence[str]) -> Iterator[str]:
    """Start `script`, which writes its port and a line's end into `--port-file`, and yield its address.

    It is ended and awaited afterwards.
    """
    port_file = folder / f"{Path(script).stem}-port-{time.monotonic_ns()}"
    command = [sys.executable, script, "--port-file", str(port_file), *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (port_file.exists() and port_file.read_text().endswith("\n")):
            assert process.poll() is None, "the test server ended"
            assert time.monotonic() < deadline, "the test server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port_file.read_text().strip()}"
    finally:
        process.kill()
        process.wait()
