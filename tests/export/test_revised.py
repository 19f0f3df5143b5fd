"""A bucket that the service revised, and that has no row left in a table, has none stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import duckdb
import msgspec
import pytest

from msgconv_async import Account, BearerToken, ConversationSession
from msgconv_async.export import TABLES
from msgconv_async.export.destination import destination
from msgconv_async.export.pipeline import Batch, Emptied, Reader, conversation_metrics
from msgconv_async.export.store import Store

BUCKET = 300_000
ONE = {"totalResolvedConversations": 1}
AGENTS = {"metricsPerAgent": {"9": ONE}, "metricsTotals": ONE}


class Revising(BaseHTTPRequestHandler):
    """Says first that one skill and agent resolved something in each bucket, then that none did."""

    emptied = False

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        data: dict[str, Any] = {}
        if "skillIds" in asked:
            skills = {} if self.emptied else {"7": AGENTS}
            data["skillsMetricsPerAgent"] = {"metricsPerSkill": skills, "metricsTotals": ONE}
        if "agentIds" in asked:
            agents = {"metricsPerAgent": {}, "metricsTotals": ONE} if self.emptied else AGENTS
            data["agentsMetrics"] = agents
        data = data or {"metricsTotals": {"totalResolvedConversations": 0 if self.emptied else 1}}
        newest = (int(time.time() * 1000) // BUCKET + 1) * BUCKET
        ends = [newest - BUCKET * place for place in range(int(asked["timeframe"][0]) // 5 + 1)]
        document = {"metricsByIntervals": [{"timestamp": end, "metricsData": data} for end in ends]}
        body = msgspec.json.encode(document | data)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def revising() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Revising) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def collecting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Yield what collects one account into DuckDB once."""
    monkeypatch.setattr(Revising, "emptied", False)
    monkeypatch.setenv("DLT_DATA_DIR", str(folder / "dlt"))
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    store = Store(destination(f"duckdb:{folder / 'a.duckdb'}"))
    who = [Account("71", BearerToken("t"))]
    with revising() as url, Reader(lambda: ConversationSession(base_url=url)) as reader:

        def collect(**selection: Any) -> None:
            found: list[Emptied] = []

            def watch(batch: Batch) -> None:
                found.extend(batch.emptied)

            store.load(conversation_metrics(who, reader=reader, watch=watch, **selection), found)

        yield collect


def ends(folder: Path, table: str, where: str = "true") -> list[tuple[datetime]]:
    with duckdb.connect(str(folder / "a.duckdb"), read_only=True) as connection:
        found: list[tuple[datetime]] = connection.execute(
            f"SELECT interval_end FROM conversations.{table} WHERE {where}"  # noqa: S608
        ).fetchall()
    return found


def test_rows_of_a_revised_bucket_that_has_none_any_more_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tables tell the same of it."""
    with collecting(tmp_path, monkeypatch) as collect:
        collect()
        Revising.emptied = True
        collect()

    zeros = ends(tmp_path, "account_metrics", "total_resolved_conversations = 0")
    assert 3 <= len(zeros) <= 4
    for table in TABLES[1:]:
        rows = ends(tmp_path, table.name)
        assert 284 <= len(rows)
        assert not set(rows) & set(zeros)


def test_who_tells_less_apart_from_now_on_keeps_what_was_collected_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that is read again lacks rows because they were not asked for."""
    with collecting(tmp_path, monkeypatch) as collect:
        collect()
        before = {table.name: ends(tmp_path, table.name) for table in TABLES[1:]}
        collect(skills=None, agents=None)
        collect(skills=None, agents=None)

    assert all(rows for rows in before.values())
    assert before == {table.name: ends(tmp_path, table.name) for table in TABLES[1:]}
