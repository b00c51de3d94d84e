import threading
from typing import Any

import pytest
import torch

from tiltyard_baselines.serve.engine import MAX_WAITING_JOBS, Engine
from tiltyard_baselines.serve.jobs import (
    Completion,
    EngineError,
    GenerationJob,
    OverloadedError,
    RequestError,
    ScoringJob,
)

PROMPTS = ["Say a.\nAnswer:", "b", "Say c. Say d. Say e.\nAnswer:", "f g", "Answer: h", "Say i", "jjjj", "k l m n o p"]
TIMEOUT_S = 60


def run_jobs(engine: Engine, jobs: list[GenerationJob]) -> list[Completion]:
    engine.submit(jobs)
    return [job.done.result(TIMEOUT_S) for job in jobs]


def greedy(engine: Engine, prompt: str, max_tokens: int = 24, **settings: Any) -> GenerationJob:
    return GenerationJob(engine.runner.encode(prompt), max_tokens, **settings)


def test_greedy_matches_transformers_generate(engine: Engine, tiny_model: Any) -> None:
    for prompt in PROMPTS[:3]:
        ids = engine.runner.encode(prompt)
        expected = tiny_model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :].tolist()
        assert list(run_jobs(engine, [greedy(engine, prompt)])[0].token_ids) == expected


def test_greedy_does_not_depend_on_the_batch(engine: Engine) -> None:
    # Eight prompts over four rows, of different lengths: rows join, leave and move between steps.
    lengths = [24, 3, 17, 30, 9, 24, 1, 12]
    alone = [run_jobs(engine, [greedy(engine, p, n)])[0] for p, n in zip(PROMPTS, lengths, strict=True)]
    together = run_jobs(engine, [greedy(engine, p, n) for p, n in zip(PROMPTS, lengths, strict=True)])
    assert together == alone
    assert len({answer.text for answer in alone}) > 4  # the model is not constant


def test_a_seed_means_the_same_in_every_batch(engine: Engine) -> None:
    def sampled(seed: int) -> GenerationJob:
        return greedy(engine, PROMPTS[0], temperature=1.0, top_p=0.9, seed=seed)

    alone = run_jobs(engine, [sampled(5)])[0]
    crowd = run_jobs(engine, [sampled(6), *(greedy(engine, p) for p in PROMPTS), sampled(5)])
    assert crowd[-1] == alone
    assert crowd[0] != alone


def test_stop_string_that_spans_tokens_is_cut(engine: Engine) -> None:
    whole = run_jobs(engine, [greedy(engine, PROMPTS[0])])[0]
    pieces = [engine.runner.tokenizer.decode([token]) for token in whole.token_ids]
    start = len("".join(pieces[:4]))
    stop = whole.text[start + len(pieces[4]) - 1 :][:3]  # from the end of one token into the next ones
    assert len(stop) == 3
    stopped = run_jobs(engine, [greedy(engine, PROMPTS[0], stop=("never", stop))])[0]
    assert stopped.finish_reason == "stop"
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert len(stopped.token_ids) < len(whole.token_ids)


def test_length_ends_an_answer(engine: Engine) -> None:
    answer = run_jobs(engine, [greedy(engine, PROMPTS[0], 3)])[0]
    assert (answer.finish_reason, len(answer.token_ids)) == ("length", 3)


def test_scores_are_log_probabilities(engine: Engine, tiny_model: Any) -> None:
    ids = engine.runner.encode(PROMPTS[2])
    jobs = [ScoringJob(ids, 2), ScoringJob(engine.runner.encode("b"))]
    engine.submit(jobs)
    scores = jobs[0].done.result(TIMEOUT_S)
    with torch.inference_mode():
        logprobs = tiny_model(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert [score.logprob for score in scores] == pytest.approx(
        [float(logprobs[i, token]) for i, token in enumerate(ids[1:])], abs=1e-4
    )
    assert all(len(score.top) == 2 and score.top[0][1] >= score.top[1][1] for score in scores)
    assert jobs[1].done.result(TIMEOUT_S) == ()


def test_generated_tokens_are_scored_on_request(engine: Engine) -> None:
    answer = run_jobs(engine, [greedy(engine, PROMPTS[0], 5, top_logprobs=1)])[0]
    assert [score.token for score in answer.scores] == list(answer.token_ids)
    assert all(score.is_greedy and score.logprob <= 0 for score in answer.scores)


def test_what_does_not_fit_the_context_is_refused(engine: Engine) -> None:
    with pytest.raises(RequestError, match="the context has 128"):
        engine.submit([greedy(engine, "a" * 100, 29)])


def test_a_full_queue_takes_all_or_nothing(engine: Engine) -> None:
    with pytest.raises(OverloadedError):
        engine.submit([greedy(engine, "a", 1)] * (MAX_WAITING_JOBS + 1))
    assert run_jobs(engine, [greedy(engine, "a", 1)])[0].finish_reason == "length"


def test_a_failed_batch_does_not_end_the_engine(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    bad = GenerationJob((10**6,), 4)  # a token outside the vocabulary, which the protocols never let through
    engine.submit([bad])
    with pytest.raises(EngineError, match="failed on this batch"):
        bad.done.result(TIMEOUT_S)
    assert run_jobs(engine, [greedy(engine, "a", 2)])[0].finish_reason in {"length", "stop"}


def test_many_threads_may_submit(engine: Engine) -> None:
    expected = [run_jobs(engine, [greedy(engine, p)])[0] for p in PROMPTS]
    answers: dict[int, Completion] = {}

    def ask(index: int) -> None:
        answers[index] = run_jobs(engine, [greedy(engine, PROMPTS[index])])[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert [answers[i] for i in range(len(PROMPTS))] == expected
