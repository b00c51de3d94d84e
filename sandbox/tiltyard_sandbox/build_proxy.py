"""A way out of a build for declared hosts, and for nothing else.

A competition may let builds fetch packages: `build_hosts` in a track's limits. The build still has no network:

    RUN steps ──┐ one empty network (a loopback, nothing else)
    door      ──┘ socat: 127.0.0.1:3128 → a Unix socket in a volume that the two below share
    proxy         socat → squid, in a network of the engine; squid lets through what is on the list

So a step reaches neither the gateway nor a neighbour nor a name server: it speaks to squid, through the door, or to
nobody. squid (squid-cache.org, Debian's package) allows HTTP to port 80 and CONNECT to port 443 of exactly these names,
resolves them itself, and refuses those that resolve to a private, local or multicast address, so that no name of an
attacker leads back inside. The steps never see the volume. Nobody reads what TLS carries: a listed host is trusted with
all of it.

Both containers, named by the build's owner, are removed with the build, or swept like other leftovers.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import docker
from docker.types import DriverConfig, Mount

from tiltyard_sandbox.containers import proxy_options
from tiltyard_sandbox.engine import ENGINE_ERRORS
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.owners import GAUGE_LABEL, named_by
from tiltyard_sandbox.verdicts import InfraFault

PROXY_IMAGE: Final = "tiltyard/build-proxy:local"
PORT: Final = 3128
READY_S: Final = 30.0
_SOCKET: Final = "/door/socket"
_IN_MEMORY: Final = {"type": "tmpfs", "device": "tmpfs", "o": "size=64k,nr_inodes=16,mode=0777,nosuid,nodev,noexec"}
_VARIABLES: Final = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")  # arguments that need no ARG
# Not for everybody to reach: RFC 6890 and the IANA registries of special-purpose addresses; `::ffff:0:0/96` is IPv4.
_INNER: Final = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
    *("::/128", "::1/128", "64:ff9b::/96", "fc00::/7", "fe80::/10", "ff00::/8"),
)
_CONFIGURATION: Final = """
http_port 127.0.0.1:{port}
acl listed dstdomain -n {hosts}
acl inner dst {inner}
acl tls port 443
acl plain port 80
acl tunnel method CONNECT
http_access deny !listed
http_access deny inner
http_access deny tunnel !tls
http_access deny !tunnel !plain
http_access allow listed
http_access deny all
cache deny all
cache_mem 8 MB
max_filedescriptors 1024
forwarded_for delete
via off
pinger_enable off
memory_cache_shared off
shutdown_lifetime 1 second
pid_filename none
coredump_dir /tmp
access_log stdio:/dev/stdout
cache_log /dev/stderr
"""
_LISTEN: Final = f"UNIX-LISTEN:{_SOCKET},fork,mode=666,max-children=64"
_PROXY: Final = (
    'printf %s "$SQUID" > /tmp/squid.conf && (squid -N -f /tmp/squid.conf & '
    # The socket appears when squid listens, so whoever finds it is served.
    f"while ! socat -u OPEN:/dev/null TCP:127.0.0.1:{PORT} 2>/dev/null; do sleep 0.1; done; "
    f"exec socat {_LISTEN} TCP:127.0.0.1:{PORT})"
)
_DOOR: Final = (
    f"while [ ! -S {_SOCKET} ]; do sleep 0.1; done; echo ready; "
    f"exec socat TCP-LISTEN:{PORT},bind=127.0.0.1,reuseaddr,fork,max-children=64 UNIX-CONNECT:{_SOCKET}"
)
_LOG = logging.getLogger(__name__)


def configuration(hosts: Sequence[str]) -> str:
    """squid's, for these hosts; raises ValueError on anything that is not a plain host name."""
    Limits(build_hosts=tuple(hosts))
    return _CONFIGURATION.format(port=PORT, hosts=" ".join(hosts), inner=" ".join(_INNER))


@contextmanager
def build_network(
    client: docker.DockerClient, hosts: Sequence[str], *, owner: str, image: str = PROXY_IMAGE, outside: str = "bridge"
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The network mode for a build, and the build arguments that tell its programs of the proxy.

    Without hosts, that is "none". `outside` is the engine's network that the proxy reaches the hosts through. Raises
    InfraFault when the proxy's image is missing or it does not get ready.
    """
    if not hosts:
        yield "none", {}
        return
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        raise InfraFault(
            f"This track lets builds reach {', '.join(hosts[:3])}, and the image {image}, through which they would, is "
            "not on this machine: run `make build-proxy`, or take build_hosts out of the track's limits."
        ) from None
    labels = {GAUGE_LABEL: named_by(owner)}
    squid = proxy_options(image, ["sh", "-c", _PROXY], labels=labels, network=outside)
    squid["environment"]["SQUID"] = configuration(hosts)
    squid["mounts"] = [Mount("/door", None, type="volume", driver_config=DriverConfig("local", _IN_MEMORY))]
    with ExitStack() as stack:
        try:
            proxy = _started(client, stack, squid)
            door_options = proxy_options(image, ["sh", "-c", _DOOR], labels=labels, network="none")
            door = _started(client, stack, {**door_options, "volumes_from": [proxy.id]})
            _wait_until_ready(proxy, door)
        except ENGINE_ERRORS as error:
            raise InfraFault(f"The way out for builds cannot be made: {str(error)[:300]}") from error
        yield f"container:{door.id}", dict.fromkeys(_VARIABLES, f"http://127.0.0.1:{PORT}")


def _started(client: docker.DockerClient, stack: ExitStack, options: Mapping[str, Any]) -> Any:
    container = client.containers.create(**options)
    stack.callback(_removed, container)
    container.start()
    return container


def _wait_until_ready(proxy: Any, door: Any) -> None:
    deadline = time.monotonic() + READY_S
    while b"ready" not in door.logs():
        time.sleep(0.1)
        proxy.reload()
        if proxy.status != "running" or time.monotonic() > deadline:
            said = proxy.logs(tail=5).decode(errors="replace").strip()
            raise InfraFault(f"The proxy for builds does not get ready. It said: {said[-300:] or 'nothing'}")


def _removed(one: Any) -> None:
    try:
        one.remove(force=True, v=True)  # the volume goes with the last of the two
    except ENGINE_ERRORS as error:
        _LOG.warning("a part of a build's proxy could not be removed: %s", error)
