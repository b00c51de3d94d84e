"""Write an attempt's changes of state, past a database that is away for a moment."""

import logging
import time
from collections.abc import Callable

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState

logger = logging.getLogger(__name__)

PAUSE_S = 0.5


def persist(run: Run, to: RunState, write: Callable[[], bool]) -> bool:
    """Do `write`, which brings the run into the state `to` in one transaction; False when another has the run.

    When the database cannot be reached, the worker asks again for as long as its lease may last: what an evaluation of
    hours found is not thrown away for a restart of seconds. A connection that breaks during the commit leaves open
    whether it happened; the row tells, because nobody else writes with this attempt's number.

    Raises OperationalError or InterfaceError when the database stays away.
    """
    gives_up_s = time.monotonic() + settings.RUN_LEASE_S
    was_lost, state = False, run.state
    while True:
        try:
            return (was_lost and run.holds(to)) or write()
        except (OperationalError, InterfaceError) as error:
            if time.monotonic() > gives_up_s:
                raise
            logger.warning("run %s: the database cannot be reached: %s", run.pk, type(error).__name__)
            was_lost = True
            run.state = state  # what a transaction that was undone has left in memory
            connection.close()
            time.sleep(PAUSE_S)
