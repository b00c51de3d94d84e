"""A suite of lm-eval task files that uses what lm-eval has: every output type, filters, groups, few-shot, functions."""

import json
from pathlib import Path
from typing import Any

import yaml

from tiltyard_eval.suite import Suite, lock_suite

FUNCTIONS = """
import random

def process_results(doc, results):
    return {"starts": float(results[0].startswith(doc["answer"][:1])), "length": len(results[0]) / 1000}

def shuffled(dataset):
    order = list(range(len(dataset)))
    random.Random(5).shuffle(order)
    return dataset.select(order)

def doc_to_text(doc):
    return f"[{doc['prompt'].upper()}]"

def score_all(doc, results):
    return {"acc": float(sum(logprob for logprob, _ in results) > -40), "greedy": float(any(g for _, g in results))}

def gold_number(doc):
    return doc["choices"].index(doc["answer"])

def contexts(doc):
    return [f"{doc['prompt'].strip()} {choice.strip()}" for choice in doc["choices"]]

def two_golds(doc):
    return [0, len(doc["choices"]) - 1]

def all_golds(doc):
    return [doc["answer"], " ünïcode – “quotes”\\n", " 0", " 1", " 2", " 3"]

def overlap(references, predictions, **_):
    return len(set(references[0]) & set(predictions[0])) / 10

def worst(items):
    return min(items)

def examples():
    return [{"prompt": f"Fixed {n}", "answer": str(n), "choices": ["0", "1"]} for n in range(3)]
"""

CLASSES = """
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

class Mixed(ConfigurableTask):
    \"\"\"Asks for a text and for a log-likelihood about one document, as lm-eval's SQuAD 2 does.\"\"\"

    VERSION = 2

    def __init__(self, config=None):
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def construct_requests(self, doc, ctx, **kwargs):
        for unused in ("chat_template", "apply_chat_template"):
            kwargs.pop(unused, None)
        asked = [("generate_until", (ctx, {"until": ["\\n"]})), ("loglikelihood", (ctx, " unanswerable"))]
        return [Instance(request_type=kind, doc=doc, arguments=args, idx=0, **kwargs) for kind, args in asked]

    def process_results(self, doc, results):
        text, (logprob, _) = results
        return {"abstains": float(logprob > -15), "digits": float(any(map(str.isdigit, text)))}

    def aggregation(self):
        return {"abstains": lambda items: sum(items) / len(items), "digits": max}

    def higher_is_better(self):
        return {"abstains": True, "digits": True}
"""

QUESTIONS = [
    ("What is 2 + 3?", "5", ["5", "6", "23"]),
    ("Capital of Norway?", "Oslo", ["Oslo", "Bergen", "Trondheim", "Hamar"]),
    ("Wie heißt die Straße?", "Größenwahn", ["Größenwahn", "größenwahn", "日本語", "naïve café"]),
    ("emoji 🙂🙃 or a newline?\nWhich", " both ", [" both ", "neither", "a  b"]),
    ("  spaces before and after  ", "yes", ["yes", "no"]),
    ("A mark at the end.", "!", ["!", "?!", "... or not"]),
    ("x" * 1500 + " " + "long prompt, " * 400, "end", ["end", "End", "ends here"]),
    ("tabs\tand\u00a0hard spaces", "\u3000wide", ["\u3000wide", "narrow"]),
]
QUESTIONS += [(f"How many {thing} has {n}?", str(n), list("0123456")) for thing in ("units", "ones") for n in range(7)]
FEWSHOT = [(f"Example {n}: is {n} even?", "yes" if n % 2 == 0 else "no", ["yes", "no"]) for n in range(12)]


def _task(name: str, output_type: str, **keys: Any) -> dict[str, Any]:
    files = {"test": "data/test.jsonl", "train": "data/train.jsonl"}
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        "fewshot_split": "train",
        "output_type": output_type,
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        **keys,
    }


def _choice(name: str, *metrics: str, **keys: Any) -> dict[str, Any]:
    return _task(
        name,
        "multiple_choice",
        **{"doc_to_choice": "choices", "doc_to_target": GOLD, "metric_list": _metrics(*metrics), **keys},
    )


# A template of digits alone would be taken for a choice's number.
GOLD = "{{choices.index(answer)}}"


def _metrics(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name} for name in names]


_REGEX = {"function": "regex", "regex_pattern": r"(\d+)", "group_select": -1}
_FIRST = {"function": "take_first"}
TASKS = [
    _task(
        "gen_filters",
        "generate_until",
        generation_kwargs={"until": ["\n\n", "Question:"], "max_gen_toks": 24, "do_sample": False},
        filter_list=[
            {"name": "strict", "filter": [_REGEX, _FIRST]},
            {"name": "flexible", "filter": [{"function": "lowercase"}, {"function": "remove_whitespace"}, _FIRST]},
        ],
        metric_list=[{"metric": "exact_match", "ignore_case": True, "ignore_punctuation": True}],
        num_fewshot=2,
        description="Answer briefly.\n\n",
    ),
    _task(
        "gen_repeats",
        "generate_until",
        doc_to_text="Q: {{prompt | trim}}\nA:",
        generation_kwargs={"until": "\n", "max_gen_toks": 8, "do_sample": True, "temperature": 0.7},
        repeats=3,
        filter_list=[
            {"name": "vote", "filter": [_REGEX, {"function": "majority_vote"}, _FIRST]},
            {"name": "first", "filter": [_FIRST]},
        ],
        metric_list=_metrics("exact_match"),
    ),
    _task(
        "gen_function",
        "generate_until",
        process_results="!function utils.process_results",
        process_docs="!function utils.shuffled",
        metric_list=[{"metric": "starts", "aggregation": "mean"}, {"metric": "length", "aggregation": "mean"}],
    ),
    _choice("mc_plain", "acc", "acc_norm", "acc_bytes", "exact_match"),
    _choice("mc_spaces", "acc", "acc_norm", doc_to_text="{{prompt}}\nAnswer:  ", target_delimiter=""),
    _choice("mc_fewshot", "acc", num_fewshot=3, description="Choose.\n", fewshot_delimiter="\n---\n"),
    _choice("mc_mutual", "acc_mutual_info", "acc"),
    _choice("mc_empty", "acc", "acc_norm", doc_to_text="", target_delimiter=""),
    _choice(
        "mc_function",
        metric_list=[{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "greedy")],
        doc_to_text="!function utils.doc_to_text",
        process_results="!function utils.score_all",
    ),
    _task("ll_words", "loglikelihood", doc_to_target=" {{answer}}", metric_list=_metrics("perplexity", "acc")),
    _task("ll_spaces", "loglikelihood", doc_to_text="{{prompt}} \n ", metric_list=_metrics("acc"), num_fewshot=1),
    _task(
        "rolling",
        "loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{prompt}} {{answer}}",
        metric_list=_metrics("word_perplexity", "byte_perplexity", "bits_per_byte"),
    ),
]
TASKS += [
    _task(
        "gen_at_k",
        "generate_until",
        generation_kwargs={"until": ["\n"], "do_sample": True, "temperature": 0.5},
        repeats=4,
        filter_list=[
            {
                "name": f"maj@{k}",
                "filter": [_REGEX, {"function": "take_first_k", "k": k}, {"function": "majority_vote"}, _FIRST],
            }
            for k in (3, 1)
        ],
        metric_list=_metrics("exact_match"),
        tag="tagged",
    ),
    _task(
        "gen_prefixed",
        "generate_until",
        gen_prefix="The answer is",
        fewshot_config={"sampler": "first_n", "samples": "!function utils.examples"},
        num_fewshot=2,
        metric_list=_metrics("exact_match"),
        tag="tagged",
    ),
    _task(
        "gen_metric",
        "generate_until",
        metric_list=[
            {
                "metric": "!function utils.overlap",
                "aggregation": "!function utils.worst",
                "higher_is_better": True,
            },
            {"metric": "exact_match"},
            {"metric": "bleu"},
        ],
    ),
    _task(
        "gen_golds", "generate_until", doc_to_target="!function utils.all_golds", metric_list=_metrics("exact_match")
    ),
    _task(
        "gen_own_shots",
        "generate_until",
        fewshot_split="test",
        num_fewshot=1,
        metric_list=_metrics("exact_match"),
        filter_list=[{"name": "last", "filter": [{"function": "regex", "regex_pattern": "(\\d+)"}, _FIRST]}],
    ),
    _choice(
        "mc_inputs",
        "acc",
        doc_to_text="!function utils.gold_number",
        doc_to_choice="!function utils.contexts",
        doc_to_target="is it.",
    ),
    _choice("mc_golds", "acc", "acc_norm", doc_to_target="!function utils.two_golds"),
    _choice("mc_counts", "acc", "mcc"),
    {**_task("mixed", "generate_until"), "class": "!function classes.Mixed"},
]
GROUPS = [
    {
        "group": "nested",
        "task": [
            "mc_counts",
            {
                "group": "inner",
                "task": ["mc_inputs", "mc_golds"],
                "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
            },
        ],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    },
    {
        "group": "choices",
        "task": ["mc_plain", "mc_spaces", "mc_fewshot"],
        "aggregate_metric_list": [
            {"metric": "acc", "aggregation": "mean", "weight_by_size": True},
            {"metric": "acc_norm", "aggregation": "mean", "weight_by_size": False},
        ],
    },
]
IN_GROUPS = {"mc_plain", "mc_spaces", "mc_fewshot", "mc_counts", "mc_inputs", "mc_golds", "gen_at_k", "gen_prefixed"}
ENTRIES = ["choices", "nested", "tagged", *(task["task"] for task in TASKS if task["task"] not in IN_GROUPS)]
SCORED_BY = {"mc_mutual": "acc", "gen_function": "starts"}


def make_grid(folder: Path, chat: dict[str, Any] | None = None) -> Suite:
    """Write and lock the suite; with `chat` only its tasks that generate, as such conversations."""
    (folder / "tasks" / "grouped").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "tasks" / "utils.py").write_text(FUNCTIONS)
    (folder / "tasks" / "classes.py").write_text(CLASSES)
    (folder / "tasks" / "grouped" / "base.yaml").write_text(yaml.safe_dump(_choice("unused", "acc")))
    for config in [*TASKS, *GROUPS]:
        name = config.get("task") if isinstance(config.get("task"), str) else config["group"]
        text = yaml.safe_dump(config, allow_unicode=True)
        text = "\n".join(
            line.replace("'!function", "!function").rstrip("'") if "!function" in line else line
            for line in text.splitlines()
        )
        (folder / "tasks" / f"{name}.yaml").write_text(text + "\n")
    (folder / "tasks" / "grouped" / "included.yaml").write_text("include: base.yaml\ntask: mc_included\n")
    for name, rows in (("test", QUESTIONS), ("train", FEWSHOT)):
        lines = [json.dumps({"prompt": p, "answer": a, "choices": c}, ensure_ascii=False) for p, a, c in rows]
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    tasks = [
        {"name": name, "title": name, "family": "grid", **({"metric": SCORED_BY[name]} if name in SCORED_BY else {})}
        for name in [*ENTRIES, "mc_included"]
        if chat is None or name.startswith(("gen_", "tagged"))
    ]
    meta = {
        "name": "grid",
        "title": "Grid",
        "version": "1",
        "visibility": "open",
        "format": "lm-eval",
        "trusts_server": chat is None,
        **({} if chat is None else {"chat": chat}),
        "tasks": tasks,
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(meta))
    return lock_suite(folder, trusted=True)
