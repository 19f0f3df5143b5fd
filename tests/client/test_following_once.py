"""Following for one turn, with several queries, and for who cannot take anything back."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from msgconv_async import (
    Account,
    AgentBreakdown,
    ClosedBucket,
    ConfigurationError,
    ConversationQuery,
    ConversationSession,
    Failure,
    SkillBreakdown,
)
from msgconv_async.client.many.checkpoint import Item
from msgconv_async.client.many.follow import Following, Reading
from msgconv_async.protocol.buckets import BUCKET
from tests.client.following import (
    EDGE,
    HOUR,
    ONE,
    QUERY,
    SKILLS,
    Service,
    all_within,
    bucket,
    consecutive,
    ends,
    many,
)
from tests.client.support import now

pytestmark = pytest.mark.looptime

AT_ONCE = timedelta()


async def everything(closed: Following) -> list[Item]:
    """Return all that comes until the iteration ends."""
    return [item async for item in closed]


async def test_one_turn_takes_what_is_new_and_ends() -> None:
    """The next begins where it ended."""
    service = Service()

    async with service.follow(over=AT_ONCE, since=HOUR, settle=0) as closed:
        first = await everything(closed)
    service.moved = 2 * BUCKET
    async with service.follow(over=AT_ONCE, since=closed.checkpoint, settle=0) as closed:
        second = await everything(closed)

    assert consecutive(EDGE - HOUR + BUCKET, EDGE) == ends(first)
    assert [EDGE + BUCKET, EDGE + 2 * BUCKET] == ends(second)
    assert 2 == len(service.asked)


async def test_one_turn_with_nothing_new_ends_as_well() -> None:
    """Nothing is handed out, and nobody waits."""
    service = Service()
    async with service.follow(many(3), over=AT_ONCE, since=EDGE) as closed:
        assert [] == await everything(closed)
    assert 3 == closed.turns


async def test_turns_are_spread_over_the_time_given() -> None:
    """Each account has its own moment in it."""
    service = Service()
    async with service.follow(many(100), over=timedelta(seconds=60), since=BUCKET) as closed:
        await everything(closed)

    halves = [sum(at < 30 for at, *_ in service.asked), sum(at >= 30 for at, *_ in service.asked)]
    assert 100 == sum(halves)
    assert 35 < min(halves)
    assert now() < 61


async def test_a_failure_ends_with_its_turn() -> None:
    """It is not tried again before the next time."""
    service = Service()
    service.failing = {"1"}
    async with service.follow(many(3), over=AT_ONCE, since=BUCKET) as closed:
        items = await everything(closed)

    assert ["1"] == [each.account.id for each in items if isinstance(each, Failure)]
    assert 2 == len(ends(items))
    assert 3 == closed.turns


async def test_who_waits_as_the_last_turn_ends_without_a_bucket_is_told_the_end() -> None:
    """The end is no item, and yet it wakes."""
    service = Service()
    service.delay = 5.0
    async with service.follow(over=AT_ONCE, since=EDGE) as closed:
        waiting = asyncio.ensure_future(everything(closed))
        assert [] == await asyncio.wait_for(waiting, 6)


async def test_without_revisions_a_bucket_comes_once_it_has_settled() -> None:
    """And then as it is at last."""
    service = Service()
    async with service.follow(revise=False, settle=2, since=EDGE - BUCKET) as closed:
        service.late["1", EDGE] = 4
        items = await all_within(closed, 1140)

    assert [EDGE, EDGE + BUCKET] == ends(items)
    assert not any(each.revised for each in items if isinstance(each, ClosedBucket))
    first = items[0]
    assert isinstance(first, ClosedBucket)
    assert first.interval.totals is not None
    assert 5 == first.interval.totals.total_resolved_conversations


async def answer(account: Account, query: ConversationQuery) -> Reading:
    """Answer skills where they are asked for, and totals where nothing is."""
    if query.skill_ids is None:
        return Reading((bucket(EDGE, 7), bucket(EDGE + BUCKET, 8)), None)
    found = (bucket(EDGE - BUCKET), bucket(EDGE), bucket(EDGE + BUCKET, complete=False))
    skills = SkillBreakdown({3: AgentBreakdown()})
    return Reading(
        tuple(
            type(each)(each.start, each.end, each.complete, skills=skills, totals=None)
            for each in found
        ),
        None,
    )


async def test_several_queries_come_side_by_side_in_one_bucket() -> None:
    """Only where every answer has it, and has it closed."""
    async with Service().follow(
        [ONE], QUERY, SKILLS, ask=answer, over=AT_ONCE, since=EDGE - BUCKET
    ) as closed:
        (item,) = await everything(closed)

    assert isinstance(item, ClosedBucket)
    assert EDGE == item.interval.end
    assert item.interval.totals is not None
    assert 7 == item.interval.totals.total_resolved_conversations
    assert item.interval.skills is not None
    assert {3} == set(item.interval.skills.per_skill)


async def test_queries_without_an_interval_in_common_are_a_failure() -> None:
    """An hour between two answers of one turn."""

    async def apart(account: Account, query: ConversationQuery) -> Reading:
        return Reading((bucket(EDGE if query.skill_ids is None else EDGE - HOUR),), None)

    async with Service().follow([ONE], QUERY, SKILLS, ask=apart, over=AT_ONCE) as closed:
        (item,) = await everything(closed)

    assert isinstance(item, Failure)
    assert "no interval in common" in str(item.error)


async def test_no_query_is_refused() -> None:
    """There would be nothing to ask."""
    async with ConversationSession(base_url="http://localhost") as session:
        with pytest.raises(ConfigurationError, match="no query"):
            session.follow([ONE], [])
