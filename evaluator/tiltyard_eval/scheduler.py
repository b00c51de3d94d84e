"""Asks all batches: bounded concurrency, one deadline, every finished request in the journal at once.

Three ways to end early, each a verdict on the whole run: the server is gone (`crashed`), it stopped answering
(`time_limit`), or so many answers are unusable that the score would say nothing (`protocol_error`).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiltyard_eval.adapters import Adapter, clip
from tiltyard_eval.errors import AnswerFault, RunFailed, Unreachable
from tiltyard_eval.http_client import HttpClient
from tiltyard_eval.journal import Journal
from tiltyard_eval.questions import Answer, Batch, Question
from tiltyard_eval.retry import RetryPolicy, fetch_with_retry

_HEALTH_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class AskLimits:
    """When to stop asking.

    Args:
        in_flight: Requests open at once.
        deadline_at: Clock time (`time.monotonic`) at which the run is over, or None.
        max_fault_share: Share of the questions (0..1) that may go unanswered before the run fails as a whole.
        max_losses_in_a_row: Requests that may get no complete answer, none succeeding in between, before the server
            counts as hung or gone.
    """

    in_flight: int
    deadline_at: float | None
    max_fault_share: float
    max_losses_in_a_row: int = 3


class Scheduler:
    """Asks what the journal does not answer yet, and collects all answers by question key."""

    def __init__(
        self,
        *,
        client: HttpClient,
        adapter: Adapter,
        retry: RetryPolicy,
        journal: Journal,
        limits: AskLimits,
        seed: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._client = client
        self._adapter = adapter
        self._retry = retry
        self._journal = journal
        self._limits = limits
        self._seed = seed
        self._on_progress = on_progress
        self._total = 0
        self._faults: Counter[str] = Counter()
        self._losses_in_a_row = 0
        self.answers: dict[str, Answer] = {}

    async def ask_all(self, batches: Sequence[Batch], finished: Mapping[int, Sequence[Answer]]) -> None:
        """Fill `answers` for every question of `batches`; those in `finished`, by index, are not asked again.

        Raises:
            RunFailed: See the module's docstring.
        """
        self._total = sum(len(batch.questions) for batch in batches)
        pending = [batch for batch in batches if batch.index not in finished]
        for batch in batches:
            if batch.index in finished:
                self._take(batch, finished[batch.index])
        self._on_progress(len(self.answers), self._total)
        try:
            async with asyncio.timeout_at(self._loop_deadline()):
                await self._run_workers(pending)
        except TimeoutError as error:
            done = len(self.answers)
            raise RunFailed(
                "time_limit", f"The time limit was reached after {done} of {self._total} questions."
            ) from error

    async def _run_workers(self, pending: Sequence[Batch]) -> None:
        queue = iter(pending)
        failure: RunFailed | None = None
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._limits.in_flight, len(pending))):
                    workers.create_task(self._work(queue))
        except* RunFailed as group:
            failure = _first(group)
        # Outside of except*, within which Python 3.11.2 wraps what is raised in a group again.
        if failure is not None:
            raise failure

    def _loop_deadline(self) -> float | None:
        if self._limits.deadline_at is None:
            return None
        return asyncio.get_running_loop().time() + self._limits.deadline_at - time.monotonic()

    async def _work(self, queue: Iterator[Batch]) -> None:
        for batch in queue:
            answers = await self._ask(batch.questions)
            self._journal.append(
                {"type": "batch", "index": batch.index, "answers": [_answer_entry(answer) for answer in answers]}
            )
            self._take(batch, answers)
            self._on_progress(len(self.answers), self._total)

    def _take(self, batch: Batch, answers: Sequence[Answer]) -> None:
        for question, answer in zip(batch.questions, answers, strict=True):
            self.answers[question.key] = answer
            if answer.failure is not None:
                self._faults[answer.failure] += 1
        if self._faults.total() > self._limits.max_fault_share * self._total:
            raise self._too_many_faults()

    def _too_many_faults(self) -> RunFailed:
        kind, _ = self._faults.most_common(1)[0]
        counts = ", ".join(f"{kind}: {count}" for kind, count in sorted(self._faults.items()))
        share = f"{self._limits.max_fault_share:.0%}"
        return RunFailed(
            "time_limit" if kind == "timeout" else "protocol_error",
            f"More than {share} of the {self._total} questions got no usable answer ({counts}).",
        )

    async def _ask(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers to one batch; a batch that fails is asked again question by question."""
        if len(questions) > 1:
            try:
                return await self._request(questions)
            except AnswerFault:
                return [answer for question in questions for answer in await self._ask([question])]
        started = time.monotonic()
        try:
            return await self._request(questions)
        except AnswerFault as fault:
            return [Answer("", fault.kind, _since(started))]

    async def _request(self, questions: Sequence[Question]) -> list[Answer]:
        settings = questions[0].settings
        body = self._adapter.body([question.prompt for question in questions], settings, self._seed)
        started = time.monotonic()
        try:
            answer = await fetch_with_retry(self._client, self._adapter.path, body, self._retry)
            texts = self._adapter.texts(answer, len(questions))
        except Unreachable as fault:
            await self._check_alive(fault)
            self._count_loss(fault)
            raise
        except AnswerFault as fault:
            self._count_loss(fault)
            raise
        self._losses_in_a_row = 0
        return [Answer(clip(text, settings), None, _since(started)) for text in texts]

    async def _check_alive(self, fault: Unreachable) -> None:
        if await self._client.status_of("/health", timeout_s=_HEALTH_TIMEOUT_S) is None:
            raise RunFailed(
                "crashed", f"The server was ready but stopped answering and did not come back: {fault.message}."
            ) from fault

    def _count_loss(self, fault: AnswerFault) -> None:
        if fault.kind not in {"timeout", "connection"}:
            self._losses_in_a_row = 0
            return
        self._losses_in_a_row += 1
        if self._losses_in_a_row >= self._limits.max_losses_in_a_row:
            raise RunFailed(
                "time_limit" if fault.kind == "timeout" else "crashed",
                f"{self._losses_in_a_row} requests in a row got no complete answer; of the last one, {fault.message}.",
            ) from fault


def finished_batches(entries: Sequence[dict[str, Any]]) -> dict[int, list[Answer]]:
    """The batches that a journal holds, by index."""
    return {
        entry["index"]: [Answer(row["text"], row["failure"], row["latency_s"]) for row in entry["answers"]]
        for entry in entries
        if entry["type"] == "batch"
    }


def _answer_entry(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "failure": answer.failure, "latency_s": answer.latency_s}


def _since(started: float) -> float:
    return round(time.monotonic() - started, 4)


def _first(group: BaseExceptionGroup[RunFailed]) -> RunFailed:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
