"""The collected history by day or hour, added up where it is stored.

Only sums are transferred, even of a long history: a row for each period, account and skill, and one
for each day and account. Skills and agents of several accounts are never added up: the same id is
another skill in another account. A day is one of UTC, or of the reader's time zone, where it may
have 23 or 25 hours. It is counted in seconds since 1970 and the zone's offsets, which are part of
the question, so the time zone of the database or its session has no effect. A bucket belongs to the
day on which it starts.

An account's totals show whether a day was collected whole: each bucket has a row, even one of
zeros, so a whole day of 24 hours has 288 rows. Skills without conversations have no rows, so a
quiet night looks like a night that was not collected. For skills, a day counts as whole between an
account's first and last row unless a gap lies in it, since collecting records everything that it
leaves out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import dlt
import msgspec
import sqlglot
from sqlglot import exp

from msgconv_async.errors import ConfigurationError, short
from msgconv_async.export.rows import ACCOUNT_METRICS, AGENT_METRICS, SKILL_METRICS, By, Table
from msgconv_async.export.store import Store
from msgconv_async.export.zones import midnight, offsets
from msgconv_async.names import NOBODY, Names
from msgconv_async.protocol.buckets import BUCKET, DAY, EPOCH
from msgconv_async.protocol.report import average_time

_HOUR = timedelta(hours=1)
_LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""The day before the last one that a calendar here can hold: the last one has no end here."""
_Span: TypeAlias = tuple[datetime, datetime]

# PostgreSQL's dialect; the others are translated from it. No text from outside is put in. A literal
# with an offset is an instant in any time zone, and an index or a file's statistics can help to
# find the rows after it.
_START = "DATE_PART('epoch', interval_start)"
_SUMS = """
    SELECT {period} AS period, account_id, {id} AS id,
        SUM(resolved_conversations_by_ccp) AS by_agent,
        SUM(resolved_conversations_by_consumer) AS by_consumer,
        SUM(resolved_conversations_by_system) AS by_system,
        SUM(total_resolved_conversations) AS total,
        SUM(total_handling_time_resolved_conversations) AS handling
    FROM {table}
    WHERE interval_start >= '{since}' AND interval_end <= '{until}'
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
_FOUND = """
    SELECT account_id, {period} AS day, COUNT(DISTINCT interval_end) AS found
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


class Part(NamedTuple):
    """Whose figures they are.

    Attributes:
        account_id: The account; None for all of them together.
        id: The skill or the agent; None for all of the account.
    """

    account_id: str | None = None
    id: int | None = None


class Day(msgspec.Struct, frozen=True):
    """A day and the conversations resolved on it: sums of the server's numbers by bucket.

    A sum is None if the server sent no such number.

    Attributes:
        day: The day.
        part: Whose conversations.
        by_agent: Conversations that agents resolved.
        by_consumer: Conversations that consumers resolved.
        by_system: Conversations that the system resolved.
        total: All of them, as the server counted. It may differ from the sum of the three.
        handling: The total handling time of these, in the API's unit, read as milliseconds.
        hour: The hour of the day by its clock, 0 to 23, in a history by hours; otherwise None. One
            that comes twice, where clocks are put back, is one.
    """

    day: date
    part: Part
    by_agent: int | None
    by_consumer: int | None
    by_system: int | None
    total: int | None
    handling: int | None
    hour: int | None = None

    @property
    def average(self) -> float | None:
        """The average handling time: total time over count, never an average of averages."""
        return average_time(self.total, self.handling)

    @property
    def period(self) -> tuple[date, int | None]:
        """The day and the hour."""
        return self.day, self.hour


class History(msgspec.Struct, frozen=True, dict=True):
    """The collected history.

    Attributes:
        accounts: The ids of its accounts.
        first: Its first day.
        last: Its last day.
        days: The sums that were collected, by day or hour, account, and skill or agent; an
            account's totals are the last of its rows.
        partial: The days that were not collected whole, and for how many accounts that is so.
        ahead: How many rows lie more than a day ahead of this machine's clock. A service whose
            clock was wrong for a while leaves such rows; no day includes them.
        by: What the figures are told apart by.
        hourly: Whether ``days`` are hours.
        zone: The name of the time zone of the days.
        names: The names of what it tells apart, for who shows it; `read` knows none.
    """

    accounts: tuple[str, ...]
    first: date
    last: date
    days: tuple[Day, ...]
    partial: dict[date, int]
    ahead: int = 0
    by: By = "skill"
    hourly: bool = False
    zone: str = "UTC"
    names: Names = NOBODY

    @property
    def calendar(self) -> list[date]:
        """Every day from the first to the last."""
        return _calendar(self.first, self.last)

    @property
    def periods(self) -> list[tuple[date, int | None]]:
        """Every day, or every hour of every day, from the first to the last."""
        hours = range(24) if self.hourly else [None]
        return [(day, hour) for day in self.calendar for hour in hours]

    @cached_property
    def by_part(self) -> dict[Part, tuple[Day, ...]]:
        """The days of each part: all accounts, then each account, before its skills or agents.

        If an account's totals were not collected, they are sums over its skills or agents. A part
        that would say the same as its only part is left out: all accounts where there is one, and
        such sums where there is one skill.
        """
        accounts: dict[str | None, dict[int | None, list[Day]]] = {}
        for day in self.days:
            parts = accounts.setdefault(day.part.account_id, {})
            parts.setdefault(day.part.id, []).append(day)
        many = len(accounts) > 1
        found: dict[Part, tuple[Day, ...]] = {}
        for account_id, parts in accounts.items():
            totals = parts.pop(None, [])
            if not totals and (many or len(parts) > 1):
                within = [day for days in parts.values() for day in days]
                totals = _totals(within, Part(account_id))
            if totals:
                found[Part(account_id)] = tuple(totals)
            for id_ in sorted(parts, key=lambda id_: id_ or 0):
                found[Part(account_id, id_)] = tuple(parts[id_])
        if many:
            each = [day for part, days in found.items() if part.id is None for day in days]
            found = {ALL: tuple(_totals(each, ALL)), **found}
        return found


ALL = Part()
"""All accounts."""


def total(days: Sequence[Day], day: date, part: Part = ALL, hour: int | None = None) -> Day:
    """Return the sums over days, as one day of a part; over no days, they are None."""
    sums: list[int | None] = []
    for name in ("by_agent", "by_consumer", "by_system", "total", "handling"):
        known = [number for day in days if (number := getattr(day, name)) is not None]
        sums.append(sum(known) if known else None)
    return Day(day, part, *[*sums, hour])


def _totals(days: Sequence[Day], part: Part) -> list[Day]:
    """Return the sums of each day, or hour, in order of time."""
    found: dict[tuple[date, int | None], list[Day]] = {}
    for day in days:
        found.setdefault(day.period, []).append(day)
    return [total(found[day, hour], day, part, hour) for day, hour in sorted(found)]


def read(
    store: Store,
    days: int | None = None,
    *,
    accounts: Collection[str] = (),
    by: By | None = None,
    hourly: bool = False,
    zone: tzinfo = UTC,
) -> History:
    """Read a history.

    Args:
        store: The store that holds it.
        days: How many days back from the newest; None reads them all.
        accounts: The ids of the accounts to read; of none, all are read.
        by: What to tell apart; None is the skills of an account that is the only one, and
            otherwise the accounts.
        hourly: Add up hours instead of days.
        zone: The time zone of the days, such as ``zoneinfo.ZoneInfo("Europe/Berlin")``.

    Raises:
        ConfigurationError: Nothing was collected there yet, or nothing of one of the accounts.
        StoreFailed: It cannot be read.
    """
    with store.reading() as dataset:
        source = _Source(dataset, frozenset(accounts))
        return _read(source, days, by, zone, hourly=hourly)


def _read(
    source: _Source, days: int | None, by: By | None, zone: tzinfo, *, hourly: bool
) -> History:
    # If all rows lie ahead of the clock, the clock is wrong.
    for until in (datetime.now(UTC) + DAY, _LATEST):
        by_skill, by_account = (
            source.spans(table, until) for table in (SKILL_METRICS, ACCOUNT_METRICS)
        )
        spans = [*by_skill.items(), *by_account.items()]
        if spans:
            break
    if unknown := sorted(source.accounts - {account for account, _ in spans}):
        raise ConfigurationError(
            f"nothing was collected of account {', '.join(map(short, unknown))}"
        )
    if not spans:
        raise ConfigurationError(
            f"dataset {source.dataset.dataset_name!r} holds neither skills nor account totals yet"
        )
    first = min(start for _, (start, _) in spans).astimezone(zone).date()
    last = (max(end for _, (_, end) in spans) - BUCKET).astimezone(zone).date()
    if days is not None:
        first = last - min(days - 1, (last - first) // DAY) * DAY
    since = midnight(first, zone)
    local = _local(zone, since, midnight(last + DAY, zone))
    accounts = sorted({account for account, (_, end) in spans if end > since})
    coverage = _Coverage(
        zone,
        by_skill,
        by_account,
        {
            (account, _date(day)): buckets
            for account, day, buckets in source.select(
                _FOUND, ACCOUNT_METRICS.name, until, since=since, period=_number_of(DAY, local)
            )
        },
        [
            (account, _instant(start), _instant(min(end, until.timestamp())))
            for account, start, end in source.select(_GAPS, "collection_gaps", until, since=since)
        ],
    )
    partial = {
        day: lacking
        for day in _calendar(first, last)
        if (lacking := sum(not coverage.whole(account, day) for account in accounts))
    }
    by = by or ("skill" if len(accounts) == 1 else "account")
    return History(
        tuple(accounts),
        first,
        last,
        tuple(
            sorted(
                source.sums(by, since, until, local, hourly=hourly),
                key=lambda day: (day.day, day.hour or 0, day.part.account_id or ""),
            )
        ),
        partial,
        sum(
            int(count)
            for table in (SKILL_METRICS, ACCOUNT_METRICS)
            for (count,) in source.select(_AHEAD, table.name, until)
        ),
        by,
        hourly,
        str(zone),
    )


def _local(zone: tzinfo, start: datetime, end: datetime) -> str:
    """Return the SQL of a row's seconds since 1970 by a zone's clocks: of numbers alone."""
    found = offsets(zone, start, end)
    shift = f"{found[-1][1].total_seconds():.0f}"
    if len(found) > 1:
        cases = " ".join(
            f"WHEN {_START} < {change.timestamp():.0f} THEN {offset.total_seconds():.0f}"
            for (_, offset), (change, _) in pairwise(found)
        )
        shift = f"CASE {cases} ELSE {shift} END"
    return f"({_START} + {shift})"


def _number_of(size: timedelta, local: str) -> str:
    """Return the SQL that numbers the periods of a size."""
    return f"CAST(FLOOR({local} / {size.total_seconds():.0f}) AS BIGINT)"


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


class _Source(msgspec.Struct, frozen=True):
    """The tables of a dataset, and the accounts whose rows are read; of none, all are."""

    dataset: dlt.Dataset
    accounts: frozenset[str]

    def spans(self, table: Table, until: datetime) -> dict[str, _Span]:
        """Return the first and the last instant of each account in a table."""
        return {
            account: (_instant(start), _instant(end))
            for account, start, end in self.select(_SPANS, table.name, until)
        }

    def sums(
        self, by: By, since: datetime, until: datetime, local: str, *, hourly: bool
    ) -> Iterator[Day]:
        """Yield the sums of what is told apart, and then of accounts."""

        def added(table: Table, id_: str = "NULL") -> Iterator[Day]:
            period = _number_of(_HOUR if hourly else DAY, local)
            for number, account, part, *sums in self.select(
                _SUMS, table.name, until, since=since, period=period, id=id_
            ):
                day, hour = divmod(int(number), 24) if hourly else (int(number), None)
                yield Day(
                    _date(day),
                    Part(account, None if part is None else int(part)),
                    *[None if sum_ is None else int(sum_) for sum_ in (*sums, hour)],
                )

        if by == "skill":
            yield from added(SKILL_METRICS, "skill_id")
        elif by == "agent":
            yield from added(AGENT_METRICS, "agent_id")
        totals = list(added(ACCOUNT_METRICS))
        yield from totals
        if by == "account":  # what has no totals has skills
            known = {day.part for day in totals}
            yield from (day for day in added(SKILL_METRICS) if day.part not in known)

    def select(
        self,
        sql: str,
        table: str,
        until: datetime,
        *,
        since: datetime = EPOCH,
        period: str = "",
        id: str = "",  # noqa: A002 - it names the column
    ) -> list[tuple[Any, ...]]:
        """Return the rows that a query of a table finds; none if nothing was ever stored in it."""
        dataset = self.dataset
        if table not in dataset.schema.data_table_names(seen_data_only=True):
            return []
        dialect, client = dataset.destination_dialect, dataset.sql_client
        # Translated here, and not by dataset.query(): that finds no columns with sqlglot 30.
        query = sqlglot.parse_one(
            sql.format(table=table, since=since, until=until, period=period, id=id),
            read="postgres",
            into=exp.Select,
        )
        if self.accounts:
            query = query.where(exp.column("account_id").isin(*sorted(self.accounts)))
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
