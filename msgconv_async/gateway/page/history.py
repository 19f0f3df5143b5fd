"""What is remembered of an account: two days of its figures, and an hour by skill and agent.

It is as much after a month as after two days: a new day takes the place of the one before the last.
No I/O, no clock: "today" is the day, in UTC, of the newest closed bucket.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from msgconv_async.protocol.buckets import BUCKET, DAY, EPOCH
from msgconv_async.protocol.report import AgentBreakdown, ConversationMetrics, Id, Interval

Five: TypeAlias = tuple[float | None, float | None, float | None, float | None, float | None]
"""Resolved: all, by agent, by consumer, by system; and the total handling time of all, in
milliseconds. None stands for what the service did not send."""

Curve: TypeAlias = list[float | None]
"""Resolved conversations, bucket by bucket from midnight (UTC); None where nothing was seen."""

A_DAY = DAY // BUCKET
"""Buckets of a day."""

AN_HOUR = 12
"""Buckets of an hour: those that are remembered by skill and agent."""

_SECONDS = int(BUCKET.total_seconds())
_WIDTH = 5
_NO_DAY = -1
_EMPTY_DAY = array("d", [math.nan]) * A_DAY


class Breakdown(msgspec.Struct, frozen=True):
    """One bucket, or several added up, by skill and agent.

    Attributes:
        skills: Figures by skill.
        within: Figures by agent, within each skill.
        agents: Figures by agent.
    """

    skills: dict[Id, Five] = {}
    within: dict[Id, dict[Id, Five]] = {}
    agents: dict[Id, Five] = {}


class Summary(msgspec.Struct, frozen=True):
    """What the table shows of an account.

    Attributes:
        end: The end of the newest closed bucket, in seconds since 1970.
        last: Its figures.
        today: Resolved since midnight (UTC), as far as it was seen.
        seen: How many buckets of today were seen.
        compared: Resolved today, and the day before, in the buckets that were seen on both days.
        common: How many buckets these are.
        hours: Resolved in five minutes, on average, in each hour of today and of the day before.
    """

    end: int
    last: Five
    today: float
    seen: int
    compared: tuple[float, float]
    common: int
    hours: tuple[Curve, Curve]


class Memory:
    """One account's figures: some 25 kB, and 1 kB for each agent, for as long as it lasts."""

    def __init__(self) -> None:
        # Even days have the first half of each column, odd ones the second.
        self._columns = [array("d", _EMPTY_DAY * 2) for _ in range(_WIDTH)]
        self._days = [_NO_DAY, _NO_DAY]
        self._hour: dict[int, bytes] = {}
        self.newest: int | None = None

    def add(self, interval: Interval) -> None:
        """Take a closed bucket, in the place of what was known of it."""
        number = _number(interval.end) - 1
        day, place = divmod(number, A_DAY)
        half = day % 2
        if day < self._days[half]:
            return
        if day > self._days[half]:
            self._days[half] = day
            for column in self._columns:
                column[half * A_DAY : (half + 1) * A_DAY] = _EMPTY_DAY
        self.newest = number if self.newest is None else max(self.newest, number)
        figures = five(interval.totals or ConversationMetrics())
        for column, value in zip(self._columns, figures, strict=True):
            column[half * A_DAY + place] = math.nan if value is None else value
        if number > self.newest - AN_HOUR:
            self._hour[number] = msgspec.msgpack.encode(_broken_down(interval))
        for old in [old for old in self._hour if old <= self.newest - AN_HOUR]:
            del self._hour[old]

    def resolved(self, day: int) -> array[float]:
        """Return what was resolved on a day, by its number since 1970; NaN where it is not known.

        It is the quick form of `day`, for sums over hundreds of accounts.
        """
        half = day % 2
        if self._days[half] != day:
            return _EMPTY_DAY
        return self._columns[0][half * A_DAY : (half + 1) * A_DAY]

    def day(self, day: int) -> Curve:
        """Return what was resolved on a day, by its number since 1970."""
        return [None if math.isnan(count) else count for count in self.resolved(day)]

    @property
    def today(self) -> int:
        """The number of the newest bucket's day; it has one once a bucket was added."""
        assert self.newest is not None  # noqa: S101 - callers have looked
        return self.newest // A_DAY

    def summary(self) -> Summary | None:
        """Return what the table shows; None if no bucket was seen."""
        if self.newest is None:
            return None
        today, before = self.day(self.today), self.day(self.today - 1)
        both = [
            (now, then)
            for now, then in zip(today, before, strict=True)
            if now is not None and then is not None
        ]
        seen = [count for count in today if count is not None]
        return Summary(
            (self.newest + 1) * _SECONDS,
            self._last(self.newest),
            sum(seen),
            len(seen),
            (sum(now for now, _ in both), sum(then for _, then in both)),
            len(both),
            (_by_hour(today), _by_hour(before)),
        )

    def breakdown(self, buckets: int) -> Breakdown:
        """Return the newest buckets by skill and agent, added up; an hour's at most."""
        if self.newest is None:
            return Breakdown()
        found = [
            msgspec.msgpack.decode(self._hour[number], type=Breakdown)
            for number in sorted(self._hour)
            if number > self.newest - buckets
        ]
        skills = {skill for one in found for skill in one.within}
        return Breakdown(
            _added(one.skills for one in found),
            {skill: _added(one.within.get(skill, {}) for one in found) for skill in skills},
            _added(one.agents for one in found),
        )

    def _last(self, number: int) -> Five:
        day, place = divmod(number, A_DAY)
        values = (column[day % 2 * A_DAY + place] for column in self._columns)
        one, two, three, four, time = (None if math.isnan(value) else value for value in values)
        return one, two, three, four, time


def five(metrics: ConversationMetrics) -> Five:
    """Return the five figures that are remembered of what the service sent."""
    return (
        _finite(metrics.total_resolved_conversations),
        _finite(metrics.resolved_conversations_by_ccp),
        _finite(metrics.resolved_conversations_by_consumer),
        _finite(metrics.resolved_conversations_by_system),
        _finite(metrics.total_handling_time_resolved_conversations),
    )


def together(memories: Iterable[Memory]) -> tuple[int, Curve, Curve, int]:
    """Add up accounts, as far as all of them were seen.

    The newest buckets, which some accounts have and others have yet to be asked for, are left out,
    or the curve would fall at its end. Accounts that lag by more than an hour are left out whole.

    Returns:
        The day's number, today's curve, that of the day before, and how many accounts they are of.
    """
    known = [memory for memory in memories if memory.newest is not None]
    newest = max((memory.newest or 0 for memory in known), default=0)
    heard = [memory for memory in known if (memory.newest or 0) > newest - AN_HOUR]
    if not heard:
        return 0, [], [], 0
    through = min(memory.newest or 0 for memory in heard)
    day = through // A_DAY
    today = _sums([memory.resolved(day) for memory in heard])[: through - day * A_DAY + 1]
    before = _sums([memory.resolved(day - 1) for memory in heard])
    return day, [*today, *[None] * (A_DAY - len(today))], before, len(heard)


def _sums(curves: list[array[float]]) -> Curve:
    """Add up curves; what too few of them have is left open, since it would look like a fall."""
    columns = [
        [value for value in column if not math.isnan(value)] for column in zip(*curves, strict=True)
    ]
    most = max(map(len, columns))
    return [sum(column) if column and len(column) == most else None for column in columns]


def _number(end: datetime) -> int:
    return (end - EPOCH) // BUCKET


def _finite(value: float | None) -> float | None:
    """Return a number as a browser can have it; one beyond all sense is left out."""
    try:
        return None if value is None else float(value)
    except OverflowError:
        return None


def _by_hour(curve: Curve) -> Curve:
    hours = [curve[first : first + AN_HOUR] for first in range(0, A_DAY, AN_HOUR)]
    return [_mean([count for count in hour if count is not None]) for hour in hours]


def _mean(counts: list[float]) -> float | None:
    return round(sum(counts) / len(counts), 2) if counts else None


def _broken_down(interval: Interval) -> Breakdown:
    skills = {} if interval.skills is None else interval.skills.per_skill
    return Breakdown(
        {skill: five(section.totals) for skill, section in skills.items()},
        {skill: _by_agent(section) for skill, section in skills.items()},
        {} if interval.agents is None else _by_agent(interval.agents),
    )


def _by_agent(section: AgentBreakdown) -> dict[int, Five]:
    return {agent: five(metrics) for agent, metrics in section.per_agent.items()}


def _added(many: Iterable[Mapping[int, Five]]) -> dict[int, Five]:
    sums: dict[int, Five] = {}
    for figures_by_id in many:
        for id_, figures in figures_by_id.items():
            sums[id_] = _plus(sums[id_], figures) if id_ in sums else figures
    return sums


def _plus(left: Five, right: Five) -> Five:
    one, two, three, four, time = (
        right[place] if value is None else value + (right[place] or 0)
        for place, value in enumerate(left)
    )
    if any(figures[0] and figures[-1] is None for figures in (left, right)):
        time = None  # or the average would be that of fewer conversations than it says
    return one, two, three, four, time


def listed(by_id: Mapping[int, Five]) -> Iterator[list[Any]]:
    """Yield ids as text, since a browser cannot hold the longest as numbers, with their figures."""
    for id_, figures in sorted(by_id.items()):
        yield [str(id_), *figures]
