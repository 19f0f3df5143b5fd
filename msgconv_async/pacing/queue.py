"""Waiting, in one place: a first-come-first-served queue with a single timer.

What it promises:

- Callers start in the order in which they called `Queue.acquire`, even if a later one would not
  have to wait. A caller that calls again, after a start that led to nothing, goes before all
  callers that wait for their first start. Such callers keep their own order.
- One timer serves all callers. It is set for the instant at which the head of the queue is due. All
  callers that are due when it fires are released together: see `schedule`.
- Cancellation at any point loses nothing. A caller that still waits leaves the queue. A caller that
  was granted a start but has not resumed gives it back, and the next caller in the queue gets it at
  once.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Collection

from msgconv_async.pacing.schedule import Knob, Schedule


class Queue:
    """Lets its head start as soon as the schedule has a start for it.

    It belongs to the event loop in which a caller first waits. It is not thread-safe.

    Args:
        schedule: Gives out the starts, by the event loop's clock. Call `replan` when it changed.
    """

    __slots__ = ("_again", "_resuming", "_schedule", "_timer", "_timer_at", "_waiters")

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._again: OrderedDict[asyncio.Future[Knob | None], None] = OrderedDict()
        self._waiters: OrderedDict[asyncio.Future[Knob | None], None] = OrderedDict()
        self._resuming = 0  # granted a start, and not yet resumed
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    @property
    def waiting(self) -> int:
        """The number of callers in the queue now."""
        return len(self._waiters) + len(self._again)

    def start_now(self, now: float) -> bool:
        """Take a start if the queue is empty and a start is due; tell whether it was taken."""
        if self._waiters or self._again or self._resuming:
            return False
        return self._schedule.start_now(now)

    async def acquire(self, *, again: bool = False) -> Knob | None:
        """Wait for a start, and take it.

        Args:
            again: Whether the caller started before; it then goes before callers that did not.

        Returns:
            The knob that last held up the head of the queue. None for a caller that did not have to
            wait, or only for the end of a pause.
        """
        loop = asyncio.get_running_loop()
        if self.start_now(loop.time()):
            return None
        turn: asyncio.Future[Knob | None] = loop.create_future()
        queue = self._again if again else self._waiters
        queue[turn] = None
        if self.waiting == 1:
            self._schedule.held_by = None
            self.replan()
        try:
            held_by = await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                queue.pop(turn, None)
            else:
                self._resuming -= 1
                self._schedule.undo()
            self.replan()
            raise
        self._resuming -= 1
        return held_by

    def give_back(self) -> None:
        """Give a start back that nobody needs any more, to the next in the queue."""
        self._schedule.undo()
        self.replan()

    def eta(self, knobs: Collection[Knob], *, again: bool = False) -> float:
        """Return how many seconds from now a caller would start if it queued now, or queued again.

        An estimate on the early side; see `Schedule.eta`.
        """
        now = asyncio.get_running_loop().time()
        position = (len(self._again) if again else self.waiting) + self._resuming + 1
        return self._schedule.eta(now, position, knobs)

    def replan(self) -> None:
        """Release all callers that are due, and set the timer. Call it on every change."""
        if not self.waiting and self._timer is None:
            return
        loop = asyncio.get_running_loop()
        now, schedule = loop.time(), self._schedule
        schedule.wake(now)
        while (queue := self._again or self._waiters) and schedule.start_due(now):
            turn, _ = queue.popitem(last=False)
            if turn.done():
                schedule.undo()
            else:
                self._resuming += 1
                turn.set_result(schedule.held_by)
        self._set_timer(loop, schedule.due)

    def _set_timer(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        if self._timer is not None:
            if due == self._timer_at:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = None if due == math.inf else loop.call_at(due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.replan()
