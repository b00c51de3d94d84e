"""What a run is asked to do, and the facts that its parts collect on the way. Standard library only."""

import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

RESULT_FILE: Final = "result.json"
SAMPLES_FILE: Final = "samples.jsonl"
JOURNAL_FILE: Final = "journal.jsonl"


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run; stored in the journal, so `resume` needs only the folder.

    Args:
        url: `http://host:port` of the server.
        adapter: `openai` or `native`.
        suite: Path of the suite's folder.
        seed: Shuffles the questions, seeds the bootstrap, and is sent with every request.
        concurrency: Questions in flight at once (see `session.execution_mode`).
        deadline_s: Limit for probing and asking together, counted from readiness, or None.
        start_timeout_s: Limit for `/health` to answer 200.
        request_timeout_s: Limit for one request, from the first byte sent to the last byte read.
        max_fault_share: Share of the questions (0..1) that may get no usable answer before the whole run fails.
        image_digest: Content digest of the image behind the URL, when there is one.
    """

    url: str
    adapter: str
    suite: str
    seed: int = 0
    concurrency: int = 16
    deadline_s: float | None = None
    start_timeout_s: float = 300.0
    request_timeout_s: float = 120.0
    max_fault_share: float = 0.2
    image_digest: str | None = None

    def settings(self) -> dict[str, Any]:
        """The settings as the result shows them: without addresses, paths, and what has its own field there."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in {"url", "suite", "adapter", "image_digest"}
        }


@dataclass
class RunFacts:
    """What the parts of a run find out: kept in one place so that a failed run can be described too."""

    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    started_s: float = field(default_factory=time.monotonic)
    execution_mode: str | None = None
    requests: int = 0
    retries: int = 0
    latencies_s: list[float] = field(default_factory=list)
