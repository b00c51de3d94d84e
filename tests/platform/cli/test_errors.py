import pytest


def test_unknown_command(tiltyard) -> None:
    ran = tiltyard("sumbit")
    assert ran.exit_code == 2
    assert "sumbit" in ran.stderr
    assert "tiltyard --help" in ran.stderr
    assert ran.stdout == ""


def test_missing_option_as_json(tiltyard_process) -> None:
    ran = tiltyard_process("submit", "somewhere", "--json")
    assert ran.exit_code == 2
    assert ran.document["error"]["kind"] == "usage"
    assert "--competition" in ran.document["error"]["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["competitions"],
        ["leaderboard", "demo"],
        ["status"],
        ["status", "some-run"],
        ["logs", "some-run"],
        ["cancel", "some-run"],
    ],
)
def test_server_away(tiltyard, unused_port: int, arguments: list[str]) -> None:
    server = f"http://127.0.0.1:{unused_port}"
    ran = tiltyard(*arguments, "--server", server)
    assert ran.exit_code == 6
    assert server in ran.stderr
    assert "--server" in ran.stderr

    ran = tiltyard(*arguments, "--server", server, "--json")
    assert ran.exit_code == 6
    assert ran.document["error"]["kind"] == "unreachable"


@pytest.mark.parametrize("server", ["demo.example", "ftp://host", "http://", "http://name:secret@host", "http://h/?q"])
def test_bad_server_address(tiltyard, server: str) -> None:
    ran = tiltyard("competitions", "--server", server)
    assert ran.exit_code == 2
    assert "secret@" not in ran.stderr
    assert "address" in ran.stderr


def test_evaluate_needs_exactly_one_source(tiltyard, submission, tmp_path) -> None:
    for options in ([], ["--competition", "demo", "--suite", tmp_path]):
        ran = tiltyard("evaluate", submission, *options)
        assert ran.exit_code == 2
        assert "exactly one" in ran.stderr


def test_evaluate_refuses_a_used_results_folder(tiltyard, submission, tmp_path, demo_suite) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("mine")
    ran = tiltyard("evaluate", submission, "--suite", demo_suite, "--out", tmp_path / "out")
    assert ran.exit_code == 2
    assert "--out" in ran.stderr
    assert (tmp_path / "out" / "kept").read_text() == "mine"


def test_unexpected_error_is_one_line_and_code_1(tiltyard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/dev/null")  # not a folder: reading below it is an error of its own kind
    ran = tiltyard("competitions", "--json")
    assert ran.exit_code == 2
    assert "/dev/null/tiltyard/config.json" in ran.document["error"]["message"]
