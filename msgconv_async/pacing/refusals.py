"""The starts that were refused in a row, and when they are an outage.

One refusal, or two, is the limit's answer to a probe. Three starts refused in a row mean that
everything is refused: a quota for a long time is used up, or the service is in trouble. Then
nothing starts until the time that the server asked for is over. If the server asked for none, it is
a third of the time since the first refusal. After that one start goes first, alone, and shows
whether the outage is over.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from msgconv_async.pacing.probe import LONGEST_WAIT, REST_SECONDS, Found
from msgconv_async.pacing.recent import RecentStarts, Start

OUTAGE: Final = 3  # starts refused in a row that mean: everything is refused

_NOBODY = Start(-math.inf, 0, 0, None)


class Ended(NamedTuple):
    """A run of refusals that an answer ended.

    Attributes:
        outage: Whether everything was refused.
        seconds: From the first start that was refused to the start that was answered.
        turned: About when the limit let requests through again: halfway between the last refusal
            (or the end of its Retry-After) and the start that was answered.
        before: What was found of the limit before the first of them.
    """

    outage: bool
    seconds: float
    turned: float
    before: Found


class Refusals:
    """The present run of refusals, if there is one.

    Attributes:
        count: Starts refused in a row; 0 if the last outcome that counts was an answer.
        first: The first of them.
        last: The last of them; also that of the run before.
    """

    __slots__ = ("_before", "_head_start", "_until", "count", "first", "last")

    def __init__(self) -> None:
        self.count = 0
        self.first = self.last = _NOBODY
        self._until = -math.inf  # the last refused start, or the end of its Retry-After
        self._head_start: float | None = None  # seconds; None if it was taken, or is not needed
        self._before = Found()

    @property
    def is_outage(self) -> bool:
        """Whether everything is refused."""
        return self.count >= OUTAGE

    @property
    def is_returning(self) -> bool:
        """Whether, in an outage, the start that goes first is under way."""
        return self.is_outage and self._head_start is None

    def add(
        self, start: Start, recent: RecentStarts, now: float, retry_after: float, found: Found
    ) -> float:
        """Take note of one more refusal; they may arrive in any order.

        Args:
            start: The start that was refused, marked so.
            recent: The last starts.
            now: Monotonic seconds.
            retry_after: Seconds that the server asked for, or 0.0.
            found: What is found of the limit so far.

        Returns:
            The instant before which nothing should start, in monotonic seconds; -inf if this is no
            outage.
        """
        if not self.count:
            self._before = found
        if start.seq > self.last.seq:
            self.last, self._until = start, start.at
        if retry_after:
            self._until = max(self._until, now + retry_after)
        first = recent.first_of_run(self.last)
        if first or not self.count:
            self.first = first or start
        self.count = max(1, self.last.seq - self.first.seq + 1)
        if self.count < OUTAGE:
            return -math.inf
        self._head_start = min(2.0 * (now - start.at), REST_SECONDS)  # a refusal takes half of it
        wait = retry_after or min((now - self.first.at) / OUTAGE, LONGEST_WAIT)
        return now + wait

    def take_head_start(self) -> float:
        """Return the seconds by which a start goes before all others; 0.0 unless it is the first.

        The first start after an outage takes them, and no later start does.
        """
        seconds, self._head_start = self._head_start, None
        return seconds or 0.0

    def end(self, answered: Start) -> Ended:
        """End the run with the answer to a later start, and return what it was."""
        turned = (min(self._until, answered.at) + answered.at) / 2
        ended = Ended(self.is_outage, answered.at - self.first.at, turned, self._before)
        self.count = 0
        self._head_start = None
        return ended
