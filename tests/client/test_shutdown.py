"""Leaving with a thousand requests in flight, in real time, against a server on real sockets."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import repeat

import pytest

from msgconv_async import (
    ConversationReport,
    ConversationSession,
    Outcome,
    Pacer,
    SessionUnusable,
)
from msgconv_async.sandbox import Sandbox
from tests.client.support import QUERY, account, client_tasks

resource = pytest.importorskip("resource", reason="open files are limited in another way here")

MANY = 1000
FILES = 2 * MANY + 200
"""Both ends of every connection are in this process."""

PATIENCE = 20.0
"""Seconds for what takes one of work, on a busy machine; the server would answer in 60."""

Calls = list[asyncio.Task[ConversationReport]]


@pytest.fixture(autouse=True)
def enough_files() -> Iterator[None]:
    """Allow for that many open files, if the system lets us."""
    soft, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"needs {FILES} open files")
    if soft != resource.RLIM_INFINITY and soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@asynccontextmanager
async def stalled() -> AsyncIterator[tuple[Sandbox, ConversationSession]]:
    """Run a server that takes everything on and answers nothing; after use, nothing is open."""
    before = open_files()
    async with Sandbox(latency=60) as sandbox:
        yield (
            sandbox,
            ConversationSession(
                base_url=sandbox.url,
                pacer=lambda: Pacer(rate=1e6, concurrency=MANY),
                coalesce=False,
            ),
        )
        assert set() == client_tasks()
        async with asyncio.timeout(PATIENCE):
            await until(lambda: connections(sandbox) == 0)
        assert before + 1 >= open_files()  # the one that listens
    assert before >= open_files()


def open_files() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - no paths are needed


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - it is the server's state, and nobody tells
        await asyncio.sleep(0.01)


def connections(sandbox: Sandbox) -> int:
    assert sandbox._runner is not None
    assert sandbox._runner.server is not None
    return len(sandbox._runner.server.connections)


async def in_flight(sandbox: Sandbox) -> None:
    """Wait until the server holds them all, each on a connection of its own."""
    await until(lambda: sandbox.requests[sandbox.account_ids[0]] == MANY)
    assert MANY == connections(sandbox)


@pytest.mark.parametrize(
    ("way", "callers_see"),
    [
        ("error", SessionUnusable),
        ("cancellation", SessionUnusable),
        ("cancellation of the calls", asyncio.CancelledError),
        ("close", SessionUnusable),
    ],
)
async def test_a_session_is_left_at_once(way: str, callers_see: type[BaseException]) -> None:
    """However it is left, it takes less than a second of work, and every caller hears why."""
    async with stalled() as (sandbox, session):
        calls: Calls = []
        error = KeyError("mine")
        began = 0.0

        async def use() -> None:
            nonlocal began
            async with session:
                who = account(sandbox)
                calls.extend(asyncio.create_task(session.fetch(who, QUERY)) for _ in range(MANY))
                await in_flight(sandbox)
                began = time.process_time()
                if way == "error":
                    raise error
                if way == "close":
                    await session.close()
                    return
                asyncio.get_running_loop().call_soon(user.cancel)
                await (asyncio.gather(*calls) if "calls" in way else asyncio.sleep(60))

        user = asyncio.create_task(use())
        await asyncio.wait([user], timeout=PATIENCE)
        assert user.done()
        seen = await asyncio.gather(*calls, return_exceptions=True)

        assert time.process_time() - began < 1
        assert {callers_see: MANY} == Counter(map(type, seen))
        if "cancellation" in way:
            assert user.cancelled()
        else:
            assert (error if way == "error" else None) is user.exception()
        stats = session.stats(account(sandbox))
        assert (0, 0, MANY) == (stats.waiting, stats.in_flight, stats.sent)


@pytest.mark.parametrize("way", ["error", "cancellation", "close"])
async def test_many_are_left_at_once(way: str) -> None:
    """Leaving fetch_many takes less than a second; what a closed session was asking, says so."""
    async with stalled() as (sandbox, session):
        seen: list[Outcome] = []
        error = KeyError("mine")
        began = 0.0

        async def use() -> None:
            nonlocal began
            many = session.fetch_many(
                repeat(account(sandbox), MANY), QUERY, max_in_flight=MANY, timeout=None
            )
            async with many as outcomes:
                await in_flight(sandbox)
                began = time.process_time()
                if way == "error":
                    raise error
                if way == "cancellation":
                    asyncio.get_running_loop().call_soon(user.cancel)
                else:
                    await session.close()
                seen.extend([outcome async for outcome in outcomes])

        async with session:
            user = asyncio.create_task(use())
            await asyncio.wait([user], timeout=PATIENCE)
            assert user.done()

            assert time.process_time() - began < 1
            assert set() == client_tasks()
        assert time.process_time() - began < 1

        assert [SessionUnusable] * (MANY if way == "close" else 0) == [
            type(outcome.error) for outcome in seen
        ]
        if way == "cancellation":
            assert user.cancelled()
        else:
            assert (error if way == "error" else None) is user.exception()
        stats = session.stats(account(sandbox))
        assert (0, 0, MANY) == (stats.waiting, stats.in_flight, stats.sent)
