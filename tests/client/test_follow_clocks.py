"""Clocks that are wrong, ours or the service's: nothing is lost, and nothing comes twice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from msgconv_async import (
    Account,
    Checkpoint,
    ClosedBucket,
    ConversationMetrics,
    ConversationQuery,
    Failure,
    Gap,
    Interval,
)
from msgconv_async.client.many.checkpoint import Item, Position
from msgconv_async.client.many.fan_out import MAX_IN_FLIGHT
from msgconv_async.client.many.follow import Following, Reading, Since
from msgconv_async.protocol.buckets import BUCKET, window
from tests.client.following import DAY, EDGE, HOUR, NOON, ONE, QUERY, all_within, consecutive, ends
from tests.client.support import now
from tests.pacing.virtual import run_virtual

MINUTE = timedelta(minutes=1)
NEVER = timedelta()
RIGHT = 0


class Spell(NamedTuple):
    """Some turns in which one of the clocks may be wrong.

    Attributes:
        turns: How many.
        whose: ``"ours"`` or ``"theirs"``.
        wrong: By how much.
        restarts: Whether the caller restarts before each turn, from what it stored.
    """

    turns: int
    whose: str
    wrong: timedelta
    restarts: bool


class World:
    """A service that sees a conversation each minute, a caller, and a clock of each.

    Attributes:
        ours: How far the caller's clock is from the true time, for a spell.
        theirs: How far the service's is.
        lasting: How far the caller's clock is from the true time for good.
        items: All that was handed out.
    """

    def __init__(self, *, settle: int, revise: bool, dated: bool) -> None:
        self.settle, self.revise, self.dated = settle, revise, dated
        self.ours = self.theirs = self.lasting = NEVER
        self.items: list[Item] = []
        self.since: Since = Checkpoint({"1": Position(EDGE - HOUR)})

    def true_time(self) -> datetime:
        return NOON + timedelta(seconds=now())

    async def ask(self, _: Account, query: ConversationQuery) -> Reading:
        time = self.true_time()
        shown = time + self.theirs
        intervals = [
            Interval(
                span.start,
                span.end,
                span.complete,
                totals=ConversationMetrics(
                    total_resolved_conversations=resolved(span.start, span.end, time)
                ),
            )
            for span in window(shown, query.timeframe, query.interval).intervals
        ]
        return Reading(tuple(intervals), shown if self.dated else None)

    async def live(self, spells: Sequence[Spell]) -> None:
        for spell in spells:
            self.ours = spell.wrong if spell.whose == "ours" else NEVER
            self.theirs = spell.wrong if spell.whose == "theirs" else NEVER
            for turns in [1] * spell.turns if spell.restarts else [spell.turns]:
                await self.follow(turns)

    def following(self) -> AbstractAsyncContextManager[Following]:
        """Take up where the caller was."""
        following = Following(
            self.ask,
            [ONE],
            [QUERY],
            since=self.since,
            settle=self.settle,
            revise=self.revise,
            over=None,
            max_in_flight=MAX_IN_FLIGHT,
            clock=lambda: self.true_time() + self.ours + self.lasting,
        )
        return following.running()

    async def follow(self, turns: int) -> None:
        """Follow for some turns of five minutes."""
        async with self.following() as closed:
            self.items += await all_within(closed, turns * BUCKET.total_seconds())
            self.since = Checkpoint.from_json(closed.checkpoint.to_json())

    def last_told(self) -> dict[datetime, int | None]:
        """Return the conversations of each bucket, as it was handed out last."""
        return {
            each.interval.end: each.interval.totals.total_resolved_conversations
            for each in self.items
            if isinstance(each, ClosedBucket) and each.interval.totals is not None
        }


def resolved(start: datetime, end: datetime, time: datetime) -> int:
    return max(0, (min(end, time) - start) // MINUTE)


WRONG = [3 * MINUTE, 7 * MINUTE, 20 * MINUTE, HOUR, 10 * HOUR, 30 * HOUR, 400 * DAY, 300_000 * DAY]
spells = st.lists(
    st.builds(
        Spell,
        turns=st.integers(1, 24),
        whose=st.sampled_from(["ours", "theirs"]),
        wrong=st.sampled_from(WRONG).flatmap(lambda by: st.sampled_from([by, -by])),
        restarts=st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


def lived(world: World, wrong: Sequence[Spell], *, first: int = 2) -> datetime:
    """Live through spells, each followed by one in which the clocks are right again.

    Returns:
        The true time.
    """
    right = [Spell(8, "ours", NEVER, restarts=each.restarts) for each in wrong]
    spells = [each for pair in zip(wrong, right, strict=True) for each in pair]
    spells = [Spell(first, "ours", NEVER, restarts=False), *spells]

    async def main() -> datetime:
        await world.live(spells)
        return world.true_time()

    return run_virtual(main())


@given(wrong=spells, settle=st.sampled_from([1, 3]), revise=st.booleans(), dated=st.booleans())
@example(wrong=[Spell(1, "theirs", HOUR, restarts=True)], settle=3, revise=True, dated=True)
@example(wrong=[Spell(130, "theirs", 10 * HOUR, restarts=True)], settle=3, revise=False, dated=True)
@example(
    wrong=[Spell(130, "theirs", 30 * HOUR, restarts=False)], settle=3, revise=True, dated=False
)
@settings(deadline=None, max_examples=40)
def test_a_clock_that_goes_wrong_loses_nothing_and_repeats_nothing(
    wrong: list[Spell], settle: int, *, revise: bool, dated: bool
) -> None:
    """Whose ever, ahead or behind, for one answer or for hours, through restarts."""
    world = World(settle=settle, revise=revise, dated=dated)
    time = lived(world, wrong)

    told = world.last_told()
    latest = time - (2 if revise else 2 + settle) * BUCKET
    assert consecutive(EDGE - HOUR + BUCKET, max(told)) == ends(world.items)
    assert latest < max(told) <= time
    assert not any(isinstance(each, Gap) for each in world.items)
    assert dict.fromkeys(over(told, time), 5) == over(told, time)


@given(wrong=spells, dated=st.booleans())
@example(wrong=[Spell(1, "theirs", HOUR, restarts=True)], dated=True)
@example(wrong=[Spell(24, "theirs", 10 * HOUR, restarts=True)], dated=True)
@settings(deadline=None, max_examples=20)
def test_a_clock_that_is_wrong_from_the_start_is_made_good_by_revisions(
    wrong: list[Spell], *, dated: bool
) -> None:
    """What was taken before its time comes again, once the clocks are right."""
    world = World(settle=3, revise=True, dated=dated)
    time = lived(world, wrong, first=0)

    told = world.last_told()
    assert {*consecutive(EDGE - HOUR + BUCKET, time - 2 * BUCKET)} <= {*told}
    assert len({*ends(world.items)}) == len(ends(world.items))
    assert dict.fromkeys(over(told, time), 5) == over(told, time)


@pytest.mark.parametrize(
    ("lasting", "restarts"),
    [
        *((wrong, False) for wrong in (-400 * DAY, -HOUR, HOUR, 400 * DAY)),
        *((wrong, True) for wrong in (-400 * DAY, -HOUR, -20 * MINUTE)),
    ],
)
@pytest.mark.parametrize("wrong", [-10 * HOUR, 20 * MINUTE, 10 * HOUR, 30 * HOUR])
@pytest.mark.parametrize("revise", [True, False])
def test_a_caller_whose_clock_is_wrong_for_good_is_kept_from_a_wrong_service_as_well(
    lasting: timedelta, wrong: timedelta, *, restarts: bool, revise: bool
) -> None:
    """What the answers told before counts: within a run, and after a restart of one behind."""
    world = World(settle=3, revise=revise, dated=True)
    world.lasting = lasting
    time = lived_on(world, wrong, restarts=restarts)

    told = world.last_told()
    assert consecutive(EDGE - HOUR + BUCKET, max(told)) == ends(world.items)
    assert max(told) > time - 6 * BUCKET
    assert dict.fromkeys(over(told, time), 5) == over(told, time)


def lived_on(world: World, wrong: timedelta, *, restarts: bool) -> datetime:
    """Live through an hour, one in which the service is wrong, and one more."""

    async def main() -> datetime:
        spells = [Spell(12, "theirs", each, restarts=True) for each in (NEVER, wrong, NEVER)]
        if restarts:
            await world.live(spells)
        else:
            async with world.following() as closed:
                for world.theirs in (NEVER, wrong, NEVER):
                    world.items += await all_within(closed, HOUR.total_seconds())
        return world.true_time()

    return run_virtual(main())


def over(told: dict[datetime, int | None], time: datetime) -> dict[datetime, int | None]:
    """Return what was told of buckets that are over, and were read since."""
    return {end: count for end, count in told.items() if end <= time - BUCKET}


def refusals(items: Sequence[Item]) -> list[str]:
    return [str(each.error) for each in items if isinstance(each, Failure)]


def test_a_refused_answer_says_what_time_it_tells_and_what_time_it_is() -> None:
    """At each of its turns, until the clocks are right."""
    world = World(settle=3, revise=True, dated=True)
    lived(world, [Spell(3, "theirs", 10 * HOUR, restarts=False)])

    first, *_ = told = refusals(world.items)
    assert 3 <= len(told) <= 4
    assert "account 1: the intervals reach to 2026-03-04 22:1" in first
    assert "it is 2026-03-04 12:1" in first


@pytest.mark.parametrize("behind", [-30 * HOUR, -490_896 * HOUR], ids=["30 hours", "56 years"])
def test_a_first_answer_of_long_ago_is_refused(behind: timedelta) -> None:
    """Nobody asked for those buckets; once the service is right, all is as if nothing had been."""
    world = World(settle=3, revise=True, dated=False)
    world.since = 2 * HOUR
    lived(world, [Spell(1, "theirs", behind, restarts=False)], first=0)

    assert "account 1: the intervals reach to " in refusals(world.items)[0]
    assert not any(isinstance(item, Gap) for item in world.items)
    assert min(world.last_told()) > NOON - DAY


def test_answers_that_end_before_the_position_are_told() -> None:
    """A service that went back is waited for, and not in silence."""
    world = World(settle=3, revise=True, dated=True)
    lived(world, [Spell(3, "theirs", -HOUR, restarts=False)])

    told = refusals(world.items)
    assert 3 <= len(told) <= 4
    assert all("the answer ends at 2026-03-04 11:" in each for each in told)
    assert all("it is waited for" in each for each in told)


FAR = datetime(9999, 12, 31, 23, 55, tzinfo=UTC)
"""Where one answer of intervals in the year 9999 put a position, before such were refused."""


@pytest.mark.parametrize(
    ("lasting", "through"),
    [(NEVER, FAR), (-HOUR, FAR), (400 * DAY, FAR), (NEVER, EDGE + 30 * DAY)],
)
@pytest.mark.parametrize("revise", [True, False])
def test_a_position_far_in_the_future_is_told_and_goes_on(
    lasting: timedelta, through: datetime, *, revise: bool
) -> None:
    """With the day that can still be read, where that can take the place of what came before."""
    world = World(settle=1, revise=revise, dated=True)
    world.lasting = lasting
    world.since = Checkpoint({"1": Position(through, {through: "settling"})})
    time = run_virtual(turns_of(world, 6))

    told = world.last_told()
    [healed] = [each for each in refusals(world.items) if "it is waited for" not in each]
    assert f"before {through:%Y-%m-%d %H:%M} UTC" in healed
    first = min(told)
    assert consecutive(first, max(told)) == sorted(told)
    assert max(told) > time - 4 * BUCKET
    assert (first < EDGE - 23 * HOUR) == revise
    assert not any(isinstance(each, Gap) for each in world.items)
    assert isinstance(world.since, Checkpoint)
    assert max(told) == world.since.accounts["1"].through


def test_a_position_a_little_ahead_is_waited_for_by_who_cannot_take_back() -> None:
    """Its rows were appended already: they cannot come twice."""
    world = World(settle=1, revise=False, dated=True)
    world.since = Checkpoint({"1": Position(EDGE + HOUR)})
    run_virtual(turns_of(world, 20))

    assert refusals(world.items)
    assert consecutive(EDGE + HOUR + BUCKET, EDGE + HOUR + 6 * BUCKET) == ends(world.items)


async def turns_of(world: World, turns: int) -> datetime:
    await world.follow(turns)
    return world.true_time()


def test_answers_that_insist_for_half_a_day_are_believed() -> None:
    """A service whose clock is ahead for good is read, before the API forgets what it has."""
    world = World(settle=3, revise=True, dated=True)
    lived(world, [Spell(150, "theirs", 7 * HOUR, restarts=True)])

    assert max(world.last_told()) > NOON + 18 * HOUR
    assert not any(isinstance(each, Gap) for each in world.items)


def test_where_to_begin_may_lie_in_the_future() -> None:
    """It is waited for in peace."""
    world = World(settle=0, revise=True, dated=True)
    world.since = EDGE + HOUR
    run_virtual(turns_of(world, 15))

    assert [EDGE + HOUR + BUCKET, EDGE + HOUR + 2 * BUCKET] == [
        each.interval.end if isinstance(each, ClosedBucket) else each for each in world.items
    ]


@pytest.mark.parametrize("restarts", [True, False])
@pytest.mark.parametrize("since", [None, HOUR])
def test_a_service_that_ours_never_agreed_with_is_believed_after_ten_minutes(
    since: timedelta | None, *, restarts: bool
) -> None:
    """The answers and their Date agree with each other: it is the caller's clock that is wrong."""
    world = World(settle=3, revise=True, dated=True)
    world.since, world.lasting = since, -HOUR
    turns = [1] * 6 if restarts else [6]

    async def main() -> datetime:
        for each in turns:
            await world.follow(each)
        return world.true_time()

    time = run_virtual(main())
    assert max(world.last_told()) > time - 2 * BUCKET
    assert 1 <= len(refusals(world.items)) <= 4
