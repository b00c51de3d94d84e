"""Limits and manifests: defaults, sizes as text, and one clear message for each mistake."""

import math

import pytest

from tiltyard_sandbox.limits import GIB, MIB, Limits, parse_size
from tiltyard_sandbox.manifest import SubmissionManifest
from tiltyard_sandbox.verdicts import Reason, SubmissionFault

GOOD = b"name: a\nbase_model: squire\ntraining_data: mine\nlicence: MIT\n"


def test_limits_come_from_a_mapping_with_sizes_as_text() -> None:
    limits = Limits.from_mapping({"memory_bytes": "2 GiB", "tmpfs_bytes": "1.5MiB", "evaluate_s": 60})
    assert (limits.memory_bytes, limits.tmpfs_bytes, limits.evaluate_s) == (2 * GIB, 3 * MIB // 2, 60)
    assert limits.pids == Limits().pids


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"memory": 1}, "Unknown limit 'memory'"),
        ({"memory_bytes": 1}, "memory_bytes must lie between"),
        ({"memory_bytes": "much"}, "not a size"),
        ({"pids": 10.5}, "whole number"),
        ({"pids": True}, "must be a number"),
        ({"evaluate_s": math.nan}, "must lie between"),
        ({"evaluate_s": "60"}, "must be a number"),
        ({"gpu_uuid": "0"}, "GPU-"),
        ({"gpu_uuid": "all"}, "GPU-"),
        ({"runtime": "a b"}, "a name that the engine knows"),
        ({"build_hosts": "packages.example.org"}, "build_hosts must be"),
        ({"cpuset": "all"}, "a list of cores"),
        ({"cpuset": "0-3; rm"}, "a list of cores"),
    ],
)
def test_limits_that_make_no_sense_are_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Limits.from_mapping(values)


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("1 KiB", 1024), ("1kb", 1000), ("0.5 GiB", GIB // 2)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_manifest_travels_through_labels() -> None:
    manifest = SubmissionManifest.from_yaml(GOOD + b"adapter: native\ndescription: hello\n")
    assert manifest.adapter == "native"
    assert SubmissionManifest.from_labels({**manifest.labels(), "other": "x"}) == manifest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "must be a mapping"),
        (b"- a", "must be a mapping"),
        (b"a: [", "not valid YAML at line 1"),
        (b"\xff\xfe\xfa", "not valid YAML"),
        (GOOD.replace(b"licence: MIT\n", b""), "lacks licence"),
        (GOOD.replace(b"MIT", b'""'), "lacks licence"),
        (GOOD + b"adapter: grpc", "adapter must be openai, native or neurips2023"),
        (GOOD + b"colour: red", "unknown field 'colour'"),
        (GOOD.replace(b"mine", b"[1]"), "training_data must be a text"),
        (GOOD.replace(b"name: a", b"name: " + b"a" * 81), "longer than 80"),
        (GOOD.replace(b"name: a", b'name: "\\e[2J"'), "control characters"),
        (b"a: &x [1]\nb: *x\n", "aliases"),
        (b"a: !!python/object/apply:os.system [id]\n", "not valid YAML"),
        (b"x" * 70_000, "larger than 64 KiB"),
        (b"[" * 60_000, "nested too deeply"),
    ],
)
def test_each_mistake_in_a_manifest_has_its_own_message(text: bytes, says: str) -> None:
    with pytest.raises(SubmissionFault, match=says) as caught:
        SubmissionManifest.from_yaml(text)
    assert caught.value.reason is Reason.IMAGE_REJECTED


def test_an_image_without_labels_is_told_what_to_add() -> None:
    with pytest.raises(SubmissionFault, match=r'LABEL tiltyard\.name="…"'):
        SubmissionManifest.from_labels({})


def test_our_own_failures_are_never_a_submission_fault() -> None:
    with pytest.raises(ValueError, match="InfraFault"):
        SubmissionFault(Reason.INFRA_ERROR, "x")
