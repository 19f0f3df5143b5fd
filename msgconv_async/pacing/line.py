"""Waiting, in one place: a single first-come-first-served queue with a single timer.

What it promises:

- Whoever calls `Line.acquire` first starts first, also against a caller who need not wait. Who had
  a turn that led to nothing, and comes again, was there before all who still wait for their first
  one: those start before the others, in the order in which they came again.
- However many wait, one timer runs, set for the instant at which the head of the queue is due.
  All who are due by the time it fires are released together, each as of its own due instant, so a
  late timer (asyncio's fire on a grid of about a millisecond) costs no rate.
- A wake-up that comes later than `CATCH_UP` is not made good: what was missed beyond it is
  forgone, so that a stalled event loop ends in a short burst and not in a long one.
- Cancellation at any point loses nothing: who still waits leaves the queue, who was granted but
  has not resumed gives back what it took, and the next in the queue has it at once.

What a start needs is the business of its `Gate` objects. They are plain arithmetic and are told
the time; only the line waits.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import Protocol

CATCH_UP = 0.025
"""Seconds of lateness that a release makes good. Long enough for a timer's grid and for the pauses
of a busy loop, short enough that at 40 starts a second it is a single one."""


class Gate(Protocol):
    """A condition that every start must meet. Instants are the event loop's seconds."""

    def delay(self, now: float) -> float:
        """Return seconds until the next may start; infinite if that takes an event, not time."""

    def take(self, now: float) -> None:
        """Account for a start at ``now``, an instant at which `delay` has just been 0 or less."""

    def give_back(self) -> None:
        """Undo a `take` whose start never happened."""

    def eta(self, now: float, position: int) -> float:
        """Return the seconds, estimated early, until the start at this place in the queue."""


class Line:
    """A queue whose head starts once every gate lets it.

    Belongs to the event loop that first waits in it. Not thread-safe.
    """

    def __init__(self, *gates: Gate) -> None:
        self._gates = gates
        self._again: OrderedDict[asyncio.Future[Gate | None], None] = OrderedDict()
        self._waiters: OrderedDict[asyncio.Future[Gate | None], None] = OrderedDict()
        self._holding: Gate | None = None
        self._resuming = 0
        self._paused_until = -math.inf
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many stand in the queue now."""
        return len(self._waiters) + len(self._again)

    def take(self, now: float) -> bool:
        """Take what a start takes from every gate, if one may start now; tell whether it may."""
        if self._waiters or self._again or self._resuming or now < self._paused_until:
            return False
        for gate in self._gates:
            if gate.delay(now) > 0:
                return False
        for gate in self._gates:
            gate.take(now)
        return True

    async def acquire(self, *, again: bool = False) -> Gate | None:
        """Wait for one's turn, and take what a start takes from every gate.

        Args:
            again: Whether it had its turn before, and comes before those who had none.

        Returns:
            The gate that held up the head of the queue last; None for who did not have to wait,
            or only for the end of a pause.
        """
        loop = asyncio.get_running_loop()
        if self.take(loop.time()):
            return None
        turn: asyncio.Future[Gate | None] = loop.create_future()
        queue = self._again if again else self._waiters
        queue[turn] = None
        if self.waiting == 1:
            self.replan()
        try:
            held_by = await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                queue.pop(turn, None)
            else:
                self._resuming -= 1
                for gate in self._gates:
                    gate.give_back()
            self.replan()
            raise
        self._resuming -= 1
        return held_by

    def eta(self, *gates: Gate, again: bool = False) -> float:
        """Return how many seconds from now a start would come if it queued now, or queued again.

        An estimate on the early side, as long as those of the line's gates that are given stay as
        they are. The others do not count; a pause does.
        """
        now = asyncio.get_running_loop().time()
        position = (len(self._again) if again else self.waiting) + self._resuming + 1
        waits = [gate.eta(now, position) for gate in gates]
        return max(0.0, self._paused_until - now, *waits)

    def pause(self, until: float) -> None:
        """Let nothing start before this instant of the event loop's clock.

        An earlier instant than the one already laid, or infinity's negative, takes the pause back.
        """
        self._paused_until = until
        self.replan()

    def replan(self) -> None:
        """Let all go who are due, and set the timer for the next: call it when a gate changed."""
        if not self.waiting and self._timer is None:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        at = min(now, max(self._due, now - CATCH_UP))
        due = math.inf
        while queue := self._again or self._waiters:
            due = at + max(0.0, self._delay(at))
            if due > now:
                break
            at, due = due, math.inf
            turn, _ = queue.popitem(last=False)
            if not turn.done():
                for gate in self._gates:
                    gate.take(at)
                self._resuming += 1
                turn.set_result(self._holding)
        if due != self._due or self._timer is None:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = None if due == math.inf else loop.call_at(due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.replan()

    def _delay(self, now: float) -> float:
        delay, holding = self._paused_until - now, None
        for gate in self._gates:
            if (wait := gate.delay(now)) > delay:
                delay, holding = wait, gate
        if delay > 0:
            self._holding = holding
        return delay
