"""Training items as JSON Lines, their tokens, and packed batches of one fixed shape."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED_SEGMENT = -1
ENCODED_AT_ONCE = 100_000


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
    if not items:
        raise ValueError("there are no training items")
    parts = [
        _encode_chunk(items[start : start + ENCODED_AT_ONCE], tokenizer, context_tokens)
        for start in range(0, len(items), ENCODED_AT_ONCE)
    ]
    tokens, prompt_lengths, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(lengths):
        raise ValueError("no training item fits the model's context")
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return EncodedItems(tokens, starts, starts[:-1] + prompt_lengths)


def _encode_chunk(
    items: Sequence[Item], tokenizer: Any, context_tokens: int
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64]]:
    """Return tokens end to end, each item's number of prompt tokens, and its number of tokens with EOS."""
    prompts, prompt_lengths = _token_ids([item.prompt for item in items], tokenizer)
    completions, completion_lengths = _token_ids([item.completion for item in items], tokenizer)
    lengths = prompt_lengths + completion_lengths + 1
    tokens = np.full(lengths.sum(), tokenizer.eos_token_id, np.uint16)
    starts = np.cumsum(lengths) - lengths
    tokens[np.repeat(starts, prompt_lengths) + _counts_from_zero(prompt_lengths)] = prompts
    answers = starts + prompt_lengths
    tokens[np.repeat(answers, completion_lengths) + _counts_from_zero(completion_lengths)] = completions
    fits = lengths <= context_tokens
    return tokens[np.repeat(fits, lengths)], prompt_lengths[fits], lengths[fits]


def _token_ids(texts: list[str], tokenizer: Any) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Return the tokens of all texts end to end, and how many each has."""
    # The Rust tokenizer itself, with all cores: the wrapper around it spends more time than it does.
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    lengths = np.array([len(encoding) for encoding in encodings], np.int64)
    ids = chain.from_iterable(encoding.ids for encoding in encodings)
    return np.fromiter(ids, np.uint16, count=int(lengths.sum())), lengths


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
    items = np.concatenate([np.asarray(row, np.int64) for row in rows])
    rows_of_items = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    segments_of_items = np.concatenate([np.arange(len(row)) for row in rows])
    lengths = data.starts[items + 1] - data.starts[items]
    positions = _counts_from_zero(lengths)
    sources = np.repeat(data.starts[items], lengths) + positions
    row_lengths = np.bincount(rows_of_items, weights=lengths, minlength=len(rows)).astype(np.int64)
    targets = np.repeat(rows_of_items, lengths) * context_tokens + _counts_from_zero(row_lengths)
    in_prompt = sources < np.repeat(data.answers[items], lengths)
    weights = np.where(positions == 0, 0.0, np.where(in_prompt, prompt_weight, 1.0))

    def laid_out(values: NDArray[Any], dtype: type, padding: int = 0) -> Tensor:
        flat: NDArray[Any] = np.full(len(rows) * context_tokens, padding, dtype)
        flat[targets] = values
        return torch.from_numpy(flat.reshape(len(rows), context_tokens))

    return Batch(
        tokens=laid_out(data.tokens[sources], np.int64),
        positions=laid_out(positions, np.int64),
        segments=laid_out(np.repeat(segments_of_items, lengths), np.int64, IGNORED_SEGMENT),
        weights=laid_out(weights, np.float32),
    )


def _counts_from_zero(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0..n-1 for every n in ``lengths``, end to end."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


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
