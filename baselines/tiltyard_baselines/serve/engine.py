"""The engine thread: continuous batching over the model's cache rows."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from tiltyard_baselines.serve.jobs import (
    Completion,
    EngineError,
    GenerationJob,
    Job,
    OverloadedError,
    RequestError,
    ScoringJob,
    TokenScore,
)
from tiltyard_baselines.serve.runner import ModelRunner
from tiltyard_baselines.serve.sampling import Sampler, cut_at_stop, score_tokens

logger = logging.getLogger(__name__)

MAX_WAITING_JOBS = 1024
MAX_FORWARD_TOKENS = 8192  # of one prefill or scoring pass, padding included


@dataclass
class _Row:
    job: GenerationJob
    sampler: Sampler
    length: int  # tokens in the cache
    token_ids: list[int] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)


class Engine:
    """Runs jobs in one daemon thread. ``submit`` may be called from any thread; results come through ``job.done``."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self._eos_ids = {runner.tokenizer.eos_token_id}
        self._waiting: deque[Job] = deque()
        self._rows: list[_Row] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def runner(self) -> ModelRunner:
        return self._runner

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all jobs or none. Raises ``RequestError`` (does not fit the context) or ``OverloadedError``."""
        for job in jobs:
            self._check(job)
        with self._wake:
            if len(self._waiting) + len(jobs) > MAX_WAITING_JOBS:
                raise OverloadedError(f"more than {MAX_WAITING_JOBS} prompts are waiting; try again later")
            self._waiting.extend(jobs)
            self._wake.notify()

    def stop(self) -> None:
        """End the thread; unfinished jobs fail."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _check(self, job: Job) -> None:
        limit = self._runner.context_tokens
        needed = len(job.token_ids) if isinstance(job, ScoringJob) else len(job.prompt_ids) + job.max_tokens
        if needed > limit:
            raise RequestError(f"prompt and answer need {needed} tokens; the context has {limit}")

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._waiting or self._rows)
                if self._stopping:
                    break
                scoring, generation = self._admit()
            try:
                self._score(scoring)
                self._prefill(generation)
                self._decode()
            except Exception as error:  # the boundary of the thread: a failed batch must not end the server
                logger.exception("a batch failed")
                self._fail(scoring, EngineError(f"the model failed on this batch: {type(error).__name__}"))
        self._fail(list(self._waiting), EngineError("the server is shutting down"))

    def _admit(self) -> tuple[list[ScoringJob], list[GenerationJob]]:
        """Take waiting jobs in order while rows and the token budget of one pass allow."""
        scoring: list[ScoringJob] = []
        generation: list[GenerationJob] = []
        longest = {ScoringJob: 0, GenerationJob: 0}
        while self._waiting:
            job = self._waiting[0]
            group: list[ScoringJob] | list[GenerationJob] = scoring if isinstance(job, ScoringJob) else generation
            tokens = len(job.token_ids) if isinstance(job, ScoringJob) else len(job.prompt_ids)
            widest = max(longest[type(job)], self._runner.padded(tokens))
            full = isinstance(job, GenerationJob) and len(self._rows) + len(generation) == self._runner.slots
            if full or (group and widest * (len(group) + 1) > MAX_FORWARD_TOKENS):
                break
            self._waiting.popleft()
            if not job.done.set_running_or_notify_cancel():
                continue
            longest[type(job)] = widest
            if isinstance(job, ScoringJob):
                scoring.append(job)
            else:
                generation.append(job)
        return scoring, generation

    def _score(self, jobs: list[ScoringJob]) -> None:
        if not jobs:
            return
        logits = self._runner.all_logits([job.token_ids for job in jobs])
        for job, logits_TV in zip(jobs, logits, strict=True):  # noqa: N806  shape suffix
            job.done.set_result(score_tokens(logits_TV[:-1], job.token_ids[1:], job.top_logprobs))

    def _prefill(self, jobs: list[GenerationJob]) -> None:
        if not jobs:
            return
        first = len(self._rows)
        rows = [_Row(job, Sampler(job.temperature, job.top_p, job.seed), len(job.prompt_ids)) for job in jobs]
        self._rows += rows
        self._advance(rows, self._runner.prefill([job.prompt_ids for job in jobs], first))

    def _decode(self) -> None:
        if not self._rows:
            return
        logits = self._runner.decode([row.token_ids[-1] for row in self._rows], [row.length for row in self._rows])
        for row in self._rows:
            row.length += 1
        self._advance(list(self._rows), logits)

    def _advance(self, rows: list[_Row], logits: Tensor) -> None:
        """Choose the next token of each row from ``logits`` (B, V) and let finished rows leave."""
        likeliest = logits.argmax(-1).tolist()  # of all rows at once: on a GPU each of them alone would be a wait
        chosen = zip(rows, logits, likeliest, strict=True)
        finished = [row for row, logits_V, token in chosen if self._extend(row, logits_V, token)]
        for row in finished:
            index = next(i for i, other in enumerate(self._rows) if other is row)
            last = len(self._rows) - 1
            if index != last:
                self._runner.move_row(last, index)
                self._rows[index] = self._rows[last]
            self._rows.pop()

    def _extend(self, row: _Row, logits: Tensor, likeliest: int) -> bool:
        """Add one token to ``row``; deliver and return True when that ends it."""
        job = row.job
        token = row.sampler.pick(logits, likeliest)
        row.token_ids.append(token)
        if job.top_logprobs:
            row.scores += score_tokens(logits[None], [token], job.top_logprobs)
        ended = token in self._eos_ids
        text = self._runner.tokenizer.decode(row.token_ids[:-1] if ended else row.token_ids)
        cut = cut_at_stop(text, job.stop)
        if cut is None and not ended and len(row.token_ids) < job.max_tokens:
            return False
        reason = "stop" if ended or cut is not None else "length"
        job.done.set_result(Completion(text if cut is None else cut, reason, tuple(row.token_ids), tuple(row.scores)))
        return True

    def _fail(self, jobs: Sequence[Job], error: EngineError) -> None:
        for job in (*jobs, *(row.job for row in self._rows)):
            if not job.done.done():
                job.done.set_exception(error)
        self._rows.clear()
