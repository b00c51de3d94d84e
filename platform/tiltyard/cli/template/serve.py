"""Start the server: squire, with the adapter that train.py wrote if there is one. Port: TILTYARD_PORT, else 8000."""

import os
import sys
from pathlib import Path

ADAPTER = Path(__file__).resolve().parent / "adapter"

command = [sys.executable, "-m", "tiltyard_baselines.serve", "--model", "/opt/squire"]
if (ADAPTER / "adapter_config.json").is_file():
    command += ["--adapter", str(ADAPTER)]
os.execv(command[0], command)  # noqa: S606  the server takes this process's place, so that it gets its signals
