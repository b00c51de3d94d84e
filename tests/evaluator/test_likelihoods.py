"""Log-likelihoods: faults and constants never pay, the probe says what is missing, what is asked holds no more."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import toy_model as toy
from eval_suites import RecordingReporter, read_samples
from likelihood_server import CHOICE_FAULTS, ECHO_FAULTS, LIST_FAULTS, TOKEN_FAULTS, toy_server
from likelihood_suites import CHOICES, ITEMS, make_likelihood_suite

from tiltyard_eval.config import RunConfig, RunFacts
from tiltyard_eval.errors import RunFailed
from tiltyard_eval.journal import Journal
from tiltyard_eval.questions import LOGLIKELIHOOD, ScoringQuestion
from tiltyard_eval.results import Result
from tiltyard_eval.retry import RetryPolicy
from tiltyard_eval.runner import start
from tiltyard_eval.session import Session
from tiltyard_eval.suite import Suite, SuiteError, load_suite

ALL_TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")
NATIVE_FAULTS = (
    "nan",
    "infinite",
    "overflow",
    "positive",
    "null",
    "text",
    "true",
    "no_logprob",
    "no_greedy",
    "no_tokens",
)
OPENAI_FAULTS = sorted((CHOICE_FAULTS.keys() | LIST_FAULTS.keys() | {"no_usage"}) - set(NATIVE_FAULTS[7:]))


def run(folder: Path, suite: Suite, url: str, adapter: str = "openai", **settings: object) -> Result:
    config = RunConfig(url=url, adapter=adapter, suite=str(suite.root), **settings)  # type: ignore[arg-type]
    return start(config, folder / "out", RecordingReporter())


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return make_likelihood_suite(tmp_path_factory.mktemp("scored") / "suite")


@pytest.mark.parametrize("adapter", ["openai", "native", "neurips2023"])
def test_items_get_the_model_s_own_numbers(tmp_path: Path, adapter: str) -> None:
    suite = make_likelihood_suite(tmp_path / "suite", types=ALL_TYPES)
    with toy_server(tmp_path) as url:
        result = run(tmp_path, suite, url, adapter)
    assert result.failure is None
    tasks = {task.name: task for task in result.tasks}
    assert 0 < tasks["multiple_choice"].score < 1
    for row, item in zip(read_samples(tmp_path / "out"), suite.tasks[0].items, strict=False):
        numbers = {choice: toy.likelihood(item.prompt, f" {choice}")[0] for choice in item.extra["choices"]}
        best = max(numbers, key=lambda choice: numbers[choice])
        assert (row["answer"], row["extracted"]) == (f" {best}", repr(numbers[best]))
        assert row["expected"] == item.answer
        assert row["score"] == float(best == item.answer)
    # A text's score is the probability of a byte, so that more is better and it lies between 0 and 1.
    bits = tasks["loglikelihood_rolling"].metrics["bits_per_byte,none"]
    assert tasks["loglikelihood_rolling"].score == pytest.approx(2**-bits, rel=0.05)
    assert result.execution_mode == ("adaptive" if adapter == "neurips2023" else "batched-16+adaptive")


@pytest.mark.parametrize(
    ("adapter", "behaviour"),
    [
        *(("native", fault) for fault in NATIVE_FAULTS),
        *(("openai", fault) for fault in OPENAI_FAULTS),
        *(("neurips2023", fault) for fault in sorted(TOKEN_FAULTS | ECHO_FAULTS)),
    ],
)
def test_no_fault_pays(tmp_path: Path, suite: Suite, adapter: str, behaviour: str) -> None:
    """The gold answer stands first everywhere, where an unguarded argmax finds it in whatever a broken server says."""
    with toy_server(tmp_path, behaviour) as url:
        result = run(tmp_path, suite, url, adapter)
    if behaviour in ("zero", "constant"):
        assert result.score is not None
        assert result.score.value == pytest.approx(1 / CHOICES)
        assert result.tasks[0].ties == ITEMS
        assert result.tasks[0].metrics["acc,none"] == 1.0  # what lm-eval makes of it
    elif behaviour in LIST_FAULTS and adapter != "neurips2023":
        # Wrong only where several questions share a request; reversed choices still have their index.
        assert result.failure is None or result.failure.reason == "protocol_error"
        if result.failure is None:
            right = [toy.likelihood(item.prompt, f" {item.answer}")[0] for item in suite.tasks[0].items]
            rows = read_samples(tmp_path / "out")
            assert all(row["score"] == 0 or row["extracted"] == repr(n) for row, n in zip(rows, right, strict=True))
    else:
        assert result.failure is not None
        assert result.failure.reason == "protocol_error"
        assert "log-likelihoods, which the suite needs" in result.failure.message
        assert "No question was asked" in result.failure.message


@pytest.mark.parametrize("adapter", ["openai", "native"])
def test_item_with_a_fault_scores_nothing_and_its_task_shows_no_metrics(tmp_path: Path, adapter: str) -> None:
    suite = make_likelihood_suite(tmp_path / "suite")
    with toy_server(tmp_path, "refuse=Say 3: 4") as url:  # a wrong choice: without it the right one would win
        result = run(tmp_path, suite, url, adapter)
    assert result.failure is None
    (task,) = result.tasks
    assert task.item_failures == {"http_status": 1}
    assert task.metrics == {}
    row = read_samples(tmp_path / "out")[3]
    assert (row["score"], row["failure"]) == (0.0, "http_status")


@pytest.mark.parametrize(
    ("adapter", "behaviour", "words"),
    [
        ("openai", "generated_only", '"usage" counts'),
        ("openai", "no_usage", 'the answer has no "usage"'),
        ("openai", "no_tops", 'a list "top_logprobs"'),
        ("openai", "positive", '"token_logprobs" is positive'),
        ("openai", "only_2023", "has no page /health"),
        ("native", "no_greedy", '"is_greedy" (true or false)'),
        ("native", "infinite", "not valid JSON"),
        ("neurips2023", "sample_echo", "the prompt's own tokens are missing"),
    ],
)
def test_the_probe_says_what_the_server_lacks(
    tmp_path: Path, suite: Suite, adapter: str, behaviour: str, words: str
) -> None:
    with toy_server(tmp_path, behaviour) as url:
        result = run(tmp_path, suite, url, adapter, start_timeout_s=1.0)
    assert result.failure is not None
    assert words in result.failure.message


def test_numbers_that_overflow_a_metric_are_the_server_s_fault(tmp_path: Path) -> None:
    suite = make_likelihood_suite(tmp_path / "suite", types=("loglikelihood",))
    with toy_server(tmp_path, "abyss") as url:
        result = run(tmp_path, suite, url, "native")
    assert result.failure is not None
    assert result.failure.reason == "protocol_error"
    assert "so low" in result.failure.message


def test_text_without_a_start_token_is_refused_in_words(tmp_path: Path) -> None:
    suite = make_likelihood_suite(tmp_path / "suite", types=("loglikelihood_rolling",))
    with toy_server(tmp_path, "no_start") as url:
        result = run(tmp_path, suite, url)
    assert result.failure is not None
    assert result.failure.reason == "protocol_error"
    assert "GET /tokenizer_info" in result.failure.message


def test_images_of_2023_need_no_health_page(tmp_path: Path) -> None:
    suite = make_likelihood_suite(tmp_path / "suite", types=("generate_until",))
    with toy_server(tmp_path, "only_2023", log=tmp_path / "log") as url:
        result = run(tmp_path, suite, url, "neurips2023")
    assert result.failure is None
    requests = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {request["path"] for request in requests} == {"/process"}
    assert {(request["top_k"], request["temperature"], request["echo_prompt"]) for request in requests} == {
        (1, 1e-7, False)
    }
    assert all("\n" not in row["answer"] for row in read_samples(tmp_path / "out"))  # the API has no stop strings


@pytest.mark.parametrize("adapter", ["openai", "native", "neurips2023"])
@pytest.mark.parametrize("bos", [False, True])
def test_tokens_across_the_border_count_for_the_context(tmp_path: Path, adapter: str, bos: bool) -> None:
    """Where lm-eval cuts, but of the whole text: its own client would ask for one that lost the letters in between."""
    pairs = [("Within a wor", "ding"), ("Größe", "nwahn"), ("日", "本 "), ("an end ", " \n of"), ("", "Start of it")]
    questions = [ScoringQuestion(*pair) for pair in pairs]
    with toy_server(tmp_path, bos=bos) as url, Journal(tmp_path / "journal.jsonl", fresh=True) as journal:
        config = RunConfig(url=url, adapter=adapter, suite="", concurrency=4, start_timeout_s=5)
        session = Session(config, journal, RunFacts(), RecordingReporter(), RetryPolicy(pauses_s=(0.01,)))
        session.prepare([LOGLIKELIHOOD])
        answers = session.ask(questions)
    for question in questions:
        logprob, is_greedy, _ = toy.likelihood(question.context, question.continuation)
        assert (answers[question.key].logprob, answers[question.key].is_greedy) == (logprob, is_greedy)


def test_choices_of_one_question_go_together_and_nothing_else_is_sent(tmp_path: Path, suite: Suite) -> None:
    with toy_server(tmp_path, log=tmp_path / "log") as url:
        result = run(tmp_path, suite, url, "native", batch_size=10, concurrency=1)
    assert result.failure is None
    probe, several, *requests = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {"path", "pairs"} == probe.keys() | several.keys()
    contexts = [[context for context, _ in request["pairs"]] for request in requests]
    assert [len(batch) for batch in contexts] == [8] * 5  # two questions of four choices; a third would be torn apart
    assert all(len(set(batch)) == 2 for batch in contexts)
    assert set(requests[0]) == {"path", "pairs"}


def test_all_kinds_of_questions_go_through_one_queue(tmp_path: Path) -> None:
    """lm-eval asks type by type; here they mix in the order of the seed, and are counted together."""
    suite = make_likelihood_suite(tmp_path / "suite", types=ALL_TYPES)
    reporter = RecordingReporter()
    with toy_server(tmp_path, log=tmp_path / "log") as url:
        config = RunConfig(url, "native", str(suite.root), concurrency=1, batch_size=1)
        assert start(config, tmp_path / "out", reporter).failure is None
    asked = [json.loads(line)["path"] for line in (tmp_path / "log").read_text().splitlines()][4:]  # after the probe
    changes = sum(one != other for one, other in pairwise(asked))
    assert {"/v1/generate", "/v1/loglikelihood"} == set(asked)
    assert changes > 5
    assert reporter.stages == ["waiting", "probing", "asking", "scoring"]
    assert reporter.counts[0] == (0, len(asked))
    assert reporter.counts[-1] == (len(asked), len(asked))


def test_a_suite_must_say_that_it_trusts_the_server(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="contains the gold answer"):
        make_likelihood_suite(tmp_path / "suite", trusts_server=False)


def test_two_runs_and_a_resumed_one_agree(tmp_path: Path, suite: Suite) -> None:
    with toy_server(tmp_path) as url:
        first = run(tmp_path / "a", suite, url, "native")
        second = run(tmp_path / "b", suite, url, "native")
    assert first.repro_hash == second.repro_hash
    assert (first.score, first.tasks) == (second.score, second.tasks)
    assert load_suite(suite.root).trusts_server


def test_conversations_need_an_adapter_that_has_them(tmp_path: Path) -> None:
    with toy_server(tmp_path) as url, Journal(tmp_path / "journal.jsonl", fresh=True) as journal:
        config = RunConfig(url=url, adapter="native", suite="", start_timeout_s=5)
        session = Session(config, journal, RunFacts(), RecordingReporter())
        with pytest.raises(RunFailed, match="asks in conversations"):
            session.prepare(["chat"])
