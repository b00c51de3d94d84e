"""The conversation with one server: readiness, probe and questions, each step remembered in the journal."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from tiltyard_eval.adapters import Adapter, make_adapter
from tiltyard_eval.adapters.openai import OpenAIAdapter
from tiltyard_eval.config import RunConfig, RunFacts
from tiltyard_eval.errors import RunFailed
from tiltyard_eval.http_client import HttpClient, HttpLimits
from tiltyard_eval.in_flight import MOST_IN_FLIGHT, AdaptiveLimit, FixedLimit, Limit
from tiltyard_eval.journal import Journal
from tiltyard_eval.probe import Batches, probe, wait_until_ready
from tiltyard_eval.progress import Reporter
from tiltyard_eval.questions import (
    GENERATE,
    LOGLIKELIHOOD,
    Answer,
    AnyQuestion,
    Batch,
    Question,
    ScoringQuestion,
    plan_batches,
)
from tiltyard_eval.retry import Poster, RetryPolicy
from tiltyard_eval.scheduler import AskLimits, Scheduler, finished_batches


class Session:
    """Asks a server on behalf of one run.

    Args:
        config: The run's settings.
        journal: Open; what it holds is not asked again.
        facts: Filled in on the way.
        reporter: Told of stages and progress.
        retry: Pauses between tries; the default waits some six seconds in all.
    """

    def __init__(
        self,
        config: RunConfig,
        journal: Journal,
        facts: RunFacts,
        reporter: Reporter,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._config = config
        self._journal = journal
        self._facts = facts
        self._reporter = reporter
        self._adapter: Adapter = make_adapter(config.adapter)
        if isinstance(self._adapter, OpenAIAdapter):
            self._adapter.context_tokens = config.context_tokens
        self._retry = retry or RetryPolicy()
        self._ready = False
        self._deadline_at: float | None = None  # on the clock of time.monotonic; set when the server is ready
        self._batches: Batches = {}

    def prepare(self, kinds: Iterable[str] = (GENERATE,)) -> None:
        """Wait for the server and probe it for these kinds of questions, unless the journal shows that this was done.

        Raises:
            RunFailed: `start_timeout`, `protocol_error`, `crashed` or `time_limit`.
        """
        for entry in self._journal.entries:
            if entry["type"] == "probe":
                self._adapter.restore(entry["server"])
                self._adopt(entry["batches"])
                return
        asyncio.run(self._wait_and_probe(kinds))

    def ask(self, questions: Sequence[AnyQuestion]) -> Mapping[str, Answer]:
        """Answers to the questions, which are of the kinds that were prepared, from the journal and from the server.

        Raises:
            RunFailed: See `scheduler`; also when a text is to be scored from its start and the server cannot.
        """
        if not questions:
            return {}
        self._check_starts(questions)
        self._check_settings(questions)
        sizes = {kind: self._config.batch_size if several else 1 for kind, several in self._batches.items()}
        return asyncio.run(self._ask(plan_batches(questions, seed=self._config.seed, batch_sizes=sizes)))

    def _check_starts(self, questions: Sequence[AnyQuestion]) -> None:
        if self._adapter.starts_texts:
            return
        if any(isinstance(question, ScoringQuestion) and not question.context.strip() for question in questions):
            raise RunFailed(
                "protocol_error",
                "The suite scores texts from their start, but the server neither puts a start token before a text nor "
                "names one, so the first token has no log-probability. Let the server add one, or let "
                "GET /tokenizer_info answer with its bos_token or eos_token. No question was asked.",
            )

    def _check_settings(self, questions: Sequence[AnyQuestion]) -> None:
        if self._adapter.support.extra_settings:
            return
        names = sorted({name for one in questions if isinstance(one, Question) for name, _ in one.settings.extra})
        if names:
            raise RunFailed(
                "infra_error",
                f"The suite asks for generation settings that the adapter {self._adapter.name!r} cannot send: "
                f"{', '.join(names)}.",
            )

    async def _wait_and_probe(self, kinds: Iterable[str]) -> None:
        async with self._client() as client:
            await self._wait(client)
            self._reporter.stage("probing")
            batches = await self._probe(client, kinds)
        self._check_context(batches)
        self._journal.append({"type": "probe", "batches": dict(batches), "server": self._adapter.state()})
        self._adopt(batches)

    def _check_context(self, batches: Batches) -> None:
        """A length that was asked for must be one by which texts can be cut."""
        wanted = self._config.context_tokens
        if wanted is None or (LOGLIKELIHOOD not in batches and isinstance(self._adapter, OpenAIAdapter)):
            return
        if not isinstance(self._adapter, OpenAIAdapter) or self._adapter.context_tokens != wanted:
            raise RunFailed(
                "infra_error",
                "--context-tokens needs the adapter 'openai' and a server that has POST /tokenize, names a start token "
                "at GET /tokenizer_info, and takes token numbers as a prompt. Leave the option out, and texts that are "
                "too long are the server's to refuse.",
            )

    async def _wait(self, client: HttpClient) -> None:
        self._reporter.stage("waiting")
        await wait_until_ready(client, self._adapter, self._config.start_timeout_s)
        self._ready = True
        if self._config.deadline_s is not None:
            self._deadline_at = time.monotonic() + self._config.deadline_s

    async def _probe(self, client: HttpClient, kinds: Iterable[str]) -> Batches:
        try:
            async with asyncio.timeout(self._config.deadline_s):
                return await probe(client, self._adapter, Poster(client, self._retry), kinds, self._config.seed)
        except TimeoutError as error:
            limit_s = self._config.deadline_s
            raise RunFailed(
                "time_limit",
                f"The time limit of {limit_s:g} s was reached before the first question: "
                "the server had not yet answered all trial requests.",
            ) from error

    async def _ask(self, batches: Sequence[Batch]) -> Mapping[str, Answer]:
        finished = finished_batches(self._journal.entries)
        async with self._client() as client:
            if not self._ready and any(batch.key not in finished for batch in batches):
                await self._wait(client)
            self._reporter.stage("asking")
            scheduler = self._scheduler(client)
            try:
                await scheduler.ask_all(batches, finished)
            finally:
                self._facts.latencies_s += scheduler.latencies_s
        return scheduler.answers

    def _limit(self) -> Limit:
        if self._config.concurrency is not None:
            return FixedLimit(self._config.concurrency)
        return AdaptiveLimit(self._config.request_timeout_s)

    def _scheduler(self, client: HttpClient) -> Scheduler:
        return Scheduler(
            client=client,
            adapter=self._adapter,
            retry=self._retry,
            journal=self._journal,
            limits=AskLimits(
                in_flight=self._limit(),
                deadline_at=self._deadline_at,
                max_fault_share=self._config.max_fault_share,
            ),
            seed=self._config.seed,
            on_progress=self._reporter.progress,
        )

    def _adopt(self, batches: Batches) -> None:
        self._batches = batches
        self._facts.execution_mode = execution_mode(batches, self._config.batch_size, self._config.concurrency)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[HttpClient]:
        limits = HttpLimits(request_timeout_s=self._config.request_timeout_s)
        connections = (self._config.concurrency or MOST_IN_FLIGHT) + 1
        async with HttpClient(self._config.url, limits, connections=connections) as client:
            try:
                yield client
            finally:
                self._facts.requests += client.requests
                self._facts.retries = self._retry.used


def execution_mode(batches: Batches, batch_size: int, concurrency: int | None) -> str:
    """How the questions travel; part of a result's identity.

    `batched-N`: up to N questions in a request, composed by the seed alone. `concurrent-N`: N requests in flight;
    `adaptive`: as many as the server can take. `sequential`: one question after the other. Kinds of questions that
    travel differently are listed as `generate:batched-16+adaptive,loglikelihood:adaptive`.
    """
    modes = {kind: _mode(batch_size if several else 1, concurrency) for kind, several in sorted(batches.items())}
    if len(set(modes.values())) == 1:
        return next(iter(modes.values()))
    return ",".join(f"{kind}:{mode}" for kind, mode in modes.items())


def _mode(batch_size: int, concurrency: int | None) -> str:
    parts = [f"batched-{batch_size}"] if batch_size > 1 else []
    if concurrency is None:
        parts.append("adaptive")
    elif concurrency > 1:
        parts.append(f"concurrent-{concurrency}")
    return "+".join(parts) or "sequential"
