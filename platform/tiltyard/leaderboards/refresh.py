"""Keep the boards' statistics up to date, outside of page requests.

A board's fingerprint names all that its statistics depend on. The periodic job compares fingerprints and computes anew
where they differ: after a scored run, a change of weights, suites, rule or baselines, and whatever else changes who is
on the board. Computing at every score would cost the square of the number of entries each time; this way a burst of
scores is computed once. A board whose key (`keys.py`) is the one that was last compared is not looked at, but for once
in CHECK_EVERY, should somebody have changed its rows past the programs.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TypeVar

import numpy as np

from tiltyard.competitions.models import Suite, Track
from tiltyard.leaderboards.climbing import settle
from tiltyard.leaderboards.documents import BoardDocument, Twins
from tiltyard.leaderboards.entrants import entrants
from tiltyard.leaderboards.keys import board_key, fingerprint
from tiltyard.leaderboards.models import BoardStatistics
from tiltyard.leaderboards.rules import Question
from tiltyard.leaderboards.standings import Standing
from tiltyard.leaderboards.statistics import Entrant, board_statistics
from tiltyard.leaderboards.suite_links import SuiteLinks, read_links, twin_pair, twin_statistics
from tiltyard.leaderboards.summaries import summarise
from tiltyard.submissions.models import TaskResult
from tiltyard_eval.stats.types import cluster_numbers
from tiltyard_eval.twins import Scores

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Items = dict[tuple[uuid.UUID, int, str], list[float]]

CHECK_EVERY = timedelta(minutes=10)
_NICE = 15  # of 19, the least
_REST = 5  # a board that took a second to compute is left alone for five, so that the other jobs get their turn


def refresh_all(now: datetime) -> int:
    """Refresh every board that has changed; returns how many. A board that cannot be computed stops no other."""
    refreshed = 0
    for track in Track.objects.select_related("competition").prefetch_related("competition__suites"):
        try:
            if settle(track, now):
                track.refresh_from_db(fields=["board_revision"])
            refreshed += refresh(track, now)
        except Exception:  # the job's boundary: one competition's odd data must not hold up the others
            logger.exception("the statistics of %s could not be computed", track)
    return refreshed


def refresh(track: Track, now: datetime) -> bool:
    """Compute and store the statistics of one board, if it has changed and rested; returns whether they are new."""
    suites = [suite for suite in track.competition.suites.all() if suite.is_active]
    basis = board_key(track, suites, "")
    stored = _stored(track)
    if stored and stored.basis == basis and now < stored.checked_at + CHECK_EVERY:
        summarise(track, suites, stored.fingerprint, now)
        return False
    is_new = _refresh(track, suites, basis, stored, now)
    fingerprints = BoardStatistics.objects.filter(track=track).values_list("fingerprint", flat=True)
    summarise(track, suites, fingerprints.first() or "", now)
    return is_new


def _stored(track: Track) -> BoardStatistics | None:
    return BoardStatistics.objects.filter(track=track).defer("document").first()


def _refresh(track: Track, suites: Sequence[Suite], basis: str, stored: BoardStatistics | None, now: datetime) -> bool:
    if stored and now < stored.computed_at + timedelta(seconds=_REST * stored.seconds):
        return False
    standings = entrants(track, suites)
    current = fingerprint(track, suites, standings)
    if stored and stored.fingerprint == current:
        BoardStatistics.objects.filter(track=track).update(basis=basis, checked_at=now)
        return False
    began = time.monotonic()
    document = compute(track, suites, standings)
    if document is None:
        return False
    BoardStatistics.objects.update_or_create(
        track=track,
        defaults={
            "fingerprint": current,
            "document": document.model_dump(mode="json"),
            "flagged": [run for run, entry in document.entries.items() if entry.excess and entry.excess.flagged],
            "seconds": time.monotonic() - began,
            "computed_at": now,
            "basis": basis,
            "checked_at": now,
        },
    )
    return True


def compute(track: Track, suites: Sequence[Suite], standings: Sequence[Standing]) -> BoardDocument | None:
    """The statistics of these entries on these suites; None when none of them has its item scores."""
    items = _item_scores(standings)
    complete = [one for one in standings if _is_complete(one, suites, items)]
    if not complete:
        return None
    competition = track.competition
    is_reference = [one.is_baseline and competition.is_reference(one.name) for one in complete]
    links = {suite.pk: read_links(suite) for suite in suites}
    who = [
        Entrant(str(one.run_id), one.name, one.is_baseline, reference, twins)
        for one, reference, twins in zip(
            complete, is_reference, _twins(complete, is_reference, suites, links, items), strict=True
        )
    ]
    questions = _questions(complete, suites, links, items)
    return _in_background(lambda: board_statistics(who, questions, competition.scoring))


def _in_background(work: Callable[[], T]) -> T:
    """The work's result, from a thread of low priority: ten seconds for a large board must not slow the pages.

    Linux gives every thread a priority of its own, which one without privileges can only lower: so it is a new one. The
    work must not ask the database, whose connections belong to threads.
    """

    def run() -> T:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        return work()

    with ThreadPoolExecutor(1, thread_name_prefix="statistics") as pool:
        return pool.submit(run).result()


def _twins(
    standings: Sequence[Standing],
    is_reference: Sequence[bool],
    suites: Sequence[Suite],
    links: Mapping[int, SuiteLinks],
    items: _Items,
) -> list[Twins | None]:
    pair = twin_pair(suites, links)
    if pair is None:
        return [None] * len(standings)

    def scores(one: Standing, suite: Suite) -> Scores:
        return {task["name"]: items[one.run_id, suite.pk, task["name"]] for task in suite.tasks}

    both = [(scores(one, pair.open), scores(one, pair.hidden)) for one in standings]
    return list(twin_statistics(pair, both, [place for place, reference in enumerate(is_reference) if reference]))


def _item_scores(standings: Sequence[Standing]) -> _Items:
    """The item scores by run, suite and task."""
    rows = TaskResult.objects.filter(suite_result__run__in=[one.run_id for one in standings]).values_list(
        "suite_result__run_id", "suite_result__suite_id", "name", "item_scores"
    )
    return {(run_id, suite_id, name): scores for run_id, suite_id, name, scores in rows}


def _is_complete(standing: Standing, suites: Sequence[Suite], items: _Items) -> bool:
    """Whether every item of every task has its score; results from before item scores were kept have none."""
    return all(
        len(items.get((standing.run_id, suite.pk, task["name"]), ())) == task["items"]
        for suite in suites
        for task in suite.tasks
    )


def _questions(
    standings: Sequence[Standing], suites: Sequence[Suite], links: Mapping[int, SuiteLinks], items: _Items
) -> list[Question]:
    """The tasks of all suites with the scores of these entries, weighted as `ranking.rank_suites` weighs them."""
    total = sum(suite.weight for suite in suites)
    questions = []
    for suite in suites:
        part = [other.weight for other in suites if other.visibility == suite.visibility]
        # Equal shares when all suites of a kind have weight 0 in the ranking.
        part_share = suite.weight / sum(part) if any(part) else 1.0 / len(part)
        tasks = sum(task["weight"] for task in suite.tasks)
        for task in suite.tasks:
            scores = np.array([items[one.run_id, suite.pk, task["name"]] for one in standings], dtype=np.float64)
            share = task["weight"] / tasks
            labels = links[suite.pk].clusters.get(task["name"])
            questions.append(
                Question(
                    suite=suite.name,
                    is_hidden=suite.is_hidden,
                    task=task["name"],
                    family=task["family"],
                    share=share * suite.weight / total,
                    part_share=share * part_share,
                    scores=scores,
                    clusters=cluster_numbers(labels) if labels else None,
                )
            )
    return questions
