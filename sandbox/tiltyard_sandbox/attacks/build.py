"""The attacks that a Dockerfile's RUN step can make, in a real build."""

import io
import json
import tarfile
import threading
from typing import Final

import docker

from tiltyard_sandbox.attacks.engine import ROLE, Finding, command, findings
from tiltyard_sandbox.build_traces import STAGE_HEAD
from tiltyard_sandbox.builds import run_build
from tiltyard_sandbox.containers import ROLE_LABEL
from tiltyard_sandbox.defences import Defence
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.verdicts import SubmissionFault

_OWNER: Final = "selfcheck"
# In this order: the process limit is set a moment after a step has begun.
BUILD_ATTACKS: Final = {
    "interfaces": ("find an interface in a build", Defence.BUILD_NO_NETWORK),
    "open_files": ("open more files than allowed in a build", Defence.OPEN_FILES_LIMIT),
    "core_dump": ("leave a core dump in a build", Defence.NO_CORE_DUMPS),
    "memory_bomb": ("take memory without end in a build", Defence.BUILD_MEMORY),
    "fork_bomb": ("fork without end in a build", Defence.BUILD_PROCESSES),
}


def attack_build(client: docker.DockerClient, image: str, limits: Limits) -> dict[str, Finding]:
    """What came of `BUILD_ATTACKS` in a build on the attackers' image; raises as `builds.run_build` does."""
    step = json.dumps(["sh", "-c", 'sleep 1; exec "$@"', "sh", *command(list(BUILD_ATTACKS), limits, {})])
    lines: list[str] = []
    with io.BytesIO() as context:
        with tarfile.open(fileobj=context, mode="w") as archive:
            content = f"FROM {image}\n{STAGE_HEAD}RUN {step}\n".encode()
            info = tarfile.TarInfo("Dockerfile")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        context.seek(0)
        try:
            image_id = run_build(
                client,
                context,
                build_args={},
                labels={ROLE_LABEL: ROLE},
                limits=limits,
                on_log=lines.append,
                cancel=threading.Event(),
                owner=_OWNER,
                gauge_image=None,
            )
        except SubmissionFault as fault:  # the attack ended the build
            lines.append(fault.message)
        else:
            client.images.remove(image_id, force=True)
    return findings(lines, list(BUILD_ATTACKS))
