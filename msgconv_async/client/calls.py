"""The calls under way: each ends at its deadline, all of them when the session closes.

What `asyncio.timeout` does for one block, this does for as many as run at the same time, with one
timer for them all: most calls end long before their deadline, and each then costs an entry in a
set. A call that is broken off is cancelled, and ends when its task has cleaned up.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

from msgconv_async.errors import DeadlineExceeded, MsgConvError, SessionUnusable


class Calls:
    """All calls of a session.

    Args:
        loop: The event loop that they run in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.closed = False
        self._open: set[Call] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf
        self._over: asyncio.Future[None] | None = None

    def begin(self, call: Call) -> None:
        """Watch over a call."""
        self._open.add(call)
        if call.at < self._wakes_at:
            self._wake(call.at)

    def end(self, call: Call) -> None:
        """Forget a call that is over."""
        self._open.remove(call)
        if self._over is not None and not self._open and not self._over.done():
            self._over.set_result(None)

    async def close(self) -> None:
        """Break all of them off, and wait until they are over."""
        self.closed = True
        self._wake(math.inf)
        for call in self._open:
            call.break_off()
        if self._open:
            self._over = self.loop.create_future()
            await self._over

    def _wake(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at == math.inf else self.loop.call_at(at, self._look)
        self._wakes_at = at

    def _look(self) -> None:
        """Break off what is due; then wake up for whatever is due next."""
        now = max(self._wakes_at, self.loop.time())  # a timer may fire a little early
        following = math.inf
        for call in self._open:
            if call.at <= now:
                call.break_off()
            elif call.at < following:
                following = call.at
        self._wake(following)


class Call:
    """One call, for a ``with`` block around all that it awaits.

    Args:
        calls: Those it belongs to.
        account_id: Whom an error names.
        timeout: Seconds that it may take, or infinity.

    Raises:
        DeadlineExceeded: On leaving the block: the time ran out. The last try that failed before,
            if any did, is named in it, and is its ``__cause__``.
        SessionUnusable: On leaving the block: the session was closed.

    Attributes:
        at: Seconds of the event loop's clock by which it must be over, or infinity.
        timeout: As given.
    """

    __slots__ = (
        "_account_id",
        "_broken_off",
        "_calls",
        "_cancelling",
        "_failure",
        "_task",
        "at",
        "timeout",
    )

    def __init__(self, calls: Calls, account_id: str, timeout: float) -> None:
        self._calls = calls
        self._account_id = account_id
        self._broken_off = False
        self._failure: MsgConvError | None = None
        self.at = calls.loop.time() + timeout
        self.timeout = timeout

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - whoever awaits is in a task
        self._task = task
        self._cancelling = task.cancelling()
        self._calls.begin(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.end(self)
        # As asyncio.timeout does it: whoever else cancelled the task is not to be kept from it.
        if (
            self._broken_off
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            if self._calls.closed:
                raise SessionUnusable("this ConversationSession was closed meanwhile") from None
            raise self._late() from self._failure

    def failed(self, error: MsgConvError) -> None:
        """Take note of a try that failed, to be named should the time run out."""
        self._failure = error

    def _late(self) -> DeadlineExceeded:
        message = "no answer in time"
        if self._failure is not None:
            before = str(self._failure).removeprefix(f"account {self._account_id}: ")
            message += f" since the last try failed: {before}"
        return DeadlineExceeded(message, account_id=self._account_id, timeout=self.timeout)

    def break_off(self) -> None:
        """Cancel what it awaits."""
        if not self._broken_off:
            self._broken_off = True
            self._task.cancel()
