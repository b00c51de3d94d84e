"""That the host is as before: nothing of what was made meanwhile is left, be it in the engine, the kernel or on disk.

Others may be using the same engine, so what belongs to the test is told by its labels as the engine reports it made.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import docker

from tiltyard_sandbox.engine import STREAM_ENDS, EngineStream

SETTLE_S: Final = 15.0  # the engine answers a removal before it has ended
_MACHINE: Final = (
    *("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/swaps", "/proc/cmdline"),
    *("/sys/kernel/mm/transparent_hugepage/enabled", "/etc/passwd", "/etc/shadow", "/etc/hosts", "/etc/ld.so.preload"),
)

Labels = Mapping[str, str]


class HostWatch:
    """What was made, by ids, names and paths."""

    def __init__(self, client: docker.DockerClient, is_ours: Callable[[Labels], bool]) -> None:
        self._client = client
        self._is_ours = is_ours
        self.containers: set[str] = set()
        self._volumes: set[str] = set()
        self._folders: set[str] = set()
        self._root = Path(client.info()["DockerRootDir"])
        self._machine = _machine()
        filters = {"type": ["container"], "event": ["create"]}
        self._stream = EngineStream.open(client, "/events", {"filters": json.dumps(filters)})
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """See no more."""
        time.sleep(0.2)  # for the last events
        self._stream.cut()
        self._thread.join(10)

    def _run(self) -> None:
        pending = b""
        try:
            for part in self._stream.chunks():
                *events, pending = (pending + part).split(b"\n")
                for event in events:
                    self._note(json.loads(event)["Actor"])
        except STREAM_ENDS:
            return
        finally:
            self._stream.release()

    def _note(self, actor: dict[str, Any]) -> None:
        if not self._is_ours(actor["Attributes"]):
            return
        self.containers.add(actor["ID"])
        try:
            details = self._client.api.inspect_container(actor["ID"])
        except docker.errors.NotFound:
            return  # it is gone already
        self._volumes |= {mount["Name"] for mount in details["Mounts"] if mount.get("Name")}
        self._folders |= {path for path in (details["GraphDriver"]["Data"] or {}).values() if path.startswith("/")}

    def left(self) -> list[str]:
        """All that is still there and was not before, in words; empty in the end."""
        deadline = time.monotonic() + SETTLE_S
        while (found := self._found()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _found(self) -> list[str]:
        there = {one["Id"] for one in self._client.api.containers(all=True)} & self.containers
        found = [f"container {one}" for one in there]
        images = [one["Id"] for one in self._client.api.images(all=True) if self._is_ours(one.get("Labels") or {})]
        found += [f"image {one}" for one in images]
        volumes = {one["Name"] for one in (self._client.api.volumes()["Volumes"] or [])}
        found += [f"volume {one}" for one in volumes & self._volumes]
        found += [f"process {pid} of container {one}" for pid, one in _processes(self.containers)]
        mounts = Path("/proc/self/mounts").read_text()
        found += [f"mount at {path}" for path in self._folders if f" {path} " in mounts]
        found += [f"mount of container {one}" for one in self.containers if one in mounts]
        folders = [self._root / "containers" / one for one in self.containers]
        found += [f"folder {path}" for path in folders if path.exists()]
        now = _machine()
        return found + [f"changed: {name}" for name, text in self._machine.items() if now[name] != text]


@contextmanager
def host_as_before(client: docker.DockerClient, is_ours: Callable[[Labels], bool]) -> Iterator[HostWatch]:
    """Fail at the end unless nothing is left and this machine is what it was."""
    watch = HostWatch(client, is_ours)
    try:
        yield watch
    finally:
        watch.stop()
    assert watch.containers, "nothing was made that could have been left"
    left = watch.left()
    assert left == [], left  # with the list, because support modules get no rewritten asserts


def _processes(containers: set[str]) -> list[tuple[int, str]]:
    """Processes of this machine whose control group is named after one of these containers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            groups = (folder / "cgroup").read_text()
        except OSError:
            continue  # it has just ended
        found += [(int(folder.name), one) for one in containers if one in groups]
    return found


def _machine() -> dict[str, str]:
    """What an escape would have changed, and neither a neighbour nor a control does (those may load modules)."""
    found = {path: _text(path) for path in _MACHINE}
    names = (name for _, name in socket.if_nameindex() if not name.startswith(("veth", "br-")))
    found["interfaces"] = " ".join(sorted(names))
    return found


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
