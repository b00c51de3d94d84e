"""Signed manifests of scored runs: what was measured, of what, by what, under this server's key."""

from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings

from tiltyard.submissions.models import Run
from tiltyard_eval.manifest import load_or_make_key, public_key_text, sign
from tiltyard_eval.results import Result

_KEY_FILE = "signing-key.pem"
_PUBLIC_FILE = "signing-key.pub"
_RETIRED = "retired-"


def public_key() -> str:
    """The server's public key in Base64."""
    public = Path(settings.SIGNING_DIR) / _PUBLIC_FILE
    if public.exists():  # the private one may belong to the worker's account
        return public.read_text(encoding="ascii").strip()
    return _make_keys()[1]


def retired_keys() -> list[str]:
    """The public keys in Base64 that signed manifests before, the newest first."""
    found = sorted(Path(settings.SIGNING_DIR).glob(f"{_RETIRED}*.pub"), reverse=True)
    return [path.read_text(encoding="ascii").strip() for path in found]


def rotate_key(now: datetime) -> tuple[str, str]:
    """Take a new key for what is signed from now on; returns the old public key and the new one.

    The old private key is removed: nobody signs with it any more. Its public key stays, or what it signed could no
    longer be verified.
    """
    old = _make_keys()[1]
    directory = Path(settings.SIGNING_DIR)
    retired = directory / f"{_RETIRED}{now:%Y%m%dT%H%M%S%f}.pub"
    retired.write_text(old + "\n", encoding="ascii")
    retired.chmod(0o644)
    # The private key first: who signs in between makes the new pair, and never the old key beside the new name.
    (directory / _KEY_FILE).unlink()
    (directory / _PUBLIC_FILE).unlink()
    return old, _make_keys()[1]


def signed_manifest(run: Run, result: Result, evaluator_image_digest: str) -> dict[str, Any]:
    """The signed document of one suite's result; nothing in it tells of single questions.

    `evaluator_image_digest` is a content digest, so that who builds the evaluator's image anew can check it.
    """
    if result.suite is None or result.score is None:
        raise ValueError("only a scored result has a manifest")
    submission = run.submission
    manifest = {
        "competition": submission.competition.slug,
        "track": submission.track.slug,
        "submission": submission.name,
        "participant": submission.owner.get_username(),
        "run": str(run.pk),
        "artefact_sha256": submission.artefact.sha256,
        "evaluator_image_digest": evaluator_image_digest,
        "suite": vars(result.suite),
        "score": vars(result.score),
        "tasks": [
            {name: getattr(task, name) for name in ("name", "weight", "items", "score", "low", "high")}
            for task in result.tasks
        ],
        "adapter": result.adapter,
        "execution_mode": result.execution_mode,
        "settings": dict(result.settings),
        "versions": dict(result.versions),
        "started_at": result.timing.started_at,
        "identity": dict(result.identity),
        "repro_hash": result.repro_hash,
    }
    return sign(manifest, _make_keys()[0])


def _make_keys() -> tuple[Any, str]:
    directory = Path(settings.SIGNING_DIR)
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    key = load_or_make_key(directory / _KEY_FILE)
    public = directory / _PUBLIC_FILE
    text = public_key_text(key) + "\n"
    # A rotation that was killed leaves the old one, which what is signed now would not verify by.
    if not public.exists() or public.read_text(encoding="ascii") != text:
        work = public.with_suffix(".new")
        work.write_text(text, encoding="ascii")
        work.chmod(0o644)
        work.replace(public)
    return key, public_key_text(key)
