"""`kill -9` at random moments: the resumed run repeats nothing that was journaled and ends in the same result."""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from eval_suites import read_samples
from evaluation_processes import resume, start
from likelihood_server import toy_server
from likelihood_suites import make_likelihood_suite

from tiltyard_eval.adapters import GenerationSettings
from tiltyard_eval.config import RunConfig
from tiltyard_eval.probe import PAIRS, PROMPTS
from tiltyard_eval.questions import AnyQuestion, Batch, Question, ScoringQuestion
from tiltyard_eval.results import load_result

pytestmark = pytest.mark.slow

MOMENTS = 20
SEED = 20_261_124
PROBED = {*PROMPTS, *(context for context, _ in PAIRS)}


def outcome(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Result and samples without the clock."""
    result = asdict(load_result(out / "result.json"))
    samples = [{name: value for name, value in row.items() if name != "latency_s"} for row in read_samples(out)]
    return {name: value for name, value in result.items() if name != "timing"}, samples


def journaled(out: Path) -> list[str]:
    """Keys of the batches in whole lines of the journal."""
    path = out / "journal.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [entry["key"] for entry in map(json.loads, lines) if entry["type"] == "batch"]


def asked(log: Path) -> list[str]:
    """Keys of the batches that reached the server, as often as they did, without the probe's."""
    batches = [_questions(json.loads(line)) for line in log.read_text().splitlines()]
    return [Batch(tuple(batch)).key for batch in batches if batch]


def _questions(body: dict[str, Any]) -> Sequence[AnyQuestion]:
    if "pairs" in body:
        return [ScoringQuestion(*pair) for pair in body["pairs"] if pair[0] not in PROBED]
    settings = GenerationSettings(body["max_tokens"], body["temperature"], tuple(body["stop"]))
    return [Question(prompt, settings) for prompt in body["prompts"] if prompt not in PROBED]


def wait_for_batches(process: ForkServerProcess, out: Path, count: int) -> None:
    """Return once so many batches are in the journal, or the run has ended."""
    while process.is_alive() and len(journaled(out)) < count:
        time.sleep(0.002)


def test_twenty_kills(tmp_path: Path) -> None:
    """Generation and log-likelihoods; one request in flight in every second run, as many as may be in the others."""
    suite = make_likelihood_suite(tmp_path / "suite", types=("multiple_choice", "loglikelihood", "generate_until"))
    log = tmp_path / "log.jsonl"
    chance = random.Random(SEED)  # noqa: S311  moments, not secrets
    cut_short = 0
    with toy_server(tmp_path, log=log, delay_s=0.05) as url:
        whole: dict[int | None, tuple[Path, float, list[str]]] = {}
        for concurrency in (1, None):
            config = RunConfig(url, "native", str(suite.root), concurrency=concurrency, batch_size=4, seed=5)
            start(tmp_path / f"warm-{concurrency}", config).join(120)  # the first fork waits for the imports
            log.write_text("")
            begun = time.monotonic()
            start(tmp_path / f"whole-{concurrency}", config).join(60)
            whole[concurrency] = (tmp_path / f"whole-{concurrency}", time.monotonic() - begun, sorted(asked(log)))
        for moment in range(MOMENTS):
            concurrency = 1 if moment % 2 else None
            calm, duration_s, keys = whole[concurrency]
            out = tmp_path / f"killed-{moment}"
            config = RunConfig(url, "native", str(suite.root), concurrency=concurrency, batch_size=4, seed=5)
            process = start(out, config)
            if moment % 4 < 2:
                process.join(chance.uniform(0, duration_s))  # any moment of the run, nothing is waited for
            else:
                wait_for_batches(process, out, chance.randrange(1, len(keys)))  # any moment of the asking
            process.kill()
            process.join()
            done = journaled(out)
            cut_short += 0 < len(done) < len(keys)
            log.write_text("")
            if (out / "journal.jsonl").exists() and "\n" in (out / "journal.jsonl").read_text():
                resume(out)
            else:
                start(out / "again", config).join(60)  # killed before it had begun: there is nothing to resume
                out /= "again"
            assert sorted([*done, *asked(log)]) == keys
            assert outcome(out) == outcome(calm)
            assert len(journaled(out)) == len(keys)
    assert cut_short >= MOMENTS // 4, "too few kills fell between the first answer and the last"
