"""Options that several commands share, and the session that they open."""

from dataclasses import dataclass
from typing import Annotated

import typer

from tiltyard.cli.client import ApiClient
from tiltyard.cli.config import Config
from tiltyard.cli.output import Output

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
ServerOption = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="The Tiltyard server. Default: TILTYARD_SERVER, or the last login."),
]
TrackOption = Annotated[
    str | None, typer.Option("--track", metavar="TRACK", help="The track. Default: the competition's first.")
]


@dataclass(frozen=True)
class Session:
    """One command's output and the server that it speaks to."""

    output: Output
    config: Config
    server: str

    @classmethod
    def open(cls, server: str | None, *, json_mode: bool) -> "Session":
        """Read the configuration and choose the server; nothing is sent yet."""
        config = Config.load()
        return cls(Output(json_mode=json_mode), config, config.choose_server(server))

    def client(self) -> ApiClient:
        """A client with the token for the server, or without one when nobody is logged in."""
        return ApiClient(self.server, self.config.token_for(self.server))
