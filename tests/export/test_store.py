from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg2
import pytest
from dlt.destinations.impl.filesystem.filesystem import FilesystemClient

from msgconv_async.errors import ConfigurationError
from msgconv_async.export.destination import StoreFailed, StoreInUse, destination
from msgconv_async.export.pipeline import Reader, conversation_metrics
from msgconv_async.export.store import Store
from msgconv_async.protocol.buckets import BUCKET, floor
from tests.export.collecting import DAY, NOON, World, in_parquet, in_postgres

EDGE = floor(NOON)


def collect(world: World, store: Store) -> None:
    with Reader(world.session) as reader:
        store.load(conversation_metrics(world.accounts, reader=reader, append=not store.merges))


def where(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """Return a new place of a kind, as the command line takes it."""
    if kind == "postgres":
        monkeypatch = request.getfixturevalue("monkeypatch")
        monkeypatch.setenv(
            "DESTINATION__POSTGRES__CREDENTIALS", request.getfixturevalue("database")
        )
        return "postgres"
    return f"{kind}:{folder / 'place'}"


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nosuch", "destination 'nosuch': dlt has no destination of that name, try"),
        ("postgres:postgresql://me:hush@host/db", "destination 'postgres' takes no location"),
        ("postgresql://x", "dlt has no destination of that name, did you mean postgres?"),
        ("duckdb::memory:", "a database in memory is lost when the program ends: name a file"),
        ("postgres", "destination 'postgres' needs credentials: .*POSTGRES__CREDENTIALS"),
        ("filesystem", "destination 'filesystem' needs bucket_url: .*FILESYSTEM__BUCKET_URL"),
        ("filesystem:nosuch://x", "destination 'filesystem': Protocol not known: nosuch"),
        ("duckdb:conversations.duckdb", "dataset 'conversations': DuckDB cannot tell it from its"),
    ],
)
def test_a_place_that_cannot_be_is_refused_in_a_sentence(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=said) as refused:
        Store(destination(text))
    assert "hush" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_address_without_a_password_is_told_to_lack_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was given, so what to set is not the address."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", "postgresql://me@127.0.0.1:9/db")
    with pytest.raises(
        ConfigurationError,
        match="no password: write user:password@host, or user:@",
    ):
        Store(destination("postgres"))


@pytest.mark.parametrize(
    ("text", "merges"), [("duckdb:x.duckdb", True), ("filesystem:lake", False)]
)
def test_it_is_known_whether_rows_can_be_replaced(text: str, merges: bool) -> None:  # noqa: FBT001
    assert merges == Store(destination(text)).merges


# ---------------------------------------------------------------- one collector at a time


@pytest.mark.parametrize("kind", ["duckdb", "postgres", "filesystem"])
def test_a_second_collector_is_told_of_the_first(
    world: World, tmp_path: Path, request: pytest.FixtureRequest, kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And asks nothing, even if it is another user's, who shares no folder."""
    text = where(kind, tmp_path, request)
    with Store(destination(text)).exclusive():
        for folder in ("dlt", "other"):
            monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / folder))
            with pytest.raises(StoreInUse, match="another collector is at work on"):
                collect(world, Store(destination(text)))
        collect(world, Store(destination(text), "elsewhere"))
    assert 6 == sum(world.sandbox.requests.values())  # of the one that is elsewhere
    collect(world, Store(destination(text)))


# ---------------------------------------------------------------- what cannot be written


def test_a_database_that_is_not_there_is_told_in_a_sentence_and_nobody_is_asked(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_database = tmp_path / "text.duckdb"
    no_database.write_text("no database" * 1000)
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", "postgresql://me:hush@127.0.0.1:9/db")
    for text, said in {
        "postgres": "port 9 failed: Connection refused",
        f"duckdb:{no_database}": "not a valid DuckDB database file",
        "filesystem:/proc/nowhere": "/proc/nowhere",
    }.items():
        with pytest.raises(StoreFailed, match=said) as failed:
            collect(world, Store(destination(text)))
        assert "\n" not in str(failed.value)
        assert "hush" not in str(failed.value)
    assert not world.sandbox.requests


def test_postgresql_holds_the_keys_itself(
    world: World, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes there besides: a key cannot be there twice."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", database)
    collect(world, Store(destination("postgres")))
    before = in_postgres(database)["skill_metrics"]
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.UniqueViolation):
            cursor.execute(
                "INSERT INTO conversations.skill_metrics"
                " SELECT * FROM conversations.skill_metrics LIMIT 1"
            )
    assert before


# ---------------------------------------------------------------- files of half a load


@pytest.fixture
def lake(world: World, tmp_path: Path) -> Path:
    """Return a folder that a load has been written to."""
    collect(world, Store(destination(f"filesystem:{tmp_path / 'lake'}")))
    return tmp_path / "lake" / "conversations"


def check(world: World, lake: Path, end: datetime) -> None:
    """See that the files hold every bucket up to then, once."""
    found = in_parquet(lake)
    found.pop("collection_gaps")
    assert world.truth(EDGE - DAY, end) == found


@pytest.mark.parametrize("step", ["_store_current_state", "_store_load"])
def test_files_of_a_load_that_fails_are_removed(
    world: World, lake: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """At once: before the state was stored, or after, when dlt would go by it."""
    store = Store(destination(f"filesystem:{lake.parent}"))
    world.advance(4 * BUCKET)

    def cut(*_: Any) -> None:
        raise OSError("cut short")

    with monkeypatch.context() as patch:
        patch.setattr(FilesystemClient, step, cut)
        with pytest.raises(StoreFailed, match="cut short"):
            collect(world, store)
    check(world, lake, EDGE - 3 * BUCKET)
    collect(world, store)
    check(world, lake, EDGE + BUCKET)


def test_files_of_a_load_that_was_killed_are_removed_by_the_next(world: World, lake: Path) -> None:
    """Rows, the state that came with them, and what was opened and never written."""
    later = f"{time.time() - 0.001:.6f}"
    [rows] = (lake / "account_metrics").iterdir()
    shutil.copy(rows, rows.with_name(f"{later}.half.parquet"))
    [state] = (lake / "_dlt_pipeline_state").iterdir()
    shutil.copy(state, state.with_name(f"msgconv__{later}__ab.jsonl"))
    (lake / "_dlt_loads" / f"msgconv__{later}.jsonl").touch()
    world.advance(4 * BUCKET)
    collect(world, Store(destination(f"filesystem:{lake.parent}")))
    check(world, lake, EDGE + BUCKET)


def test_nothing_is_removed_when_it_is_not_known_what_is_whole(world: World, lake: Path) -> None:
    """As after a copy by something that leaves out what begins with an underscore."""
    store = Store(destination(f"filesystem:{lake.parent}"))
    world.advance(4 * BUCKET)
    collect(world, store)
    shutil.rmtree(lake / "_dlt_loads")
    with pytest.raises(StoreFailed, match="no _dlt_loads, which lists those that are whole"):
        collect(world, store)
    check(world, lake, EDGE + BUCKET)


# ---------------------------------------------------------------- what would be lost in silence


@pytest.mark.parametrize("kind", ["duckdb", "postgres", "filesystem"])
def test_a_clock_that_is_behind_the_last_load_is_told_of(
    world: World, tmp_path: Path, request: pytest.FixtureRequest, kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """For dlt goes by it: what is loaded now would not count as newer."""
    store = Store(destination(where(kind, tmp_path, request)))
    collect(world, store)
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("msgconv_async.export.store.time.time", lambda: now - 3600)
        with pytest.raises(StoreFailed, match=r"this machine's clock is (1:00:0|0:59:5)\d behind"):
            collect(world, store)
    collect(world, store)


def test_a_lock_that_broke_is_noticed_before_anything_is_loaded(
    world: World, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL gives it up with its connection, and somebody else may have it by now."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", database)
    store = Store(destination("postgres"))

    def cut(_: object) -> None:
        with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            )

    with Reader(world.session) as reader:
        source = conversation_metrics(world.accounts, reader=reader, watch=cut)
        with pytest.raises(StoreFailed, match=r"terminat|closed"):
            store.load(source)
    collect(world, store)
    assert 3 * 288 == len(in_postgres(database)["account_metrics"])


def test_of_where_collecting_stood_a_few_are_kept(
    world: World, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are 288 a day."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", database)
    monkeypatch.setattr("msgconv_async.export.backends.base._STATES", 2)
    for _ in range(5):
        collect(world, Store(destination("postgres")))
        world.advance(BUCKET)
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM conversations._dlt_pipeline_state")
        assert [(3,)] == cursor.fetchall()
    assert 3 * 292 == len(in_postgres(database)["account_metrics"])


@pytest.mark.parametrize(
    "address",
    [
        "postgressql://me:hush@127.0.0.1:9/db",
        "postgresql+psycopg2://me:hush@127.0.0.1:9/db",
        "postgresql://me:pa@hush@127.0.0.1:9/db",
        "postgresql://me:pa%40hush@127.0.0.1:9/db?sslmode=hush",
        "hush",
    ],
)
def test_no_error_shows_a_password(
    world: World, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """However wrong the address is."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", address)
    with pytest.raises((ConfigurationError, StoreFailed)) as failed:
        collect(world, Store(destination("postgres")))
    assert "pa@hush" not in str(failed.value)
    assert "hush@" not in str(failed.value)
    assert ":hush" not in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_place_shows_no_user() -> None:
    """It may hold a password."""
    with pytest.raises(ConfigurationError, match="may hold no user or password"):
        destination("filesystem:https://me:hush@host/lake")
    assert "filesystem" == destination("filesystem:file:///tmp/a@b").destination_name


# ---------------------------------------------------------------- dlt reports to nobody

PROGRAM = """
from msgconv_async.export.destination import destination, set_defaults
from msgconv_async.export.store import Store
import dlt
set_defaults()
dlt.pipeline("p", destination=dlt.destinations.duckdb("x.duckdb"), pipelines_dir=".").run(
    [{"a": 1}], table_name="t"
)
"""


@pytest.mark.parametrize("wanted", [None, "true"])
def test_dlt_tells_nobody_of_its_use_unless_it_is_wanted(
    tmp_path: Path, wanted: str | None
) -> None:
    reports = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reports.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    environment = {} if wanted is None else {"RUNTIME__DLTHUB_TELEMETRY": wanted}
    with HTTPServer(("127.0.0.1", 0), Listener) as listener:
        thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            subprocess.run(  # noqa: S603
                [sys.executable, "-c", PROGRAM],
                check=True,
                cwd=tmp_path,
                env={
                    "PYTHONPATH": str(Path(__file__).parents[2]),
                    "DLT_DATA_DIR": str(tmp_path),
                    "RUNTIME__DLTHUB_TELEMETRY_ENDPOINT": f"http://127.0.0.1:{listener.server_port}",
                    **environment,
                },
            )
        finally:
            listener.shutdown()
            thread.join()
    assert (wanted is not None) == bool(reports)
