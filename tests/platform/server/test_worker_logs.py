"""Logs that cannot grow, and messages that give nothing away."""

import pytest

from tiltyard.worker.failures import HIDDEN, hidden_message, with_log_end
from tiltyard.worker.logs import CappedLog
from tiltyard_sandbox.verdicts import Reason


def test_head_and_tail_are_kept() -> None:
    log = CappedLog(head_chars=10, tail_chars=10)
    for number in range(100):
        log.add(f"line {number:02}")
    assert log.text().splitlines() == ["line 00", "line 01", "… 97 lines left out …", "line 99"]
    assert log.last_lines(2) == "line 01\nline 99"


def test_a_short_log_is_whole() -> None:
    log = CappedLog()
    log.add("one\n")
    log.add("two\r\n")
    assert log.text() == "one\ntwo"


def test_a_long_line_is_cut() -> None:
    log = CappedLog()
    log.add("x" * 10_000)
    assert len(log.text()) == 2001


def test_what_a_terminal_or_a_database_trips_over_is_replaced() -> None:
    log = CappedLog()
    log.add("a\x00b\x1b[31mc\td\ud800")
    assert log.text() == "a\ufffdb\ufffd[31mc\td?"


def test_a_change_is_reported_once() -> None:
    log = CappedLog()
    assert log.take_changed() is None
    log.add("one")
    assert log.take_changed() == "one"
    assert log.take_changed() is None


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.INFRA_ERROR])
def test_every_reason_has_words_for_a_hidden_suite(reason: Reason) -> None:
    assert hidden_message(reason).startswith(HIDDEN[reason])
    assert "tiltyard evaluate" in hidden_message(reason)


def test_an_empty_log_adds_nothing() -> None:
    assert with_log_end("It failed.", " \n") == "It failed."
    assert with_log_end("It failed.", "boom") == "It failed.\n\nThe log ends:\nboom"
