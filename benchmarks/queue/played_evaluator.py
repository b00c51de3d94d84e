"""An evaluator for the chaos benchmark: it asks a submission a suite's questions over HTTP, and says what it found.

It stands in its container where the real one does, takes the same arguments and leaves the same files. But it needs
only the standard library, so it starts at once; each question takes PAUSE_S, so that there is time to be killed in.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PAUSE_S = 0.1
SUBMISSION_FAULT = 2


def main() -> int:
    arguments = sys.argv[2:]  # after "run"
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    suite, out, url = Path(options["--suite"]), Path(options["--out"]), options["--url"]
    began = time.monotonic()
    say(event="stage", stage="waiting")
    if not is_ready(url, began + float(options["--start-timeout"])):
        return fail(suite, out, options, "start_timeout", "The server did not get ready in time.")
    say(event="stage", stage="asking")
    samples: list[dict[str, Any]] = []
    questions = [(path.stem, *one) for path in tasks(suite) for one in enumerate(read_lines(path))]
    for task, index, item in questions:
        try:
            answer = ask(url, item["prompt"])
        except (OSError, ValueError, LookupError):
            return fail(suite, out, options, "crashed", "The server no longer answers.")
        samples.append(sample(task, index, item, answer))
        say(event="progress", done=len(samples), total=len(questions))
        time.sleep(PAUSE_S)
    say(event="stage", stage="scoring")
    (out / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
    names = [path.stem for path in tasks(suite)]
    results = [task_result(name, [one["score"] for one in samples if one["task"] == name]) for name in names]
    mean = sum(one["score"] for one in results) / len(results)
    score = {"value": mean, "low": mean, "high": mean}
    write(suite, out, options, began, status="scored", failure=None, score=score, tasks=results)
    return 0


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def tasks(suite: Path) -> list[Path]:
    return sorted((suite / "data").glob("*.jsonl"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_ready(url: str, until_s: float) -> bool:
    while time.monotonic() < until_s:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.05)
    return False


def ask(url: str, prompt: str) -> str:
    body = json.dumps({"model": "m", "prompt": [prompt], "max_tokens": 16, "temperature": 0, "stop": ["\n"]}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["choices"][0]["text"])


def sample(task: str, index: int, item: dict[str, Any], answer: str) -> dict[str, Any]:
    score = float(answer.strip() == item["answer"])
    texts = {"prompt": item["prompt"], "answer": answer, "expected": item["answer"]}
    return {"task": task, "index": index, **texts, "score": score, "failure": None}


def task_result(name: str, scores: list[float]) -> dict[str, Any]:
    mean = sum(scores) / len(scores)
    about = {"name": name, "title": name, "family": name, "weight": 1.0, "items": len(scores)}
    return {**about, "score": mean, "low": mean, "high": mean, "format_failures": 0, "item_failures": {}}


def fail(suite: Path, out: Path, options: dict[str, str], reason: str, message: str) -> int:
    failure = {"reason": reason, "message": message}
    write(suite, out, options, time.monotonic(), status="failed", failure=failure, score=None, tasks=[])
    return SUBMISSION_FAULT


def write(suite: Path, out: Path, options: dict[str, str], began_s: float, **found: Any) -> None:
    about = dict(line.partition(": ")[::2] for line in (suite / "suite.yaml").read_text().splitlines() if ": " in line)
    named = {name: about[name].strip("'\"") for name in ("name", "title", "version", "visibility")}
    sha256 = json.loads((suite / "suite.lock").read_text())["sha256"]
    timing = {
        "started_at": "2026-01-01T00:00:00+00:00",
        "wall_s": max(time.monotonic() - began_s, 0.001),
        "requests": sum(one["items"] for one in found["tasks"]),
        "retries": 0,
        "latency_p50_s": None,
        "latency_p95_s": None,
    }
    result = {
        "schema": "tiltyard.result/1",
        **found,
        "suite": {**named, "sha256": sha256},
        "adapter": options["--adapter"],
        "execution_mode": "played",
        "settings": {},
        "versions": {},
        "timing": timing,
        "identity": {"image_digest": options["--image-digest"]},
        "repro_hash": sha256,
    }
    (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
