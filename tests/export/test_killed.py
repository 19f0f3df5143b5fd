"""Collectors that are killed at random moments, again and again, and what is there afterwards."""

from __future__ import annotations

import random
from datetime import timedelta
from itertools import repeat
from pathlib import Path

import pytest

from msgconv_async.client.many.follow import SETTLE
from msgconv_async.protocol.buckets import BUCKET
from tests.export.collecting import World
from tests.export.killing import Collecting

KILLS, PARTS = 100, 4


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
