"""Decoding from recordings: on a CPU with a recorder that repeats the call, on a GPU with CUDA graphs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tiltyard_baselines.serve.decoding import CudaGraphs, RecordedSteps, recorder_for, rounded_up
from tiltyard_baselines.serve.engine import Engine
from tiltyard_baselines.serve.jobs import GenerationJob
from tiltyard_baselines.serve.runner import ModelRunner

PROMPTS = ["Say a.\nAnswer:", "b", "Say c. Say d. Say e.\nAnswer:", "f g", "Answer: h", "Say i", "jjjj", "k l m n o p"]
LENGTHS = [24, 3, 17, 30, 9, 24, 1, 12]


class Repeater:
    """Repeats calls as a graph would: into the result of the first time."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, call: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        self.recorded += 1
        result = call().clone()

        def replay() -> torch.Tensor:
            return result.copy_(call())

        return replay


def answers(runner: ModelRunner) -> list[tuple[int, ...]]:
    engine = Engine(runner)
    try:
        jobs = [GenerationJob(runner.encode(p), n) for p, n in zip(PROMPTS, LENGTHS, strict=True)]
        engine.submit(jobs)
        return [job.done.result(60).token_ids for job in jobs]
    finally:
        engine.stop()


def test_recorded_steps_answer_as_steps_do(tiny_model: Any, tokenizer: Any) -> None:
    repeater = Repeater()
    runners = [ModelRunner(tiny_model, tokenizer, 5, 128, record=record) for record in (None, repeater)]
    plain, recorded = (answers(runner) for runner in runners)
    assert recorded == plain
    assert [len(answer) for answer in plain] == LENGTHS
    assert 2 <= repeater.recorded <= 8  # 1, 2, 4 and 5 rows; 64 and 128 places


def test_sizes_are_rounded_up_and_the_rest_is_dropped() -> None:
    asked: list[tuple[list[int], list[int], int]] = []

    def step(tokens: torch.Tensor, lengths: torch.Tensor, context: int) -> torch.Tensor:
        asked.append((tokens.tolist(), lengths.tolist(), context))
        return tokens[:, None].float()

    steps = RecordedSteps(step, Repeater(), slots=6, context_tokens=200, device=torch.device("cpu"))
    assert steps([7, 8, 9], [3, 70, 5]).tolist() == [[7], [8], [9]]
    assert asked[-1] == ([7, 8, 9, 0], [3, 70, 5, 0], 128)
    steps([1] * 5, [150] * 5)
    assert asked[-1] == ([1] * 5 + [0], [150] * 5 + [0], 200)  # no more than there are
    steps([4], [0])
    assert asked[-1] == ([4], [0], 64)


def test_a_pair_of_sizes_is_recorded_the_second_time() -> None:
    repeater = Repeater()
    steps = RecordedSteps(lambda tokens, *_: tokens[:, None] * 2, repeater, 4, 128, torch.device("cpu"))
    assert steps([1], [0]).tolist() == [[2]]
    assert repeater.recorded == 0
    for token in (5, 6):
        assert steps([token], [1]).tolist() == [[2 * token]]
    assert repeater.recorded == 1
    steps([1, 2], [1, 2])
    assert repeater.recorded == 1


def test_what_cannot_be_recorded_runs_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_call: object) -> Callable[[], torch.Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    steps = RecordedSteps(lambda tokens, *_: tokens[:, None] * 2, fail, 4, 128, torch.device("cpu"))
    assert [steps([token], [0]).tolist() for token in (1, 2, 3)] == [[[2]], [[4]], [[6]]]
    assert caplog.text.count("steps of 1 rows and 64 tokens cannot be recorded") == 1


def test_only_the_first_gpu_is_recorded_on() -> None:
    assert recorder_for("cpu") is recorder_for("cuda:1") is None


def test_rounding_is_to_powers_of_two() -> None:
    assert [rounded_up(count) for count in (1, 2, 3, 4, 5, 8, 9)] == [1, 2, 4, 4, 8, 8, 16]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_graphs_answer_as_steps_do(checkpoint: Any) -> None:
    from tiltyard_baselines.serve.loading import load_model  # noqa: PLC0415

    model, tokenizer = load_model(checkpoint, None, "cuda", "float32")
    runners = [ModelRunner(model, tokenizer, 5, 128, record=record) for record in (None, CudaGraphs())]
    plain, recorded = (answers(runner) for runner in runners)
    assert recorded == plain
