"""The limit on requests in flight.

What it promises: there are never more than ``capacity`` requests in flight. A capacity lowered
below the number in flight stops new starts until enough requests have finished. It ends none of
those that run.
"""

from __future__ import annotations

import math


class ConcurrencyLimit:
    """Counts requests in flight against a capacity.

    Args:
        capacity: The most that may be in flight, 1 or more, or infinity.
    """

    __slots__ = ("_held", "_off", "capacity", "in_flight")

    def __init__(self, capacity: float = math.inf) -> None:
        self.capacity = capacity
        self.in_flight = 0
        self._held = 0.0
        self._off = 0.0  # by how much the last times differed from the estimate

    @property
    def full(self) -> bool:
        """Whether no slot is free."""
        return self.in_flight >= self.capacity

    def take(self) -> None:
        """Take a slot."""
        self.in_flight += 1

    def give_back(self) -> None:
        """Free a slot whose request never started, or had no answer."""
        self.in_flight -= 1

    def finished(self, seconds: float) -> None:
        """Free a slot that was held for this many seconds.

        The time feeds the estimates of `eta` and `holding`, which follow a shorter one at once and
        a longer one slowly: an estimate that errs should err early.
        """
        self.in_flight -= 1
        off = seconds - self._held
        self._off += (abs(off) - self._off) / 4
        self._held = min(seconds, self._held + 0.1 * off)

    @property
    def holding(self) -> float:
        """Seconds for which nearly all requests hold a slot at most; 0.0 while nothing is known.

        It is an estimate and four times its mean error, as for TCP's timer (RFC 6298, section 2).
        """
        return self._held + 4 * self._off

    def eta(self, position: int) -> float:
        """Return seconds until the start at this place, if slots are held as long as before."""
        if (ahead := self.in_flight + position - self.capacity) <= 0:
            return 0.0
        return math.ceil(ahead / self.capacity - 1) * self._held
