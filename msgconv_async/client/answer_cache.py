"""A cache of answers. No answer is used across a five-minute edge."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from datetime import timedelta
from typing import NamedTuple

from msgconv_async.client.http.transport import Answer
from msgconv_async.protocol.buckets import ceil, floor

MOST_BYTES = 64 * 1024 * 1024
"""Bytes of answers that are kept at most; the oldest go first."""

_MARGIN = 0.5
"""Seconds: the instant of an answer is only known to the whole second."""


class _Kept(NamedTuple):
    answer: Answer
    timer: asyncio.TimerHandle
    since: float


class AnswerCache:
    """Keeps answers by question, for as long as they are fresh.

    Args:
        seconds: How long an answer may be used again; 0 keeps none.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: dict[Hashable, _Kept] = {}  # the oldest first
        self._bytes = 0

    def get(self, question: Hashable) -> Answer | None:
        """Return the answer to a question, if it is still fresh."""
        kept = self._kept.get(question)
        return None if kept is None else kept.answer

    def age(self, question: Hashable) -> float:
        """Return for how many seconds the answer to a question was kept; 0 if there is none."""
        kept = self._kept.get(question)
        return 0.0 if kept is None else asyncio.get_running_loop().time() - kept.since

    def keep(self, question: Hashable, answer: Answer) -> None:
        """Keep an answer, at most until the next five-minute edge of the server's clock.

        An answer is not kept if the edge may have passed while the server worked on it: it says
        what was true before, whatever its ``Date``.
        """
        loop = asyncio.get_running_loop()
        began = answer.at - timedelta(seconds=answer.arrived - answer.sent)
        if floor(began) != floor(answer.at) or question in self._kept:
            return
        to_edge = (ceil(answer.at) - answer.at).total_seconds() - _MARGIN
        seconds = min(self._seconds, to_edge - (loop.time() - answer.arrived))
        if seconds <= 0:
            return
        timer = loop.call_later(seconds, self._drop, question)
        self._kept[question] = _Kept(answer, timer, loop.time())
        self._bytes += len(answer.body)
        while self._bytes > MOST_BYTES:
            self._drop(next(iter(self._kept)))

    def close(self) -> None:
        """Forget all answers."""
        while self._kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, question: Hashable) -> None:
        dropped = self._kept.pop(question)
        dropped.timer.cancel()
        self._bytes -= len(dropped.answer.body)
