"""Who asks the same at the same time shares a request; who asks again soon may share the answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from msgconv_async import (
    Account,
    BearerToken,
    ConfigurationError,
    ConversationQuery,
    ConversationSession,
    DeadlineExceeded,
    RetryPolicy,
    ServerError,
)
from msgconv_async.sandbox import Clock, Sandbox
from tests.client.support import CLIENT

pytestmark = pytest.mark.looptime

QUERY = ConversationQuery(60)


def _account(sandbox: Sandbox, number: int = 0) -> Account:
    return Account(sandbox.account_ids[number], CLIENT)


async def test_the_same_question_is_asked_once() -> None:
    """However many wait for it, the service is asked once, and all have the same answer."""
    async with Sandbox(latency=1) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            same = [ConversationQuery(60, skill_ids=[1, 2]) for _ in range(50)]

            reports = await asyncio.gather(
                *(session.fetch(_account(sandbox), each) for each in same)
            )

            assert 1 == sandbox.requests[sandbox.account_ids[0]]
            assert all(each == reports[0] for each in reports)


async def test_it_is_asked_again_once_it_was_answered() -> None:
    """What is shared is a request under way; an answer is not kept."""
    async with Sandbox() as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            for _ in range(2):
                await session.fetch(_account(sandbox), QUERY)

            assert 2 == sandbox.requests[sandbox.account_ids[0]]


async def test_what_differs_is_asked_for_itself() -> None:
    """Another question, another account, other credentials: each has its own request."""
    async with Sandbox(accounts=2, latency=1) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            one, two = _account(sandbox), _account(sandbox, 1)
            stranger = Account(one.id, BearerToken("unknown"))

            outcomes = await asyncio.gather(
                session.fetch(one, QUERY),
                session.fetch(one, ConversationQuery(65)),
                session.fetch(two, QUERY),
                session.fetch(stranger, QUERY),
                return_exceptions=True,
            )

            assert (3, 1) == (sandbox.requests[one.id], sandbox.requests[two.id])
            assert [False, False, False, True] == [isinstance(x, Exception) for x in outcomes]


async def test_it_can_be_turned_off() -> None:
    async with Sandbox(latency=1) as sandbox:
        async with ConversationSession(base_url=sandbox.url, coalesce=False) as session:
            await asyncio.gather(*(session.fetch(_account(sandbox), QUERY) for _ in range(3)))

            assert 3 == sandbox.requests[sandbox.account_ids[0]]


async def test_who_gives_up_does_not_take_the_others_down() -> None:
    """Not even the one who was first and started the request."""
    async with Sandbox(latency=5) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            tasks = [asyncio.create_task(session.fetch(_account(sandbox), QUERY)) for _ in range(3)]
            await asyncio.sleep(2)
            tasks[0].cancel()
            report = await tasks[1]

            assert tasks[0].cancelled()
            assert report == await tasks[2]
            assert 1 == sandbox.requests[sandbox.account_ids[0]]


async def test_the_last_one_to_give_up_cancels_the_request() -> None:
    """Nothing runs on for nobody: the slot is free at once."""
    async with Sandbox(latency=50) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            who = _account(sandbox)
            tasks = [asyncio.create_task(session.fetch(who, QUERY)) for _ in range(3)]
            await asyncio.sleep(2)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

            assert 0 == session.stats(who).in_flight


async def test_each_has_its_own_timeout() -> None:
    """The impatient one ends in time, and the patient one has the answer."""
    async with Sandbox(latency=5) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            hasty = asyncio.create_task(session.fetch(_account(sandbox), QUERY, timeout=1))
            patient = asyncio.create_task(session.fetch(_account(sandbox), QUERY, timeout=20))

            with pytest.raises(DeadlineExceeded):
                await hasty
            assert 1 == asyncio.get_running_loop().time() // 1
            assert (await patient).totals is not None


async def test_a_failure_is_everybodys_and_each_has_its_own_exception() -> None:
    """A traceback that grows with every waiter would be nobody's."""
    async with Sandbox(latency=1) as sandbox:
        sandbox.fail_next(500, times=9)
        policy = RetryPolicy(waits=[])
        async with ConversationSession(base_url=sandbox.url, retry=policy) as session:
            errors = await asyncio.gather(
                *(session.fetch(_account(sandbox), QUERY) for _ in range(3)),
                return_exceptions=True,
            )

            assert [ServerError] * 3 == [type(each) for each in errors]
            assert 3 == len(set(map(id, errors)))
            assert 1 == sandbox.requests[sandbox.account_ids[0]]


async def test_an_answer_may_be_used_again_while_it_is_fresh() -> None:
    """For as long as was allowed, and then the service is asked again."""
    clock = Clock(datetime(2026, 3, 4, 8, 1, tzinfo=UTC))
    async with Sandbox(clock=clock) as sandbox:
        async with ConversationSession(base_url=sandbox.url, fresh_for=60) as session:
            asked = []
            for wait in (0, 30, 29, 2):
                await asyncio.sleep(wait)
                await session.fetch(_account(sandbox), QUERY)
                asked.append(sandbox.requests[sandbox.account_ids[0]])

            assert [1, 1, 1, 2] == asked


async def test_an_answer_is_never_used_across_a_five_minute_edge() -> None:
    """A new bucket has begun: what was true before it is no answer any more."""
    clock = Clock(datetime(2026, 3, 4, 8, 4, 50, tzinfo=UTC))
    async with Sandbox(clock=clock) as sandbox:
        async with ConversationSession(base_url=sandbox.url, fresh_for=60) as session:
            before = await session.fetch(_account(sandbox), QUERY)
            await asyncio.sleep(8)
            again = await session.fetch(_account(sandbox), QUERY)
            await asyncio.sleep(3)
            after = await session.fetch(_account(sandbox), QUERY)

            assert 2 == sandbox.requests[sandbox.account_ids[0]]
            assert before == again
            assert before.window is not None
            assert after.window is not None
            assert before.window.intervals[-1].end < after.window.intervals[-1].end


async def test_closing_forgets_what_was_fresh() -> None:
    """No timer is left that would hold an answer."""
    async with Sandbox() as sandbox:
        async with ConversationSession(base_url=sandbox.url, fresh_for=200) as session:
            await session.fetch(_account(sandbox), QUERY)
        loop = asyncio.get_running_loop()
        timers = loop._scheduled  # type: ignore[attr-defined]
        assert not [each for each in timers if not each.cancelled() and "pop" in repr(each)]


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf")])
def test_freshness_that_cannot_be_is_refused(wrong: float) -> None:
    with pytest.raises(ConfigurationError, match="fresh_for"):
        ConversationSession(fresh_for=wrong)
