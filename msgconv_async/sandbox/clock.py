"""The sandbox's time of day: it runs with the event loop, and a test may move it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from msgconv_async import checks


class Clock:
    """Tells the time by the running event loop, so that on a virtual-time loop it is virtual too.

    Where no loop runs, it goes by the machine's monotonic clock, as the usual event loops do.

    Args:
        start: The time that it shows when it is first asked, aware; None for the real time of day.

    Raises:
        ConfigurationError: ``start`` is naive.
    """

    def __init__(self, start: datetime | None = None) -> None:
        if start is not None:
            checks.aware("start", start)
        self._start = start
        self._asked: float | None = None
        self._moved = timedelta()

    def __call__(self) -> datetime:
        """Return the time, aware UTC."""
        try:
            now = asyncio.get_running_loop().time()
        except RuntimeError:
            now = time.monotonic()
        if self._start is None:
            self._start = datetime.now(UTC)
        if self._asked is None:
            self._asked = now
        return self._start.astimezone(UTC) + timedelta(seconds=now - self._asked) + self._moved

    def advance(self, by: timedelta) -> None:
        """Move the clock at once: forward, or back where ``by`` is negative.

        Raises:
            ConfigurationError: ``by`` is no timedelta.
        """
        checks.instance("by", by, timedelta, "a timedelta")
        self._moved += by
