"""Signed manifests: what is signed verifies, and what was changed does not."""

import base64
import copy
import json
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eval_results import example_result

from tiltyard_eval.manifest import (
    MAX_MANIFEST_BYTES,
    ManifestError,
    load_document,
    load_or_make_key,
    public_key_text,
    sign,
    verify,
)

MANIFEST = {"suite": {"name": "open"}, "score": {"value": 0.670833333, "low": 0.63}, "participant": "ada ☂"}


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def test_what_was_signed_verifies_after_a_round_trip(key: Ed25519PrivateKey) -> None:
    document = json.loads(json.dumps(sign(MANIFEST, key), indent=3, sort_keys=True))
    assert verify(document, public_key_text(key)) == MANIFEST


@pytest.mark.parametrize(("path", "value"), [(("score", "value"), 0.680833333), (("suite", "name"), "hidden")])
def test_a_changed_manifest_is_refused(key: Ed25519PrivateKey, path: tuple[str, str], value: object) -> None:
    document = copy.deepcopy(sign(MANIFEST, key))
    document["manifest"][path[0]][path[1]] = value
    with pytest.raises(ManifestError, match="changed after it was signed"):
        verify(document, public_key_text(key))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value that is no object and no list."""
    if isinstance(value, dict | list) and value:
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in entries:
            yield from leaves(inner, (*path, name))
    else:
        yield path


def test_no_single_value_of_a_whole_result_can_be_changed_or_left_out(key: Ed25519PrivateKey) -> None:
    signed = json.loads(json.dumps(sign(example_result().to_json(), key)))
    paths = list(leaves(signed["manifest"]))
    assert len(paths) > 40
    for path in paths:
        for is_left_out in (False, True):
            document = copy.deepcopy(signed)
            place = document["manifest"]
            for step in path[:-1]:
                place = place[step]
            if is_left_out:
                del place[path[-1]]
            else:
                place[path[-1]] = [place[path[-1]]]
            with pytest.raises(ManifestError, match="changed"):
                verify(document, public_key_text(key))


def test_a_result_that_nobody_signed_is_told_from_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(example_result().to_json()))
    with pytest.raises(ManifestError, match=r"no server has signed.*tiltyard manifest RUN"):
        load_document(tmp_path / "result.json")


def test_an_added_field_is_refused(key: Ed25519PrivateKey) -> None:
    document = copy.deepcopy(sign(MANIFEST, key))
    document["manifest"]["prize"] = True
    with pytest.raises(ManifestError, match="changed"):
        verify(document, public_key_text(key))


def test_somebody_elses_signature_is_refused(key: Ed25519PrivateKey) -> None:
    with pytest.raises(ManifestError, match="another key"):
        verify(sign(MANIFEST, Ed25519PrivateKey.generate()), public_key_text(key))


def test_another_key_cannot_borrow_the_trusted_ones_name(key: Ed25519PrivateKey) -> None:
    forged = sign(MANIFEST, Ed25519PrivateKey.generate())
    forged["signature"]["public_key"] = public_key_text(key)
    with pytest.raises(ManifestError, match="does not hold"):
        verify(forged, public_key_text(key))


def test_a_signature_over_the_bare_json_is_not_one_over_a_manifest(key: Ed25519PrivateKey) -> None:
    document = sign(MANIFEST, key)
    bare = json.dumps(MANIFEST, sort_keys=True, separators=(",", ":")).encode()
    document["signature"]["value"] = base64.b64encode(key.sign(bare)).decode()
    with pytest.raises(ManifestError, match="does not hold"):
        verify(document, public_key_text(key))


@pytest.mark.parametrize(
    "document",
    [
        *(None, [], "x", {}, {"schema": "tiltyard.manifest/2"}, {"schema": "tiltyard.manifest/1"}),
        {"schema": "tiltyard.manifest/1", "manifest": {}, "signature": {"algorithm": "none", "value": ""}},
        {"schema": "tiltyard.manifest/1", "manifest": {}, "signature": {"algorithm": "ed25519", "public_key": 1}},
        {
            "schema": "tiltyard.manifest/1",
            "manifest": {},
            "signature": {"algorithm": "ed25519", "public_key": "@@", "value": "@@"},
        },
    ],
)
def test_what_is_no_manifest_is_refused(key: Ed25519PrivateKey, document: Any) -> None:
    with pytest.raises(ManifestError):
        verify(document, public_key_text(key))


@pytest.mark.parametrize("trusted", ["", "not Base64 ☂", "QUJD"])
def test_a_bad_trusted_key_is_named(key: Ed25519PrivateKey, trusted: str) -> None:
    with pytest.raises(ManifestError, match="the trusted key is not 32 bytes"):
        verify(sign(MANIFEST, key), trusted)


@pytest.mark.parametrize("content", [b"{", b'{"x": NaN}', b"[" * 100_000, b"\xff"])
def test_a_file_that_is_not_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match="is not JSON"):
        load_document(path)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with path.open("wb") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(ManifestError, match="larger than 8 MiB"):
        load_document(path)


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with ThreadPoolExecutor(8) as pool:
        keys = {public_key_text(key) for key in pool.map(lambda _: load_or_make_key(path), range(8))}
    assert len(keys) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key.pem"]
