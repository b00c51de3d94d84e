"""Section 5 of the CIS Docker Benchmark (container runtime), asked of a live container.

Numbers are those of versions 1.3 and 1.4; version 1.6 puts a check of Swarm first and counts one up. The criteria are
those of docker-bench-security (github.com/docker/docker-bench-security, tests/5_container_runtime.sh), in own words and
sometimes stricter: it takes any security option for SELinux, and no added capability for none.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

SENSITIVE: Final = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr", "/var", "/root")

_NO_LABEL: Final = {"label=disable", "label:disable"}

Details = Mapping[str, Any]


def _host(details: Details) -> Mapping[str, Any]:
    found: Mapping[str, Any] = details["HostConfig"]
    return found


def _security(details: Details) -> list[str]:
    return list(_host(details).get("SecurityOpt") or [])


def _sources(details: Details) -> list[str]:
    return [str(mount.get("Source", "")) for mount in details["Mounts"]]


def _no_ports(details: Details) -> bool:
    return not any((details["NetworkSettings"].get("Ports") or {}).values()) and not _host(details)["PublishAllPorts"]


CHECKS: Final[dict[str, tuple[str, Callable[[Details], bool]]]] = {
    "5.1": ("an AppArmor profile is on", lambda d: d.get("AppArmorProfile") not in {None, "", "unconfined"}),
    "5.2": (
        "SELinux labels are set",
        lambda d: bool({one for one in _security(d) if one.startswith("label")} - _NO_LABEL),
    ),
    "5.3": (
        "capabilities are restricted",
        lambda d: not _host(d)["CapAdd"] and [one.upper() for one in _host(d)["CapDrop"] or []] == ["ALL"],
    ),
    "5.4": ("not privileged", lambda d: _host(d)["Privileged"] is False),
    "5.5": ("no sensitive folder of the host is mounted", lambda d: not {*_sources(d)} & {*SENSITIVE}),
    "5.6": ("no sshd runs", lambda d: not any("sshd" in command for command in d["Commands"])),
    "5.7": ("no privileged port is mapped", _no_ports),
    "5.8": ("only needed ports are open", _no_ports),
    "5.9": ("the host's network is not shared", lambda d: _host(d)["NetworkMode"] != "host"),
    "5.10": ("memory is limited", lambda d: _host(d)["Memory"] > 0),
    "5.11": ("CPU is limited", lambda d: _host(d)["NanoCpus"] > 0),
    "5.12": ("the root is read-only", lambda d: _host(d)["ReadonlyRootfs"] is True),
    "5.13": ("incoming traffic is bound to one address", _no_ports),
    "5.14": (
        "restarts are on-failure, five at most",
        lambda d: _host(d)["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 5},
    ),
    "5.15": ("the host's processes are not shared", lambda d: _host(d)["PidMode"] == ""),
    "5.16": ("the host's IPC is not shared", lambda d: _host(d)["IpcMode"] in {"private", "none"}),
    "5.17": ("no device of the host is given", lambda d: not _host(d)["Devices"]),
    "5.18": ("ulimits are set", lambda d: {"nofile", "core"} <= {one["Name"] for one in _host(d)["Ulimits"] or []}),
    "5.19": (
        "mounts are not propagated",
        lambda d: all(mount.get("Propagation") not in {"shared", "rshared"} for mount in d["Mounts"]),
    ),
    "5.20": ("the host's UTS is not shared", lambda d: _host(d)["UTSMode"] != "host"),
    "5.21": ("seccomp is on", lambda d: d["Process"]["Seccomp"] == "2" and "seccomp=unconfined" not in _security(d)),
    "5.22": ("no exec with privileges", lambda d: not d["ExecIDs"]),
    "5.23": ("no exec as root", lambda d: not d["ExecIDs"]),
    "5.24": ("the control group is the engine's", lambda d: not _host(d)["CgroupParent"]),
    "5.25": (
        "no new privileges",
        lambda d: "no-new-privileges:true" in _security(d) and d["Process"]["NoNewPrivs"] == "1",
    ),
    "5.26": ("health is checked", lambda d: bool(d["State"].get("Health"))),
    "5.27": ("the image is the one that is meant", lambda d: d["Config"]["Image"].startswith("sha256:")),
    "5.28": ("processes are limited", lambda d: (_host(d)["PidsLimit"] or 0) > 0),
    "5.29": ("docker0 is not used", lambda d: "bridge" not in (d["NetworkSettings"].get("Networks") or {})),
    "5.30": ("the host's users are not shared", lambda d: _host(d)["UsernsMode"] != "host"),
    "5.31": ("the engine's socket is not mounted", lambda d: not any("docker.sock" in one for one in _sources(d))),
}


def details_of(container: Any) -> dict[str, Any]:
    """What the engine says of a running container, and the kernel of its first process."""
    container.reload()
    processes = container.top()
    column = processes["Titles"].index("PID")
    with open(f"/proc/{processes['Processes'][0][column]}/status") as file:  # noqa: PTH123
        status = dict(line.strip().split(":\t", 1) for line in file if ":\t" in line)
    return {**container.attrs, "Process": status, "Commands": [row[-1] for row in processes["Processes"]]}


def not_passed(details: Details) -> list[str]:
    """The numbers of the checks that this container does not pass."""
    return [number for number, (_, passes) in CHECKS.items() if not passes(details)]
