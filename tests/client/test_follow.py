import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from operator import itemgetter
from typing import Any

import anyio
import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    AgentBreakdown,
    Checkpoint,
    ClosedBucket,
    ConfigurationError,
    ConversationMetrics,
    ConversationQuery,
    ConversationSession,
    Failure,
    Gap,
    Interval,
    InvalidQuery,
    MsgConvError,
    RetryPolicy,
    ServerError,
    SessionUnusable,
    UnexpectedResponse,
)
from msgconv_async.client.many.checkpoint import Item, Position, advance
from msgconv_async.client.many.follow import Reading
from msgconv_async.client.many.service_clock import ServiceClock, instant
from msgconv_async.protocol.buckets import BUCKET, floor
from msgconv_async.sandbox import Clock, Conversation, Sandbox, Synthetic
from tests.client.following import (
    DAY,
    EDGE,
    HOUR,
    NOON,
    ONE,
    QUERY,
    SKILLS,
    Service,
    all_within,
    background_tasks,
    bucket,
    consecutive,
    ends,
    many,
    take,
    up_to,
)
from tests.client.support import account, answering, now, serving, turns

pytestmark = pytest.mark.looptime


class Punctual:
    """Conversations, but for one in ten, which reach the service up to ten minutes late."""

    def __init__(self) -> None:
        self._source = Synthetic(conversations_per_day=300)

    def __call__(self, account_id: str, start: datetime, end: datetime) -> Iterator[Conversation]:
        for each in self._source(account_id, start, end):
            if not self._delay(each):
                yield each

    def late(
        self, account_id: str, start: datetime, end: datetime
    ) -> list[tuple[datetime, Conversation]]:
        """Return the others, and when each arrives."""
        return [
            (each.resolved_at + timedelta(minutes=delay), each)
            for each in self._source(account_id, start, end)
            if (delay := self._delay(each))
        ]

    def _delay(self, conversation: Conversation) -> float:
        chance = random.Random(f"{conversation.account}{conversation.resolved_at}")
        return chance.uniform(0, 10) if chance.random() < 0.1 else 0.0


class Storm:
    """Three days on which little goes right, and a caller who writes down what it is handed.

    The caller restarts again and again, from what it stored last: before it dealt with an item, or
    after. Its clock jumps by hours. The service fails now and then, for minutes or hours, and for
    more than a day once.
    """

    def __init__(self, seed: int) -> None:
        self.clock = Clock(NOON)
        self.random = random.Random(seed)
        events = Punctual()
        self.sandbox = Sandbox(accounts=2, events=events, clock=self.clock)
        self.sandbox.fault = self.fault
        self.late = sorted(
            (
                each
                for account_id in self.sandbox.account_ids
                for each in events.late(account_id, NOON - 2 * DAY, NOON + 5 * DAY)
            ),
            key=itemgetter(0),
            reverse=True,
        )
        self.outages = [(20, 20.5), (24, 30), (34, 34.1), (40, 68)]
        self.skew = timedelta()
        begin = Position(EDGE - 12 * HOUR)
        self.stored = Checkpoint(dict.fromkeys(self.sandbox.account_ids, begin)).to_json()
        self.items: list[Item] = []
        self.restarts = 0

    async def fault(self, request: web.Request) -> web.StreamResponse | None:
        while self.late and self.late[-1][0] <= self.clock():
            self.sandbox.add(self.late.pop()[1])
        hours = (self.clock() - NOON) / HOUR
        out = any(start <= hours < end for start, end in self.outages)
        unlucky = request.path.endswith(f"{self.sandbox.account_ids[1]}/msgconversation")
        if out or (unlucky and self.random.random() < 0.1):
            return web.Response(status=503)
        return None

    async def run(self) -> None:
        policy = RetryPolicy(waits=())
        async with self.sandbox:
            while self.clock() < NOON + timedelta(hours=80):
                async with ConversationSession(base_url=self.sandbox.url, retry=policy) as session:
                    await self.follow(session)
                self.restarts += 1
                if self.random.random() < 0.2:
                    await asyncio.sleep(self.random.uniform(0, 7200))

    async def follow(self, session: ConversationSession) -> None:
        lives = self.random.randrange(1, 300)
        jumps = self.random.randrange(200)
        async with session.follow(
            [account(self.sandbox, number) for number in range(2)],
            QUERY,
            since=Checkpoint.from_json(self.stored),
            clock=lambda: self.clock() + self.skew,
        ) as closed:
            async for item in closed:
                lives -= not isinstance(item, Failure)
                if lives < 0 and self.random.random() < 0.5:
                    return  # before it is dealt with
                self.items.append(item)
                self.stored = closed.checkpoint.to_json()
                if lives < 0 or self.clock() > NOON + timedelta(hours=80):
                    return
                if not lives % (200 + jumps):
                    self.skew = timedelta(hours=self.random.uniform(-30, 30))


@pytest.mark.looptime(noop_cycles=10)
async def test_days_of_outages_restarts_jumping_clocks_and_late_events_are_told_once() -> None:
    """Every account's buckets and gaps tile its time, and hold what really happened."""
    storm = Storm(seed=1)
    await storm.run()

    assert 5 < storm.restarts
    assert any(isinstance(each, Failure) for each in storm.items)
    for account_id in storm.sandbox.account_ids:
        mine = [each for each in storm.items if each.account.id == account_id]
        spans, told, gaps = [], {}, []
        for item in mine:
            match item:
                case ClosedBucket(_, interval, revised):
                    assert (interval.end in told) == revised
                    told[interval.end] = interval.totals
                    if not revised:
                        spans.append((interval.start, interval.end))
                case Gap(_, start, end):
                    spans.append((start, end))
                    gaps.append((start, end))
                case Failure(_, error):
                    assert isinstance(error, ServerError)
        assert all(before[1] == after[0] for before, after in pairwise(spans))
        assert spans[0][0] == EDGE - 12 * HOUR
        assert spans[-1][1] > NOON + timedelta(hours=77)
        assert gaps
        assert gaps[0][0] > NOON + timedelta(hours=37)  # where the long outage began
        assert gaps[-1][1] < NOON + timedelta(hours=47)  # a day before it had ended for sure
        assert any(isinstance(each, ClosedBucket) and each.revised for each in mine)
        truth = true_counts(storm, account_id)
        settled = {
            end: totals.total_resolved_conversations
            for end, totals in told.items()
            if totals is not None
            and end <= spans[-1][1] - 3 * BUCKET
            and not any(start - 3 * BUCKET < end <= start for start, _ in gaps)
        }
        assert {end: truth[end] for end in settled} == settled


def true_counts(storm: Storm, account_id: str) -> defaultdict[datetime, int]:
    truth: defaultdict[datetime, int] = defaultdict(int)
    for each in storm.sandbox.resolved(account_id, NOON - 2 * DAY, NOON + 5 * DAY):
        truth[floor(each.resolved_at) + BUCKET] += 1
    return truth


async def test_following_begins_as_far_back_as_the_api_reaches() -> None:
    """A day of closed buckets, oldest first; then each as it closes. The open one is never told."""
    service = Service()
    async with service.follow() as closed:
        items = await take(closed, 288)
        assert 1 == len(service.asked)
        items += await up_to(closed, EDGE + 3 * BUCKET)
        assert now() < 1200

    assert consecutive(EDGE - DAY + BUCKET, EDGE + 3 * BUCKET) == ends(items)
    assert len(items) == len(ends(items))


@pytest.mark.parametrize("since", [EDGE - HOUR, EDGE - HOUR + BUCKET / 2, HOUR])
async def test_following_begins_where_it_is_told(since: datetime | timedelta) -> None:
    """At the bucket that holds an instant, or so far back."""
    service = Service()
    async with service.follow(since=since) as closed:
        items = await all_within(closed, 1)

    assert consecutive(EDGE - HOUR + BUCKET, EDGE) == ends(items)
    assert 1 == len(service.asked)


@pytest.mark.parametrize(("since", "hours"), [(None, 30), (None, 2), (HOUR, 2), (HOUR, 30)])
async def test_following_begins_where_it_should_even_if_the_first_answer_is_late(
    since: timedelta | None, hours: int
) -> None:
    """What it would have reached, and no longer does, is a gap."""
    service = Service()
    service.failing.add("1")
    async with service.follow(since=since) as closed:
        items = await all_within(closed, hours * 3600)
        assert all(isinstance(each, Failure) for each in items)
        service.failing.clear()
        first = await anext(closed)

    start = first.start if isinstance(first, Gap) else ends([first])[0] - BUCKET
    assert abs(start - (EDGE - (since or DAY))) <= BUCKET
    assert isinstance(first, Gap) == ((since or DAY) + hours * HOUR > DAY)


async def test_one_request_catches_up() -> None:
    """As far as the API reaches, and no further back than is needed."""
    service = Service()
    since = Checkpoint({"1": Position(EDGE - 5 * HOUR)})
    async with service.follow(since=since) as closed:
        items = await all_within(closed, 1)

    assert consecutive(EDGE - 5 * HOUR + BUCKET, EDGE) == ends(items)
    [(_, _, query)] = service.asked
    assert 5 * 60 <= query.timeframe <= 5 * 60 + 10


async def test_what_lies_further_back_is_a_gap() -> None:
    """It is told in its place, once, with its ends; a checkpoint after it lies behind it."""
    service = Service()
    since = Checkpoint({"1": Position(EDGE - 30 * HOUR, {EDGE - 30 * HOUR: "settling"})})
    async with service.follow(since=since) as closed:
        gap, first = await take(closed, 2)
        after = closed.checkpoint
    async with service.follow(since=after) as closed:
        second = await anext(closed)

    assert Gap(ONE, EDGE - 30 * HOUR, EDGE - DAY) == gap
    assert {} == after.accounts["1"].settling
    assert consecutive(EDGE - DAY + BUCKET, EDGE - DAY + 2 * BUCKET) == ends([first, second])


async def test_a_bucket_that_changed_is_told_again() -> None:
    """As revised, each time it changes while it settles, and then no more."""
    service = Service()
    async with service.follow(since=HOUR) as closed:
        await all_within(closed, 1)
        told: list[Item] = []
        for number in range(1, 9):
            service.late["1", EDGE] += 1
            told += await up_to(closed, EDGE + number * BUCKET)

    revised = [each for each in told if isinstance(each, ClosedBucket) and each.revised]
    assert [EDGE] * 3 == [each.interval.end for each in revised]
    counts = [each.interval.totals for each in revised]
    assert [2, 3, 4] == [each and each.total_resolved_conversations for each in counts]
    assert consecutive(EDGE + BUCKET, EDGE + 8 * BUCKET) == ends(told)


async def test_a_bucket_that_changed_during_a_restart_is_told_again_once() -> None:
    """What the caller had is in the checkpoint, and after the revision that is."""
    service = Service()
    async with service.follow(since=HOUR) as closed:
        await all_within(closed, 1)
        stored = closed.checkpoint.to_json()
    service.late["1", EDGE] += 1
    for expected in (1, 0):
        async with service.follow(since=Checkpoint.from_json(stored)) as closed:
            items = await all_within(closed, 1)
            stored = closed.checkpoint.to_json()
        assert [True] * expected == [
            isinstance(each, ClosedBucket) and each.revised for each in items
        ]


async def test_without_settling_nothing_is_read_again() -> None:
    """settle=0 asks only for what is new, and keeps no digest."""
    service = Service()
    async with service.follow(since=HOUR, settle=0) as closed:
        await all_within(closed, 1)
        service.late["1", EDGE] += 1
        items = await up_to(closed, EDGE + 2 * BUCKET)

    assert consecutive(EDGE + BUCKET, EDGE + 2 * BUCKET) == ends(items)
    assert len(items) == len(ends(items))
    assert {} == closed.checkpoint.accounts["1"].settling


async def test_the_order_of_agents_is_no_revision() -> None:
    """The same figures in another order are the same."""
    metrics = {2: ConversationMetrics(1), 10: ConversationMetrics(2)}
    reverse = dict(reversed(metrics.items()))
    first, again = (
        Interval(EDGE - BUCKET, EDGE, complete=True, agents=AgentBreakdown(each))
        for each in (metrics, reverse)
    )
    [(_, position)] = advance(ONE, None, [first], 1)

    assert [] == list(advance(ONE, position, [again], 1))


async def test_a_checkpoint_tells_of_what_was_taken_not_of_what_was_read() -> None:
    """It moves item by item, through answers of many buckets, and goes through JSON."""
    service = Service()
    async with service.follow(many(2)) as closed:
        await asyncio.sleep(1)
        assert 2 == len(service.asked)
        assert {} == closed.checkpoint.accounts
        seen: dict[str, datetime] = {}
        for _ in range(400):
            [item] = await take(closed, 1)
            assert isinstance(item, ClosedBucket)
            seen[item.account.id] = item.interval.end
            checkpoint = closed.checkpoint
            assert seen == {id_: each.through for id_, each in checkpoint.accounts.items()}

    assert 2 == len(service.asked)
    assert checkpoint == Checkpoint.from_json(checkpoint.to_json())
    assert 300 > len(checkpoint.to_json())


async def test_a_checkpoint_keeps_accounts_that_are_not_followed() -> None:
    """Whoever comes back to them later finds where they were."""
    others = Position(EDGE)
    async with Service().follow(since=Checkpoint({"2": others})) as closed:
        await anext(closed)

    assert {"1", "2"} == closed.checkpoint.accounts.keys()
    assert others == closed.checkpoint.accounts["2"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"accounts": 1}',
        '{"accounts": {"1": {"through": "2026-03-04T12:00:00"}}}',
        b"\xff",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str | bytes) -> None:
    """In one sentence, a time without its offset too."""
    with pytest.raises(ConfigurationError, match="this is not a checkpoint: "):
        Checkpoint.from_json(text)


ASKED = ConversationQuery(5, skill_ids=[1, 2], agent_ids="all", group_ids=[7])


@pytest.mark.parametrize(
    "other",
    [
        ConversationQuery(5, skill_ids=[1, 3], agent_ids="all", group_ids=[7]),
        ConversationQuery(5, skill_ids="all", agent_ids="all", group_ids=[7]),
        ConversationQuery(5, skill_ids=[1, 2], group_ids=[7]),
        ConversationQuery(5, skill_ids=[1, 2], agent_ids="all"),
        ConversationQuery(5, skill_ids=[1, 2], agent_ids="all", group_ids=[7], version=2),
    ],
)
async def test_a_checkpoint_of_another_query_is_refused(other: ConversationQuery) -> None:
    """Its buckets would have other sections, and settling ones would all seem to have changed."""
    service = Service()
    async with service.follow([ONE], ASKED, since=HOUR) as closed:
        await take(closed, 3)
        stored = Checkpoint.from_json(closed.checkpoint.to_json())

    for queries in ([other], [ASKED, other], [other, other]):
        with pytest.raises(ConfigurationError, match="hand back one of this query"):
            service.follow([ONE], *queries, since=stored)


async def test_a_checkpoint_of_the_same_question_is_taken_however_it_is_put() -> None:
    """Neither the time frame counts nor the order; and one of an older version passes for any."""
    service = Service()
    async with service.follow([ONE], ASKED, QUERY, since=HOUR) as closed:
        items = await all_within(closed, 1)
        stored = closed.checkpoint
    same = ConversationQuery(60, interval=5, skill_ids=[2, 1], agent_ids="all", group_ids=7)
    older = Checkpoint.from_json(
        b'{"accounts":{"1":{"through":"2026-03-04T12:00:00Z","settling":{}}}}'
    )
    for queries, since in (((QUERY, same), stored), ((SKILLS,), older)):
        async with service.follow([ONE], *queries, since=since) as closed:
            assert [] == await all_within(closed, 1)

    assert 12 == len(items)


async def test_an_exception_that_nobody_foresaw_stays_with_its_account(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is a failure of that turn, and the log has the traceback; the others go on."""
    service = Service()

    async def ask(account: Account, query: ConversationQuery) -> Reading:
        reading = await service(account, query)
        if account.id == "1" and now() < 600:
            raise OverflowError("date value out of range")
        return reading

    async with service.follow(many(3), since=BUCKET, ask=ask) as closed:
        items = await all_within(closed, 1200)

    failures = [each for each in items if isinstance(each, Failure)]
    assert {"1"} == {each.account.id for each in failures}
    assert all(type(each.error) is MsgConvError for each in failures)
    assert "account 1: an unforeseen OverflowError" in str(failures[0].error)
    assert "out of range" not in str(failures[0].error)
    assert "Traceback" in caplog.text
    for each in many(3):
        mine = ends(item for item in items if item.account == each)
        assert consecutive(mine[0], mine[-1]) == mine
        assert mine[-1] >= floor(service.now()) - BUCKET


@pytest.mark.parametrize("shown", [instant(-1e18), instant(1e18), NOON])
async def test_a_clock_that_stands_still_at_any_time_loses_nothing(shown: datetime) -> None:
    """Also at the ends of the calendar."""
    service = Service()
    since = Checkpoint({"1": Position(EDGE - HOUR)}, clocks={"1": ServiceClock(10**18)})
    async with service.follow(since=since, clock=lambda: shown) as closed:
        items = await all_within(closed, 3600)

    assert consecutive(EDGE - HOUR + BUCKET, ends(items)[-1]) == ends(items)
    assert ends(items)[-1] >= floor(NOON + HOUR) - 2 * BUCKET


@pytest.mark.parametrize("wrong", [-400 * DAY, -2 * HOUR, 2 * HOUR, 400 * DAY])
async def test_a_callers_clock_that_is_wrong_loses_nothing(wrong: timedelta) -> None:
    """Nor does it tell of a bucket that the server has not closed; it costs one request more."""
    service = Service()
    since = Checkpoint({"1": Position(EDGE - 5 * HOUR)})
    async with service.follow(since=since, clock=lambda: service.now() + wrong) as closed:
        items = await all_within(closed, 3600)

    reached = floor(NOON + HOUR)
    assert consecutive(EDGE - 5 * HOUR + BUCKET, ends(items)[-1]) == ends(items)
    assert reached - BUCKET <= ends(items)[-1] <= reached
    assert len(service.asked) <= 2 + 12


async def test_clocks_that_jump_together_neither_lose_nor_repeat() -> None:
    """As after a machine slept: forward, what is closed is read; back, it is read again."""
    service = Service()
    async with service.follow(since=BUCKET) as closed:
        items = await all_within(closed, 700)
        for step in (3 * HOUR, -2 * HOUR, timedelta(), -HOUR):
            service.moved += step
            items += await all_within(closed, 1200)
        service.moved = timedelta()
        items += await all_within(closed, 4 * 3600)

    assert consecutive(EDGE, ends(items)[-1]) == ends(items)
    assert ends(items)[-1] >= floor(service.now()) - BUCKET
    assert not any(isinstance(each, Gap) for each in items)


async def test_what_the_server_has_not_closed_is_not_told() -> None:
    """Whatever the clocks say."""
    service = Service()
    still_open = [bucket(EDGE), bucket(EDGE + BUCKET, complete=False)]

    async def ask(account: Account, query: ConversationQuery) -> Reading:
        return Reading(tuple(still_open), NOON)

    later = NOON + DAY
    async with service.follow(ask=ask, settle=0, clock=lambda: later) as closed:
        items = await all_within(closed, 900)

    assert [EDGE] == ends(items)
    assert [] == service.asked


async def test_a_thousand_accounts_are_a_trickle() -> None:
    """From the first second on, and never a burst; each account has its turn every five minutes."""
    service = Service()
    async with service.follow(many(1000), since=BUCKET) as closed:
        await all_within(closed, 1500)

    begun = [at for at, _, _ in service.asked]
    in_ten_seconds = Counter(int(at / 10) for at in begun)
    assert {*range(149)} <= in_ten_seconds.keys()
    assert max(in_ten_seconds.values()) < 60
    moments = defaultdict(list)
    for at, account_id, _ in service.asked:
        if at > 300:
            moments[account_id].append(at % 300)
    assert all(max(each) - min(each) < 0.01 for each in moments.values())
    assert {4} >= {len(each) for each in moments.values()} - {3, 5}
    assert 1000 == len(moments)


async def test_a_few_accounts_need_not_wait_for_their_turn_at_the_start() -> None:
    """The first answers are there within a second, and turns do not follow upon each other."""
    service = Service()
    async with service.follow(many(3), since=BUCKET) as closed:
        assert 3 == len(await all_within(closed, 1))
        await all_within(closed, 3600)

    for account_id in "012":
        mine = [at for at, id_, _ in service.asked if id_ == account_id]
        assert all(30 <= after - before <= 330 for before, after in pairwise(mine))


async def test_a_slow_consumer_slows_the_questions_down() -> None:
    """No more answers wait than allowed, and none is lost for it."""
    service = Service()
    items: list[Item] = []
    async with service.follow(many(20), since=HOUR, max_in_flight=3) as closed:
        for _ in range(20 * 12):
            await asyncio.sleep(60)
            asked = len({id_ for _, id_, _ in service.asked})
            taken = [each for each in items if isinstance(each, ClosedBucket)]
            whole = sum(len(ends(x for x in taken if x.account == each)) >= 12 for each in many(20))
            assert asked - whole <= 3
            items += await take(closed, 1)
        for each in many(20):
            mine = ends(item for item in items if item.account == each)
            assert mine == consecutive(mine[0], mine[-1]) if mine else True


async def test_a_failing_account_says_so_and_hurts_no_other() -> None:
    """At each of its turns, 5, 5 and then 10 minutes apart; then it catches up in one request."""
    service = Service()
    service.failing.add("1")
    async with service.follow(many(3), since=BUCKET) as closed:
        items = await all_within(closed, 3 * 3600)
        service.failing.clear()
        items += await all_within(closed, 700)
        service.failing.add("1")
        items += await all_within(closed, 3 * 3600)
        service.failing.clear()
        before = [at for at, id_, _ in service.asked if id_ == "1"]
        items += await all_within(closed, 600)
        after = [at for at, id_, _ in service.asked if id_ == "1"]
        assert 1 <= len(after) - len(before) <= 2

    failures = [each for each in items if isinstance(each, Failure)]
    assert {"1"} == {each.account.id for each in failures}
    assert all(isinstance(each.error, ServerError) for each in failures)
    assert 38 <= len(failures) <= 40
    waits = [round((later - sooner) / 300) for sooner, later in pairwise(before)]
    assert [1, 1, *[2] * 16] == waits[-18:]
    for each in many(3):
        mine = ends(item for item in items if item.account == each)
        assert consecutive(mine[0], mine[-1]) == mine
        assert mine[-1] >= floor(service.now()) - BUCKET


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"error": "none of your business"}'])
async def test_an_answer_without_intervals_is_a_failure(body: bytes) -> None:
    """Nothing is not taken for no news."""
    async with (
        serving(answering(body)) as url,
        ConversationSession(base_url=url) as session,
        session.follow([ONE], QUERY, over=timedelta()) as closed,
    ):
        items = [item async for item in closed]

    [item] = items
    assert isinstance(item, Failure)
    assert isinstance(item.error, UnexpectedResponse)
    assert "1" == item.error.account_id
    assert {} == closed.checkpoint.accounts


async def test_the_query_says_of_whom_and_following_says_when() -> None:
    """Skills, agents and groups are asked for as given, and no more time than is needed."""
    query = ConversationQuery(60, interval=5, skill_ids="all", agent_ids=[1, 2], group_ids=3)
    service = Service()
    async with service.follow([ONE], query, since=HOUR) as closed:
        await all_within(closed, 900)

    asked = [each for _, _, each in service.asked]
    assert {("all", (1, 2), (3,), 5, 1)} == {
        (each.skill_ids, each.agent_ids, each.group_ids, each.interval, each.version)
        for each in asked
    }
    assert 60 == asked[0].timeframe
    assert {each.timeframe for each in asked[1:]} <= {25, 30}


async def test_a_timeout_on_the_next_item_loses_nothing() -> None:
    """However often, and whenever it strikes."""
    service = Service()
    items: list[Item] = []
    async with service.follow(since=HOUR) as closed:
        for number in range(1000):
            try:
                async with asyncio.timeout(number % 7):
                    items += [await anext(closed)]
                    await asyncio.sleep(0)
            except TimeoutError:
                pass
        through = closed.checkpoint.accounts["1"].through

    assert consecutive(EDGE - HOUR + BUCKET, through) == ends(items)
    assert len(items) > 20


async def test_a_task_cancelled_as_an_item_arrives_leaves_it_for_the_next() -> None:
    """Between an item's arrival and its being taken nothing can be lost."""
    service = Service()
    items: list[Item] = []
    async with service.follow(since=HOUR) as closed:
        await asyncio.sleep(1)
        for count in range(6):
            task = asyncio.ensure_future(anext(closed))
            await turns(count)
            task.cancel()
            await asyncio.wait([task])
            items += [] if task.cancelled() else [task.result()]
        assert 0 < len(items) < 6
        items += await take(closed, 3)

    assert consecutive(EDGE - HOUR + BUCKET, ends(items)[-1]) == ends(items)


async def test_catching_up_leaves_others_their_time() -> None:
    """However much there is to take at once."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async with Service().follow() as closed, anyio.create_task_group() as group:
        await take(closed, 1)
        group.start_soon(tick)
        await take(closed, 280)
        group.cancel_scope.cancel()

    assert ticks > 250


class MineError(Exception):
    pass


async def test_leaving_ends_all_that_runs() -> None:
    """With questions in flight and answers waiting; the caller's own exception is itself."""
    service = Service()
    async with service.follow(many(10), since=BUCKET, max_in_flight=5) as closed:
        await anext(closed)
        service.delay = 100
        await asyncio.sleep(2)
        assert background_tasks()
    assert (set(), 0) == (background_tasks(), service.running)
    with pytest.raises(StopAsyncIteration):
        await anext(closed)

    error = MineError()
    with pytest.raises(MineError) as caught:  # noqa: PT012 - it comes out of the context
        async with service.follow(many(10)):
            await asyncio.sleep(4)
            assert service.running
            raise error
    assert error is caught.value
    assert (set(), 0) == (background_tasks(), service.running)


async def test_cancellation_from_outside_goes_through() -> None:
    """It leaves nothing running."""
    service = Service()
    service.delay = 100
    with anyio.move_on_after(50) as scope:
        async with service.follow(many(10)) as closed:
            await anext(closed)

    assert scope.cancelled_caught
    assert (set(), 0) == (background_tasks(), service.running)


async def test_one_who_still_waits_when_it_is_left_is_told_the_end() -> None:
    """A consumer in another task does not wait for ever."""
    service = Service()
    service.delay = 100
    async with service.follow() as closed:
        task = asyncio.create_task(all_within(closed, 1000))
        await asyncio.sleep(1)

    assert [] == await task
    assert now() < 10


async def test_closing_the_session_ends_the_following() -> None:
    """It comes out as an error: an endless iteration has no other end."""
    async with Sandbox(accounts=2) as sandbox:
        session = ConversationSession(base_url=sandbox.url)
        with pytest.raises(SessionUnusable):  # noqa: PT012 - it comes out of the context
            async with session, session.follow([account(sandbox)], QUERY, since=BUCKET) as closed:
                async for _ in closed:
                    await session.close()

    assert set() == background_tasks()


async def test_a_session_that_is_not_open_cannot_follow() -> None:
    """It is said before anything is asked."""
    with pytest.raises(SessionUnusable):
        ConversationSession(base_url="http://localhost").follow([ONE], QUERY)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"accounts": []}, "there is no account"),
        ({"accounts": [ONE, ONE]}, "account 1 is given 2 times"),
        ({"since": timedelta()}, "24 hours"),
        ({"since": timedelta(hours=25)}, "24 hours"),
        ({"since": NOON.replace(tzinfo=None)}, "naive"),
        ({"settle": -1}, "settle=-1"),
        ({"settle": 289}, "settle=289"),
        ({"max_in_flight": 0}, "max_in_flight=0"),
        ({"over": -BUCKET}, "over="),
        ({"clock": lambda: NOON.replace(tzinfo=None)}, "clock: the time"),
    ],
)
async def test_what_cannot_work_is_refused(given: dict[str, Any], said: str) -> None:
    """Before anything is asked."""
    with pytest.raises(ConfigurationError, match=said):
        Service().follow(**given)


async def test_an_interval_that_is_no_bucket_is_refused() -> None:
    """Following could not do what the query asks for."""
    with pytest.raises(InvalidQuery, match="interval=15: "):
        Service().follow([ONE], ConversationQuery(60, interval=15))
