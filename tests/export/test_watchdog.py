"""A database that stops answering in the middle of a statement is told, and holds nobody."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest

from msgconv_async.export.backends.watchdog import watched
from tests.export.postgres import postgres


@contextmanager
def stopped(address: str) -> Iterator[None]:
    """Stop the server and all that serves its connections, as SIGSTOP does."""
    with closing(psycopg2.connect(address)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity")
        processes = [pid for (pid,) in cursor.fetchall()]
        cursor.execute("SHOW data_directory")
        (folder,) = cursor.fetchone() or ("",)
    processes.append(int((Path(folder) / "postmaster.pid").read_text().split()[0]))
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_a_server_that_stops_in_the_middle_of_a_statement_holds_nobody() -> None:
    """Whoever waits for it fails within seconds, and may try again later."""
    with postgres() as address, watched(address, every=0.2, patience=2):
        with closing(psycopg2.connect(address)) as connection, connection.cursor() as cursor:
            began = time.monotonic()
            with stopped(address), pytest.raises(psycopg2.OperationalError):
                cursor.execute("SELECT pg_sleep(0.1)")
            assert time.monotonic() - began < 10


def test_a_statement_that_takes_long_is_waited_for() -> None:
    """A server that works on something grants connections meanwhile."""
    with postgres() as address, watched(address, every=0.1, patience=1):
        with closing(psycopg2.connect(address)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(2)")
            assert 1 == cursor.rowcount
    assert "psycopg2" == psycopg2.connect.__module__
