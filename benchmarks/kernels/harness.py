"""What the benchmarks share: devices, timing, peers that may not be there, and results that survive being cut off."""

import importlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tiltyard_kernels.gemm.tune import captured

Call = Callable[[], Any]


class BudgetSpentError(Exception):
    """No time is left to start another row."""


@dataclass
class Bench:
    """One run: where it works, how large, and what it has found.

    `is_tiny` shrinks every size and runs on the CPU: it shows that the parts work and measures nothing.
    """

    out: Path
    deadline: float
    is_tiny: bool = False
    mode: str = "max-autotune-no-cudagraphs"
    repetitions: int = 15
    tokens: tuple[int, ...] = (2048, 8192, 16384)  # of the MLP and the projections
    ranks: tuple[int, ...] = (16, 64)  # of the LoRA steps
    without: tuple[str, ...] = ()  # peers with one of these in their names are left out
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def device(self) -> str:
        return "cpu" if self.is_tiny else "cuda"

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.is_tiny else torch.bfloat16

    def randn(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape, device=self.device) * scale).to(self.dtype)

    def size(self, full: int, tiny: int) -> int:
        return tiny if self.is_tiny else full

    def leaves_out(self, name: str) -> bool:
        return any(part in name for part in self.without)

    def peer(self, name: str) -> Any | None:
        """An optional package, or None; why is noted."""
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            self.missing[name] = f"not there: {error}"
            return None

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """torch.compile in this run's mode; plain when tiny, where compiling would measure patience."""
        return function if self.is_tiny else torch.compile(function, mode=self.mode, dynamic=False)

    def compare(
        self, what: str, calls: Mapping[str, Call], *, in_graphs: bool = True, facts: Mapping[str, float] | None = None
    ) -> None:
        """Time `calls`, ours among them as "ours", taking turns; keep medians in ms. A peer that fails is noted.

        `facts` are kept beside them: FLOPs, bytes, or a floor in ms.
        """
        if not self.is_wanted(what):
            return
        runnable: dict[str, Call] = {}
        errors: dict[str, str] = {}
        for name, call in calls.items():
            if self.leaves_out(name):
                continue
            try:
                call()
                runnable[name] = self._graph(call) if in_graphs and not self.is_tiny else call
            except Exception as error:  # whatever a peer raises is its result
                if self.is_tiny:
                    raise
                errors[name] = f"{type(error).__name__}: {error}"[:300]
        times: dict[str, list[float]] = {name: [] for name in runnable}
        for _ in range(1 if self.is_tiny else self.repetitions):
            for name, call in runnable.items():
                times[name].append(self._once(call))
        medians = {name: statistics.median(found) for name, found in times.items()}
        self.keep(what, {"ms": medians, "errors": errors, **(facts or {})})

    def is_wanted(self, what: str) -> bool:
        """Whether the row is still missing. Raises BudgetSpentError where no time is left for it."""
        if what in self.rows:
            return False
        if time.monotonic() > self.deadline:
            raise BudgetSpentError(what)
        return True

    def keep(self, what: str, row: dict[str, Any]) -> None:
        if any("compile" in name for name in row.get("ms", {})):
            row["compile_mode"] = self.mode
        self.rows[what] = row
        ms = " ".join(f"{name} {value:.4g}" for name, value in row.get("ms", {}).items())
        print(what, ms, *(f"[{name}: {text}]" for name, text in row.get("errors", {}).items()), flush=True)
        self.save()

    def save(self) -> None:
        header = {"device": "cpu, tiny: no measurement" if self.is_tiny else torch.cuda.get_device_name()}
        header |= {"torch": torch.__version__, "compile_mode": self.mode}
        text = json.dumps({**header, "missing": self.missing, "rows": self.rows}, indent=1)
        self.out.write_text(text + "\n")

    def _graph(self, call: Call) -> Call:
        replay: Call = captured(call).replay
        return replay

    def _once(self, call: Call) -> float:
        if self.is_tiny:
            start = time.perf_counter()
            call()
            return (time.perf_counter() - start) * 1e3
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        call()
        end.record()
        end.synchronize()
        milliseconds: float = begin.elapsed_time(end)
        return milliseconds


def gradients(
    function: Callable[..., torch.Tensor], leaves: list[torch.Tensor], dy: torch.Tensor | None = None
) -> Call:
    """A call that runs `function` over its leaves forward and backward."""

    def run() -> Any:
        y = function(*leaves)
        return torch.autograd.grad(y, [leaf for leaf in leaves if leaf.requires_grad], dy)

    return run


def rotating(calls: list[Call]) -> Call:
    """One call after the other, so that what they read does not stay in the cache."""
    return partial(_all, calls)


def _all(calls: list[Call]) -> None:
    for call in calls:
        call()
