"""What tests of following share: a service that answers at once, and ways to take what comes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from msgconv_async import (
    Account,
    ClosedBucket,
    ConversationMetrics,
    ConversationQuery,
    Interval,
    ServerError,
)
from msgconv_async.client.many.checkpoint import Item
from msgconv_async.client.many.fan_out import MAX_IN_FLIGHT
from msgconv_async.client.many.follow import SETTLE, Following, Reading
from msgconv_async.protocol.buckets import BUCKET, floor, window
from tests.client.support import BEARER, now

NOON = datetime(2026, 3, 4, 12, 2, tzinfo=UTC)
EDGE = floor(NOON)
ONE = Account("1", BEARER)
QUERY = ConversationQuery(60)
SKILLS = ConversationQuery(60, skill_ids="all")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Service:
    """Answers as the API does, at once, by a clock of its own.

    Attributes:
        asked: When, of whom, and what.
        failing: The accounts that it fails.
        late: Conversations that came late, by account and by the end of their bucket.
        moved: How far the server's clock was moved.
        dated: Whether answers have a ``Date``.
        delay: Seconds that an answer takes.
        running: How many questions have no answer yet.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[float, str, ConversationQuery]] = []
        self.failing: set[str] = set()
        self.late: defaultdict[tuple[str, datetime], int] = defaultdict(int)
        self.moved = timedelta()
        self.dated = True
        self.delay = 0.0
        self.running = 0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=now()) + self.moved

    async def __call__(self, account: Account, query: ConversationQuery) -> Reading:
        self.asked.append((now(), account.id, query))
        self.running += 1
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.running -= 1
        if account.id in self.failing:
            raise ServerError("failing", status=503, account_id=account.id)
        spans = window(self.now(), query.timeframe, query.interval).intervals
        found = [
            bucket(each.end, 1 + self.late[account.id, each.end], complete=each.complete)
            for each in spans
        ]
        return Reading(tuple(found), self.now() if self.dated else None)

    def follow(
        self, accounts: Iterable[Account] = (ONE,), *queries: ConversationQuery, **given: Any
    ) -> AbstractAsyncContextManager[Following]:
        settings: dict[str, Any] = {"since": None, "settle": SETTLE, "revise": True, "over": None}
        settings |= {"max_in_flight": MAX_IN_FLIGHT, "clock": self.now, **given}
        ask = settings.pop("ask", self)
        return Following(ask, accounts, queries or (QUERY,), **settings).running()


def bucket(end: datetime, count: int = 1, *, complete: bool = True) -> Interval:
    totals = ConversationMetrics(total_resolved_conversations=count)
    return Interval(end - BUCKET, end, complete, totals=totals)


def many(count: int) -> list[Account]:
    return [Account(str(number), BEARER) for number in range(count)]


async def take(closed: Following, count: int) -> list[Item]:
    return [await anext(closed) for _ in range(count)]


async def all_within(closed: Following, seconds: float) -> list[Item]:
    """Return what comes in so many seconds."""
    found = []
    with anyio.move_on_after(seconds):
        async for item in closed:
            found.append(item)  # noqa: PERF401 - what came before the time is up is kept
    return found


async def up_to(closed: Following, end: datetime) -> list[Item]:
    """Return what comes up to the bucket that ends then."""
    found: list[Item] = []
    async for item in closed:
        found.append(item)
        if isinstance(item, ClosedBucket) and item.interval.end == end and not item.revised:
            break
    return found


def background_tasks() -> set[asyncio.Task[Any]]:
    """Return what runs besides the test."""
    return asyncio.all_tasks() - {asyncio.current_task()}


def ends(items: Iterable[Item]) -> list[datetime]:
    """Return where buckets end that came for the first time."""
    return [
        each.interval.end for each in items if isinstance(each, ClosedBucket) and not each.revised
    ]


def consecutive(first: datetime, last: datetime) -> list[datetime]:
    return [first + number * BUCKET for number in range((last - first) // BUCKET + 1)]
