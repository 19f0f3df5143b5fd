from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgconv_async import AgentBreakdown, ConversationMetrics, Interval, SkillBreakdown
from msgconv_async.export import METRICS, SKILL_AGENT_METRICS, TABLES, roll_up
from msgconv_async.protocol.buckets import BUCKET

MIDNIGHT = datetime(2026, 3, 4, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WHO = {
    "resolved_conversations_by_ccp": "_by_ccp",
    "resolved_conversations_by_consumer": "_by_consumer",
    "resolved_conversations_by_system": "_by_system",
    "total_resolved_conversations": "",
}
"""Each count, and how the time and the average that go with it end."""


def at(minute: int, minutes: int = 5, *, complete: bool = True, **sections: Any) -> Interval:
    """Make an interval that starts so many minutes after midnight."""
    start = MIDNIGHT + minute * MINUTE
    return Interval(start, start + minutes * MINUTE, complete, **sections)


def resolved(count: int, time: int | None = None) -> ConversationMetrics:
    return ConversationMetrics(
        total_resolved_conversations=count, total_handling_time_resolved_conversations=time
    )


counts = st.none() | st.integers(0, 9)
metrics = st.builds(
    ConversationMetrics,
    **dict.fromkeys(METRICS[:8], counts),
    avg_time_resolved_conversations=counts,
)
agents = st.builds(AgentBreakdown, st.dictionaries(st.integers(1, 3), metrics), metrics)
skills = st.builds(SkillBreakdown, st.dictionaries(st.integers(-1, 2), agents), metrics)
buckets = st.lists(
    st.builds(
        at,
        st.integers(0, 3 * 288 - 1).map(lambda number: 5 * number),
        complete=st.booleans(),
        skills=st.none() | skills,
        agents=st.none() | agents,
        totals=st.none() | metrics,
    ),
    max_size=6,
    unique_by=lambda each: each.start,
)
steps = st.sampled_from([(5, 5), (5, 15), (10, 30), (15, 60), (30, 60), (60, 720), (720, 1440)])


def added(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def test_an_hour_is_the_sum_of_its_buckets() -> None:
    """It begins on the hour, and is whole since every bucket of it is there."""
    hour = [at(60 + 5 * n, totals=resolved(n, 10 * n)) for n in range(12)]
    [period] = roll_up(hour, 60)
    assert at(60, 60, complete=True, totals=period.totals) == period
    assert period.totals is not None
    assert 66 == period.totals.total_resolved_conversations
    assert 660 == period.totals.total_handling_time_resolved_conversations


def test_an_average_is_of_the_sums_and_not_of_the_averages() -> None:
    """One long conversation and nine short ones: what the server sent as averages is not asked."""
    sent = [
        ConversationMetrics(
            total_resolved_conversations=count,
            total_handling_time_resolved_conversations=time,
            avg_time_resolved_conversations=time / count,
        )
        for count, time in ((1, 1000), (9, 90))
    ]
    [period] = roll_up([at(5 * n, totals=each) for n, each in enumerate(sent)], 60)
    assert period.totals is not None
    assert 109.0 == period.totals.avg_time_resolved_conversations


@pytest.mark.parametrize(("count", "end"), WHO.items())
def test_each_average_goes_with_its_own_count_and_time(count: str, end: str) -> None:
    """As the API page's own example has it."""
    time = f"total_handling_time_resolved_conversations{end}"
    sent: dict[str, Any] = {count: 21, time: 426}
    [period] = roll_up([at(0, totals=ConversationMetrics(**sent))], 5)
    average: dict[str, Any] = {f"avg_time_resolved_conversations{end}": 426 / 21}
    assert ConversationMetrics(**sent, **average) == period.totals


@pytest.mark.parametrize(
    "totals",
    [
        resolved(0, 0),
        resolved(3),
        ConversationMetrics(total_handling_time_resolved_conversations=3),
        ConversationMetrics(avg_time_resolved_conversations=3.0),
    ],
)
def test_over_nothing_or_the_unknown_there_is_no_average(totals: ConversationMetrics) -> None:
    """None, not 0."""
    [period] = roll_up([at(0, totals=totals)], 5)
    assert period.totals is not None
    assert None is period.totals.avg_time_resolved_conversations


def test_a_metric_or_a_section_that_all_lack_is_still_missing() -> None:
    """What some have is the sum of those."""
    [period] = roll_up([at(0, totals=resolved(2)), at(5, totals=resolved(3, 7)), at(10)], 60)
    assert at(0, 60, complete=False, totals=period.totals) == period
    assert period.totals is not None
    assert 7 == period.totals.total_handling_time_resolved_conversations
    assert None is period.totals.resolved_conversations_by_ccp


def test_skills_and_their_agents_are_added_up_each_by_itself() -> None:
    """Who is in one bucket only is there all the same."""

    def section(skill: int, agent: int, count: int) -> SkillBreakdown:
        one = resolved(count)
        return SkillBreakdown({skill: AgentBreakdown({agent: one}, one)}, one)

    parts = [section(3, 7, 1), section(3, 8, 2), section(-1, 7, 4), section(3, 7, 8)]
    [period] = roll_up([at(5 * n, skills=each) for n, each in enumerate(parts)], 60)
    place = SKILL_AGENT_METRICS.columns.index("total_resolved_conversations")
    found = [(*row[2:4], row[place]) for row in SKILL_AGENT_METRICS.flatten("71", period)]
    assert [(3, 7, 9), (3, 8, 2), (-1, 7, 4)] == found
    assert period.skills is not None
    assert 11 == period.skills.per_skill[3].totals.total_resolved_conversations
    assert 15 == period.skills.totals.total_resolved_conversations


@pytest.mark.parametrize(
    ("minutes", "complete"), [(range(0, 60, 5), True), (range(5, 60, 5), False), ([55], False)]
)
def test_a_period_that_is_not_covered_is_not_complete(
    minutes: Iterable[int],
    complete: bool,  # noqa: FBT001 - pytest gives it by its name
) -> None:
    """A bucket is missing, perhaps the first."""
    [period] = roll_up([at(minute) for minute in minutes], 60)
    assert at(0, 60, complete=complete) == period


def test_a_period_with_an_open_bucket_is_not_complete() -> None:
    """It is still filling."""
    [period] = roll_up([at(0), at(5, complete=False)], 10)
    assert at(0, 10, complete=False) == period


def test_periods_are_aligned_to_utc_and_stand_in_order() -> None:
    """Wherever the intervals begin and in whatever order they come; an empty one is left out."""
    given_ = [at(200), at(55), at(60)]
    assert [0, 60, 180] == [(each.start - MIDNIGHT) // MINUTE for each in roll_up(iter(given_), 60)]


def test_days_are_utc_days() -> None:
    """288 buckets are one."""
    day = [at(5 * n, totals=resolved(1)) for n in range(288)]
    [period] = roll_up(day, 1440)
    assert at(0, 1440, totals=resolved(288)) == period


def test_intervals_of_any_length_that_fit_are_taken() -> None:
    """Such as those of a report by the half hour, the first of which is a stub."""
    [period] = roll_up([at(25), at(30, 30)], 60)
    assert at(0, 60, complete=False) == period


@given(buckets, steps)
def test_two_steps_are_one(given_: list[Interval], by: tuple[int, int]) -> None:
    """The order of skills and agents included."""
    first, second = by
    once, twice = roll_up(given_, second), roll_up(roll_up(given_, first), second)
    assert once == twice
    for table in TABLES:
        rows = [[*table.flatten("71", each)] for each in once]
        assert rows == [[*table.flatten("71", each)] for each in twice]


def everything(interval: Interval) -> Iterable[tuple[object, ConversationMetrics]]:
    """Yield all metrics of an interval, each with where they stand."""
    if interval.totals is not None:
        yield "totals", interval.totals
    if interval.agents is not None:
        yield "agents", interval.agents.totals
        yield from interval.agents.per_agent.items()
    if interval.skills is not None:
        yield "skills", interval.skills.totals
        for skill_id, each in interval.skills.per_skill.items():
            yield ("skill", skill_id), each.totals
            for agent_id, metrics in each.per_agent.items():
                yield (skill_id, agent_id), metrics


@given(buckets, st.sampled_from([5, 60, 1440, 2880]))
def test_sums_are_the_same_before_and_after(given_: list[Interval], minutes: int) -> None:
    """Of every count and every handling time, wherever it stands; no place is lost or made up."""

    def sums(of: Iterable[Interval]) -> dict[object, list[int | None]]:
        found: dict[object, list[ConversationMetrics]] = {}
        for each in of:
            for place, metrics in everything(each):
                found.setdefault(place, []).append(metrics)
        return {
            place: [added(getattr(each, name) for each in held) for name in METRICS[:8]]
            for place, held in found.items()
        }

    assert sums(given_) == sums(roll_up(given_, minutes))


@pytest.mark.parametrize("minutes", [0, -5, 3, 7, 25, 50, 2000])
def test_a_period_that_does_not_divide_the_day_is_refused(minutes: int) -> None:
    """The sentence names what would be right."""
    with pytest.raises(ValueError, match=rf"^minutes={minutes}: it must be a multiple of 5 that"):
        roll_up([], minutes)


def test_a_bucket_given_twice_is_refused() -> None:
    """It would count twice."""
    with pytest.raises(ValueError, match=r"2026-03-04 00:05 to 2026-03-04 00:10 overlap$"):
        roll_up([at(5, totals=resolved(1)), at(5, totals=resolved(1))], 60)


def test_an_interval_across_two_periods_is_refused() -> None:
    """Nobody knows which part of it belongs where."""
    with pytest.raises(ValueError, match="lies in more than one period of 60 minutes"):
        roll_up([at(45, 30)], 60)


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("first", "buckets"),
    [("2026-03-28T23:00", 276), ("2026-03-03T23:00", 288), ("2025-10-25T22:00", 300)],
)
def test_a_day_of_a_time_zone_is_whole_with_all_of_its_hours(first: str, buckets: int) -> None:
    """Of 23, 24 and 25; without one bucket it is not."""
    start = datetime.fromisoformat(first).replace(tzinfo=UTC)
    parts = [
        Interval(start + n * BUCKET, start + (n + 1) * BUCKET, complete=True, totals=resolved(1, 1))
        for n in range(buckets)
    ]
    [day] = roll_up(parts, 1440, zone=BERLIN)
    assert (start, start + buckets * BUCKET, True) == (day.start, day.end, day.complete)
    assert [False] == [each.complete for each in roll_up(parts[1:], 1440, zone=BERLIN)]
    hours = roll_up(parts, 60, zone=BERLIN)
    assert (buckets // 12, True) == (len(hours), all(hour.complete for hour in hours))
    quarters = roll_up(parts, 360, zone=BERLIN)
    assert all(quarter.complete for quarter in quarters)
    assert start + buckets * BUCKET == quarters[-1].end
    assert -(-buckets // 72) == len(quarters)


def test_weeks_of_a_time_zone_begin_at_its_midnights() -> None:
    """Counted from 1970-01-01, a Thursday."""
    part = at(0, totals=resolved(1, 1))
    [week] = roll_up([part], 7 * 1440, zone=BERLIN)
    local = week.start.astimezone(BERLIN)
    assert (3, 0, 0) == (local.weekday(), local.hour, local.minute)
