"""How long a fresh process takes until an 8B-shaped LoRA model has made its first training step, and its second.

    PYTHONPATH=kernels:benchmarks/kernels python benchmarks/kernels/first_call.py     one line of JSON, in seconds

Compiled kernels are where TRITON_CACHE_DIR says; `run_all.py --part first-call` runs this with that folder empty, then
with what the first process left in it, then with the archive that `tiltyard_kernels.cache` builds without a GPU.
Weights are random, and their making is no part of the time. `compiled` and `found` count kernels, PyTorch's own ones
left out, which need no compiling.
"""

import json
import sys
import time
from pathlib import Path

START = time.perf_counter()

import torch  # noqa: E402  # imports are part of what is measured
import triton  # noqa: E402
from harness import Bench  # noqa: E402
from parts_training import llama, training_step, with_adapters  # noqa: E402

from tiltyard_kernels import patch  # noqa: E402


def main() -> None:
    found = [0, 0]

    def listen(*, cache_hit: bool, **_others: object) -> None:
        found[cache_hit] += 1

    triton.knobs.compilation.listener = listen
    bench = Bench(Path("unused.json"), float("inf"), is_tiny="--tiny" in sys.argv)
    imported = time.perf_counter()
    made = with_adapters(llama(bench), 16)
    tokens = torch.randint(0, 64, (bench.size(4, 2), bench.size(2048, 8)), device=bench.device)
    wait(bench)
    built = time.perf_counter()
    patch(made)
    run = training_step(made, tokens)
    seconds = {"imports": imported - START}
    for name in ("patch and first step", "second step"):
        run()
        wait(bench)
        now = time.perf_counter()
        seconds[name] = now - built
        built = now
    sys.stdout.write(json.dumps({"seconds": seconds, "compiled": found[0], "found": found[1]}) + "\n")


def wait(bench: Bench) -> None:
    if not bench.is_tiny:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
