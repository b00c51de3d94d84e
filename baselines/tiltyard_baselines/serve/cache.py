"""A key-value cache whose rows join and leave between decode steps."""

from typing import Any

import torch
from torch import Tensor


class SlotCache:
    """Keys and values of up to S rows, each a (S, K, C, H) tensor per layer, filled from the left.

    S slots, K key-value heads, C context tokens, H head size. Rows 0 … n-1 are in use; a row that ends is overwritten
    by the last one, so a decode step works on a prefix view and copies nothing. The class answers the two methods that
    transformers' attention layers and models call on a cache, ``update`` and ``get_seq_length``; masks and positions
    are always passed explicitly.
    """

    def __init__(self, config: Any, slots: int, context_tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (slots, config.num_key_value_heads, context_tokens, head_size)
        layers = range(config.num_hidden_layers)
        self._keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self._values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self._first = 0
        self._lengths: Tensor | None = None
        self._longest = 0

    def start_prefill(self, first_row: int) -> None:
        """Let the next forward pass fill new rows from ``first_row`` on."""
        self._first, self._lengths, self._longest = first_row, None, 0

    def start_decode(self, lengths: Tensor, context: int) -> None:
        """Let the next forward pass append one token to each of rows 0 … n-1; ``lengths`` (n,) are theirs so far.

        ``context`` is how many places the queries attend to, at least the longest row with its new token.
        """
        self._lengths, self._longest = lengths, context

    def move_row(self, source: int, target: int) -> None:
        """Copy row ``source`` over row ``target``."""
        for stored in (*self._keys, *self._values):
            stored[target] = stored[source]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """Store new keys and values, both (B, K, T, H), and return all that the queries attend to."""
        return self._store(self._keys[layer], keys), self._store(self._values[layer], values)

    def _store(self, stored: Tensor, new: Tensor) -> Tensor:
        count, _, length, _ = new.shape
        if self._lengths is None:
            stored[self._first : self._first + count, :, :length] = new
            return new
        stored[torch.arange(count, device=new.device), :, self._lengths] = new[:, :, 0]
        return stored[:count, :, : self._longest]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002  the signature is transformers'
        return self._longest
