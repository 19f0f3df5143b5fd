"""Adds intervals up to longer ones: five minutes to hours or days.

Counts and handling times add up, since a conversation is resolved in one bucket and counted there.
Averages do not. So an average is computed from the sums, as the handling time over the count of the
same resolver: ``avg_time_resolved_conversations_by_ccp`` is
``total_handling_time_resolved_conversations_by_ccp`` over ``resolved_conversations_by_ccp``, and
``avg_time_resolved_conversations`` is ``total_handling_time_resolved_conversations`` over
``total_resolved_conversations``. If a count is 0, there is no average: the server says 0, and this
module says None. The averages that the server sent are not used.

The results are intervals again, so tables can be made of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise

from msgspec.structs import astuple

from msgconv_async import checks
from msgconv_async.errors import ConfigurationError
from msgconv_async.export.zones import midnight
from msgconv_async.protocol.buckets import BUCKET, DAY, EPOCH
from msgconv_async.protocol.report import (
    AgentBreakdown,
    ConversationMetrics,
    Interval,
    SkillBreakdown,
    average_time,
)

_WHO = 4
"""Metrics come in three groups of four: counts, handling times, averages. The resolvers are in the
same order in all groups."""


_LONGEST = 36525 * 24 * 60
"""Minutes: a hundred years. A calendar here can hold the end of every period up to that."""


def roll_up(
    intervals: Iterable[Interval], minutes: int, *, zone: tzinfo = UTC
) -> tuple[Interval, ...]:
    """Add up an account's intervals to periods of the same length.

    Periods begin at midnight and every ``minutes`` after; those of several days are counted from
    1970-01-01. Where a time zone's clocks are changed, its day has 23 or 25 hours, and the last of
    its periods ends with the day. A metric that an interval lacks adds nothing, and a metric that
    all of them lack stays None. The same holds for sections. Every skill and agent is added up by
    itself.

    Args:
        intervals: Intervals of one account, of five minutes or longer, in any order.
        minutes: The length of a period: a multiple of 5 that divides a day, or whole days (1440).
        zone: The time zone whose midnights count, such as ``zoneinfo.ZoneInfo("Europe/Berlin")``.

    Returns:
        The periods in which there is an interval, oldest first. A period has ``complete=False`` if
        its intervals do not cover all of it, or one of them is not complete itself.

    Raises:
        ConfigurationError: ``minutes`` is another number, or ``zone`` no time zone; two intervals
            overlap, so that their sum would count twice; or an interval lies in more than one
            period.
    """
    size = _period(minutes)
    checks.instance("zone", zone, tzinfo, "a time zone, such as zoneinfo.ZoneInfo('Europe/Berlin')")
    what = "an iterable of intervals, such as a report's"
    given = checks.members("intervals", intervals, Interval, "an Interval", what)
    ordered = sorted(given, key=lambda interval: interval.start)
    for one, other in pairwise(ordered):
        if other.start < one.end:
            raise ConfigurationError(f"the intervals {_span(one)} and {_span(other)} overlap")
    periods: list[tuple[datetime, datetime, list[Interval]]] = []
    for interval in ordered:
        if not periods or interval.start >= periods[-1][1]:
            periods.append((*_around(interval.start, size, zone), []))
        _, end, parts = periods[-1]
        if interval.end - BUCKET >= end:
            raise ConfigurationError(
                f"the interval {_span(interval)} lies in more than one period of {minutes} minutes"
            )
        parts.append(interval)
    return tuple(_total(*period) for period in periods)


def _period(minutes: int) -> timedelta:
    given: object = minutes
    whole = isinstance(given, int) and not isinstance(given, bool)
    size = timedelta(minutes=minutes) if whole and 0 < minutes <= _LONGEST else timedelta()
    if not size or size % BUCKET or (DAY % size and size % DAY):
        raise checks.refused(
            "minutes",
            minutes,
            "a multiple of 5 that divides a day, such as 60, or whole days, such as 1440, up to a"
            " hundred years",
        )
    return size


def _around(instant: datetime, size: timedelta, zone: tzinfo) -> tuple[datetime, datetime]:
    """Return the start and the end of the period that holds an instant, in UTC."""
    day = instant.astimezone(zone).date()
    if size >= DAY:
        days = size // DAY
        first = day - (day - EPOCH.date()).days % days * DAY
        return midnight(first, zone), midnight(first + size, zone)
    begun = midnight(day, zone)
    start = begun + (instant - begun) // size * size
    return start, min(start + size, midnight(day + DAY, zone))


def _span(interval: Interval) -> str:
    return f"{interval.start:%Y-%m-%d %H:%M} to {interval.end:%Y-%m-%d %H:%M}"


def _total(start: datetime, end: datetime, parts: Sequence[Interval]) -> Interval:
    covered = sum((part.end - part.start for part in parts), timedelta())
    skills = [part.skills for part in parts if part.skills is not None]
    agents = [part.agents for part in parts if part.agents is not None]
    totals = [part.totals for part in parts if part.totals is not None]
    return Interval(
        start,
        end,
        complete=covered == end - start and all(part.complete for part in parts),
        skills=_skills(skills) if skills else None,
        agents=_agents(agents) if agents else None,
        totals=_sum(totals) if totals else None,
    )


def _skills(parts: Sequence[SkillBreakdown]) -> SkillBreakdown:
    by_skill: dict[int, list[AgentBreakdown]] = {}
    for part in parts:
        for skill_id, of_skill in part.per_skill.items():
            by_skill.setdefault(skill_id, []).append(of_skill)
    return SkillBreakdown(
        {skill_id: _agents(found) for skill_id, found in by_skill.items()},
        _sum([part.totals for part in parts]),
    )


def _agents(parts: Sequence[AgentBreakdown]) -> AgentBreakdown:
    by_agent: dict[int, list[ConversationMetrics]] = {}
    for part in parts:
        for agent_id, of_agent in part.per_agent.items():
            by_agent.setdefault(agent_id, []).append(of_agent)
    return AgentBreakdown(
        {agent_id: _sum(found) for agent_id, found in by_agent.items()},
        _sum([part.totals for part in parts]),
    )


def _sum(parts: Sequence[ConversationMetrics]) -> ConversationMetrics:
    columns = list(zip(*map(astuple, parts), strict=True))[: 2 * _WHO]
    known = [[value for value in column if value is not None] for column in columns]
    sums = [sum(values) if values else None for values in known]
    averages = map(average_time, sums[:_WHO], sums[_WHO:])
    return ConversationMetrics(*sums, *averages)
