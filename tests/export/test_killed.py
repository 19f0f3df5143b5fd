"""Collectors that are killed at random moments, again and again, and what is there afterwards."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from datetime import timedelta
from functools import partial
from itertools import repeat
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from msgconv_async import Account, ConversationSession, RetryPolicy
from msgconv_async.cli.collect import Collect
from msgconv_async.client.many.follow import SETTLE
from msgconv_async.export.destination import destination, set_defaults
from msgconv_async.export.store import Store
from msgconv_async.protocol.buckets import BUCKET, floor
from msgconv_async.sandbox import Conversation
from tests.export.collecting import DAY, NOON, World, in_duckdb, in_parquet, in_postgres

KILLS, PARTS = 100, 4
EDGE = floor(NOON)

# Forked from a process that has imported everything, a collector starts at once; dlt imports some
# of it late.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        __name__,
        "dlt.destinations.impl.duckdb.duck",
        "dlt.destinations.impl.postgres.postgres",
        "dlt.sources.helpers.requests",
        "pyarrow.parquet",
    ]
)


def collect(url: str, accounts: list[Account], where: str, settings: dict[str, str]) -> None:
    """Collect once, as the command does, but without waiting before a request is repeated."""
    os.environ.update(settings)
    set_defaults()
    session = partial(ConversationSession, base_url=url, retry=RetryPolicy(waits=()))
    command = Collect(
        Store(destination(where)), accounts, every=None, skills="all", agents="all", groups=None
    )
    raise SystemExit(command.run(session))


class Collecting:
    """Collectors of a world, each a process, and what they have brought.

    Args:
        world: What they collect from.
        folder: A new one.
        kind: The destination.
        address: How to connect to it, if it is a PostgreSQL server.
    """

    def __init__(self, world: World, folder: Path, kind: str, address: str = "") -> None:
        self._world = world
        self._settings = {"DLT_DATA_DIR": str(folder / "dlt")}
        match kind:
            case "duckdb":
                self._where = f"duckdb:{folder / 'history.duckdb'}"
                self.read = partial(in_duckdb, folder / "history.duckdb")
            case "filesystem":
                self._where = f"filesystem:{folder / 'lake'}"
                self.read = partial(in_parquet, folder / "lake" / "conversations")
            case _:
                self._where = "postgres"
                self._settings["DESTINATION__POSTGRES__CREDENTIALS"] = address
                self.read = partial(in_postgres, address)

    def start(self, **settings: str) -> BaseProcess:
        arguments = (self._world.sandbox.url, self._world.accounts, self._where)
        process = FORKS.Process(target=collect, args=(*arguments, self._settings | settings))
        process.start()
        return process

    def run(self) -> int | None:
        """Run a collector to its end; return its exit code."""
        process = self.start()
        process.join()
        return process.exitcode

    def killed_after(self, seconds: float) -> bool:
        """Run a collector for so long; tell whether that was too short for it."""
        process = self.start()
        process.join(seconds)
        process.kill()
        process.join()
        return process.exitcode == -signal.SIGKILL

    def begin(self, chance: random.Random) -> float:
        """Kill some before there is anything; return the seconds that one takes later, in peace."""
        for _ in range(3):
            self.killed_after(chance.uniform(0, 0.5))
        while self.run() != 0:  # an account may fail
            pass
        self._world.advance(BUCKET)
        begun = time.monotonic()
        self.run()
        return time.monotonic() - begun

    def survive(self, kills: int, chance: random.Random) -> None:
        """Kill so many while time goes on and conversations come late."""
        longest = self.begin(chance)
        killed = 0
        while killed < kills:
            late = floor(self._world.now()) - chance.uniform(0, 2) * BUCKET
            account_id = chance.choice(self._world.ids)
            self._world.add(Conversation(account_id, late, 7, "system", chance.randrange(9999)))
            self._world.advance(chance.uniform(0, 3) * BUCKET)
            killed += self.killed_after(chance.uniform(0, longest))

    def finish(self) -> None:
        """Collect once more, in the middle of a bucket: none may close between this and `check`."""
        now = self._world.now()
        self._world.advance(floor(now) + 1.5 * BUCKET - now)
        assert 0 == self.run()

    def check(self, settled: timedelta = timedelta()) -> None:
        """See that every bucket is there once, and true."""
        found = self.read()
        assert {} == found.pop("collection_gaps")
        assert self._world.truth(EDGE - DAY, floor(self._world.now()) - settled) == found


@pytest.mark.parametrize("failing", [0.0, 0.2], ids=["well", "failing"])
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_is_killed_every_bucket_is_there_once_and_true(
    world: World, tmp_path: Path, part: int, failing: float
) -> None:
    """A hundred times; with the server well, and again with a fifth of requests failing."""
    chance = random.Random(part)
    collecting = Collecting(world, tmp_path, "duckdb")
    world.fail(chance.random() < failing for _ in repeat(None))
    collecting.survive(KILLS // PARTS, chance)
    world.fail(())
    collecting.finish()
    collecting.check()


def test_the_same_holds_in_postgresql(world: World, tmp_path: Path, database: str) -> None:
    """Where tables are larger than memory, and several programs at work."""
    collecting = Collecting(world, tmp_path, "postgres", database)
    collecting.survive(15, random.Random(1))
    collecting.finish()
    collecting.check()


def test_the_same_holds_in_files(world: World, tmp_path: Path) -> None:
    """Where nothing can be replaced: a bucket comes once it has settled."""
    collecting = Collecting(world, tmp_path, "filesystem")
    collecting.survive(15, random.Random(2))
    world.advance(SETTLE * BUCKET)
    collecting.finish()
    collecting.check(settled=SETTLE * BUCKET)


@pytest.mark.parametrize("kind", ["duckdb", "postgres", "filesystem"])
def test_two_collectors_at_once_neither_lose_nor_repeat(
    world: World, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """Of one user or of two, who share no folder: one works, and the other is told so."""
    address = request.getfixturevalue("database") if kind == "postgres" else ""
    collecting = Collecting(world, tmp_path, kind, address)
    codes = []
    for _ in range(4):
        pair = [collecting.start(), collecting.start(DLT_DATA_DIR=str(tmp_path / "other"))]
        for each in pair:
            each.join()
            codes.append(each.exitcode)
        world.advance(2 * BUCKET)
    world.advance(SETTLE * BUCKET)
    collecting.finish()

    assert {0, 4} == set(codes)
    collecting.check(settled=SETTLE * BUCKET if kind == "filesystem" else timedelta())
