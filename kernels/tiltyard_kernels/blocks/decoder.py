"""`Block`: a decoder layer of transformers' Llama, Qwen 2 or Qwen 3, in three fused parts around its attention.

A Block holds the layer's own modules under their own names, so parameters, state_dict and adapters are the layer's.
Frozen plain weights that a fused product wants together (gate and up, interleaved; queries, keys and values, end to
end) are moved into one matrix at first use, and the parameters become views of it: memory does not grow, and values
do not change. `release` undoes that. Quantised weights are widened into a scratch matrix of that shape; trained weights
are put together at every call, so that each gets its gradient.

What the parts cannot do runs as the layer itself: DoRA with dropout, adapters whose ranks in one product are more than
512 together, adapters over a trained base, peft's other variants, biases in the MLP, and hooks on modules of the layer,
which nobody would call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tiltyard_kernels.attention import packed_attention
from tiltyard_kernels.blocks.adapted import norm_mlp, norm_qkv, residual_linear
from tiltyard_kernels.blocks.adapters import Joined
from tiltyard_kernels.blocks.bases import Base
from tiltyard_kernels.blocks.heads import HeadNorm
from tiltyard_kernels.blocks.linears import Linear, adapter_names, as_linear, has_hooks, join
from tiltyard_kernels.gemm.ops import RANK_MAX
from tiltyard_kernels.quantise.tensor import QuantisedTensor

LAYERS = ("LlamaDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}


def is_supported(layer: Any) -> bool:
    """Whether `layer` is a decoder layer that a Block can stand for."""
    return type(layer).__name__ in LAYERS and layer.self_attn.config.hidden_act in _ACTIVATIONS


class Block(nn.Module):
    """Stands in for a decoder layer: `model.model.layers[i] = Block(model.model.layers[i])`, or use `patch`."""

    self_attn: Any
    mlp: Any
    input_layernorm: Any
    post_attention_layernorm: Any

    def __init__(self, layer: Any) -> None:
        super().__init__()
        if not is_supported(layer):
            raise ValueError(f"{type(layer).__name__} is no layer that a Block can stand for: {', '.join(LAYERS)}")
        self.self_attn = layer.self_attn
        self.mlp = layer.mlp
        self.input_layernorm = layer.input_layernorm
        self.post_attention_layernorm = layer.post_attention_layernorm
        if hasattr(layer, "attention_type"):
            self.attention_type = layer.attention_type
        # The layer's own way, for what the fused parts cannot do. Not a registered child: its modules are ours already.
        self._whole: tuple[Callable[..., torch.Tensor]] = (layer.forward,)
        self._fused: dict[str, torch.Tensor] = {}

    def forward(  # noqa: PLR0917  # transformers' signature
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """As the layer's own forward: hidden_states (B, T, D) → (B, T, D).

        With `cu_seq_lens_q` (bounds of documents within the B · T tokens, as transformers names them) attention stays
        within documents by `packed_attention`, and the mask is not looked at; not with a cache, nor where
        Qwen 3's norms of heads run as modules of their own (`_head_norm`).
        """
        linears = self._linears(len(hidden_states))
        if linears is None or position_embeddings is None:
            return self._whole[0](
                hidden_states,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                position_embeddings=position_embeddings,
                **kwargs,
            )
        h = hidden_states.reshape(-1, hidden_states.shape[-1])
        o = self._attention(
            h, hidden_states.shape, linears, attention_mask, past_key_values, position_embeddings, kwargs
        )
        out = linears["o_proj"]
        h = residual_linear(o, out.weight, out.bias, self._adapters([out], o), h)
        gate, up, down = (linears[name] for name in ("gate_proj", "up_proj", "down_proj"))
        h = norm_mlp(
            h,
            self.post_attention_layernorm.weight,
            self._together("gate_up", [gate, up], is_interleaved=True),
            down.weight,
            (self._adapters([gate, up], h, is_interleaved=True), self._adapters([down], h)),
            eps=self.post_attention_layernorm.variance_epsilon,
            activation=_ACTIVATIONS[self.self_attn.config.hidden_act],
        )
        return h.view(hidden_states.shape)

    def __getstate__(self) -> dict[str, Any]:
        """For copies, whose parameters are no views of the matrices: they make their own at first use."""
        return self.__dict__ | {"_fused": {}}

    def release(self) -> None:
        """Give each parameter memory of its own again, as before the first use."""
        if self._fused:
            for parameter in self.parameters():
                if any(
                    parameter.untyped_storage().data_ptr() == f.untyped_storage().data_ptr()
                    for f in self._fused.values()
                ):
                    parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        self._fused.clear()

    def _linears(self, samples: int) -> dict[str, Linear] | None:
        """The layer's linears at this call, or None if the parts cannot do what they are."""
        others = (self.self_attn, self.mlp, self.input_layernorm, self.post_attention_layernorm)
        if any(has_hooks(module) for module in others):
            return None
        found: dict[str, Linear] = {}
        for parent, together in (
            (self.self_attn, ("q_proj", "k_proj", "v_proj")),
            (self.self_attn, ("o_proj",)),
            (self.mlp, ("gate_proj", "up_proj")),
            (self.mlp, ("down_proj",)),
        ):
            rank = 0
            for name in together:
                linear = self._linear(getattr(parent, name), samples)
                if linear is None or (parent is self.mlp and linear.bias is not None):
                    return None
                found[name] = linear
                rank += sum(adapter.a.shape[0] for adapter in linear.adapters)
            if rank > RANK_MAX:
                return None
        return found

    @staticmethod
    def _linear(module: nn.Module, samples: int) -> Linear | None:
        is_free, names = adapter_names(module)
        if not is_free or (names is not None and len(names) != samples):
            return None
        linear = as_linear(module, names)
        if linear is not None and linear.magnitude is not None and linear.has_dropout:
            return None
        return linear

    def _attention(  # noqa: PLR0917  # what one layer's attention takes
        self,
        h: torch.Tensor,
        shape: torch.Size,
        linears: dict[str, Linear],
        mask: torch.Tensor | None,
        cache: Any,
        positions: tuple[torch.Tensor, torch.Tensor],
        kwargs: dict[str, Any],
    ) -> torch.Tensor:
        """norm → queries, keys, values → RoPE → attention, as transformers calls it: (M, heads · head_dim)."""
        attn = self.self_attn
        modeling = sys.modules[type(attn).__module__]
        batch, length, _ = shape
        head_dim = attn.head_dim
        parts = [linears[name] for name in ("q_proj", "k_proj", "v_proj")]
        rows = [part.weight.shape[0] for part in parts]
        head_norm = self._head_norm(parts, rows[0] // head_dim)
        has_norm = hasattr(attn, "q_norm") and head_norm is None  # of its own modules, after the part
        half = head_dim // 2
        cos, sin = (table.expand(batch, length, -1)[..., :half].reshape(-1, half).float() for table in positions)
        turned = (rows[0] + rows[1]) // head_dim
        rotary = None if has_norm else (cos.contiguous(), sin.contiguous(), turned)
        bias = None
        if any(part.bias is not None for part in parts):
            bias = torch.cat(
                [
                    torch.zeros(count, device=h.device) if part.bias is None else part.bias
                    for part, count in zip(parts, rows, strict=True)
                ]
            )
        base = self._together("qkv", parts, is_interleaved=False)
        norm = self.input_layernorm
        adapters = self._adapters(parts, h)
        y = norm_qkv(h, norm.weight, base, bias, adapters, rotary, eps=norm.variance_epsilon, head_norm=head_norm)
        heads = [part.view(batch, length, -1, head_dim) for part in torch.split(y, rows, 1)]
        if has_norm:
            heads[0], heads[1] = attn.q_norm(heads[0]), attn.k_norm(heads[1])
        bounds = kwargs.get("cu_seq_lens_q")
        is_plain = cache is None and getattr(attn, "sliding_window", None) is None and not has_norm
        if bounds is not None and is_plain and not (self.training and attn.attention_dropout):
            q, k, v = (part.reshape(batch * length, -1, head_dim) for part in heads)
            return packed_attention(q, k, v, bounds, scale=attn.scaling).flatten(1)
        query, key, value = (part.transpose(1, 2) for part in heads)
        if has_norm:
            query, key = modeling.apply_rotary_pos_emb(query, key, *positions)
        if cache is not None:
            key, value = cache.update(key, value, attn.layer_idx)
        if getattr(attn, "sliding_window", None) is not None:
            kwargs = {**kwargs, "sliding_window": attn.sliding_window}
        attend = modeling.ALL_ATTENTION_FUNCTIONS.get_interface(
            attn.config._attn_implementation, modeling.eager_attention_forward
        )
        dropout = attn.attention_dropout if self.training else 0.0
        o, _ = attend(attn, query, key, value, mask, dropout=dropout, scaling=attn.scaling, **kwargs)
        attended: torch.Tensor = o.reshape(batch * length, -1)
        return attended

    def _head_norm(self, parts: list[Linear], queries: int) -> HeadNorm | None:
        """Qwen 3's norms of queries and keys, or None where there are none, or the part cannot do them."""
        if not hasattr(self.self_attn, "q_norm") or any(part.magnitude is not None for part in parts):
            return None
        query, key = self.self_attn.q_norm, self.self_attn.k_norm
        if has_hooks(query) or has_hooks(key) or query.variance_epsilon != key.variance_epsilon:
            return None
        return HeadNorm(torch.stack((query.weight, key.weight)), queries, query.variance_epsilon)

    def _adapters(self, linears: list[Linear], like: torch.Tensor, *, is_interleaved: bool = False) -> Joined | None:
        device = like.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype
        return join(linears, like.shape[0], dtype, is_interleaved=is_interleaved)

    def _together(self, name: str, linears: list[Linear], *, is_interleaved: bool) -> Base:
        """The weights as one base. Frozen plain ones become views of one matrix, which is kept."""
        weights = [linear.weight for linear in linears]
        if any(isinstance(weight, QuantisedTensor) for weight in weights):
            return tuple(weights)
        if any(weight.requires_grad for weight in weights):
            return torch.stack(weights, 1).flatten(0, 1) if is_interleaved else torch.cat(weights)
        fused = self._fused.get(name)
        if fused is None or not all(
            weight.data_ptr() == view.data_ptr() and weight.dtype == fused.dtype
            for weight, view in zip(weights, _views(fused, weights, is_interleaved), strict=True)
        ):
            with torch.no_grad():
                fused = torch.stack(weights, 1).flatten(0, 1) if is_interleaved else torch.cat(weights)
                for weight, view in zip(weights, _views(fused, weights, is_interleaved), strict=True):
                    weight.data = view
            self._fused[name] = fused
        return fused


def _views(fused: torch.Tensor, weights: list[torch.Tensor], is_interleaved: bool) -> list[torch.Tensor]:
    if is_interleaved:
        return [fused[index :: len(weights)] for index in range(len(weights))]
    return list(torch.split(fused, [weight.shape[0] for weight in weights]))
