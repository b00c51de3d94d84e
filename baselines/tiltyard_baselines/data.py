"""Training items as JSON Lines, their tokens, and packed batches of one fixed shape."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED_SEGMENT = -1


@dataclass(frozen=True)
class Item:
    """One question with its answer, as the evaluator's generators write it."""

    prompt: str
    answer: str
    task: str
    level: int

    @property
    def completion(self) -> str:
        """The text which the model should continue the prompt with."""
        return f" {self.answer}\n"

    @property
    def text(self) -> str:
        return self.prompt + self.completion


def read_items(paths: Iterable[Path]) -> list[Item]:
    """Read items from JSON Lines files; a malformed line raises ``ValueError`` naming file and line."""
    items = []
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                items.append(_parse_item(line, f"{path}:{number}"))
    return items


def _parse_item(line: str, where: str) -> Item:
    try:
        fields = json.loads(line)
        return Item(str(fields["prompt"]), str(fields["answer"]), str(fields["task"]), int(fields["level"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: expected an object with prompt, answer, task and level") from error


@dataclass(frozen=True)
class EncodedItems:
    """Tokens of items end to end: item i is ``tokens[starts[i]:starts[i + 1]]``, its answer from ``answers[i]``."""

    tokens: NDArray[np.uint16]
    starts: NDArray[np.int64]
    answers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.answers)


def encode_items(items: Sequence[Item], tokenizer: Any, context_tokens: int) -> EncodedItems:
    """Encode prompt, completion and EOS of every item; items longer than the context are left out."""
    prompts = tokenizer([item.prompt for item in items], add_special_tokens=False)["input_ids"]
    completions = tokenizer([item.completion for item in items], add_special_tokens=False)["input_ids"]
    tokens: list[int] = []
    starts, answers = [0], []
    for prompt, completion in zip(prompts, completions, strict=True):
        if len(prompt) + len(completion) + 1 > context_tokens:
            continue
        answers.append(len(tokens) + len(prompt))
        tokens += [*prompt, *completion, tokenizer.eos_token_id]
        starts.append(len(tokens))
    if not answers:
        raise ValueError("no training item fits the model's context")
    return EncodedItems(np.array(tokens, np.uint16), np.array(starts, np.int64), np.array(answers, np.int64))


@dataclass(frozen=True)
class Batch:
    """Packed rows of B x T tokens; items in one row do not see each other.

    ``segments`` numbers the items of a row (``IGNORED_SEGMENT`` for padding); ``weights`` weighs the prediction *of*
    each token and is 0 at an item's first token and at padding.
    """

    tokens: Tensor  # (B, T) int64
    positions: Tensor  # (B, T) int64, restarting at every item
    segments: Tensor  # (B, T) int64
    weights: Tensor  # (B, T) float32

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(part.to(device, non_blocking=True) for part in self._parts()))

    def _parts(self) -> tuple[Tensor, ...]:
        return self.tokens, self.positions, self.segments, self.weights

    def attention_mask(self) -> Tensor:
        """Return the boolean (B, 1, T, T) mask: causal, within one item."""
        same_item = self.segments[:, :, None] == self.segments[:, None, :]
        length = self.tokens.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.tokens.device).tril()
        return (same_item & causal)[:, None]


def pack_rows(data: EncodedItems, order: Iterable[int], context_tokens: int) -> Iterator[list[int]]:
    """Yield lists of item numbers that fit one row together, taking items in ``order`` (next-fit packing)."""
    row: list[int] = []
    used = 0
    for index in order:
        length = int(data.starts[index + 1] - data.starts[index])
        if used + length > context_tokens:
            yield row
            row, used = [], 0
        row.append(index)
        used += length
    if row:
        yield row


def make_batch(data: EncodedItems, rows: Sequence[Sequence[int]], context_tokens: int, prompt_weight: float) -> Batch:
    """Lay the items of each row side by side."""
    shape = (len(rows), context_tokens)
    tokens, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    segments, weights = np.full(shape, IGNORED_SEGMENT, np.int64), np.zeros(shape, np.float32)
    for row, indices in enumerate(rows):
        at = 0
        for segment, index in enumerate(indices):
            start, end = data.starts[index], data.starts[index + 1]
            span = slice(at, at + int(end - start))
            tokens[row, span] = data.tokens[start:end]
            positions[row, span] = np.arange(end - start)
            segments[row, span] = segment
            weights[row, span] = np.where(np.arange(start, end) < data.answers[index], prompt_weight, 1.0)
            weights[row, at] = 0.0
            at = span.stop
    return Batch(*(torch.from_numpy(part) for part in (tokens, positions, segments, weights)))


def batches(
    data: EncodedItems, rows_per_batch: int, context_tokens: int, prompt_weight: float, seed: int
) -> Iterator[Batch]:
    """Yield batches for ever, every epoch in a new order drawn from ``seed``."""
    generator = np.random.default_rng(seed)
    rows: list[list[int]] = []
    while True:
        order = (int(index) for index in generator.permutation(len(data)))
        for row in pack_rows(data, order, context_tokens):
            rows.append(row)
            if len(rows) == rows_per_batch:
                yield make_batch(data, rows, context_tokens, prompt_weight)
                rows = []
