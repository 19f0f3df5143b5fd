"""Computes when the next request may start: when there is a token, a free slot and no pause.

What it promises: the starts that are due by an instant are given out one by one, each with its own
due instant. So a late wake-up costs no rate. If a wake-up is later than `CATCH_UP`, the starts
missed beyond that are lost: a stalled event loop ends in a short burst, not in a long one.

The caller passes the time. This module waits for nothing and knows no callers that wait:
`queue.Queue` does, and so does the simulation in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Literal, Protocol

from msgconv_async.pacing.concurrency import ConcurrencyLimit
from msgconv_async.pacing.token_bucket import TokenBucket

Knob = Literal["rate", "concurrency"]
"""A limit that can hold a request back: starts per second, or requests in flight."""

CATCH_UP = 0.025
"""Seconds of lateness that a release makes good. That is long enough for a timer's grid and for the
pauses of a busy loop. It is short enough that at 40 starts a second it is a single start."""


class Allowance(Protocol):
    """The limits that now hold, as `AdaptiveLimit` gives them."""

    @property
    def rate(self) -> float:
        """Starts per second."""

    @property
    def concurrency(self) -> int:
        """Requests in flight."""

    @property
    def paused_until(self) -> float:
        """Seconds of the caller's clock before which nothing starts; -inf: no pause."""


class Schedule:
    """Gives out starts. All instants are seconds of one clock that never goes back.

    Args:
        bucket: Has a token for each start.
        slots: Has a slot for each request in flight.

    Attributes:
        bucket: As given.
        slots: As given.
        paused_until: Nothing starts before this instant.
        due: When the next waiting caller starts; infinite if that takes an event, not time, or if
            no caller waits.
        held_by: The knob that the head of the queue last had to wait for; None for no knob, or only
            for the end of a pause. Set it to None when a caller comes first in an empty queue.
    """

    __slots__ = ("_at", "bucket", "due", "held_by", "paused_until", "slots")

    def __init__(self, bucket: TokenBucket, slots: ConcurrencyLimit) -> None:
        self.bucket = bucket
        self.slots = slots
        self.paused_until = -math.inf
        self.due = math.inf
        self.held_by: Knob | None = None
        self._at = -math.inf  # the instant up to which starts were given out

    def start_now(self, now: float) -> bool:
        """Take a token and a slot, if a start is possible now; tell whether they were taken."""
        slots, bucket = self.slots, self.bucket
        if now < self.paused_until or slots.full or bucket.delay(now) > 0:
            return False
        slots.take()
        bucket.take(now)
        return True

    def wake(self, now: float) -> None:
        """Begin to give out the starts due by now; `start_due` follows for each waiting caller."""
        self._at = min(now, max(self.due, now - CATCH_UP))
        self.due = math.inf

    def start_due(self, now: float) -> bool:
        """Take a token and a slot for the next waiting caller, if due by now; else set `due`."""
        if self.slots.full:
            self.held_by = "concurrency"
            return False
        pause, delay = self.paused_until - self._at, self.bucket.delay(self._at)
        if pause > 0 or delay > 0:
            self.held_by = "rate" if delay > pause else None
            due = self._at + max(pause, delay)
            if due > now:
                self.due = due
                return False
            self._at = due
        self.slots.take()
        self.bucket.take(self._at)
        return True

    def undo(self) -> None:
        """Give back the token and the slot of a start that never happened."""
        self.slots.give_back()
        self.bucket.give_back()

    def follow(self, limit: Allowance, now: float, release: Callable[[], None]) -> None:
        """Allow what a limit now allows, from now on.

        Args:
            limit: The limits to allow.
            now: The present instant.
            release: Starts all callers that are due. Those due by now are due at the old rate.
        """
        self.slots.capacity = limit.concurrency
        self.paused_until = limit.paused_until
        release()
        if limit.rate != self.bucket.rate:
            self.bucket.change(now, limit.rate)
            release()

    def eta(self, now: float, position: int, knobs: Collection[Knob]) -> float:
        """Return the seconds, estimated early, until the start at this place in the queue.

        Args:
            now: The present instant.
            position: The place; the first is 1.
            knobs: The knobs that will stay as they are. The others do not count; a pause does.
        """
        wait = max(0.0, self.paused_until - now)
        if "rate" in knobs:
            wait = max(wait, self.bucket.eta(now, position))
        if "concurrency" in knobs:
            wait = max(wait, self.slots.eta(position))
        return wait
