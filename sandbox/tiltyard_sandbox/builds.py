"""Build a checked context in the engine: no network but `build_proxy`, bounded memory, CPU, processes, disk and time.

The engine's legacy builder is used on purpose: it knows no BuildKit front ends, mounts or secrets. It runs each `RUN`
as root in a container with the engine's default profile, so a build is less confined than a run; its bounds are here.
The builder has no option for a number of processes, so that limit is set as soon as a new step has a container.
"""

import io
import json
import logging
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import docker
import requests

from tiltyard_sandbox.archives import BuildContext
from tiltyard_sandbox.build_proxy import build_network
from tiltyard_sandbox.build_traces import BuildTraces
from tiltyard_sandbox.disk import DiskGauge, DiskShare
from tiltyard_sandbox.engine import (
    CALL_TIMEOUT_S,
    ENGINE_ERRORS,
    STREAM_ENDS,
    EngineStream,
    api_url,
    is_disk_full,
    is_store_fault,
)
from tiltyard_sandbox.entries import EntryKind, walk
from tiltyard_sandbox.guarded import CHUNK_BYTES, chunks
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, Reason, SubmissionFault

LOG_TAIL_LINES: Final = 20
WATCH_INTERVAL_S: Final = 0.25
DISK_INTERVAL_S: Final = 1.0  # measuring walks through the step's layer
UPLOAD_S: Final = 900.0  # for the engine to take the context, before the build's own time begins
CPU_PERIOD_US: Final = 100_000
_LOG = logging.getLogger(__name__)
_RUNNING_IN: Final = re.compile(r" ---> Running in [0-9a-f]{12}\s*")
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_NO_CONTROLS: Final = {code: None for code in range(32) if chr(code) not in "\n\t"} | {0x7F: None}


def write_context(archive: Path, context: BuildContext, dockerfile: bytes, out: IO[bytes], max_bytes: int) -> None:
    """The upload as a tar stream for the engine: owners, times and modes made plain, so that they change no digest."""
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry, opener in walk(archive, max_bytes):
            if not entry.path.startswith(context.prefix):
                continue
            info = tarfile.TarInfo(entry.path.removeprefix(context.prefix))
            info.mode = 0o755 if entry.executable or entry.kind is EntryKind.FOLDER else 0o644
            if info.name == "Dockerfile":
                continue
            if entry.kind is EntryKind.FILE:
                info.size = entry.size_bytes
                with opener() as file:
                    tar.addfile(info, file)
                continue
            info.type = _TAR_TYPES[entry.kind]
            is_hardlink = entry.kind is EntryKind.HARDLINK
            info.linkname = entry.target.removeprefix(context.prefix) if is_hardlink else entry.target
            tar.addfile(info)
        _add_bytes(tar, "Dockerfile", dockerfile)


_TAR_TYPES: Final = {
    EntryKind.FOLDER: tarfile.DIRTYPE,
    EntryKind.SYMLINK: tarfile.SYMTYPE,
    EntryKind.HARDLINK: tarfile.LNKTYPE,
}


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    tar.addfile(info, io.BytesIO(content))


def run_build(
    client: docker.DockerClient,
    context: IO[bytes],
    *,
    build_args: Mapping[str, str],
    labels: Mapping[str, str],
    limits: Limits,
    on_log: Callable[[str], None],
    cancel: threading.Event,
    owner: str,
    gauge_image: str | None,
) -> str:
    """The new image's id; everything else that the build made is gone, as far as the engine has ended it.

    `owner` and `gauge_image` as in `images.build_image`. Raises SubmissionFault(build_failed), Cancelled or InfraFault.
    """
    traces = BuildTraces(client, owner)
    build = _Build(client, traces, limits, on_log)
    image_id = None
    try:
        with (
            _disk_share(client, gauge_image, owner, context, limits) as disk,
            build_network(client, limits.build_hosts, owner=owner) as (network, proxy_args),
        ):
            arguments = {**build_args, **proxy_args, **traces.build_args}
            answer = build.start(_uploaded(context, cancel), arguments, labels, network)
            image_id = _followed(build, answer, limits, disk, cancel)
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine failed during the build: {str(error)[:300]}") from error
    finally:
        _tidy(traces, image_id)
    return image_id


@contextmanager
def _disk_share(
    client: docker.DockerClient, gauge_image: str | None, owner: str, context: IO[bytes], limits: Limits
) -> Iterator[DiskShare | None]:
    """The build's part of the disk, with room for it made sure; None when nobody wants to know."""
    if gauge_image is None:
        yield None
        return
    context_bytes = context.seek(0, io.SEEK_END)
    context.seek(0)
    life_s = UPLOAD_S + limits.build_s + CALL_TIMEOUT_S
    with DiskGauge(client, gauge_image, owner=owner, life_s=life_s) as gauge:
        share = DiskShare(gauge, context_bytes)
        share.require_room()
        yield share


def _uploaded(context: IO[bytes], cancel: threading.Event) -> Iterator[bytes]:
    """The context, piece by piece, for as long as somebody wants it and the engine takes it."""
    deadline = time.monotonic() + UPLOAD_S
    for part in chunks(context.read):
        if cancel.is_set():
            raise Cancelled
        if time.monotonic() > deadline:
            raise InfraFault(f"The Docker engine did not take the build's context within {UPLOAD_S:g} s.")
        yield part


def _tidy(traces: BuildTraces, image_id: str | None) -> None:
    """What stays behind costs space, not correctness, and hides no verdict.

    Something may: a build that was cut off in a COPY makes that layer still. Whoever sweeps the owner's leftovers later
    finds it by its label.
    """
    try:
        traces.remove_images(image_id)
    except ENGINE_ERRORS as error:
        _LOG.warning("images of a build could not be removed: %s", error)


def _followed(
    build: "_Build", answer: requests.Response, limits: Limits, disk: DiskShare | None, cancel: threading.Event
) -> str:
    stream = EngineStream(answer)
    watch = _Watch(build, stream, limits, disk, cancel)
    try:
        build.follow(_messages(stream, watch))
    finally:
        watch.stop()
        stream.release()
        if watch.verdict is not None:
            build.traces.remove_containers()
    if watch.verdict is not None:
        raise watch.verdict
    if build.error is not None and is_disk_full(build.error):
        raise disk.fault(watch.written_bytes) if disk else InfraFault(f"The build failed: {build.error[-300:]}")
    if build.error is not None and is_store_fault(build.error):
        raise InfraFault(f"The Docker engine lost an image during the build: {build.error[:300]}")
    if build.error is not None:
        raise SubmissionFault(Reason.BUILD_FAILED, build.failure_message())
    if build.image_id is None:
        raise InfraFault("The Docker engine ended the build without an image.")
    return build.image_id


class _Build:
    """One build as the engine reports it: its log, its error, its image."""

    def __init__(
        self, client: docker.DockerClient, traces: BuildTraces, limits: Limits, on_log: Callable[[str], None]
    ) -> None:
        self._client = client
        self.traces = traces
        self._limits = limits
        self._on_log = on_log
        self._log_left_bytes = limits.log_bytes
        self._tail: list[str] = []
        self._partial = ""
        self.error: str | None = None
        self.image_id: str | None = None

    def start(
        self, context: Iterator[bytes], build_args: Mapping[str, str], labels: Mapping[str, str], network: str
    ) -> requests.Response:
        """Send the context. The SDK's own `build` has no way to set CPU quota and resource limits, nor to stop."""
        parameters: dict[str, str | int] = {
            "version": "1",  # the legacy builder, also where BuildKit is the default
            "networkmode": network,
            "rm": "1",
            "forcerm": "1",
            "pull": "0",
            # Builds would share what STAGE_HEAD's first line makes, and nothing else, since their labels differ: one
            # that ends takes it away while another begins to build on it.
            "nocache": "1",
            "memory": self._limits.memory_bytes,
            "memswap": self._limits.memory_bytes,
            "cpuperiod": CPU_PERIOD_US,
            "cpuquota": int(self._limits.cpus * CPU_PERIOD_US),
            "shmsize": self._limits.shm_bytes,
            "ulimits": json.dumps(
                [
                    {"Name": "core", "Soft": 0, "Hard": 0},
                    {"Name": "nofile", "Soft": self._limits.open_files, "Hard": self._limits.open_files},
                    {"Name": "fsize", "Soft": self._limits.image_bytes_max, "Hard": self._limits.image_bytes_max},
                ]
            ),
            "buildargs": json.dumps(dict(build_args)),
            "labels": json.dumps(dict(labels)),
        }
        response: requests.Response = self._client.api.post(
            api_url(self._client, "/build"),
            params=parameters,
            data=context,
            headers={"Content-Type": "application/x-tar"},
            stream=True,
            timeout=(CALL_TIMEOUT_S, None),
        )
        if response.status_code >= 500 or (response.status_code != 200 and is_disk_full(_reason(response))):
            raise InfraFault(f"The Docker engine cannot build: {_reason(response)}")
        if response.status_code != 200:
            raise SubmissionFault(Reason.BUILD_FAILED, f"The engine refuses the Dockerfile: {_reason(response)}")
        return response

    def follow(self, messages: Iterator[dict[str, Any]]) -> None:
        """Read the engine's messages to their end."""
        for message in messages:
            if "stream" in message:
                self._note(str(message["stream"]))
            elif "error" in message:
                self.error = str(message["error"])
            elif isinstance(message.get("aux"), dict) and "ID" in message["aux"]:
                self.image_id = str(message["aux"]["ID"])
        if self._partial:
            self._line(self._partial)

    def _note(self, text: str) -> None:
        if _RUNNING_IN.fullmatch(text.strip("\n")):  # a hint that a step begins; the step may have printed it itself
            self.traces.limit_pids(self._limits.pids)
        *lines, self._partial = (self._partial + text).split("\n")
        self._partial = self._partial[:CHUNK_BYTES]
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        clean = _COLOURS.sub("", line).rpartition("\r")[2].translate(_NO_CONTROLS)
        self._tail = [*self._tail[1 - LOG_TAIL_LINES :], clean[:400]]
        if self._log_left_bytes > 0:
            self._on_log(clean[: self._log_left_bytes])
            self._log_left_bytes -= len(clean.encode(errors="replace")) + 1
            if self._log_left_bytes <= 0:
                self._on_log(f"[The log is longer than {self._limits.log_bytes} bytes; the rest is left out.]")

    def failure_message(self) -> str:
        """What failed, and the log's end."""
        tail = "\n".join(line for line in self._tail if line.strip())
        return f"The build failed: {self.error}\n\nThe log ends:\n{tail}"


def _reason(response: requests.Response) -> str:
    try:
        return str(response.json()["message"])[:400]
    except (ValueError, KeyError, TypeError):
        return response.text[:400]


class _Watch:
    """Ends a build that is cancelled, too slow or too large, by closing its stream: the engine then kills its steps."""

    def __init__(
        self, build: _Build, stream: EngineStream, limits: Limits, disk: DiskShare | None, cancel: threading.Event
    ) -> None:
        self._build = build
        self._limits = limits
        self._disk = disk
        self.written_bytes = 0  # by the build's steps, when that was measured last
        self._cancel = cancel
        self._deadline = time.monotonic() + limits.build_s
        self._disk_asked_at = time.monotonic()
        self._over = threading.Event()
        self.verdict: SubmissionFault | InfraFault | Cancelled | None = None
        self._stream = stream
        self._thread = threading.Thread(target=self._run, name="build-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The build is over."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(WATCH_INTERVAL_S):
            self.verdict = self._judged()
            if self.verdict is not None:
                self._stream.cut()
                return

    def _judged(self) -> SubmissionFault | InfraFault | Cancelled | None:
        if self._cancel.is_set():
            return Cancelled()
        if time.monotonic() > self._deadline:
            return SubmissionFault(
                Reason.BUILD_FAILED, f"The build took longer than {self._limits.build_s:g} s and was stopped."
            )
        return self._judged_disk()

    def _judged_disk(self) -> SubmissionFault | InfraFault | None:
        """The engine's disk has no quota of its own, so what the steps write is measured while they write."""
        if time.monotonic() < self._disk_asked_at + DISK_INTERVAL_S:
            return None
        self._disk_asked_at = time.monotonic()
        try:
            self._build.traces.limit_pids(self._limits.pids)
            self.written_bytes = self._build.traces.written_bytes()
            if self.written_bytes > self._limits.image_bytes_max:
                return SubmissionFault(Reason.BUILD_FAILED, "The build wrote more than an image may hold: stopped.")
            if self._disk is not None and self._disk.is_at_reserve():
                return self._disk.fault(self._build.traces.written_bytes())
        except InfraFault as fault:  # the disk is measured no more
            return fault
        except (*ENGINE_ERRORS, ValueError) as error:
            return InfraFault(f"The Docker engine does not answer during the build: {str(error)[:300]}")
        return None


def _messages(stream: EngineStream, watch: _Watch) -> Iterator[dict[str, Any]]:
    """The engine's JSON messages; an end that the watch made is an ordinary one."""
    try:
        for line in stream.response.iter_lines(chunk_size=None):
            if line:
                yield json.loads(line)
    except STREAM_ENDS as error:
        if watch.verdict is None:
            raise InfraFault(f"The connection to the Docker engine broke during the build: {error}") from error
