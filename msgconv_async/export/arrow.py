"""The four tables of `msgconv_async.export.rows` as Arrow tables; needs the extra ``arrow``.

The rows are the same, in the same order. They are made in another way, since tuples are too slow
for a million values a second and more. Metrics are gathered as structs and taken apart all at once.
The account and the time of a row are looked up by the number of its bucket.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from types import MappingProxyType

import pyarrow as pa  # type: ignore[import-untyped]
from msgspec.structs import astuple
from pyarrow import compute

from msgconv_async import checks
from msgconv_async.errors import UnexpectedResponse
from msgconv_async.export.rows import COMPLETE, METRICS, NOT_SENT, TABLES, TYPES, Table, intervals
from msgconv_async.protocol.report import ConversationMetrics, ConversationReport, Interval

_ARROW = {
    str: pa.string(),
    datetime: pa.timestamp("ms", tz="UTC"),
    int: pa.int64(),
    float: pa.float64(),
}

_CODES = {int: "q", float: "d"}
"""The codes by which `struct` packs a type as Arrow holds it, in less than half of Arrow's time."""

_PIECE = 4096
"""Rows that are taken apart at once: their values must still be in the processor's cache when
their turn comes, column by column."""


def _schema(table: Table) -> pa.Schema:
    return pa.schema(
        [pa.field(name, _ARROW[TYPES[name]], nullable=name in METRICS) for name in table.columns]
    )


SCHEMAS: Mapping[str, pa.Schema] = MappingProxyType(
    {table.name: _schema(table) for table in TABLES}
)
"""The columns of each table, by its name: times to the millisecond in UTC, 64-bit integers and
floats. Only a metric may be null."""


def report_tables(account_id: str, report: ConversationReport) -> dict[str, pa.Table]:
    """Return a report's rows, as `to_tables` does.

    Args:
        account_id: The account of the report.
        report: The report. Its newest interval may still have been open: see `Interval.complete`.

    Raises:
        ConfigurationError: An argument is of another type, or the report has no intervals and does
            not know its window.
        UnexpectedResponse: As `to_tables`.
    """
    checks.text("account_id", account_id, "the id of the report's account, as a string")
    return to_tables((account_id, interval) for interval in intervals(report))


def to_tables(buckets: Iterable[tuple[str, Interval]]) -> dict[str, pa.Table]:
    """Return the rows of intervals, of one account or of many.

    Args:
        buckets: Account ids, each with an interval of that account.

    Returns:
        All four tables, by their names. A table has its schema in `SCHEMAS`, and its rows are in
        the order of the intervals. A table is empty if its section was not asked for.

    Raises:
        UnexpectedResponse: An id, a count or a handling time does not fit into 64 bits. The error
            names the value and the account.
        ConfigurationError: ``buckets`` is something else.
    """
    checks.instance("buckets", buckets, Iterable, _PAIRS)
    account_ids: list[str] = []
    starts: list[datetime] = []
    ends: list[datetime] = []
    account, skill, agent, skill_agent = gathered = [_Rows(table, account_ids) for table in TABLES]
    for number, bucket in enumerate(buckets):
        if not _is_bucket(bucket):
            raise checks.refused(f"buckets[{number}]", bucket, "an account id and an Interval")
        account_id, interval = bucket
        account_ids.append(account_id)
        starts.append(interval.start)
        ends.append(interval.end)
        if interval.totals is not None:
            account.add(number, [interval.totals])
        if interval.skills is not None:
            for skill_id, of_skill in interval.skills.per_skill.items():
                if of_skill.totals != NOT_SENT:
                    skill.add(number, [of_skill.totals], [skill_id])
                of_agents = of_skill.per_agent
                skill_agent.add(
                    number, of_agents.values(), [skill_id] * len(of_agents), of_agents.keys()
                )
        if interval.agents is not None:
            of_agents = interval.agents.per_agent
            agent.add(number, of_agents.values(), of_agents.keys())
    of_buckets = {
        "account_id": _array("account_id", account_ids),
        "interval_start": _array("interval_start", starts),
        "interval_end": _array("interval_end", ends),
    }
    return {rows.name: rows.table(of_buckets) for rows in gathered}


_COMPLETE = pa.field(COMPLETE, pa.bool_(), nullable=False)


def complete_schema(name: str) -> pa.Schema:
    """Return the schema of a table with the column ``complete``, as `with_complete` makes it."""
    return SCHEMAS[name].append(_COMPLETE)


def with_complete(rows: pa.Table, report: ConversationReport) -> pa.Table:
    """Add to each of a report's rows whether its interval was complete when it was asked for."""
    still_open = [interval.end for interval in intervals(report) if not interval.complete]
    ends = rows["interval_end"]  # an end belongs to one interval
    found = compute.is_in(ends, value_set=pa.array(still_open, ends.type))
    return rows.append_column(_COMPLETE, compute.invert(found))


_PAIRS = "an iterable of pairs, each an account id and an Interval"


def _is_bucket(given: object) -> bool:
    return (
        isinstance(given, tuple)
        and len(given) == 2  # noqa: PLR2004 - a pair
        and isinstance(given[0], str)
        and isinstance(given[1], Interval)
    )


class _Rows:
    """The rows of one table as they are gathered: numbers of buckets, ids and metrics."""

    def __init__(self, table: Table, account_ids: Sequence[str]) -> None:
        self.name = table.name
        self._account_ids = account_ids
        self._numbers: list[int] = []
        self._ids: dict[str, list[int]] = {name: [] for name in table.key[2:]}
        self._metrics: list[ConversationMetrics] = []
        self._pieces: dict[str, list[pa.Array]] = {name: [] for name in (*self._ids, *METRICS)}

    def add(
        self, number: int, metrics: Collection[ConversationMetrics], *ids: Iterable[int]
    ) -> None:
        """Add rows of one bucket."""
        self._numbers += [number] * len(metrics)
        self._metrics += metrics
        for column, more in zip(self._ids.values(), ids, strict=True):
            column.extend(more)
        if len(self._metrics) >= _PIECE:
            self._convert()

    def table(self, of_buckets: Mapping[str, pa.Array]) -> pa.Table:
        """Return the rows, with the account and the times of their buckets."""
        self._convert()
        numbers = pa.array(self._numbers, pa.int64())
        columns = {name: values.take(numbers) for name, values in of_buckets.items()}
        columns |= {name: pa.chunked_array(pieces) for name, pieces in self._pieces.items()}
        return pa.table(columns, SCHEMAS[self.name])

    def _convert(self) -> None:
        """Turn the rows that were added since the last call into columns."""
        figures = list(chain.from_iterable(map(astuple, self._metrics)))
        values: dict[str, Sequence[float | None]] = {
            **self._ids,
            **{name: figures[place :: len(METRICS)] for place, name in enumerate(METRICS)},
        }
        for name, column in values.items():
            try:
                self._pieces[name].append(_array(name, column))
            except OverflowError:
                place, value = next(
                    (place, value)
                    for place, value in enumerate(column, -len(column))
                    if value is not None and not -(2**63) <= value < 2**63
                )
                raise UnexpectedResponse(
                    f"{self.name} cannot hold {name}={value}: it does not fit into 64 bits",
                    account_id=self._account_ids[self._numbers[place]],
                ) from None
        self._metrics.clear()
        for ids in self._ids.values():
            ids.clear()


def _array(name: str, values: Sequence[object]) -> pa.Array:
    of = _ARROW[TYPES[name]]
    if code := _CODES.get(TYPES[name]):
        with suppress(struct.error):  # a value is None or does not fit: Arrow handles both
            packed = struct.pack(f"{len(values)}{code}", *values)
            return pa.Array.from_buffers(of, len(values), [None, pa.py_buffer(packed)])
    return pa.array(values, of)
