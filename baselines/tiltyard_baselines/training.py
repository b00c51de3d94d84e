"""The training loop shared by pretraining and by adapters: schedule, optimisers, log."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tiltyard_baselines.data import Batch

LOG_EVERY_STEPS = 10


@dataclass(frozen=True)
class Schedule:
    """Trapezoid learning-rate schedule over steps or wall time, whichever is further along."""

    max_steps: int
    wall_s: float
    warmup_fraction: float
    decay_fraction: float

    def progress(self, step: int, elapsed_s: float) -> float:
        """Return the share of the run that is done, 0..1."""
        return min(1.0, max(step / self.max_steps, elapsed_s / self.wall_s))

    def scale(self, progress: float) -> float:
        """Return the factor on the base learning rate: linear up, flat, linear down to 0."""
        warm = progress / self.warmup_fraction if self.warmup_fraction else 1.0
        cool = (1.0 - progress) / self.decay_fraction if self.decay_fraction else 1.0
        return max(0.0, min(1.0, warm, cool))


def build_optimizers(
    model: torch.nn.Module, muon_lr: float, adam_lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Return Muon for the hidden matrices and AdamW for embeddings and norms.

    Muon (Jordan et al., 2024) orthogonalises each matrix's momentum; on small transformers it needs clearly fewer
    tokens for the same loss than AdamW.
    """
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    hidden = [parameter for name, parameter in trainable if parameter.ndim == 2 and "embed" not in name]
    other = [parameter for name, parameter in trainable if parameter.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(hidden, lr=muon_lr, weight_decay=weight_decay, momentum=0.95),
        torch.optim.AdamW(other, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def weighted_loss(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the weighted mean cross-entropy and, detached, that of answer tokens alone (both scalars, in nats).

    ``logits`` is (B, T, V); position t predicts token t + 1.
    """
    targets, weights = batch.tokens[:, 1:].flatten(), batch.weights[:, 1:].flatten()
    losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets, reduction="none")
    answers = (weights == 1.0).float()
    answer_loss = (losses.detach() * answers).sum() / answers.sum().clamp(min=1)
    return (losses * weights).sum() / weights.sum().clamp(min=1), answer_loss


def train(
    model: Any,
    batches: Iterator[Batch],
    optimizers: Sequence[torch.optim.Optimizer],
    schedule: Schedule,
    *,
    device: torch.device,
    log_path: Path,
    gradient_clip: float = 1.0,
    log_every: int = LOG_EVERY_STEPS,
    compute: torch.dtype = torch.bfloat16,
    checkpoint: Callable[[], None] = lambda: None,
    checkpoint_every_s: float = 300.0,
) -> int:
    """Train until the schedule ends and return the number of steps taken.

    Computes in autocast to ``compute`` over fp32 weights; fp32 leaves autocast out. Writes ``{"step", "elapsed_s",
    "tokens", "loss", "answer_loss", "lr_scale"}`` to ``log_path`` every ``log_every`` steps; calls ``checkpoint`` now
    and then.
    """
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    base_lrs = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    started = saved = time.monotonic()
    step = tokens = 0
    sums = torch.zeros(2, device=device)
    with log_path.open("w", encoding="utf-8") as log:
        while (progress := schedule.progress(step, time.monotonic() - started)) < 1.0:
            scale = schedule.scale(progress)
            for optimizer, lrs in zip(optimizers, base_lrs, strict=True):
                for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                    group["lr"] = lr * scale
            batch = next(batches).to(device)
            sums += torch.stack(_step(model, batch, optimizers, parameters, clip=gradient_clip, compute=compute))
            step += 1
            tokens += batch.tokens.numel()
            if step % log_every == 0:
                loss, answer_loss = (sums / log_every).tolist()
                record = {"step": step, "elapsed_s": round(time.monotonic() - started, 1), "tokens": tokens}
                record |= {"loss": round(loss, 6), "answer_loss": round(answer_loss, 6), "lr_scale": round(scale, 4)}
                log.write(json.dumps(record) + "\n")
                log.flush()
                sums.zero_()
            if time.monotonic() - saved > checkpoint_every_s:
                checkpoint()
                saved = time.monotonic()
    return step


def _step(
    model: Any,
    batch: Batch,
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: list[torch.nn.Parameter],
    *,
    clip: float,
    compute: torch.dtype,
) -> tuple[Tensor, Tensor]:
    with torch.autocast(batch.tokens.device.type, compute, enabled=compute != torch.float32):
        logits = model(
            input_ids=batch.tokens,
            position_ids=batch.positions,
            attention_mask=batch.attention_mask(),
            use_cache=False,
        ).logits
        loss, answer_loss = weighted_loss(logits, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(parameters, clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss.detach(), answer_loss
