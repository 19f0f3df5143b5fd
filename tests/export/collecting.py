"""What tests of collecting share: a world to collect from, and what really happened in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias

import duckdb
import psycopg2
import pyarrow.dataset  # type: ignore[import-untyped]
from aiohttp import web
from anyio.from_thread import start_blocking_portal

from msgconv_async import Account, ClientCredentials, ConversationSession, RetryPolicy
from msgconv_async.export.rows import TABLES
from msgconv_async.protocol.buckets import BUCKET, floor
from msgconv_async.sandbox import (
    CLIENT_ID,
    CLIENT_SECRET,
    Clock,
    Conversation,
    Sandbox,
    Synthetic,
)

NOON = datetime(2026, 3, 4, 12, 2, tzinfo=UTC)
DAY = timedelta(days=1)

KEYS = {table.name: table.key for table in TABLES} | {
    "collection_gaps": ("account_id", "gap_start")
}
FIGURES = (
    *(f"resolved_conversations_by_{who}" for who in ("ccp", "consumer", "system")),
    "total_resolved_conversations",
    *(f"total_handling_time_resolved_conversations_by_{who}" for who in ("ccp", "consumer")),
    "total_handling_time_resolved_conversations_by_system",
    "total_handling_time_resolved_conversations",
)

Key: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = dict[Key, tuple[int, ...]]
"""Whole figures by key; a key that stands there twice is an error."""


class World:
    """A sandbox on an event loop in a thread of its own, for what is not asynchronous.

    Args:
        accounts: How many.
    """

    def __init__(self, accounts: int = 2) -> None:
        self._clock = Clock(NOON)
        events = Synthetic(conversations_per_day=300, skills=3, agents=4)
        self.sandbox = Sandbox(accounts=accounts, events=events, clock=self._clock)
        self.ids = self.sandbox.account_ids
        credentials = ClientCredentials(CLIENT_ID, CLIENT_SECRET)
        self.accounts = [Account(each, credentials) for each in self.ids]
        self._failing: Iterator[bool] = iter(())

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(self.portal.wrap_async_context_manager(self.sandbox))
            self.portal.call(self._clock)  # it runs from now on
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def session(self) -> ConversationSession:
        """Return a session that does not wait for what fails."""
        return ConversationSession(base_url=self.sandbox.url, retry=RetryPolicy(waits=()))

    def now(self) -> datetime:
        """Return the time that the sandbox's clock shows."""
        return self.portal.call(self._clock)

    def advance(self, by: timedelta) -> None:
        """Move the sandbox's clock."""
        self.portal.call(self._clock.advance, by)

    def add(self, *conversations: Conversation) -> None:
        """Let conversations come late."""
        self.portal.call(self.sandbox.add, *conversations)

    def replace(self, old: Conversation, new: Conversation) -> None:
        """Let a conversation that was added become another."""
        self.sandbox._added[old.account].remove(old)
        self.add(new)

    def fail(self, failing: Iterable[bool]) -> None:
        """Fail the metrics requests for which this says so, in their order; then no more."""
        self._failing = iter(failing)

        async def fault(request: web.Request) -> web.StreamResponse | None:
            if request.path.endswith("/msgconversation") and next(self._failing, False):
                return web.Response(status=503)
            return None

        self.sandbox.fault = fault

    def truth(self, start: datetime, end: datetime) -> dict[str, Rows]:
        """Return every row that the tables must hold for the buckets from start to end."""
        sums: dict[str, defaultdict[Key, list[int]]]
        sums = {table.name: defaultdict(lambda: [0] * 8) for table in TABLES}
        for account_id in self.ids:
            edge = floor(start) + BUCKET
            while edge <= end:
                _ = sums["account_metrics"][account_id, edge]  # there is a row of zeros as well
                edge += BUCKET
            resolved = self.portal.call(
                partial(self.sandbox.resolved, account_id, floor(start), floor(end))
            )
            for each in resolved:
                key = account_id, floor(each.resolved_at) + BUCKET
                for name, part in {
                    "account_metrics": (),
                    "skill_metrics": (each.skill,),
                    "agent_metrics": (each.agent,),
                    "skill_agent_metrics": (each.skill, each.agent),
                }.items():
                    figures = sums[name][(*key, *part)]
                    place = ("CCP", "consumer", "system").index(each.resolved_by)
                    for at, amount in ((place, 1), (place + 4, each.handling_time_ms)):
                        figures[at] += amount
                        figures[at // 4 * 4 + 3] += amount
        return {
            name: {key: tuple(figures) for key, figures in rows.items()}
            for name, rows in sums.items()
        }


def by_key(table: str, columns: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> Rows:
    """Return rows by their key, having seen that none is there twice."""
    columns = list(columns)
    keys = [columns.index(each) for each in KEYS[table]]
    figures = [columns.index(each) for each in FIGURES if each in columns]
    found: Rows = {}
    for row in rows:
        key = tuple(_utc(row[each]) for each in keys)
        assert key not in found, f"{table}: {key} is there twice"
        found[key] = tuple(row[each] for each in figures)
    return found


def _utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def in_duckdb(path: Path, dataset: str = "conversations") -> dict[str, Rows]:
    """Return what a DuckDB file holds."""
    with closing(duckdb.connect(str(path), read_only=True)) as connection:
        found = {}
        for table in KEYS:
            rows = connection.execute(f"SELECT * FROM {dataset}.{table}")  # noqa: S608 - ours
            columns = [each[0] for each in rows.description or ()]
            found[table] = by_key(table, columns, rows.fetchall())
    return found


def in_postgres(address: str, dataset: str = "conversations") -> dict[str, Rows]:
    """Return what a PostgreSQL database holds."""
    with closing(psycopg2.connect(address)) as connection, connection.cursor() as cursor:
        found = {}
        for table in KEYS:
            cursor.execute(f"SELECT * FROM {dataset}.{table}")  # noqa: S608 - ours
            columns = [each[0] for each in cursor.description or ()]
            found[table] = by_key(table, columns, cursor.fetchall())
    return found


def in_parquet(folder: Path) -> dict[str, Rows]:
    """Return what a folder of Parquet files holds."""
    found = {}
    for table in KEYS:
        rows = pyarrow.dataset.dataset(folder / table, format="parquet").to_table()
        columns = rows.column_names
        found[table] = by_key(table, columns, zip(*rows.to_pydict().values(), strict=True))
    return found
