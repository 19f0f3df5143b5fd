from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgconv_async.protocol.buckets import BUCKET, Span, ceil, floor, window

DAY = datetime(2014, 3, 26, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

instants = st.integers(0, 10**7).map(lambda buckets: EPOCH + buckets * BUCKET) | st.datetimes(
    datetime(1999, 1, 1),  # noqa: DTZ001
    datetime(2101, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
"""Any instant, and often enough one that falls on an edge."""


@st.composite
def valid_questions(draw: st.DrawFn) -> tuple[int, int]:
    """A time frame and an interval that a query would accept."""
    buckets = draw(st.integers(1, 288))
    return buckets * 5 * draw(st.integers(1, 288 // buckets)), buckets * 5


def at(clock: str) -> datetime:
    hours, minutes = clock.split(":")
    return DAY + timedelta(hours=int(hours), minutes=float(minutes))


def clocks(spans: tuple[Span, ...]) -> list[str]:
    return [f"{span.start:%H:%M}-{span.end:%H:%M}" for span in spans]


def test_the_pages_seven_minutes() -> None:
    """Asked at 13:29 for 7 minutes, the data is that of 13:20-13:29, from two buckets."""
    covered = window(at("13:29"), 7)

    assert (at("13:20"), at("13:29")) == (covered.start, covered.end)
    assert (Span(at("13:20"), at("13:30"), complete=False),) == covered.intervals


def test_the_pages_twenty_minutes_in_tens() -> None:
    """Asked at 8:07 for 20 minutes in tens: 7:45-7:50, 7:50-8:00 and, open, 8:00-8:10."""
    covered = window(at("8:07"), 20, 10)

    assert (at("7:45"), at("8:07")) == (covered.start, covered.end)
    assert (
        Span(at("7:45"), at("7:50"), complete=True),
        Span(at("7:50"), at("8:00"), complete=True),
        Span(at("8:00"), at("8:10"), complete=False),
    ) == covered.intervals


def test_the_pages_timestamp() -> None:
    """The interval 07:30-08:00 of 26 March 2014 ends at the page's 1395820800000."""
    (_, newest) = window(at("8:00"), 60, 30).intervals

    assert at("7:30") == newest.start
    assert 1_395_820_800_000 == newest.end.timestamp() * 1000


def test_on_an_edge_every_interval_is_whole() -> None:
    """Asked on a bucket's edge, the intervals are as many as fit, all closed."""
    covered = window(at("13:30"), 60, 30)

    assert ["12:30-13:00", "13:00-13:30"] == clocks(covered.intervals)
    assert all(span.complete for span in covered.intervals)


def test_just_after_an_edge_a_new_bucket_is_open() -> None:
    """A microsecond later the newest interval has begun and the earliest is cut to one bucket."""
    covered = window(at("13:30") + timedelta(microseconds=1), 60, 30)

    assert ["12:30-12:35", "12:35-13:05", "13:05-13:35"] == clocks(covered.intervals)
    assert [True, True, False] == [span.complete for span in covered.intervals]


def test_just_before_an_edge_the_old_bucket_is_open() -> None:
    """A microsecond earlier the bucket that ends there still counts."""
    covered = window(at("13:30") - timedelta(microseconds=1), 60, 30)

    assert ["12:25-12:30", "12:30-13:00", "13:00-13:30"] == clocks(covered.intervals)
    assert [True, True, False] == [span.complete for span in covered.intervals]


def test_across_midnight() -> None:
    """Two minutes past midnight the window begins on the day before."""
    covered = window(at("0:02"), 10, 5)

    assert DAY - timedelta(minutes=10) == covered.start
    assert ["23:50-23:55", "23:55-00:00", "00:00-00:05"] == clocks(covered.intervals)


def test_a_whole_day_at_midnight() -> None:
    """1440 minutes asked at midnight are yesterday's 288 buckets."""
    covered = window(DAY, 1440, 5)

    assert 288 == len(covered.intervals)
    assert (DAY - timedelta(days=1), DAY) == (covered.start, covered.intervals[-1].end)


def test_an_interval_that_is_not_whole_buckets_is_rounded_up() -> None:
    """7 minutes of 14: edges counted back from the end, each rounded up to five minutes."""
    assert ["07:50-08:00", "08:00-08:05", "08:05-08:10"] == clocks(
        window(at("8:07"), 14, 7).intervals
    )


def test_edges_that_fall_together_count_once() -> None:
    """One-minute intervals do not give empty ones."""
    assert ["07:55-08:00", "08:00-08:05"] == clocks(window(at("8:05"), 10, 1).intervals)


class DaylightSaving(tzinfo):
    """An hour ahead of UTC, two from 01:00 UTC of 30 March 2014 on, as in Central Europe."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        """Return the offset at a local time; the skipped hour counts as not yet put forward."""
        assert when is not None
        forward = when.replace(tzinfo=UTC) >= datetime(2014, 3, 30, 3, tzinfo=UTC)
        return timedelta(hours=2 if forward else 1)

    def dst(self, when: datetime | None) -> timedelta:
        """Return how much of the offset is daylight saving."""
        return self.utcoffset(when) - timedelta(hours=1)

    def tzname(self, _: datetime | None) -> str:
        """Return one name for both halves of the year."""
        return "Central Europe"


@pytest.mark.parametrize(
    "zone",
    [
        timezone(timedelta(hours=5, minutes=45)),
        timezone(-timedelta(hours=9, minutes=30)),
        timezone(timedelta(hours=1, minutes=2, seconds=3)),
    ],
    ids=str,
)
def test_other_time_zones_mean_the_same_instant(zone: timezone) -> None:
    """Buckets are cut in UTC, whatever clock the caller's instant was read from."""
    here = at("8:07")

    assert window(here, 20, 10) == window(here.astimezone(zone), 20, 10)
    assert window(here.astimezone(zone), 20, 10).start.tzinfo is UTC
    assert (floor(here), ceil(here)) == (floor(here.astimezone(zone)), ceil(here.astimezone(zone)))


def test_a_clock_that_was_put_forward_covers_no_less() -> None:
    """The hour that local clocks skip is still an hour of data."""
    after = datetime(2014, 3, 30, 3, 30, tzinfo=DaylightSaving())

    covered = window(after, 60, 30)

    assert datetime(2014, 3, 30, 0, 30, tzinfo=UTC) == covered.start
    assert ["00:30-01:00", "01:00-01:30"] == clocks(covered.intervals)


def test_a_naive_instant_is_refused() -> None:
    """Without an offset an instant is a guess, and a guess of hours."""
    with pytest.raises(ValueError, match="naive"):
        window(datetime(2014, 3, 26, 8, 7), 20, 10)  # noqa: DTZ001


@given(instants)
def test_floor_and_ceil_are_the_nearest_edges(instant: datetime) -> None:
    """They are edges, one on either side, and the instant itself where it is one."""
    below, above = floor(instant), ceil(instant)

    assert below <= instant <= above
    assert (above - below) in (timedelta(0), BUCKET)
    assert timedelta(0) == (below - EPOCH) % BUCKET == (above - EPOCH) % BUCKET


@given(instants, st.integers(1, 1440), st.none() | st.integers(1, 1440))
def test_intervals_tile_the_window(instant: datetime, timeframe: int, interval: int | None) -> None:
    """No gap, no overlap, nothing empty, all on five minutes, from the start to the open bucket."""
    covered = window(instant, timeframe, interval)
    edges = [covered.start, *(span.end for span in covered.intervals)]

    assert edges[:-1] == [span.start for span in covered.intervals]
    assert ceil(instant) == edges[-1]
    assert edges == sorted(set(edges))
    assert all((edge - EPOCH) % BUCKET == timedelta(0) for edge in edges)


@given(instants, st.integers(1, 1440))
def test_the_window_holds_what_was_asked(instant: datetime, timeframe: int) -> None:
    """It starts at or before the asked start, by less than a bucket, and ends now."""
    covered = window(instant, timeframe)

    early = instant - timedelta(minutes=timeframe) - covered.start
    assert timedelta(0) <= early < BUCKET
    assert instant == covered.end


@given(instants, valid_questions())
def test_how_many_intervals_and_how_long(instant: datetime, question: tuple[int, int]) -> None:
    """Off the edge, one more than fit, the earliest one bucket long; on it, exactly as many."""
    timeframe, interval = question
    spans = window(instant, timeframe, interval).intervals
    lengths = [span.end - span.start for span in spans]
    whole = [timedelta(minutes=interval)] * (timeframe // interval)

    assert (whole if floor(instant) == instant else [BUCKET, *whole]) == lengths


@given(instants, st.integers(1, 1440), st.none() | st.integers(1, 1440))
def test_complete_is_what_no_event_can_still_join(
    instant: datetime, timeframe: int, interval: int | None
) -> None:
    """Only the newest may be open, and it is, unless asked on the edge that closes it."""
    *closed, newest = window(instant, timeframe, interval).intervals

    assert all(span.complete and span.end <= instant for span in closed)
    assert (newest.end <= instant) == newest.complete == (floor(instant) == instant)
