"""Decoding steps as CUDA graphs: one token more for each of several rows. B rows, V vocabulary.

A step of a small model is hundreds of kernels of a few microseconds each, which the host takes longer to launch than
the GPU to run. A graph launches them all at once, but for fixed sizes. So rows and context are rounded up to powers of
two, and each pair of them has a graph of its own: recorded when the pair comes for the second time, since its first
step compiles and chooses kernels, and many pairs come only once.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

CONTEXT_MIN = 64  # tokens: below it attention is too short for its padding to matter

# Of tokens (B,), lengths (B,) before them, and a context of at least the longest length with its token.
Step = Callable[[Tensor, Tensor, int], Tensor]
# Takes a call and gives another that does the same again, into the same result.
Recorder = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]


class CudaGraphs:
    """Records calls as CUDA graphs that share their memory, so a result holds until the next one is made."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = call()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


def recorder_for(device: str) -> Recorder | None:
    """CUDA graphs on the first GPU, which is the one that PyTorch records on; else none."""
    chosen = torch.device(device)
    return CudaGraphs() if chosen.type == "cuda" and chosen.index in (None, 0) else None


class RecordedSteps:
    """Runs ``step`` with rows and context rounded up, from a recording where there is one.

    ``step`` must read and write the same memory at every call and not wait for the GPU. The rows beyond B that it is
    given have the token 0 and the length 0: what it makes of them is dropped.
    """

    def __init__(self, step: Step, record: Recorder, slots: int, context_tokens: int, device: torch.device) -> None:
        self._step = step
        self._record = record
        self._slots = slots
        self._context_tokens = context_tokens
        self._inputs = torch.zeros(2, slots, dtype=torch.int64, device=device)
        self._seen: set[tuple[int, int]] = set()
        self._recorded: dict[tuple[int, int], Callable[[], Tensor]] = {}

    def __call__(self, tokens: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Return the logits (B, V) after ``tokens``, which hold until the next call."""
        rows = min(rounded_up(len(tokens)), self._slots)
        context = min(max(rounded_up(max(lengths) + 1), CONTEXT_MIN), self._context_tokens)
        padding = [0] * (rows - len(tokens))
        self._inputs[:, :rows] = torch.tensor([[*tokens, *padding], [*lengths, *padding]])
        return self._run(rows, context)[: len(tokens)]

    def _run(self, rows: int, context: int) -> Tensor:
        key = (rows, context)
        replay = self._recorded.get(key)
        if replay is not None:
            return replay()
        tokens, lengths = self._inputs[:, :rows]

        def call() -> Tensor:
            return self._step(tokens, lengths, context)

        if key not in self._seen:
            self._seen.add(key)
            return call()
        try:
            replay = self._record(call)
        except RuntimeError:  # the model waits for the GPU, or memory is short
            logger.warning("steps of %d rows and %d tokens cannot be recorded", rows, context, exc_info=True)
            replay = call
        self._recorded[key] = replay
        return replay()


def rounded_up(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()
