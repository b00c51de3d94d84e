"""How many requests are in flight: a limit that is fixed or finds what the server can take, and the gate that keeps it.

The search is a slow start that ends where the bandwidth does, as BBR's startup finds it (Cardwell et al., "BBR:
congestion-based congestion control", ACM Queue 14(5), 2016): the limit doubles as long as that makes the answers come
at least a quarter faster, and goes back one step when it does not. So it stays small before a server that answers one
thing at a time, where more requests would only wait in the server's queue, and run into their time limit there.
Whenever the server is overloaded (429, 503, a broken connection, a timeout, or answers so late that a timeout is near)
the limit halves at once, and from then on grows by one a round: additive increase, multiplicative decrease (Chiu &
Jain, 1989). A *round* is as long as it takes until as many requests were answered as the limit allows, counting only
those that were sent after it began.

No score depends on any of this. Which questions share a request is planned beforehand, and a fault counts only when the
server had nothing else to do: see `Gate.alone`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Protocol

MOST_IN_FLIGHT: Final = 64
_FIRST = 2
_GROWTH = 1.25  # BBR's threshold: doubling must raise the rate by this factor to be worth it
_TRIES = 2  # rounds that a doubled limit gets to show it, since a round may hold longer questions than the last one
_SETTLED_ROUNDS = 64  # until a settled limit is put to the test again: servers warm up, tasks differ
_LATE_SHARE = 0.25  # of the request's time limit


class Limit(Protocol):
    """How many requests may be in flight; told what becomes of them."""

    @property
    def value(self) -> int: ...

    def answered(self, sent_at: float, questions: int) -> None:
        """A request with so many questions, sent at `sent_at` on the clock, was answered."""

    def overloaded(self, sent_at: float) -> None:
        """A request sent at `sent_at` met an overloaded server."""


@dataclass(frozen=True)
class FixedLimit:
    """Always the same."""

    value: int

    def answered(self, sent_at: float, questions: int) -> None:
        del sent_at, questions

    def overloaded(self, sent_at: float) -> None:
        del sent_at


class AdaptiveLimit:
    """Finds the limit; see the module's docstring.

    Args:
        request_timeout_s: Time limit of one request; an answer that takes a quarter of it counts as overload.
        most: Upper bound.
        clock: Seconds, never going back.
    """

    def __init__(
        self, request_timeout_s: float, most: int = MOST_IN_FLIGHT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._late_s = _LATE_SHARE * request_timeout_s
        self._most = most
        self._clock = clock
        self._additive = False
        self._settled = False
        self._accepted = 0.0  # questions a second at the limit before the last doubling
        self._tries = 0
        self._rounds = 0
        self._value = min(_FIRST, most)
        self._start_round()

    @property
    def value(self) -> int:
        return self._value

    def answered(self, sent_at: float, questions: int) -> None:
        if self._clock() - sent_at > self._late_s and self._value > 1:
            self.overloaded(sent_at)
            return
        self._questions += questions
        self._answered_of_round += sent_at >= self._began
        if self._answered_of_round >= self._value:
            self._end_round(self._questions / max(self._clock() - self._began, 1e-9))

    def overloaded(self, sent_at: float) -> None:
        if sent_at < self._began:
            return  # sent before the limit was last changed, to which this is no answer
        self._value = max(1, self._value // 2)
        self._additive = True
        self._start_round()

    def _start_round(self) -> None:
        self._began = self._clock()
        self._questions = 0
        self._answered_of_round = 0

    def _end_round(self, rate: float) -> None:
        if self._additive:
            self._value = min(self._value + 1, self._most)
        elif self._settled:
            self._rounds += 1
            if self._rounds >= _SETTLED_ROUNDS:
                self._settled = False
                self._accept(rate)
        elif rate >= _GROWTH * self._accepted:
            self._accept(rate)
        else:
            self._tries += 1
            if self._tries >= _TRIES:
                self._value = max(1, self._value // 2)
                self._settled, self._rounds = True, 0
        self._start_round()

    def _accept(self, rate: float) -> None:
        """Take the present limit for good enough to be doubled."""
        self._accepted, self._tries = rate, 0
        if self._value == self._most:
            self._settled, self._rounds = True, 0
        self._value = min(2 * self._value, self._most)


class Ticket:
    """One request's way through the gate; `had_company` tells whether another was in flight at any time with it."""

    def __init__(self) -> None:
        self.had_company = False


class Gate:
    """Lets as many in as the limit says; or one, alone."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._inside: set[Ticket] = set()
        self._lonely = 0  # who waits to be alone, or is
        self._changed = asyncio.Condition()

    async def enter(self) -> Ticket:
        """Wait for a place. Those who want to be alone go first, so that a failing run ends early."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._lonely and len(self._inside) < self._limit.value)
            return self._admit()

    async def leave(self, ticket: Ticket) -> None:
        async with self._changed:
            self._inside.discard(ticket)
            self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[Ticket]:
        """Wait until nothing is in flight, and keep everybody out within the block."""
        self._lonely += 1
        ticket: Ticket | None = None
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._inside)
                ticket = self._admit()
            yield ticket
        finally:
            self._lonely -= 1
            if ticket is not None:
                await self.leave(ticket)

    def _admit(self) -> Ticket:
        ticket = Ticket()
        self._inside.add(ticket)
        if len(self._inside) > 1:
            for one in self._inside:
                one.had_company = True
        return ticket
