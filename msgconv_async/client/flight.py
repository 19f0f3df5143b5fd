"""One piece of work for all who ask for it at the same time.

It runs in a task of its own, so that a caller who gives up does not take the others down; the last
one to give up cancels it. It may take as long as the most patient of those who wait allows.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

import anyio

from msgconv_async.client.retry import Deadline
from msgconv_async.errors import MsgConvError

T = TypeVar("T")


class _Flight(Generic[T]):
    """A running piece of work, and those who wait for it."""

    def __init__(self, work: Callable[[Deadline], Coroutine[Any, Any, T]]) -> None:
        self.waiting: list[Deadline] = []
        self.failure: MsgConvError | None = None
        self.task = asyncio.create_task(work(self))

    @property
    def at(self) -> float:
        return max((each.at for each in self.waiting), default=-math.inf)

    @property
    def timeout(self) -> float:
        return max((each.timeout for each in self.waiting), default=0.0)

    def failed(self, error: MsgConvError) -> None:
        self.failure = error
        for each in self.waiting:
            each.failed(error)


class Flights(Generic[T]):
    """Runs at most one piece of work a key at a time."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def join(
        self,
        key: Hashable,
        work: Callable[[Deadline], Coroutine[Any, Any, T]],
        deadline: Deadline,
    ) -> T:
        """Wait for the work under this key, starting it if nobody has.

        Args:
            key: What is asked for; whoever asks for the same shares the work.
            work: Called with the deadline of the work, which moves with those who wait.
            deadline: The caller's own, which the caller enforces.

        Returns:
            What the work returned.

        Raises:
            MsgConvError: What the work raised; each who waited gets a copy.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(work)
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        flight.waiting.append(deadline)
        if flight.failure is not None:
            deadline.failed(flight.failure)
        try:
            await _landing(flight.task)
        finally:
            flight.waiting.remove(deadline)
            if not flight.waiting and not flight.task.done():
                self._forget(key, flight.task)
                flight.task.cancel()
                with anyio.CancelScope(shield=True):
                    await _landing(flight.task)
        error = flight.task.exception()
        if isinstance(error, MsgConvError):
            raise copy.copy(error)
        return flight.task.result()

    def _landed(self, key: Hashable, task: asyncio.Task[T]) -> None:
        self._forget(key, task)
        if not task.cancelled():
            task.exception()  # those who waited had it; with nobody left it is nobody's

    def _forget(self, key: Hashable, task: asyncio.Task[T]) -> None:
        if (flight := self._flights.get(key)) is not None and flight.task is task:
            del self._flights[key]


async def _landing(task: asyncio.Task[Any]) -> None:
    """Wait until a task is done, more cheaply than `asyncio.wait`, which is made for many."""
    landed = asyncio.get_running_loop().create_future()

    def tell(_: object) -> None:
        if not landed.done():
            landed.set_result(None)

    task.add_done_callback(tell)
    await landed
