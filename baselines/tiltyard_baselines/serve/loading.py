"""Loading a checkpoint, with an adapter merged into it, for serving."""

import logging
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")


def load_model(
    model_path: Path, adapter_path: Path | None, device: str, dtype_name: str | None = None
) -> tuple[Any, Any]:
    """Return model and tokenizer; ``dtype_name`` is one of ``DTYPES``, or None for fp32 on a CPU and bf16 on CUDA.

    torch and transformers are imported here, after the server has bound its port. A LoRA adapter is merged into the
    weights, so that it costs nothing at run time; merging happens in fp32 and is then rounded once.
    """
    started = time.monotonic()
    import torch  # noqa: PLC0415  slow; see the docstring
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        model_path, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    )
    if adapter_path is not None:
        from peft import PeftModel  # noqa: PLC0415

        model = PeftModel.from_pretrained(model, adapter_path).merge_and_unload()
    dtype_name = dtype_name or ("bfloat16" if device.startswith("cuda") else "float32")
    model = model.to(device=device, dtype=getattr(torch, dtype_name)).eval()
    logger.info("loaded %s (adapter: %s) in %.1f s", model_path, adapter_path, time.monotonic() - started)
    return model, tokenizer
