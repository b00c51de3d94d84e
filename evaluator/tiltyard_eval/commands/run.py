"""``run`` and ``resume``: evaluate the server behind a URL."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tiltyard_eval.config import MAX_CONTEXT_TOKENS, RunConfig
from tiltyard_eval.errors import EXIT_OURS, EXIT_SCORED, RunFailed
from tiltyard_eval.progress import Reporter, make_reporter
from tiltyard_eval.results import Result

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_ADAPTERS = ("openai", "native", "neurips2023")  # the keys of adapters.ADAPTERS, which would import aiohttp
_DEFAULTS = RunConfig(url="", adapter="", suite="")


def add_commands(subparsers: "Subparsers") -> None:
    """Add ``run`` and ``resume``; each sets ``func(args) -> int``."""
    run = subparsers.add_parser("run", help="evaluate the server behind a URL on a suite")
    run.add_argument("--url", type=_url, required=True, help="http://host:port of the server")
    run.add_argument("--adapter", choices=_ADAPTERS, default="openai", help="wire protocol (default openai)")
    run.add_argument("--suite", type=Path, required=True, help="folder of the suite")
    run.add_argument("--out", type=Path, required=True, help="folder for the results; must not hold a run")
    run.add_argument("--deadline", type=_seconds, help="limit in seconds for probing and asking, from readiness on")
    run.add_argument("--start-timeout", type=_seconds, default=_DEFAULTS.start_timeout_s, help="seconds until ready")
    run.add_argument("--request-timeout", type=_seconds, default=_DEFAULTS.request_timeout_s, help="seconds a request")
    run.add_argument("--concurrency", type=_concurrency, help="requests in flight, or auto (default)")
    run.add_argument("--batch-size", type=_batch_size, default=_DEFAULTS.batch_size, help="most questions a request")
    run.add_argument(
        "--max-fault-share", type=_share, default=_DEFAULTS.max_fault_share, help="0..1; see the reference"
    )
    run.add_argument("--seed", type=_seed, default=_DEFAULTS.seed, help="order of the questions (default 0)")
    run.add_argument("--context-tokens", type=_context, help="length of the model's context, if the server is silent")
    run.add_argument("--image-digest", help="content digest of the image behind the URL")
    run.add_argument("--trust-suite", action="store_true", help="load the suite even if its files may run code")
    run.add_argument("--allow-network", action="store_true", help="let a trusted suite read its data from a hub")
    run.add_argument("--lm-eval-files", action="store_true", help="also write lm-eval's own result and samples")
    _add_progress(run)
    run.set_defaults(func=run_command)
    resume = subparsers.add_parser("resume", help="continue an evaluation that was stopped")
    resume.add_argument("--out", type=Path, required=True, help="folder of the stopped run")
    resume.add_argument("--url", type=_url, help="where the server listens now, if elsewhere")
    resume.add_argument("--suite", type=Path, help="where the suite lies now, if elsewhere")
    resume.add_argument("--deadline", type=_seconds, help="a new limit in seconds")
    _add_progress(resume)
    resume.set_defaults(func=resume_command)


def _add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--progress", choices=("auto", "rich", "plain", "json"), default="auto", help="default auto")


def run_command(args: argparse.Namespace) -> int:
    from tiltyard_eval.runner import start  # noqa: PLC0415 - imports aiohttp and NumPy

    config = RunConfig(
        url=args.url,
        adapter=args.adapter,
        suite=str(args.suite.resolve()),
        seed=args.seed,
        concurrency=args.concurrency,
        batch_size=args.batch_size,
        deadline_s=args.deadline,
        start_timeout_s=args.start_timeout,
        request_timeout_s=args.request_timeout,
        max_fault_share=args.max_fault_share,
        context_tokens=args.context_tokens,
        image_digest=args.image_digest,
        trust_suite=args.trust_suite,
        allow_network=args.allow_network,
        lm_eval_files=args.lm_eval_files,
    )
    return _evaluate(args, lambda reporter: start(config, args.out, reporter))


def resume_command(args: argparse.Namespace) -> int:
    from tiltyard_eval.runner import resume  # noqa: PLC0415 - see run_command

    overrides: dict[str, Any] = {}
    if args.url is not None:
        overrides["url"] = args.url
    if args.suite is not None:
        overrides["suite"] = str(args.suite.resolve())
    if args.deadline is not None:
        overrides["deadline_s"] = args.deadline
    return _evaluate(args, lambda reporter: resume(args.out, reporter, overrides))


def _evaluate(args: argparse.Namespace, evaluate: Callable[[Reporter], Result]) -> int:
    from tiltyard_eval.journal import JournalError  # noqa: PLC0415 - see run_command

    reporter = make_reporter(args.progress)
    try:
        result = evaluate(reporter)
    except (JournalError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_OURS
    finally:
        reporter.close()
    print(_summary(result), file=sys.stderr if args.progress == "json" else sys.stdout)
    if result.failure is None:
        return EXIT_SCORED
    return RunFailed(result.failure.reason, result.failure.message).exit_status


def _summary(result: Result) -> str:
    if result.failure is not None or result.score is None:
        return f"failed: {result.failure.reason}: {result.failure.message}" if result.failure else "failed"
    lines = [
        f"{task.name:<24} {task.score:7.1%}  [{task.low:.1%}, {task.high:.1%}]  {task.items} items"
        for task in result.tasks
    ]
    total = result.score
    return "\n".join([*lines, f"{'score':<24} {total.value:7.1%}  [{total.low:.1%}, {total.high:.1%}]"])


def _url(text: str) -> str:
    parts = urlsplit(text)
    try:
        plain = parts.scheme in {"http", "https"} and parts.hostname and not (parts.query or parts.fragment)
        _ = parts.port
    except ValueError:
        plain = False
    if not plain or parts.username is not None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address such as http://127.0.0.1:8000")
    return text.rstrip("/")


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value < 1e7:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _concurrency(text: str) -> int | None:
    return None if text == "auto" else _integer(text, low=1, high=256)


def _batch_size(text: str) -> int:
    return _integer(text, low=1, high=256)


def _context(text: str) -> int:
    return _integer(text, low=8, high=MAX_CONTEXT_TOKENS)


def _seed(text: str) -> int:
    return _integer(text, low=0, high=2**31 - 1)


def _integer(text: str, *, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from {low} to {high}")
    return int(text)
