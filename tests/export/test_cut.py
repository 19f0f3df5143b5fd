"""Connections to PostgreSQL that are cut, at every point of a first load and of a later one.

The ordinary run takes every point at which the server commits what it was sent and the collector
does not hear of it, and some of the others; with EVERY_CUT set, it takes all, in some minutes.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from msgconv_async.export.destination import StoreFailed, StoreInUse, destination
from msgconv_async.export.pipeline import Reader, conversation_metrics
from msgconv_async.export.store import Store
from msgconv_async.protocol.buckets import BUCKET, floor
from msgconv_async.sandbox import Conversation
from tests.export.collecting import DAY, KEYS, NOON, World, in_postgres
from tests.export.cutting import NEVER, Cutting

EVERY = bool(os.environ.get("EVERY_CUT"))
PARTS = 16 if EVERY else 1
OTHERS = 2
EDGE = floor(NOON)


class Collecting:
    """A collector of one account, and the proxy that it reaches its database by.

    Args:
        world: What it collects from.
        reader: What it reads with.
        server: The database.
    """

    def __init__(self, world: World, reader: Reader, server: str, cutting: Cutting) -> None:
        self.world = world
        self.cutting = cutting
        self._reader = reader
        self._server = server

    def load(self, cut: int = NEVER) -> None:
        self.cutting.cut(cut)
        store = Store(destination("postgres"))
        store.load(conversation_metrics(self.world.accounts, reader=self._reader))

    def forget(self) -> None:
        """Empty the database."""
        with closing(psycopg2.connect(self._server)) as connection, connection.cursor() as cursor:
            for schema in ("conversations", "conversations_staging"):
                cursor.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
            connection.commit()

    def change(self) -> None:
        """Let a bucket close, and let a conversation come late."""
        late = floor(self.world.now()) - BUCKET / 2
        self.world.add(Conversation(self.world.ids[0], late, 7, "system", 1234))
        self.world.advance(BUCKET)

    def survives(self, cut: int) -> None:
        """See that a load that is cut and one that is not leave every row once, and true."""
        try:
            self.load(cut)
        except StoreFailed as error:
            assert "\n" not in str(error), cut  # noqa: PT017 - it may fail, or go on
        until = time.monotonic() + 10
        while True:
            try:
                self.load()
            except StoreInUse:  # the server may not know yet that the connection is gone
                assert time.monotonic() < until
            else:
                break
        found = in_postgres(self._server)
        assert {} == found.pop("collection_gaps")
        assert self.world.truth(EDGE - DAY, floor(self.world.now())) == found, cut


@pytest.fixture
def collecting(
    database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Collecting]:
    cutting = Cutting(database)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", cutting.address)
    monkeypatch.setenv("LOAD__WORKERS", "1")  # so that messages come in the same order each time
    with World(accounts=1) as world, cutting.running(), Reader(world.session) as reader:
        yield Collecting(world, reader, database, cutting)


def points(messages: Sequence[str]) -> list[int]:
    """Return where to cut, counted from 1: the end of a copy's commit, and elsewhere."""
    if EVERY:
        return list(range(1, len(messages) + 1))
    unheard = [
        number
        for number in range(4, len(messages) + 1)
        if messages[number - 4 : number - 1] == ["c", "Z", "Q COMMIT"]
    ]
    assert len(unheard) == 5, messages
    return sorted({*unheard, *random.Random(len(messages)).sample(range(1, len(messages)), OTHERS)})


@pytest.mark.parametrize("part", range(PARTS))
def test_a_first_load_that_is_cut_anywhere_doubles_nothing(
    collecting: Collecting, part: int
) -> None:
    """A copy whose commit is not heard of is sent again: its rows are staged twice."""
    collecting.load()
    for cut in points(collecting.cutting.seen)[part::PARTS]:
        collecting.forget()
        collecting.survives(cut)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_later_load_that_is_cut_anywhere_doubles_nothing(
    collecting: Collecting, part: int
) -> None:
    collecting.load()
    collecting.change()
    collecting.load()
    for cut in points(collecting.cutting.seen)[part::PARTS]:
        collecting.change()
        collecting.survives(cut)


def test_a_dataset_whose_rows_were_stored_twice_is_mended(
    collecting: Collecting, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As cut connections left it before the tables had their keys from the beginning."""
    collecting.load()
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path = conversations")
        for table in ("account_metrics", "skill_agent_metrics"):
            cursor.execute(f"DROP INDEX {table}_key")
            cursor.execute(f"INSERT INTO {table} SELECT * FROM {table}")  # noqa: S608 - ours
        connection.commit()

    collecting.change()
    collecting.survives(NEVER)

    assert "account_metrics: 288 rows were stored twice, and are kept once" in caplog.text
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'conversations'")
        assert {f"{table}_key" for table in KEYS} <= {name for (name,) in cursor.fetchall()}
