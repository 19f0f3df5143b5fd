"""Days of a time zone, which have 23 or 25 hours where its clocks are changed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo

from msgconv_async.protocol.buckets import DAY

_MINUTE = timedelta(minutes=1)


def midnight(day: date, zone: tzinfo) -> datetime:
    """Return the instant at which a day begins, in UTC; where clocks skip midnight, the change."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def offsets(zone: tzinfo, start: datetime, end: datetime) -> list[tuple[datetime, timedelta]]:
    """Return a zone's offsets from UTC from one instant to another, each with when it begins.

    The first is in force at ``start``. A zone changes its clocks once a day at most.
    """
    found = [(start, _offset(zone, start))]
    at = start
    while at < end:
        before, at = at, min(at + DAY, end)
        if _offset(zone, at) != found[-1][1]:
            found.append((_change(zone, before, at), _offset(zone, at)))
    return found


def _change(zone: tzinfo, before: datetime, after: datetime) -> datetime:
    """Return the first minute at which the offset is the one of afterwards."""
    old = _offset(zone, before)
    low, high = 0, (after - before) // _MINUTE
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, before + middle * _MINUTE) == old:
            low = middle
        else:
            high = middle
    return before + high * _MINUTE


def _offset(zone: tzinfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()
