"""The queue: in order, bounded, left by who hangs up, and no account's matter but its own."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from time import monotonic

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ConversationQuery,
    ConversationSession,
    Pacer,
    RateLimited,
)
from msgconv_async.sandbox import Sandbox
from tests.client.support import answering, serving
from tests.gateway.support import NOBODY, get, path, running


def _questions(account_id: str, count: int) -> list[str]:
    """Return so many questions, each another one, so that none is shared."""
    return [path(account_id, f"timeframe={minutes}&v=1") for minutes in range(1, count + 1)]


async def _arrived(url: str, account_id: str) -> float:
    """Return how many requests were sent for an account, or wait in its queue."""
    _, _, text = await get(f"{url}/metrics")
    counts = re.findall(
        rf'msgconv_gateway_requests_(?:sent_total|waiting){{account="{account_id}"}} (\S+)',
        text.decode(),
    )
    return sum(map(float, counts))


async def test_who_came_first_is_answered_first() -> None:
    async with Sandbox() as sandbox:
        [account_id] = sandbox.account_ids
        async with running(sandbox, pacer=lambda: Pacer(rate=50, concurrency=1)) as url:
            order: list[int] = []

            async def ask(number: int, question: str) -> None:
                await get(url + question)
                order.append(number)

            tasks = []
            for number, question in enumerate(_questions(account_id, 8)):
                tasks.append(asyncio.create_task(ask(number, question)))
                while await _arrived(url, account_id) <= number:  # noqa: ASYNC110 - it is its state
                    await asyncio.sleep(0.005)
            await asyncio.gather(*tasks)
            assert order == sorted(order)


async def test_a_queue_that_is_too_long_is_told_at_once_and_when_to_return() -> None:
    """One a second and two seconds to wait at most: the fifth of five is sent away."""
    async with Sandbox() as sandbox:
        [account_id] = sandbox.account_ids
        async with running(sandbox, max_wait=2, pacer=lambda: Pacer(rate=1)) as url:
            began = monotonic()
            *first, last = _questions(account_id, 5)
            waiting = [asyncio.create_task(get(url + question)) for question in first]
            await asyncio.sleep(0.3)
            status, headers, body = await get(url + last)
            assert monotonic() - began < 0.9
            assert (503, "busy") == (status, headers["Msgconv-Gateway"])
            assert 1 <= int(headers["Retry-After"]) <= 3
            assert "its turn would come in" in json.loads(body)["reason"]
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_can_share_is_never_sent_away() -> None:
    """The queue is too long for another question, not for one that stands in it already."""
    async with Sandbox() as sandbox:
        [account_id] = sandbox.account_ids
        async with running(sandbox, max_wait=1.5, pacer=lambda: Pacer(rate=1)) as url:
            one, two, three = _questions(account_id, 3)
            await get(url + one)
            first = asyncio.create_task(get(url + two))
            await asyncio.sleep(0.1)
            another, shared = await asyncio.gather(get(url + three), get(url + two))
            assert (503, 200) == (another[0], shared[0])
            assert "shared" == shared[1]["Msgconv-Gateway"]
            assert 200 == (await first)[0]


async def test_a_slow_account_holds_up_no_other() -> None:
    async def fault(request: web.Request) -> None:
        if request.match_info.get("account") == "10000001":
            await asyncio.sleep(1)

    async with Sandbox(accounts=2, fault=fault) as sandbox, running(sandbox) as url:
        slow, quick = sandbox.account_ids
        waiting = [asyncio.create_task(get(url + each)) for each in _questions(slow, 10)]
        await asyncio.sleep(0.05)
        began = monotonic()
        assert 200 == (await get(url + path(quick)))[0]
        assert monotonic() - began < 0.5
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_hangs_up_leaves_the_request_to_others_and_the_last_cancels_it() -> None:
    begun, ended = 0, 0

    async def fault(request: web.Request) -> None:
        nonlocal begun, ended
        if "msgconversation" not in request.path:
            return
        begun += 1
        try:
            await asyncio.sleep(30)
        finally:
            ended += 1

    async with Sandbox(fault=fault) as sandbox, running(sandbox) as url:
        target = url + path(sandbox.account_ids[0])
        first, second = (asyncio.create_task(get(target)) for _ in range(2))
        await _until(lambda: begun == 1)
        first.cancel()
        await asyncio.sleep(0.1)
        assert 0 == ended
        second.cancel()
        await _until(lambda: ended == 1)
        assert 1 == begun
        await asyncio.gather(first, second, return_exceptions=True)


async def test_who_hangs_up_in_the_queue_is_never_asked_for() -> None:
    async with Sandbox() as sandbox:
        [account_id] = sandbox.account_ids
        async with running(sandbox, pacer=lambda: Pacer(rate=4)) as url:
            one, two, three = _questions(account_id, 3)
            await get(url + one)
            gone = asyncio.create_task(get(url + two))
            await asyncio.sleep(0.05)
            gone.cancel()
            assert 200 == (await get(url + three))[0]
            assert 2 == sandbox.requests[account_id]
            await asyncio.gather(gone, return_exceptions=True)


async def test_a_session_before_a_gateway_does_not_pace() -> None:
    """A hundred at once, with the default pacer, which cold would let twenty go."""
    async with Sandbox() as sandbox:
        account = Account(sandbox.account_ids[0], NOBODY)
        async with running(sandbox, pacer=lambda: Pacer(rate=200)) as url:
            async with ConversationSession(base_url=url) as session:
                await session.fetch(account, ConversationQuery(60))
                assert 10_000 == session.stats(account).rate
                assert 1_000 == session.stats(account).concurrency


async def test_a_session_does_not_take_a_gateway_s_refusal_for_the_account_s_limit() -> None:
    """It waits as Retry-After says, is not throttled, and has its answer in the end."""
    answered = {"Msgconv-Gateway": "fetched"}
    refused = {"Msgconv-Gateway": "busy", "Retry-After": "1"}
    body = b'{"metricsTotals": {}}'
    calls = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        if calls == 2:
            return await answering(b"{}", 503, refused)(request)
        return await answering(body, 200, answered)(request)

    async with serving(handler) as url, ConversationSession(base_url=url) as session:
        account = Account("1", NOBODY)
        await session.fetch_document(account, ConversationQuery(5))
        began = monotonic()
        await session.fetch_document(account, ConversationQuery(5))
        assert 1 <= monotonic() - began < 2
        stats = session.stats(account)
        assert (0, None, 10_000) == (stats.throttled, stats.limited_by, stats.rate)


async def test_a_gateway_that_stays_busy_ends_a_call_with_a_plain_error() -> None:
    refused = {"Msgconv-Gateway": "busy", "Retry-After": "1"}
    async with serving(answering(b'{"reason": "full"}', 503, refused)) as url:
        async with ConversationSession(base_url=url) as session:
            with pytest.raises(RateLimited, match=r"queue is too long.*HTTP 503"):
                await session.fetch_document(
                    Account("1", NOBODY), ConversationQuery(5), timeout=1.0
                )


async def _until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in a server's handler
            await asyncio.sleep(0.01)


async def test_where_no_limit_is_known_a_turn_is_waited_for_no_longer_either() -> None:
    """Nothing was refused yet, so the length of the queue cannot be told beforehand."""
    async with Sandbox(latency=1.5) as sandbox:
        [account_id] = sandbox.account_ids
        async with running(sandbox, max_wait=0.5, pacer=lambda: Pacer(concurrency=(1, 2))) as url:
            *first, last = _questions(account_id, 3)
            asked = [asyncio.create_task(get(url + question)) for question in first]
            while await _arrived(url, account_id) < 2:  # noqa: ASYNC110 - it is its state
                await asyncio.sleep(0.005)
            began = monotonic()
            status, headers, body = await get(url + last)
            assert 0.5 <= monotonic() - began < 1.4
            assert (503, "busy") == (status, headers["Msgconv-Gateway"])
            assert "1" == headers["Retry-After"]
            assert "its turn did not come in time" in json.loads(body)["reason"]
            assert [200, 200] == [(await task)[0] for task in asked]
