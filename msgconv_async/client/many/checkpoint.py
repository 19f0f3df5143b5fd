"""Where following stands, what it hands out, and how an answer moves it on. No I/O, no clock.

An account's position is the end of the last bucket that was taken, a digest of each bucket that is
still settling, and the buckets before it that could not be taken. Events may reach a settling
bucket late, so it is read again and compared. A bucket that an answer left out, or that could not
be read, is reported once as a failure. It is asked for again at each turn, until an answer has it
or it lies too far back. Every item comes with the position that holds once it is taken, so that
nothing moves before somebody has it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeAlias

import msgspec

from msgconv_async import checks
from msgconv_async.client.access.account import Account
from msgconv_async.client.many.service_clock import ServiceClock
from msgconv_async.errors import ConfigurationError, MsgConvError, UnexpectedResponse
from msgconv_async.protocol.buckets import BUCKET, floor
from msgconv_async.protocol.query import MAX_TIMEFRAME, ConversationQuery
from msgconv_async.protocol.report import Interval, Unreadable

_Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class ClosedBucket(msgspec.Struct, frozen=True):
    """Five minutes of an account that are over.

    Attributes:
        account: Whose.
        interval: When, and the sections asked for; always complete.
        revised: True if this bucket was handed out before and the server changed it since: it
            takes the place of what came then.
    """

    account: Account
    interval: Interval
    revised: bool = False


class Gap(msgspec.Struct, frozen=True):
    """A stretch of an account's time that was not read and, by now, cannot be.

    Attributes:
        account: Whose.
        start: The first instant missing, aware UTC.
        end: The first instant no longer missing, aware UTC.
    """

    account: Account
    start: datetime
    end: datetime

    def __str__(self) -> str:
        start, end = (f"{edge.astimezone(UTC):%Y-%m-%d %H:%M}" for edge in (self.start, self.end))
        return f"account {self.account.id}: {start} to {end} UTC lies too far back to be read"


class Failure(msgspec.Struct, frozen=True):
    """An account, or some of its buckets, could not be read this time.

    It is asked again at its next turn, and catches up.

    Attributes:
        account: Whose turn it was.
        error: What went wrong, after every retry.
    """

    account: Account
    error: MsgConvError


Item: TypeAlias = ClosedBucket | Gap | Failure


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far one account was taken.

    Attributes:
        through: The end of what was taken, aware UTC.
        settling: A digest of each bucket that will be read again, by its end.
        missing: The ends of buckets up to ``through`` that could not be taken, oldest first.
        early: Buckets that end after ``through`` and up to here were handed out before their time,
            and come again as revised ones; None if there are none.
    """

    through: _Aware
    settling: dict[_Aware, str] = {}
    missing: tuple[_Aware, ...] = ()
    early: _Aware | None = None

    @property
    def oldest(self) -> datetime:
        """Where the next answer must start, or earlier."""
        ends = [*self.settling, *self.missing]
        return min([self.through, *(end - BUCKET for end in ends)])

    def timeframe(self, now: datetime) -> int:
        """Return the minutes to ask for, with a bucket to spare.

        Args:
            now: What the server's clock may show at the most, aware.
        """
        buckets = 1 - (self.oldest - now) // BUCKET
        return max(1, min(buckets, REACH // BUCKET)) * (BUCKET // _MINUTE)


class _Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value that is kept as text."""

    _called: ClassVar[str]

    def to_json(self) -> str:
        """Return it as one line of JSON, of some 280 bytes for each account."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote, of this version or an older one.

        Raises:
            ConfigurationError: It is something else.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeError, TypeError) as error:
            raise ConfigurationError(f"this is not {cls._called}: {error}") from None


class Move(_Stored, frozen=True, omit_defaults=True):
    """Where one account stands: the part of a checkpoint that an item changed.

    A store that keeps the latest move of each account has what `Checkpoint.of` makes a checkpoint
    of. So it writes what changed, and not what exists.

    Attributes:
        account_id: Whose.
        query: A digest of the queries that are followed, as in `Checkpoint`.
        position: How far the account was taken; None if nothing of it was taken yet.
        clock: What is known of its service's clock; None if that is nothing.
    """

    _called = "a move of a checkpoint"

    account_id: str
    query: str
    position: Position | None = None
    clock: ServiceClock | None = None

    def __post_init__(self) -> None:
        checks.instance("account_id", self.account_id, str, "the id of an account, as a string")
        checks.instance("query", self.query, str, "a digest, as a string")
        if self.position is not None:
            checks.instance("position", self.position, Position, "a Position, or None")
        if self.clock is not None:
            checks.instance("clock", self.clock, ServiceClock, "a ServiceClock, or None")


class Checkpoint(_Stored, frozen=True, omit_defaults=True):
    """Where following stands, as a value to store and to hand back as ``since``.

    Attributes:
        accounts: How far each account was taken, by its id.
        query: A digest of the queries it is of: their skills, agents, groups and versions. Empty in
            one that an older version wrote: it passes for any.
        clocks: What is known of the services' clocks, by account id.
    """

    _called = "a checkpoint"

    accounts: Mapping[str, Position] = {}
    query: str = ""
    clocks: Mapping[str, ServiceClock] = {}

    def __post_init__(self) -> None:
        checks.instance("accounts", self.accounts, Mapping, "a mapping of account ids to positions")
        checks.instance("query", self.query, str, "a digest, as a string")
        checks.instance("clocks", self.clocks, Mapping, "a mapping of account ids to clocks")

    @classmethod
    def of(cls, moves: Iterable[Move]) -> Self:
        """Put moves together; of several that are of one account, the last one counts.

        Raises:
            ConfigurationError: They are of different queries, or no moves.
        """
        what = "an iterable of moves, such as a list"
        moves = checks.members("moves", moves, Move, "a Move", what)
        accounts, clocks, queries = dict[str, Position](), dict[str, ServiceClock](), set[str]()
        for move in moves:
            queries.add(move.query)
            if move.position is not None:
                accounts[move.account_id] = move.position
            if move.clock is not None:
                clocks[move.account_id] = move.clock
        if len(queries) > 1:
            raise ConfigurationError(
                "moves: these are of different queries, with other skills, agents, groups or"
                " version: keep those of each query apart"
            )
        return cls(accounts, "".join(queries), clocks)


_MINUTE = timedelta(minutes=1)

REACH = MAX_TIMEFRAME * _MINUTE
"""How far back the API reaches."""


def digest_of(queries: Iterable[ConversationQuery]) -> str:
    """Return a digest of what queries ask for; time frames and the order of ids do not count."""
    asked = []
    for query in queries:
        ids = (query.skill_ids, query.agent_ids, query.group_ids)
        ordered = [sorted(wanted) if isinstance(wanted, tuple) else wanted for wanted in ids]
        asked.append(msgspec.json.encode([query.version, *ordered]))
    return blake2b(b"\n".join(sorted(asked)), digest_size=6).hexdigest()


class Step(NamedTuple):
    """An item, and the account's position once it is taken; None leaves that as it was."""

    item: Item
    after: Position | None


def advance(
    account: Account,
    position: Position | None,
    intervals: Sequence[Interval | Unreadable],
    settle: int,
    *,
    revise: bool = True,
) -> Iterator[Step]:
    """Work out what an answer adds to what was taken.

    Args:
        account: Whose answer it is.
        position: How far it was taken; None, everything is new.
        intervals: The answer's five-minute intervals, oldest first.
        settle: How many of the latest closed buckets may still change.
        revise: Hand those out already, and again if they change. False leaves them for later, so
            that none comes twice.

    Yields:
        A failure if buckets cannot be taken and that is news; then gaps, and buckets that are new
        or changed, in order of time.
    """
    closed = [interval for interval in intervals if interval.complete]
    if not closed:
        return
    reached = closed[-1].end - REACH  # what starts before, the service no longer has
    if not revise:
        closed, settle = closed[: max(0, len(closed) - settle)], 0
        if not closed:
            return
    if position is None:
        position = Position(closed[0].start)
    reading = _Reading(
        position, {interval.end: interval for interval in closed}, closed[-1].end, reached
    )
    if (error := reading.news(account)) is not None:
        yield Step(Failure(account, error), reading.position())
    for start, end in reading.forget():
        yield Step(Gap(account, start, end), reading.position())
    settled = closed[-1].end - settle * BUCKET
    for end in reading.ends:
        interval = reading.by_end.get(end)
        before = reading.settling.get(end, "")
        if not isinstance(interval, Interval):
            reading.leave(end)
            continue
        digest = _digest(interval) if before or end > settled else ""
        revised = bool(before) or (position.early is not None and end <= position.early)
        reading.take(end, digest if end > settled else "")
        if digest != before or not before:
            yield Step(ClosedBucket(account, interval, revised), reading.position())


class _Reading:
    """An answer as it is taken: a position that moves bucket by bucket.

    Attributes:
        by_end: What the answer has of each closed bucket, by the bucket's end.
        ends: The ends of the buckets that are to be taken, or taken again.
        settling: As `Position` has it.
    """

    def __init__(
        self,
        position: Position,
        by_end: Mapping[datetime, Interval | Unreadable],
        last: datetime,
        reached: datetime,
    ) -> None:
        self.by_end = by_end
        self.settling = {
            end: digest for end, digest in position.settling.items() if end - BUCKET >= reached
        }
        self._through = position.through
        self._handed = set(position.settling)
        self._missing = set(position.missing)
        self._passed: list[datetime] = []
        self._early = position.early
        self._reached = reached
        first = floor(max(position.through, reached))
        new = {first + number * BUCKET for number in range(1, (last - first) // BUCKET + 1)}
        again = {end for end in self.settling.keys() | self._missing if end <= last}
        self.ends = sorted(end for end in new | again if end - BUCKET >= reached)

    def position(self) -> Position:
        early = self._early if self._early is not None and self._early > self._through else None
        return Position(self._through, dict(self.settling), tuple(sorted(self._missing)), early)

    def news(self, account: Account) -> UnexpectedResponse | None:
        """Return the error that tells which buckets cannot be taken, unless it was told before.

        A bucket that was handed out before and settles becomes missing when the error is reported.
        Any other becomes missing when a later bucket is taken.
        """
        untold = [
            end
            for end in self.ends
            if end not in self._missing and not isinstance(self.by_end.get(end), Interval)
        ]
        if not untold:
            return None
        self._missing.update(end for end in untold if end <= self._through)
        first = self.by_end.get(untold[0])
        cause = first.error if isinstance(first, Unreadable) else None
        which = f"the interval {_span(untold[0] - BUCKET, untold[0])}"
        if len(untold) > 1:
            stretch = _span(untold[0] - BUCKET, untold[-1])
            which = f"{len(untold)} of the intervals {stretch}"
        return UnexpectedResponse(
            f"{which} cannot be taken, and will be asked for again:"
            f" {cause.args[0] if cause else 'the answer leaves it out'}",
            where=cause.where if cause else "$.metricsByIntervals",
            account_id=account.id,
        )

    def forget(self) -> Iterator[tuple[datetime, datetime]]:
        """Give up what the service no longer has; yield each stretch that nobody was handed."""
        gone = {end for end in self._missing if end - BUCKET < self._reached}
        self._missing -= gone & self._handed
        for start, end in _stretches(gone - self._handed):
            self._missing = {missing for missing in self._missing if missing > end}
            yield start, end
        if self._through < self._reached:
            start, self._through = self._through, self._reached
            yield start, self._through

    def leave(self, end: datetime) -> None:
        """Pass over a bucket: it is missing if a later one is taken."""
        if end <= self._through:
            self._missing.add(end)
        else:
            self._passed.append(end)

    def take(self, end: datetime, digest: str) -> None:
        """Take a bucket; a digest says that it is still settling."""
        self._missing.discard(end)
        self.settling.pop(end, None)
        if digest:
            self.settling[end] = digest
        if end > self._through:
            self._missing.update(self._passed)
            self._passed.clear()
            self._through = end


def _stretches(ends: Iterable[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Yield where buckets that lie together start and end, from their ends."""
    start = last = None
    for end in sorted(ends):
        if start is None or last is None:
            start = end - BUCKET
        elif end - BUCKET != last:
            yield start, last
            start = end - BUCKET
        last = end
    if start is not None and last is not None:
        yield start, last


def _span(start: datetime, end: datetime) -> str:
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    day = "" if first.date() == last.date() else f"{last:%Y-%m-%d} "
    return f"{first:%Y-%m-%d %H:%M} to {day}{last:%H:%M} UTC"


def _digest(interval: Interval) -> str:
    """Tell the figures of a bucket apart; the order of skills and agents is no difference."""
    sections: Any = msgspec.to_builtins(
        (interval.skills, interval.agents, interval.totals), str_keys=True
    )
    encoded = msgspec.json.encode(sections, order="deterministic")
    return blake2b(encoded, digest_size=8).hexdigest()
