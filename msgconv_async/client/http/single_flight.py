"""One piece of work for all callers that ask for it at the same time.

The work runs in a task of its own, so a caller that gives up does not stop it for the others; the
last caller to give up cancels it. It may take as long as the most patient of its callers allows.

No caller joins work whose request was sent `JOIN_WITHIN` ago or earlier: that request may never be
answered. A caller that comes then starts new work, and later callers join that.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import math
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

import anyio

from msgconv_async.client.http.deadlines import Deadline
from msgconv_async.errors import MsgConvError

T = TypeVar("T")

JOIN_WITHIN = 1.0
"""Seconds after a request was sent in which other callers may still join it. So a lost request
costs only the callers of one second, and the same question is sent at most once a second."""


class _Flight(Generic[T]):
    """A running piece of work, and the callers that wait for it."""

    def __init__(
        self,
        work: Callable[[Deadline], Coroutine[Any, Any, T]],
        failure: MsgConvError | None,
    ) -> None:
        self.waiting: list[Deadline] = []
        self.failure = failure
        self.before: _Flight[T] | None = None
        self.sent_at: float | None = None
        self.task = asyncio.create_task(work(self))
        self.over: asyncio.Future[asyncio.Task[T]] = self.task.get_loop().create_future()
        self.task.add_done_callback(self.end_with)

    @property
    def at(self) -> float:
        return max((waiter.at for waiter in self.waiting), default=-math.inf)

    @property
    def ends(self) -> float:
        return max((waiter.ends for waiter in self.waiting), default=-math.inf)

    @property
    def timeout(self) -> float:
        return max((waiter.timeout for waiter in self.waiting), default=0.0)

    def failed(self, error: MsgConvError) -> None:
        self.failure = error
        for waiter in self.waiting:
            waiter.failed(error)

    def sent(self, at: float | None) -> None:
        self.sent_at = at
        for waiter in self.waiting:
            waiter.sent(at)

    def join(self, deadline: Deadline) -> None:
        self.waiting.append(deadline)
        if self.failure is not None:
            deadline.failed(self.failure)
        if self.sent_at is not None:
            deadline.sent(self.sent_at)

    def end_with(self, task: asyncio.Task[T]) -> None:
        """Give the callers the result of a task: its own, or a later one that came first."""
        if not self.over.done():
            self.over.set_result(task)

    def running(self) -> _Flight[T] | None:
        """Return the latest flight that is not over: this one, or one before it.

        It also drops the links to flights that are over. In an outage in which nothing is answered,
        their chain would grow without end.
        """
        earlier = None if self.before is None else self.before.running()
        if self.task.done():
            return earlier
        self.before = earlier
        return self

    def may_be_lost(self) -> bool:
        """Tell whether its request was sent so long ago that no caller should rely on it."""
        if self.sent_at is None:
            return False
        return asyncio.get_running_loop().time() - self.sent_at >= JOIN_WITHIN


class SingleFlight(Generic[T]):
    """Runs one piece of work for each key, and another one where the first may be lost.

    The result of a later one is also given to the callers that still wait for an earlier one.

    Args:
        cancel_lost: Whether the earlier one is cancelled then. False lets it come to its end, for
            work that leaves something behind that must be ended.
    """

    def __init__(self, *, cancel_lost: bool = True) -> None:
        self._cancel_lost = cancel_lost
        self._flights: dict[Hashable, _Flight[T]] = {}
        self._overtaken: set[asyncio.Task[T]] = set()

    async def close(self) -> None:
        """Cancel the work that no caller waits for any more."""
        for task in self._overtaken:
            task.cancel()
        if self._overtaken:
            await asyncio.wait(self._overtaken)

    def __contains__(self, key: Hashable) -> bool:
        """Tell whether a caller that asked for this now would join others."""
        flight = self._flights.get(key)
        return flight is not None and not flight.may_be_lost()

    async def join(
        self,
        key: Hashable,
        work: Callable[[Deadline], Coroutine[Any, Any, T]],
        deadline: Deadline,
    ) -> T:
        """Wait for the work under this key, starting it if there is none.

        Args:
            key: What is asked for. Callers that ask for the same share the work, unless it may be
                lost.
            work: Called with the deadline of the work, which moves with its callers.
            deadline: The caller's own, which the caller enforces.

        Returns:
            What the work returned.

        Raises:
            MsgConvError: What the work raised; each caller gets a copy.
        """
        flight = self._flights.get(key)
        if flight is None or flight.may_be_lost():
            earlier = flight
            flight = _Flight(work, None if earlier is None else earlier.failure)
            flight.before = None if earlier is None else earlier.running()
            self._flights[key] = flight
            flight.task.add_done_callback(functools.partial(self._landed, key, flight))
        flight.join(deadline)
        try:
            await _landing(flight.over)
        finally:
            flight.waiting.remove(deadline)
            deadline.sent(None)
            if not flight.waiting and not flight.over.done():
                self._forget(key, flight.task)
                flight.task.cancel()
                with anyio.CancelScope(shield=True):
                    await _landing(flight.task)
        task = flight.over.result()
        error = task.exception()
        if isinstance(error, MsgConvError):
            raise copy.copy(error)
        return task.result()

    def _landed(self, key: Hashable, flight: _Flight[T], task: asyncio.Task[T]) -> None:
        self._forget(key, task)
        # The callers have the exception; if no caller is left, none needs it.
        if not task.cancelled() and task.exception() is None:
            self._relieve(flight)

    def _relieve(self, flight: _Flight[T]) -> None:
        earlier, flight.before = flight.before, None
        while earlier is not None:
            earlier.end_with(flight.task)
            if self._cancel_lost:
                earlier.task.cancel()
            elif not earlier.task.done():
                self._overtaken.add(earlier.task)
                earlier.task.add_done_callback(self._overtaken.discard)
            earlier = earlier.before

    def _forget(self, key: Hashable, task: asyncio.Task[T]) -> None:
        if (flight := self._flights.get(key)) is not None and flight.task is task:
            del self._flights[key]


async def _landing(task: asyncio.Future[Any]) -> None:
    """Wait until something is done, more cheaply than `asyncio.wait`, which is made for many."""
    landed = asyncio.get_running_loop().create_future()

    def tell(_: object) -> None:
        if not landed.done():
            landed.set_result(None)

    task.add_done_callback(tell)
    await landed
