"""PostgreSQL: its own lock and keys, and a watch over a server that may stop answering."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from typing import Any

from dlt.destinations.sql_client import SqlClientBase

from msgconv_async.errors import ConfigurationError
from msgconv_async.export.backends.base import Backend
from msgconv_async.export.destination import StoreInUse
from msgconv_async.export.pipeline import KEYS

_LOG = logging.getLogger("msgconv_async")

_KEEPALIVES = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""A server counts as gone after about a minute without a sign of it."""


class Postgres(Backend):
    """A dataset in a PostgreSQL database."""

    file_format = "csv"  # dlt's own choice is slower

    def _configure(self, config: Any) -> None:
        super()._configure(config)
        _check_address(config.credentials)
        _add_keepalives(config.credentials)
        self.destination.config_params["credentials"] = config.credentials

    @contextmanager
    def locked(self) -> Iterator[Callable[[], None]]:
        """Hold an advisory lock, for as long as its connection lasts.

        See https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS.

        Yields:
            A function that checks that the lock is still held. It raises `StoreFailed` otherwise.

        Raises:
            StoreInUse: Another collector holds it.
            StoreFailed: The database cannot be asked.
        """
        key = int.from_bytes(blake2b(self.dataset.encode(), digest_size=8).digest(), signed=True)
        client = self.connect().sql_client
        with ExitStack() as connection:
            try:
                client.open_connection()
                connection.callback(client.close_connection)
                rows = client.execute_sql("SELECT pg_try_advisory_lock(%s)", key)
            except Exception as error:  # noqa: BLE001 - the database driver's own
                raise self.failed(error) from None
            if rows != [(True,)]:
                raise StoreInUse(f"another collector is at work on {self}")
            session = client.native_connection
            # Closing releases it as well, but only when the server notices.
            connection.callback(_unlock, session, key)
            yield lambda: self._check_held(session)

    def _check_held(self, session: Any) -> None:
        """Use the very connection that holds the lock: dlt would open another in silence."""
        try:
            with session.cursor() as cursor:
                cursor.execute("SELECT 1")
        except Exception as error:  # noqa: BLE001 - the database driver's own
            raise self.failed(error) from None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Shut down the connections made inside once the server answers no more."""
        # It needs the driver, which may be missing.
        from msgconv_async.export.backends.watchdog import watched  # noqa: PLC0415

        with watched(self.connect().config.credentials.to_native_representation()):
            yield

    def _hold_keys(self, client: SqlClientBase[Any]) -> None:
        for name, key in KEYS.items():
            _hold_key(client, name, key)


def _unlock(session: Any, key: int) -> None:
    with suppress(Exception), session.cursor() as cursor:  # it may have broken
        cursor.execute("SELECT pg_advisory_unlock(%s)", (key,))


def _check_address(credentials: Any) -> None:
    """Check that an address was read as it was meant: the parts left over may be secret.

    Raises:
        ConfigurationError: It was read in another way.
    """
    if credentials.drivername != "postgresql" or "@" in (credentials.host or ""):
        raise ConfigurationError(
            "destination 'postgres': its credentials must look like"
            " postgresql://user:password@host/database; in the password, each character that is not"
            " a letter or digit must be written as a %-code, such as %40 for @"
        )


def _add_keepalives(credentials: Any) -> None:
    """Let a connection break when its other end is gone, unless the address sets the time itself.

    See https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES.
    """
    credentials.query = {**_KEEPALIVES, **(credentials.query or {})}


def _hold_key(client: SqlClientBase[Any], name: str, key: Sequence[str]) -> None:
    """Let PostgreSQL itself enforce a table's key, and find rows fast by it.

    A dataset whose first load was interrupted by an earlier version of this module may hold rows
    twice. The two are the same in all columns, and one of them is kept.
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
