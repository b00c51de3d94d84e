"""Whether the Docker engine itself had a part in what happened to a submission.

An engine that is stopped or restarted ends its containers, and while it goes down it still answers on connections that
are open: then a submission's death looks like its own. So before a worker blames a submission, it asks the engine on a
new connection, which one that is going down no longer takes, for what every start makes anew: the network "bridge".

An engine without that network, and one with live restore, which keeps it, cannot be asked so. There a connection on
which nothing is ever said tells by its end. That alone would not do: a proxy cuts idle connections, too.
"""

import json
import threading
import uuid
from contextlib import closing
from typing import Final, Self

import docker

from tiltyard_sandbox.engine import ENGINE_ERRORS, STREAM_ENDS, EngineStream, connect
from tiltyard_sandbox.verdicts import InfraFault

ANSWER_S: Final = 10
_JOIN_S: Final = 3.0


class EngineWatch:
    """A context manager around an attempt."""

    def __init__(self, client: docker.DockerClient) -> None:
        # Events of a label that nothing has: a stream without a word.
        nothing = {"label": [f"tiltyard.watch={uuid.uuid4()}"]}
        try:
            self._start = _start_of(client)
            self._stream = EngineStream.open(client, "/events", {"filters": json.dumps(nothing)})
        except ENGINE_ERRORS as error:
            raise InfraFault(f"The Docker engine failed: {str(error)[:300]}") from error
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="engine-watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.cut()
        self._thread.join(_JOIN_S)

    def require_undisturbed(self) -> None:
        """Raise InfraFault when the engine has ended since the watch began, or is about to."""
        try:
            with closing(connect(ANSWER_S)) as client:
                start = _start_of(client)
        except ENGINE_ERRORS as error:
            raise InfraFault(f"The Docker engine failed: {str(error)[:300]}") from error
        is_known = self._start is not None and start is not None
        if start != self._start if is_known else self._is_over.is_set():
            raise InfraFault("The Docker engine was restarted in the middle of the run.")

    def _read(self) -> None:
        try:
            for _ in self._stream.chunks():
                pass
        except STREAM_ENDS:
            pass
        finally:
            self._is_over.set()
            self._stream.release()


def _start_of(client: docker.DockerClient) -> str | None:
    """What is another after each start of the engine, or None where nothing is; raises one of ENGINE_ERRORS.

    Nobody can remove the network "bridge"; the engine does so when it starts, and makes a new one, unless it was told
    to have none (`--bridge none`) or has kept containers alive on it.
    """
    if client.info().get("LiveRestoreEnabled"):
        return None
    try:
        return str(client.networks.get("bridge").id)
    except docker.errors.NotFound:
        return None
