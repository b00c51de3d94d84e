"""An example of a scored result, for tests that read or show results."""

from tiltyard_eval.latency import latency_fields
from tiltyard_eval.results import Result, Score, SuiteRef, TaskResult, Timing


def example_result() -> Result:
    """One task of eight items, five of them right, one without an extractable answer, one refused by the server."""
    task = TaskResult("sums", "Sums", "arithmetic", 1.0, 8, 0.625, 0.5, 0.75, 1, {"http_status": 1})
    return Result(
        status="scored",
        failure=None,
        suite=SuiteRef("tiny", "Tiny suite", "1", "open", "sha256:00"),
        score=Score(0.625, 0.5, 0.75),
        tasks=(task,),
        adapter="openai",
        execution_mode="batched-16",
        settings={"seed": 0},
        versions={"evaluator": "0.1.0"},
        timing=Timing("2026-01-01T00:00:00+00:00", 1.5, 4, 0, **latency_fields([0.05, 0.1, 0.1, 0.2])),
        identity={"seed": 0},
        repro_hash="sha256:feed",
    )
