"""Rows as lines: CSV, or JSON objects (NDJSON). Times are in UTC, as JSON has them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from io import StringIO

import msgspec

from msgconv_async import checks
from msgconv_async.export.rows import METRICS, Row, Table, Value, intervals
from msgconv_async.protocol.report import ConversationReport

_METRICS = slice(-1 - len(METRICS), -1)
"""The place of a row's metrics: they are numbers, and need no conversion."""

_ENCODER = msgspec.json.Encoder()


def file_rows(table: Table, account_id: str, report: ConversationReport) -> Iterator[Row]:
    """Yield a report's rows as `Table.rows` does, each with `COMPLETE` as its last value."""
    checks.text("account_id", account_id, "the id of the report's account, as a string")
    for interval in intervals(report):
        for row in table.flatten(account_id, interval):
            yield (*row, interval.complete)


def csv_header(columns: Sequence[str]) -> bytes:
    """Return the first line of CSV: the names of the columns."""
    return f"{','.join(columns)}\n".encode()


def csv_lines(rows: Iterable[Row]) -> bytes:
    """Return rows as lines of CSV, without a header; None is an empty cell.

    Args:
        rows: Their last columns are the metrics and `COMPLETE`.
    """
    text = StringIO()
    cell = cache(_cell)  # the same few edges of intervals stand in all the rows
    csv.writer(text, lineterminator="\n").writerows(
        (*map(cell, row[: _METRICS.start]), *row[_METRICS], cell(row[-1])) for row in rows
    )
    return text.getvalue().encode()


def _cell(value: Value) -> Value:
    """Write a datetime and a truth value as the JSON formats do."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value.replace(tzinfo=None).isoformat()}Z" if isinstance(value, datetime) else value


def ndjson_lines(columns: Sequence[str], rows: Iterable[Row]) -> bytes:
    """Return rows as JSON objects, one a line, with the columns as their keys."""
    return _ENCODER.encode_lines(dict(zip(columns, row, strict=True)) for row in rows)
