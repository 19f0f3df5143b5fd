"""Where following stands, what it hands out, and how an answer moves it on. No I/O, no clock.

An account's position is the end of the last bucket that was taken, and a digest of each bucket that
is still settling: events may reach it late, so it is read again and compared. Every item comes with
the position that holds once it is taken, so that nothing moves before somebody has it.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple, Self, TypeAlias

import msgspec

from msgconv_async.client.account import Account
from msgconv_async.errors import ConfigurationError, MsgConvError
from msgconv_async.protocol.buckets import BUCKET
from msgconv_async.protocol.query import MAX_TIMEFRAME
from msgconv_async.protocol.report import Interval

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
        start, end = (f"{each.astimezone(UTC):%Y-%m-%d %H:%M}" for each in (self.start, self.end))
        return f"account {self.account.id}: {start} to {end} UTC lies too far back to be read"


class Failure(msgspec.Struct, frozen=True):
    """An account could not be read this time. It is tried again at its next turn, and catches up.

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
    """

    through: _Aware
    settling: dict[_Aware, str] = {}

    @property
    def oldest(self) -> datetime:
        """Where the next answer must start, or earlier."""
        return min([self.through, *(end - BUCKET for end in self.settling)])

    def timeframe(self, now: datetime) -> int:
        """Return the minutes to ask for, with a bucket to spare.

        Args:
            now: What the server's clock may show at the most, aware.
        """
        buckets = 1 - (self.oldest - now) // BUCKET
        return max(1, min(buckets, DAY // BUCKET)) * (BUCKET // _MINUTE)


class Checkpoint(msgspec.Struct, frozen=True):
    """Where following stands, as a value to store and to hand back as ``since``.

    Attributes:
        accounts: How far each account was taken, by its id.
    """

    accounts: Mapping[str, Position] = {}

    def to_json(self) -> str:
        """Return it as one line of JSON, of some 250 bytes for each account."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ConfigurationError: It is something else.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ConfigurationError(f"this is not a checkpoint: {error}") from None


_MINUTE = timedelta(minutes=1)

DAY = MAX_TIMEFRAME * _MINUTE
"""How far back the API reaches."""


class Step(NamedTuple):
    """An item, and the account's position once it is taken; None leaves that as it was."""

    item: Item
    after: Position | None


def advance(
    account: Account,
    position: Position | None,
    intervals: Iterable[Interval],
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
        Buckets that changed, then gaps and new buckets, in order of time.
    """
    closed = [each for each in intervals if each.complete]
    if not revise:
        closed, settle = closed[: max(0, len(closed) - settle)], 0
    if not closed:
        return
    settled = closed[-1].end - settle * BUCKET
    through = position.through if position else closed[0].start
    settling = {
        end: digest
        for end, digest in (position.settling if position else {}).items()
        if end > closed[0].start  # what lies further back can no longer be read
    }
    for interval in closed:
        end, new = interval.end, interval.start >= through
        before = settling.pop(end, "")
        if not (new or before):
            continue  # it has settled
        if interval.start > through:
            gap = Gap(account, through, interval.start)
            yield Step(gap, Position(interval.start, dict(settling)))
        through = max(through, end)
        digest = _digest(interval) if before or end > settled else ""
        if end > settled:
            settling[end] = digest
        if new or digest != before:
            bucket = ClosedBucket(account, interval, revised=not new)
            yield Step(bucket, Position(through, dict(settling)))


def _digest(interval: Interval) -> str:
    """Tell the figures of a bucket apart; the order of skills and agents is no difference."""
    sections: Any = msgspec.to_builtins(
        (interval.skills, interval.agents, interval.totals), str_keys=True
    )
    encoded = msgspec.json.encode(sections, order="deterministic")
    return blake2b(encoded, digest_size=8).hexdigest()
