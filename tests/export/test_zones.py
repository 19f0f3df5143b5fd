"""Days of time zones: where they begin, and when their clocks are changed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgconv_async.export.zones import midnight, offsets

HOUR = timedelta(hours=1)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "day", "begins", "hours"),
    [
        ("UTC", date(2026, 3, 29), "2026-03-29", 24),
        ("Europe/Berlin", date(2026, 3, 29), "2026-03-28T23:00", 23),
        ("Europe/Berlin", date(2026, 10, 25), "2026-10-24T22:00", 25),
        ("Asia/Kathmandu", date(2026, 3, 4), "2026-03-03T18:15", 24),
        ("Australia/Lord_Howe", date(2026, 4, 5), "2026-04-04T13:00", 24.5),
        ("Africa/Cairo", date(2026, 4, 24), "2026-04-23T22:00", 23),  # there is no midnight
        ("America/Havana", date(2026, 11, 1), "2026-11-01T04:00", 25),  # there are two midnights
    ],
)
def test_a_day_begins_and_ends_by_its_zones_clocks(
    zone: str, day: date, begins: str, hours: float
) -> None:
    start, end = (midnight(at, ZoneInfo(zone)) for at in (day, day + timedelta(days=1)))
    assert (instant(begins), hours * HOUR) == (start, end - start)


def test_offsets_begin_where_the_clocks_are_changed() -> None:
    found = offsets(ZoneInfo("Europe/Berlin"), instant("2026-01-01"), instant("2027-01-01"))
    assert [
        (instant("2026-01-01"), HOUR),
        (instant("2026-03-29T01:00"), 2 * HOUR),
        (instant("2026-10-25T01:00"), HOUR),
    ] == found
    assert [(instant("2026-01-01"), timedelta())] == offsets(
        UTC, instant("2026-01-01"), instant("2027-01-01")
    )


@given(
    st.sampled_from(["Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Africa/Cairo"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001 - hypothesis wants it
)
def test_an_instant_is_of_the_same_day_by_its_offset_and_by_midnights(
    name: str, at: datetime
) -> None:
    """The database counts by the one, and this library by the other."""
    zone, at = ZoneInfo(name), at.replace(tzinfo=UTC)
    _, offset = offsets(zone, instant("2023-12-31"), at)[-1]
    day = (at + offset).date()
    assert midnight(day, zone) <= at < midnight(day + timedelta(days=1), zone)
