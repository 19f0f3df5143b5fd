"""An outage of everything: what a session adds to the traffic meanwhile, and after it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    BearerToken,
    ConversationQuery,
    ConversationSession,
    MsgConvError,
)
from tests.client.support import now, serving

pytestmark = pytest.mark.looptime

ACCOUNTS = [Account(str(number), BearerToken("t")) for number in range(200)]
MINUTE = 60.0
NORMAL = len(ACCOUNTS) / MINUTE
"""Requests a second: each account is asked once a minute."""


class Service:
    """Answers, but for some time; between two instants it does something else.

    Attributes:
        came: When each request came.
        down: The two instants.
    """

    def __init__(self, failing: Callable[[], web.StreamResponse]) -> None:
        self.came: list[float] = []
        self.down = (0.0, 0.0)
        self._failing = failing

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.came.append(now())
        if self.is_down():
            return self._failing()
        if "interval" not in request.query:
            return web.json_response({"metricsTotals": {}})
        end = datetime.now(UTC).timestamp() // 300 * 300_000 + 300_000
        intervals = [
            {"timestamp": end - back * 300_000, "metricsData": {"metricsTotals": {}}}
            for back in range(13)
        ]
        return web.json_response({"metricsTotals": {}, "metricsByIntervals": intervals})

    def is_down(self) -> bool:
        begin, end = self.down
        return begin <= now() < end

    def requests(self, begin: float, end: float) -> int:
        return sum(begin <= at < end for at in self.came)

    def peak(self, begin: float, end: float) -> int:
        """Return the most requests of a second."""
        return max(Counter(at // 1 for at in self.came if begin <= at < end).values(), default=0)


def refusing() -> web.StreamResponse:
    return web.Response(status=503)


def throttling() -> web.StreamResponse:
    return web.Response(status=429)


def resetting() -> web.StreamResponse:
    raise ConnectionError


EVERY_FAILURE = pytest.mark.parametrize("failing", [refusing, throttling, resetting])


async def ask(session: ConversationSession, accounts: list[Account], number: int) -> bool:
    """Ask an account one question of its own; tell whether that was answered."""
    query = ConversationQuery(5 + number // len(accounts))
    try:
        await session.fetch(accounts[number % len(accounts)], query)
    except MsgConvError:
        return False
    return True


@EVERY_FAILURE
@pytest.mark.parametrize("before", [0.0, MINUTE], ids=["cold", "warm"])
async def test_an_outage_sees_at_most_half_as_much_again_and_its_end_no_stampede(
    failing: Callable[[], web.StreamResponse], before: float
) -> None:
    """Different questions, one an account and minute; in seconds after it, at most double."""
    service = Service(failing)
    async with serving(service) as url, ConversationSession(base_url=url) as session:
        service.down = begin, end = now() + before, now() + before + MINUTE
        calls: list[tuple[float, asyncio.Task[bool]]] = []
        for number in range(int((before + 2 * MINUTE) * NORMAL)):
            calls.append((now(), asyncio.create_task(ask(session, ACCOUNTS, number))))
            await asyncio.sleep(1 / NORMAL)
        answered = [(at, await call) for at, call in calls]

    assert service.requests(begin, end) <= 1.5 * NORMAL * MINUTE
    assert service.peak(end, end + MINUTE) <= 2 * NORMAL
    assert all(well for at, well in answered if not begin <= at < end)


@EVERY_FAILURE
async def test_a_turn_of_follow_in_an_outage_asks_at_most_half_as_much_again(
    failing: Callable[[], web.StreamResponse],
) -> None:
    """Every account fails for this turn, and is told of; none is asked ten times meanwhile."""
    service = Service(failing)
    async with serving(service) as url, ConversationSession(base_url=url) as session:
        service.down = begin, end = now(), now() + 2 * MINUTE
        async with session.follow(
            ACCOUNTS,
            ConversationQuery(5),
            since=timedelta(minutes=60),
            over=timedelta(seconds=MINUTE),
        ) as items:
            kinds = Counter([type(item).__name__ async for item in items])

    assert {"Failure": len(ACCOUNTS)} == kinds
    assert service.requests(begin, end) <= 1.5 * len(ACCOUNTS)
