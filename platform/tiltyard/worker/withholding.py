"""What an evaluation on a hidden suite must not tell: in words, to nobody, and by the moment of its end, to anyone.

The words of a fault may quote a question, so they do not even go to the operator's log. And the end of an evaluation is
seen by whoever looks at the run: a server that takes its time according to what it was asked could say as much by the
moment as the moment is exact. So that moment is put off to a whole second since the beginning.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tiltyard.competitions.models import Suite
from tiltyard.evaluation import EvaluatorFault
from tiltyard_sandbox.verdicts import InfraFault

logger = logging.getLogger(__name__)

END_S = 1.0  # a hidden suite's end is told at a multiple of this; 0 tells it at once


@contextmanager
def untold(suite: Suite) -> Iterator[None]:
    """Around one suite's evaluation: of an open suite a failed evaluator's last words go into the operator's log."""
    if not suite.is_hidden:
        with _evaluator_log():
            yield
        return
    began_s = time.monotonic()
    try:
        yield
    except EvaluatorFault as fault:
        kind = fault.message.partition(":")[0].rstrip(".")  # what follows are the evaluator's own words
        raise InfraFault(f"{kind}. The rest is withheld: it happened on the hidden suite {suite.name}.") from None
    finally:
        if END_S:
            lasted_s = time.monotonic() - began_s
            time.sleep(math.ceil(lasted_s / END_S) * END_S - lasted_s)


@contextmanager
def _evaluator_log() -> Iterator[None]:
    try:
        yield
    except EvaluatorFault as fault:
        logger.error("the evaluator printed:\n%s", fault.stderr)
        raise
