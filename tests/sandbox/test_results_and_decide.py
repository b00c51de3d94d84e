"""What a container wrote is read without following it; what happened is judged in a fixed order."""

import os
from pathlib import Path

import pytest

from tiltyard_sandbox.decide import ReportedFailure, decide
from tiltyard_sandbox.pair import EndedBy, PairOutcome
from tiltyard_sandbox.results import read_results
from tiltyard_sandbox.verdicts import InfraFault, Reason


def test_regular_files_are_read_and_absent_ones_left_out(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(b"{}")
    assert read_results(tmp_path, ["result.json", "samples.jsonl"], 100) == {"result.json": b"{}"}


def plant_symlink(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def plant_fifo(path: Path) -> None:
    os.mkfifo(path)


def plant_folder(path: Path) -> None:
    path.mkdir()


def plant_hard_link(path: Path) -> None:
    other = path.parent / "other"
    other.write_bytes(b"secret")
    os.link(other, path)


def plant_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("plant", [plant_symlink, plant_fifo, plant_folder, plant_hard_link, plant_sparse])
def test_anything_else_is_refused(tmp_path: Path, plant: object) -> None:
    assert callable(plant)
    plant(tmp_path / "result.json")
    with pytest.raises(InfraFault, match=r"result\.json"):
        read_results(tmp_path, ["result.json"], 1000)


def test_a_swapped_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="link"):
        read_results(tmp_path / "link", ["result.json"], 1000)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".."])
def test_only_plain_names_are_asked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain"):
        read_results(tmp_path, [name], 10)


def outcome(
    ended_by: EndedBy = EndedBy.EVALUATOR,
    evaluator_exit: int | None = 0,
    submission_exit: int | None = None,
    oom: bool = False,
    evaluator_oom: bool = False,
) -> PairOutcome:
    return PairOutcome(ended_by, evaluator_exit, submission_exit, oom, evaluator_oom, 1.0)


STARTUP = ReportedFailure("start_timeout", "not ready after 10 s")


@pytest.mark.parametrize(
    ("what", "reported", "reason"),
    [
        (outcome(), None, None),
        (outcome(submission_exit=1), None, None),  # it stopped after the last answer
        (outcome(oom=True), None, None),  # a worker died, and yet every question was answered
        (outcome(evaluator_exit=2), STARTUP, Reason.START_TIMEOUT),
        (outcome(evaluator_exit=2, submission_exit=3), STARTUP, Reason.CRASHED),
        (outcome(evaluator_exit=2, submission_exit=137), STARTUP, Reason.CRASHED),  # a status can be faked
        (outcome(evaluator_exit=2, submission_exit=0, oom=True), STARTUP, Reason.OUT_OF_MEMORY),
        (outcome(EndedBy.SUBMISSION, None, 0), None, Reason.CRASHED),
        (outcome(EndedBy.DEADLINE, None), None, Reason.TIME_LIMIT),
        (outcome(EndedBy.DEADLINE, None, oom=True), None, Reason.OUT_OF_MEMORY),
        (outcome(evaluator_exit=3), ReportedFailure("infra_error", "suite missing"), Reason.INFRA_ERROR),
        (outcome(evaluator_exit=2), ReportedFailure("nonsense", "x"), Reason.INFRA_ERROR),
        (outcome(evaluator_exit=2), None, Reason.INFRA_ERROR),
        (outcome(evaluator_exit=137, evaluator_oom=True), None, Reason.INFRA_ERROR),
        (outcome(evaluator_exit=0), ReportedFailure("crashed", "x"), Reason.INFRA_ERROR),
    ],
)
def test_the_verdict(what: PairOutcome, reported: ReportedFailure | None, reason: Reason | None) -> None:
    verdict = decide(what, reported)
    assert verdict.reason is reason
    assert verdict.message
