"""Asks all batches: bounded concurrency, one deadline, every finished batch in the journal at once.

Batches start in the order of the plan, as many at a time as the limit allows; the next one is taken up when one is
finished, so nothing piles up here. What fails in company is asked again alone, question by question, with nothing else
in flight: whatever the server's load did, only a fault that a question meets by itself counts.

Three ways to end early, each a verdict on the whole run: the server is gone (`crashed`), it stopped answering
(`time_limit`), or so many answers are unusable that the score would say nothing (`protocol_error`).
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tiltyard_eval.adapters import Adapter, Post, clip
from tiltyard_eval.errors import AnswerFault, RunFailed, Unreachable
from tiltyard_eval.http_client import HttpClient
from tiltyard_eval.in_flight import Gate, Limit, Ticket
from tiltyard_eval.journal import Journal
from tiltyard_eval.questions import Answer, AnyQuestion, Batch, Question, ScoringQuestion
from tiltyard_eval.retry import Poster, RetryPolicy

_HEALTH_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class AskLimits:
    """When to stop asking.

    Args:
        in_flight: How many requests may be open at once.
        deadline_at: Clock time (`time.monotonic`) at which the run is over, or None.
        max_fault_share: Share of the questions (0..1) that may go unanswered before the run fails as a whole.
        max_losses_in_a_row: Requests that may get no complete answer, none succeeding in between, before the server
            counts as hung or gone.
    """

    in_flight: Limit
    deadline_at: float | None
    max_fault_share: float
    max_losses_in_a_row: int = 3


@dataclass(frozen=True)
class Asked:
    """What became of a batch: an answer for each question, and the seconds that each answered request took."""

    answers: Sequence[Answer]
    latencies_s: Sequence[float]


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
        self._gate = Gate(limits.in_flight)
        self.answers: dict[str, Answer] = {}
        self.latencies_s: list[float] = []

    async def ask_all(self, batches: Sequence[Batch], finished: Mapping[str, Asked]) -> None:
        """Fill `answers` for every question of `batches`, and `latencies_s`.

        What is in `finished`, by the batch's key, is not asked again.

        Raises:
            RunFailed: See the module's docstring.
        """
        self._total = sum(len(batch.questions) for batch in batches)
        pending = [batch for batch in batches if batch.key not in finished]
        for batch in batches:
            if batch.key in finished:
                self._take(batch, finished[batch.key])
        self._on_progress(len(self.answers), self._total)
        try:
            async with asyncio.timeout_at(self._loop_deadline()):
                await self._start_in_order(pending)
        except TimeoutError as error:
            done = len(self.answers)
            raise RunFailed(
                "time_limit", f"The time limit was reached after {done} of {self._total} questions."
            ) from error

    async def _start_in_order(self, pending: Sequence[Batch]) -> None:
        failure: RunFailed | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for batch in pending:
                    group.create_task(self._finish(batch, await self._gate.enter()))
        except* RunFailed as errors:
            failure = _first(errors)
        # Outside of except*, within which Python 3.11.2 wraps what is raised in a group again.
        if failure is not None:
            raise failure

    def _loop_deadline(self) -> float | None:
        if self._limits.deadline_at is None:
            return None
        return asyncio.get_running_loop().time() + self._limits.deadline_at - time.monotonic()

    async def _finish(self, batch: Batch, ticket: Ticket) -> None:
        asked = await self._ask(batch.questions, ticket)
        self._journal.append(
            {
                "type": "batch",
                "key": batch.key,
                "answers": [_answer_entry(answer) for answer in asked.answers],
                "latencies_s": asked.latencies_s,
            }
        )
        self._take(batch, asked)
        self._on_progress(len(self.answers), self._total)

    def _take(self, batch: Batch, asked: Asked) -> None:
        self.latencies_s += asked.latencies_s
        for question, answer in zip(batch.questions, asked.answers, strict=True):
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

    async def _ask(self, questions: Sequence[AnyQuestion], ticket: Ticket) -> Asked:
        """The answers to one batch; when that fails, to its questions one by one."""
        started = time.monotonic()
        try:
            return await self._request(questions, ticket)
        except AnswerFault as fault:
            if len(questions) == 1 and not ticket.had_company:
                return Asked([Answer("", fault.kind, _since(started))], [])
        finally:
            await self._gate.leave(ticket)
        async with self._gate.alone() as ticket_alone:
            each = [await self._ask_alone(question, ticket_alone) for question in questions]
        return Asked([one.answers[0] for one in each], [latency_s for one in each for latency_s in one.latencies_s])

    async def _ask_alone(self, question: AnyQuestion, ticket: Ticket) -> Asked:
        started = time.monotonic()
        try:
            return await self._request([question], ticket)
        except AnswerFault as fault:
            return Asked([Answer("", fault.kind, _since(started))], [])

    async def _request(self, questions: Sequence[AnyQuestion], ticket: Ticket) -> Asked:
        limit = self._limits.in_flight
        post = Poster(self._client, self._retry, limit.overloaded)
        sent_at = time.monotonic()
        try:
            answers = await self._answers(questions, post)
        except AnswerFault as fault:
            if fault.kind == "timeout":
                limit.overloaded(sent_at)
            if not ticket.had_company:
                await self._count_loss(fault)
            raise
        limit.answered(sent_at, len(questions))
        self._losses_in_a_row = 0
        latency_s = round(sum(post.latencies_s), 4)
        return Asked([replace(answer, latency_s=latency_s) for answer in answers], post.latencies_s)

    async def _answers(self, questions: Sequence[AnyQuestion], post: Post) -> list[Answer]:
        """Ask questions of equal company in one go; their latencies are not set."""
        first = questions[0]
        if isinstance(first, ScoringQuestion):
            pairs = [_scored_pair(question) for question in questions if isinstance(question, ScoringQuestion)]
            scored = await self._adapter.score(post, pairs, self._seed)
            return [Answer("", None, 0.0, one.logprob, one.is_greedy) for one in scored]
        seed = self._seed + first.repeat
        if first.chat:
            texts = [await self._adapter.chat(post, json.loads(first.prompt), first.settings, seed)]
        else:
            prompts = [question.prompt for question in questions if isinstance(question, Question)]
            texts = await self._adapter.generate(post, prompts, first.settings, seed)
        return [Answer(clip(text, first.settings), None, 0.0) for text in texts]

    async def _check_alive(self, fault: Unreachable) -> None:
        if await self._client.status_of("/health", timeout_s=_HEALTH_TIMEOUT_S) is None:
            raise RunFailed(
                "crashed", f"The server was ready but stopped answering and did not come back: {fault.message}."
            ) from fault

    async def _count_loss(self, fault: AnswerFault) -> None:
        if isinstance(fault, Unreachable):
            await self._check_alive(fault)
        if fault.kind not in {"timeout", "connection"}:
            self._losses_in_a_row = 0
            return
        self._losses_in_a_row += 1
        if self._losses_in_a_row >= self._limits.max_losses_in_a_row:
            raise RunFailed(
                "time_limit" if fault.kind == "timeout" else "crashed",
                f"{self._losses_in_a_row} requests in a row got no complete answer; of the last one, {fault.message}.",
            ) from fault


def finished_batches(entries: Sequence[dict[str, Any]]) -> dict[str, Asked]:
    """The batches that a journal holds, by key."""
    return {
        entry["key"]: Asked([Answer(**row) for row in entry["answers"]], entry["latencies_s"])
        for entry in entries
        if entry["type"] == "batch"
    }


def _answer_entry(answer: Answer) -> dict[str, Any]:
    entry: dict[str, Any] = {"text": answer.text, "failure": answer.failure, "latency_s": answer.latency_s}
    if answer.logprob is not None:
        entry |= {"logprob": answer.logprob, "is_greedy": answer.is_greedy}
    return entry


def _scored_pair(question: ScoringQuestion) -> tuple[str, str]:
    """Spaces at the context's end go to the continuation, as in lm-eval: tokenizers join them to the next word."""
    context = question.context.rstrip()
    return context, question.context[len(context) :] + question.continuation


def _since(started: float) -> float:
    return round(time.monotonic() - started, 4)


def _first(group: BaseExceptionGroup[RunFailed]) -> RunFailed:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
