from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from msgconv_async.errors import ConfigurationError
from msgconv_async.sandbox import Sandbox
from msgconv_async.sandbox.throttle import Throttle, Throttled
from tests.sandbox.conftest import Ask, metrics_url

Bearer = Callable[..., Awaitable[dict[str, str]]]
QUERY = {"v": "1", "timeframe": "5"}


async def burst(
    client: aiohttp.ClientSession, sandbox: Sandbox, bearer: Bearer, count: int, account: int = 0
) -> Counter[int]:
    """Send requests of one account at once and count the statuses of their answers."""
    account_id = sandbox.account_ids[account]
    headers = await bearer(sandbox, account_id)

    async def one() -> int:
        url = metrics_url(sandbox, account_id)
        async with client.get(url, params=QUERY, headers=headers) as response:
            await response.read()
            return response.status

    return Counter(await asyncio.gather(*(one() for _ in range(count))))


async def test_requests_above_the_concurrency_are_refused_and_counted(
    client: aiohttp.ClientSession, bearer: Bearer
) -> None:
    async with Sandbox(concurrency=3, latency=0.1) as sandbox:
        assert {200: 3, 429: 5} == await burst(client, sandbox, bearer, 8)
        assert (8, 5) == (sandbox.requests.total(), sandbox.throttled.total())
        assert {200: 3} == await burst(client, sandbox, bearer, 3)


async def test_each_account_has_its_own_limits(
    client: aiohttp.ClientSession, bearer: Bearer
) -> None:
    async with Sandbox(accounts=2, concurrency=2, rate=0.001, burst=1, latency=0.05) as sandbox:
        answers = await asyncio.gather(*(burst(client, sandbox, bearer, 2, n) for n in (0, 1)))
        assert [{200: 2}, {200: 2}] == answers
        assert {429: 1} == await burst(client, sandbox, bearer, 1)
        assert {sandbox.account_ids[0]: 1} == sandbox.throttled


async def test_without_limits_nothing_is_refused(
    client: aiohttp.ClientSession, bearer: Bearer
) -> None:
    async with Sandbox(latency=0.05) as sandbox:
        assert {200: 100} == await burst(client, sandbox, bearer, 100)


async def test_a_latency_is_how_long_an_answer_takes_at_least(
    client: aiohttp.ClientSession, bearer: Bearer
) -> None:
    loop = asyncio.get_running_loop()
    async with Sandbox(latency=0.2) as sandbox:
        began = loop.time()
        await burst(client, sandbox, bearer, 5)
        assert 0.2 <= loop.time() - began < 5 * 0.2


async def test_a_client_that_goes_away_gives_its_slot_back(
    client: aiohttp.ClientSession, bearer: Bearer
) -> None:
    async with Sandbox(concurrency=1, latency=30) as sandbox:
        headers, url = await bearer(sandbox), metrics_url(sandbox)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await client.get(
                    url, params=QUERY, headers=headers, timeout=aiohttp.ClientTimeout(0.1)
                )
            await asyncio.sleep(0.05)
        assert (2, 0) == (sandbox.requests.total(), sandbox.throttled.total())


@pytest.mark.parametrize("how", ["a wrong question", "no credentials", "a failure"])
async def test_a_refused_request_gives_its_slot_back(
    client: aiohttp.ClientSession, bearer: Bearer, how: str
) -> None:
    async with Sandbox(concurrency=1) as sandbox:
        headers = {} if how == "no credentials" else await bearer(sandbox)
        if how == "a failure":
            sandbox.fail_next()
        url, query = metrics_url(sandbox), {} if how == "a wrong question" else QUERY
        assert 200 < (await client.get(url, params=query, headers=headers)).status
        assert {200: 1} == await burst(client, sandbox, bearer, 1)


async def test_by_default_a_429_does_not_say_when_to_come_back(
    client: aiohttp.ClientSession,
) -> None:
    async with Sandbox(rate=0.001) as sandbox:
        await client.get(metrics_url(sandbox))
        async with client.get(metrics_url(sandbox)) as response:
            assert 429 == response.status
            assert "Retry-After" not in response.headers
            assert "a second" in (await response.json())["reason"]


@pytest.mark.parametrize(
    ("seconds", "as_date", "header"),
    [
        (0, False, "0"),
        (2, False, "2"),
        (1.2, False, "2"),
        (2, True, "Wed, 04 Mar 2026 08:07:03 GMT"),
        (0.5, True, "Wed, 04 Mar 2026 08:07:01 GMT"),
    ],
)
async def test_a_429_says_when_to_come_back_in_seconds_or_as_a_date(
    client: aiohttp.ClientSession, seconds: float, *, as_date: bool, header: str
) -> None:
    now = datetime(2026, 3, 4, 8, 7, 0, 400_000, tzinfo=UTC)
    async with Sandbox(
        rate=0.001, retry_after=seconds, retry_after_date=as_date, clock=lambda: now
    ) as sandbox:
        await client.get(metrics_url(sandbox))
        async with client.get(metrics_url(sandbox)) as response:
            assert header == response.headers["Retry-After"]
            assert now.replace(microsecond=0) == parsedate_to_datetime(response.headers["Date"])


# ---------------------------------------------------------------- the rate, in virtual time


async def refused(throttle: Throttle, times: int, every: float) -> int:
    count = 0
    for _ in range(times):
        try:
            with throttle.slot("1"):
                pass
        except Throttled:
            count += 1
        await asyncio.sleep(every)
    return count


@pytest.mark.looptime
async def test_arrivals_spaced_at_the_rate_all_pass() -> None:
    assert 0 == await refused(Throttle(concurrency=None, rate=3, burst=0), 1000, 1 / 3)


@pytest.mark.looptime
async def test_arrivals_at_twice_the_rate_pass_every_other_time() -> None:
    assert 50 == await refused(Throttle(concurrency=None, rate=10, burst=0), 100, 0.05)


@pytest.mark.looptime
async def test_a_burst_passes_at_once_and_comes_back_at_the_rate() -> None:
    throttle = Throttle(concurrency=None, rate=2, burst=4)
    assert 3 == await refused(throttle, 8, 0)
    await asyncio.sleep(1)
    assert 1 == await refused(throttle, 3, 0)
    await asyncio.sleep(60)
    assert 3 == await refused(throttle, 8, 0)


async def test_a_throttling_that_was_asked_for_says_when_to_come_back(ask: Ask) -> None:
    """As one does that a limit brought about; another failure says nothing of the kind."""
    async with Sandbox(retry_after=7) as sandbox:
        sandbox.fail_next(429)
        sandbox.fail_next(503)
        throttled, failed = await ask(sandbox), await ask(sandbox)
    assert (429, "7") == (throttled.status, throttled.headers["Retry-After"])
    assert 503 == failed.status
    assert "Retry-After" not in failed.headers


@pytest.mark.parametrize(
    "wrong",
    [
        {"times": 0},
        {"times": "x"},
        {"status": 200},
        {"status": 302},
        {"status": "503"},
        {"account_id": "77"},
    ],
)
async def test_a_failure_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Sandbox().fail_next(**wrong)
