"""How many requests at once.

What it promises: never more than ``capacity`` in flight; a capacity lowered below what is in flight
stops starts until enough have finished, and takes nothing away from who runs.
"""

from __future__ import annotations

import math


class ConcurrencyLimit:
    """Lets a start through whenever fewer than ``capacity`` are in flight.

    Args:
        capacity: The most that may be in flight, 1 or more, or infinity.
    """

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.in_flight = 0
        self._held = 0.0

    def delay(self, now: float) -> float:  # noqa: ARG002 - slots take an event, not time
        """Return 0 while a slot is free, else infinity: a slot takes an event, not time."""
        return 0.0 if self.in_flight < self.capacity else math.inf

    def take(self, now: float) -> None:  # noqa: ARG002
        """Take a slot."""
        self.in_flight += 1

    def give_back(self) -> None:
        """Free a slot."""
        self.in_flight -= 1

    def finished(self, seconds: float) -> None:
        """Free a slot that was held for so long.

        The time feeds the estimate of `eta`, which follows a shorter one at once and a longer one
        slowly: an estimate that errs should err early.
        """
        self.in_flight -= 1
        self._held = min(seconds, self._held + 0.1 * (seconds - self._held))

    def eta(self, now: float, position: int) -> float:  # noqa: ARG002
        """Return seconds until the start at this place, had every slot been held for as long."""
        if (ahead := self.in_flight + position - self.capacity) <= 0:
            return 0.0
        return math.ceil(ahead / self.capacity - 1) * self._held
