"""What an engine may answer while a container's output is read, told by a stand-in for its streams."""

from collections.abc import Iterator
from typing import Any

import docker
import pytest

from tiltyard_sandbox import watching
from tiltyard_sandbox.engine import EngineStream
from tiltyard_sandbox.watching import LinePump

STAMP = "2026-11-30T12:00:00.00000000"
STDOUT, ENGINE = 1, 3


def frame(kind: int, text: str) -> bytes:
    content = text.encode()
    return bytes([kind, 0, 0, 0]) + len(content).to_bytes(4, "big") + content


class Answers:
    """One answer per opening, and what was asked for."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def open(self, _client: docker.DockerClient, _path: str, params: dict[str, Any]) -> "Answer":
        self.asked.append(params)
        return Answer(self.answers.pop(0))


class Answer:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def chunks(self) -> Iterator[bytes]:
        return iter([self.content[:11], self.content[11:]])

    def cut(self) -> None:
        pass

    def release(self) -> None:
        pass


def lines_of(monkeypatch: pytest.MonkeyPatch, client: docker.DockerClient, answers: Answers) -> list[str]:
    monkeypatch.setattr(watching, "REOPEN_S", 0.01)
    monkeypatch.setattr(EngineStream, "open", answers.open)
    lines: list[str] = []
    pump = LinePump(client, "0" * 64, lines.append, bytes_max=1000)
    pump.finish()
    assert pump.error is None
    return lines


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url="tcp://127.0.0.1:1", version="1.41")  # nobody is asked
    yield made
    made.close()


@pytest.mark.parametrize("end_of_line", ["\n", ""])
def test_an_engine_that_loses_its_place_in_a_flood_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, client: docker.DockerClient, end_of_line: str
) -> None:
    """Its log is two files, and one may be removed while it reads it: it says so, and ends the answer."""
    lost = "Error grabbing logs: open /var/lib/docker/containers/0/0-json.log.1: no such file or directory\n"
    answers = Answers(
        frame(STDOUT, f"{STAMP}1Z first\n") + frame(STDOUT, f"{STAMP}2Z second{end_of_line}") + frame(ENGINE, lost),
        frame(STDOUT, f"{STAMP}2Z second{end_of_line}") + frame(STDOUT, f"{STAMP}9Z ninth\n"),
    )
    lines = lines_of(monkeypatch, client, answers)
    assert lines == ["first", "second", "[Output may be missing here: it came faster than it could be read.]", "ninth"]
    assert [asked.get("since") for asked in answers.asked] == [None, "1796040000.000000002"]


def test_a_log_that_the_engine_can_never_read_is_given_up(
    monkeypatch: pytest.MonkeyPatch, client: docker.DockerClient
) -> None:
    first = frame(STDOUT, f"{STAMP}1Z first\n")
    broken = first + frame(ENGINE, "Error grabbing logs: invalid character\n")
    answers = Answers(*[broken] * 20)
    assert lines_of(monkeypatch, client, answers) == ["first"]
    assert len(answers.asked) == watching._TEARS_MAX + 1


def test_an_answer_that_ends_by_itself_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, client: docker.DockerClient
) -> None:
    answers = Answers(frame(STDOUT, f"{STAMP}1Z only\n"))
    assert lines_of(monkeypatch, client, answers) == ["only"]
    assert len(answers.asked) == 1


def test_a_participant_cannot_speak_as_the_engine(monkeypatch: pytest.MonkeyPatch, client: docker.DockerClient) -> None:
    answers = Answers(frame(STDOUT, f"{STAMP}1Z Error grabbing logs: open /x: no such file or directory\n"))
    assert lines_of(monkeypatch, client, answers) == ["Error grabbing logs: open /x: no such file or directory"]
