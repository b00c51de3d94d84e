"""Forward passes of the model: prefill, decode, score. B rows, T tokens, V vocabulary."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tiltyard_baselines.serve.cache import SlotCache
from tiltyard_baselines.serve.decoding import RecordedSteps, Recorder

# On a GPU prompts are padded to a multiple of this: kernels for the number of rows are chosen, and some compiled.
PROMPT_MULTIPLE = 16


class ModelRunner:
    """A decoder-only transformers model with a cache of ``slots`` rows; used from one thread.

    With ``record`` decoding steps run from recordings (``decoding``), where the model's forward does not wait for the
    GPU.
    """

    def __init__(
        self, model: Any, tokenizer: Any, slots: int, max_context_tokens: int, *, record: Recorder | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.slots = slots
        self.context_tokens: int = min(max_context_tokens, model.config.max_position_embeddings)
        self.vocabulary_size: int = model.config.vocab_size
        self.device: torch.device = model.device
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._cache = SlotCache(model.config, slots, self.context_tokens, model.dtype, model.device)
        self._prompt_multiple = PROMPT_MULTIPLE if self.device.type == "cuda" else 1
        self._recorded: RecordedSteps | None = None
        if record is not None:
            self._recorded = RecordedSteps(self._step, record, slots, self.context_tokens, self.device)

    def padded(self, tokens: int) -> int:
        """How long a pass makes a prompt of so many tokens, at least."""
        return min(-(-tokens // self._prompt_multiple) * self._prompt_multiple, self.context_tokens)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the tokens of ``text``; an empty text becomes the end-of-text token, which starts a document."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) or (self.tokenizer.eos_token_id,)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]], first_row: int) -> Tensor:
        """Fill cache rows from ``first_row`` on with prompts and return the next-token logits (B, V) in fp32."""
        self._cache.start_prefill(first_row)
        hidden = self._hidden(prompts, self._cache)
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)
        return self._logits(hidden[torch.arange(len(prompts), device=self.device), last])

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Append one token to each of the first B rows, holding ``lengths`` tokens so far; return logits (B, V), which
        hold until the next call."""
        if self._recorded is not None:
            return self._recorded(tokens, lengths)
        tokens_B, lengths_B = torch.tensor([tokens, lengths], device=self.device)  # noqa: N806  shape suffixes
        return self._step(tokens_B, lengths_B, max(lengths) + 1)

    @torch.inference_mode()
    def all_logits(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the logits (T_i, V) at every position of every text; leaves the cache alone."""
        hidden = self._hidden(texts, None)
        return [self._logits(row[: len(text)]) for row, text in zip(hidden, texts, strict=True)]

    def move_row(self, source: int, target: int) -> None:
        self._cache.move_row(source, target)

    def _step(self, tokens_B: Tensor, lengths_B: Tensor, context: int) -> Tensor:  # noqa: N803  shape suffixes
        """One token more for each row, attending to the first ``context`` places of its cache; waits for nothing."""
        self._cache.start_decode(lengths_B, context)
        seen = torch.arange(context, device=self.device)
        hidden = self._decoder(
            input_ids=tokens_B[:, None],
            position_ids=lengths_B[:, None],
            attention_mask=(seen <= lengths_B[:, None])[:, None, None],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return self._logits(hidden[:, 0])

    def _hidden(self, texts: Sequence[Sequence[int]], cache: SlotCache | None) -> Tensor:
        # Padding stands on the right, where the causal mask hides it from every real token.
        length = self.padded(max(len(text) for text in texts))
        padded = torch.tensor([[*text, *([0] * (length - len(text)))] for text in texts], device=self.device)
        causal = torch.ones(length, length, dtype=torch.bool, device=self.device).tril()
        output: Tensor = self._decoder(
            input_ids=padded,
            position_ids=torch.arange(length, device=self.device).expand(len(texts), length),
            attention_mask=causal.expand(len(texts), 1, length, length),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return output

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._head(hidden)
        return logits.float()
