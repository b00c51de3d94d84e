"""The way out of a build: through squid to the listed hosts, and from there to nothing inside; else no way at all."""

import json
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.types import IPAMConfig, IPAMPool
from host_as_before import Labels, host_as_before
from images_for_tests import PYTHON_IMAGE, Builder, context

from tiltyard_sandbox.build_proxy import PROXY_IMAGE, build_network, configuration
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.owners import BUILD_LABEL, GAUGE_LABEL, owner_of
from tiltyard_sandbox.verdicts import InfraFault

pytestmark = [pytest.mark.docker, pytest.mark.slow]

OWNER = f"proxy-test-{uuid.uuid4().hex[:8]}"
PUBLIC = "198.51.100.0/24"  # a range for documents (RFC 5737), which nobody has
PRIVATE = "10.213.0.0/24"
# The web at port 80 and 8080, and at 443 something that greets whoever gets through.
UPSTREAM = """
import http.server, socketserver, threading
class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"package")
class Greeting(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"hello")
socketserver.TCPServer.allow_reuse_address = True
servers = [http.server.HTTPServer(("", port), Web) for port in (80, 8080)]
servers += [socketserver.TCPServer(("", port), Greeting) for port in (443, 22)]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
print("ready", flush=True)
"""
STEP = """
import json, os, socket, urllib.error, urllib.request
found = {}
def get(name, url):
    try:
        found[name] = urllib.request.urlopen(url, timeout=20).read().decode()
    except urllib.error.HTTPError as error:
        found[name] = error.code
    except OSError as error:
        found[name] = str(error)
def tunnel(name, target):
    with socket.create_connection(("127.0.0.1", 3128), timeout=20) as door:
        door.sendall(f"CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n".encode())
        answer = b""
        while b"hello" not in answer and b"</html>" not in answer and (part := door.recv(4096)):
            answer += part
        found[name] = "hello" if answer.endswith(b"hello") else answer.split(b" ", 2)[1].decode()
get("listed", "http://packages.example/")
get("unlisted", "http://other.example/")
get("by address", f"http://{os.environ['UPSTREAM']}/")
get("another port", "http://packages.example:8080/")
tunnel("tls", "packages.example:443")
tunnel("tls to another port", "packages.example:22")
tunnel("tls to another host", "other.example:443")
found["interfaces"] = [name for _, name in socket.if_nameindex()]
for name, where in (("directly", (os.environ["UPSTREAM"], 80)), ("by name", ("packages.example", 80))):
    try:
        found[name] = str(socket.create_connection(where, timeout=5))
    except OSError as error:
        found[name] = type(error).__name__
print(json.dumps(found))
"""


def is_ours(labels: Labels) -> bool:
    return owner_of(labels.get(GAUGE_LABEL, "")) == OWNER or any(
        name.startswith(f"{BUILD_LABEL}{OWNER}.") for name in labels
    )


@pytest.fixture
def proxy_image(client: docker.DockerClient) -> None:
    try:
        client.images.get(PROXY_IMAGE)
    except docker.errors.ImageNotFound:
        pytest.skip(f"{PROXY_IMAGE} is not on this engine; it takes a minute and some 70 MB: make build-proxy")


Network = Callable[[str], tuple[str, str]]


@pytest.fixture
def network(client: docker.DockerClient) -> Iterator[Network]:
    """Make a network of this range with a server in it, packages.example and other.example; its name, its address."""
    made: list[Any] = []

    def make(subnet: str) -> tuple[str, str]:
        name = f"{OWNER}-{len(made)}"
        ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
        made.append(client.networks.create(name, driver="bridge", ipam=ipam, labels={"tiltyard.test": OWNER}))
        server = client.containers.create(
            PYTHON_IMAGE, ["python3", "-c", UPSTREAM], network_mode="none", labels={"tiltyard.test": OWNER}
        )
        client.networks.get("none").disconnect(server)
        made[-1].connect(server, aliases=["packages.example", "other.example"])
        made.append(server)
        server.start()
        while b"ready" not in server.logs():
            server.reload()
            assert server.status == "running", server.logs()
        return name, server.attrs["NetworkSettings"]["Networks"][name]["IPAddress"]

    yield make
    for one in reversed(made):
        one.remove(**({"force": True, "v": True} if hasattr(one, "kill") else {}))


def tried(
    builder: Builder, network: tuple[str, str], pack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Any:
    name, address = network
    monkeypatch.setattr("tiltyard_sandbox.builds.build_network", partial(build_network, outside=name))
    builder.owner, builder.gauge_image = OWNER, None
    dockerfile = f"FROM {PYTHON_IMAGE}\nENV UPSTREAM={address}\nCOPY step /step\nRUN python3 /step\n".encode()
    builder.build(pack(context(dockerfile, step=STEP.encode())), build_hosts=("packages.example",), pids=64)
    return json.loads(next(line for line in builder.log if line.startswith("{")))


def test_a_build_reaches_the_listed_host_and_nothing_else(
    builder: Builder, network: Network, pack: Callable[..., Path], proxy_image: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = network(PUBLIC)
    with host_as_before(builder.client, is_ours) as watch:
        found = tried(builder, upstream, pack, monkeypatch)
        builder.client.images.remove(builder.made.pop(), force=True)
    assert len(watch.containers) >= 3
    assert found == {
        "listed": "package",
        "unlisted": 403,
        "by address": 403,
        "another port": 403,
        "tls": "hello",
        "tls to another port": "403",
        "tls to another host": "403",
        "interfaces": ["lo"],
        "directly": "OSError",
        "by name": "gaierror",
    }


def test_a_listed_name_that_leads_inside_is_refused(
    builder: Builder, network: Network, pack: Callable[..., Path], proxy_image: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tried(builder, network(PRIVATE), pack, monkeypatch)
    assert (found["listed"], found["tls"]) == (403, "403")


def test_without_the_proxys_image_the_option_is_refused(client: docker.DockerClient) -> None:
    with (
        pytest.raises(InfraFault, match=r"reach packages\.example\.org.*make build-proxy"),
        build_network(client, ["packages.example.org"], owner=OWNER, image="tiltyard-test/absent:1"),
    ):
        pass
    with build_network(client, [], owner=OWNER) as found:
        assert found == ("none", {})


@pytest.mark.parametrize(
    "host",
    ["", "*", ".org", "a b.org", "10.0.0.1", "packages.example.org\nacl all", "Packages.example.org", "localhost", 7],
)
def test_only_host_names_are_listed(host: object) -> None:
    with pytest.raises(ValueError, match="build_hosts must be"):
        Limits.from_mapping({"build_hosts": ["packages.example.org", host]})


def test_the_list_is_squids_and_nothing_more() -> None:
    assert Limits.from_mapping({"build_hosts": ["packages.example.org"]}).build_hosts == ("packages.example.org",)
    assert "acl listed dstdomain -n packages.example.org files.example.org\n" in configuration(
        ["packages.example.org", "files.example.org"]
    )
    with pytest.raises(ValueError, match="at most 64"):
        Limits(build_hosts=("a.org",) * 65)
