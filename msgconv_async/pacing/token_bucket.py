"""Smooth start times.

What it promises: in any window of length T there are at most ``burst + rate * T`` starts, also
right at the beginning. (Where timers fire late by up to L, an observer sees at most
``burst + rate * (T + L)``; L counts up to `schedule.CATCH_UP`, and no further.) With ``burst`` 1,
its default, starts are evenly spaced, as a server that dislikes bursts wants them.

The theory: a bucket holds up to ``burst`` tokens and gains ``rate`` of them a second; a start takes
one. It begins with ``burst`` and never holds more, which is what keeps the promise from the first
instant on (Turner, "New directions in communications", IEEE Communications Magazine 24(10), 1986;
seen as a schedule, the generic cell rate algorithm of ITU-T I.371).
"""

from __future__ import annotations

_ALMOST = 1e-9
"""Tokens: rounding in a sum of many small gains must not delay a start by a timer's tick."""


class TokenBucket:
    """Holds tokens, one for each start.

    Args:
        rate: Starts per second, above 0.
        burst: How many may start at once after a rest, 1 or more.
    """

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float = 1.0) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = float("-inf")

    def delay(self, now: float) -> float:
        """Return seconds until a token is there."""
        if now > self._at:
            self._settle(now)
        return 0.0 if (missing := 1.0 - self._level) <= _ALMOST else missing / self.rate

    def take(self, now: float) -> None:
        """Take a token at an instant at which `delay` is 0."""
        if now > self._at:
            self._settle(now)
        self._level -= 1.0

    def give_back(self) -> None:
        """Put a token back."""
        self._level += 1.0

    def eta(self, now: float, position: int) -> float:
        """Return seconds until the start at this place in the queue."""
        self._settle(now)
        return max(0.0, position - self._level) / self.rate

    def change(self, now: float, rate: float) -> None:
        """Set the rate from ``now`` on: earlier tokens were gained at the old rate."""
        self._settle(now)
        self.rate = rate

    def _settle(self, now: float) -> None:
        if now > self._at:
            gained = (now - self._at) * self.rate
            if gained < self.burst - self._level:
                self._level += gained
            else:
                self._level = self.burst
            self._at = now
