"""Whether untrusted work may run on this worker's engine: proved by attacking it, and remembered for a day.

The proof is `tiltyard_sandbox.selfcheck`, some ten seconds. It is made again when anything changes that it depends on:
the engine, its kernel, its options, a restart of the machine (where worker and engine share one), the evaluator's image
or the sandbox's own options. A failure is not remembered, so that a mended engine is used at once.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any, Final

import docker
from django.conf import settings

from tiltyard_sandbox.containers import submission_options
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.selfcheck import run_selfcheck
from tiltyard_sandbox.verdicts import InfraFault

logger = logging.getLogger(__name__)

REMEMBERED_S: Final = 24 * 3600.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_ENGINE_FACTS: Final = (
    *("ID", "ServerVersion", "KernelVersion", "OperatingSystem", "Driver", "DriverStatus", "CgroupDriver"),
    *("CgroupVersion", "SecurityOptions", "DefaultRuntime", "Runtimes", "RuncCommit", "ContainerdCommit"),
    *("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota", "CPUSet", "LiveRestoreEnabled", "Isolation"),
)


def require_safe_engine(client: docker.DockerClient, image: str) -> None:
    """Raise InfraFault, naming what does not hold, unless this engine was proved safe; one of ENGINE_ERRORS if broken.

    `image` is the evaluator's, by its id.
    """
    if not settings.WORKER_SELFCHECK:
        if settings.PRODUCTION:
            raise InfraFault(
                "TILTYARD_WORKER_SELFCHECK is off, which is for developing with trusted work: leave it out in "
                "production."
            )
        return
    runtime = settings.WORKER_RUNTIME or None
    fingerprint = _fingerprint(client, image, runtime)
    if _is_remembered(fingerprint):
        return
    report = run_selfcheck(client, image, runtime=runtime)
    if report.failed:
        found = "; ".join(f"{check.name} ({check.saw})" for check in report.failed)
        raise InfraFault(f"The engine does not hold submissions: {found}. See `tiltyard worker selfcheck`.")
    logger.info("the engine was attacked for %.1f s and held: %s", report.wall_s, report.engine)
    _remember(fingerprint)


def _fingerprint(client: docker.DockerClient, image: str, runtime: str | None) -> str:
    info: dict[str, Any] = client.info()
    options = submission_options("", volumes=[], limits=Limits(runtime=runtime), labels={}, port=1)
    facts = {
        "engine": {name: info.get(name) for name in _ENGINE_FACTS},
        "address": client.api.base_url,
        "boot": _boot_id(),
        "image": image,
        "options": options,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _boot_id() -> str:
    """This machine's; an engine elsewhere restarts without notice, and is tried again after a day."""
    host = os.environ.get("DOCKER_HOST") or "unix://"
    return _BOOT_ID.read_text().strip() if host.startswith("unix://") and _BOOT_ID.exists() else ""


def _memory(fingerprint: str) -> Path:
    """One file for each engine: hosts that share this folder must not forget each other's."""
    return Path(settings.WORK_DIR) / f"selfcheck-{fingerprint[:16]}.json"


def _is_remembered(fingerprint: str) -> bool:
    try:
        kept = json.loads(_memory(fingerprint).read_text())
        age_s = time.time() - float(kept["at"])
        return bool(kept["fingerprint"] == fingerprint) and 0 <= age_s < REMEMBERED_S
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _remember(fingerprint: str) -> None:
    _forget_old()
    part = _memory(fingerprint).with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"fingerprint": fingerprint, "at": time.time()}))
    part.replace(_memory(fingerprint))


def _forget_old() -> None:
    for path in Path(settings.WORK_DIR).glob("selfcheck-*"):
        with contextlib.suppress(OSError):  # another worker does the same
            if time.time() - path.stat().st_mtime > REMEMBERED_S:
                path.unlink()
