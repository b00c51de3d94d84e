"""Do a CPU and a GPU give the same answers? One submission, one suite, every placement, item by item.

    python benchmarks/device_agreement.py --model baselines/squire --adapter baselines/submissions/lora/adapter \
        --suite competitions/demo/suites/open --placement cpu:float32 cuda:bfloat16 cuda:float32

Starts the baselines' server once for each placement (device:dtype), runs the evaluator against it over loopback, and
prints for each placement the score, the wall time, and the share of items whose greedy answer differs from the first
placement's. Give a placement twice to see how far it agrees with itself.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    """What one placement answered: score in 0..1, seconds from ready server to result, answers and scores by item."""

    placement: str
    score: float
    seconds: float
    answers: dict[tuple[str, int], tuple[str, float]]


def main() -> None:
    options = _parse_arguments()
    outcomes = [evaluate(options, placement) for placement in options.placement]
    first = outcomes[0]
    print(f"{'placement':<16} {'score':>7} {'seconds':>8} {'other answer':>13} {'other score':>12}")
    for outcome in outcomes:
        answers = sum(outcome.answers[item][0] != first.answers[item][0] for item in first.answers)
        scores = sum(outcome.answers[item][1] != first.answers[item][1] for item in first.answers)
        items = len(first.answers)
        print(
            f"{outcome.placement:<16} {outcome.score:>7.1%} {outcome.seconds:>8.1f}"
            f" {answers:>4} = {answers / items:>5.1%} {scores:>4} = {scores / items:>5.1%}"
        )


def evaluate(options: argparse.Namespace, placement: str) -> Outcome:
    """Serve on ``placement``, evaluate, stop the server."""
    device, dtype = placement.split(":")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tiltyard_baselines.serve", "--model", str(options.model), "--port", str(port)]
    command += ["--adapter", str(options.adapter)] if options.adapter else []
    command += ["--device", device, "--dtype", dtype, "--threads", str(options.threads)]
    paths = [str(ROOT / folder) for folder in ("baselines", "evaluator")]
    paths += [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    server = subprocess.Popen(command, env=environment)
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            wait_until_ready(server, f"http://127.0.0.1:{port}/v1/models")
            run = [sys.executable, "-m", "tiltyard_eval", "run", "--url", f"http://127.0.0.1:{port}"]
            run += ["--adapter", options.protocol, "--suite", str(options.suite), "--out", str(out)]
            subprocess.run([*run, "--progress", "plain"], env=environment, check=True, stdout=subprocess.DEVNULL)
            result = json.loads((out / "result.json").read_text(encoding="utf-8"))
            lines = (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    finally:
        server.terminate()
        server.wait()
    samples = [json.loads(line) for line in lines]
    answers = {(s["task"], s["index"]): (s["answer"], s["score"]) for s in samples}
    return Outcome(placement, result["score"]["value"], result["timing"]["wall_s"], answers)


def wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    """Return when the server has loaded its model; a server that ends before raises ``SystemExit``."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server ended before it was ready; its log is above")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare one model's answers on several devices and dtypes.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--protocol", choices=("openai", "native"), default="openai")
    parser.add_argument("--placement", nargs="+", default=["cpu:float32", "cuda:bfloat16"], metavar="DEVICE:DTYPE")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
