"""`tiltyard manifest` and `tiltyard verify`: a run's signed scores, and whether a server has signed them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.options import JsonOption, ServerOption, Session
from tiltyard_eval.manifest import ManifestError, load_document
from tiltyard_eval.manifest import verify as verify_manifest

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the documents, one for each suite.")]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A signed manifest.")]
KeyOption = Annotated[
    str | None, typer.Option("--key", metavar="BASE64", help="The server's public key. Default: ask the server.")
]


def manifest(run_id: RunArgument, out: OutOption, *, server: ServerOption = None, json_mode: JsonOption = False) -> int:
    """Fetch the signed manifests of a run's scores."""
    session = Session.open(server, json_mode=json_mode)
    with session.client() as client:
        documents = client.manifests(run_id)
    if not documents:
        raise CliError("The run has no signed manifest: only scored runs have.", ExitCode.REFUSED)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in documents:
        path = out / f"{name}.manifest.json"
        path.write_text(text, encoding="utf-8")
        paths.append(str(path))
        session.output.say(str(path))
    session.output.document({"manifests": paths})
    return ExitCode.OK


def verify(
    file: FileArgument, *, key: KeyOption = None, server: ServerOption = None, json_mode: JsonOption = False
) -> int:
    """Check that a server has signed a manifest, and that nobody has changed it since."""
    session = Session.open(server, json_mode=json_mode)
    try:
        document = load_document(file)
        keys = [key] if key is not None else _keys_of(session)
        key, checked = _verified(document, keys)
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}.") from None
    except ManifestError as error:
        raise CliError(f"{file} is not to be trusted: {error}.", ExitCode.REFUSED) from None
    suite, score = checked.get("suite", {}), checked.get("score", {})
    session.output.document({"verified": True, "key": key, "manifest": checked})
    session.output.say(f"Signed by {key}, and unchanged.")
    session.output.say(f"{checked.get('submission')} by {checked.get('participant')}, run {checked.get('run')}")
    session.output.say(
        f"{suite.get('title')} version {suite.get('version')}: {score.get('value', 0.0):.1%}"
        f" [{score.get('low', 0.0):.1%}, {score.get('high', 0.0):.1%}], {checked.get('repro_hash')}"
    )
    return ExitCode.OK


def _keys_of(session: Session) -> list[str]:
    with session.client() as client:
        return client.signing_keys()


def _verified(document: Any, keys: list[str]) -> tuple[str, dict[str, Any]]:
    """The key that signed it, and its content. Raises ManifestError when none of the keys did."""
    signature = document.get("signature") if isinstance(document, dict) else None
    named = signature.get("public_key") if isinstance(signature, dict) else None
    key = named if named in keys else keys[0]
    return key, verify_manifest(document, key)
