"""Estimates the service's time, and decides whether an answer may be believed. No I/O, no clock.

An answer closes buckets by the service's clock. If that clock is ahead, it closes buckets that are
not over. So the end of the newest closed bucket is compared with witnesses. These are the answers
before, carried on by the event loop's clock, which nobody sets. After a restart they are this
machine's clock, and the answers before, carried on by that clock.

- An answer is taken if a witness says, within a tolerance, that this bucket is over. It is also
  taken if it shows the same time as this machine's clock, as after both slept. So if any single
  clock is wrong or jumps, ahead or behind, another one still shows the right time.
- The very first answer is refused if it is more than a day behind our clock and its ``Date`` does
  not support it, since its buckets were not asked for. (A service that lives in another time
  altogether, such as a sandbox that replays a day, is believed.) An answer that is less than a day
  behind loses nothing: what it lacks is asked for next.
- Any other answer is refused, and changes nothing. If answers go on to show the same time, they are
  believed in the end: after ten minutes if their ``Date`` supports them and our clock was never
  known to agree with the service, or was set since; otherwise after half a day, which is half of
  what the API keeps. So a service that is wrong for hours does no harm, and a machine whose own
  clock is wrong for good still reads everything.
- This machine's clock is no witness while it shows a time before the end of the last bucket that
  was taken.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import msgspec

from msgconv_async.protocol.buckets import BUCKET, EPOCH
from msgconv_async.protocol.query import MAX_TIMEFRAME

PATIENCE = 12 * 3600.0
"""Seconds for which the answers must show the same time before they are believed against our clock
and the answers before."""

CONFIRMED = 2 * BUCKET.total_seconds()
"""The same, in seconds, where the only witness against the answers is a clock of ours that they
never agreed with: three turns."""

_BUCKET = BUCKET.total_seconds()
_REACH = MAX_TIMEFRAME * 60.0
"""Seconds that the API reaches back."""
_CUT = 2.0
"""Seconds: a ``Date`` is cut to whole ones, and is written a moment before or after the body."""

_DRIFT = 30.0
"""Seconds by which the stored state must be wrong before it is stored anew."""


_FIRST = datetime.min.replace(tzinfo=UTC).timestamp()
_LAST = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()


def instant(seconds: float) -> datetime:
    """Return an instant from its seconds since 1970, or the nearest in the years 1 to 9999."""
    return EPOCH + timedelta(seconds=min(max(seconds, _FIRST), _LAST))


class ServiceClock(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of a service's clock that is stored.

    Attributes:
        ahead: Seconds by which it is ahead of ours; None if no answer was believed yet.
        claimed: Seconds by which refused answers say it is ahead; None if there is no such answer.
        since: When the first of them came, by our clock.
    """

    ahead: int | None = None
    claimed: int | None = None
    since: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Now(NamedTuple):
    """An instant by both of our clocks, in seconds: since 1970, and of the event loop."""

    wall: float
    loop: float


class Verdict(NamedTuple):
    """The decision about an answer.

    Attributes:
        refusal: Why nothing of it may be taken; empty if it may.
        certain: Whether no clock that could be right shows a later time than the answer.
    """

    refusal: str
    certain: bool


class _Claim(NamedTuple):
    ahead_of_loop: float
    since: float


class ClockJudge:
    """Decides what to believe of the clock of one account's service.

    Args:
        stored: What was believed when following ended the last time.
        tolerance: Seconds by which clocks may differ and still agree.
    """

    def __init__(self, stored: ServiceClock | None, tolerance: float) -> None:
        self._stored = stored or ServiceClock()
        self._tolerance = tolerance
        self._shown: float | None = None
        self._ahead_of_loop: float | None = None
        self._ahead_of_wall = 0.0
        self._claim: _Claim | None = None
        self._restored = False
        self._carried_by_wall = False

    @property
    def stored(self) -> ServiceClock:
        """The state to store."""
        return self._stored

    def service_time(self, now: Now) -> float:
        """Return the latest time that the service's clock may show, in seconds since 1970."""
        self._restore(now)
        if self._shown is not None:
            return self._shown + now.loop
        return now.wall + max(0, self._stored.ahead or 0)

    def judge(
        self, closed: datetime, date: datetime | None, now: Now, taken: datetime | None
    ) -> Verdict:
        """Decide whether an answer may be believed, and learn from it.

        Args:
            closed: The end of its newest closed bucket.
            date: Its ``Date``, if it had one.
            now: When it came.
            taken: The end of the newest bucket that was taken before, if any was.
        """
        self._restore(now)
        least = closed.timestamp()
        most, dated = least + _BUCKET, False  # what the service's clock may show
        if date is not None and least - _CUT <= date.timestamp() <= most + _CUT:
            most, dated = max(least, date.timestamp()), True
        reached = -math.inf if taken is None else taken.timestamp() - 2 * _BUCKET
        ours_wrong = now.wall < reached
        agreed = self._agree(now.wall, least, most)
        carried = self._carried(now, reached)
        witnesses = [] if carried is None else [carried]
        if not ours_wrong and (carried is None or self._carried_by_wall):
            witnesses.append(now.wall)
        first = self._ahead_of_loop is None
        over = any(least <= time + self._tolerance for time in witnesses)
        if first and not dated and witnesses and max(witnesses) - most > _REACH:
            over = False
        if carried is not None and self._agree(carried, least, most):
            # The estimate stays: answers that are each a little ahead would lead it away.
            self._ahead_of_wall = carried - now.wall
            self._carried_by_wall = False
            self._claim = None
            agreed = agreed or ours_wrong
        elif agreed:
            self._believe(most if dated else min(most, max(least, now.wall)), now)
        elif not witnesses or (over and first):
            self._believe(most, now)
        else:
            sure = carried is not None and self._is_steady(now)
            insisted = self._insisted(most, now, CONFIRMED if dated and not sure else PATIENCE)
            if not (over or insisted):
                self._store(now)
                return Verdict(_refusal(least, max(witnesses)), certain=False)
            if insisted:
                self._believe(most, now)
        self._shown = most - now.loop
        self._store(now)
        return Verdict("", certain=agreed)

    def _carried(self, now: Now, reached: float) -> float | None:
        """Return the service's time by the answers before, if that is known."""
        if self._ahead_of_loop is None:
            return None
        carried = self._ahead_of_loop + now.loop
        return None if self._carried_by_wall and carried < reached else carried

    def _agree(self, time: float, least: float, most: float) -> bool:
        return least - self._tolerance <= time <= most + self._tolerance

    def _is_steady(self, now: Now) -> bool:
        """Tell whether our clock goes on as it did when an answer was believed the last time."""
        if self._ahead_of_loop is None:
            return False
        set_by = (self._ahead_of_loop + now.loop) - (self._ahead_of_wall + now.wall)
        return abs(set_by) <= self._tolerance

    def _believe(self, service: float, now: Now) -> None:
        self._ahead_of_loop = service - now.loop
        self._ahead_of_wall = service - now.wall
        self._carried_by_wall = False
        self._claim = None

    def _insisted(self, service: float, now: Now, patience: float) -> bool:
        """Note what an answer claims; tell whether the claim has stood for so long."""
        ahead = service - now.loop
        if self._claim is None or abs(ahead - self._claim.ahead_of_loop) > _BUCKET:
            self._claim = _Claim(ahead, now.loop)
        return now.loop - self._claim.since >= patience

    def _restore(self, now: Now) -> None:
        """Carry what was stored on to the event loop's clock, the first time."""
        if self._restored:
            return
        self._restored, stored = True, self._stored
        between = now.wall - now.loop
        if stored.ahead is not None:
            self._ahead_of_loop, self._ahead_of_wall = stored.ahead + between, stored.ahead
            self._carried_by_wall = True
        if stored.claimed is not None and stored.since is not None:
            since = min(stored.since.timestamp() - between, now.loop)
            self._claim = _Claim(stored.claimed + between, since)

    def _store(self, now: Now) -> None:
        between = now.wall - now.loop
        ahead = self._stored.ahead
        if self._ahead_of_loop is not None:
            ahead = round(self._ahead_of_loop - between)
            if self._stored.ahead is not None and abs(ahead - self._stored.ahead) < _DRIFT:
                ahead = self._stored.ahead
        if self._claim is None:
            self._stored = ServiceClock(ahead)
        else:
            since = instant(int(self._claim.since + between))
            self._stored = ServiceClock(ahead, round(self._claim.ahead_of_loop - between), since)


def _refusal(closed: float, witness: float) -> str:
    told, expected = (f"{instant(time):%Y-%m-%d %H:%M}" for time in (closed, witness))
    return (
        f"the intervals reach to {told} UTC, but by the answers before, or by this machine's clock,"
        f" it is {expected}: nothing is taken of this answer; if that is wrong, set the clock"
    )
