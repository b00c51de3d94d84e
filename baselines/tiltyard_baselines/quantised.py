"""The frozen base of QLoRA: the linears of the decoder layers in NF4, everything else as it is.

Training and serving both call ``quantise_base`` on the checkpoint's fp32 weights, on the CPU, so that an adapter always
meets the very codes that it was trained over.
"""

from typing import Any

from tiltyard_kernels.quantise import Nf4, quantize_

LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NF4 = Nf4(group=64, double=True)  # as QLoRA (Dettmers et al., 2023) and bitsandbytes have it: 4.127 bits a weight


def quantise_base(model: Any) -> list[str]:
    """Replace the linears' weights in place and return their names.

    Embeddings, norms and the head stay. Raises ValueError for a weight whose rows are not whole groups of 64, and for
    a model without such linears.
    """
    names = quantize_(model, NF4, lambda _module, name: name.rpartition(".")[2] in LINEAR_LAYERS)
    if not names:
        raise ValueError(f"{type(model).__name__} has no linear named {', '.join(LINEAR_LAYERS)} to quantise")
    return names
