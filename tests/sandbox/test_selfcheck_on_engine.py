"""The self-check on a real engine: it passes, it sees each kind of limit that is lifted, and it leaves nothing."""

from typing import Any

import docker
import pytest
from host_as_before import host_as_before
from lifting import lifted
from pairs_for_tests import PYTHON_IMAGE

from tiltyard_sandbox.defences import Defence
from tiltyard_sandbox.selfcheck import SELFCHECK_LABEL, has_disk_quota, run_selfcheck
from tiltyard_sandbox.verdicts import InfraFault

pytestmark = [pytest.mark.docker, pytest.mark.slow]

LIFTED = {
    Defence.SECCOMP: {"vsock", "io_uring", "unshare_user", "ptrace"},
    Defence.NO_NEW_PRIVILEGES: {"set_user_id"},
    Defence.READ_ONLY_ROOT: {"fill_root"},
    Defence.VOLUMES_COVERED: {"fill_volume"},
    Defence.MEMORY_LIMIT: {"memory_bomb", "memory_by_memfd"},
    Defence.OPEN_FILES_LIMIT: {"open_files"},
    Defence.EMPTY_NETWORK: {"interfaces"},
}


def test_this_engine_holds_and_is_left_as_it_was(client: docker.DockerClient) -> None:
    own: list[str] = []

    def remember(options: dict[str, Any]) -> dict[str, Any]:
        own.append(options["labels"][SELFCHECK_LABEL])
        return options

    with host_as_before(client, lambda labels: labels.get(SELFCHECK_LABEL, "") in own) as watch:
        report = run_selfcheck(client, PYTHON_IMAGE, change=remember)
    assert len(watch.containers) >= 4  # one for the attacks, two for the pair, one for the build
    assert report.failed == []
    assert len(report.checks) > 90
    document = report.document()
    assert document["is_safe"] is True
    assert {check["result"] for check in document["checks"]} <= {"ok", "advice"}


def test_what_is_lifted_is_seen(client: docker.DockerClient) -> None:
    """Several at once, which is cheaper; the attack suite lifts them one by one."""
    report = run_selfcheck(client, PYTHON_IMAGE, change=lambda options: lifted(options, LIFTED, {}))
    failed = {check.name for check in report.failed}
    for defence, names in LIFTED.items():
        assert names <= failed, defence
    assert not report.document()["is_safe"]
    assert all(check.saw.startswith("IT WORKED") for check in report.failed)


def test_an_image_without_python_is_said_to_be_unfit(client: docker.DockerClient) -> None:
    answer = client.api.import_image_from_data(b"\0" * 1024, changes=["LABEL tiltyard.test=1"])
    image_id = answer.strip().rpartition('"')[0].rpartition('"')[2]
    try:
        with pytest.raises(InfraFault, match="The Docker engine failed"):
            run_selfcheck(client, image_id)
    finally:
        client.images.remove(image_id)


def test_a_disk_quota_is_found_where_there_can_be_one() -> None:
    assert has_disk_quota({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "xfs"]]})
    assert not has_disk_quota({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]]})
    assert has_disk_quota({"Driver": "zfs"})
    assert not has_disk_quota({})
