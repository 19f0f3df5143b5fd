"""A store of checkpoints: what moved is written, and whatever ends in between, none is lost."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from msgconv_async import (
    Checkpoint,
    CheckpointStore,
    ConfigurationError,
    Failure,
    Following,
    Move,
    MsgConvError,
)
from msgconv_async.client.many.checkpoint import Item, Position
from msgconv_async.protocol.buckets import BUCKET, floor
from msgconv_async.sandbox import Clock, Sandbox
from tests.client.following import EDGE, SKILLS, Service, many

AT_ONCE = timedelta()
FRAME = 1024 + 24
"""Bytes of one page in SQLite's journal."""
HEADER = 32
"""Bytes of the journal before the first page."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.db"


class Job:
    """A job that runs again and again, and stores where it stands."""

    def __init__(self, path: Path, count: int = 2) -> None:
        self.path = path
        self.accounts = many(count)
        self.service = Service()
        self.last: Following | None = None

    async def run(
        self, store: CheckpointStore, *, each: int = 1, limit: int | None = None
    ) -> list[Item]:
        """Take what is new, and save after so many items; stop short at a limit."""
        since: Any = await store.load()
        if since is None:
            since = self.service.now() - 3 * BUCKET
        found: list[Item] = []
        async with self.service.follow(self.accounts, since=since, over=AT_ONCE) as closed:
            self.last = closed
            async for item in closed:
                found.append(item)
                if len(found) % each == 0:
                    await store.save(closed)
                if len(found) == limit:
                    return found
        await store.save(closed)
        return found

    def later(self) -> None:
        """Let five minutes go by."""
        self.service.moved += BUCKET


def buckets(items: Iterable[Any]) -> list[tuple[str, datetime]]:
    return [(item.account.id, item.interval.end) for item in items]


async def test_what_was_saved_is_loaded(path: Path) -> None:
    """A new store knows nothing; afterwards it holds all that the checkpoint holds."""
    job = Job(path)
    async with CheckpointStore(path) as store:
        assert await store.load() is None
        await job.run(store)
        assert job.last is not None
        assert job.last.checkpoint == await store.load()
    async with CheckpointStore(path) as store:
        assert job.last.checkpoint == await store.load()


@pytest.mark.parametrize("each", [1, 3, 1000])
async def test_a_job_goes_on_where_it_was_saved(path: Path, each: int) -> None:
    """However many items one transaction holds, no bucket is left out or comes twice."""
    job, found = Job(path, 5), []
    for _ in range(4):
        async with CheckpointStore(path) as store:
            found += await job.run(store, each=each)
        job.later()
    assert 5 * (3 + 3) == len(found) == len(set(buckets(found)))


async def test_what_was_not_saved_comes_again(path: Path) -> None:
    """Nine items are taken and eight saved."""
    job = Job(path, 3)
    async with CheckpointStore(path) as store:
        await job.run(store, each=8, limit=8)
    assert job.last is not None
    async with CheckpointStore(path) as store:
        assert job.last.checkpoint == await store.load()
        rest = await job.run(store)
    assert 1 == len(rest)


async def test_an_account_that_is_left_out_keeps_its_place(path: Path) -> None:
    """One is added, one is left out and comes back: it misses nothing."""
    job, found = Job(path), []
    accounts = many(3)
    for followed in (accounts[:2], accounts[1:], accounts):
        job.accounts = followed
        async with CheckpointStore(path) as store:
            found += await job.run(store)
        job.later()
    per_account = Counter(account_id for account_id, _ in buckets(found))
    assert len(found) == len(set(buckets(found)))
    assert {"0": 5, "1": 5} == {id_: per_account[id_] for id_ in "01"}
    assert 280 < per_account["2"]


async def test_a_save_writes_what_moved_however_many_accounts_there_are(path: Path) -> None:
    """One page of the journal, with ten accounts and with two thousand."""
    for count in (10, 2000):
        job = Job(path.with_name(f"{count}.db"), count)
        async with CheckpointStore(job.path) as store:
            await job.run(store, each=500)
        job.later()
        async with CheckpointStore(job.path) as store:
            since = await store.load()
            async with job.service.follow(job.accounts, since=since, over=AT_ONCE) as closed:
                for _ in range(5):
                    await anext(closed)
                    await store.save(closed)
                    await store.save(closed)  # nothing moved: nothing is written
            assert 5 * FRAME + HEADER == _journal(job.path)


def _journal(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


async def test_a_checkpoint_from_elsewhere_moves_into_the_store(path: Path) -> None:
    """Whoever kept a whole checkpoint hands that one over; all of it is in the first save."""
    job = Job(path, 3)
    async with job.service.follow(
        job.accounts, since=job.service.now() - BUCKET, over=AT_ONCE
    ) as closed:
        async for _ in closed:
            pass
    old = Checkpoint.from_json(closed.checkpoint.to_json())
    job.later()
    async with CheckpointStore(path) as store:
        async with job.service.follow(job.accounts[:1], since=old, over=AT_ONCE) as closed:
            await anext(closed)
            await store.save(closed)
        assert closed.checkpoint == await store.load()
    assert {"0", "1", "2"} == closed.checkpoint.accounts.keys()


async def test_where_to_begin_is_stored_with_the_first_item(path: Path) -> None:
    """An instant that all were to begin at holds for accounts whose turn did not come before."""
    job = Job(path, 3)
    begin = job.service.now() - timedelta(hours=2)
    async with CheckpointStore(path) as store:
        async with job.service.follow(job.accounts, since=begin, over=AT_ONCE) as closed:
            await anext(closed)
            await store.save(closed)
        stored = await store.load()
    assert stored == closed.checkpoint
    assert {"0", "1", "2"} == stored.accounts.keys()


async def test_moves_put_together_are_the_checkpoint(path: Path) -> None:
    """Whoever has a database keeps the last move of each account there, as text."""
    job = Job(path, 4)
    kept: dict[str, str] = {}
    async with job.service.follow(job.accounts, over=AT_ONCE) as closed:
        assert closed.moved is None
        async for item in closed:
            assert closed.moved is not None
            assert item.account.id == closed.moved.account_id
            kept[item.account.id] = closed.moved.to_json()
    together = Checkpoint.of(Move.from_json(text) for text in kept.values())
    assert closed.checkpoint == together
    assert 350 > max(len(text) for text in kept.values())


async def test_a_failure_moves_an_account_nowhere() -> None:
    """Neither one that was never taken from, nor one that was."""
    service = Service()
    service.failing = {"0"}
    async with service.follow(many(1), over=AT_ONCE) as closed:
        assert isinstance(await anext(closed), Failure)
        assert closed.moved is not None
        assert closed.moved.position is None
    old = Checkpoint.of([Move("0", closed.checkpoint.query, Position(EDGE))])
    async with service.follow(many(1), since=old, over=AT_ONCE) as closed:
        assert isinstance(await anext(closed), Failure)
        assert closed.moved is not None
        assert Position(EDGE) == closed.moved.position


async def test_each_move_is_told_once_to_whoever_asks_with_the_number_before() -> None:
    service, told = Service(), list[str]()
    since = floor(service.now()) - BUCKET
    async with service.follow(many(3), since=since, over=AT_ONCE) as closed:
        until = closed.moves().until
        async for item in closed:
            moves, until = closed.moves(until)
            assert item.account.id in {move.account_id for move in moves}
            told += [move.account_id for move in moves if move.position != Position(since)]
        assert ([], until) == closed.moves(until)
        assert {"0", "1", "2"} == {move.account_id for move in closed.moves().moves}
        for wrong in (-1, 1.5, None):
            number: Any = wrong
            with pytest.raises(ConfigurationError, match="after="):
                closed.moves(number)
    assert ["0", "1", "2"] == sorted(told)


async def test_moves_of_two_queries_do_not_go_together() -> None:
    moves = [Move("1", "a"), Move("2", "b")]
    with pytest.raises(ConfigurationError, match="of different queries"):
        Checkpoint.of(moves)
    assert Checkpoint() == Checkpoint.of([])


async def test_another_query_is_refused(path: Path) -> None:
    """As the checkpoint is handed on, and if that is left out, as the store is written."""
    job = Job(path)
    async with CheckpointStore(path) as store:
        await job.run(store)
        before = await store.load()
        with pytest.raises(ConfigurationError, match="another query"):
            job.service.follow(job.accounts, SKILLS, since=before)
    async with CheckpointStore(path) as store:
        async with job.service.follow(job.accounts, SKILLS, over=AT_ONCE) as closed:
            await anext(closed)
            with pytest.raises(ConfigurationError, match="checkpoint of another query"):
                await store.save(closed)
        assert before == await store.load()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{}" * 600, "a file of another kind"),
        ("CREATE TABLE a (b)", "a database of something else"),
        ("PRAGMA user_version = 2", "of version 2, and this release knows only 1"),
        ("UPDATE moves SET move = '[]'", "not a move of a checkpoint"),
        ("DROP TABLE moves", None),
    ],
)
async def test_a_file_that_is_no_such_store_is_refused(
    path: Path, content: bytes | str, said: str | None
) -> None:
    """And is left as it is; one that has lost its table is a new one."""
    if isinstance(content, str) and ("moves" in content or "version" in content):
        async with CheckpointStore(path) as store:
            await Job(path).run(store)
    before = _spoil(path, content)
    if said is None:
        async with CheckpointStore(path) as store:
            assert await store.load() is None
        return
    with pytest.raises(ConfigurationError, match=said) as caught:
        async with CheckpointStore(path):
            pass
    assert str(path) in str(caught.value)
    assert before == await asyncio.to_thread(path.read_bytes)


def _spoil(path: Path, content: bytes | str) -> bytes:
    """Write into a file, or tell the database in it something; return what it holds then."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(content)
    return path.read_bytes()


async def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "such" / "folder"):
        with pytest.raises(ConfigurationError, match="cannot be opened") as caught:
            async with CheckpointStore(path):
                pass
        assert "\n" not in str(caught.value)


async def test_one_file_is_open_once(path: Path) -> None:
    """Neither another store nor another process gets it; they do once it is closed."""
    async with CheckpointStore(path) as store:
        await Job(path).run(store)
        with pytest.raises(ConfigurationError, match="another process, or another store, has it"):
            async with CheckpointStore(path):
                pass
        with pytest.raises(ConfigurationError, match="open already"):
            await store.__aenter__()
        code, errors = await _opened_elsewhere(path)
        assert 0 != code
        assert "another process, or another store, has it open" in errors.splitlines()[-1]
        assert await store.load() is not None
    assert (0, "") == await _opened_elsewhere(path)


async def _opened_elsewhere(path: Path) -> tuple[int | None, str]:
    program = f"""
import asyncio
from msgconv_async import CheckpointStore
async def main():
    async with CheckpointStore({str(path)!r}):
        pass
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    return process.returncode, errors.decode()


async def test_a_store_is_used_inside_its_context(path: Path) -> None:
    store = CheckpointStore(path)
    with pytest.raises(ConfigurationError, match="inside 'async with'"):
        await store.load()
    async with store:
        pass
    with pytest.raises(ConfigurationError, match="inside 'async with'"):
        await store.load()
    async with store:
        assert await store.load() is None
    wrong: Any = "closed"
    with pytest.raises(ConfigurationError, match="following='closed'"):
        await store.save(wrong)


async def test_no_thread_and_no_journal_is_left_behind(path: Path) -> None:
    threads = set(threading.enumerate())
    async with CheckpointStore(path) as store:
        await Job(path).run(store)
    with pytest.raises(ConfigurationError):
        async with CheckpointStore(path.parent):
            pass
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
        assert not thread.is_alive()
    assert [path] == list(path.parent.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
async def test_the_files_are_their_owners_alone(path: Path) -> None:
    """Where an account stands is nobody else's business."""
    before = os.umask(0)
    try:
        async with CheckpointStore(path) as store:
            await Job(path).run(store)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert {"checkpoint.db": 0o600, "checkpoint.db-wal": 0o600} == modes


async def test_a_full_disk_is_told_and_nothing_is_lost(path: Path) -> None:
    """The save that failed is made up for by the next that does not."""
    job = Job(path, 200)
    async with CheckpointStore(path) as store:
        since = job.service.now() - BUCKET
        async with job.service.follow(job.accounts, since=since, over=AT_ONCE) as closed:
            for _ in range(50):
                await anext(closed)
            await store._run(lambda: store._connection.execute("PRAGMA max_page_count = 8"))
            with pytest.raises(MsgConvError, match="cannot be written: database or disk is full"):
                await store.save(closed)
            assert await store.load() is None
            await store._run(lambda: store._connection.execute("PRAGMA max_page_count = 10000"))
            await store.save(closed)
            assert closed.checkpoint == await store.load()


async def test_a_save_that_is_cancelled_is_carried_out(path: Path) -> None:
    """In its order, so that an account never goes back to where it was."""
    job = Job(path, 20)
    async with CheckpointStore(path) as store:
        since = job.service.now() - 3 * BUCKET
        async with job.service.follow(job.accounts, since=since, over=AT_ONCE) as closed:
            async for _ in closed:
                saving = asyncio.create_task(store.save(closed))
                await asyncio.sleep(0)
                saving.cancel()
                await asyncio.wait([saving])
        assert closed.checkpoint == await store.load()
    async with CheckpointStore(path) as store:
        assert closed.checkpoint == await store.load()


async def test_two_that_follow_share_a_store(path: Path) -> None:
    """Other accounts, the same query: both are in it, and writes of one are none of the other's."""
    service, accounts = Service(), many(4)
    since = service.now() - 2 * BUCKET
    async with CheckpointStore(path) as store:
        async with (
            service.follow(accounts[:2], since=since, over=AT_ONCE) as one,
            service.follow(accounts[2:], since=since, over=AT_ONCE) as other,
        ):
            for _ in range(4):
                for closed in (one, other):
                    await anext(closed)
                    await store.save(closed)
        stored = await store.load()
    assert stored is not None
    assert {**one.checkpoint.accounts, **other.checkpoint.accounts} == stored.accounts


FOLLOWER = """
import asyncio, os, sys
from datetime import timedelta
from msgconv_async import *

async def main():
    url, path, each = sys.argv[1], sys.argv[2], int(sys.argv[3])
    who = ClientCredentials("sandbox-client", "sandbox-secret")
    accounts = [Account(str(number), who) for number in range(10000001, 10000004)]
    async with (
        CheckpointStore(path) as store,
        ConversationSession(base_url=url) as session,
        session.follow(
            accounts, ConversationQuery(5), since=await store.load(), over=timedelta()
        ) as closed,
    ):
        taken = 0
        async for item in closed:
            line = f"{item.account.id} {item.interval.end:%Y-%m-%dT%H:%M}\\n"
            os.write(1, line.encode())
            taken += 1
            if taken % each == 0:
                await store.save(closed)
            await asyncio.sleep(0.001)
        await store.save(closed)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it is killed by SIGKILL")
@pytest.mark.parametrize("each", [1, 10])
async def test_a_follower_that_is_killed_loses_no_bucket(path: Path, each: int) -> None:
    """At random moments; what comes again is what it took after the last save."""
    moments = random.Random(each)
    handed: list[list[str]] = []
    clock = Clock(datetime(2026, 3, 4, 12, 2, tzinfo=UTC))
    async with Sandbox(accounts=3, seed=1, clock=clock) as sandbox:
        killed = 0
        for last in [False] * 5 + [True]:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", FOLLOWER, sandbox.url, str(path), str(each)),
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdout is not None
            lines = [(await process.stdout.readline()).decode()]
            if not last:
                await asyncio.sleep(moments.uniform(0, 0.2))
                process.kill()
                killed += 1
            rest, _ = await process.communicate()
            lines += rest.decode().splitlines(keepends=True)
            handed.append([line for line in lines if line])
            assert (0 if last else -9) == process.returncode
    seen: set[str] = set()
    before: list[str] = []
    for lines in handed:
        again = seen & set(lines)
        assert again <= set(before[-each:])
        assert len(lines) == len(set(lines))
        seen |= set(lines)
        before = lines
    assert 5 == killed
    per_account = Counter(line.split()[0] for line in seen)
    assert [288] * 3 == [count for _, count in sorted(per_account.items())]
