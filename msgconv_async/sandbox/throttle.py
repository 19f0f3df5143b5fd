"""The limits that answer 429: requests at once, and requests per second.

The service limits concurrent requests (API page, note on rate limiting) and publishes no figures.
The rate is a leaky bucket as in nginx's limit_req: each request of an account adds one to it, and
it drains at the rate. A request that finds more than the burst in it is refused. A refused request
costs nothing: it takes no slot and leaves the bucket as it was.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

# Arrivals spaced exactly at the rate must pass, in spite of rounding in the sums.
_TOLERANCE = 1e-6


class Throttled(Exception):
    """A request was refused by a limit; the text says by which."""


class Throttle:
    """Limits each account on its own, by the running event loop's time.

    Args:
        concurrency: Requests at once, or None for no limit.
        rate: Requests per second, or None for no limit.
        burst: Requests that may come ahead of the rate.
    """

    def __init__(self, *, concurrency: int | None, rate: float | None, burst: int) -> None:
        self._concurrency = concurrency
        self._rate = rate
        self._burst = burst
        self._active: Counter[str] = Counter()
        self._levels: dict[str, tuple[float, float]] = {}

    @contextmanager
    def slot(self, account_id: str) -> Iterator[None]:
        """Hold one of an account's slots while a request is served.

        Raises:
            Throttled: The account has used up a limit.
        """
        if self._concurrency is not None and self._active[account_id] >= self._concurrency:
            raise Throttled(f"no more than {self._concurrency} requests at once per account")
        if self._rate is not None:
            self._pour(account_id, self._rate)
        self._active[account_id] += 1
        try:
            yield
        finally:
            self._active[account_id] -= 1

    def _pour(self, account_id: str, rate: float) -> None:
        now = asyncio.get_running_loop().time()
        level, since = self._levels.get(account_id, (0.0, now))
        level = max(0.0, level - (now - since) * rate)
        if level > self._burst + _TOLERANCE:
            raise Throttled(f"no more than {rate:g} requests a second per account")
        self._levels[account_id] = (level + 1, now)
