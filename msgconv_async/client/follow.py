"""Many accounts over time: every closed five-minute bucket of each, once, in order.

What is a bucket's turn to be handed out follows from the server's answers and from what was taken
(`checkpoint.advance`). Clocks decide only when an account is asked, and how far back: a clock that
is wrong or jumps makes a question come early or late, or twice, and loses nothing.

Every account has a turn each five minutes, at a moment that follows from its id, so that many are a
steady trickle. A turn asks, and ends when all that came of it was taken: so no more is read than is
consumed, and a checkpoint knows of nothing that the caller has not had.
"""

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple, Self, TypeAlias

import anyio
import anyio.lowlevel

from msgconv_async.client.account import Account
from msgconv_async.client.checkpoint import (
    DAY,
    Checkpoint,
    Failure,
    Item,
    Position,
    Step,
    advance,
)
from msgconv_async.client.fanout import background
from msgconv_async.errors import (
    ConfigurationError,
    InvalidQuery,
    MsgConvError,
    SessionUnusable,
    UnexpectedResponse,
)
from msgconv_async.protocol.buckets import BUCKET, floor
from msgconv_async.protocol.query import MAX_TIMEFRAME, MIN_INTERVAL, ConversationQuery
from msgconv_async.protocol.report import ConversationReport, Interval

Since: TypeAlias = Checkpoint | datetime | timedelta | None
Ask: TypeAlias = Callable[[Account, ConversationQuery], Awaitable[ConversationReport]]

SETTLE = 3
"""Closed buckets that are read again, by default: a quarter of an hour."""

_PERIOD = BUCKET.total_seconds()

_AT_START = 0.3
"""Seconds from one account to the next at the start, while that is quicker than their turns: the
pace at which a thousand accounts are asked ever after."""

_APART = 30.0
"""Seconds: a turn that would come sooner after the one before is left out. The wall clock and the
event loop's never agree to the last digit, and a turn may be waited for a little too short."""


def utc_now() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)


class _Batch(NamedTuple):
    """What came of one turn, not all of it taken."""

    steps: deque[Step]
    taken: anyio.Event


class Following:
    """An iterator of what comes of following accounts: what `session.follow` hands out.

    Cancelling an iteration, with a timeout for example, loses nothing: the next takes up there.

    Attributes:
        turns: How many turns are over, all that came of them taken.
    """

    def __init__(
        self,
        ask: Ask,
        accounts: tuple[Account, ...],
        queries: tuple[ConversationQuery, ...],
        *,
        since: Since,
        settle: int,
        revise: bool,
        over: timedelta | None,
        max_in_flight: int,
        clock: Callable[[], datetime],
    ) -> None:
        self.turns = 0
        self._ask = ask
        self._accounts = accounts
        self._queries = queries
        self._settle = settle
        self._revise = revise
        self._over = over
        self._slots = anyio.CapacityLimiter(max_in_flight)
        self._clock = clock
        self._age = since if isinstance(since, timedelta) else DAY
        self._positions: dict[str, Position] = {}
        if isinstance(since, Checkpoint):
            self._positions |= since.accounts
        elif isinstance(since, datetime):
            self._positions |= {each.id: Position(floor(since)) for each in accounts}
        self._begun: dict[str, float] = {}
        self._ahead: dict[str, timedelta] = {}
        self._ready: deque[_Batch] = deque()
        self._something = anyio.Event()
        self._ended = False

    @property
    def checkpoint(self) -> Checkpoint:
        """Where it stands: after the item taken last. Store it once that one is dealt with.

        It holds every account that was taken from, and every other that ``since`` told of.
        """
        return Checkpoint(dict(self._positions))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        """Wait for the next item and take it."""
        await anyio.lowlevel.checkpoint()
        while not self._ready and not self._ended:
            await self._something.wait()
        if self._ended:
            raise StopAsyncIteration
        # From here on nothing waits: what is taken is either returned or was not taken.
        batch = self._ready[0]
        item, after = batch.steps.popleft()
        if after is not None:
            self._positions[item.account.id] = after
        if not batch.steps:
            self._ready.popleft()
            batch.taken.set()
        if not self._ready:
            self._something = anyio.Event()
        return item

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[Self]:
        """Follow while inside; leaving ends all that runs."""
        async with background() as group:
            for account in self._accounts:
                group.start_soon(self._follow if self._over is None else self._once, account)
            try:
                yield self
            finally:
                self._end()

    def _end(self) -> None:
        self._ended = True
        self._something.set()

    async def _follow(self, account: Account) -> None:
        phase = phase_of(account.id)
        quicker = min(1.0, len(self._accounts) * _AT_START / _PERIOD)
        await anyio.sleep(until_turn(phase, self._clock()) * quicker)
        while True:
            begun = anyio.current_time()
            next_turn = begun + until_turn(phase, self._clock(), _APART)
            await self._turn(account)
            await anyio.sleep_until(next_turn)

    async def _once(self, account: Account) -> None:
        assert self._over is not None  # noqa: S101 - or it would follow without end
        await anyio.sleep(phase_of(account.id) / _PERIOD * self._over.total_seconds())
        await self._turn(account)
        if self.turns == len(self._accounts):
            self._end()

    async def _turn(self, account: Account) -> None:
        """Ask, and wait until all that came of it is taken."""
        # Held until then: so much is in flight, or waits in memory, and no more.
        async with self._slots:
            if steps := deque(await self._steps(account)):
                batch = _Batch(steps, anyio.Event())
                self._ready.append(batch)
                self._something.set()
                await batch.taken.wait()
            self.turns += 1

    async def _steps(self, account: Account) -> Iterable[Step]:
        try:
            intervals = await self._read(account)
        except SessionUnusable:
            raise  # nothing will ever be read again, of no account
        except MsgConvError as error:
            return [Step(Failure(account, error), None)]
        position = self._positions.get(account.id)
        return advance(account, position, intervals, self._settle, revise=self._revise)

    async def _read(self, account: Account) -> tuple[Interval, ...]:
        """Ask as far back as is needed, or as the API reaches."""
        position = self._positions.get(account.id)
        if position is None:
            return await self._begin(account)
        timeframe = position.timeframe(self._server_now(account))
        intervals = await self._read_back(account, timeframe)
        if intervals[0].start > position.oldest and timeframe < MAX_TIMEFRAME:
            # The clocks misled us, or the machine slept.
            intervals = await self._read_back(account, MAX_TIMEFRAME)
        return intervals

    async def _begin(self, account: Account) -> tuple[Interval, ...]:
        """Ask as far back as was wanted when it was asked first, however late it answers."""
        begun = self._begun.setdefault(account.id, anyio.current_time())
        late = timedelta(seconds=anyio.current_time() - begun)
        wanted = -(self._age // -BUCKET) + late // BUCKET
        reached = min(wanted, DAY // BUCKET)
        intervals = await self._read_back(account, reached * MIN_INTERVAL)
        if wanted > reached:
            start = intervals[0].start - (wanted - reached) * BUCKET
            self._positions[account.id] = Position(start)
        return intervals

    async def _read_back(self, account: Account, timeframe: int) -> tuple[Interval, ...]:
        answers = []
        for query in self._queries:
            report = await self._ask(account, replace(query, timeframe=timeframe))
            if not report.intervals:
                raise UnexpectedResponse(
                    "the answer has no intervals", where="$", account_id=account.id
                )
            elapsed = timedelta(seconds=anyio.current_time())
            self._ahead[account.id] = report.intervals[-1].end - _EPOCH - elapsed
            answers.append(report.intervals)
        if not (intervals := _side_by_side(answers)):
            raise UnexpectedResponse(
                "the answers have no interval in common", where="$", account_id=account.id
            )
        return intervals

    def _server_now(self, account: Account) -> datetime:
        """Return what the server's clock may show at most; at first the client's is believed."""
        ahead = self._ahead.get(account.id)
        if ahead is None:
            return self._clock()
        return _EPOCH + ahead + timedelta(seconds=anyio.current_time())


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _side_by_side(answers: Sequence[tuple[Interval, ...]]) -> tuple[Interval, ...]:
    """Put the sections of several answers into one interval each, where all of them have it."""
    first, *others = answers
    for other in others:
        by_end = {each.end: each for each in other}
        first = tuple(
            Interval(
                start=each.start,
                end=each.end,
                complete=each.complete and beside.complete,
                skills=each.skills or beside.skills,
                agents=each.agents or beside.agents,
                totals=each.totals or beside.totals,
            )
            for each in first
            if (beside := by_end.get(each.end)) is not None
        )
    return first


def follow(
    ask: Ask,
    accounts: Iterable[Account],
    queries: Sequence[ConversationQuery],
    *,
    since: Since,
    settle: int,
    revise: bool,
    over: timedelta | None,
    max_in_flight: int,
    clock: Callable[[], datetime],
) -> AbstractAsyncContextManager[Following]:
    """Check what `session.follow` was given, and return what follows."""
    accounts = _each_once(accounts)
    queries = tuple(_of_buckets(each) for each in queries)
    if not queries:
        raise ConfigurationError("there is no query to follow with: give at least one")
    if isinstance(since, timedelta) and not timedelta() < since <= DAY:
        raise ConfigurationError(f"since={since}: the API reaches 24 hours back, so above 0 to 24")
    if isinstance(since, datetime) and since.utcoffset() is None:
        raise ConfigurationError(f"since={since.isoformat()} is naive: give an aware datetime")
    if settle < 0 or settle > DAY // BUCKET:
        raise ConfigurationError(f"settle={settle!r}: it must be 0 to {DAY // BUCKET} buckets")
    if over is not None and over < timedelta():
        raise ConfigurationError(f"over={over}: it must be 0 seconds or more, or None")
    if max_in_flight < 1:
        raise ConfigurationError(f"max_in_flight={max_in_flight!r}: it must be 1 or more")
    if clock().utcoffset() is None:
        raise ConfigurationError("clock: the time it tells must be aware, such as in UTC")
    following = Following(
        ask,
        accounts,
        queries,
        since=since,
        settle=settle,
        revise=revise,
        over=over,
        max_in_flight=max_in_flight,
        clock=clock,
    )
    return following._running()  # noqa: SLF001 - it is of this module, and of nobody's else


def _each_once(accounts: Iterable[Account]) -> tuple[Account, ...]:
    accounts = tuple(accounts)
    if not accounts:
        raise ConfigurationError("there is no account to follow: give at least one")
    for account_id, times in Counter(each.id for each in accounts).items():
        if times > 1:
            raise ConfigurationError(f"account {account_id} is given {times} times: follow it once")
    return accounts


def _of_buckets(query: ConversationQuery) -> ConversationQuery:
    if query.interval not in {None, MIN_INTERVAL}:
        raise InvalidQuery(
            "interval",
            query.interval,
            f"following hands out buckets of {MIN_INTERVAL} minutes: leave it out",
        )
    # With an interval, a time frame must be a multiple of it: one bucket does until a turn knows.
    return replace(query, timeframe=MIN_INTERVAL, interval=MIN_INTERVAL)


def phase_of(account_id: str) -> float:
    """Return an account's moment in every five minutes, in seconds; they are evenly spread."""
    digest = blake2b(account_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 * _PERIOD


def until_turn(phase: float, now: datetime, at_least: float = 0.0) -> float:
    """Return the seconds until an account's next turn, or the one after if that comes too soon."""
    wait = (phase - now.timestamp()) % _PERIOD
    return wait if wait >= at_least else wait + _PERIOD
