"""The differences between destinations: a class for each that needs one, and a default.

A backend knows its dataset and its configuration. It does not know the code that uses it.
"""

from __future__ import annotations

from typing import Any

from msgconv_async.export.backends.base import Backend
from msgconv_async.export.backends.duckdb import DuckDb, OpenedByDuckDb
from msgconv_async.export.backends.filesystem import Filesystem
from msgconv_async.export.backends.postgres import Postgres
from msgconv_async.export.destination import Destination

__all__ = ["Backend", "backend_of"]

_BACKENDS: dict[str, type[Backend]] = {
    "duckdb": DuckDb,
    "ducklake": OpenedByDuckDb,
    "filesystem": Filesystem,
    "postgres": Postgres,
}
"""The backends by dlt's name of a type of destination."""


def backend_of(destination: Destination, dataset: str, client: Any) -> Backend:
    """Return the backend of a dataset.

    Args:
        destination: Where the dataset is.
        dataset: Its name there.
        client: dlt's client of the dataset.

    Raises:
        ConfigurationError: The destination cannot have this dataset, as it is configured.
    """
    backend = _BACKENDS.get(client.config.destination_type, Backend)
    return backend(destination, dataset, client)
