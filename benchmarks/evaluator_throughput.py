"""The evaluator beside stock lm-eval, its peer, on the same machine, tasks and server: wall time and start-up.

    python benchmarks/evaluator_throughput.py [--latency 0 0.05] [--items 1000] [--settings quick|all] [--squire 100]

Each contestant is a process of its own, from its start to its end, imports included. Stock lm-eval runs
`local-completions` with a local tokenizer, in several settings of batch size and concurrency, of which the best one
counts; its index of tasks is the default one, as its command makes it. Start-up is the time from the start of the
process to the first request with a question of the suite. 1,000 items are 4,000 log-likelihoods (four choices each) and
1,000 generations. `--squire N` adds N items against the baselines' server on the CPU, where the model takes the time.
"""

import argparse
import contextlib
import json
import math
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tiltyard_eval.suite import lock_suite
from tiltyard_eval.suite.likelihood_yaml import likelihood_task_yaml
from tiltyard_eval.suite.task_yaml import task_yaml

ROOT = Path(__file__).resolve().parents[1]
SQUIRE = ROOT / "baselines" / "squire"
STOCK = """
import json, sys
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
job = json.loads(sys.argv[1])
simple_evaluate(
    model="local-completions",
    model_args={"model": "none", "base_url": job["url"] + "/v1/completions", "tokenizer": job["tokenizer"],
                "tokenizer_backend": "huggingface", "num_concurrent": job["concurrent"], "max_length": 100000},
    batch_size=job["batch"],
    tasks=[job["task"]],
    task_manager=TaskManager(include_path="tasks"),
    bootstrap_iters=0,
)
"""
STOCK_SETTINGS = {
    "quick": ((16, 1), (1, 16), (16, 16)),
    "all": ((1, 1), (16, 1), (64, 1), (256, 1), (1, 16), (1, 64), (16, 16), (64, 16), (64, 4)),
}
# The first two are what a user gets who sets nothing.
OUR_SETTINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "quick": (("openai",), ("native",), ("native", "--batch-size", "64")),
    "all": (
        *(("openai",), ("native",), ("openai", "--batch-size", "64"), ("native", "--batch-size", "64")),
        *(("openai", "--concurrency", "16"), ("native", "--concurrency", "16"), ("openai", "--concurrency", "1")),
    ),
}


@dataclass(frozen=True)
class Measurement:
    """One process: what ran, seconds from its start to its first question and to its end, requests it sent.

    `_cpu_s` are seconds of processor time, which other work on the machine stretches far less. Only the benchmark's own
    server tells of the questions and requests.
    """

    name: str
    wall_s: float
    cpu_s: float
    startup_s: float = math.nan
    startup_cpu_s: float = math.nan
    requests: int = 0


def make_suite(folder: Path, task: str, items: int) -> Path:
    """A suite of one task, `choices` (multiple choice of four) or `texts` (generation)."""
    (folder / "tasks").mkdir(parents=True)
    (folder / "data").mkdir()
    several = task == "choices"
    config = (
        likelihood_task_yaml(task, "multiple_choice", ["acc", "acc_norm"]) if several else task_yaml(task, task, 16)
    )
    (folder / "tasks" / f"{task}.yaml").write_text(yaml.safe_dump(config))
    rows = [
        {
            "prompt": f"Question {n}: which of the numbers is {n} plus {n}, as anyone can work out?\nAnswer:",
            "answer": str(2 * n),
            **({"choices": [str(2 * n + more) for more in range(4)]} if several else {}),
        }
        for n in range(items)
    ]
    (folder / "data" / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    meta = {"name": task, "title": task, "version": "1", "visibility": "open", "trusts_server": True}
    meta["tasks"] = [{"name": task, "title": task, "family": "speed"}]
    (folder / "suite.yaml").write_text(yaml.safe_dump(meta))
    return lock_suite(folder).root


@contextlib.contextmanager
def server(latency_s: float | None) -> Iterator[str]:
    """A fresh server, so that its first request is the contestant's; None stands for squire on the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    if latency_s is None:
        command = ["-m", "tiltyard_baselines.serve", "--model", str(SQUIRE), "--device", "cpu", "--port", port]
    else:
        command = [str(Path(__file__).with_name("throughput_server.py")), "--port", port, "--latency", str(latency_s)]
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while not _is_ready(url):
            if process.poll() is not None:
                sys.exit("the server ended")
            time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health") as answer:
            return int(answer.status) == 200
    except OSError:
        return False


def measure(name: str, command: list[str], suite: Path, url: str) -> Measurement:
    """Run a contestant to its end; ends the benchmark when it fails."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    environment["HF_HOME"] = str(suite.parent / f"hf-{time.monotonic_ns()}")
    started_at, started, before = time.time(), time.monotonic(), _cpu_of_children_s()
    first_cpu_s = math.nan
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=environment, cwd=suite, stdout=said, stderr=said, text=True)
        while process.poll() is None:
            if math.isnan(first_cpu_s) and (_stats(url) or {}).get("first_at"):
                first_cpu_s = _cpu_so_far_s(process.pid)
            time.sleep(0.02)
        wall_s, cpu_s = time.monotonic() - started, _cpu_of_children_s() - before
        if process.returncode != 0:
            said.seek(0)
            sys.exit(f"{name} failed:\n{said.read()[-4000:]}")
    stats = _stats(url)
    if stats is None:
        return Measurement(name, wall_s, cpu_s)
    return Measurement(name, wall_s, cpu_s, stats["first_at"] - started_at, first_cpu_s, stats["requests"])


def _stats(url: str) -> dict[str, Any] | None:
    """What the benchmark's own server has counted; None of another server."""
    try:
        with urllib.request.urlopen(f"{url}/stats") as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError:
        return None


def _cpu_of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_so_far_s(pid: int) -> float:
    """Processor time of a running process and the children it has waited for; NaN when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.nan
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def compete(suite: Path, task: str, latency_s: float | None, settings: str) -> list[Measurement]:
    """Stock lm-eval in all settings, then the evaluator in all of its own."""
    found = []
    for batch, concurrent in STOCK_SETTINGS[settings]:
        with server(latency_s) as url:
            job = {"url": url, "tokenizer": str(SQUIRE), "batch": batch, "concurrent": concurrent, "task": task}
            name = f"lm-eval, batch {batch}, concurrency {concurrent}"
            found.append(measure(name, [sys.executable, "-c", STOCK, json.dumps(job)], suite, url))
    for adapter, *extra in OUR_SETTINGS[settings]:
        with server(latency_s) as url:
            out = suite.parent / f"out-{time.monotonic_ns()}"
            command = [sys.executable, "-m", "tiltyard_eval", "run", "--url", url, "--adapter", adapter]
            command += ["--suite", str(suite), "--out", str(out), *extra]
            found.append(measure(f"tiltyard, {adapter}, {' '.join(extra) or 'default'}", command, suite, url))
    return found


def report(title: str, found: list[Measurement]) -> None:
    """A table, and the ratios of the best of each."""
    print(f"\n{title}\n{'':44} start-up s    of it CPU   wall s    CPU s   requests")
    for one in found:
        print(
            f"{one.name:44} {one.startup_s:10.2f} {one.startup_cpu_s:12.2f} {one.wall_s:8.2f} {one.cpu_s:8.2f}"
            f" {one.requests:10}"
        )
    stock = [one for one in found if one.name.startswith("lm-eval")]
    ours = [one for one in found if one not in stock]
    defaults = [one for one in ours if one.name.endswith("default")]
    for name, some in (("the defaults", defaults), ("the best", ours)):
        # The slowest of the defaults counts, since a user sets nothing; the fastest of lm-eval's settings always.
        wall = (max if some is defaults else min)(one.wall_s for one in some) / min(one.wall_s for one in stock)
        startup = max(one.startup_s for one in some) / min(one.startup_s for one in stock)
        cpu = max(one.startup_cpu_s for one in some) / min(one.startup_cpu_s for one in stock)
        print(
            f"ratio of {name} to the best lm-eval: wall time {wall:.2f}, start-up {startup:.2f}, its processor time"
            f" {cpu:.2f}"
        )
    print(f"load average of the last minute: {os.getloadavg()[0]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.05], help="seconds an answer takes")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--settings", choices=sorted(STOCK_SETTINGS), default="quick")
    parser.add_argument("--squire", type=int, default=0, metavar="ITEMS", help="also against squire on the CPU")
    options = parser.parse_args()
    places: list[tuple[str, float | None, int]] = [
        (f"{latency_s * 1000:g} ms", latency_s, options.items) for latency_s in options.latency
    ]
    if options.squire:
        places.append(("squire", None, options.squire))
    for task in ("choices", "texts"):
        for place, latency_s, items in places:
            with tempfile.TemporaryDirectory() as folder:
                suite = make_suite(Path(folder) / "suite", task, items)
                kind = f"{4 * items} log-likelihoods" if task == "choices" else f"{items} generations"
                report(f"{kind}, {place}", compete(suite, task, latency_s, options.settings))


if __name__ == "__main__":
    main()
