"""The shape of a task file that asks for log-likelihoods, in a suite that need not be trusted.

As in `task_yaml`, a template may only name fields and there is no pattern and no function. The data's fields are fixed:
`prompt`, `answer` and, for multiple choice, `choices`.
"""

from __future__ import annotations

from typing import Any

from tiltyard_eval.suite.reading import SuiteError

LIKELIHOOD_TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")
_METRICS = {
    "multiple_choice": {"acc", "acc_norm", "acc_bytes"},
    "loglikelihood": {"acc", "perplexity"},
    "loglikelihood_rolling": {"word_perplexity", "byte_perplexity", "bits_per_byte"},
}
_TEXT = {"multiple_choice": "{{prompt}}", "loglikelihood": "{{prompt}}", "loglikelihood_rolling": ""}
# By number, since lm-eval takes an answer of digits alone for a choice's number.
_TARGET = {
    "multiple_choice": "{{choices.index(answer)}}",
    "loglikelihood": "{{answer}}",
    "loglikelihood_rolling": "{{answer}}",
}
_KEYS = {
    *("task", "task_alias", "dataset_path", "dataset_kwargs", "test_split", "output_type", "doc_to_text"),
    *("doc_to_target", "doc_to_choice", "target_delimiter", "metric_list", "metadata", "num_fewshot", "repeats"),
}
MAX_METRICS = 3


def likelihood_task_yaml(name: str, output_type: str, metrics: list[str]) -> dict[str, Any]:
    """A task file of this shape; the data lie in ``data/NAME.jsonl``."""
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"data/{name}.jsonl"}},
        "test_split": "test",
        "output_type": output_type,
        "doc_to_text": _TEXT[output_type],
        "doc_to_target": _TARGET[output_type],
        "metric_list": [{"metric": metric} for metric in metrics],
        "metadata": {"version": 1.0},
    }
    if output_type == "multiple_choice":
        config["doc_to_choice"] = "choices"
    return config


def check_likelihood_task(config: dict[str, Any], where: str) -> None:
    """Check what is particular to log-likelihoods; raises ``SuiteError``."""
    output_type = config["output_type"]
    if unknown := sorted(key for key in config if key not in _KEYS):
        raise SuiteError(f"{where}: unknown keys {unknown}; allowed are {sorted(_KEYS)}")
    for key, value in (("doc_to_text", _TEXT[output_type]), ("doc_to_target", _TARGET[output_type])):
        if config.get(key) != value:
            raise SuiteError(f"{where}: {key} must be {value!r}")
    wanted = "choices" if output_type == "multiple_choice" else None
    if config.get("doc_to_choice") != wanted:
        raise SuiteError(f"{where}: doc_to_choice must be {'choices' if wanted else 'left out'}")
    if config.get("target_delimiter", " ") not in ("", " ", "\n"):
        raise SuiteError(f"{where}: target_delimiter must be empty, a space or a line feed")
    _check_metrics(config.get("metric_list"), output_type, where)


def _check_metrics(value: object, output_type: str, where: str) -> None:
    known = _METRICS[output_type]
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_METRICS:
        raise SuiteError(f"{where}: metric_list must hold one to {MAX_METRICS} of {sorted(known)}")
    names = [entry.get("metric") if isinstance(entry, dict) and set(entry) == {"metric"} else None for entry in value]
    if not all(isinstance(name, str) and name in known for name in names) or len(set(names)) != len(names):
        raise SuiteError(f"{where}: metric_list must name each of {sorted(known)} at most once, and nothing else")
