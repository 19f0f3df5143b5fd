from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import dlt
import msgspec
import pytest

from msgconv_async.errors import ConfigurationError, InvalidQuery
from msgconv_async.export.destination import destination
from msgconv_async.export.pipeline import Batch, Reader, conversation_metrics
from msgconv_async.export.store import Store
from msgconv_async.protocol.buckets import BUCKET, floor
from msgconv_async.sandbox import Conversation
from tests.export.collecting import DAY, NOON, World, in_duckdb, in_parquet

EDGE = floor(NOON)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.duckdb"


def collect(world: World, file: Path, **settings: Any) -> list[Batch]:
    """Collect what is new into a DuckDB file."""
    batches: list[Batch] = []
    with Reader(world.session) as reader:
        source = conversation_metrics(
            world.accounts, reader=reader, watch=batches.append, **settings
        )
        Store(destination(f"duckdb:{file}")).load(source)
    return batches


def test_what_is_collected_is_what_happened(world: World, file: Path) -> None:
    """Four tables, a row for each key, nothing made up and nothing left out."""
    collect(world, file)
    found = in_duckdb(file)

    assert {} == found.pop("collection_gaps")
    assert world.truth(EDGE - DAY, EDGE) == found
    assert all(found.values())


def test_the_next_run_adds_what_is_new(world: World, file: Path) -> None:
    """And asks for no more than that."""
    collect(world, file)
    world.advance(3 * BUCKET)
    batches = collect(world, file)

    found = in_duckdb(file)
    found.pop("collection_gaps")
    assert world.truth(EDGE - DAY, EDGE + 3 * BUCKET) == found
    assert 3 == sum(each.turns for each in batches)
    assert sum(each.rows for each in batches) < 100


def test_a_bucket_that_changed_takes_the_place_of_what_it_was(world: World, file: Path) -> None:
    collect(world, file)
    late = Conversation(
        world.ids[0], EDGE - BUCKET, agent=999, resolved_by="CCP", handling_time_ms=5, skill=888
    )
    world.add(late)
    world.advance(BUCKET)
    collect(world, file)

    found = in_duckdb(file)
    found.pop("collection_gaps")
    assert world.truth(EDGE - DAY, EDGE + BUCKET) == found
    assert (late.account, EDGE, 888, 999) in found["skill_agent_metrics"]


def test_what_a_bucket_no_longer_has_goes(world: World, file: Path) -> None:
    """Its conversation was moved to another skill: it is not to count for both."""
    start = EDGE - BUCKET
    moved = Conversation(world.ids[0], start, 7, "CCP", 1, skill=888)
    world.add(moved)
    collect(world, file)
    assert (moved.account, EDGE, 888) in in_duckdb(file)["skill_metrics"]

    world.replace(moved, msgspec.structs.replace(moved, skill=999))
    world.advance(BUCKET)
    collect(world, file)
    found = in_duckdb(file)
    found.pop("collection_gaps")
    assert world.truth(EDGE - DAY, EDGE + BUCKET) == found
    assert (moved.account, EDGE, 999) in found["skill_metrics"]


def test_a_number_that_fits_nowhere_is_a_gap_and_stops_nobody(
    world: World, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told of whom and when."""
    start = EDGE - 2 * BUCKET
    world.add(Conversation(world.ids[1], start, 7, "CCP", 10**19))
    with caplog.at_level(logging.WARNING, "msgconv_async"):
        batches = collect(world, file)
    found = in_duckdb(file)
    assert {(world.ids[1], start): ()} == found["collection_gaps"]
    assert [start] == [gap.start for each in batches for gap in each.gaps]
    assert 3 * 288 - 1 == len(found["account_metrics"])
    assert f"account {world.ids[1]}: " in caplog.text
    assert "2026-03-04 11:55 UTC is left out" in caplog.text


def test_another_selection_is_told_of(
    world: World, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once: what was collected is not read again."""
    for skills in (None, None, "all", "all"):
        collect(world, file, skills=skills, agents=None)
    assert 1 == caplog.text.count("from now on other skills, agents or groups are asked for")


def test_an_outage_longer_than_the_api_remembers_is_a_gap(
    world: World, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A row, and a warning."""
    collect(world, file)
    world.advance(timedelta(hours=30))
    with caplog.at_level(logging.WARNING, "msgconv_async"):
        batches = collect(world, file)

    found = in_duckdb(file)
    lost = EDGE + timedelta(hours=30) - DAY
    assert {(each, EDGE): () for each in world.ids} == found.pop("collection_gaps")
    assert world.truth(EDGE - DAY, EDGE)["account_metrics"].items() <= (
        found["account_metrics"].items()
    )
    assert world.truth(lost, lost + DAY)["account_metrics"].items() <= (
        found["account_metrics"].items()
    )
    assert 3 * 2 * 288 == len(found["account_metrics"])
    assert 3 == sum(len(each.gaps) for each in batches)
    assert f"account {world.ids[0]}: 2026-03-04 12:00 to 2026-03-04 18:00" in caplog.text


def test_an_account_that_fails_is_told_of_hurts_no_other_and_catches_up(
    world: World, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world.fail([True])
    with caplog.at_level(logging.WARNING, "msgconv_async"):
        batches = collect(world, file)
    assert 2 * 288 == len(in_duckdb(file)["account_metrics"])
    assert 1 == sum(len(each.failures) for each in batches)
    assert "503" in caplog.text

    world.advance(BUCKET)
    collect(world, file)
    found = in_duckdb(file)
    found.pop("collection_gaps")
    counts = [sum(key[0] == each for key in found["account_metrics"]) for each in world.ids]
    assert [288, 289, 289] == sorted(counts)  # one began a bucket later, a day back as well


def test_plain_files_get_a_bucket_once_it_has_settled(world: World, tmp_path: Path) -> None:
    """Nothing could be replaced there."""
    store = Store(destination(f"filesystem:{tmp_path / 'lake'}"))
    assert not store.merges
    for _ in range(3):
        with Reader(world.session) as reader:
            store.load(conversation_metrics(world.accounts, reader=reader, append=True))
        late = Conversation(
            world.ids[0], floor(world.now()) - BUCKET, agent=1, resolved_by="system",
            handling_time_ms=1,
        )  # fmt: skip
        world.add(late)
        world.advance(2 * BUCKET)

    found = in_parquet(tmp_path / "lake" / "conversations")
    found.pop("collection_gaps")
    assert world.truth(EDGE - DAY, EDGE + BUCKET) == found


def test_a_run_without_skills_and_agents_fills_the_account_table_alone(
    world: World, file: Path
) -> None:
    """With half the requests."""
    collect(world, file, skills=None, agents=None)
    found = in_duckdb(file)
    assert 3 * 288 == len(found.pop("account_metrics"))
    assert not any(found.values())
    assert 3 == sum(world.sandbox.requests.values())


def test_any_pipeline_can_load_it(world: World, tmp_path: Path) -> None:
    """By its resources, into tables with keys and fixed types."""
    pipeline = dlt.pipeline(
        "mine", pipelines_dir=str(tmp_path), dataset_name="mine",
        destination=dlt.destinations.duckdb(str(tmp_path / "any.duckdb")),
    )  # fmt: skip
    with Reader(world.session) as reader:
        source = conversation_metrics(world.accounts, reader=reader)
        pipeline.run(source.with_resources("skill_metrics"))

    assert {"skill_metrics"} == set(pipeline.default_schema.data_table_names())
    table = pipeline.default_schema.get_table("skill_metrics")
    assert "merge" == table["write_disposition"]
    keys = [name for name, column in table["columns"].items() if column.get("primary_key")]
    assert ["account_id", "interval_end", "skill_id"] == keys


def test_a_mistake_in_what_is_asked_shows_at_once(world: World) -> None:
    with pytest.raises(InvalidQuery, match="skill_ids"):
        conversation_metrics(world.accounts, skills="x")


def test_a_mistake_that_shows_as_it_runs_is_told_as_itself(world: World, file: Path) -> None:
    """Not as something that dlt ran into."""
    world.accounts.append(world.accounts[0])
    with pytest.raises(ConfigurationError, match="is given 2 times"):
        collect(world, file)
