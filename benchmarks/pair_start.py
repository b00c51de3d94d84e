"""How long a pair of containers takes to start, and to be gone.

    python benchmarks/pair_start.py --count 20

From the call until the submission's program prints its first line, until the evaluator's program does, and, after the
evaluator's end, until both containers are removed. Both run a bare Python, so the time is the engine's and the
sandbox's, and not a server's. Prints one JSON object; needs the image tiltyard/python:3.11.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import docker

from tiltyard_sandbox.engine import connect
from tiltyard_sandbox.limits import MIB, Limits
from tiltyard_sandbox.pair import run_pair

IMAGE = "tiltyard/python:3.11"
SERVE = "import time; print('up', flush=True); time.sleep(600)"
ASK = "print('up', flush=True)"
LABELS = {"tiltyard.run": f"benchmark-{os.getpid()}"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--image", default=IMAGE, help="an image with a python3 as its entry point or command")
    options = parser.parse_args()
    client = connect()
    image = made_from(client, options.image)
    try:
        once(client, image)  # what the first start pays for is not every run's
        runs = [once(client, image) for _ in range(options.count)]
    finally:
        client.images.remove(image, force=True, noprune=True)
        client.close()
    print(
        json.dumps(
            {
                "count": options.count,
                "load_average": round(os.getloadavg()[0], 1),
                **{name: summary([run[name] for run in runs]) for name in runs[0]},
            },
            indent=2,
        )
    )


def made_from(client: docker.DockerClient, base: str) -> str:
    """The image with the submission's program as its command."""
    container = client.containers.create(base, labels=LABELS)
    try:
        return str(container.commit(conf={"Cmd": ["python3", "-c", SERVE], "Entrypoint": []}).id)
    finally:
        container.remove(v=True)


def once(client: docker.DockerClient, image: str) -> dict[str, float]:
    """Seconds from the call to each event of one pair."""
    seen: dict[str, float] = {}

    def note(name: str) -> None:
        seen.setdefault(name, time.monotonic() - begin)

    with tempfile.TemporaryDirectory() as folder:
        suite, results = Path(folder, "suite"), Path(folder, "results")
        for path in (Path(folder), suite, results):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        begin = time.monotonic()
        outcome = run_pair(
            client,
            submission_image=image,
            evaluator_image=IMAGE,
            evaluator_command=["python3", "-c", ASK],
            suite_dir=suite,
            results_dir=results,
            limits=Limits(memory_bytes=256 * MIB, tmpfs_bytes=16 * MIB, shm_bytes=8 * MIB),
            run_labels=LABELS,
            on_evaluator_line=lambda _: note("evaluator_s"),
            on_server_log=lambda _: note("submission_s"),
            cancel=threading.Event(),
        )
        note("whole_s")
    seen["after_the_evaluators_first_line_s"] = seen["whole_s"] - seen["evaluator_s"]
    assert outcome.evaluator_exit == 0, outcome  # noqa: S101
    return seen


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum, in seconds."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 3),
        "p95": round(ordered[max(0, -(-95 * len(ordered) // 100) - 1)], 3),
        "max": round(ordered[-1], 3),
    }


if __name__ == "__main__":
    main()
