"""Five-minute arithmetic: computes which time an answer really covers.

The service collects events into five-minute buckets and answers from whole buckets only. So an
answer starts on a five-minute edge at or before the asked start, and its intervals end on
five-minute edges (API page: introduction, and the notes to ``timestamp``). All times are UTC.
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec

BUCKET = timedelta(minutes=5)
DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Span(msgspec.Struct, frozen=True):
    """A stretch of time, from ``start`` up to but not including ``end``, both aware UTC.

    Attributes:
        start: The first instant covered, on a five-minute edge.
        end: The first instant no longer covered, on a five-minute edge.
        complete: True once ``end`` has passed, so that no later event can fall into it.
    """

    start: datetime
    end: datetime
    complete: bool


class Window(msgspec.Struct, frozen=True):
    """The time of an answer: its time frame widened to whole buckets, cut at the asking instant.

    Attributes:
        start: Where the earliest bucket starts.
        end: The instant of asking: data after it did not exist yet.
        intervals: The intervals, oldest first; they tile the time from ``start`` to the end of the
            bucket that holds ``end``. Without an interval size, there is one that spans it all.
    """

    start: datetime
    end: datetime
    intervals: tuple[Span, ...]


def floor(instant: datetime) -> datetime:
    """Return the five-minute edge at or before an aware instant, in UTC."""
    return instant.astimezone(UTC) - (instant - EPOCH) % BUCKET


def ceil(instant: datetime) -> datetime:
    """Return the five-minute edge at or after an aware instant, in UTC."""
    return instant.astimezone(UTC) + (EPOCH - instant) % BUCKET


def window(at: datetime, timeframe: int, interval: int | None = None) -> Window:
    """Compute the time that the service covers when it is asked at a given instant.

    Interval edges are counted back from the end in steps of ``interval``, each rounded up to five
    minutes; the earliest interval is what remains, so it may be shorter or, where the interval is
    not a multiple of five, longer than the others. Edges that fall together count once.

    Args:
        at: The instant of asking, aware.
        timeframe: Minutes, positive.
        interval: Minutes, positive, or None for one interval.

    Returns:
        The window, its intervals oldest first.

    Raises:
        ValueError: ``at`` is naive: its offset from UTC is not known.
    """
    if at.utcoffset() is None:
        raise ValueError(f"at={at.isoformat()} is naive: give an aware datetime, such as UTC")
    at = at.astimezone(UTC)  # local clocks skip and repeat hours
    start, end = floor(at - timedelta(minutes=timeframe)), ceil(at)
    edges = [start, end]
    if interval is not None:
        steps = range(1, timeframe // interval + 1)
        inner = {ceil(end - step * timedelta(minutes=interval)) for step in steps}
        edges[1:1] = sorted(edge for edge in inner if start < edge < end)
    spans = tuple(Span(a, b, b <= at) for a, b in pairwise(edges))
    return Window(start, at, spans)
