"""The tutorial's code runs as it stands."""

import re
from pathlib import Path

import pytest
import torch

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "write-an-epilogue.md"


@pytest.mark.usefixtures("device")
def test_tutorial(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert len(blocks) == 7
    namespace: dict[str, object] = {}
    with torch.device("cpu"):
        for block in blocks:
            exec(compile(block, TUTORIAL.name, "exec"), namespace)  # noqa: S102  # our own page
    assert "def epilogue(acc, tiles, args" in capsys.readouterr().out
