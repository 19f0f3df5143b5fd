"""Clocks that are wrong, ours or the service's: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from msgconv_async import (
    Account,
    Checkpoint,
    ClosedBucket,
    ConversationMetrics,
    ConversationQuery,
    Gap,
    Interval,
)
from msgconv_async.client.checkpoint import Item, Position
from msgconv_async.client.fanout import MAX_IN_FLIGHT
from msgconv_async.client.follow import Reading, follow
from msgconv_async.protocol.buckets import BUCKET, window
from tests.client.following import DAY, EDGE, HOUR, NOON, ONE, QUERY, consecutive, ends
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
        told: What the service said last of each bucket, as it was handed out.
        items: All that was handed out.
    """

    def __init__(self, *, settle: int, revise: bool, dated: bool) -> None:
        self.settle, self.revise, self.dated = settle, revise, dated
        self.ours = self.theirs = NEVER
        self.items: list[Item] = []
        self.stored = Checkpoint({"1": Position(EDGE - HOUR)}).to_json()

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

    async def follow(self, turns: int) -> None:
        """Follow for some turns of five minutes."""
        manager = follow(
            self.ask,
            [ONE],
            [QUERY],
            since=Checkpoint.from_json(self.stored),
            settle=self.settle,
            revise=self.revise,
            over=None,
            max_in_flight=MAX_IN_FLIGHT,
            clock=lambda: self.true_time() + self.ours,
        )
        end = now() + turns * BUCKET.total_seconds()
        async with manager as closed:
            while now() < end:
                try:
                    async with asyncio.timeout(end - now()):
                        async for item in closed:
                            self.items.append(item)
                except TimeoutError:
                    pass
            self.stored = closed.checkpoint.to_json()

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


def lived(world: World, wrong: Sequence[Spell], *, begun: str) -> datetime:
    """Live through spells, each followed by one in which both clocks are right; return the time."""
    right = [Spell(8, "ours", NEVER, restarts=each.restarts) for each in wrong]
    spells = [each for pair in zip(wrong, right, strict=True) for each in pair]
    if begun == "right":
        spells = [Spell(2, "ours", NEVER, restarts=False), *spells]

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
    time = lived(world, wrong, begun="right")

    told = world.last_told()
    latest = time - (2 if revise else 2 + settle) * BUCKET
    assert consecutive(EDGE - HOUR + BUCKET, max(told)) == ends(world.items)
    assert latest < max(told) <= time
    assert not any(isinstance(each, Gap) for each in world.items)
    over = {end: count for end, count in told.items() if end <= time - BUCKET}
    assert dict.fromkeys(over, 5) == over
