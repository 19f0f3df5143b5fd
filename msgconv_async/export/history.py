"""The collected history by day and skill, added up where it is stored.

Only sums are transferred, even of a long history: a row for each day and skill, and one for each
day and account. A day is one of UTC, or of the reader's time zone, where it may have 23 or 25
hours. It is counted in seconds since 1970 and the zone's offsets, which are part of the question,
so the time zone of the database or its session has no effect. A bucket belongs to the day on which
it starts.

An account's totals show whether a day was collected whole: each bucket has a row, even one of
zeros, so a whole day of 24 hours has 288 rows. Skills without conversations have no rows, so a
quiet night looks like a night that was not collected. For skills, a day counts as whole between an
account's first and last row unless a gap lies in it, since collecting records everything that it
leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any, TypeAlias

import dlt
import msgspec
import sqlglot
from sqlglot import exp

from msgconv_async.errors import ConfigurationError
from msgconv_async.export.rows import ACCOUNT_METRICS, SKILL_METRICS, Table
from msgconv_async.export.store import Store
from msgconv_async.export.zones import midnight, offsets
from msgconv_async.protocol.buckets import BUCKET, DAY, EPOCH
from msgconv_async.protocol.report import average_time

_LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""The day before the last one that a calendar here can hold: the last one has no end here."""
_Span: TypeAlias = tuple[datetime, datetime]

# PostgreSQL's dialect; the others are translated from it. No text from outside is put in. A literal
# with an offset is an instant in any time zone, and an index or a file's statistics can help to
# find the rows after it.
_START = "DATE_PART('epoch', interval_start)"
_SUMS = """
    SELECT {day} AS day, {skill} AS skill,
        SUM(resolved_conversations_by_ccp) AS by_agent,
        SUM(resolved_conversations_by_consumer) AS by_consumer,
        SUM(resolved_conversations_by_system) AS by_system,
        SUM(total_resolved_conversations) AS total,
        SUM(total_handling_time_resolved_conversations) AS handling
    FROM {table}
    WHERE interval_start >= '{since}' AND interval_end <= '{until}'
    GROUP BY 1, 2 ORDER BY 1, 2"""
_FOUND = """
    SELECT account_id, {day} AS day, COUNT(DISTINCT interval_end) AS found
    FROM {table}
    WHERE interval_start >= '{since}' AND interval_end <= '{until}' GROUP BY 1, 2"""
_SPANS = """
    SELECT account_id, MIN(DATE_PART('epoch', interval_start)) AS first,
        MAX(DATE_PART('epoch', interval_end)) AS last
    FROM {table} WHERE interval_end <= '{until}' GROUP BY 1"""
_AHEAD = "SELECT COUNT(*) AS ahead FROM {table} WHERE interval_end > '{until}'"
_GAPS = """
    SELECT account_id, DATE_PART('epoch', gap_start) AS first, DATE_PART('epoch', gap_end) AS last
    FROM {table} WHERE gap_end > '{since}' AND gap_start < '{until}'"""


class Day(msgspec.Struct, frozen=True):
    """A day and the conversations resolved on it: sums of the server's numbers by bucket.

    A sum is None if the server sent no such number.

    Attributes:
        day: The day.
        skill_id: The skill; None for the account, all skills and conversations without one.
        by_agent: Conversations that agents resolved.
        by_consumer: Conversations that consumers resolved.
        by_system: Conversations that the system resolved.
        total: All of them, as the server counted. It may differ from the sum of the three.
        handling: The total handling time of these, in the API's unit, read as milliseconds.
    """

    day: date
    skill_id: int | None
    by_agent: int | None
    by_consumer: int | None
    by_system: int | None
    total: int | None
    handling: int | None

    @property
    def average(self) -> float | None:
        """The average handling time: total time over count, never an average of averages."""
        return average_time(self.total, self.handling)


class History(msgspec.Struct, frozen=True, dict=True):
    """The collected history.

    Attributes:
        accounts: The ids of its accounts.
        first: Its first day.
        last: Its last day.
        days: The sums that were collected, by day. A day has its skills first, and the account's
            totals last.
        partial: The days that were not collected whole, and for how many accounts that is so.
        ahead: How many rows lie more than a day ahead of this machine's clock. A service whose
            clock was wrong for a while leaves such rows; no day includes them.
        zone: The name of the time zone of the days.
    """

    accounts: tuple[str, ...]
    first: date
    last: date
    days: tuple[Day, ...]
    partial: dict[date, int]
    ahead: int = 0
    zone: str = "UTC"

    @property
    def calendar(self) -> list[date]:
        """Every day from the first to the last."""
        return _calendar(self.first, self.last)

    @cached_property
    def by_skill(self) -> dict[int | None, tuple[Day, ...]]:
        """The days of each skill, by id; first the account's totals, under None.

        If no totals were collected, they are sums over the skills, unless there is only one skill.
        """
        found: dict[int | None, list[Day]] = {}
        for day in self.days:
            found.setdefault(day.skill_id, []).append(day)
        totals = found.pop(None, [])
        if not totals and len(found) > 1:
            days = groupby(self.days, lambda day: day.day)
            totals = [total(list(of_day), day) for day, of_day in days]
        skills = {id_: tuple(found[id_]) for id_ in sorted(found, key=lambda id_: id_ or 0)}
        return {None: tuple(totals), **skills} if totals else skills


def total(days: Sequence[Day], day: date) -> Day:
    """Return the sums over days, as one day without a skill; over no days, they are None."""
    sums: list[int | None] = []
    for name in Day.__struct_fields__[2:]:
        known = [number for day in days if (number := getattr(day, name)) is not None]
        sums.append(sum(known) if known else None)
    return Day(day, None, *sums)


def read(store: Store, days: int | None = None, zone: tzinfo = UTC) -> History:
    """Read a history.

    Args:
        store: The store that holds it.
        days: How many days back from the newest; None reads them all.
        zone: The time zone of the days, such as ``zoneinfo.ZoneInfo("Europe/Berlin")``.

    Raises:
        ConfigurationError: Nothing was collected there yet.
        StoreFailed: It cannot be read.
    """
    with store.reading() as dataset:
        return _read(dataset, days, zone)


def _read(dataset: dlt.Dataset, days: int | None, zone: tzinfo) -> History:
    # If all rows lie ahead of the clock, the clock is wrong.
    for until in (datetime.now(UTC) + DAY, _LATEST):
        by_skill, by_account = (
            _spans(dataset, table, until) for table in (SKILL_METRICS, ACCOUNT_METRICS)
        )
        spans = [*by_skill.items(), *by_account.items()]
        if spans:
            break
    else:
        raise ConfigurationError(
            f"dataset {dataset.dataset_name!r} holds neither skills nor account totals yet"
        )
    first = min(start for _, (start, _) in spans).astimezone(zone).date()
    last = (max(end for _, (_, end) in spans) - BUCKET).astimezone(zone).date()
    if days is not None:
        first = last - min(days - 1, (last - first) // DAY) * DAY
    since = midnight(first, zone)
    day_of = _day_of(zone, since, midnight(last + DAY, zone))
    accounts = sorted({account for account, (_, end) in spans if end > since})
    coverage = _Coverage(
        zone,
        by_skill,
        by_account,
        {
            (account, _date(day)): buckets
            for account, day, buckets in _select(
                dataset, _FOUND, ACCOUNT_METRICS.name, until, since=since, day=day_of
            )
        },
        [
            (account, _instant(start), _instant(min(end, until.timestamp())))
            for account, start, end in _select(
                dataset, _GAPS, "collection_gaps", until, since=since
            )
        ],
    )
    partial = {
        day: lacking
        for day in _calendar(first, last)
        if (lacking := sum(not coverage.whole(account, day) for account in accounts))
    }
    return History(
        tuple(accounts),
        first,
        last,
        tuple(
            sorted(
                (
                    Day(
                        _date(day), *(None if figure is None else int(figure) for figure in figures)
                    )
                    for table, skill in ((SKILL_METRICS, "skill_id"), (ACCOUNT_METRICS, "NULL"))
                    for day, *figures in _select(
                        dataset, _SUMS, table.name, until, since=since, day=day_of, skill=skill
                    )
                ),
                key=lambda day: day.day,
            )
        ),
        partial,
        sum(
            int(count)
            for table in (SKILL_METRICS, ACCOUNT_METRICS)
            for (count,) in _select(dataset, _AHEAD, table.name, until)
        ),
        str(zone),
    )


def _day_of(zone: tzinfo, start: datetime, end: datetime) -> str:
    """Return the SQL that numbers the days of a zone, from 1970 on: no text, but numbers alone."""
    found = offsets(zone, start, end)
    shift = f"{found[-1][1].total_seconds():.0f}"
    if len(found) > 1:
        cases = " ".join(
            f"WHEN {_START} < {change.timestamp():.0f} THEN {offset.total_seconds():.0f}"
            for (_, offset), (change, _) in pairwise(found)
        )
        shift = f"CASE {cases} ELSE {shift} END"
    return f"CAST(FLOOR(({_START} + {shift}) / {DAY.total_seconds():.0f}) AS BIGINT)"


class _Coverage(msgspec.Struct, frozen=True):
    """The known times in which accounts were collected."""

    zone: tzinfo
    by_skill: Mapping[str, _Span]
    by_account: Mapping[str, _Span]
    found: Mapping[tuple[str, date], int]
    gaps: Sequence[tuple[str, datetime, datetime]]

    def whole(self, account_id: str, day: date) -> bool:
        """Tell whether all of an account's day was collected."""
        start, end = midnight(day, self.zone), midnight(day + DAY, self.zone)
        match self.by_account.get(account_id):
            case first, last if first < end and last > start:
                return self.found.get((account_id, day), 0) >= (end - start) // BUCKET
        match self.by_skill.get(account_id):
            case first, last if first <= start and last >= end:
                return not any(
                    account_id == account and gap_start < end and gap_end > start
                    for account, gap_start, gap_end in self.gaps
                )
        return False


def _spans(dataset: dlt.Dataset, table: Table, until: datetime) -> dict[str, _Span]:
    """Return the first and the last instant of each account in a table."""
    return {
        account: (_instant(start), _instant(end))
        for account, start, end in _select(dataset, _SPANS, table.name, until)
    }


def _select(
    dataset: dlt.Dataset,
    sql: str,
    table: str,
    until: datetime,
    *,
    since: datetime = EPOCH,
    day: str = "",
    skill: str = "",
) -> list[tuple[Any, ...]]:
    """Return the rows that a query of a table finds; none if nothing was ever stored in it."""
    if table not in dataset.schema.data_table_names(seen_data_only=True):
        return []
    dialect, client = dataset.destination_dialect, dataset.sql_client
    # Translated here, and not by dataset.query(): that finds no columns with sqlglot 30.
    query = sqlglot.parse_one(
        sql.format(table=table, since=since, until=until, day=day, skill=skill), read="postgres"
    )
    for named in query.find_all(exp.Table):
        named.replace(exp.to_table(client.make_qualified_table_name(table), dialect=dialect))
    with client.execute_query(query.sql(dialect=dialect)) as cursor:
        return cursor.fetchall()


def _calendar(first: date, last: date) -> list[date]:
    return [first + number * DAY for number in range((last - first) // DAY + 1)]


def _instant(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=float(seconds))


def _date(number: int) -> date:
    return (EPOCH + int(number) * DAY).date()
