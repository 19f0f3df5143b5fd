"""Collected tables at a destination: loaded by one collector at a time, and read by anybody."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import dlt
from dlt.common.configuration.exceptions import ConfigFieldMissingException, InvalidNativeValue
from dlt.common.configuration.specs import CredentialsConfiguration
from dlt.common.destination import TLoaderFileFormat
from dlt.common.destination.exceptions import DestinationUndefinedEntity, SqlClientNotAvailable
from dlt.common.exceptions import DltException
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from dlt.destinations.sql_client import SqlClientBase
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from filelock import FileLock, Timeout

from msgconv_async.errors import ConfigurationError, MsgConvError
from msgconv_async.export.destination import Destination, StoreFailed, StoreInUse, elsewhere
from msgconv_async.export.leftovers import remove_leftovers
from msgconv_async.export.pipeline import KEYS, Emptied
from msgconv_async.export.settings import heeding

DATASET = "conversations"
"""The dataset (a database's schema, or a folder) where no other is named."""

PIPELINE = "msgconv"
"""By this name dlt keeps, in a dataset, where collecting stands."""

_NAME = re.compile(r"(?=.{1,63}$)[a-z][a-z0-9]*(_[a-z0-9]+)*")

_LACKS = re.compile(r"is itself a configuration .* with missing field\(s\): `(password)`")
"""What dlt says of an address without a password."""

_USER_INFO = re.compile(r"//[^/@]*@")

_LOG = logging.getLogger("msgconv_async")

_SILENCE = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""After about a minute without a sign of it, a PostgreSQL server counts as gone."""

_STATES = 10
"""Of where collecting stood, so many are kept in a database; one is in force."""

_FILE_FORMATS: dict[str, TLoaderFileFormat] = {"filesystem": "parquet", "postgres": "csv"}
"""What to load with where dlt's own choice is slower, or lacks types."""


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
        with heeding():
            client = self._configured()
        config = client.config
        self._errors: tuple[type[Exception], ...] = (DltException, OSError, *_driver_errors(client))
        self._type = config.destination_type
        if self._type == "filesystem" and "{load_id}" not in config.layout.rpartition("/")[2]:
            raise ConfigurationError(
                f"destination 'filesystem': its layout {config.layout!r} must have {{load_id}} in"
                " the names of files, by which those of half a load are told"
            )
        self._secrets = tuple(_secrets(config.credentials))
        self._where = _USER_INFO.sub("//", str(config.data_location()))
        if self._type == "postgres":
            _check_address(config.credentials)
            _bound_silence(config.credentials)
            destination.config_params["credentials"] = config.credentials
        digest = blake2b(str(self).encode(), digest_size=8).hexdigest()
        self._state_dir = Path(get_dlt_pipelines_dir()) / f"{PIPELINE}-{digest}"
        if self._type == "duckdb" and Path(self._where).stem == dataset:
            raise ConfigurationError(
                f"dataset {dataset!r}: DuckDB cannot tell it from its file {self._where}: give one"
                " of them another name"
            )

    def _client(self) -> Any:
        """Return dlt's client of the destination, with a connection of its own."""
        dataset = dlt.dataset(self.destination, self.dataset, schema=dlt.Schema(PIPELINE))
        return dataset.destination_client

    def _configured(self) -> Any:
        """Return dlt's client, having seen that it has all that it needs to be told."""
        name = self.destination.destination_name
        try:
            return self._client()
        except ConfigFieldMissingException as error:
            if within := _LACKS.findall(str(error)):
                raise ConfigurationError(
                    f"destination {name!r}: its credentials lack {' and '.join(within)}; dlt wants"
                    " that even where the server asks for none, and then anything will do"
                ) from None
            missing = [each for each in error.fields if each != "local_dir"]
            raise ConfigurationError(
                f"destination {name!r} needs {' and '.join(missing)}: {elsewhere(name, missing[0])}"
            ) from None
        except InvalidNativeValue:
            raise ConfigurationError(
                f"destination {name!r}: dlt cannot read its credentials:"
                f" {elsewhere(name, 'credentials')}"
            ) from None
        except (DltException, ValueError, OSError) as error:
            raise ConfigurationError(f"destination {name!r}: {_first_line(error)}") from None

    def __str__(self) -> str:
        return f"{self._type} {self._where}, dataset {self.dataset}"

    @property
    def merges(self) -> bool:
        """Whether rows can be replaced by their keys; otherwise they can only be added."""
        with heeding():
            capabilities = self.destination.capabilities()
        strategies = capabilities.supported_merge_strategies or []
        if (select := capabilities.merge_strategies_selector) is not None:
            strategies = list(select(strategies, table_schema={"name": PIPELINE}))
        return bool(strategies)

    @contextmanager
    def exclusive(self) -> Iterator[Callable[[], None]]:
        """Keep other collectors off: of two that load at once, one would undo what the other does.

        A file, kept beside the data where those are files, and PostgreSQL's own lock reach every
        collector there; elsewhere only those of this machine are kept off.

        Yields:
            What checks that it is still so, for a connection may have broken: it raises
            `StoreFailed` otherwise.

        Raises:
            StoreInUse: Another is at work.
            StoreFailed: That cannot be known.
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
                    if path.exists():
                        raise StoreInUse(f"another collector is at work on {self}") from None
                    raise StoreFailed(
                        f"cannot lock {self}: no file can be made in {path.parent}"
                    ) from None
                except OSError as error:
                    raise StoreFailed(f"cannot lock {self}: {error}") from None
            if self._type == "postgres":
                yield held.enter_context(self._advisory_lock())
            else:
                yield lambda: None

    @contextmanager
    def _advisory_lock(self) -> Iterator[Callable[[], None]]:
        """See https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS."""
        key = int.from_bytes(blake2b(self.dataset.encode(), digest_size=8).digest(), signed=True)
        client = self._client().sql_client
        with ExitStack() as connection:
            try:
                client.open_connection()
                connection.callback(client.close_connection)
                rows = client.execute_sql("SELECT pg_try_advisory_lock(%s)", key)
            except Exception as error:  # noqa: BLE001 - the database driver's own
                raise self._failed(error) from None
            if rows != [(True,)]:
                raise StoreInUse(f"another collector is at work on {self}")
            session = client.native_connection
            # Closing releases it as well, but only when the server comes to it.
            connection.callback(_unlock, session, key)
            yield lambda: self._check_held(session)

    def _check_held(self, session: Any) -> None:
        """The lock is held for as long as its connection is: dlt would open another in silence."""
        try:
            with session.cursor() as cursor:
                cursor.execute("SELECT 1")
        except Exception as error:  # noqa: BLE001 - the database driver's own
            raise self._failed(error) from None

    def load(self, source: DltSource, emptied: Sequence[Emptied] = ()) -> None:
        """Load all that the source yields, or nothing.

        Where collecting stands is read from the destination each time. Nothing that a run which was
        cut short left on this machine is used: what it had read is asked for again.

        Args:
            source: What `conversation_metrics` returned.
            emptied: Filled while the source is read: what its batches tell to be emptied. Rows of
                these buckets are removed before the others are loaded, so that a load which is cut
                short finds them gone and removes them once more.

        Raises:
            StoreInUse: Another collector is at work.
            StoreFailed: The destination could not be read or written.
            MsgConvError: Whatever the source raised.
        """
        with heeding(), self._watched(), self.exclusive() as check_held, self._failing():
            shutil.rmtree(self._state_dir / PIPELINE, ignore_errors=True)
            with self._without_leftovers(source.resources):
                self._check_clock()
                pipeline = dlt.pipeline(
                    PIPELINE,
                    pipelines_dir=str(self._state_dir),
                    destination=self.destination,
                    dataset_name=self.dataset,
                )
                pipeline.sync_destination()
                file_format = _FILE_FORMATS.get(self._type)  # None leaves it to dlt
                pipeline.extract(source, loader_file_format=file_format)
                pipeline.normalize()
                if self._type != "filesystem":
                    self._prepare(pipeline, emptied)
                check_held()
                pipeline.load()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Let a server that stops answering be no reason to wait without end."""
        if self._type != "postgres":
            yield
            return
        from msgconv_async.export.watchdog import watched  # noqa: PLC0415 - it needs the driver

        with watched(self._client().config.credentials.to_native_representation()):
            yield

    def _check_clock(self) -> None:
        """See that this load will be the newest, by which dlt knows the state that is in force.

        Raises:
            StoreFailed: This machine's clock is behind that of the last load.
        """
        client = self._client()
        last = None
        if hasattr(client, "get_stored_state"):
            with suppress(DestinationUndefinedEntity), client:
                last = client.get_stored_state(PIPELINE)
        newest = None if last is None else last.as_doc().get("_dlt_load_id")
        behind = float(newest or 0) - time.time()
        if behind >= 0:
            raise StoreFailed(
                f"this machine's clock is {timedelta(seconds=int(behind) + 1)} behind that of the"
                f" last load into {self}: set it right"
            )

    @contextmanager
    def _without_leftovers(self, tables: Iterable[str]) -> Iterator[None]:
        """Remove what a load that was cut short left among plain files, also if this is one."""
        client = self._client()
        if self._type != "filesystem":
            yield
            return
        remove_leftovers(client, tables)
        try:
            yield
        except BaseException:
            with suppress(OSError, MsgConvError):
                remove_leftovers(client, tables)
            raise

    def _prepare(self, pipeline: dlt.Pipeline, emptied: Sequence[Emptied]) -> None:
        """Make the tables, and keep a database in order, before anything is loaded into it."""
        pipeline.sync_schema()
        with suppress(SqlClientNotAvailable), pipeline.sql_client() as client:
            states = client.make_qualified_table_name("_dlt_pipeline_state")
            oldest = pipeline.state["_state_version"] - _STATES
            client.execute_sql(
                f"DELETE FROM {states} WHERE pipeline_name = %s AND version < %s",  # noqa: S608
                PIPELINE,
                oldest,
            )
            if self._type == "postgres":
                for name, key in KEYS.items():
                    _hold_key(client, name, key)
            for bucket in emptied:
                table = client.make_qualified_table_name(bucket.table)
                client.execute_sql(
                    f"DELETE FROM {table} WHERE account_id = %s AND interval_end = %s",  # noqa: S608
                    bucket.account_id,
                    bucket.interval_end,
                )

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
            with heeding(), dlt.dataset(destination, self.dataset) as opened:
                if not opened.schema.is_new:
                    yield opened
                    return
        except MsgConvError:
            raise
        except Exception as error:  # noqa: BLE001 - each database has errors of its own
            *_, cause = _causes(error)
            raise self._failed(cause) from None
        raise ConfigurationError(f"there is no {self}: nothing was collected")

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Translate what dlt and what is below it raise."""
        try:
            yield
        except self._errors as error:
            causes = list(_causes(error))
            for cause in causes:
                # What the source raised, or Ctrl-C: dlt packs them in.
                if isinstance(cause, MsgConvError | KeyboardInterrupt):
                    raise cause from None
            cause = causes[-1]
            if isinstance(cause, OSError) and str(self._state_dir) in str(cause.filename):
                raise StoreFailed(f"cannot write to {self._state_dir}: {cause.strerror}") from None
            if isinstance(error, PipelineStepFailed) and error.step == "extract":
                if isinstance(cause, OSError):
                    raise StoreFailed(
                        f"cannot write to {self._state_dir}: {_first_line(cause)}"
                    ) from None
                raise  # no fault of the destination's
            raise self._failed(cause) from None

    def _failed(self, error: BaseException) -> StoreFailed:
        """Return the error that says so, with no secret in it."""
        reason = _first_line(error)
        for secret in self._secrets:
            reason = reason.replace(secret, "...")
        if "Could not set lock on file" in reason:
            program = re.search(r"\(PID \d+\)", reason)
            where = f" {program.group()}" if program else ""
            reason = f"it is open in another program{where}"
        return StoreFailed(f"{self} cannot be used: {reason}")


def _unlock(session: Any, key: int) -> None:
    with suppress(Exception), session.cursor() as cursor:  # it may have broken
        cursor.execute("SELECT pg_advisory_unlock(%s)", (key,))


def _driver_errors(client: Any) -> tuple[type[Exception], ...]:
    """Return what a database's driver raises where dlt does not translate it: PEP 249's Error."""
    driver = getattr(getattr(client, "sql_client", None), "dbapi", None)
    error = getattr(driver, "Error", None)
    return (error,) if isinstance(error, type) else ()


def _secrets(credentials: Any) -> Iterator[str]:
    """Yield what no error may show, longest first."""
    if not isinstance(credentials, CredentialsConfiguration):
        return
    with suppress(Exception):  # it may not be complete
        yield str(credentials.to_native_representation())
    for name in ("password", "aws_secret_access_key", "private_key", "token"):
        if value := getattr(credentials, name, None):
            yield from {str(value), quote(str(value), safe=""), quote_plus(str(value))}


def _check_address(credentials: Any) -> None:
    """See that an address of PostgreSQL was read as it was meant: what is left over may be secret.

    Raises:
        ConfigurationError: It was not.
    """
    if credentials.drivername != "postgresql" or "@" in (credentials.host or ""):
        raise ConfigurationError(
            "destination 'postgres': its credentials must look like"
            " postgresql://user:password@host/database, with what is not a letter or digit of the"
            " password written as %40 for @ and so on"
        )


def _bound_silence(credentials: Any) -> None:
    """Let a connection break whose other end is gone, unless the address says how long that takes.

    See https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES.
    """
    credentials.query = {**_SILENCE, **(credentials.query or {})}


def _hold_key(client: SqlClientBase[Any], name: str, key: Sequence[str]) -> None:
    """Let PostgreSQL hold a table's key itself, and find a row among many by it.

    A dataset whose first load was cut short by an earlier version of this module may hold rows
    twice, which are the same in all columns: one of each is kept.
    """
    index = client.make_qualified_table_name(f"{name}_key")
    if client.execute_sql("SELECT to_regclass(%s) IS NOT NULL", index) == [(True,)]:
        return
    same = " AND ".join(f"one.{column} = other.{column}" for column in key)
    with client.begin_transaction():
        client.execute_sql(f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE")
        found = client.execute_sql(
            f"WITH gone AS (DELETE FROM {name} one USING {name} other"  # noqa: S608 - names of ours
            f" WHERE {same} AND one.ctid > other.ctid RETURNING 1) SELECT count(*) FROM gone"
        )
        client.execute_sql(f"CREATE UNIQUE INDEX {name}_key ON {name} ({', '.join(key)})")
    if found and (doubled := found[0][0]):
        _LOG.warning("%s: %s rows were stored twice, and are kept once", name, doubled)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    """Return the beginning of what an error says."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
