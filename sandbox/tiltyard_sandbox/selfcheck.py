"""Prove on this very engine that the sandbox holds, by attacking it from inside.

Two engines of one version can differ: in the kernel, its options and control groups, in the runtime, in what the daemon
was started with. So nothing is believed. Every attack of `attacks.table` is made in a container with a submission's own
options and small limits, some more in a build, and a submission's log, end and network are tried in a pair. It takes
some ten seconds, and leaves nothing behind.

What cannot be attacked is looked at: some findings fail the check, some are advice (`Check.is_advice`).
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

import docker

from tiltyard_sandbox.attacks.build import BUILD_ATTACKS, attack_build
from tiltyard_sandbox.attacks.engine import ATTACK_LIMITS, ROLE, Finding, attackers_image, remove_strays, run_attacks
from tiltyard_sandbox.attacks.inside.files import VOLUME
from tiltyard_sandbox.attacks.pair import attack_pair
from tiltyard_sandbox.attacks.table import ATTACKS
from tiltyard_sandbox.containers import ROLE_LABEL, submission_options
from tiltyard_sandbox.engine import ENGINE_ERRORS, USERNS
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.pulls import uses_containerd_store
from tiltyard_sandbox.verdicts import InfraFault

# What the engine itself says that its kernel cannot limit; it then ignores the option and only warns.
_CAN_LIMIT: Final = {
    "MemoryLimit": "memory",
    "SwapLimit": "swap",
    "PidsLimit": "processes",
    "CpuCfsQuota": "CPU time",
    "CPUSet": "cores",
}
SELFCHECK_LABEL: Final = "tiltyard.selfcheck"  # with another value each time

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """One thing that was tried or looked at."""

    name: str
    tries: str
    defences: str  # by their names, for people
    is_ok: bool
    saw: str
    is_advice: bool = False  # then `is_ok` decides nothing


@dataclass(frozen=True)
class Report:
    """What came of it all."""

    engine: str
    runtime: str
    checks: tuple[Check, ...]
    wall_s: float

    @property
    def failed(self) -> list[Check]:
        """What does not hold; empty on an engine that untrusted work may run on."""
        return [check for check in self.checks if not check.is_ok and not check.is_advice]

    def document(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "engine": self.engine,
            "runtime": self.runtime,
            "is_safe": not self.failed,
            "wall_s": round(self.wall_s, 2),
            "checks": [
                {
                    "name": one.name,
                    "tries": one.tries,
                    "defences": one.defences,
                    "result": ("ok" if one.is_ok else "advice") if one.is_advice else ("ok" if one.is_ok else "failed"),
                    "saw": one.saw,
                }
                for one in self.checks
            ],
        }


def run_selfcheck(
    client: docker.DockerClient,
    image: str,
    *,
    runtime: str | None = None,
    change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Report:
    """Attack this engine. `image` is a trusted image with a `python3`, such as the evaluator's.

    `runtime` as in `Limits`. `change` gives the options with which containers are made in place of a submission's:
    lift one, and see the check fail. Raises InfraFault when the engine cannot be tried at all.
    """
    begin = time.monotonic()
    limits = replace(ATTACK_LIMITS, runtime=runtime)
    try:
        info = client.info()
        engine = f"Docker {info['ServerVersion']}, {info['OperatingSystem']}, Linux {info['KernelVersion']}"
        checks = list(_looked_at(info, runtime))
        if all(check.is_ok or check.is_advice for check in checks):
            checks += _attacked(client, image, limits, change)
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine failed during its self-check: {str(error)[:300]}") from error
    return Report(engine, runtime or info["DefaultRuntime"], tuple(checks), time.monotonic() - begin)


def _looked_at(info: Mapping[str, Any], runtime: str | None) -> Iterator[Check]:
    known = sorted(info.get("Runtimes") or {})
    if runtime is not None:
        yield Check(
            "runtime",
            "use the configured runtime",
            "runtime",
            runtime in known,
            f"{runtime} is there"
            if runtime in known
            else f"the engine has no runtime {runtime}, only {', '.join(known)}: see docs/explanation/sandbox.md",
        )
    for field, what in _CAN_LIMIT.items():
        can = bool(info.get(field))
        saw = "the engine says that it can" if can else "the engine's kernel cannot: enable it at boot"
        yield Check(
            f"limits_{what.replace(' ', '_')}", f"have a kernel that can limit {what}", "control groups", can, saw
        )
    security = info.get("SecurityOptions") or []
    has_seccomp = any(one.startswith("name=seccomp") for one in security)
    yield Check("seccomp", "have a kernel with seccomp", "seccomp profile", has_seccomp, ", ".join(security) or "none")
    yield from _advice(info, security)


def _advice(info: Mapping[str, Any], security: list[str]) -> Iterator[Check]:
    """What would make it stronger, and is the operator's to decide: docs/explanation/sandbox.md says how."""
    remapped = USERNS in security
    saw = "on" if remapped else 'off: root in a container is root outside; see "userns-remap"'
    yield Check("user_namespaces", "map the containers' users", "user namespaces", remapped, saw, is_advice=True)
    mandatory = any(one.startswith(("name=apparmor", "name=selinux")) for one in security)
    saw = "on" if mandatory else "neither AppArmor nor SELinux"
    yield Check("mandatory_access", "confine containers by name", "AppArmor or SELinux", mandatory, saw, is_advice=True)
    has_quota = has_disk_quota(info)
    file_system = dict(info.get("DriverStatus") or []).get("Backing Filesystem", "an unknown file system")
    saw = f"{info.get('Driver')} on {file_system}"
    saw += "" if has_quota else ": no quota for a container; builds are measured every second instead"
    yield Check("disk_quota", "have a disk quota for each container", "storage quota", has_quota, saw, is_advice=True)
    fetches = not uses_containerd_store(info)
    saw = "the engine's own" if fetches else "containerd's: no image is fetched from a registry (see the same page)"
    yield Check("image_store", "fetch named images safely", "the engine's own store", fetches, saw, is_advice=True)
    lives_on = bool(info.get("LiveRestoreEnabled"))
    saw = "on" if lives_on else "off: containers die with the engine's restart, and their runs are tried again"
    yield Check(
        "live_restore", "keep containers when the engine restarts", "live restore", lives_on, saw, is_advice=True
    )


def has_disk_quota(info: Mapping[str, Any]) -> bool:
    """Whether the engine can bound what one container writes: XFS below overlay2 (with pquota), btrfs or ZFS."""
    driver, status = info.get("Driver"), dict(info.get("DriverStatus") or [])
    return driver in {"btrfs", "zfs"} or (driver == "overlay2" and status.get("Backing Filesystem") == "xfs")


def _attacked(
    client: docker.DockerClient, image: str, limits: Limits, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[Check]:
    remove_strays(client)
    labels = {ROLE_LABEL: ROLE, SELFCHECK_LABEL: uuid.uuid4().hex}
    with attackers_image(client, image, labels) as hostile, ThreadPoolExecutor(2) as pool:
        options = submission_options(hostile, volumes=[VOLUME], limits=limits, labels=labels, port=8000)
        options["labels"] = labels
        options = change(options)
        building = pool.submit(attack_build, client, hostile, limits)
        pairing = pool.submit(attack_pair, client, options, limits)
        found = run_attacks(client, options, [attack.name for attack in ATTACKS], limits=limits)
        checks = [_check(one.name, one.tries, " or ".join(one.stopped_by), found[one.name]) for one in ATTACKS]
        checks += [
            _check(f"build_{name}", tries, defence, building.result()[name])
            for name, (tries, defence) in BUILD_ATTACKS.items()
        ]
        checks += [Check(one.name, one.tries, one.defence, one.is_ok, one.saw) for one in pairing.result()]
    return checks


def _check(name: str, tries: str, defences: str, finding: Finding) -> Check:
    word = {"refused": "refused", "absent": "nothing to attack", "worked": "IT WORKED", "broken": "could not be tried"}
    return Check(name, tries, defences, finding.is_held, f"{word[finding.outcome]}: {finding.saw}")
