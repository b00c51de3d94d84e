"""One evaluation from first to last: prepare, ask, score, write; or continue a killed one from its journal."""

import contextlib
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

from tiltyard_eval.config import JOURNAL_FILE, LM_EVAL_FOLDER, RESULT_FILE, SAMPLES_FILE, RunConfig, RunFacts
from tiltyard_eval.errors import Cancelled, RunFailed
from tiltyard_eval.files import write_json, write_jsonl
from tiltyard_eval.harness import Evaluation, evaluate_suite
from tiltyard_eval.journal import SCHEMA, Journal, JournalError
from tiltyard_eval.lm_eval_files import write_lm_eval_files
from tiltyard_eval.outcome import failed_result, scored_result
from tiltyard_eval.progress import Reporter
from tiltyard_eval.questions import Answer, AnyQuestion
from tiltyard_eval.results import Result
from tiltyard_eval.session import Session
from tiltyard_eval.suite import Suite, SuiteError, load_suite

# lm-eval's filters and metrics run over text that the submission wrote. They take seconds; much more means that a
# text was made to keep a regular expression busy.
SCORING_LIMIT_S: Final = 45.0


class _ScoringTimeout(KeyboardInterrupt):
    """Scoring took too long. A KeyboardInterrupt, so that no library's `except Exception` holds it up."""


def start(config: RunConfig, out: Path, reporter: Reporter) -> Result:
    """Run an evaluation and write its files into `out`.

    Raises:
        JournalError: `out` holds a run already.
        OSError: `out` is not writable.
    """
    out.mkdir(parents=True, exist_ok=True)
    with Journal(out / JOURNAL_FILE, fresh=True) as journal:
        return _run(config, out, journal, reporter)


def resume(out: Path, reporter: Reporter, overrides: Mapping[str, Any]) -> Result:
    """Continue the evaluation in `out`; `overrides` replaces settings that leave the score alone (URL, paths, limits).

    Raises:
        JournalError: `out` holds no run, or another version of the journal.
        OSError: `out` is not writable.
    """
    with Journal(out / JOURNAL_FILE, fresh=False) as journal:
        header = journal.entries[0]
        if header.get("schema") != SCHEMA:
            raise JournalError(f"the journal in {out} was not written by this version; start again in another folder")
        return _run(replace(RunConfig(**header["config"]), **overrides), out, journal, reporter)


def _run(config: RunConfig, out: Path, journal: Journal, reporter: Reporter) -> Result:
    """Evaluate, and write a result whatever happens."""
    facts = RunFacts()
    suite: Suite | None = None
    evaluation: Evaluation | None = None
    try:
        with _stop_signals():
            suite = load_suite(Path(config.suite), trusted=config.trust_suite)
            _check_network(config, suite)
            _check_header(journal, config, suite)
            evaluation = _evaluate(suite, Session(config, journal, facts, reporter), reporter)
            result = scored_result(config, suite, evaluation, facts)
    except BaseException as error:  # the boundary: whatever goes wrong becomes a result
        result = failed_result(config, suite, _failure_of(error), facts)
    if evaluation is not None:
        write_jsonl(out / SAMPLES_FILE, (asdict(item) for item in evaluation.items))
        if config.lm_eval_files:
            write_lm_eval_files(out / LM_EVAL_FOLDER, evaluation.document)
    write_json(out / RESULT_FILE, result.to_json())
    return result


def _failure_of(error: BaseException) -> RunFailed:
    """What an error means for the run; raises it again where it means nothing, such as a second Ctrl-C."""
    if isinstance(error, RunFailed):
        return error
    if isinstance(error, SuiteError):
        return RunFailed("infra_error", f"The suite is not usable: {error}")
    if isinstance(error, Cancelled):
        return RunFailed("cancelled", "The evaluation was stopped from outside. `resume` continues it.")
    if isinstance(error, Exception):
        return _internal_error(error)  # whatever goes wrong in our code is reported as ours
    raise error


def _check_network(config: RunConfig, suite: Suite) -> None:
    if suite.network and not config.allow_network:
        raise RunFailed(
            "infra_error", "The suite reads its data from a hub. Allow it with --allow-network, if that is wanted."
        )


def _check_header(journal: Journal, config: RunConfig, suite: Suite) -> None:
    if not journal.entries:
        journal.append(
            {"type": "header", "schema": SCHEMA, "suite_sha256": suite.sha256, "config": asdict(config)},
        )
    elif journal.entries[0]["suite_sha256"] != suite.sha256:
        raise RunFailed("infra_error", "The suite is not the one that the journal was begun with.")


def _evaluate(suite: Suite, session: Session, reporter: Reporter) -> Evaluation:
    def ask(questions: Sequence[AnyQuestion]) -> Mapping[str, Answer]:
        session.prepare({question.kind for question in questions})
        answers = session.ask(questions)
        reporter.stage("scoring")
        signal.setitimer(signal.ITIMER_REAL, SCORING_LIMIT_S)
        return answers

    try:
        return evaluate_suite(suite, ask)
    except _ScoringTimeout as error:
        raise RunFailed(
            "time_limit", f"Scoring the answers took more than {SCORING_LIMIT_S:g} s; the texts are not honest answers."
        ) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _internal_error(error: Exception) -> RunFailed:
    """Describe a fault of ours. Its text stays out: it may quote a question or a gold answer."""
    sys.stderr.writelines(traceback.format_tb(error.__traceback__))
    detail = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return RunFailed("infra_error", f"Internal error of the evaluator ({type(error).__name__}{detail}).")


@contextlib.contextmanager
def _stop_signals() -> Iterator[None]:
    """Within the block, SIGTERM and SIGINT raise `Cancelled` and SIGALRM `_ScoringTimeout`, at any point."""

    def cancel(_signum: int, _frame: FrameType | None) -> None:
        raise Cancelled

    def scoring_timeout(_signum: int, _frame: FrameType | None) -> None:
        raise _ScoringTimeout

    handlers = {signal.SIGTERM: cancel, signal.SIGINT: cancel, signal.SIGALRM: scoring_timeout}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
