"""Buckets that an answer leaves out or spoils: asked for again, until they are told or lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    Checkpoint,
    ClosedBucket,
    ConversationQuery,
    ConversationSession,
    Failure,
    Gap,
    Interval,
    UnexpectedResponse,
)
from msgconv_async.client.many.checkpoint import Item, Position, Step, advance
from msgconv_async.client.many.follow import Reading
from msgconv_async.protocol.buckets import BUCKET, window
from msgconv_async.protocol.report import Unreadable
from tests.client.following import (
    DAY,
    EDGE,
    HOUR,
    NOON,
    ONE,
    QUERY,
    Service,
    all_within,
    bucket,
    consecutive,
    ends,
)
from tests.client.support import serving

pytestmark = pytest.mark.looptime

LOST = EDGE - 2 * BUCKET
"""The end of the bucket that is missing."""


def spoiled(end: datetime, why: str = "metricsTotals was asked for and is absent") -> Unreadable:
    error = UnexpectedResponse(why, where="$.metricsByIntervals[2]")
    return Unreadable(end - BUCKET, end, complete=True, error=error)


def answer(last: datetime, count: int, *absent: datetime) -> list[Interval | Unreadable]:
    """Return an answer's intervals up to an end, some of them absent, and the open one."""
    found: list[Interval | Unreadable] = [
        spoiled(end) if end in absent else bucket(end)
        for end in consecutive(last - (count - 1) * BUCKET, last)
    ]
    return [*found, bucket(last + BUCKET, complete=False)]


def after(steps: Iterable[Step], position: Position) -> Position:
    """Return where all these steps lead."""
    for step in steps:
        position = step.after or position
    return position


def taken(steps: Iterable[Step]) -> list[Item]:
    return [each.item for each in steps]


@pytest.mark.parametrize("left_out", [True, False])
def test_a_bucket_that_cannot_be_taken_is_told_and_those_after_it_are_handed_out(
    *, left_out: bool
) -> None:
    """Once, and not again at each turn; then it comes, after the others."""
    first = [each for each in answer(EDGE, 5, LOST) if not (left_out and each.end == LOST)]
    start = Position(EDGE - 5 * BUCKET)
    steps = list(advance(ONE, start, first, 0))
    failure, *buckets = taken(steps)

    assert isinstance(failure, Failure)
    assert "2026-03-04 11:45 to 11:50 UTC cannot be taken" in str(failure.error)
    assert ("leaves it out" if left_out else "is absent") in str(failure.error)
    assert [e for e in consecutive(EDGE - 4 * BUCKET, EDGE) if e != LOST] == ends(buckets)
    hole = after(steps, start)
    assert (EDGE, (LOST,)) == (hole.through, hole.missing)
    assert LOST - BUCKET == hole.oldest

    again = list(advance(ONE, hole, answer(EDGE + BUCKET, 8, LOST), 0))
    assert [EDGE + BUCKET] == ends(taken(again))
    assert 1 == len(again)

    last = list(advance(ONE, after(again, hole), answer(EDGE + 2 * BUCKET, 8), 0))
    assert [LOST, EDGE + 2 * BUCKET] == ends(taken(last))
    assert Position(EDGE + 2 * BUCKET) == after(last, hole)


def test_a_missing_bucket_that_lies_too_far_back_is_a_gap() -> None:
    """With a reason that is true; neighbours are one, and a checkpoint between loses none."""
    first, last = EDGE - DAY - BUCKET, EDGE - DAY
    position = Position(EDGE, missing=(first - HOUR, first, last, LOST))
    steps = list(advance(ONE, position, answer(EDGE + BUCKET, 3), 0))

    gaps = [each for each in steps if isinstance(each.item, Gap)]
    expected = [(first - HOUR - BUCKET, first - HOUR), (first - BUCKET, last)]
    assert [Gap(ONE, *each) for each in expected] == taken(gaps)
    left = [step.after.missing for step in gaps if step.after is not None]
    assert [(first, last, LOST), (LOST,)] == left


def test_a_whole_answer_that_cannot_be_taken_moves_nothing() -> None:
    """It is told at each turn, as any account that fails."""
    for position in (Position(EDGE - HOUR), None):
        steps = list(advance(ONE, position, answer(EDGE, 12, *consecutive(EDGE - HOUR, EDGE)), 3))
        [(item, then)] = steps
        assert isinstance(item, Failure)
        assert "12 of the intervals 2026-03-04 11:00 to 12:00 UTC" in str(item.error)
        assert Position(EDGE - HOUR) == then


def test_a_bucket_that_settles_and_is_spoiled_once_is_compared_later() -> None:
    """It was handed out: it is no gap, and comes again only if it changed."""
    start = Position(EDGE - 3 * BUCKET)
    position = after(advance(ONE, start, answer(EDGE, 3), 3), start)
    spoilt = list(advance(ONE, position, answer(EDGE, 3, LOST), 3))
    assert [Failure] == [type(each) for each in taken(spoilt)]
    position = after(spoilt, position)
    for number in range(1, 9):
        steps = list(advance(ONE, position, answer(EDGE + number * BUCKET, 12, LOST), 3))
        assert [EDGE + number * BUCKET] == ends(taken(steps))
        assert 1 == len(steps)
        position = after(steps, position)
    changed = [
        bucket(LOST, 7) if each.end == LOST else each for each in answer(EDGE + 8 * BUCKET, 12)
    ]
    [(item, then)] = advance(ONE, position, changed, 3)

    assert ClosedBucket(ONE, bucket(LOST, 7), revised=True) == item
    assert then is not None
    assert () == then.missing
    assert LOST not in then.settling


def test_without_revisions_a_missing_bucket_comes_once() -> None:
    """After those that settled later."""
    position = Position(EDGE - 5 * BUCKET)
    steps = list(advance(ONE, position, answer(EDGE, 5, LOST), 1, revise=False))
    assert (EDGE - BUCKET, (LOST,)) == (
        after(steps, position).through,
        after(steps, position).missing,
    )
    more = list(advance(ONE, after(steps, position), answer(EDGE + BUCKET, 6), 1, revise=False))
    assert [LOST, EDGE] == ends(taken(more))


async def test_a_bucket_that_one_answer_leaves_out_is_asked_for_again() -> None:
    """As far back as it lies, until an answer has it."""
    service = Service()
    absent = True

    async def ask(account: Account, query: ConversationQuery) -> Reading:
        reading = await service(account, query)
        intervals = tuple(
            spoiled(each.end) if absent and each.end == LOST else each for each in reading.intervals
        )
        return Reading(intervals, reading.date)

    async with service.follow(since=HOUR, ask=ask) as closed:
        items = await all_within(closed, 3 * 3600)
        failures = [each for each in items if isinstance(each, Failure)]
        absent = False
        items = await all_within(closed, 600)

    assert 1 == len(failures)
    assert 3 * 60 <= service.asked[-3][2].timeframe <= 3 * 60 + 30
    assert LOST in ends(items)
    assert service.asked[-1][2].timeframe <= 30


async def test_what_is_missing_goes_through_a_restart() -> None:
    """It is not told twice, and is no gap while the API has it."""
    service = Service()

    async def ask(account: Account, query: ConversationQuery) -> Reading:
        reading = await service(account, query)
        intervals = tuple(each for each in reading.intervals if each.end != LOST)
        return Reading(intervals, reading.date)

    items: list[Item] = []
    since: Any = HOUR
    for _ in range(3):
        async with service.follow(since=since, ask=ask) as closed:
            items += await all_within(closed, 400)
            since = Checkpoint.from_json(closed.checkpoint.to_json())
    async with service.follow(since=since) as closed:
        items += await all_within(closed, 10)

    assert 1 == sum(isinstance(each, Failure) for each in items)
    assert not any(isinstance(each, Gap) for each in items)
    assert sorted(ends(items)) == consecutive(EDGE - HOUR + BUCKET, max(ends(items)))


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def reporting(spoil: Callable[[list[dict[str, Any]]], None], *, dated: bool = True) -> Handler:
    """Return a handler that answers as the API does, but for what is done to the intervals."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        spans = window(NOON, int(request.query["timeframe"]), 5).intervals
        intervals = [
            {
                "timestamp": int(each.end.timestamp() * 1000),
                "metricsData": {"metricsTotals": {"totalResolvedConversations": 1}},
            }
            for each in reversed(spans)
        ]
        spoil(intervals)
        response = web.json_response({"metricsByIntervals": intervals, "metricsTotals": {}})
        response.headers["Date"] = "Wed, 04 Mar 2026 12:02:00 GMT" if dated else "today"
        return response

    return handler


async def items_of(handler: Handler) -> list[Item]:
    async with (
        serving(handler) as url,
        ConversationSession(base_url=url) as session,
        session.follow(
            [ONE], QUERY, since=HOUR, over=timedelta(), settle=0, clock=lambda: NOON
        ) as closed,
    ):
        return [item async for item in closed]


def total_of(metrics: object) -> Callable[[list[dict[str, Any]]], None]:
    def spoil(intervals: list[dict[str, Any]]) -> None:
        intervals[5]["metricsData"] = {"metricsTotals": {"totalResolvedConversations": metrics}}

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda intervals: intervals.pop(5), "was left out"),
        (lambda intervals: intervals[5].update(metricsData={}), "is absent"),
        (lambda intervals: intervals[5].update(metricsData=None), "is absent"),
        (total_of("many"), "cannot be taken"),
        (total_of(1.5), "cannot be taken"),
        (
            lambda intervals: intervals.append(
                {**intervals[5], "metricsData": {"metricsTotals": {}}}
            ),
            "came twice",
        ),
    ],
)
async def test_what_is_wrong_with_one_bucket_costs_that_bucket_alone(
    spoil: Callable[[list[dict[str, Any]]], None], said: str
) -> None:
    """Over a real connection: all others are handed out, and it is told which is not, and why."""
    failure, *buckets = await items_of(reporting(spoil))

    assert isinstance(failure, Failure)
    assert said in str(failure.error)
    assert "account 1: the interval 2026-03-04 11:35 to 11:40 UTC" in str(failure.error)
    expected = consecutive(EDGE - HOUR + BUCKET, EDGE)
    assert [end for end in expected if end != EDGE - 4 * BUCKET] == ends(buckets)


@pytest.mark.parametrize("dated", [True, False])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda intervals: None,
        lambda intervals: intervals.append(intervals[5]),
        total_of(1.0),
        total_of("NaN"),
    ],
)
async def test_what_can_be_read_all_the_same_is_handed_out_once(
    spoil: Callable[[list[dict[str, Any]]], None], *, dated: bool
) -> None:
    """A bucket sent twice with the same figures, an integral float, a number that is none."""
    items = await items_of(reporting(spoil, dated=dated))

    assert consecutive(EDGE - HOUR + BUCKET, EDGE) == ends(items)
    assert 12 == len(items)


def far_ahead(intervals: list[dict[str, Any]]) -> None:
    intervals[:0] = [{**intervals[0], "timestamp": 253402300500000 - n} for n in (0, 300000)]


def an_hour_ahead(intervals: list[dict[str, Any]]) -> None:
    for each in intervals:
        each["timestamp"] += 3_600_000


@pytest.mark.parametrize("spoil", [far_ahead, an_hour_ahead, list.clear])
async def test_an_answer_of_another_time_is_one_failure_and_no_more(
    spoil: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Intervals in the year 9999, all of them an hour ahead of the Date, or none at all."""
    [item] = await items_of(reporting(spoil))

    assert isinstance(item, Failure)
    assert isinstance(item.error, UnexpectedResponse)
    assert "1" == item.error.account_id
