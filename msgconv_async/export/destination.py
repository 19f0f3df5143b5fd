"""The destinations of collected tables: any that dlt writes to, by a short name.

See https://dlthub.com/docs/dlt-ecosystem/destinations for their abilities and their credentials.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, NamedTuple, TypeAlias

import dlt
from dlt.common.destination import Destination as DltDestination
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.runtime.telemetry import stop_telemetry
from dlt.common.storages.configuration import FilesystemConfiguration

from msgconv_async import checks
from msgconv_async.errors import ConfigurationError, MsgConvError
from msgconv_async.export.settings import only_user_settings

Destination: TypeAlias = DltDestination[Any, Any]

DUCKDB_FILE = "msgconv.duckdb"
"""The default file of DuckDB, in the working directory."""

PIPELINE = "msgconv"
"""The name under which dlt stores, in a dataset, how far collecting has come."""


class _Location(NamedTuple):
    """The argument of a destination that gives its place, and is no secret.

    Attributes:
        argument: Its name.
        default: The place of the destination, if nothing else gives one.
    """

    argument: str
    default: str = ""


_LOCATIONS = {
    "duckdb": _Location("credentials", DUCKDB_FILE),
    "filesystem": _Location("bucket_url"),
}
"""The locations by the destination's name. Others take no location on the command line."""


class StoreFailed(MsgConvError):
    """A destination could not be read or written."""


class StoreInUse(StoreFailed):
    """Another collector is at work on the dataset."""


def set_defaults() -> None:
    """Turn off dlt's usage reports and its log, unless its user configured them.

    Errors are raised as well, so they are reported once.

    Raises:
        ConfigurationError: A file with dlt's settings cannot be read.
    """
    with only_user_settings():
        context = dlt.current.run_context()
        config = context.runtime_config
        if dlt.config.get("runtime.dlthub_telemetry") is None:
            config.dlthub_telemetry = False
        if dlt.config.get("runtime.log_level") is None:
            config.log_level = "CRITICAL"
        stop_telemetry()
        context.initialize_runtime(config)


def destination(text: str) -> Destination:
    """Return a dlt destination.

    Args:
        text: The name of one of dlt's destinations, such as ``postgres``. dlt's configuration or
            the environment gives its place and credentials. ``duckdb:FILE`` and
            ``filesystem:FOLDER`` (or a URL) give the place; ``duckdb`` alone is ``msgconv.duckdb``
            in the working directory.

    Raises:
        ConfigurationError: dlt has no destination of that name, or it takes no location here.
    """
    checks.text("destination", text, "the name of one of dlt's destinations, such as 'duckdb'")
    with only_user_settings():
        return _destination(text)


def _destination(text: str) -> Destination:
    name, _, where = text.partition(":")
    if name in FilesystemConfiguration.PROTOCOL_CREDENTIALS and where.startswith("//"):
        raise ConfigurationError(
            f"destination '{name}://…' is a place for files: write filesystem:{name}://…"
        )
    if ":memory:" in where:
        raise ConfigurationError(
            f"destination {text!r}: a database in memory is lost when the program ends: name a file"
        )
    location = _LOCATIONS.get(name)
    arguments = {} if location is None else _located(name, location, where)
    try:
        found = DltDestination.from_reference(name, **arguments)
    except UnknownDestinationModule:
        near = get_close_matches(name, dlt.destinations.__all__, 1)
        hint = f"did you mean {near[0]}?" if near else "try duckdb, postgres or filesystem"
        raise ConfigurationError(
            f"destination {name!r}: dlt has no destination of that name, {hint}"
        ) from None
    if where and location is None:
        raise ConfigurationError(
            f"destination {name!r} takes no location on the command line, where everybody sees it:"
            f" {where_to_set(name, 'credentials')}"
        )
    assert found is not None  # noqa: S101 - only for a reference that is None
    return found


def _located(name: str, location: _Location, where: str) -> dict[str, str]:
    """Return the argument for a destination's place, unless dlt's configuration gives it."""
    if "@" in where.partition("://")[2].partition("/")[0]:
        raise ConfigurationError(
            f"destination {name!r}: a place on the command line is seen by everybody, so it may"
            " hold no user or password"
        )
    if not where and dlt.secrets.get(f"destination.{name}.{location.argument}") is None:
        where = location.default
    return {location.argument: where} if where else {}


def client_of(destination: Destination, dataset: str) -> Any:
    """Return dlt's client of a dataset, with a connection of its own."""
    return dlt.dataset(destination, dataset, schema=dlt.Schema(PIPELINE)).destination_client


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says or, if it says nothing, its type's name."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


def where_to_set(name: str, setting: str) -> str:
    """Say where a setting of a destination goes: never on the command line."""
    variable = f"DESTINATION__{name}__{setting}".upper()
    return f"set it in the environment, such as {variable}, or as dlt's documentation says"
