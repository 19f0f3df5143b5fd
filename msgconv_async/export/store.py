"""Collected tables at a destination: loaded by one collector at a time, and read by anybody."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path

import dlt
from dlt.common.configuration.exceptions import ConfigFieldMissingException, ConfigurationException
from dlt.common.destination import TLoaderFileFormat
from dlt.common.exceptions import DltException
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from filelock import FileLock, Timeout

from msgconv_async.errors import ConfigurationError, MsgConvError
from msgconv_async.export.destination import Destination, elsewhere
from msgconv_async.export.leftovers import remove_leftovers

DATASET = "conversations"
"""The dataset (a database's schema, or a folder) where no other is named."""

PIPELINE = "msgconv"
"""By this name dlt keeps, in a dataset, where collecting stands."""

_NAME = re.compile(r"(?=.{1,63}$)[a-z][a-z0-9]*(_[a-z0-9]+)*")

_FILE_FORMATS: dict[str, TLoaderFileFormat] = {"filesystem": "parquet", "postgres": "csv"}
"""What to load with where dlt's own choice is slower, or lacks types."""


class StoreFailed(MsgConvError):
    """The destination could not be read or written."""


class StoreInUse(StoreFailed):
    """Another collector is at work on the dataset."""


class Store:
    """A dataset at a destination.

    Args:
        destination: Where.
        dataset: Its name there.

    Raises:
        ConfigurationError: The destination lacks a setting, or cannot have a dataset of that name.
    """

    def __init__(self, destination: Destination, dataset: str = DATASET) -> None:
        if not _NAME.fullmatch(dataset):
            raise ConfigurationError(
                f"dataset {dataset!r}: a name is made of up to 63 small letters, digits and single"
                " underscores, and begins with a letter"
            )
        self.destination = destination
        self.dataset = dataset
        name = destination.destination_name
        self._access = dlt.dataset(destination, dataset, schema=dlt.Schema(PIPELINE))
        try:
            config = self._access.destination_client.config
        except ConfigFieldMissingException as error:
            missing = [each for each in error.fields if each != "local_dir"]
            raise ConfigurationError(
                f"destination {name!r} needs {' and '.join(missing)}: {elsewhere(name, missing[0])}"
            ) from None
        except (ConfigurationException, ValueError) as error:
            raise ConfigurationError(f"destination {name!r}: {_first_line(error)}") from None
        self._type = config.destination_type
        self._where = str(config.data_location())
        digest = blake2b(str(self).encode(), digest_size=8).hexdigest()
        self._state_dir = Path(get_dlt_pipelines_dir()) / f"{PIPELINE}-{digest}"
        if self._type == "duckdb" and Path(self._where).stem == dataset:
            raise ConfigurationError(
                f"dataset {dataset!r}: DuckDB cannot tell it from its file {self._where}: give one"
                " of them another name"
            )

    def __str__(self) -> str:
        return f"{self._type} {self._where}, dataset {self.dataset}"

    @property
    def merges(self) -> bool:
        """Whether rows can be replaced by their keys; otherwise they can only be added."""
        capabilities = self.destination.capabilities()
        strategies = capabilities.supported_merge_strategies or []
        if (select := capabilities.merge_strategies_selector) is not None:
            strategies = list(select(strategies, table_schema={"name": PIPELINE}))
        return bool(strategies)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other collectors off: of two that load at once, one would undo what the other does.

        A file, kept beside the data where those are files, and PostgreSQL's own lock reach every
        collector there; elsewhere only those of this machine are kept off.

        Raises:
            StoreInUse: Another is at work.
        """
        paths = [self._state_dir / "lock"]
        if (where := Path(self._where)).is_absolute():
            folder = where if self._type == "filesystem" else where.parent
            paths.append(folder / f".{where.name}.{self.dataset}.lock")
        with ExitStack() as held:
            for path in paths:
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    held.enter_context(FileLock(path, blocking=False))
                except Timeout:
                    raise StoreInUse(f"another collector is at work on {self}") from None
                except OSError as error:
                    raise StoreFailed(f"cannot lock {self}: {error}") from None
            if self._type == "postgres":
                held.enter_context(self._advisory_lock())
            yield

    @contextmanager
    def _advisory_lock(self) -> Iterator[None]:
        """See https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS."""
        key = int.from_bytes(blake2b(self.dataset.encode(), digest_size=8).digest(), signed=True)
        client = self._access.sql_client
        with ExitStack() as connection:
            try:
                client.open_connection()
                connection.callback(client.close_connection)
                rows = client.execute_sql("SELECT pg_try_advisory_lock(%s)", key)
            except Exception as error:  # noqa: BLE001 - the database driver's own
                raise StoreFailed(f"{self} cannot be used: {_first_line(error)}") from None
            if rows != [(True,)]:
                raise StoreInUse(f"another collector is at work on {self}")
            yield

    def load(self, source: DltSource) -> None:
        """Load all that the source yields, or nothing.

        Where collecting stands is read from the destination each time. Nothing that a run which was
        cut short left on this machine is used: what it had read is asked for again.

        Raises:
            StoreInUse: Another collector is at work.
            StoreFailed: The destination could not be read or written.
            MsgConvError: Whatever the source raised.
        """
        with self.exclusive(), self._failing():
            shutil.rmtree(self._state_dir / PIPELINE, ignore_errors=True)
            if self._type == "filesystem":
                remove_leftovers(self._access.destination_client, source.resources)
            pipeline = dlt.pipeline(
                PIPELINE,
                pipelines_dir=str(self._state_dir),
                destination=self.destination,
                dataset_name=self.dataset,
            )
            file_format = _FILE_FORMATS.get(self._type)  # None leaves it to dlt
            pipeline.run(source, loader_file_format=file_format)  # type: ignore[arg-type]
            if self._type == "postgres":
                with pipeline.sql_client() as client:
                    for statement in _unique_indexes(pipeline.default_schema):
                        client.execute_sql(statement)

    @contextmanager
    def reading(self) -> Iterator[dlt.Dataset]:
        """Open what was collected, to read it.

        Raises:
            ConfigurationError: There is nothing.
            StoreFailed: It cannot be read, also while it is open.
        """
        destination = self.destination
        file = destination.config_params.get("credentials")
        if self._type == "duckdb" and isinstance(file, str):
            # It would make the file, and keep others from one that is there.
            if not Path(file).is_file():
                raise ConfigurationError(f"there is no file {file}: nothing was collected")
            destination = dlt.destinations.duckdb(DuckDbCredentials(file, read_only=True))
        try:
            with dlt.dataset(destination, self.dataset) as opened:
                if not opened.schema.is_new:
                    yield opened
                    return
        except MsgConvError:
            raise
        except Exception as error:  # noqa: BLE001 - each database has errors of its own
            *_, cause = _causes(error)
            raise StoreFailed(f"{self} cannot be used: {_first_line(cause)}") from None
        raise ConfigurationError(f"there is no {self}: nothing was collected")

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Translate what dlt and what is below it raise."""
        try:
            yield
        except (DltException, OSError) as error:
            causes = list(_causes(error))
            for cause in causes:
                # What the source raised, or Ctrl-C: dlt packs them in.
                if isinstance(cause, MsgConvError | KeyboardInterrupt):
                    raise cause from None
            if isinstance(error, PipelineStepFailed) and error.step == "extract":
                raise  # no fault of the destination's
            raise StoreFailed(f"{self} cannot be used: {_first_line(causes[-1])}") from None


def _unique_indexes(schema: dlt.Schema) -> Iterator[str]:
    """Yield what makes PostgreSQL hold the keys itself, and find a row among many."""
    for table in schema.data_tables():
        columns = table["columns"].items()
        key = ", ".join(f'"{name}"' for name, column in columns if column.get("primary_key"))
        name = table["name"]
        yield f'CREATE UNIQUE INDEX IF NOT EXISTS "{name}_key" ON "{name}" ({key})'


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    """Return the beginning of what an error says."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
