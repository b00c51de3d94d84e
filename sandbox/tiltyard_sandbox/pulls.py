"""Fetch a named image through the engine, look at it as at any saved one, and load what was looked at.

The engine unpacks an image while it fetches it, so before anything can be scanned. Therefore it is stopped when the
layers are announced as too large, or when more vanishes from its disk than an image may have.
"""

import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import docker

from tiltyard_sandbox.disk import RESERVE_BYTES, DiskGauge
from tiltyard_sandbox.engine import CALL_TIMEOUT_S, ENGINE_ERRORS, STREAM_ENDS, EngineStream, api_url, is_disk_full
from tiltyard_sandbox.fetching import note_fetched, remove_name, turn_with
from tiltyard_sandbox.guarded import reject
from tiltyard_sandbox.images import BuiltImage, load_image
from tiltyard_sandbox.limits import GIB, Limits
from tiltyard_sandbox.owners import RUN_TAG, named_by
from tiltyard_sandbox.references import ImageReference, NamedImage
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, Reason, SandboxError, SubmissionFault

WATCH_INTERVAL_S: Final = 0.25
SLACK_BYTES: Final = 1 * GIB  # what else may vanish from the disk meanwhile before the image is blamed
_PULLS_MAX: Final = 3  # each further one finds the layers there
_LINE_BYTES_MAX: Final = 1 << 20
# What the engine says where the image or its reference is at fault, in lower case, and what the participant is told.
# An engine that may not do something itself says "permission denied".
_FAULTS_OF_IMAGE: Final = (
    (
        r"no matching manifest for|cannot be used on this platform|does not match the specified platform",
        "is not for the platform {platform}. Build it for that one: docker build --platform {platform}.",
    ),
    (
        r"failed to register layer(?!.*permission denied)",
        "has a layer that cannot be unpacked. Build and push it again.",
    ),
    (
        r"verification failed|layers from manifest don't match",
        "has content that does not match its digests. Build and push it again.",
    ),
    (
        r"unsupported manifest media type|unsupported media type|unknown image config media type",
        "has a manifest that the engine does not take. Push it with docker push.",
    ),
    (
        r"not found|manifest unknown|(?<!permission )denied|unauthorized|name unknown|no basic auth",
        "is not given to everybody by that digest. Check the reference, and make the image public.",
    ),
)


def pull_image(
    client: docker.DockerClient,
    named: NamedImage,
    *,
    registries: Collection[str],
    limits: Limits,
    on_log: Callable[[str], None],
    cancel: threading.Event,
    owner: str,
    gauge_image: str | None,
    scratch: Path | None = None,
) -> BuiltImage:
    """The image, fetched from one of `registries`, scanned, and loaded under a name that no other run has.

    Its archive lies in `scratch` meanwhile, the attempt's own folder, by default where temporary files do. Workers
    whose folders lie side by side take turns with a digest; the time limit begins with the turn. Other arguments as in
    `images.load_image`. Raises SubmissionFault (image_rejected; time_limit after `limits.build_s`), InfraFault or
    Cancelled.
    """
    reference = named.reference
    reference.require_allowed(registries)
    _require_own_store(client)
    with turn_with(reference, scratch, cancel=cancel, wait_s=limits.build_s):
        was_there = _has(client, reference)
        if not was_there:
            note_fetched(reference, scratch)
        mine = f"{RUN_TAG}{named_by(owner)}"
        ends_at = time.monotonic() + limits.build_s
        on_log(f"Fetching {reference}")
        try:
            with (
                nullcontext()
                if gauge_image is None
                else DiskGauge(client, gauge_image, owner=owner, life_s=limits.build_s + CALL_TIMEOUT_S)
            ) as gauge:
                for _ in range(_PULLS_MAX):
                    _Pull(client, reference, limits, cancel, gauge, ends_at=ends_at).perform()
                    # At once: who else had the image, or a worker elsewhere, may take the registry's name away.
                    if _is_tagged(client, reference, mine):
                        break
                    was_there = False
            if not was_there:
                remove_name(client, str(reference))
            with tempfile.NamedTemporaryFile(prefix="tiltyard-pulled-", suffix=".tar", dir=scratch) as file:
                _export(client, mine, file, limits, lambda: _require_time(cancel, ends_at, limits))
                remove_name(client, mine)
                return load_image(
                    client,
                    Path(file.name),
                    limits=limits,
                    on_log=on_log,
                    cancel=cancel,
                    owner=owner,
                    gauge_image=gauge_image,
                    manifest=named.manifest,
                )
        except ENGINE_ERRORS as error:
            raise InfraFault(f"The Docker engine failed while it fetched an image: {str(error)[:300]}") from error
        finally:
            remove_name(client, mine)
            if not was_there:
                remove_name(client, str(reference))


class _Pull:
    """One fetch: its answer is read here, and a thread watches over clock, disk and the wish to stop."""

    def __init__(
        self,
        client: docker.DockerClient,
        reference: ImageReference,
        limits: Limits,
        cancel: threading.Event,
        gauge: DiskGauge | None,
        *,
        ends_at: float,
    ) -> None:
        self._client = client
        self._reference = reference
        self._limits = limits
        self._cancel = cancel
        self._gauge = gauge
        self._ends_at = ends_at
        self._free_at_start_bytes = gauge.free_bytes() if gauge else 0
        self._layer_bytes: dict[str, int] = {}
        self._stopped_by: SandboxError | None = None
        self._is_over = threading.Event()

    def perform(self) -> None:
        name = f"{self._reference.registry}/{self._reference.repository}"
        response = self._client.api.post(
            api_url(self._client, "/images/create"),
            params={"fromImage": name, "tag": self._reference.digest},
            stream=True,
            timeout=(CALL_TIMEOUT_S, None),
        )
        stream = EngineStream(response)
        watcher = threading.Thread(target=self._watch, args=(stream,), daemon=True)
        watcher.start()
        complaint = ""
        try:
            for line in response.iter_lines(chunk_size=None):
                complaint = self._note(line) or complaint
        except STREAM_ENDS as error:
            complaint = complaint or f"the connection to the engine broke: {str(error)[:200]}"
        finally:
            self._is_over.set()
            watcher.join()
            stream.release()
        if self._stopped_by is not None:
            raise self._stopped_by
        if complaint or response.status_code != 200:
            raise self._fault(complaint)

    def _note(self, line: bytes) -> str:
        """Take in one object of the answer; gives the engine's complaint in it, if any."""
        try:
            told = json.loads(line[:_LINE_BYTES_MAX]) if line.strip() else {}
        except (ValueError, RecursionError):
            return "its answer cannot be read"
        if not isinstance(told, dict):
            return "its answer cannot be read"
        detail = told.get("progressDetail")
        if told.get("status") == "Downloading" and isinstance(detail, dict) and isinstance(detail.get("total"), int):
            self._layer_bytes[str(told.get("id"))] = detail["total"]
        return str(told.get("error") or told.get("message") or "")

    def _watch(self, stream: EngineStream) -> None:
        while not self._is_over.wait(WATCH_INTERVAL_S):
            try:
                self._stopped_by = self._reason_to_stop()
            except InfraFault as fault:  # the gauge has died
                self._stopped_by = fault
            if self._stopped_by is not None:
                stream.cut()
                return

    def _reason_to_stop(self) -> SandboxError | None:
        allowed = self._limits.image_bytes_max
        try:
            _require_time(self._cancel, self._ends_at, self._limits)
        except (Cancelled, SubmissionFault) as end:
            return end
        if sum(self._layer_bytes.copy().values()) > allowed:
            return reject(f"The image's layers have more than the {allowed} bytes that are allowed.")
        if self._gauge is not None:
            free_bytes = self._gauge.free_bytes()
            if self._free_at_start_bytes - free_bytes > allowed + SLACK_BYTES:
                return reject(f"The image takes more than the {allowed} bytes that are allowed, once unpacked.")
            if free_bytes < RESERVE_BYTES:
                return InfraFault("The disk of the Docker engine is almost full: make room there.")
        return None

    def _fault(self, complaint: str) -> SubmissionFault | InfraFault:
        told = fault_of_image(complaint)
        if told is None:
            return InfraFault(f"The Docker engine could not fetch {self._reference}: {complaint[:300]}")
        engine = self._client.version()
        told = told.format(platform=f"{engine.get('Os')}/{engine.get('Arch')}")
        return reject(f"The image {self._reference.repository} of {self._reference.registry} {told}")


def fault_of_image(complaint: str) -> str | None:
    """What is wrong with an image of which the engine says this, or None where the image need not be at fault."""
    if is_disk_full(complaint):
        return None
    return next((told for words, told in _FAULTS_OF_IMAGE if re.search(words, complaint.lower(), re.DOTALL)), None)


def _has(client: docker.DockerClient, reference: ImageReference) -> bool:
    try:
        client.images.get(str(reference))
    except docker.errors.ImageNotFound:
        return False
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine failed: {str(error)[:300]}") from error
    return True


def _require_own_store(client: docker.DockerClient) -> None:
    try:
        info = client.info()
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine failed: {str(error)[:300]}") from error
    if uses_containerd_store(info):
        raise InfraFault(
            "The Docker engine keeps images in containerd's store, which fetches layers from wherever a manifest says: "
            'start it with {"features": {"containerd-snapshotter": false}}, or let the competition name no registries.'
        )


def uses_containerd_store(info: Mapping[str, Any]) -> bool:
    """Whether containerd keeps the engine's images; `info` is what `client.info()` gives."""
    return any("io.containerd.snapshotter.v1" in pair for pair in info.get("DriverStatus") or [])


def _require_time(cancel: threading.Event, ends_at: float, limits: Limits) -> None:
    if cancel.is_set():
        raise Cancelled
    if time.monotonic() > ends_at:
        raise SubmissionFault(Reason.TIME_LIMIT, f"Fetching the image took more than {limits.build_s:g} s.")


def _is_tagged(client: docker.DockerClient, reference: ImageReference, name: str) -> bool:
    """Give the image a name of one's own, by which leftovers are found; False where the image has just gone."""
    try:
        repository, _, tag = name.partition(":")
        client.api.tag(str(reference), repository, tag)
    except docker.errors.NotFound:
        return False
    return True


def _export(
    client: docker.DockerClient, name: str, file: Any, limits: Limits, require_time: Callable[[], None]
) -> None:
    """The engine's image as an archive, as `docker save` writes one."""
    image = client.images.get(name)
    size_bytes = int(image.attrs["Size"])
    if size_bytes > limits.image_bytes_max:
        raise reject(f"The image has {size_bytes} bytes; at most {limits.image_bytes_max} are allowed.")
    for part in client.api.get_image(str(image.id)):
        require_time()
        file.write(part)
    file.flush()
