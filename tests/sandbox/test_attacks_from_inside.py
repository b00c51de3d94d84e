"""What a hostile server tries from inside its container, attack by attack.

Each is made under the sandbox's own options, under every single defence that is said to stop it alone, and, as a
control, without them all, where it works. Containers that differ in nothing are one, so that the whole takes a minute.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import docker
import pytest
from host_as_before import host_as_before
from host_targets import HostTargets, host_targets
from lifting import host_capabilities, lifted, unmasked
from pairs_for_tests import PYTHON_IMAGE

from tiltyard_sandbox.attacks.engine import ATTACK_LIMITS, Finding, attackers_image, run_attacks
from tiltyard_sandbox.attacks.inside.files import VOLUME
from tiltyard_sandbox.attacks.table import ATTACKS, BY_NAME, Attack
from tiltyard_sandbox.containers import submission_options
from tiltyard_sandbox.defences import Defence

pytestmark = [pytest.mark.docker, pytest.mark.slow]

Setting = frozenset[Defence]  # what is lifted
# Where the control of an attack needs another network than the engine's usual one.
HOST_NETWORK = {"host_loopback", "abstract_socket"}
NEEDS_SYS_RESOURCE = {"never_die", "raise_own_bounds"}
ALONE = [(attack, defence) for attack in ATTACKS if len(attack.stopped_by) > 1 for defence in attack.stopped_by]


MARK = {"tiltyard.test": uuid.uuid4().hex}


@pytest.fixture(scope="module", autouse=True)
def _host_as_before(client: docker.DockerClient) -> Iterator[None]:
    with host_as_before(client, lambda labels: labels.get("tiltyard.test") == MARK["tiltyard.test"]):
        yield


@pytest.fixture(scope="module")
def hostile_image(client: docker.DockerClient, _host_as_before: None) -> Iterator[str]:
    with attackers_image(client, PYTHON_IMAGE, MARK) as image:
        yield image


@pytest.fixture(scope="module")
def host(client: docker.DockerClient, _host_as_before: None) -> Iterator[HostTargets]:
    with host_targets(client, MARK) as one:
        yield one


def settings_of(attack: Attack) -> set[Setting]:
    """All that this attack is tried under: everything on, all but one lifted, all lifted."""
    every = frozenset(attack.stopped_by)
    alone = {every - {defence} for defence in every} if len(every) > 1 else set()
    return {frozenset(), *alone, *(set() if attack.no_control else {every})}


def network_of(attack: Attack, setting: Setting, host: HostTargets) -> str:
    if Defence.EMPTY_NETWORK not in setting:
        return "none"
    if attack.name == "metadata":
        return f"container:{host.neighbour_id}"
    return "host" if attack.name in HOST_NETWORK else "bridge"


@pytest.fixture(scope="module")
def tried(
    client: docker.DockerClient, hostile_image: str, host: HostTargets, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Attack, Setting], Finding]:
    """What came of an attack when these defences were lifted."""
    secret = tmp_path_factory.mktemp("secret")
    mounts = {"/suite": secret, "/var/run/docker.sock": Path("/var/run/docker.sock")}

    @cache
    def batch(setting: Setting, network: str) -> dict[str, Finding]:
        options = submission_options(hostile_image, volumes=[VOLUME], limits=ATTACK_LIMITS, labels=MARK, port=8000)
        options = {**lifted(options, setting, mounts), "network_mode": network}
        if network == "bridge":
            options["dns"] = [host.gateway]
        names = [
            one.name for one in ATTACKS if setting in settings_of(one) and network_of(one, setting, host) == network
        ]
        with unmasked(client) if Defence.SYSTEM_PATHS in setting else nullcontext():
            return run_attacks(client, options, names, targets=host.targets)

    return lambda attack, setting: batch(setting, network_of(attack, setting, host))[attack.name]


@pytest.mark.parametrize("name", BY_NAME)
def test_the_sandbox_holds(name: str, tried: Callable[[Attack, Setting], Finding]) -> None:
    finding = tried(BY_NAME[name], frozenset())
    assert finding.is_held, finding


@pytest.mark.parametrize("name", [attack.name for attack in ATTACKS if not attack.no_control])
def test_without_its_defences_the_attack_works(name: str, tried: Callable[[Attack, Setting], Finding]) -> None:
    finding = tried(BY_NAME[name], frozenset(BY_NAME[name].stopped_by))
    if name in NEEDS_SYS_RESOURCE and "SYS_RESOURCE" not in host_capabilities():
        pytest.skip("this host is confined itself: it has no CAP_SYS_RESOURCE to give")
    if finding.outcome == "absent":
        pytest.skip(f"nothing to attack on this machine: {finding.saw}")
    assert finding.outcome == "worked", finding


@pytest.mark.parametrize(("attack", "defence"), ALONE, ids=[f"{one.name}-{by.name.lower()}" for one, by in ALONE])
def test_each_defence_holds_alone(
    attack: Attack, defence: Defence, tried: Callable[[Attack, Setting], Finding]
) -> None:
    finding = tried(attack, frozenset(attack.stopped_by) - {defence})
    assert finding.is_held, finding


def test_what_was_sent_has_arrived_only_where_there_was_a_network(
    host: HostTargets, tried: Callable[[Attack, Setting], Finding]
) -> None:
    """The host's side: what the controls sent arrived, so what the sandbox sent would have."""
    for name in ("datagram", "dns"):
        tried(BY_NAME[name], frozenset({Defence.EMPTY_NETWORK}))
    assert b"hidden question" in host.datagrams
    assert any(b"hidden-question" in query for query in host.queries)
    seen = len(host.datagrams), len(host.queries)
    for name in ("datagram", "dns"):
        tried(BY_NAME[name], frozenset())
    assert (len(host.datagrams), len(host.queries)) == seen
