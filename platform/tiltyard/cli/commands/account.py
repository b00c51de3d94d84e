"""`tiltyard login` and `tiltyard logout`."""

import getpass
import os
import sys

from tiltyard.cli.client import ApiClient
from tiltyard.cli.config import is_unencrypted
from tiltyard.cli.errors import CliError
from tiltyard.cli.options import JsonOption, ServerOption, Session


def login(server: ServerOption = None, json_mode: JsonOption = False) -> None:
    """Store an API token for a server.

    It is checked there first. It is read from TILTYARD_TOKEN, else from standard input when that is not a terminal,
    else from a hidden prompt. Make one at SERVER/account/tokens/.
    """
    session = Session.open(server, json_mode=json_mode)
    if is_unencrypted(session.server):
        session.output.note(f"Warning: {session.server} is not encrypted; others on the way can read the token.")
    token = _read_token(session.server)
    with ApiClient(session.server, token) as client:
        account = client.me()
    session.config.server = session.server
    session.config.tokens[session.server] = token
    path = session.config.save()
    session.output.say(f"Logged in to {session.server} as {account.get('username')}. The token is in {path}.")
    session.output.document({"server": session.server, "username": account.get("username"), "config": str(path)})


def logout(server: ServerOption = None, json_mode: JsonOption = False) -> None:
    """Forget the token stored for a server."""
    session = Session.open(server, json_mode=json_mode)
    was_stored = session.config.tokens.pop(session.server, None) is not None
    if was_stored:
        session.config.save()
    session.output.say(
        f"Forgot the token for {session.server}. It stays valid until you delete it on your account page there."
        if was_stored
        else f"No token was stored for {session.server}."
    )
    session.output.document({"server": session.server, "was_logged_in": was_stored})


def _read_token(server: str) -> str:
    token = os.environ.get("TILTYARD_TOKEN")
    if token is None and sys.stdin.isatty():
        token = getpass.getpass(f"API token for {server} (input is hidden): ")
    elif token is None:
        token = sys.stdin.readline()
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise CliError("That is not a token. Copy it whole from your account page: one line, no spaces.")
    return token
