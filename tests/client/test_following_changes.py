"""Accounts that come and go while they are followed, in virtual time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from msgconv_async import (
    Account,
    BearerToken,
    Checkpoint,
    ClosedBucket,
    ConfigurationError,
    ConversationQuery,
    Failure,
    SessionUnusable,
)
from msgconv_async.client.many.checkpoint import Item
from msgconv_async.client.many.follow import Reading
from msgconv_async.protocol.buckets import BUCKET
from tests.client.following import (
    DAY,
    EDGE,
    HOUR,
    ONE,
    Service,
    all_within,
    consecutive,
    ends,
    many,
    take,
    up_to,
)
from tests.client.support import BEARER, now

pytestmark = pytest.mark.looptime

TWO = Account("2", BEARER)


def asked(service: Service, account: Account, since: float = 0.0) -> list[float]:
    """Return when an account was asked."""
    return [at for at, account_id, _ in service.asked if account_id == account.id and at >= since]


def of(account: Account, items: list[Item]) -> list[ClosedBucket]:
    return [each for each in items if isinstance(each, ClosedBucket) and each.account == account]


async def test_an_account_that_is_added_is_asked_at_once_and_then_in_its_turns() -> None:
    """It begins where it would have begun at the start, and disturbs no other."""
    service = Service()
    async with service.follow([ONE], since=HOUR) as closed:
        await all_within(closed, 1000)
        closed.add(TWO)
        began = now()
        items = await all_within(closed, 1000)

    assert (ONE, TWO) == closed.accounts
    assert began == asked(service, TWO)[0]
    assert 4 <= len(asked(service, TWO)) <= 5
    new = ends(of(TWO, items))
    first = EDGE + (began // 300 - 11) * BUCKET
    assert consecutive(first, new[-1]) == new
    assert 3 <= len(ends(of(ONE, items))) <= 4


async def test_many_that_are_added_together_are_asked_one_after_the_other() -> None:
    """As many accounts that are given at the start are: no burst."""
    service = Service()
    async with service.follow([Account("one", BEARER)]) as closed:
        await all_within(closed, 400)
        began = now()
        for account in many(50):
            closed.add(account)
        await all_within(closed, 14.8)

    times = [at - began for at, account_id, _ in service.asked if account_id != "one"]
    assert pytest.approx([0.3 * number for number in range(50)]) == times


async def test_of_a_removed_account_nothing_comes_any_more() -> None:
    """Not what was read already, and no request is made; the others go on."""
    service = Service()
    async with service.follow([ONE, TWO], since=HOUR) as closed:
        first = await anext(closed)
        gone, stays = (ONE, TWO) if first.account == ONE else (TWO, ONE)
        closed.remove(gone.id)
        began = now()
        items = await all_within(closed, 1000)

    assert (stays,) == closed.accounts
    assert {stays.id} == {each.account.id for each in items}
    assert [] == asked(service, gone, began + 0.001)


async def test_a_request_under_way_is_broken_off() -> None:
    """And what it held is free for the others."""
    service = Service()
    service.delay = 50.0
    async with service.follow([ONE], max_in_flight=1) as closed:
        await asyncio.sleep(1)
        assert 1 == service.running
        closed.remove(ONE.id)
        closed.add(TWO)
        assert TWO == (await anext(closed)).account
        assert pytest.approx(51, abs=0.1) == now()


async def test_an_account_that_comes_back_goes_on_where_it_stood() -> None:
    """Every bucket once: what was not taken before comes then, what was taken does not."""
    service = Service()
    renewed = Account(ONE.id, BearerToken("renewed"))
    async with service.follow([ONE], since=HOUR, settle=0) as closed:
        before = await take(closed, 3)
        closed.remove(ONE.id)
        kept = closed.checkpoint
        assert [] == await all_within(closed, 1000)
        closed.add(renewed)
        after = await up_to(closed, EDGE + 3 * BUCKET)

    assert {ONE.id} == set(kept.accounts)
    assert renewed == after[0].account
    found = ends(before) + ends(after)
    assert consecutive(found[0], EDGE + 3 * BUCKET) == found


async def test_one_that_was_never_taken_from_loses_nothing_either() -> None:
    """Its beginning is that of its first question, not of its return."""
    service = Service()
    service.failing.add(ONE.id)
    async with service.follow([ONE], since=timedelta(minutes=30)) as closed:
        assert isinstance(await anext(closed), Failure)
        began = now()
        closed.remove(ONE.id)
        service.failing.clear()
        await all_within(closed, 3600)
        closed.add(ONE)
        first = await anext(closed)

    assert isinstance(first, ClosedBucket)
    assert first.interval.end <= EDGE - 5 * BUCKET + (began // 300 + 1) * BUCKET


async def test_what_a_checkpoint_says_of_an_account_holds_when_it_is_added() -> None:
    """A run that begins without it keeps where it stands."""
    service = Service()
    async with service.follow([ONE, TWO], since=HOUR, settle=0) as closed:
        await all_within(closed, 600)
        stored = closed.checkpoint
    async with service.follow([ONE], since=Checkpoint.from_json(stored.to_json())) as closed:
        await all_within(closed, 900)
        closed.add(TWO)
        items = await all_within(closed, 10)

    assert stored.accounts[TWO.id].through + BUCKET == ends(of(TWO, items))[0]


async def test_an_instant_holds_for_an_account_that_is_added() -> None:
    """And what lies too far back by then is a gap, as ever."""
    service = Service()
    async with service.follow([ONE], since=EDGE - HOUR) as closed:
        await all_within(closed, 600)
        closed.add(TWO)
        items = await all_within(closed, 10)

    assert EDGE - HOUR + BUCKET == ends(of(TWO, items))[0]


async def test_an_answer_in_the_moment_of_removal_is_not_handed_out() -> None:
    """The answer is there and the task has not run yet: it is too late all the same."""
    service, answered = Service(), asyncio.Event()

    async def ask(account: Account, query: ConversationQuery) -> Reading:
        answer = await service(account, query)
        await answered.wait()
        return answer

    async with service.follow([ONE], ask=ask) as closed:
        assert [] == await all_within(closed, 400)
        answered.set()
        closed.remove(ONE.id)
        assert [] == await all_within(closed, 10)


async def test_a_consumer_that_waits_goes_on_waiting_when_all_are_gone() -> None:
    """Without turning in circles, and it gets what comes of the next one."""
    service = Service()
    async with service.follow([ONE], since=HOUR) as closed:
        await asyncio.sleep(400)  # what was read waits to be taken
        assert closed._ready
        closed.remove(ONE.id)
        waiting = asyncio.create_task(anext(closed))
        await asyncio.sleep(100)
        assert not waiting.done()
        closed.add(TWO)
        assert TWO == (await waiting).account


async def test_what_cannot_be_is_told() -> None:
    """One sentence, and nothing has changed."""
    service = Service()
    async with service.follow([ONE]) as closed:
        with pytest.raises(ConfigurationError, match="account 1 is followed already: remove it"):
            closed.add(ONE)
        with pytest.raises(ConfigurationError, match="account 2 is not followed"):
            closed.remove("2")
        assert (ONE,) == closed.accounts
    with pytest.raises(SessionUnusable, match="has ended"):
        closed.add(TWO)
    with pytest.raises(SessionUnusable, match="has ended"):
        closed.remove("1")
    async with service.follow([ONE], over=DAY) as closed:
        with pytest.raises(ConfigurationError, match=r"over: .* keeps its accounts"):
            closed.add(TWO)
