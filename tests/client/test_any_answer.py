"""Whatever a service answers, what comes out is a value or an error that is ours, and in time.

A few examples are drawn in each run; ``--hypothesis-profile=long`` draws thousands, and
``python -m benchmarks fuzz`` lets coverage guide what is drawn.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from msgconv_async import (
    Account,
    BearerToken,
    ClientCredentials,
    ClosedBucket,
    ConfigurationError,
    ConversationQuery,
    ConversationReport,
    ConversationSession,
    Failure,
    Gap,
    InvalidQuery,
    MsgConvError,
    RetryPolicy,
    SessionUnusable,
    UserLogin,
)
from msgconv_async.client.access import domains
from tests.client.hostile import SCRIPTS, Script, Service, named, serving

QUERY = ConversationQuery(10, interval=5, skill_ids="all", agent_ids="all")
CREDENTIALS = st.sampled_from(
    [ClientCredentials("id", "secret"), UserLogin("name", "password"), BearerToken("bearer")]
)
SOON = RetryPolicy(waits=(), throttle_wait=0.05, login_throttle_wait=0.05, retry_after_ceiling=0.1)
OTHERS = ("5", "8")
"""Accounts that are answered rightly: with as many conversations as their id says."""

TIMEOUT = 0.6
BOUND = 5.0
"""Seconds in which all must be over, on a machine that has other things to do."""
BLOCKED = 1.0
"""Seconds that nothing drawn here may hold the event loop."""

_some = settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink takes minutes of timeouts
    max_examples=max(15, settings().max_examples // 4),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end in time: the event loop stays free, nothing is left or complained of."""
    complaints: list[str] = []

    async def watched() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
        longest, last = 0.0, loop.time()

        async def tick() -> None:
            nonlocal longest, last
            while True:
                await asyncio.sleep(0.01)
                now = loop.time()
                longest, last = max(longest, now - last), now

        ticking = asyncio.create_task(tick())
        async with asyncio.timeout(BOUND):
            await main
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        assert longest < BLOCKED
        for _ in range(10):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(watched())
    assert complaints == []


class _Nowhere(AbstractResolver):
    """Knows no name, so that nothing that is drawn is looked up outside."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        raise OSError(f"{host}:{port} is not known")

    async def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def asking(service: Service) -> AsyncIterator[ConversationSession]:
    """Open a session; once it is closed, so are its connections."""
    async with ConversationSession(base_url=service.url, retry=SOON) as session:
        yield session
    for _ in range(100):
        if not service.open:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{service.open} connections are left")


def is_ours(error: object) -> None:
    """Check what is told of a service's answer: one plain line, that crosses processes."""
    assert isinstance(error, MsgConvError)
    assert not isinstance(error, (SessionUnusable, ConfigurationError, InvalidQuery))
    told = str(error)
    assert told
    assert len(told) < 2000
    assert not any(ord(character) < 0x20 for character in told)
    assert told == str(pickle.loads(pickle.dumps(error)))


@_some
@given(SCRIPTS, CREDENTIALS)
def test_fetch_returns_a_report_or_raises_what_is_ours(script: Script, credentials: Any) -> None:
    async def main() -> None:
        async with serving({"13": script}) as service, asking(service) as session:
            for _ in range(2):  # the second call finds what the first one left behind
                try:
                    report = await session.fetch(Account("13", credentials), QUERY, timeout=TIMEOUT)
                except MsgConvError as error:
                    is_ours(error)
                else:
                    assert isinstance(report, ConversationReport)

    run(main())


@_some
@given(SCRIPTS, CREDENTIALS)
def test_whatever_the_domain_api_answers_stays_on_known_ground(
    script: Script, credentials: Any
) -> None:
    async def main() -> None:
        connector = aiohttp.TCPConnector(resolver=_Nowhere())
        jar = aiohttp.DummyCookieJar
        async with serving({"13": script}) as service:
            with patch.object(domains, "DOMAIN_API", service.url):
                async with (
                    aiohttp.ClientSession(connector=connector, cookie_jar=jar()) as http,
                    ConversationSession(http=http, retry=SOON) as session,
                ):
                    with pytest.raises(MsgConvError) as raised:
                        await session.fetch(Account("13", credentials), QUERY, timeout=TIMEOUT)
        is_ours(raised.value)

    run(main())


@_some
@given(st.lists(SCRIPTS, min_size=1, max_size=6), CREDENTIALS)
def test_in_fetch_many_an_answer_of_any_kind_is_its_accounts_alone(
    scripts: list[Script], credentials: Any
) -> None:
    hostile = named(scripts)

    async def main() -> None:
        everybody = [Account(each, credentials) for each in (*hostile, *OTHERS)]
        found = {}
        async with (
            serving(hostile) as service,
            asking(service) as session,
            session.fetch_many(everybody, QUERY, timeout=TIMEOUT) as outcomes,
        ):
            async for outcome in outcomes:
                found[outcome.account.id] = outcome
        assert found.keys() == {each.id for each in everybody}
        for account_id, outcome in found.items():
            if outcome.report is None:
                is_ours(outcome.error)
            if account_id in OTHERS:
                assert outcome.report is not None, outcome.error
                assert outcome.report.agents is not None
                assert outcome.report.agents.totals.total_resolved_conversations == int(account_id)

    run(main())


@_some
@given(st.lists(SCRIPTS, min_size=1, max_size=6), CREDENTIALS)
def test_in_follow_an_answer_of_any_kind_is_its_accounts_alone(
    scripts: list[Script], credentials: Any
) -> None:
    hostile = named(scripts)

    async def main() -> None:
        everybody = [Account(each, credentials) for each in (*hostile, *OTHERS)]
        figures: dict[str, list[int | None]] = {each: [] for each in OTHERS}
        async with (
            serving(hostile) as service,
            asking(service) as session,
            session.follow(
                everybody,
                QUERY,
                since=timedelta(minutes=10),
                over=timedelta(),
                timeout=TIMEOUT,
            ) as items,
        ):
            async for item in items:
                if isinstance(item, Failure):
                    is_ours(item.error)
                if item.account.id in OTHERS:
                    assert isinstance(item, ClosedBucket), item
                    assert item.interval.agents is not None
                    totals = item.interval.agents.totals
                    figures[item.account.id].append(totals.total_resolved_conversations)
                else:
                    assert isinstance(item, (ClosedBucket, Failure, Gap))
        assert {each: [int(each)] * 2 for each in OTHERS} == figures

    run(main())
