"""PostgreSQL: its own lock and keys, and a watch over a server that may stop answering."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from typing import Any

from dlt.destinations.sql_client import SqlClientBase

from msgconv_async.errors import ConfigurationError
from msgconv_async.export.backends.base import ALONE, Backend
from msgconv_async.export.destination import StoreInUse
from msgconv_async.export.pipeline import KEYS
from msgconv_async.export.shards import Shard

_LOG = logging.getLogger("msgconv_async")

_KEEPALIVES = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""A server counts as gone after about a minute without a sign of it."""

_BIGINT = 64
"""Bits."""

_OTHERS = """
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted
    AND classid::bigint = %s AND objid::bigint <> %s
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""Counts the locks of shards of another number; a lock of two keys has the ``objsubid`` 2."""


class Postgres(Backend):
    """A dataset in a PostgreSQL database."""

    file_format = "csv"  # dlt's own choice is slower

    def _configure(self, config: Any) -> None:
        super()._configure(config)
        _check_address(config.credentials)
        _add_keepalives(config.credentials)
        self.destination.config_params["credentials"] = config.credentials

    @contextmanager
    def locked(self, shard: Shard) -> Iterator[Callable[[], None]]:
        """Hold advisory locks, for as long as their connection lasts.

        One is the shard's alone. Another is held by all shards of one number together, and tells
        those of another number that they are there.

        See https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS.

        Args:
            shard: Whose locks they are.

        Yields:
            A function that checks that the locks are still held. It raises `StoreFailed` otherwise.

        Raises:
            StoreInUse: Another collector holds the lock, or there are shards of another number.
            StoreFailed: The database cannot be asked.
        """
        alone = _key(f"{self.dataset}{shard.suffix}", 64)
        together = _key(self.dataset, 31)
        client = self.connect().sql_client
        with ExitStack() as connection:
            try:
                client.open_connection()
                connection.callback(client.close_connection)
                ((held, _),) = client.execute_sql(
                    "SELECT pg_try_advisory_lock(%s), pg_try_advisory_lock_shared(%s, %s)",
                    *(alone, together, shard.count),
                )
                ((others,),) = client.execute_sql(_OTHERS, together, shard.count)
            except Exception as error:  # noqa: BLE001 - the database driver's own
                raise self.failed(error) from None
            session = client.native_connection
            # Closing releases them as well, but only when the server notices.
            connection.callback(_unlock, session)
            if not held:
                raise StoreInUse(f"{shard.another} is at work on {self}")
            if others:
                raise StoreInUse(f"{shard.of_another_number} is at work on {self}")
            yield lambda: self._check_held(session)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other shard makes the tables, on whatever machine."""
        client = self.connect().sql_client
        with ExitStack() as connection:
            client.open_connection()
            connection.callback(client.close_connection)
            client.execute_sql(f"SET lock_timeout = '{ALONE}s'")
            client.execute_sql("SELECT pg_advisory_lock(%s)", _key(f"{self.dataset} tables", 64))
            connection.callback(_unlock, client.native_connection)
            yield

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


def _key(text: str, bits: int) -> int:
    """Return a number for a lock: one of 64 bits has a sign, and shorter ones have none."""
    number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True)
    return number if bits == _BIGINT else number % 2**bits


def _unlock(session: Any) -> None:
    with suppress(Exception), session.cursor() as cursor:  # it may have broken
        cursor.execute("SELECT pg_advisory_unlock_all()")


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
