"""The pace of one account: evenly spaced starts, limited in number, learnt from the answers."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from msgconv_async import checks
from msgconv_async.pacing.adaptive import RATES, SLOTS, AdaptiveLimit, Belief
from msgconv_async.pacing.concurrency import ConcurrencyLimit
from msgconv_async.pacing.queue import Queue
from msgconv_async.pacing.recent import Start
from msgconv_async.pacing.schedule import Knob, Schedule
from msgconv_async.pacing.token_bucket import TokenBucket

Ending: TypeAlias = Literal["answered", "throttled", "neutral"]


@dataclass(frozen=True, slots=True)
class PacerStats:
    """A snapshot of a pacer: its counts, and the limits that it now allows.

    Attributes:
        sent: Requests started.
        answered: Requests that the service accepted, with any answer.
        throttled: Requests that it refused with 429.
        retried: Requests that repeated one that had failed.
        waiting: Requests in the queue.
        in_flight: Requests started and not yet over.
        rate: Starts per second now allowed.
        concurrency: Requests at once now allowed.
        limited_by: Which of these two follows the service's limit (of two that are fixed: the
            rate). The other one is kept loose, and says nothing about the limit. None while nothing
            was refused: both are then what is allowed so far.
    """

    sent: int
    answered: int
    throttled: int
    retried: int
    waiting: int
    in_flight: int
    rate: float
    concurrency: int
    limited_by: Knob | None


class Pacer:
    """Tells each request of one account when it may start.

    A request starts when it is first in the queue, a slot is free, and the bucket holds a token.
    The number of slots, and of tokens a second, follows from the service's answers: it begins low,
    and needs no number from you. Only a throttled request itself has to wait long. The other
    requests of the account go on, slower, unless everything is refused. A pacer belongs to the
    event loop that it is first used in.

    Args:
        rate: Starts per second: a number fixes it, where the limit is known; a pair bounds it.
        concurrency: Requests at once: a number fixes it, a pair bounds it.

    Raises:
        ConfigurationError: A bound is not above 0 (of concurrency: below 1), or the lower bound is
            above the upper one.

    Attributes:
        sent: Requests started.
        answered: Requests that the service accepted, with any answer.
        throttled: Requests that it refused with 429.
        retried: Requests that repeated one that had failed; counted by the sender.
        answered_at: When the last request was answered, by the event loop's clock.
    """

    def __init__(
        self,
        *,
        rate: float | tuple[float, float] = RATES,
        concurrency: int | tuple[int, int] = SLOTS,
    ) -> None:
        self._limit = AdaptiveLimit(
            rate=rate if isinstance(rate, tuple) else (rate, rate),
            concurrency=(
                concurrency if isinstance(concurrency, tuple) else (concurrency, concurrency)
            ),
        )
        self._schedule = Schedule(
            TokenBucket(self._limit.rate), ConcurrencyLimit(self._limit.concurrency)
        )
        self._queue = Queue(self._schedule)
        self.sent = 0
        self.answered = 0
        self.throttled = 0
        self.retried = 0
        self.answered_at = -math.inf

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
        return self._queue.waiting

    @property
    def in_flight(self) -> int:
        """Requests started and not yet over."""
        return self._schedule.slots.in_flight

    def stats(self) -> PacerStats:
        """Return what the pacer has done and what it now allows."""
        return PacerStats(
            self.sent,
            self.answered,
            self.throttled,
            self.retried,
            self.waiting,
            self.in_flight,
            self.rate,
            self.concurrency,
            self._limit.steered,
        )

    def eta(self, *, again: bool = False) -> float:
        """Return how many seconds from now a request that queued now would start, or less.

        With `again`, it is a request that was sent before, and goes before those that were not.
        While nothing was refused, a knob that is not fixed may double with every round trip. So a
        rate or a concurrency counts only if it is fixed, or a request was refused. A pause always
        counts.
        """
        return self._queue.eta(self._limit.known(), again=again)

    @property
    def holding(self) -> float:
        """Seconds that nearly all requests take from start to end; 0.0 while nothing is known."""
        return self._schedule.slots.holding

    def turn(self) -> "Turn":
        """Return an async context manager that waits for a turn and holds its slot while inside."""
        return Turn(self)

    def start_at_once(self) -> Start | None:
        """Take a turn if nothing is in the way; `finish` must follow with what this returns."""
        now = asyncio.get_running_loop().time()
        return self._started(now, None) if self._queue.start_now(now) else None

    async def start_in_turn(self, *, again: bool = False) -> Start:
        """Wait for a turn, with `again` before requests that had none; `finish` must follow."""
        held_by = await self._queue.acquire(again=again)
        return self._started(asyncio.get_running_loop().time(), held_by)

    async def start_in_time(
        self, ends: Callable[[], float], *, again: bool = False
    ) -> Start | None:
        """Wait for a turn as `start_in_turn` does, and leave it to the next if it comes too late.

        Args:
            ends: Returns the instant, in seconds of the event loop's clock, at which the answer is
                of no use any more.
            again: As `start_in_turn` takes it.

        Returns:
            The start, or None if there is less time left than nearly all requests take: the limit
            would be used up for an answer that nobody waits for.
        """
        held_by = await self._queue.acquire(again=again)
        now = asyncio.get_running_loop().time()
        if now + self.holding > ends():
            self._queue.give_back()
            return None
        return self._started(now, held_by)

    def _started(self, now: float, held_by: Knob | None) -> Start:
        self.sent += 1
        start = self._limit.started(now, self.in_flight, held_by)
        if self._limit.paused_until != self._schedule.paused_until:
            self._schedule.paused_until = self._limit.paused_until
            self._queue.replan()
        return start

    def finish(self, start: Start, outcome: Ending, retry_after: float | None) -> None:
        """Free the slot, and let the limit learn."""
        now = asyncio.get_running_loop().time()
        if outcome == "neutral":
            self._schedule.slots.give_back()  # a lost request does not tell how long answers take
        else:
            self._schedule.slots.finished(now - start.at)
        if outcome == "answered":
            self.answered += 1
            self.answered_at = now
            self._limit.answered(start, now)
        elif outcome == "throttled":
            self.throttled += 1
            self._limit.throttled(start, now, retry_after)
        else:
            self._limit.neutral(start, now)
        self._schedule.follow(self._limit, now, self._queue.replan)

    def belief(self) -> Belief | None:
        """Return what was learnt about the limit; None while nothing was refused."""
        return self._limit.belief()

    def believe(self, belief: Belief) -> None:
        """Begin from what another pacer of the same account learnt, before the first request.

        Raises:
            ConfigurationError: ``belief`` is not what `belief` returns.
        """
        checks.instance("belief", belief, Belief, "what another pacer's belief() returned")
        self._limit.believe(belief)
        # No request waits yet, so this needs no event loop.
        self._schedule = Schedule(
            TokenBucket(self._limit.rate), ConcurrencyLimit(self._limit.concurrency)
        )
        self._queue = Queue(self._schedule)

    def open(self) -> None:
        """Allow all that the bounds allow: a gateway keeps to the account's limit by itself."""
        self._limit.open()
        now = asyncio.get_running_loop().time()
        self._schedule.follow(self._limit, now, self._queue.replan)


class Turn:
    """One request's turn. Say in it how the service took the request.

    Leaving without a call says nothing about the limit. That is right for failures on the way,
    failures of the service, and cancellation.
    """

    __slots__ = ("_outcome", "_pacer", "_retry_after", "_start")

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._outcome: Ending = "neutral"
        self._retry_after: float | None = None

    async def __aenter__(self) -> Self:
        """Wait for the turn."""
        self._start = self._pacer.start_at_once() or await self._pacer.start_in_turn()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give the slot back."""
        self._pacer.finish(self._start, self._outcome, self._retry_after)

    def answered(self) -> None:
        """Say that the service accepted the request, with any answer."""
        self._outcome = "answered"

    def throttled(self, retry_after: float | None) -> None:
        """Say that the service refused it with 429, and what ``Retry-After`` asked, in seconds.

        Raises:
            ConfigurationError: ``retry_after`` is neither a number of 0 or more nor None.
        """
        if retry_after is not None:
            what = "0 seconds or more, or None"
            checks.number("retry_after", retry_after, what, most=math.inf)
        self._outcome, self._retry_after = "throttled", retry_after
