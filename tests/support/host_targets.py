"""What a host and its other containers have to be reached by: real services, which real attacks aim at."""

import ctypes
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker
from pairs_for_tests import PYTHON_IMAGE

# A neighbour that listens on its address, and as a cloud does at 169.254.169.254, in its own network alone.
_NEIGHBOUR: Final = """
import fcntl, socket, struct, threading
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    address = struct.pack("<16sH2s4s8x", b"lo:1", socket.AF_INET, b"", socket.inet_aton("169.254.169.254"))
    fcntl.ioctl(any_socket, 0x8916, address)  # SIOCSIFADDR
servers = [socket.create_server(("0.0.0.0", 8080)), socket.create_server(("169.254.169.254", 80))]
def serve(server):
    while True:
        server.accept()[0].close()
for server in servers:
    threading.Thread(target=serve, args=(server,)).start()
print("ready", flush=True)
"""
_ANSWER: Final = b"got it"


@dataclass
class HostTargets:
    """Where they are (see `Aims.targets`), and what has arrived at the host's services."""

    targets: dict[str, Any]
    neighbour_id: str
    gateway: str
    datagrams: list[bytes]
    queries: list[bytes]


@contextmanager
def host_targets(client: docker.DockerClient, labels: Mapping[str, str]) -> Iterator[HostTargets]:
    with ExitStack() as stack:
        neighbour = client.containers.run(
            PYTHON_IMAGE,
            ["python3", "-c", _NEIGHBOUR],
            detach=True,
            cap_add=["NET_ADMIN"],
            labels=dict(labels),
        )
        stack.callback(neighbour.remove, force=True, v=True)
        while b"ready" not in neighbour.logs():
            time.sleep(0.05)
            neighbour.reload()
            assert neighbour.status == "running", neighbour.logs()
        network = neighbour.attrs["NetworkSettings"]["Networks"]["bridge"]
        gateway = network["Gateway"]
        port = _listening(stack, socket.create_server((gateway, 0)))
        loopback_port = _listening(stack, socket.create_server(("127.0.0.1", 0)))
        name = f"tiltyard-{uuid.uuid4().hex}"
        abstract = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        abstract.bind("\0" + name)
        abstract.listen()
        _listening(stack, abstract)
        datagrams: list[bytes] = []
        queries: list[bytes] = []
        datagram_port = _answering(stack, (gateway, 0), datagrams, _ack)
        _answering(stack, (gateway, 53), queries, _dns_answer)
        targets = {
            "gateway": [gateway, port],
            "loopback_port": loopback_port,
            "neighbour": [network["IPAddress"], 8080],
            "datagram": [gateway, datagram_port],
            "abstract_socket": name,
            "host_pid": os.getpid(),
            "host_command": Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode(),
            "shared_memory_key": stack.enter_context(_shared_memory()),
            "patience_s": 10,
        }
        yield HostTargets(targets, neighbour.id, gateway, datagrams, queries)


def _listening(stack: ExitStack, server: socket.socket) -> Any:
    def serve() -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return  # it was closed

    stack.callback(_end, server)
    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def _answering(stack: ExitStack, address: tuple[str, int], seen: list[bytes], answer: Any) -> int:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(address)

    def serve() -> None:
        while True:
            try:
                message, sender = server.recvfrom(2048)
                if not message:
                    return  # it was shut down
                seen.append(message)
                server.sendto(answer(message), sender)
            except OSError:
                return

    stack.callback(_end, server)
    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def _end(server: socket.socket) -> None:
    with suppress(OSError):  # a datagram's is not connected: the call has woken the thread all the same
        server.shutdown(socket.SHUT_RDWR)
    server.close()


def _ack(_message: bytes) -> bytes:
    return _ANSWER


def _dns_answer(query: bytes) -> bytes:
    """An A record of 192.0.2.7 for whatever was asked (RFC 1035, section 4)."""
    question = query[12:]
    end = question.index(b"\0") + 5
    if question[end - 4 : end - 2] != b"\0\1":  # not an A record: no answer
        return query[:2] + b"\x81\x80" + b"\0\1\0\0\0\0\0\0" + question[:end]
    head = query[:2] + b"\x81\x80" + b"\0\1\0\1\0\0\0\0"
    return head + question[:end] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([192, 0, 2, 7])


@contextmanager
def _shared_memory() -> Iterator[int]:
    """A segment of the host that everybody on it may read, by its key."""
    libc = ctypes.CDLL(None, use_errno=True)
    key = uuid.uuid4().int & 0x7FFFFFFF
    segment = libc.shmget(key, 4096, 0o1666)  # IPC_CREAT
    assert segment >= 0, ctypes.get_errno()
    try:
        yield key
    finally:
        libc.shmctl(segment, 0, None)  # IPC_RMID
