"""A tiny model with random weights and its tokenizer, made once; nothing is downloaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tiltyard_baselines.config import ModelConfig
from tiltyard_baselines.data import Item
from tiltyard_baselines.pretrain import build_model, save_checkpoint
from tiltyard_baselines.serve.engine import Engine
from tiltyard_baselines.serve.runner import ModelRunner
from tiltyard_baselines.tokenizer import build_tokenizer

torch.set_num_threads(1)  # several threads spend more time waiting for each other than computing on this model

TINY = ModelConfig(hidden_size=32, intermediate_size=64, layers=2, heads=4, kv_heads=2, context_tokens=128)


@pytest.fixture(scope="session")
def copy_items() -> list[Item]:
    """A task that a tiny model learns in seconds: say the letter again."""
    return [Item(f"Say {letter}.\nAnswer:", letter, "copy", 1) for letter in "abcdefghijklmnop"]


@pytest.fixture(scope="session")
def tokenizer(copy_items: list[Item]) -> Any:
    return build_tokenizer(copy_items)


@pytest.fixture(scope="session")
def tiny_model(tokenizer: Any) -> Any:
    """Random fp32 weights, larger than usual so that the next token is not always the same."""
    torch.manual_seed(0)
    model = build_model(TINY, tokenizer).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    return model


@pytest.fixture(scope="session")
def checkpoint(tiny_model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a folder that transformers loads."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(tiny_model, tokenizer, folder)
    return folder


@pytest.fixture
def engine(tiny_model: Any, tokenizer: Any) -> Iterator[Engine]:
    engine = Engine(ModelRunner(tiny_model, tokenizer, slots=4, max_context_tokens=128))
    yield engine
    engine.stop()
