"""Requests that are never answered: what they cost, and whom."""

from __future__ import annotations

import asyncio
import math

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ConnectionFailed,
    ConversationSession,
    DeadlineExceeded,
    Pacer,
    RetryPolicy,
)
from msgconv_async.client.access.credentials import Credentials
from msgconv_async.client.http.deadlines import Timed, Timer
from msgconv_async.sandbox import Sandbox
from tests.client.support import (
    BEARER,
    CLIENT,
    QUERY,
    USER,
    account,
    client_tasks,
    liveperson,
    now,
    serving,
)

pytestmark = pytest.mark.looptime


class Losing:
    """A fault that leaves the first request to a path unanswered, and no other.

    Attributes:
        seen: How many requests there were to that path.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self.seen = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        if self._part in request.path:
            self.seen += 1
            if self.seen == 1:
                await asyncio.sleep(3600)
        return None


async def every_second(
    session: ConversationSession, who: Account, calls: int, timeout: float | None
) -> list[tuple[bool, float]]:
    """Call once a second; return of each call whether it was answered, and how long it took."""

    async def call() -> tuple[bool, float]:
        began = now()
        try:
            await session.fetch(who, QUERY, timeout=timeout)
        except (DeadlineExceeded, ConnectionFailed):
            return False, now() - began
        return True, now() - began

    tasks = []
    for _ in range(calls):
        tasks.append(asyncio.create_task(call()))
        await asyncio.sleep(1)
    return [await task for task in tasks]


@pytest.mark.parametrize("coalesce", [False, True])
@pytest.mark.parametrize(
    ("part", "credentials"),
    [("/msgconversation", CLIENT), ("/app/token", CLIENT), ("/login", USER)],
    ids=["question", "token", "user login"],
)
async def test_one_lost_request_costs_those_who_came_in_its_second(
    part: str, credentials: Credentials, *, coalesce: bool
) -> None:
    """Callers each second, with a timeout of 3: all but the first have an answer at once.

    The first has it as soon as a later one does, where they share.
    """
    losing = Losing(part)
    async with Sandbox(fault=losing) as sandbox:
        who = Account(sandbox.account_ids[0], credentials)
        async with ConversationSession(base_url=sandbox.url, coalesce=coalesce) as session:
            calls = await every_second(session, who, 20, timeout=3)

    shared = coalesce or part != "/msgconversation"
    assert [shared] + [True] * 19 == [answered for answered, _ in calls]
    assert calls[0][1] < (1.5 if shared else 3.1)
    assert max(seconds for _, seconds in calls[1:]) < 0.5
    assert losing.seen == (20 if part == "/msgconversation" else 2)


async def test_one_lost_look_up_costs_those_who_came_in_its_second() -> None:
    """The Domain API is asked again by who comes later."""
    lost = 0

    async with liveperson() as world:
        answer = world.sandbox.fault
        assert answer is not None

        async def losing(request: web.Request) -> web.StreamResponse | None:
            nonlocal lost
            if "baseURI" in request.path and not lost:
                lost += 1
                await asyncio.sleep(3600)
            return await answer(request)

        world.sandbox.fault = losing
        async with ConversationSession(http=world.http) as session:
            calls = await every_second(session, account(world.sandbox), 10, timeout=3)

    assert [True] * 10 == [answered for answered, _ in calls]


@pytest.mark.parametrize("timeout", [3, 60])
@pytest.mark.parametrize("coalesce", [False, True])
async def test_a_service_that_answered_nothing_for_a_minute_is_well_at_once(
    timeout: float, *, coalesce: bool
) -> None:
    """Who calls from five seconds after it on has an answer in the same second."""

    async def hanging(_: web.Request) -> web.StreamResponse | None:
        if now() - began < 60:
            await asyncio.sleep(3600)
        return None

    began = now()
    async with Sandbox(fault=hanging) as sandbox:
        async with ConversationSession(base_url=sandbox.url, coalesce=coalesce) as session:
            calls = await every_second(session, account(sandbox), 80, timeout=timeout)

    assert all(answered and seconds < 1 for answered, seconds in calls[65:])


async def test_a_hung_request_gives_its_slot_back() -> None:
    """With one place alone, the others of the account wait no longer than one try may take."""
    losing = Losing("/msgconversation")
    async with Sandbox(fault=losing) as sandbox:
        async with ConversationSession(
            base_url=sandbox.url,
            pacer=lambda: Pacer(concurrency=1),
            retry=RetryPolicy(attempt_timeout=4, jitter=0),
        ) as session:
            calls = await every_second(session, account(sandbox), 8, timeout=60)

            assert 0 == session.stats(account(sandbox)).in_flight
    assert [True] * 8 == [answered for answered, _ in calls]
    assert calls[0][1] == pytest.approx(4, abs=0.2)  # by the answer to a later one
    assert calls[1][1] == pytest.approx(3, abs=0.2)
    assert max(seconds for _, seconds in calls[4:]) < 0.2


async def test_who_waits_for_one_place_goes_on_sharing() -> None:
    """Nothing was sent for them yet: however many come meanwhile, they are one request."""
    losing = Losing("/msgconversation")
    async with Sandbox(fault=losing) as sandbox:
        async with ConversationSession(
            base_url=sandbox.url, pacer=lambda: Pacer(concurrency=1)
        ) as session:
            calls = await every_second(session, account(sandbox), 15, timeout=60)

    assert [True] * 15 == [answered for answered, _ in calls]
    assert 2 == losing.seen


async def test_a_try_that_takes_too_long_is_said_to_have() -> None:
    """The error tells how long was waited, and is a fault of the connection."""

    async def hanging(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    policy = RetryPolicy(waits=(), attempt_timeout=2.5)
    async with (
        serving(hanging) as url,
        ConversationSession(base_url=url, retry=policy) as session,
    ):
        with pytest.raises(ConnectionFailed) as caught:
            await session.fetch(Account("1", BEARER), QUERY)

    assert "account 1: no answer in 2.5 s, the time of one try" == str(caught.value)
    assert caught.value.__context__ is None


async def test_who_is_cancelled_while_its_try_is_broken_off_is_cancelled() -> None:
    """Two reasons at the same moment: the caller's own is not swallowed by the other."""
    timer = Timer(asyncio.get_running_loop())
    block = Timed(timer, 1)

    async def work() -> None:
        with block:
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.5)
    block.break_off()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert set() == timer.open
    timer.wake(math.inf)


async def test_a_login_that_was_overtaken_ends_with_the_session() -> None:
    """Nobody waits for it any more, and nothing is left running."""
    losing = Losing("/login")
    async with Sandbox(fault=losing) as sandbox:
        who = Account(sandbox.account_ids[0], USER)
        async with ConversationSession(base_url=sandbox.url) as session:
            calls = await every_second(session, who, 3, timeout=30)

    assert [True] * 3 == [answered for answered, _ in calls]
    assert set() == client_tasks()
