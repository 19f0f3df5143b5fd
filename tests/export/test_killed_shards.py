"""Shards at work at once that are killed at random moments, and what is there afterwards.

The ordinary run kills a few; with EVERY_KILL set, it kills a hundred of eight, and a hundred while
their number changes, in some minutes.
"""

from __future__ import annotations

import os
import random
import signal
from datetime import timedelta
from itertools import repeat
from pathlib import Path

import pytest

from msgconv_async.client.many.follow import SETTLE
from msgconv_async.protocol.buckets import BUCKET
from tests.export.collecting import World
from tests.export.killing import Collecting

EVERY = bool(os.environ.get("EVERY_KILL"))
KILLS = 100 if EVERY else 3
MANY = 8 if EVERY else 3
FAILING = 0.2


@pytest.mark.parametrize("counts", [(MANY,), (2, 3, 1)], ids=["as many", "changing"])
def test_whatever_is_killed_every_bucket_is_there_once_and_true(
    tmp_path: Path, database: str, counts: tuple[int, ...]
) -> None:
    """In PostgreSQL, while a fifth of requests fail. Other numbers begin where one was killed."""
    chance = random.Random(len(counts))
    with World(accounts=4 * max(counts)) as world:
        collecting = Collecting(world, tmp_path, "postgres", database)
        collecting.begin_in_shards(counts[0], chance)
        before = collecting.codes[-signal.SIGKILL]
        world.fail(chance.random() < FAILING for _ in repeat(None))
        for number, count in enumerate(counts, 1):
            done = collecting.codes[-signal.SIGKILL] - before
            kills = max(1, KILLS * number // len(counts) - done)
            collecting.survive_in_shards(count, kills, chance)
        world.fail(())
        collecting.finish(counts[-1])
        collecting.check()
    assert collecting.codes[-signal.SIGKILL] - before >= KILLS


@pytest.mark.parametrize("kind", ["duckdb", "postgres", "filesystem"])
def test_collectors_of_other_numbers_at_once_neither_lose_nor_repeat(
    world: World, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """Of one shard, of other numbers of shards, and of all accounts: those in the way are told."""
    address = request.getfixturevalue("database") if kind == "postgres" else ""
    collecting = Collecting(world, tmp_path, kind, address)
    assert 0 == collecting.run()
    shards = [(1, 2), None, (1, 3), (1, 2), (2, 2)]
    for turn in range(0, 4, 2):
        world.advance(2 * BUCKET)
        running = [collecting.start(shard) for shard in shards[turn:] + shards[:turn]]
        for process in running:
            process.join()
        assert {0, 4} == {process.exitcode for process in running}
    world.advance(SETTLE * BUCKET)
    collecting.finish()
    collecting.check(settled=SETTLE * BUCKET if kind == "filesystem" else timedelta())
