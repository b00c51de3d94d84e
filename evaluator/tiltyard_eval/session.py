"""The conversation with one server: readiness, probe and questions, each step remembered in the journal."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from tiltyard_eval.adapters import Adapter, make_adapter
from tiltyard_eval.config import RunConfig, RunFacts
from tiltyard_eval.errors import RunFailed
from tiltyard_eval.http_client import HttpClient, HttpLimits
from tiltyard_eval.journal import Journal
from tiltyard_eval.probe import Capabilities, probe, wait_until_ready
from tiltyard_eval.progress import Reporter
from tiltyard_eval.questions import Answer, Batch, Question, plan_batches
from tiltyard_eval.retry import RetryPolicy
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
        self._retry = retry or RetryPolicy()
        self._ready = False
        self._deadline_at: float | None = None  # on the clock of time.monotonic; set when the server is ready
        self._capabilities: Capabilities | None = None

    def prepare(self) -> None:
        """Wait for the server and probe it, unless the journal shows that this was done.

        Raises:
            RunFailed: `start_timeout`, `protocol_error`, `crashed` or `time_limit`.
        """
        for entry in self._journal.entries:
            if entry["type"] == "probe":
                self._adapter.model = entry["model"]
                self._adopt(Capabilities(batches=entry["batches"]))
                return
        asyncio.run(self._wait_and_probe())

    def ask(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        """Answers to all questions, from the journal and from the server.

        Raises:
            RunFailed: See `scheduler`.
        """
        assert self._capabilities is not None, "call prepare first"  # noqa: S101 - a programming error
        batches = plan_batches(
            questions,
            seed=self._config.seed,
            batch_size=self._config.concurrency if self._batches() else 1,
        )
        return asyncio.run(self._ask(batches))

    async def _wait_and_probe(self) -> None:
        async with self._client() as client:
            await self._wait(client)
            self._reporter.stage("probing")
            capabilities = await self._probe(client)
        self._journal.append({"type": "probe", "batches": capabilities.batches, "model": self._adapter.model})
        self._adopt(capabilities)

    async def _wait(self, client: HttpClient) -> None:
        self._reporter.stage("waiting")
        await wait_until_ready(client, self._config.start_timeout_s)
        self._ready = True
        if self._config.deadline_s is not None:
            self._deadline_at = time.monotonic() + self._config.deadline_s

    async def _probe(self, client: HttpClient) -> Capabilities:
        try:
            async with asyncio.timeout(self._config.deadline_s):
                return await probe(client, self._adapter, self._retry, self._config.seed)
        except TimeoutError as error:
            raise RunFailed("time_limit", "The time limit was reached before the first question.") from error

    async def _ask(self, batches: Sequence[Batch]) -> Mapping[str, Answer]:
        finished = finished_batches(self._journal.entries)
        async with self._client() as client:
            if not self._ready and len(finished) < len(batches):
                await self._wait(client)
            self._reporter.stage("asking")
            scheduler = self._scheduler(client)
            try:
                await scheduler.ask_all(batches, finished)
            finally:
                self._facts.latencies_s.extend(answer.latency_s for answer in scheduler.answers.values())
        return scheduler.answers

    def _scheduler(self, client: HttpClient) -> Scheduler:
        return Scheduler(
            client=client,
            adapter=self._adapter,
            retry=self._retry,
            journal=self._journal,
            limits=AskLimits(
                in_flight=1 if self._batches() else self._config.concurrency,
                deadline_at=self._deadline_at,
                max_fault_share=self._config.max_fault_share,
            ),
            seed=self._config.seed,
            on_progress=self._reporter.progress,
        )

    def _adopt(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self._facts.execution_mode = execution_mode(capabilities, self._config.concurrency)

    def _batches(self) -> bool:
        return self._capabilities is not None and self._capabilities.batches

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[HttpClient]:
        limits = HttpLimits(request_timeout_s=self._config.request_timeout_s)
        async with HttpClient(self._config.url, limits, connections=self._config.concurrency + 1) as client:
            try:
                yield client
            finally:
                self._facts.requests += client.requests
                self._facts.retries = self._retry.used


def execution_mode(capabilities: Capabilities, concurrency: int) -> str:
    """How the questions travel; part of a result's identity.

    `batched-N`: one request at a time with up to N questions. The composition of every batch follows from the seed, so
    a server that is deterministic for a given batch gives the same answers each time. `concurrent-N`: N requests of
    one question each. `sequential`: one question at a time.
    """
    if concurrency == 1:
        return "sequential"
    return f"{'batched' if capabilities.batches else 'concurrent'}-{concurrency}"
