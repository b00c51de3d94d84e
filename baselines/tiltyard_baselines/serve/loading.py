"""Loading a checkpoint for serving, with an adapter merged into it, or beside a base in four bits."""

import logging
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")
QUANTISATIONS = ("nf4",)
# Layers of fewer columns run on plain PyTorch unless told otherwise: beside launches, which CUDA graphs spare both,
# a small model gains nothing, and compiling its kernels takes 8 s of the first process.
KERNELS_FROM_COLUMNS = 1024


def load_model(
    model_path: Path,
    adapter_path: Path | None,
    device: str,
    dtype_name: str | None = None,
    *,
    quantise: str | None = None,
    on_kernels: bool | None = None,
) -> tuple[Any, Any]:
    """Return model and tokenizer; ``dtype_name`` is one of ``DTYPES``, or None for fp32 on a CPU and bf16 on CUDA.

    torch and transformers are imported here, after the server has bound its port. A LoRA adapter is merged into the
    weights, so that it costs nothing at run time; merging happens in fp32 and is then rounded once. With ``quantise``
    (one of ``QUANTISATIONS``) the base stays in four bits, and the adapter beside it is computed at every token.
    ``on_kernels`` runs the layers on ``tiltyard_kernels``; by default on CUDA, if the model is quantised or has layers
    of ``KERNELS_FROM_COLUMNS`` or more. Four-bit weights are theirs in any case, widened by plain PyTorch where there
    is no GPU.
    """
    started = time.monotonic()
    import torch  # noqa: PLC0415  slow; see the docstring
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        model_path, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    )
    if quantise is not None:
        _quantise(model, quantise)
    if adapter_path is not None:
        from peft import PeftModel  # noqa: PLC0415

        adapted = PeftModel.from_pretrained(model, adapter_path)
        model = adapted.merge_and_unload() if quantise is None else adapted.get_base_model()
    dtype_name = dtype_name or ("bfloat16" if device.startswith("cuda") else "float32")
    model = model.to(device=device, dtype=getattr(torch, dtype_name)).eval().requires_grad_(False)
    if device.startswith("cuda"):
        # cuDNN plans each shape of attention anew, 4 ms a call, and the shapes of prompts change all the time.
        torch.backends.cuda.enable_cudnn_sdp(False)
    if on_kernels is None:
        on_kernels = runs_on_kernels(device, quantise, model.config.hidden_size)
    if on_kernels:
        from tiltyard_kernels import patch  # noqa: PLC0415

        patch(model)
    details = (adapter_path, quantise or "plain", time.monotonic() - started)
    logger.info("loaded %s (adapter: %s, weights: %s) in %.1f s", model_path, *details)
    return model, tokenizer


def runs_on_kernels(device: str, quantise: str | None, columns: int) -> bool:
    """Whether layers of so many columns run on ``tiltyard_kernels`` where nobody says."""
    return device.startswith("cuda") and (quantise is not None or columns >= KERNELS_FROM_COLUMNS)


def _quantise(model: Any, kind: str) -> None:
    from tiltyard_baselines.quantised import quantise_base  # noqa: PLC0415  needs torch

    if kind not in QUANTISATIONS:
        raise ValueError(f"cannot quantise to {kind!r}; choose one of {', '.join(QUANTISATIONS)}")
    quantise_base(model)
