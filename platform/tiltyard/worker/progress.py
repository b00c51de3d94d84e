"""How far an evaluation is, as its owner may see it."""

from collections.abc import Callable

from tiltyard.competitions.models import Suite
from tiltyard.evaluation import OnProgress


def suite_progress(suite: Suite, on_items_done: Callable[[int], None]) -> OnProgress:
    """What turns the evaluator's progress into the number of the suite's items that are done.

    Of a hidden suite nothing is told before its end: a server that answers sooner or later, according to the question,
    could spell the question out in the times at which the number grows.
    """

    def on_progress(_stage: str, done: int, total: int) -> None:
        # The evaluator asks equal questions once, so its total may be smaller than the number of items.
        share = done / total if total else 0.0
        on_items_done(int(suite.item_count * share))

    return _tell_nothing if suite.is_hidden else on_progress


def _tell_nothing(_stage: str, _done: int, _total: int) -> None:
    pass
