"""Several collectors with a part of the accounts each, into the same tables."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest

from msgconv_async.client.many.checkpoint import Checkpoint, Position
from msgconv_async.errors import ConfigurationError
from msgconv_async.export.destination import StoreFailed, StoreInUse, destination
from msgconv_async.export.pipeline import Batch, Reader, conversation_metrics
from msgconv_async.export.shards import Left, Shard, taken_over
from msgconv_async.export.store import Store
from msgconv_async.protocol.buckets import BUCKET, floor
from tests.export.collecting import DAY, NOON, World, in_duckdb, in_parquet, in_postgres
from tests.export.killing import Collecting, Pair, all_of

EDGE = floor(NOON)


def collect(world: World, place: str, shard: Pair | None) -> list[Batch]:
    """Collect what is new of a shard's accounts."""
    batches: list[Batch] = []
    store = Store(destination(place), shard=shard)
    with Reader(world.session) as reader:
        source = conversation_metrics(
            world.accounts,
            reader=reader,
            watch=batches.append,
            shard=shard,
            append=not store.merges,
        )
        store.load(source)
    return batches


def rows(batches: list[Batch]) -> int:
    return sum(batch.rows for batch in batches)


def test_accounts_are_dealt_out_evenly_and_stay_where_they_are() -> None:
    """Every account is in one shard; which, follows from its id alone."""
    ids = [str(number) for number in range(10_000_001, 10_008_001)]
    shards = [Shard(number, 8) for number in range(1, 9)]
    dealt = Counter(shard.number for id_ in ids for shard in shards if shard.holds(id_))
    assert 8000 == sum(dealt.values())
    assert 900 < min(dealt.values()) <= max(dealt.values()) < 1100
    assert [4, 3, 2] == [
        next(shard.number for shard in shards if shard.holds(id_)) for id_ in ids[:3]
    ]
    assert all(Shard(1, 1).holds(id_) for id_ in ids)


@pytest.mark.parametrize(
    "wrong", [5, "2/8", (1,), (0, 8), (9, 8), (1, 0), (1, 2, 3), (1.0, 8), (True, 8), (1, 1001)]
)
def test_what_is_no_shard_is_refused(world: World, wrong: Any) -> None:
    for call in (
        lambda: conversation_metrics(world.accounts, shard=wrong),
        lambda: Store(destination("duckdb:x.duckdb"), shard=wrong),
    ):
        with pytest.raises(ConfigurationError, match="shard"):
            call()


@pytest.mark.parametrize("kind", ["duckdb", "postgres", "filesystem"])
def test_a_change_of_their_number_loses_and_repeats_nothing(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    kind: str,
) -> None:
    """One, then two, three, two and one again: each goes on where another left off."""
    place = f"{kind}:{tmp_path / 'h.duckdb' if kind == 'duckdb' else tmp_path / 'h'}"
    if kind == "postgres":
        place = kind
        database = request.getfixturevalue("database")
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", database)
    for count in (1, 2, 3, 2, 2, 1):
        turns, again = 0, 0
        for shard in all_of(count):
            batches = collect(world, place, shard)
            turns += sum(batch.turns for batch in batches)
            again += rows(batches)
        assert 3 == turns
        # What an account's day holds is collected once, and after that what is new.
        assert again < 200 or count == 1
        world.advance(BUCKET)
    found = (
        in_postgres(database)
        if kind == "postgres"
        else in_duckdb(tmp_path / "h.duckdb")
        if kind == "duckdb"
        else in_parquet(tmp_path / "h" / "conversations")
    )
    assert {} == found.pop("collection_gaps")
    # Into files, a bucket comes once it has settled.
    last = EDGE + 5 * BUCKET - (3 * BUCKET if kind == "filesystem" else timedelta())
    first = EDGE - DAY
    assert world.truth(first, last) == found


def test_after_days_away_a_shard_takes_over_and_makes_no_gap(world: World, tmp_path: Path) -> None:
    """Its own state is days old, but others went on."""
    place = f"duckdb:{tmp_path / 'h.duckdb'}"
    for count in (2, 1):
        for shard in all_of(count):
            collect(world, place, shard)
        if count == 1:
            for _ in range(3):
                world.advance(timedelta(hours=23))
                collect(world, place, None)
    for shard in all_of(2):
        collect(world, place, shard)
    found = in_duckdb(tmp_path / "h.duckdb")
    assert {} == found["collection_gaps"]
    assert (
        world.truth(EDGE - DAY, EDGE + 3 * timedelta(hours=23))["account_metrics"]
        == (found["account_metrics"])
    )


def test_a_round_that_is_cut_short_takes_over_once_more(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was looked at is stored with the rows, or not at all."""
    place = f"duckdb:{tmp_path / 'h.duckdb'}"
    collect(world, place, None)
    world.advance(BUCKET)

    def cut(*_: object) -> None:
        raise OSError("cut short")

    with monkeypatch.context() as patched:
        patched.setattr(dlt.Pipeline, "load", cut)
        for shard in all_of(2):
            with pytest.raises(StoreFailed, match="cut short"):
                collect(world, place, shard)
    assert 200 > sum(rows(collect(world, place, shard)) for shard in all_of(2))
    found = in_duckdb(tmp_path / "h.duckdb")
    assert {} == found.pop("collection_gaps")
    assert world.truth(EDGE - DAY, EDGE + BUCKET) == found


def test_a_shard_without_an_account_does_nothing_and_fails_nothing(
    world: World, tmp_path: Path
) -> None:
    place = f"duckdb:{tmp_path / 'h.duckdb'}"
    empty = next(
        number
        for number in range(1, 101)
        if not any(Shard(number, 100).holds(id_) for id_ in world.ids)
    )
    for _ in range(2):
        assert [] == collect(world, place, (empty, 100))
    assert {} == in_duckdb(tmp_path / "h.duckdb")["account_metrics"]


def test_the_position_that_is_further_on_is_taken_over() -> None:
    """Of accounts that are dealt to the shard; a shard that knows more keeps its own."""
    old, new = Position(EDGE), Position(EDGE + BUCKET)
    every = Shard(1, 1)
    mine = Checkpoint({"1": new, "2": old}, "a")
    left = [Left(Checkpoint({"1": old, "2": new, "3": old}, "a"), None)]
    assert Checkpoint({"1": new, "2": new, "3": old}, "a") == taken_over(mine, left, every)
    assert taken_over(None, [], every) is None
    other = [Left(Checkpoint({"3": old}, "b"), None)]
    assert Checkpoint({"1": new, "2": old, "3": old}) == taken_over(mine, other, every)
    held = Shard(1, 2) if not Shard(1, 2).holds("3") else Shard(2, 2)
    assert mine == taken_over(mine, other, held)


def test_of_equal_positions_the_later_one_is_taken_over() -> None:
    """It may have read a bucket before that one which the earlier one lacks."""
    lacks, later = Position(EDGE, missing=(EDGE - BUCKET,)), Position(EDGE)
    left = Left(Checkpoint({"1": later}, "a"), None)
    taken = taken_over(Checkpoint({"1": lacks}, "a"), [left], Shard(1, 1))
    assert taken == left.checkpoint
    assert left.gave(taken.accounts)
    assert not left.gave({"1": lacks})


def test_pipelines_of_other_names_take_nothing_over(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of one's own may ask for agents what another asks for skills, in one dataset."""
    monkeypatch.chdir(tmp_path)
    for name, skills, agents in (("by_skill", "all", None), ("by_agent", None, "all")):
        pipeline = dlt.pipeline(
            name,
            pipelines_dir=str(tmp_path / "dlt"),
            destination=dlt.destinations.duckdb(str(tmp_path / "own.duckdb")),
            dataset_name="conversations",
        )
        with Reader(world.session) as reader:
            pipeline.run(
                conversation_metrics(world.accounts, reader=reader, skills=skills, agents=agents)
            )
    found = in_duckdb(tmp_path / "own.duckdb")
    for table in ("skill_metrics", "agent_metrics"):
        assert world.truth(EDGE - DAY, EDGE)[table] == found[table]


def test_shards_of_one_machine_keep_each_other_off_a_bucket_in_the_cloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One would take the files of another's load for those of half a load, and remove them."""
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path))
    with Store(destination("filesystem:memory://lake"), shard=(1, 2)).exclusive():
        with pytest.raises(StoreInUse, match="another collector is at work"):
            with Store(destination("filesystem:memory://lake"), shard=(2, 2)).exclusive():
                pass


def test_a_pipeline_that_is_not_the_shards_alone_is_refused(world: World, tmp_path: Path) -> None:
    """Of a user's own, the name and the staging dataset must tell shards apart."""
    credentials = str(tmp_path / "own.duckdb")
    for name, layout in (("own", "%s_staging_1_of_2"), ("own_1_of_2", "%s_staging")):
        pipeline = dlt.pipeline(
            name,
            pipelines_dir=str(tmp_path / "p"),
            destination=dlt.destinations.duckdb(credentials, staging_dataset_name_layout=layout),
            dataset_name="conversations",
        )
        with Reader(world.session) as reader:
            source = conversation_metrics(world.accounts, reader=reader, shard=(1, 2))
            with pytest.raises(Exception, match="must end in '_1_of_2'") as caught:
                pipeline.run(source)
        assert caught.value is not None


def test_four_processes_fill_the_same_tables_at_once(tmp_path: Path, database: str) -> None:
    """From the first round on, which makes the tables; each shard has a staging dataset."""
    with World(accounts=12) as world:
        collecting = Collecting(world, tmp_path, "postgres", database)
        for _ in range(2):
            assert [0] * 4 == collecting.run_shards(4)
        collecting.check()
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'conversations_s%'")
        schemas = {name for (name,) in cursor.fetchall()}
    assert {f"conversations_staging_{number}_of_4" for number in range(1, 5)} == schemas


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one machine", "two machines"])
def test_a_shard_runs_once_and_none_of_another_number_beside_it(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, elsewhere: bool
) -> None:
    """Those of one number may be at work together. A second one is told which it is."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", database)
    machines = itertools.count()

    def store(shard: Pair | None) -> Store:
        if elsewhere:
            monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / str(next(machines))))
        return Store(destination("postgres"), shard=shard)

    def refused(shard: Pair | None, why: str) -> None:
        with pytest.raises(StoreInUse, match=f"^{why} is at work on postgres"):
            with store(shard).exclusive():
                pass

    with store((1, 2)).exclusive(), store((2, 2)).exclusive():
        refused((1, 2), "another collector of shard 1/2")
        refused(None, "a collector of another number of shards than 1")
        refused((1, 3), "a collector of another number of shards than 3")
    with store(None).exclusive():
        refused(None, "another collector")
        refused((2, 2), "a collector of another number of shards than 2")
    with store((3, 4)).exclusive():
        pass


def test_the_command_is_told_of_another_and_does_nothing(
    world: World, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a line, with exit code 4; it asks for nothing."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", database)
    with Store(destination("postgres"), shard=(1, 2)).exclusive():
        monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "elsewhere"))
        for shard, why in (
            ("1/2", "another collector of shard 1/2"),
            ("1/3", "a collector of another number of shards than 3"),
        ):
            done = _command(world, "postgres", shard)
            assert (4, "") == (done.returncode, done.stdout)
            [line] = done.stderr.splitlines()
            assert f"{why} is at work on postgres" in line
    assert 0 == sum(world.sandbox.requests.values())


def test_the_command_collects_its_shard(world: World, tmp_path: Path) -> None:
    """What is no shard is told in a line."""
    place = f"duckdb:{tmp_path / 'h.duckdb'}"
    for shard in ("1/2", "2/2"):
        done = _command(world, place, shard)
        assert 0 == done.returncode, done.stderr
    found = in_duckdb(tmp_path / "h.duckdb")
    assert world.truth(EDGE - DAY, EDGE)["account_metrics"] == found["account_metrics"]
    for wrong in ("3/2", "1/x"):
        done = _command(world, place, wrong)
        assert 2 == done.returncode
        assert "shard" in done.stderr


def _command(world: World, place: str, shard: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the command under test
        [
            *(sys.executable, "-m", "msgconv_async", "collect", *world.ids, "--once"),
            *("--shard", shard, "--destination", place),
            *("--base-url", world.sandbox.url),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "MSGCONV_CLIENT_ID": "sandbox-client",
            "MSGCONV_CLIENT_SECRET": "sandbox-secret",
        },
    )
