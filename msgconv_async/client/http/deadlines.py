"""Time limits of the calls under way, and of the exchanges that they make.

`asyncio.timeout` serves one block. This module serves all blocks that run at the same time, with
one timer: most of them end long before their limit, and each then costs an entry in a set. A block
that is broken off is cancelled, and ends when its task has cleaned up.
"""

from __future__ import annotations

import asyncio
import copy
import math
import sys
import traceback
from types import TracebackType
from typing import Literal, Protocol, Self

from msgconv_async.errors import DeadlineExceeded, MsgConvError, SessionUnusable
from msgconv_async.events import CallBegan, CallEnded, Emit, Source


class Deadline(Protocol):
    """The instant of the event loop's clock by which a call must be over; it may move."""

    @property
    def at(self) -> float:
        """Seconds of the event loop's clock, or infinity."""

    @property
    def ends(self) -> float:
        """The same, or a later instant, if that one only ends the wait for a turn."""

    @property
    def timeout(self) -> float:
        """Seconds that the call was given, or infinity."""

    def failed(self, error: MsgConvError) -> None:
        """Note a try that failed. The error names it if the time runs out."""

    def sent(self, at: float | None) -> None:
        """Note when the request that is now under way was sent; None: there is none."""


class Timer:
    """One timer for many `Timed` blocks.

    Args:
        loop: The event loop that they run in.

    Attributes:
        loop: As given.
        open: The blocks under way.
        wakes_at: When it looks for due blocks next, in seconds of the event loop's clock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.open: set[Timed] = set()
        self.wakes_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def wake(self, at: float) -> None:
        """Look for due blocks at this instant, and not before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at == math.inf else self.loop.call_at(at, self._look)
        self.wakes_at = at

    def _look(self) -> None:
        """Break off the blocks that are due; then wake up for the next one."""
        now = max(self.wakes_at, self.loop.time())  # a timer may fire a little early
        following = math.inf
        for block in self.open:
            if block.at <= now:
                block.break_off()
            elif block.at < following:
                following = block.at
        self.wake(following)


class Timed:
    """A block of one task that must be over by an instant.

    Args:
        timer: The timer that watches it.
        seconds: How long it may take, or infinity.

    Attributes:
        at: Seconds of the event loop's clock by which it must be over, or infinity.
    """

    __slots__ = ("_broken_off", "_cancelling", "_task", "_timer", "at")

    def __init__(self, timer: Timer, seconds: float) -> None:
        self._timer = timer
        self._broken_off = False
        self.at = timer.loop.time() + seconds

    def __enter__(self) -> Self:
        timer = self._timer
        task = asyncio.current_task(timer.loop)
        assert task is not None  # noqa: S101 - code that awaits runs in a task
        self._task = task
        self._cancelling = task.cancelling()
        timer.open.add(self)
        if self.at < timer.wakes_at:
            timer.wake(self.at)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Suppress the cancellation of a block that was broken off; the caller explains it."""
        self._timer.open.remove(self)
        # As in asyncio.timeout: a cancellation from elsewhere must still reach the task.
        return (
            self._broken_off
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        )

    def break_off(self) -> None:
        """Cancel what it awaits."""
        if not self._broken_off:
            self._broken_off = True
            self._task.cancel()


class Deadlines(Timer):
    """All calls of a session: each ends at its deadline, all of them when the session closes.

    Args:
        loop: The event loop that they run in.

    Attributes:
        closed: Whether all calls were broken off for good.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.closed = False
        self._over: asyncio.Future[None] = loop.create_future()

    async def close(self) -> None:
        """Break all calls off, and wait until they are over."""
        self.closed = True
        self.wake(math.inf)
        for call in self.open:
            call.break_off()
        if self.open:
            await self._over

    def ended(self) -> None:
        """Note that a call is over, while the session closes."""
        if not self.open and not self._over.done():
            self._over.set_result(None)


class TurnTooLate(DeadlineExceeded):
    """The time for which a call may wait for its turn ran out, and nothing was sent for it."""


class CallDeadline(Timed):
    """One call, for a ``with`` block around all that it awaits.

    Args:
        deadlines: The deadlines of its session.
        account_id: The account that an error names.
        timeout: Seconds that it may take, or infinity.
        max_wait: Seconds in which its first request must be sent, or infinity.

    Raises:
        TurnTooLate: On leaving the block: nothing was sent in `max_wait`.
        DeadlineExceeded: On leaving the block: the time ran out. If a try failed before, the
            message names the last one, and it is the ``__cause__``.
        SessionUnusable: On leaving the block: the session was closed.

    Attributes:
        timeout: As given.
        source: Where the answer of the call comes from.
    """

    __slots__ = (
        *("_account_id", "_at_last", "_deadlines", "_failure", "_handled"),
        *("source", "timeout"),
    )

    def __init__(
        self, deadlines: Deadlines, account_id: str, timeout: float, max_wait: float = math.inf
    ) -> None:
        super().__init__(deadlines, min(timeout, max_wait))
        # Set once something was sent; until then the time for waiting counts, if there is one.
        self._at_last = deadlines.loop.time() + timeout if max_wait < timeout else None
        self._deadlines = deadlines
        self._account_id = account_id
        self._failure: MsgConvError | None = None
        self.timeout = timeout
        self.source: Source = "fetched"

    def __enter__(self) -> Self:
        self._handled = sys.exception()
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        if error is not None:
            _forget_locals(error, self._handled)
        if self._failure is not None:
            # Its frames are not emptied: the work may be shared, and may still be running.
            self._failure.__traceback__ = None
        broken_off = super().__exit__(kind, error, traceback)
        closed = self._deadlines.closed
        if closed:
            self._deadlines.ended()
        if broken_off:
            if closed:
                raise SessionUnusable("this ConversationSession was closed meanwhile") from None
            raise self._late() from self._failure
        return False

    @property
    def ends(self) -> float:
        """The instant at which the whole call ends."""
        return self.at if self._at_last is None else self._at_last

    def failed(self, error: MsgConvError) -> None:
        """Note a try that failed. The error names it if the time runs out."""
        self._failure = error

    def sent(self, at: float | None) -> None:
        """Take note that the call waits for its turn no longer."""
        if at is not None and self._at_last is not None:
            self.at, self._at_last = self._at_last, None

    def _late(self) -> DeadlineExceeded:
        if self._at_last is not None:
            return TurnTooLate(
                "its turn did not come in time", account_id=self._account_id, timeout=self.timeout
            )
        message = "no answer in time"
        if self._failure is not None:
            before = str(self._failure).removeprefix(f"account {self._account_id}: ")
            message += f" since the last try failed: {before}"
        return DeadlineExceeded(message, account_id=self._account_id, timeout=self.timeout)


class WatchedCall(CallDeadline):
    """A call that tells when it begins, and how it ended.

    Args:
        deadlines: As `CallDeadline` takes it.
        account_id: As `CallDeadline` takes it.
        timeout: As `CallDeadline` takes it.
        max_wait: As `CallDeadline` takes it.
        emit: Takes the events.
    """

    __slots__ = ("_began", "_emit")

    def __init__(
        self,
        deadlines: Deadlines,
        account_id: str,
        timeout: float,
        max_wait: float,
        emit: Emit,
    ) -> None:
        super().__init__(deadlines, account_id, timeout, max_wait)
        self._emit = emit
        self._began = deadlines.loop.time()

    def __enter__(self) -> Self:
        self._emit(CallBegan(self._account_id))
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        ended = error
        try:
            super().__exit__(kind, error, traceback)
        except MsgConvError as late:
            ended = late
            raise
        finally:
            self._emit(
                CallEnded(
                    self._account_id,
                    self._deadlines.loop.time() - self._began,
                    self.source,
                    copy.copy(ended) if isinstance(ended, MsgConvError) else None,
                    isinstance(ended, asyncio.CancelledError),
                )
            )
        return False


def _forget_locals(error: BaseException, handled: BaseException | None) -> None:
    """Empty the frames that an error came through, so that an error reporter cannot show them.

    Error reporters walk the frames of a traceback. The frames within a call, aiohttp's included,
    hold the headers with the credentials. File and line of each frame stay.

    Args:
        error: The error that leaves the call.
        handled: The exception that was being handled when the call began; it is not the call's.
    """
    seen = {id(handled)}
    waiting = [error]
    while waiting:
        found = waiting.pop()
        seen.add(id(found))
        traceback.clear_frames(found.__traceback__)
        before = (found.__cause__, found.__context__)
        waiting += [cause for cause in before if cause is not None and id(cause) not in seen]
