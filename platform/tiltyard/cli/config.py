"""The command's configuration: which server is the default one, and the token for each server."""

import ipaddress
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from tiltyard.cli.errors import CliError

DEFAULT_SERVER: Final = "http://127.0.0.1:8000"


def config_path() -> Path:
    """`$XDG_CONFIG_HOME/tiltyard/config.json`, by default under `~/.config`."""
    return _base("XDG_CONFIG_HOME", ".config") / "config.json"


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/tiltyard`, by default under `~/.cache`; made when missing."""
    directory = _base("XDG_CACHE_HOME", ".cache")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory


def _base(variable: str, default: str) -> Path:
    root = os.environ.get(variable, "")
    # The XDG specification: a relative path is invalid and must be ignored.
    return (Path(root) if Path(root).is_absolute() else Path.home() / default) / "tiltyard"


def normalise_server(text: str) -> str:
    """The server's address without a trailing slash; raises CliError when it is not an http or https address."""
    parts = urlsplit(text.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise CliError(f"{text!r} is not a server's address: write it as https://host or http://host:port.")
    if parts.username or parts.password:
        raise CliError("Leave name and password out of the server's address: `tiltyard login` stores a token.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def is_unencrypted(server: str) -> bool:
    """Whether a token sent to `server` could be read on the way: plain http to anything but this machine."""
    parts = urlsplit(server)
    if parts.scheme == "https":
        return False
    host = parts.hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


@dataclass
class Config:
    """What `tiltyard login` has stored. `tokens` maps a server's address to the token made there."""

    server: str | None = None
    tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Self:
        """The stored configuration, empty when there is none; raises CliError when the file is damaged."""
        path = config_path()
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise CliError(f"{path} cannot be read ({error}). Delete it and run `tiltyard login` again.") from None
        if not _is_valid(values):
            raise CliError(f"{path} is damaged. Delete it and run `tiltyard login` again.")
        return cls(values.get("server"), values["tokens"])

    def save(self) -> Path:
        """Write the file so that only its owner can read it, whole or not at all; returns its path."""
        path = config_path()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # mkstemp creates with mode 0600, so the token is never readable by others, not even for a moment.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"server": self.server, "tokens": self.tokens}, file, indent=2)
        Path(temporary).replace(path)
        return path

    def choose_server(self, option: str | None) -> str:
        """The server to talk to: `--server`, else TILTYARD_SERVER, else that of the last login, else this machine."""
        return normalise_server(option or os.environ.get("TILTYARD_SERVER") or self.server or DEFAULT_SERVER)

    def token_for(self, server: str) -> str | None:
        """TILTYARD_TOKEN, else the token stored for exactly this server: one server's token never goes to another."""
        return os.environ.get("TILTYARD_TOKEN") or self.tokens.get(server)


def _is_valid(values: Any) -> bool:
    return (
        isinstance(values, dict)
        and isinstance(values.get("server"), str | None)
        and isinstance(values.get("tokens"), dict)
        and all(isinstance(item, str) for pair in values["tokens"].items() for item in pair)
    )
