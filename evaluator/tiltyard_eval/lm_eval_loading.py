"""Loads lm-eval in less time, with the same behaviour: what an evaluation takes before its first question counts.

Measured with 1,000 documents (docs/reference/benchmarks.md): compiling each task's templates anew for every document
takes longer than asking a fast server, and modules that only are there by chance take a tenth of all importing.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

# What lm-eval's dependencies import when it happens to be installed, and do without when it is not: `requests` to
# guess encodings, `portalocker` for locks in Redis, `tabulate` for wide characters. An evaluation uses none of it.
_OPTIONAL: Final = ("chardet", "redis", "wcwidth")
_TEMPLATES_KEPT: Final = 4096


def load_evaluate() -> Callable[..., Any]:
    """lm-eval's `evaluate`. Takes seconds, and reads the environment as it is at the first call."""
    with _shut_out(_OPTIONAL):
        from lm_eval.evaluator import evaluate  # noqa: PLC0415 - the point of this function
    return evaluate  # type: ignore[no-any-return]  # lm-eval has no types


@contextlib.contextmanager
def templates_compiled_once() -> Iterator[None]:
    """Within the block lm-eval compiles a template at its first use and not for every document anew.

    A compiled template keeps nothing between renderings, so the texts are the same.
    """
    from lm_eval import utils  # noqa: PLC0415 - see load_evaluate

    compile_anew = utils.env.from_string
    utils.env.from_string = functools.lru_cache(_TEMPLATES_KEPT)(compile_anew)
    try:
        yield
    finally:
        utils.env.from_string = compile_anew


@contextlib.contextmanager
def _shut_out(names: tuple[str, ...]) -> Iterator[None]:
    """Within the block these modules cannot be imported, unless they have been already."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None is how Python marks what must not load
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
