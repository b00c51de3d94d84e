"""Signed manifests: what a server says it measured, so that anyone can check that nobody has changed it since.

A manifest holds scores with everything that decides them; its signature is Ed25519 (RFC 8032) over the canonical JSON
of the manifest, made with the server's key. The public key stands in the document, so that a reader sees whose it is;
who wants to know that it is *this* server's must compare it with the key that the server publishes.
"""

import base64
import binascii
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tiltyard_eval.identity import canonical_json
from tiltyard_eval.results import SCHEMA as RESULT_SCHEMA

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SCHEMA: Final = "tiltyard.manifest/1"
MAX_MANIFEST_BYTES: Final = 8 * 1024 * 1024
_CONTEXT: Final = b"tiltyard.manifest/1\0"  # a signature over a manifest is a signature over nothing else


class ManifestError(ValueError):
    """The document is no manifest, or its signature does not hold; the message says which."""


def load_or_make_key(path: Path) -> "Ed25519PrivateKey":
    """The private key in the PEM file `path`, made if there is none, readable by its owner alone."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  slow to import
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # A name of its own, since threads of one process may make one at once; mkstemp makes it for the owner alone.
        descriptor, work = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        try:
            os.link(work, path)  # complete or not at all; of two processes that both make one, the first wins
        except FileExistsError:
            pass
        finally:
            Path(work).unlink()
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ManifestError(f"{path} holds no Ed25519 key; remove it and a new one is made")
    return key


def public_key_text(key: "Ed25519PrivateKey") -> str:
    """The public half, 32 bytes, in Base64: what a server publishes and a reader pins."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def sign(manifest: dict[str, Any], key: "Ed25519PrivateKey") -> dict[str, Any]:
    """The document of a manifest: schema, manifest, signature."""
    value = base64.b64encode(key.sign(_CONTEXT + canonical_json(manifest))).decode()
    signature = {"algorithm": "ed25519", "public_key": public_key_text(key), "value": value}
    return {"schema": SCHEMA, "manifest": manifest, "signature": signature}


def verify(document: object, trusted_key: str) -> dict[str, Any]:
    """The manifest in `document`, if `trusted_key` (Base64) has signed it; raises `ManifestError` otherwise."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  slow to import
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    manifest, signature = _parts(document)
    key = _base64(trusted_key, 32, "the trusted key")
    if _base64(signature["public_key"], 32, "the document's public key") != key:
        raise ManifestError("it is signed with another key than the trusted one")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(
            _base64(signature["value"], 64, "the signature"), _CONTEXT + canonical_json(manifest)
        )
    except InvalidSignature:
        raise ManifestError("the signature does not hold: the manifest was changed after it was signed") from None
    return manifest


def load_document(path: Path) -> Any:
    """Read a manifest document; raises `ManifestError` when it is too large, not JSON, or an unsigned result."""
    with path.open("rb") as file:
        raw = file.read(MAX_MANIFEST_BYTES + 1)
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{path} is larger than {MAX_MANIFEST_BYTES >> 20} MiB: this is no manifest")
    try:
        document = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ManifestError(f"{path} is not JSON") from None
    if isinstance(document, dict) and document.get("schema") == RESULT_SCHEMA:
        raise ManifestError(
            "it is a result that no server has signed: anybody can write one. The signed manifest of a run on a server "
            "comes with `tiltyard manifest RUN`"
        )
    return document


def _parts(document: object) -> tuple[dict[str, Any], dict[str, str]]:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ManifestError(f"it is no signed manifest ({SCHEMA})")
    manifest, signature = document.get("manifest"), document.get("signature")
    if not isinstance(manifest, dict) or not isinstance(signature, dict):
        raise ManifestError("the manifest or its signature is missing")
    if signature.get("algorithm") != "ed25519" or not all(
        isinstance(signature.get(name), str) for name in ("public_key", "value")
    ):
        raise ManifestError("the signature is not an Ed25519 signature with its public key")
    return manifest, signature


def _base64(text: str, size: int, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != size:
        raise ManifestError(f"{what} is not {size} bytes in Base64")
    return raw


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
