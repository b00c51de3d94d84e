"""Kernels run on a GPU where there is one (`-m gpu` for the tests of its types), else in Triton's interpreter.

Triton decides between them when it is imported, so the variable must be set before: by the conftest above this one, or
here when these tests run by themselves.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/kernels/" not in item.path.as_posix():
            continue
        # NumPy under the interpreter: a sigmoid of a large number overflows on its way to 0.
        item.add_marker(pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"))
        item.add_marker(pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"))
        item.add_marker(pytest.mark.filterwarnings("ignore:divide by zero encountered:RuntimeWarning"))
        # torch.compile itself, where it traces an autograd function.
        item.add_marker(pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"))
        if not HAS_GPU and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture
def device() -> torch.device:
    """The GPU, or the CPU with kernels in the interpreter."""
    if HAS_GPU:
        return torch.device("cuda")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.fail("Triton was imported without its interpreter: start with TRITON_INTERPRET=1 in the environment")
    return torch.device("cpu")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20261124)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Makes a patched model's layers fail where they would run as they were before."""

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        pytest.fail("the layer ran as itself")

    def forbid(model: Any) -> None:
        for module in model.modules():
            block = module.__dict__.get("_tiltyard_block")
            if block is not None:
                monkeypatch.setattr(block, "_whole", (refuse,))

    return forbid
