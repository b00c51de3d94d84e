"""The order by shared beginnings: what servers with a prefix cache gain, and what the order does not depend on."""

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from eval_servers import running_server
from eval_suites import RecordingReporter
from hypothesis import given
from hypothesis import strategies as st
from prefix_cache import reused_share

from tiltyard_eval.adapters import GenerationSettings
from tiltyard_eval.config import RunConfig, RunFacts
from tiltyard_eval.journal import Journal
from tiltyard_eval.prefixes import MIN_SHARED_CHARS, prefix_order
from tiltyard_eval.questions import Question, ScoringQuestion, plan_batches
from tiltyard_eval.session import Session

SIZES = {"generate": 8, "loglikelihood": 8}
SETTINGS = GenerationSettings(max_tokens=16, temperature=0.0, stop=("\n",))
HEADERS = [f"Task {letter}: " + f"an example of {letter}, and its answer. " * 20 for letter in "ABC"]
PASSAGES = [[f"Passage {n}: {'word ' * n}" + f"sentence number {n} of the passage. " * 10 for n in range(8)]] * 3


def draw(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  orders, not secrets


def nested_texts() -> list[str]:
    """Three tasks' few-shot headers, under each eight passages, under each five questions; and 40 without a company."""
    nested = [
        f"{header}{passage}\nQuestion {number}?"
        for header, passages in zip(HEADERS, PASSAGES, strict=True)
        for passage in passages
        for number in range(5)
    ]
    return nested + [f"{number}: a question by itself" for number in range(40)]


def ordered(texts: Sequence[str], seed: int = 1) -> list[str]:
    return [texts[position] for position in prefix_order(texts, draw(seed))]


def test_beginnings_stay_together_on_every_level_and_siblings_are_shuffled() -> None:
    texts = nested_texts()
    order = ordered(texts)
    assert sorted(order) == sorted(texts)
    for group in (*HEADERS, *(header + passage for header in HEADERS for passage in PASSAGES[0])):
        places = [place for place, text in enumerate(order) if text.startswith(group)]
        assert places == list(range(places[0], places[-1] + 1))
    lone = [text for text in order if text not in texts[:120]]
    assert lone != sorted(lone)
    assert ordered(texts, seed=2) != order


def test_each_beginning_is_computed_once_in_the_order_and_hardly_reused_out_of_it() -> None:
    """By a cache that holds the last text alone, and one that holds sixteen."""
    texts = nested_texts()
    shuffled = draw(3).sample(texts, len(texts))
    least = sum(map(len, texts)) - _tree_chars(texts)
    for kept in (1, 16):
        assert reused_share(ordered(texts), kept) * sum(map(len, texts)) >= 0.98 * least
    assert reused_share(shuffled, 1) < 0.3
    assert reused_share(ordered(texts), 1) > 0.85


def _tree_chars(texts: Sequence[str]) -> int:
    """Characters that a cache without end computes: the sum over texts of what no earlier one began with."""
    ranked = sorted(texts)
    total, before = 0, ""
    for text in ranked:
        common = next((n for n, (a, b) in enumerate(zip(text, before, strict=False)) if a != b), len(before))
        total += len(text) - common
        before = text
    return total


def test_short_common_beginnings_do_not_sort_the_questions() -> None:
    texts = [f"What is {n} plus {n}?" for n in range(200)]
    order = ordered(texts)
    neighbours = sum(abs(texts.index(a) - texts.index(b)) == 1 for a, b in pairwise(order))
    assert neighbours < 20


@given(st.lists(st.text(alphabet="ab", max_size=300), max_size=30), st.integers(0, 5))
def test_every_text_comes_exactly_once(texts: list[str], seed: int) -> None:
    positions = prefix_order(texts, draw(seed))
    assert sorted(positions) == list(range(len(texts)))


def test_beginnings_nested_a_thousand_deep() -> None:
    texts = ["x" * (MIN_SHARED_CHARS * depth) + "." for depth in range(1500)]
    assert sorted(prefix_order(texts, draw(0))) == list(range(1500))


@pytest.mark.parametrize("kind", ["generate", "score"])
def test_the_plan_depends_on_texts_and_seed_alone(kind: str) -> None:
    texts = nested_texts()
    questions = [Question(t, SETTINGS) if kind == "generate" else ScoringQuestion(t, " yes") for t in texts]
    plan = plan_batches(questions, seed=4, batch_sizes=SIZES)
    assert plan == plan_batches(draw(9).sample(questions, len(questions)), seed=4, batch_sizes=SIZES)
    assert sorted(q.key for batch in plan for q in batch.questions) == sorted(q.key for q in questions)


@pytest.mark.parametrize("concurrency", [1, 8, None])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_server_with_a_cache_reuses_most_of_what_it_is_sent(
    tmp_path: Path, concurrency: int | None, batch_size: int
) -> None:
    """By what reached the server, in the order in which it did, and a cache of eight texts."""
    log = tmp_path / "log.jsonl"
    questions = [Question(text, SETTINGS) for text in draw(6).sample(nested_texts(), 160)]
    with running_server(tmp_path, log=log) as url, Journal(tmp_path / "journal.jsonl", fresh=True) as journal:
        config = RunConfig(url, "native", "", concurrency=concurrency, batch_size=batch_size)
        session = Session(config, journal, RunFacts(), RecordingReporter())
        session.prepare()
        session.ask(questions)
    sent = [prompt for line in log.read_text().splitlines() for prompt in json.loads(line)["prompts"]]
    sent = [prompt for prompt in sent if "2 plus 3" not in prompt and "capital letters" not in prompt]
    assert sorted(sent) == sorted(question.prompt for question in questions)
    assert reused_share(sent, kept=8) > 0.8
    assert reused_share([question.prompt for question in questions], kept=8) < 0.7
