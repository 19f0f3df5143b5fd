"""A history as it is collected, made by dlt itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt

from msgconv_async.export import METRICS, TABLES, TYPES, Table
from msgconv_async.export.destination import Destination
from msgconv_async.protocol.buckets import BUCKET

_TYPES = {str: "text", int: "bigint", float: "double", datetime: "timestamp"}


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    """Return an instant of March 2026, in UTC."""
    return datetime(2026, 3, 1, hour, minute, tzinfo=UTC) + (day - 1) * timedelta(days=1)


def row(
    account_id: str,
    start: datetime,
    counts: tuple[int | None, int | None, int | None] = (0, 0, 0),
    handling: int | None = 0,
    **key: int,
) -> dict[str, Any]:
    """Return a row of ``account_metrics`` or, with a skill's or an agent's id, of its table."""
    known = [each for each in counts if each is not None]
    figures = [*counts, sum(known) if known else None, None, None, None, handling, *[None] * 4]
    return {
        "account_id": account_id,
        "interval_end": start + BUCKET,
        **key,
        "interval_start": start,
        **dict(zip(METRICS, figures, strict=True)),
    }


def quiet(account_id: str, day: int, buckets: range = range(288)) -> list[dict[str, Any]]:
    """Return account totals of zeros, one for each of a day's buckets."""
    return [row(account_id, at(day) + number * BUCKET) for number in buckets]


def gap(account_id: str, start: datetime, end: datetime) -> dict[str, Any]:
    """Return a row of ``collection_gaps``."""
    return {"account_id": account_id, "gap_start": start, "gap_end": end}


def store(
    destination: Destination,
    working: Path,
    tables: Mapping[str, Iterable[Mapping[str, Any]]],
    form: Any = None,
) -> None:
    """Store rows by the names of their tables."""
    pipeline = dlt.pipeline(
        "collected",
        destination=destination,
        dataset_name="conversations",
        pipelines_dir=str(working),
    )
    hints = {table.name: _hints(table) for table in TABLES}
    resources = [
        dlt.resource(list(rows), name=name, columns=hints.get(name, {}))
        for name, rows in tables.items()
    ]
    pipeline.run(resources, loader_file_format=form)


def _hints(table: Table) -> Any:
    return {
        name: {"data_type": _TYPES[TYPES[name]], "nullable": name not in table.key}
        for name in table.columns
    }
