"""The lm-eval task files that a suite may hold: a fixed shape, checked key by key.

lm-eval renders templates with an unrestricted Jinja and matches regular expressions without a time limit, so a task
from a stranger could run code or hang. Therefore a template may only name fields, and the one regular expression is
ours. A trusted suite (one's own) may use any template and pattern. Functions in YAML (``!function``) are never loaded.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltyard_eval.checks import METRIC as CHECKS_METRIC
from tiltyard_eval.suite.likelihood_yaml import LIKELIHOOD_TYPES, check_likelihood_task
from tiltyard_eval.suite.reading import SuiteError

# The first stretch of visible text, without spaces at its ends. Linear: a space never matches \S.
ANSWER_PATTERN = r"(\S+(?: +\S+)*)"
NO_ANSWER = "[invalid]"  # what lm-eval itself writes when nothing matches
EXACT_MATCH = "exact_match"

_KEYS = {
    *("task", "task_alias", "dataset_path", "dataset_kwargs", "test_split", "output_type", "doc_to_text"),
    *("doc_to_target", "generation_kwargs", "filter_list", "metric_list", "metadata", "num_fewshot", "repeats"),
}
_GENERATION_KEYS = {"until", "max_gen_toks", "do_sample", "temperature"}
_METRIC_KEYS = {"metric", "aggregation", "higher_is_better", "ignore_case", "ignore_punctuation"}
_FILTERS = {"take_first", "remove_whitespace", "lowercase", "uppercase", "regex"}
_PLAIN_TEMPLATE = re.compile(r"[^{}%#]*(\{\{ *[a-z_]+ *\}\}[^{}%#]*)*")
MAX_GEN_TOKS = 2048


def task_yaml(name: str, title: str, max_gen_toks: int, metric: str = EXACT_MATCH) -> dict[str, Any]:
    """The task file that the suite builder writes; paths are relative to the suite's folder."""
    return {
        "task": name,
        "task_alias": title,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"data/{name}.jsonl"}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {
            "until": ["\n"],
            "max_gen_toks": max_gen_toks,
            "do_sample": False,
            "temperature": 0.0,
        },
        "filter_list": [
            {
                "name": "answer",
                "filter": [
                    {"function": "regex", "regex_pattern": ANSWER_PATTERN, "group_select": 0, "fallback": NO_ANSWER},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }


def has_checks(config: Mapping[str, Any]) -> bool:
    """Whether a checked task file says that its answers must fulfil checks, rather than be the gold answer."""
    return bool(config["output_type"] == "generate_until" and config["metric_list"][0]["metric"] == CHECKS_METRIC)


def check_task(config: dict[str, Any], name: str, where: str, *, trusted: bool) -> str:
    """Check one task file and return the relative path of its data; raises ``SuiteError``."""
    _require(isinstance(config, dict), where, "must be a mapping")
    _require(config.get("task") == name, where, f"task must be {name!r}, the file's own name")
    _require(config.get("dataset_path") == "json", where, "dataset_path must be json")
    _require(config.get("test_split") == "test", where, "test_split must be test")
    _require(config.get("num_fewshot", 0) in (0, None), where, "num_fewshot must be 0; put examples into the prompt")
    _require(config.get("repeats", 1) == 1, where, "repeats must be 1")
    if config.get("output_type") in LIKELIHOOD_TYPES:
        check_likelihood_task(config, where)
    else:
        _check_generation_task(config, where, trusted=trusted)
    return _check_data(config.get("dataset_kwargs"), where)


def _check_generation_task(config: dict[str, Any], where: str, *, trusted: bool) -> None:
    types = ", ".join(("generate_until", *LIKELIHOOD_TYPES))
    _require(config.get("output_type") == "generate_until", where, f"output_type must be one of {types}")
    _only_keys(config, _KEYS, where)
    for key in ("doc_to_text", "doc_to_target"):
        template = config.get(key)
        _require(isinstance(template, str), where, f"{key} must be a template")
        _require(
            trusted or _PLAIN_TEMPLATE.fullmatch(str(template)) is not None,
            where,
            f"{key} may only hold text and {{{{field}}}}",
        )
    _check_generation(config.get("generation_kwargs"), where)
    _check_filters(config.get("filter_list", []), where, trusted=trusted)
    _check_metrics(config.get("metric_list"), where)


def resolved(config: dict[str, Any], folder: Path, relative: str) -> dict[str, Any]:
    """A copy of a task file whose data path is absolute: lm-eval would look for it in the working directory."""
    absolute = copy.deepcopy(config)
    absolute["dataset_kwargs"]["data_files"]["test"] = str(folder.resolve() / relative)
    return absolute


def _require(condition: bool, where: str, message: str) -> None:
    if not condition:
        raise SuiteError(f"{where}: {message}")


def _only_keys(value: object, known: set[str], where: str) -> None:
    _require(isinstance(value, dict), where, "must be a mapping")
    assert isinstance(value, dict)  # noqa: S101  for the type checker
    unknown = sorted(str(key) for key in value if key not in known)
    _require(not unknown, where, f"unknown keys {unknown}; allowed are {sorted(known)}")


def _check_generation(value: object, where: str) -> None:
    where = f"{where}: generation_kwargs"
    _only_keys(value, _GENERATION_KEYS, where)
    assert isinstance(value, dict)  # noqa: S101  _only_keys has checked it
    until = value.get("until")
    _require(
        isinstance(until, list)
        and 1 <= len(until) <= 4
        and all(isinstance(s, str) and 0 < len(s) <= 32 for s in until),
        where,
        "until must be one to four stop strings",
    )
    tokens = value.get("max_gen_toks")
    _require(type(tokens) is int and 1 <= tokens <= MAX_GEN_TOKS, where, f"max_gen_toks must be 1 to {MAX_GEN_TOKS}")
    _require(value.get("do_sample", False) is False, where, "do_sample must be false")
    _require(value.get("temperature", 0) == 0, where, "temperature must be 0")


def _check_filters(value: object, where: str, *, trusted: bool) -> None:
    where = f"{where}: filter_list"
    _require(isinstance(value, list) and len(value) <= 1, where, "must be a list with one filter at most")
    assert isinstance(value, list)  # noqa: S101  for the type checker
    for entry in value:
        _only_keys(entry, {"name", "filter"}, where)
        steps = entry.get("filter")
        _require(isinstance(entry.get("name"), str) and isinstance(steps, list), where, "needs a name and a filter")
        for step in steps:
            _require(
                isinstance(step, dict) and step.get("function") in _FILTERS, where, f"functions: {sorted(_FILTERS)}"
            )
            _only_keys(step, {"function", "regex_pattern", "group_select", "fallback"}, where)
            pattern_fits = trusted or step.get("regex_pattern", ANSWER_PATTERN) == ANSWER_PATTERN
            _require(pattern_fits, where, f"regex_pattern must be {ANSWER_PATTERN} unless the suite is trusted")
        _require(bool(steps) and steps[-1].get("function") == "take_first", where, "must end with take_first")


def _check_metrics(value: object, where: str) -> None:
    where = f"{where}: metric_list"
    _require(isinstance(value, list) and len(value) == 1, where, "must hold exactly one metric")
    assert isinstance(value, list)  # noqa: S101  for the type checker
    metric = value[0]
    _only_keys(metric, _METRIC_KEYS, where)
    known = metric.get("metric") in (EXACT_MATCH, CHECKS_METRIC)
    _require(known, where, f"the metric must be {EXACT_MATCH} or {CHECKS_METRIC}")
    _require(metric.get("aggregation", "mean") == "mean", where, "the aggregation must be mean")
    _require(metric.get("higher_is_better", True) is True, where, "higher_is_better must be true")
    flags = [metric.get(key, False) for key in ("ignore_case", "ignore_punctuation")]
    _require(
        all(isinstance(flag, bool) for flag in flags), where, "ignore_case and ignore_punctuation are true or false"
    )
    _require(metric["metric"] == EXACT_MATCH or not any(flags), where, f"{CHECKS_METRIC} ignores neither")


def _check_data(value: object, where: str) -> str:
    where = f"{where}: dataset_kwargs"
    _only_keys(value, {"data_files"}, where)
    assert isinstance(value, dict)  # noqa: S101  _only_keys has checked it
    files = value.get("data_files")
    _only_keys(files, {"test"}, where)
    assert isinstance(files, dict)  # noqa: S101  _only_keys has checked it
    relative = files.get("test")
    fits = isinstance(relative, str) and re.fullmatch(r"data/[a-z0-9][a-z0-9_-]{0,63}\.jsonl", relative)
    _require(bool(fits), where, "data_files must be {test: data/NAME.jsonl} within the suite")
    return str(relative)
