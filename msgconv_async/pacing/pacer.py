"""One account's pace: even starts, so many at once, and what the answers teach about both."""

from __future__ import annotations

import asyncio
from typing import Literal, Self, TypeAlias

from msgconv_async.pacing.adaptive import AdaptiveLimit, Knob, Start
from msgconv_async.pacing.concurrency import ConcurrencyLimit
from msgconv_async.pacing.line import Line
from msgconv_async.pacing.token_bucket import TokenBucket

Outcome: TypeAlias = Literal["answered", "throttled", "neutral"]


class Pacer:
    """Tells each request of one account when it may start.

    A request starts when it is first in the queue, a slot is free, and the bucket holds a token.
    How many slots there are, and how many tokens a second, follows from how the service answers,
    within the bounds of the limit given. Only a throttled request itself has to wait long; the
    account's others go on, slower. Belongs to the event loop that it is first used in.

    Args:
        limit: Finds the limit; by default one that starts gently and needs no number.

    Attributes:
        sent: Requests started.
        answered: Requests that the service took on, whatever it made of them.
        throttled: Requests that it refused with 429.
    """

    def __init__(self, limit: AdaptiveLimit | None = None) -> None:
        self._limit = AdaptiveLimit() if limit is None else limit
        self._slots = ConcurrencyLimit(self._limit.concurrency)
        self._bucket = TokenBucket(self._limit.rate)
        self._line = Line(self._slots, self._bucket)
        self._names: dict[object, Knob] = {self._slots: "concurrency", self._bucket: "rate"}
        self.sent = 0
        self.answered = 0
        self.throttled = 0

    @property
    def rate(self) -> float:
        """Starts per second now allowed."""
        return self._limit.rate

    @property
    def concurrency(self) -> int:
        """Requests at once now allowed."""
        return self._limit.concurrency

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._line.waiting

    @property
    def in_flight(self) -> int:
        """Requests started and not yet over."""
        return self._slots.in_flight

    def eta(self) -> float:
        """Return how many seconds from now a request that queued now would start, or less."""
        return self._line.eta()

    def turn(self) -> Turn:
        """Return an async context manager that waits for a turn and holds its slot while inside."""
        return Turn(self)

    async def start(self) -> tuple[float, Start]:
        """Wait for a turn; `finish` must follow with what this returns."""
        held_by = await self._line.acquire()
        now = asyncio.get_running_loop().time()
        self.sent += 1
        return now, self._limit.started(now, self._slots.in_flight, self._names.get(held_by))

    def finish(
        self, started: tuple[float, Start], outcome: Outcome, retry_after: float | None
    ) -> None:
        """Free the slot, and let the limit learn."""
        began, start = started
        now = asyncio.get_running_loop().time()
        limit = self._limit
        self._slots.finished(now - began)
        if outcome == "answered":
            self.answered += 1
            limit.answered(start, now)
        elif outcome == "throttled":
            self.throttled += 1
            limit.throttled(start, now, retry_after)
        else:
            limit.neutral(start, now)
        self._slots.capacity = limit.concurrency
        if limit.rate != self._bucket.rate:
            self._bucket.change(now, limit.rate, self._bucket.burst)
        self._line.pause(limit.paused_until)


class Turn:
    """One request's turn. Say in it how the service took the request.

    Leaving without a word says nothing about the limit: so it is for failures on the way, failures
    of the service, and cancellation.
    """

    __slots__ = ("_outcome", "_pacer", "_retry_after", "_started")

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._outcome: Outcome = "neutral"
        self._retry_after: float | None = None

    async def __aenter__(self) -> Self:
        """Wait for the turn."""
        self._started = await self._pacer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give the slot back."""
        self._pacer.finish(self._started, self._outcome, self._retry_after)

    def answered(self) -> None:
        """Say that the service took it on, whatever it made of it."""
        self._outcome = "answered"

    def throttled(self, retry_after: float | None) -> None:
        """Say that the service refused it with 429, and what ``Retry-After`` asked, in seconds."""
        self._outcome, self._retry_after = "throttled", retry_after
