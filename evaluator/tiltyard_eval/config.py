"""What a run is asked to do, and the facts that its parts collect on the way. Standard library only."""

import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

RESULT_FILE: Final = "result.json"
SAMPLES_FILE: Final = "samples.jsonl"
JOURNAL_FILE: Final = "journal.jsonl"
LM_EVAL_FOLDER: Final = "lm_eval"
MAX_CONTEXT_TOKENS: Final = 10_000_000


_ELSEWHERE: Final = frozenset(
    {"url", "suite", "adapter", "image_digest", "trust_suite", "allow_network", "lm_eval_files"}
)


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run; stored in the journal, so `resume` needs only the folder.

    Args:
        url: `http://host:port` of the server.
        adapter: `openai`, `native` or `neurips2023`.
        suite: Path of the suite's folder.
        seed: Shuffles the questions, and is sent with every request.
        concurrency: Requests in flight at once, or None to find out what the server can take (see `in_flight`).
        batch_size: Most questions in one request, where the server takes several.
        deadline_s: Limit for probing and asking together, counted from readiness, or None.
        start_timeout_s: Limit for `/health` to answer 200.
        request_timeout_s: Limit for one request, from the first byte sent to the last byte read.
        max_fault_share: Share of the questions (0..1) that may get no usable answer before the whole run fails.
        context_tokens: Length of the model's context where the server does not tell it, or a shorter one.
        image_digest: Content digest of the image behind the URL, when there is one.
        trust_suite: Load the suite even if its files may run code.
        allow_network: Let a trusted suite that declares it read its data from a hub.
        lm_eval_files: Also write lm-eval's own result and samples.
    """

    url: str
    adapter: str
    suite: str
    seed: int = 0
    concurrency: int | None = None
    batch_size: int = 16
    deadline_s: float | None = None
    start_timeout_s: float = 300.0
    request_timeout_s: float = 120.0
    max_fault_share: float = 0.2
    context_tokens: int | None = None
    image_digest: str | None = None
    trust_suite: bool = False
    allow_network: bool = False
    lm_eval_files: bool = False

    def settings(self) -> dict[str, Any]:
        """The settings as the result shows them: without addresses, paths, and what has its own field there."""
        return {name: value for name, value in asdict(self).items() if name not in _ELSEWHERE}


@dataclass
class RunFacts:
    """What the parts of a run find out: kept in one place so that a failed run can be described too."""

    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    started_s: float = field(default_factory=time.monotonic)
    execution_mode: str | None = None
    requests: int = 0
    retries: int = 0
    latencies_s: list[float] = field(default_factory=list)
