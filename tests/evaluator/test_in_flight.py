"""The limit on requests in flight, in simulated time: what it finds before servers of several kinds; and the gate."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import pairwise

import pytest

from tiltyard_eval.in_flight import MOST_IN_FLIGHT, AdaptiveLimit, FixedLimit, Gate, Ticket

TIMEOUT_S = 120.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def simulate(answered_at: Callable[[float, int], float], requests: int, most: int = MOST_IN_FLIGHT) -> list[int]:
    """Run requests against a server that answers at `answered_at(now, in_flight)`; the limit after each answer."""
    clock = Clock()
    limit = AdaptiveLimit(TIMEOUT_S, most, clock)
    flying: list[tuple[float, int, float]] = []  # answered at, number, sent at
    sent, history = 0, []
    while len(history) < requests:
        while len(flying) < limit.value:
            heapq.heappush(flying, (answered_at(clock.now_s, len(flying)), sent, clock.now_s))
            sent += 1
        clock.now_s, _, sent_at = heapq.heappop(flying)
        limit.answered(sent_at, 16)
        history.append(limit.value)
    return history


class OneByOne:
    """Works on `lanes` requests at a time, each for `work_s` seconds; the others wait in its queue."""

    def __init__(self, work_s: float, lanes: int = 1) -> None:
        self._work_s = work_s
        self._free_at = [0.0] * lanes

    def __call__(self, now_s: float, _in_flight: int) -> float:
        lane = self._free_at.index(min(self._free_at))
        self._free_at[lane] = max(now_s, self._free_at[lane]) + self._work_s
        return self._free_at[lane]


def test_a_server_that_only_waits_gets_the_most_within_few_answers() -> None:
    history = simulate(lambda now_s, _: now_s + 0.05, 400)
    assert history[-1] == MOST_IN_FLIGHT
    assert history.index(MOST_IN_FLIGHT) < 150
    assert all(later in (now, 2 * now) for now, later in pairwise(history))


@pytest.mark.parametrize("most", [1, 3, 8])
def test_the_bound_holds(most: int) -> None:
    assert max(simulate(lambda now_s, _: now_s + 0.05, 300, most)) == most


def test_a_server_that_answers_one_by_one_is_not_flooded() -> None:
    history = simulate(OneByOne(0.5), 400)
    assert max(history) <= 8
    assert history[-1] <= 4


@pytest.mark.parametrize("lanes", [4, 16])
def test_a_server_with_lanes_gets_them_filled(lanes: int) -> None:
    history = simulate(OneByOne(0.2, lanes), 600)
    assert lanes <= history[-1] <= 4 * lanes


def test_answers_that_come_near_the_time_limit_halve_it() -> None:
    """Each takes longer the more are in flight: the limit stays where a request does not time out."""
    history = simulate(lambda now_s, in_flight: now_s + 8.0 * max(1, in_flight) ** 0.5, 300)
    assert history[-1] <= 16


def test_overload_halves_once_a_round_and_growth_is_additive_from_then_on() -> None:
    clock = Clock()
    limit = AdaptiveLimit(TIMEOUT_S, clock=clock)

    def whole_round() -> None:
        sent_at = clock.now_s
        clock.now_s += 0.05
        for _ in range(limit.value):
            limit.answered(sent_at, 1)

    for _ in range(4):
        whole_round()
    assert limit.value == 32
    sent_at = clock.now_s
    clock.now_s += 1.0
    limit.overloaded(sent_at)
    assert limit.value == 16
    limit.overloaded(sent_at)  # of the same burst
    assert limit.value == 16
    whole_round()
    assert limit.value == 17
    for _ in range(10):
        clock.now_s += 1.0
        limit.overloaded(clock.now_s)
    assert limit.value == 1


def test_what_was_sent_before_a_change_says_nothing_about_it() -> None:
    clock = Clock()
    limit = AdaptiveLimit(TIMEOUT_S, clock=clock)
    early = clock.now_s
    clock.now_s += 1.0
    limit.answered(early, 1)
    limit.answered(early, 1)
    before = limit.value
    assert before == 4
    for _ in range(20):
        limit.answered(early, 1)
    assert limit.value == before


def test_a_fixed_limit_stays() -> None:
    limit = FixedLimit(7)
    limit.answered(0.0, 1)
    limit.overloaded(0.0)
    assert limit.value == 7


def test_the_gate_keeps_the_limit_and_lets_the_lonely_be_alone() -> None:
    inside, most, alone = 0, 0, []

    async def step() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def main() -> None:
        gate = Gate(FixedLimit(3))

        async def work(number: int, ticket: Ticket) -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await step()
            inside -= 1
            await gate.leave(ticket)
            if number % 4 == 0:
                async with gate.alone() as own:
                    alone.append(inside)
                    await step()
                    alone.append(inside)
                    assert not own.had_company

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(work(number, await gate.enter()))

    asyncio.run(asyncio.wait_for(main(), 30))
    assert most == 3
    assert alone == [0] * 20


def test_a_ticket_remembers_company_that_came_later() -> None:
    async def main() -> list[bool]:
        gate = Gate(FixedLimit(2))
        first = await gate.enter()
        before = first.had_company
        second = await gate.enter()
        await gate.leave(second)
        await gate.leave(first)
        third = await gate.enter()
        return [before, first.had_company, second.had_company, third.had_company]

    assert asyncio.run(main()) == [False, True, True, False]
