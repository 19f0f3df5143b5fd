"""The abilities of any of dlt's destinations, and the defaults of the backends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import dlt
from dlt.common.configuration.specs import CredentialsConfiguration
from dlt.common.destination import TLoaderFileFormat
from dlt.common.destination.exceptions import SqlClientNotAvailable
from dlt.common.exceptions import DltException
from dlt.destinations.sql_client import SqlClientBase

from msgconv_async.client.http.redaction import spellings
from msgconv_async.export.destination import Destination, StoreFailed, client_of, first_line
from msgconv_async.export.pipeline import Emptied
from msgconv_async.export.shards import Shard

_USER_INFO = re.compile(r"//[^/@]*@")

ALONE = 120
"""Seconds that a shard waits for another one to make the tables, which takes a few."""

_STATES = 10
"""How many of a pipeline's states a database keeps. Only one of them is in use."""


class Backend:
    """A dataset at one of dlt's destinations.

    The methods do what suits any destination. A class for one of them overrides what differs.

    Args:
        destination: Where the dataset is.
        dataset: Its name there.
        client: dlt's client of the dataset.

    Raises:
        ConfigurationError: The destination cannot have this dataset, as it is configured.

    Attributes:
        file_format: The format of the files that dlt loads. None leaves the choice to dlt.
        destination: As given.
        dataset: As given.
        where: The place, without a user's name or password.
        errors: The exceptions of dlt and of the database's driver.
    """

    file_format: ClassVar[TLoaderFileFormat | None] = None

    def __init__(self, destination: Destination, dataset: str, client: Any) -> None:
        config = client.config
        self.destination = destination
        self.dataset = dataset
        self.where = _USER_INFO.sub("//", str(config.data_location()))
        self.errors: tuple[type[Exception], ...] = (
            DltException,
            OSError,
            *_driver_errors(client),
        )
        self._type = config.destination_type
        self._secrets = tuple(_secrets(config.credentials))
        self._configure(config)

    def __str__(self) -> str:
        return f"{self._type} {self.where}, dataset {self.dataset}"

    def _configure(self, config: Any) -> None:
        """Check dlt's configuration of the destination, and complete it.

        Raises:
            ConfigurationError: The destination cannot have this dataset.
        """

    def connect(self) -> Any:
        """Return dlt's client of the dataset, with a connection of its own."""
        return client_of(self.destination, self.dataset)

    # ------------------------------------------------------------ one collector at a time

    shared = True
    """Whether shards may load at once, where the data is not in files of this machine."""

    @property
    def lock_file(self) -> Path | None:
        """The file beside the data whose lock keeps other collectors off.

        It is None where the data is not in files of this machine.
        """
        where = Path(self.where)
        if not where.is_absolute():
            return None
        return self._lock_folder(where) / f".{where.name}.{self.dataset}.lock"

    def _lock_folder(self, where: Path) -> Path:
        return where.parent

    @contextmanager
    def locked(
        self,
        shard: Shard,  # noqa: ARG002 - for those that override it
    ) -> Iterator[Callable[[], None]]:
        """Hold the database's own lock on the dataset, if it has any.

        Args:
            shard: Shards of one number hold it together; nobody else does.

        Yields:
            A function that checks that the lock is still held. It raises `StoreFailed` otherwise.

        Raises:
            StoreInUse: Another collector holds it.
            StoreFailed: The database cannot be asked.
        """
        yield lambda: None

    # ------------------------------------------------------------ loading

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other shard makes the tables, if the database can tell."""
        yield

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Let no operation inside wait without end for a server that stopped answering."""
        yield

    @contextmanager
    def without_partial_loads(
        self,
        tables: Iterable[str],  # noqa: ARG002 - for classes that override it
    ) -> Iterator[None]:
        """Remove what interrupted loads left behind: on entering, and if this load fails.

        In a database, a load replaces the rows of a partial one, so nothing is done here.

        Args:
            tables: The names of the tables that are loaded.

        Raises:
            StoreFailed: It is not known which loads are complete.
        """
        yield

    def prepare(self, pipeline: dlt.Pipeline, emptied: Sequence[Emptied]) -> None:
        """Make the tables, and clean up in the database, before anything is loaded into it.

        Args:
            pipeline: The pipeline that is about to load.
            emptied: Buckets whose stored rows are removed.
        """
        pipeline.sync_schema()
        with suppress(SqlClientNotAvailable), pipeline.sql_client() as client:
            _remove_old_states(client, pipeline)
            self._hold_keys(client)
            _remove_emptied(client, emptied)

    def _hold_keys(self, client: SqlClientBase[Any]) -> None:
        """Let the database itself enforce the keys of the tables, if it can."""

    # ------------------------------------------------------------ reading

    def read_only(self) -> Destination:
        """Return the destination, to read from.

        Raises:
            ConfigurationError: Nothing was collected there.
        """
        return self.destination

    # ------------------------------------------------------------ errors

    def failed(self, error: BaseException) -> StoreFailed:
        """Return the error that describes another one, in a line and without a secret."""
        reason = first_line(error)
        for secret in self._secrets:
            reason = reason.replace(secret, "...")
        return StoreFailed(f"{self} cannot be used: {self._reason(reason)}")

    def _reason(self, reason: str) -> str:
        """Return what the destination said, in words that its user understands."""
        return reason


def _driver_errors(client: Any) -> tuple[type[Exception], ...]:
    """Return the errors of a database's driver that dlt does not translate: PEP 249's Error."""
    driver = getattr(getattr(client, "sql_client", None), "dbapi", None)
    error = getattr(driver, "Error", None)
    return (error,) if isinstance(error, type) else ()


def _secrets(credentials: Any) -> Iterator[str]:
    """Yield the texts that no error may show, longest first."""
    if not isinstance(credentials, CredentialsConfiguration):
        return
    with suppress(Exception):  # it may not be complete
        yield str(credentials.to_native_representation())
    for name in ("password", "aws_secret_access_key", "private_key", "token"):
        if value := getattr(credentials, name, None):
            yield from spellings(str(value))


def _remove_old_states(client: SqlClientBase[Any], pipeline: dlt.Pipeline) -> None:
    states = client.make_qualified_table_name("_dlt_pipeline_state")
    oldest = pipeline.state["_state_version"] - _STATES
    client.execute_sql(
        f"DELETE FROM {states} WHERE pipeline_name = %s AND version < %s",  # noqa: S608
        pipeline.pipeline_name,
        oldest,
    )


def _remove_emptied(client: SqlClientBase[Any], emptied: Sequence[Emptied]) -> None:
    for bucket in emptied:
        table = client.make_qualified_table_name(bucket.table)
        client.execute_sql(
            f"DELETE FROM {table} WHERE account_id = %s AND interval_end = %s",  # noqa: S608
            bucket.account_id,
            bucket.interval_end,
        )
