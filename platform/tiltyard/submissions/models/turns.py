"""Whose turn it is: fair queueing between the participants of one queue.

Start-time fair queueing (Goyal, Vin and Cheng, “Start-Time Fair Queueing”, SIGCOMM 1996), with one run as the unit of
service and a participant of a competition as the flow. A run gets its *turn* when it is queued: the queue's virtual
time, or one more than the participant's last turn, whichever is later; the virtual time is the highest turn that was
ever taken. So who queues a hundred runs takes a hundred turns, and whoever comes next stands behind the first of them,
not behind the last; who was away saves nothing up. Finding the next run is one step down an index, however many wait.
"""

from typing import TYPE_CHECKING

from django.db.models import Max

if TYPE_CHECKING:
    from tiltyard.submissions.models.run import Run
    from tiltyard.submissions.models.submission import Submission


def turn_for(runs: type["Run"], submission: "Submission", queue: str) -> int:
    """The turn of a run that this submission's owner queues now."""
    # Ordered, not Max(): SQLite would look at every row for the maximum, but walks an index backwards for an order.
    virtual_time = (
        runs.objects.filter(queue=queue, attempt__gt=0).order_by("-turn").values_list("turn", flat=True).first() or 0
    )
    own = runs.objects.filter(
        submission__owner=submission.owner_id, submission__competition=submission.competition_id, queue=queue
    )
    last = own.aggregate(last=Max("turn"))["last"]
    return max(virtual_time, 0 if last is None else last + 1)
