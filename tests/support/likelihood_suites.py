"""A suite without code that asks for log-likelihoods; of its multiple choice the gold answer always stands first."""

import json
from pathlib import Path

import yaml

from tiltyard_eval.suite import Suite, lock_suite
from tiltyard_eval.suite.likelihood_yaml import likelihood_task_yaml
from tiltyard_eval.suite.task_yaml import task_yaml

CHOICES = 4
ITEMS = 10


def make_likelihood_suite(
    folder: Path, *, trusts_server: bool = True, types: tuple[str, ...] = ("multiple_choice",)
) -> Suite:
    """Write and lock a suite with one task of each of the output types, named after it."""
    (folder / "tasks").mkdir(parents=True)
    (folder / "data").mkdir()
    metrics = {
        "multiple_choice": ["acc", "acc_norm"],
        "loglikelihood": ["acc", "perplexity"],
        "loglikelihood_rolling": ["bits_per_byte"],
    }
    for name in types:
        config = (
            task_yaml(name, name, 16) if name == "generate_until" else likelihood_task_yaml(name, name, metrics[name])
        )
        (folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(config))
        lines = [json.dumps(row) + "\n" for row in map(_ROWS[name], range(ITEMS))]
        (folder / "data" / f"{name}.jsonl").write_text("".join(lines))
    tasks = [{"name": name, "title": name, "family": "scored"} for name in types]
    meta = {"name": "scored", "title": "Scored", "version": "1", "visibility": "open", "tasks": tasks}
    (folder / "suite.yaml").write_text(yaml.safe_dump({**meta, **({"trusts_server": True} if trusts_server else {})}))
    return lock_suite(folder)


_ROWS = {
    # Digits alone on purpose: lm-eval would take such an answer for a choice's number.
    "multiple_choice": lambda n: {
        "prompt": f"Say {n}:",
        "answer": str(n),
        "choices": [str((n + other) % 10) for other in range(CHOICES)],
    },
    "loglikelihood": lambda n: {"prompt": f"After {n} comes", "answer": f"{n + 1}"},
    "loglikelihood_rolling": lambda n: {"answer": f"A text of {n} words, or of another number."},
    "generate_until": lambda n: {"prompt": f"Write {n}:", "answer": str(n)},
}
