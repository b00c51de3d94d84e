import json
import stat
from pathlib import Path

import pytest

from tiltyard.cli.config import Config, config_path, is_unencrypted, normalise_server
from tiltyard.cli.errors import CliError


def test_what_is_saved_is_loaded_and_private() -> None:
    path = Config("https://one.example", {"https://one.example": "token"}).save()
    assert path == config_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert Config.load() == Config("https://one.example", {"https://one.example": "token"})
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"]


def test_saving_makes_a_readable_file_private_again() -> None:
    path = Config().save()
    path.chmod(0o644)
    Config(None, {"http://localhost": "t"}).save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_stored_is_no_error() -> None:
    assert Config.load() == Config()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"tokens": {"a": 1}}', '{"server": 3, "tokens": {}}'])
def test_damaged_file_says_what_to_do(text: str) -> None:
    config_path().parent.mkdir(parents=True)
    config_path().write_text(text)
    with pytest.raises(CliError, match="Delete it"):
        Config.load()


def test_server_order(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Config("https://stored.example")
    assert Config().choose_server(None) == "http://127.0.0.1:8000"
    assert stored.choose_server(None) == "https://stored.example"
    monkeypatch.setenv("TILTYARD_SERVER", "https://environment.example/")
    assert stored.choose_server(None) == "https://environment.example"
    assert stored.choose_server("https://option.example") == "https://option.example"


def test_a_token_goes_to_its_own_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(None, {"https://one.example": "one"})
    assert config.token_for("https://one.example") == "one"
    assert config.token_for("https://two.example") is None
    assert config.token_for("http://one.example") is None
    monkeypatch.setenv("TILTYARD_TOKEN", "from-environment")
    assert config.token_for("https://two.example") == "from-environment"


def test_normalised() -> None:
    assert normalise_server(" http://127.0.0.1:8000/ ") == "http://127.0.0.1:8000"
    assert normalise_server("https://host/tiltyard/") == "https://host/tiltyard"


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("https://host", False),
        ("http://host", True),
        ("http://10.0.0.1", True),
        ("http://localhost:8000", False),
        ("http://127.0.0.1", False),
        ("http://[::1]:8000", False),
    ],
)
def test_unencrypted(server: str, expected: bool) -> None:
    assert is_unencrypted(server) is expected


def test_relative_xdg_path_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_path() == tmp_path / ".config" / "tiltyard" / "config.json"


def test_logout_forgets(tiltyard) -> None:
    Config("http://127.0.0.1:8000", {"http://127.0.0.1:8000": "secret", "https://two.example": "kept"}).save()
    ran = tiltyard("logout", "--json")
    assert ran.document == {"server": "http://127.0.0.1:8000", "was_logged_in": True}
    assert json.loads(config_path().read_text())["tokens"] == {"https://two.example": "kept"}
    assert tiltyard("logout", "--json").document["was_logged_in"] is False
