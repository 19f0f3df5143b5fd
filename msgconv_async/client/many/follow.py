"""Many accounts over time: every closed five-minute bucket of each, once, in order.

What is a bucket's turn to be handed out follows from the server's answers and from what was taken
(`checkpoint.advance`). An answer whose own clock cannot be right is refused (`service_clock`). Our
clock decides only when an account is asked, and how far back: one that is wrong or jumps makes a
question come early or late, or twice, and loses nothing.

Every account has a turn each five minutes, at a moment that follows from its id, so that many are a
steady trickle; while its service fails, the turns are further apart. A turn asks, and ends when all
that came of it was taken: so no more is read than is consumed, and a checkpoint knows of nothing
that the caller has not had.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple, Self, TypeAlias

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from msgspec.structs import replace as replace_struct

from msgconv_async import checks
from msgconv_async.client.access.account import Account
from msgconv_async.client.many.checkpoint import (
    REACH,
    Checkpoint,
    Failure,
    Item,
    Move,
    Position,
    Step,
    advance,
    digest_of,
)
from msgconv_async.client.many.fan_out import background, unforeseen
from msgconv_async.client.many.follow_arguments import (
    check_settings,
    check_since,
    each_once,
    of_buckets,
)
from msgconv_async.client.many.service_clock import ClockJudge, Now, instant
from msgconv_async.errors import (
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    MsgConvError,
    RateLimited,
    ServerError,
    SessionUnusable,
    UnexpectedResponse,
)
from msgconv_async.protocol.buckets import BUCKET, floor
from msgconv_async.protocol.query import MAX_TIMEFRAME, MIN_INTERVAL, ConversationQuery
from msgconv_async.protocol.report import Interval, Unreadable

Since: TypeAlias = Checkpoint | datetime | timedelta | None


class Reading(NamedTuple):
    """What an answer says of its intervals, and when.

    Attributes:
        intervals: Oldest first, without a hole; at least one.
        date: The answer's ``Date``, if it had one, aware.
    """

    intervals: tuple[Interval | Unreadable, ...]
    date: datetime | None


Ask: TypeAlias = Callable[[Account, ConversationQuery], Awaitable[Reading]]

SETTLE = 3
"""Closed buckets that are read again, by default: a quarter of an hour."""

_PERIOD = BUCKET.total_seconds()

_AT_START = 0.3
"""Seconds from one account to the next at the start, while that is quicker than their turns: the
pace at which a thousand accounts are asked ever after."""

_BACKOFF = (0.0, 120.0, 240.0, 480.0)
"""Seconds between the turns of an account, by how many failed in a row: LivePerson asks for 2, 4
and 8 minutes in longer outages. They grow no further: a service that is back is to be read soon."""

_OUTAGE = (ServerError, ConnectionFailed, RateLimited, DeadlineExceeded)

_AGREE = 60.0
"""Seconds by which clocks may differ and still agree, where no bucket is read again."""

_AHEAD = 2 * BUCKET
"""How far a position may be ahead of an answer before it is reported."""

_MINUTE = timedelta(minutes=1)

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


class _Followed(NamedTuple):
    """An account that is followed, and what ends that."""

    account: Account
    scope: anyio.CancelScope


class Moves(NamedTuple):
    """What moved since a moment, and what to ask with the next time.

    Attributes:
        moves: Where each account that moved stands now, in the order in which they moved last.
        until: The number of the last of them.
    """

    moves: list[Move]
    until: int


class _Believed(NamedTuple):
    """The part of an answer, or of the answers to several queries, that is believed.

    Attributes:
        intervals: Oldest first.
        closed: The end of the newest closed one.
        certain: Whether no plausible clock shows a later time.
    """

    intervals: tuple[Interval | Unreadable, ...]
    closed: datetime
    certain: bool


class Following:
    """An iterator of what comes of following accounts: what `session.follow` hands out.

    Cancelling an iteration, with a timeout for example, loses nothing: the next takes up there.

    Attributes:
        turns: How many turns are over, all that came of them taken.
    """

    def __init__(
        self,
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
    ) -> None:
        accounts = each_once(accounts)
        self._followed = {each.id: _Followed(each, anyio.CancelScope()) for each in accounts}
        self._queries = queries = of_buckets(queries)
        self._digest = digest_of(queries)
        check_since(since, self._digest)
        check_settings(settle, revise, over, max_in_flight, clock)
        self.turns = 0
        self._ask = ask
        self._since = since
        self._settle = settle
        self._revise = revise
        self._over = over
        self._slots = anyio.CapacityLimiter(max_in_flight)
        self._clock = clock
        self._age = since if isinstance(since, timedelta) else REACH
        self._positions: dict[str, Position] = {}
        self._planned: set[str] = set()  # whose position only says where to begin
        if isinstance(since, Checkpoint):
            self._positions |= since.accounts
        self._begun: dict[str, float] = {}
        self._clocks = dict(since.clocks) if isinstance(since, Checkpoint) else {}
        self._judges: dict[str, ClockJudge] = {}
        self._changes = 0
        self._changed: dict[str, int] = {}  # by account the number of its last change, oldest first
        for account_id in sorted(self._positions | self._clocks, key=phase_of):
            self._change(account_id)
        for account_id in sorted(self._followed, key=phase_of):
            self._prepare(account_id)
        self._group: TaskGroup | None = None
        self._free_at = -math.inf
        self._taken_from: str | None = None
        self._ready: deque[_Batch] = deque()
        self._something = anyio.Event()
        self._ended = False

    @property
    def checkpoint(self) -> Checkpoint:
        """Where it stands: after the item taken last. Store it once that one is dealt with.

        It holds every account that was taken from, also one that was removed since, and every other
        that ``since`` told of. So it costs what exists: of many accounts, store what moved
        (`CheckpointStore`, or ``moved``).
        """
        return Checkpoint(dict(self._positions), self._digest, dict(self._clocks))

    @property
    def moved(self) -> Move | None:
        """The position of the last item's account after that item; None before the first item.

        Store it once the item is dealt with. `Checkpoint.of` makes a checkpoint of the last move of
        each account.
        """
        return None if self._taken_from is None else self._move(self._taken_from)

    def moves(self, after: int = 0) -> Moves:
        """Return where all accounts stand that moved since this was asked the last time.

        What ``since`` told of has moved when it is asked for the first time.

        Args:
            after: What the answer before gave as ``until``; 0 at first.

        Raises:
            ConfigurationError: ``after`` is no whole number of 0 or more.
        """
        checks.whole("after", after, 0)
        found = []
        for account_id, number in reversed(self._changed.items()):
            if number <= after:
                break
            found.append(self._move(account_id))
        return Moves(found[::-1], self._changes)

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The accounts that are followed, in the order in which they were given or added."""
        return tuple(each.account for each in self._followed.values())

    def add(self, account: Account) -> None:
        """Follow one more account.

        It goes on where the checkpoint says that it stands, as one that was removed does. Otherwise
        it begins where it would have begun if it had been given to ``follow``. It is asked at once;
        of many that are added together, one each 0.3 seconds.

        Args:
            account: The account. For one with new credentials, remove the old one first.

        Raises:
            ConfigurationError: It is no `Account` or is followed already, or ``over`` was given.
            SessionUnusable: Following has ended.
        """
        checks.instance("account", account, Account, "an Account")
        group = self._changeable()
        if account.id in self._followed:
            raise ConfigurationError(f"account {account.id} is followed already: remove it first")
        followed = self._followed[account.id] = _Followed(account, anyio.CancelScope())
        self._prepare(account.id)
        now = anyio.current_time()
        wait = max(0.0, self._free_at - now)
        self._free_at = now + wait + _AT_START
        group.start_soon(self._follow, followed, wait)

    def remove(self, account_id: str) -> None:
        """Follow an account no longer, from now on: no item of it is handed out any more.

        What was not taken of it is not lost. The checkpoint keeps where the account stands, so that
        it goes on there when it is added again, by this run or by another.

        Args:
            account_id: The account's id.

        Raises:
            ConfigurationError: It is not followed, or ``over`` was given.
            SessionUnusable: Following has ended.
        """
        checks.instance("account_id", account_id, str, "the id of an account, as a string")
        self._changeable()
        if (followed := self._followed.pop(account_id, None)) is None:
            raise ConfigurationError(f"account {account_id} is not followed")
        followed.scope.cancel()
        self._ready = deque(
            batch for batch in self._ready if batch.steps[0].item.account.id != account_id
        )
        if not self._ready:
            self._something = anyio.Event()

    def _changeable(self) -> TaskGroup:
        """Return where accounts are followed, if their number may change."""
        if self._over is not None:
            raise ConfigurationError(
                "over: what gives every account one turn and then ends keeps its accounts: begin"
                " anew with the others"
            )
        if self._group is None or self._ended:
            raise SessionUnusable("this following has ended: begin anew with 'session.follow'")
        return self._group

    def _prepare(self, account_id: str) -> None:
        """See to all that a turn of an account needs."""
        if isinstance(self._since, datetime) and account_id not in self._positions:
            self._positions[account_id] = Position(floor(self._since))
            self._planned.add(account_id)
            self._change(account_id)
        if account_id not in self._judges:
            # A bucket that is closed a little early settles, and is read again.
            tolerance = _PERIOD if self._settle else _AGREE
            self._judges[account_id] = ClockJudge(self._clocks.get(account_id), tolerance)

    def _move(self, account_id: str) -> Move:
        position, clock = self._positions.get(account_id), self._clocks.get(account_id)
        return Move(account_id, self._digest, position, clock)

    def _change(self, account_id: str) -> None:
        self._changes += 1
        self._changed.pop(account_id, None)
        self._changed[account_id] = self._changes

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
            self._planned.discard(item.account.id)
            self._change(item.account.id)
        self._taken_from = item.account.id
        if not batch.steps:
            self._ready.popleft()
            batch.taken.set()
        if not self._ready:
            self._something = anyio.Event()
        return item

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Follow while inside; leaving ends all that runs. `session.follow` enters it, once."""
        async with background() as group:
            self._group = group
            for followed in self._followed.values():
                if self._over is None:
                    group.start_soon(self._follow, followed, self._first_wait(followed.account))
                else:
                    group.start_soon(self._once, followed, self._over)
            try:
                yield self
            finally:
                self._end()

    def _end(self) -> None:
        self._ended = True
        self._something.set()

    def _first_wait(self, account: Account) -> float:
        """Return the seconds until the first turn of an account that was given at the start."""
        quicker = min(1.0, len(self._followed) * _AT_START / _PERIOD)
        return until_turn(phase_of(account.id), self._clock()) * quicker

    async def _follow(self, followed: _Followed, wait: float) -> None:
        phase, failed = phase_of(followed.account.id), 0
        with followed.scope:
            await anyio.sleep(wait)
            while True:
                begun, at = anyio.current_time(), self._clock()
                failed = failed + 1 if await self._turn(followed) else 0
                apart = max(_APART, _BACKOFF[min(failed, len(_BACKOFF) - 1)])
                await anyio.sleep_until(begun + until_turn(phase, at, apart))

    async def _once(self, followed: _Followed, over: timedelta) -> None:
        await anyio.sleep(phase_of(followed.account.id) / _PERIOD * over.total_seconds())
        await self._turn(followed)
        if self.turns == len(self._followed):
            self._end()

    async def _turn(self, followed: _Followed) -> bool:
        """Ask, and wait until all that came of it is taken; tell whether the service failed."""
        # Held until then: so much is in flight, or waits in memory, and no more.
        async with self._slots:
            steps = deque(await self._steps(followed.account))
            if followed.scope.cancel_called:
                return False  # it was removed in the very moment of the answer
            failed = len(steps) == 1 and _is_outage(steps[0].item)
            if steps:
                batch = _Batch(steps, anyio.Event())
                self._ready.append(batch)
                self._something.set()
                await batch.taken.wait()
            self.turns += 1
            return failed

    async def _steps(self, account: Account) -> Sequence[Step]:
        """Return the steps that an answer leads to. Any failure is a step of this account alone."""
        try:
            return await self._read(account)
        except SessionUnusable:
            raise  # nothing will ever be read again, of no account
        except MsgConvError as error:
            return [Step(Failure(account, error), None)]
        except Exception as error:  # noqa: BLE001 - it is not to end all other accounts
            return [Step(Failure(account, unforeseen(account, error)), None)]

    async def _read(self, account: Account) -> Sequence[Step]:
        """Ask as far back as is needed, or as the API reaches."""
        position = self._positions.get(account.id)
        if position is None:
            answer = await self._begin(account)
            return self._advance(account, self._positions.get(account.id), answer)
        timeframe = position.timeframe(self._service_time(account))
        answer = await self._read_back(account, timeframe)
        oldest = position.oldest
        if position.through > answer.closed + _AHEAD and account.id not in self._planned:
            return await self._wait_or_return(account, position, answer)
        if answer.intervals[-1].end - timeframe * _MINUTE > oldest and timeframe < MAX_TIMEFRAME:
            # The clocks misled us, or the machine slept.
            answer = await self._read_back(account, MAX_TIMEFRAME)
        return self._advance(account, position, answer)

    def _advance(
        self, account: Account, position: Position | None, answer: _Believed
    ) -> list[Step]:
        return list(advance(account, position, answer.intervals, self._settle, revise=self._revise))

    async def _wait_or_return(
        self, account: Account, position: Position, answer: _Believed
    ) -> list[Step]:
        """Deal with a position that the service's time has not reached.

        Either the service's clock is behind, and it is waited for. Or buckets were taken before
        their time, from an answer that should not have been believed. If that is certain, they are
        taken again. A consumer that cannot take anything back waits until they are over, unless
        that is far.
        """
        through = f"{position.through.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        said = f"the answer ends at {answer.closed:%Y-%m-%d %H:%M} UTC, before {through}"
        far = position.through > answer.closed + REACH
        if not answer.certain or not (self._revise or far):
            what = f"{said}, up to where buckets were taken already: it is waited for"
            return [Step(Failure(account, _unexpected(account, what)), None)]
        if self._revise:
            answer = await self._read_back(account, MAX_TIMEFRAME)
            start = answer.intervals[0].start
            early = answer.closed if far else max(position.through, position.early or start)
            what = (
                f"{said}, up to where buckets were taken before their time: those of the last 24"
                " hours come again"
            )
        else:
            start, early = answer.closed - self._settle * BUCKET, None
            what = (
                f"{said}, up to where it was taken by a clock that was wrong: it goes on from"
                f" {start:%Y-%m-%d %H:%M} UTC"
            )
        back = Position(start, early=early)
        told = Step(Failure(account, _unexpected(account, what)), back)
        return [told, *self._advance(account, back, answer)]

    async def _begin(self, account: Account) -> _Believed:
        """Ask as far back as was wanted when it was asked first, however late it answers."""
        begun = self._begun.setdefault(account.id, anyio.current_time())
        late = timedelta(seconds=anyio.current_time() - begun)
        wanted = -(self._age // -BUCKET) + late // BUCKET
        reached = min(wanted, REACH // BUCKET)
        answer = await self._read_back(account, reached * MIN_INTERVAL)
        if wanted > reached:
            start = answer.intervals[0].start - (wanted - reached) * BUCKET
            self._positions[account.id] = Position(start)
            self._change(account.id)
        return answer

    async def _read_back(self, account: Account, timeframe: int) -> _Believed:
        """Ask every query so far back, and believe the answers.

        Raises:
            UnexpectedResponse: An answer tells a time that nothing makes plausible, or the answers
                have no interval in common.
        """
        position = self._positions.get(account.id)
        taken = position.through if position and account.id not in self._planned else None
        belief = self._judges[account.id]
        answers, certain = [], True
        for query in self._queries:
            intervals, date = await self._ask(account, replace(query, timeframe=timeframe))
            newest = intervals[-1]
            closed = newest.end if newest.complete else newest.start
            verdict = belief.judge(closed, date, self._now(), taken)
            if self._clocks.get(account.id) != belief.stored:
                self._clocks[account.id] = belief.stored
                self._change(account.id)
            if verdict.refusal:
                raise _unexpected(account, verdict.refusal)
            answers.append(intervals)
            certain = certain and verdict.certain
        if not (side_by_side := _side_by_side(answers)):
            raise _unexpected(account, "the answers have no interval in common")
        newest = side_by_side[-1]
        return _Believed(side_by_side, newest.end if newest.complete else newest.start, certain)

    def _now(self) -> Now:
        return Now(self._clock().timestamp(), anyio.current_time())

    def _service_time(self, account: Account) -> datetime:
        """Return what the server's clock may show at most; at first the client's is believed."""
        return instant(self._judges[account.id].service_time(self._now()))


def _is_outage(item: Item) -> bool:
    return isinstance(item, Failure) and isinstance(item.error, _OUTAGE)


def _unexpected(account: Account, what: str) -> UnexpectedResponse:
    return UnexpectedResponse(what, where="$.metricsByIntervals", account_id=account.id)


def _side_by_side(
    answers: Sequence[tuple[Interval | Unreadable, ...]],
) -> tuple[Interval | Unreadable, ...]:
    """Put the sections of several answers into one interval each, where all of them have it."""
    first, *others = answers
    for other in others:
        by_end = {interval.end: interval for interval in other}
        first = tuple(
            _beside(interval, by_end[interval.end]) for interval in first if interval.end in by_end
        )
    return first


def _beside(one: Interval | Unreadable, other: Interval | Unreadable) -> Interval | Unreadable:
    complete = one.complete and other.complete
    if isinstance(one, Unreadable):
        return replace_struct(one, complete=complete)
    if isinstance(other, Unreadable):
        return replace_struct(other, start=one.start, complete=complete)
    return Interval(
        start=one.start,
        end=one.end,
        complete=complete,
        skills=one.skills or other.skills,
        agents=one.agents or other.agents,
        totals=one.totals or other.totals,
    )


def phase_of(account_id: str) -> float:
    """Return an account's moment in every five minutes, in seconds; they are evenly spread."""
    digest = blake2b(account_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 * _PERIOD


def until_turn(phase: float, now: datetime, at_least: float = 0.0) -> float:
    """Return the seconds until an account's next turn, or the first that is so far away."""
    wait = (phase - now.timestamp()) % _PERIOD
    return wait + max(0, math.ceil((at_least - wait) / _PERIOD)) * _PERIOD
