"""Servers that misbehave, each in one way: the verdict, the item's fault, and that no fault is worth a point."""

import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from eval_servers import running_server
from twenty_questions import ANSWERS, QUESTIONS, ask

from tiltyard_eval.errors import RunFailed
from tiltyard_eval.http_client import retry_after_s


@pytest.mark.parametrize("adapter", ["openai", "native"])
def test_good_server_is_asked_in_batches_in_order(tmp_path: Path, adapter: str) -> None:
    with running_server(tmp_path, answers=ANSWERS) as url:
        answers, facts = ask(tmp_path, url, adapter=adapter)
    assert {q.prompt: answers[q.key].text for q in QUESTIONS} == ANSWERS
    assert facts.execution_mode == "batched-5"
    assert facts.retries == 0


def test_server_without_batches_is_asked_one_by_one(tmp_path: Path) -> None:
    with running_server(tmp_path, answers=ANSWERS, behaviour="single_only") as url:
        answers, facts = ask(tmp_path, url, concurrency=5)
    assert {q.prompt: answers[q.key].text for q in QUESTIONS} == ANSWERS
    assert facts.execution_mode == "concurrent-5"


def test_choices_in_another_order_are_put_right_by_index(tmp_path: Path) -> None:
    with running_server(tmp_path, answers=ANSWERS, behaviour="reversed") as url:
        answers, _ = ask(tmp_path, url)
    assert {q.prompt: answers[q.key].text for q in QUESTIONS} == ANSWERS


def test_batch_with_an_index_twice_is_asked_again_one_by_one(tmp_path: Path) -> None:
    with running_server(tmp_path, answers=ANSWERS, behaviour="duplicate_index@3") as url:
        answers, facts = ask(tmp_path, url)
    assert {q.prompt: answers[q.key].text for q in QUESTIONS} == ANSWERS
    assert facts.requests == 1 + 2 + 4 + 20  # models, probe, batches, single questions


def test_busy_server_is_asked_again(tmp_path: Path) -> None:
    with running_server(tmp_path, answers=ANSWERS, behaviour="busy_once") as url:
        answers, facts = ask(tmp_path, url)
    assert {q.prompt: answers[q.key].text for q in QUESTIONS} == ANSWERS
    assert facts.retries > 0


@pytest.mark.parametrize(
    ("behaviour", "reason", "words"),
    [
        ("null_text", "protocol_error", '"text" must be a string'),
        ("number_text", "protocol_error", '"text" must be a string'),
        ("surrogate", "protocol_error", "surrogate"),
        ("wrong_count", "protocol_error", '1 prompt(s) need 1 entries in "choices", but 2 came'),
        ("no_choices", "protocol_error", "but 0 came"),
        ("missing_index", "protocol_error", "index"),
        ("bool_index", "protocol_error", "index"),
        ("not_an_object", "protocol_error", 'a JSON object with a list "choices"'),
        ("error_document", "protocol_error", 'a list "choices"'),
        ("nan", "protocol_error", "not valid JSON"),
        ("deep", "protocol_error", "nested too deeply"),
        ("not_json", "protocol_error", "not valid JSON"),
        ("not_utf8", "protocol_error", "not valid JSON"),
        ("huge_integer", "protocol_error", "not valid JSON"),
        ("status_500", "protocol_error", "status 500"),
        ("status_404", "protocol_error", "status 404"),
        ("redirect", "protocol_error", "redirect"),
        ("content_type", "protocol_error", "Content-Type"),
        ("gzip", "protocol_error", "compressed"),
        ("not_http", "protocol_error", "not well-formed HTTP"),
        ("huge", "response_too_large", "1048576 bytes"),
        ("endless", "response_too_large", "1048576 bytes"),
        ("crash", "crashed", "did not answer a trial request"),
    ],
)
def test_probe_refuses(tmp_path: Path, behaviour: str, reason: str, words: str) -> None:
    with running_server(tmp_path, answers=ANSWERS, behaviour=behaviour) as url, pytest.raises(RunFailed) as failure:
        ask(tmp_path, url)
    assert failure.value.reason == reason
    assert words in failure.value.message
    assert failure.value.exit_status == 2


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("null_text", "protocol_error"),
        ("wrong_count", "protocol_error"),
        ("nan", "protocol_error"),
        ("deep", "protocol_error"),
        ("status_500", "protocol_error"),
        ("redirect", "protocol_error"),
        ("huge", "response_too_large"),
        ("endless", "response_too_large"),
        ("crash", "crashed"),
    ],
)
def test_server_that_goes_bad_after_the_probe_fails_the_run(tmp_path: Path, behaviour: str, reason: str) -> None:
    with (
        running_server(tmp_path, answers=ANSWERS, behaviour=f"{behaviour}@3") as url,
        pytest.raises(RunFailed) as failure,
    ):
        ask(tmp_path, url)
    assert failure.value.reason == reason
    assert "secret" not in failure.value.message


@pytest.mark.parametrize("behaviour", ["hang", "drip"])
def test_hung_server_fails_after_a_few_timeouts(tmp_path: Path, behaviour: str) -> None:
    with (
        running_server(tmp_path, answers=ANSWERS, behaviour=f"{behaviour}@3") as url,
        pytest.raises(RunFailed) as failure,
    ):
        ask(tmp_path, url, request_timeout_s=0.3)
    assert failure.value.reason == "time_limit"
    assert "3 requests in a row" in failure.value.message


def test_total_deadline_ends_a_slow_run(tmp_path: Path) -> None:
    started = time.monotonic()
    with (
        running_server(tmp_path, answers=ANSWERS, behaviour="hang@4") as url,
        pytest.raises(RunFailed, match="after 5 of 20 questions") as failure,
    ):
        ask(tmp_path, url, deadline_s=1.5, request_timeout_s=60.0)
    assert failure.value.reason == "time_limit"
    assert time.monotonic() - started < 5


def test_server_that_never_gets_ready(tmp_path: Path) -> None:
    with running_server(tmp_path, behaviour="never_ready") as url, pytest.raises(RunFailed) as failure:
        ask(tmp_path, url, start_timeout_s=0.5)
    assert failure.value.reason == "start_timeout"
    assert "503" in failure.value.message


def test_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="nothing listened") as failure:
        ask(tmp_path, "http://127.0.0.1:9", start_timeout_s=0.3)
    assert failure.value.reason == "start_timeout"


def test_refused_question_costs_itself_alone(tmp_path: Path) -> None:
    refused = QUESTIONS[7]
    answers = {**ANSWERS, refused.prompt: "REFUSE"}
    with running_server(tmp_path, answers=answers, behaviour="refuse") as url:
        got, _ = ask(tmp_path, url)
    assert Counter(answer.failure for answer in got.values()) == {None: 19, "http_status": 1}
    assert got[refused.key].text == ""


def test_too_many_refused_questions_fail_the_run(tmp_path: Path) -> None:
    answers = {**ANSWERS, **{question.prompt: "REFUSE" for question in QUESTIONS[:5]}}
    with (
        running_server(tmp_path, answers=answers, behaviour="refuse") as url,
        pytest.raises(RunFailed, match="More than 20%") as failure,
    ):
        ask(tmp_path, url)
    assert failure.value.reason == "protocol_error"


def test_long_text_is_cut_and_text_ends_before_the_stop_string(tmp_path: Path) -> None:
    with running_server(tmp_path, behaviour="long_text") as url:
        answers, _ = ask(tmp_path, url)
    assert {len(answer.text) for answer in answers.values()} == {4096}
    (tmp_path / "journal.jsonl").unlink()
    with running_server(tmp_path, answers={q.prompt: " yes\nno" for q in QUESTIONS}) as url:
        answers, _ = ask(tmp_path, url)
    assert {answer.text for answer in answers.values()} == {" yes"}


def test_server_that_lives_but_cuts_connections_counts_as_crashed(tmp_path: Path) -> None:
    with running_server(tmp_path, answers=ANSWERS, behaviour="cut@3") as url, pytest.raises(RunFailed) as failure:
        ask(tmp_path, url)
    assert failure.value.reason == "crashed"
    assert "3 requests in a row" in failure.value.message


def test_what_only_a_crowd_breaks_costs_nobody_a_point(tmp_path: Path) -> None:
    """The server cannot do three things at once. Asked too much it says 500, 503 or nothing; no score shows it."""
    with running_server(tmp_path, answers=ANSWERS, behaviour="narrow") as url:
        answers, facts = ask(tmp_path, url, concurrency=8, batch_size=1)
        assert {q.prompt: (answers[q.key].text, answers[q.key].failure) for q in QUESTIONS} == {
            prompt: (text, None) for prompt, text in ANSWERS.items()
        }
        assert facts.requests > len(QUESTIONS) + 2  # it was asked too much
        (tmp_path / "journal.jsonl").unlink()
        adaptive, _ = ask(tmp_path, url, concurrency=None, batch_size=1)
    assert {key: answer.text for key, answer in adaptive.items()} == {key: one.text for key, one in answers.items()}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("null_text", "protocol_error"), ("status_500", "protocol_error"), ("crash", "crashed"), ("hang", "time_limit")],
)
@pytest.mark.parametrize("concurrency", [4, None])
def test_verdicts_are_the_same_with_many_requests_in_flight(
    tmp_path: Path, behaviour: str, reason: str, concurrency: int | None
) -> None:
    with (
        running_server(tmp_path, answers=ANSWERS, behaviour=f"{behaviour}@4") as url,
        pytest.raises(RunFailed) as failure,
    ):
        ask(tmp_path, url, concurrency=concurrency, batch_size=2, request_timeout_s=0.5)
    assert failure.value.reason == reason


@pytest.mark.parametrize("concurrency", [1, 3, None])
def test_refused_question_costs_itself_alone_in_company_too(tmp_path: Path, concurrency: int | None) -> None:
    answers = {**ANSWERS, QUESTIONS[7].prompt: "REFUSE"}
    with running_server(tmp_path, answers=answers, behaviour="refuse") as url:
        got, _ = ask(tmp_path, url, concurrency=concurrency, batch_size=3)
    assert {q.prompt for q in QUESTIONS if got[q.key].failure} == {QUESTIONS[7].prompt}


@pytest.mark.parametrize("concurrency", [1, None])
def test_a_server_that_says_how_long_to_wait_is_left_alone_for_so_long(tmp_path: Path, concurrency: int | None) -> None:
    """The policy's own pauses would have been over after 30 ms, and the questions lost."""
    with running_server(tmp_path, answers=ANSWERS, behaviour="wait@3") as url:
        answers, facts = ask(tmp_path, url, concurrency=concurrency)
    assert {q.prompt: answers[q.key].text for q in QUESTIONS} == ANSWERS
    assert 1 <= facts.retries <= 4


def test_the_deadline_holds_while_a_server_asks_for_patience(tmp_path: Path) -> None:
    with (
        running_server(tmp_path, answers=ANSWERS, behaviour="wait_for_ever@3") as url,
        pytest.raises(RunFailed, match="after 0 of 20 questions") as failure,
    ):
        ask(tmp_path, url, deadline_s=1.0)
    assert failure.value.reason == "time_limit"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", 0.0),
        ("7", 7.0),
        ("-7", 0.0),
        ("1e9", 0.0),
        ("9" * 5000, 999_999_999.0),
        ("\u0667", 0.0),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30.0),
        ("Tue, 99 Nov 2026 12:00:30 GMT", 0.0),
        ("soon", 0.0),
    ],
)
def test_retry_after(header: str, seconds: float) -> None:
    assert retry_after_s(header, now=datetime(2026, 11, 24, 12, tzinfo=UTC)) == seconds


def test_every_answered_request_has_a_latency_also_one_for_several_questions(tmp_path: Path) -> None:
    with running_server(tmp_path, answers=ANSWERS, delay_s=0.05) as url:
        answers, facts = ask(tmp_path, url)
    assert len(facts.latencies_s) == 4
    assert min(facts.latencies_s) >= 0.05
    assert {answer.latency_s for answer in answers.values()} == set(facts.latencies_s)
