"""What dlt would read from the environment and its files, and what of that has a say."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs import BaseConfiguration
from dlt.common.configuration.specs.config_providers_context import (
    AwsSecretsProviderConfiguration,
    ConfigProvidersConfiguration,
)
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.configuration.specs.runtime_configuration import RuntimeConfiguration
from dlt.common.data_writers.buffered import BufferedDataWriter
from dlt.common.destination.configuration import CsvFormatConfiguration, ParquetFormatConfiguration
from dlt.common.schema.configuration import SchemaConfiguration
from dlt.common.storages.configuration import (
    LoadStorageConfiguration,
    NormalizeStorageConfiguration,
    SchemaStorageConfiguration,
)
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration
from dlt.destinations.impl.filesystem.configuration import FilesystemDestinationClientConfiguration
from dlt.destinations.impl.postgres.configuration import PostgresClientConfiguration
from dlt.extract.extractors import Extractor
from dlt.extract.pipe_iterator import PipeIterator
from dlt.load.configuration import LoaderConfiguration
from dlt.normalize.configuration import ItemsNormalizerConfiguration, NormalizeConfiguration
from dlt.pipeline.configuration import PipelineConfiguration, PipelineRuntimeConfiguration

from msgconv_async.client.many.follow import SETTLE
from msgconv_async.errors import ConfigurationError
from msgconv_async.export.destination import StoreFailed, destination
from msgconv_async.export.pipeline import Reader, conversation_metrics
from msgconv_async.export.settings import SETTINGS, only_user_settings
from msgconv_async.export.store import Store
from msgconv_async.protocol.buckets import BUCKET, floor
from tests.export.collecting import DAY, NOON, World, in_duckdb, in_parquet

EDGE = floor(NOON)

SECTIONS: dict[str, tuple[type[BaseConfiguration], ...]] = {
    "pipelines": (PipelineConfiguration,),
    "load": (LoaderConfiguration, LoadStorageConfiguration),
    "normalize": (
        NormalizeConfiguration,
        NormalizeStorageConfiguration,
        ItemsNormalizerConfiguration,
    ),
    "schema": (SchemaConfiguration, SchemaStorageConfiguration),
    "extract": (PipeIterator.PipeIteratorConfiguration, Extractor.ExtractorConfiguration),
    "data_writer": (
        BufferedDataWriter.BufferedDataWriterConfiguration,
        CsvFormatConfiguration,
        ParquetFormatConfiguration,
    ),
    "runtime": (RuntimeConfiguration, PipelineRuntimeConfiguration),
    "providers": (ConfigProvidersConfiguration, AwsSecretsProviderConfiguration),
    "destination": (
        DuckDbClientConfiguration,
        PostgresClientConfiguration,
        FilesystemDestinationClientConfiguration,
    ),
}


def collect(world: World, store: Store) -> None:
    with Reader(world.session) as reader:
        store.load(conversation_metrics(world.accounts, reader=reader, append=not store.merges))


@pytest.mark.parametrize("section", SETTINGS)
def test_every_setting_of_dlt_was_looked_at(section: str) -> None:
    """One that a newer dlt brings is to be the user's or not, and somebody has to say which."""
    fields: Iterable[str] = (
        name
        for each in SECTIONS[section]
        for name in each.get_resolvable_fields()
        if not name.startswith("_")  # what one part of dlt hands to another
    )
    settings = SETTINGS[section]
    assert set(fields) == settings.users | settings.ours
    assert not settings.users & settings.ours


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return what writes dlt's file of settings, and lets dlt read it."""
    context = Container()[PluggableRunContext]
    (tmp_path / ".dlt").mkdir()
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> None:
        (tmp_path / ".dlt" / "config.toml").write_text(text)
        context.reload_providers()

    yield write
    monkeypatch.undo()
    context.reload_providers()


@pytest.mark.parametrize("kind", ["duckdb", "filesystem"])
def test_what_would_undo_exactly_once_has_no_say(
    world: World, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such short names in the environment may be another program's."""
    for variable, value in {
        "DEV_MODE": "true",
        "FULL_REFRESH": "true",
        "RESTORE_FROM_DESTINATION": "false",
        "PIPELINES__MSGCONV__RESTORE_FROM_DESTINATION": "false",
        "REFRESH": "drop_data",
        "DATASET_NAME_LAYOUT": "other_%s",
        "NAMING": "direct",
        "LAYOUT": "{table_name}/{file_id}.{ext}",
        "ADD_DLT_LOAD_ID": "true",
    }.items():
        monkeypatch.setenv(variable, value)
    place = tmp_path / ("h.duckdb" if kind == "duckdb" else "lake")
    collect(world, Store(destination(f"{kind}:{place}")))
    collect(world, Store(destination(f"{kind}:{place}")))

    found = in_duckdb(place) if kind == "duckdb" else in_parquet(place / "conversations")
    assert 3 * (288 if kind == "duckdb" else 288 - SETTLE) == len(found["account_metrics"])


def test_what_a_file_says_has_no_say_either_and_is_told(
    world: World, tmp_path: Path, settings_file: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings_file("restore_from_destination = false\n[load]\nraise_on_failed_jobs = false\n")
    store = Store(destination(f"filesystem:{tmp_path / 'lake'}"))
    collect(world, store)
    collect(world, store)

    found = in_parquet(tmp_path / "lake" / "conversations")
    assert set(world.truth(EDGE - DAY, EDGE)["account_metrics"]) >= set(found["account_metrics"])
    said = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    names = ("load.raise_on_failed_jobs", "restore_from_destination")
    told = "dlt's setting {} (config.toml) is ignored: collecting needs its default"
    assert [told.format(name) for name in names] == sorted(said)


def test_rows_that_do_not_fit_are_a_failure_whatever_is_set(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a column was renamed: nothing moves on, and once it is mended all is read again."""
    monkeypatch.setenv("LOAD__RAISE_ON_FAILED_JOBS", "false")
    monkeypatch.setenv("RAISE_ON_FAILED_JOBS", "false")
    file = tmp_path / "h.duckdb"
    store = Store(destination(f"duckdb:{file}"))
    collect(world, store)
    rename = "ALTER TABLE conversations.account_metrics RENAME {} TO {}"
    one, other = "total_resolved_conversations", "renamed"
    with closing(duckdb.connect(str(file))) as connection:
        connection.execute(rename.format(one, other))
    world.advance(BUCKET)
    with pytest.raises(StoreFailed):
        collect(world, store)
    with closing(duckdb.connect(str(file))) as connection:
        connection.execute(rename.format(other, one))
    collect(world, store)

    found = in_duckdb(file)
    del found["collection_gaps"]
    assert world.truth(EDGE - DAY, floor(world.now())) == found


def test_a_layout_by_which_half_a_load_cannot_be_told_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__FILESYSTEM__LAYOUT", "{table_name}/{load_id}/{file_id}.{ext}")
    with pytest.raises(ConfigurationError, match=r"must have {load_id} in the names of files"):
        Store(destination(f"filesystem:{tmp_path / 'lake'}"))


def test_settings_that_cannot_be_read_are_one_sentence(settings_file: Any) -> None:
    container = Container()
    context = container[PluggableRunContext]
    del container[PluggableRunContext]
    Path(".dlt/config.toml").write_text("load = [")
    try:
        with pytest.raises(
            ConfigurationError, match=r"dlt's settings cannot be read: .*config.toml"
        ):
            with only_user_settings():
                pass
    finally:
        container[PluggableRunContext] = context
