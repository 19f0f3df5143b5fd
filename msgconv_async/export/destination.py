"""Where collected tables are kept: anywhere that dlt writes to, by a short name.

See https://dlthub.com/docs/dlt-ecosystem/destinations for what each can do and how it is let in.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, TypeAlias

import dlt
from dlt.common.destination import Destination as DltDestination
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.runtime.telemetry import stop_telemetry

from msgconv_async.errors import ConfigurationError, MsgConvError
from msgconv_async.export.settings import heeding

Destination: TypeAlias = DltDestination[Any, Any]

DUCKDB_FILE = "msgconv.duckdb"
"""In the working directory, where no other is named."""

_LOCATED = {"duckdb": "credentials", "filesystem": "bucket_url"}
"""Which of a destination's arguments says where it is, if that is no secret."""


class StoreFailed(MsgConvError):
    """A destination could not be read or written."""


class StoreInUse(StoreFailed):
    """Another collector is at work on the dataset."""


def set_defaults() -> None:
    """Let dlt report nothing of its use and log nothing, unless its user configured it.

    What goes wrong is raised as well, and told once.

    Raises:
        ConfigurationError: A file with dlt's settings cannot be read.
    """
    with heeding():
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
        text: The name of one of dlt's destinations, such as ``postgres``; where it is and how it
            lets in, dlt's configuration or the environment says. ``duckdb:FILE`` and
            ``filesystem:FOLDER`` (or a URL) say where; ``duckdb`` alone is ``msgconv.duckdb`` in
            the working directory.

    Raises:
        ConfigurationError: dlt knows none of that name, or it takes no location here.
    """
    with heeding():
        return _destination(text)


def _destination(text: str) -> Destination:
    name, _, where = text.partition(":")
    located = where
    if name == "duckdb" and not where and dlt.secrets.get("destination.duckdb.credentials") is None:
        located = DUCKDB_FILE
    if ":memory:" in where:
        raise ConfigurationError(f"destination {text!r}: nothing that is kept in memory is kept")
    if located and name in _LOCATED:
        if "@" in where.partition("://")[2].partition("/")[0]:
            raise ConfigurationError(
                f"destination {name!r}: a place on the command line is seen by everybody, so it may"
                " hold no user or password"
            )
        arguments = {_LOCATED[name]: located}
    else:
        arguments = {}
    try:
        found = DltDestination.from_reference(name, **arguments)
    except UnknownDestinationModule:
        near = get_close_matches(name, dlt.destinations.__all__, 1)
        hint = f"did you mean {near[0]}?" if near else "try duckdb, postgres or filesystem"
        raise ConfigurationError(
            f"destination {name!r}: dlt has none of that name, {hint}"
        ) from None
    if located and not arguments:
        raise ConfigurationError(
            f"destination {name!r} takes no location on the command line, where everybody sees it:"
            f" {elsewhere(name, 'credentials')}"
        )
    assert found is not None  # noqa: S101 - only for a reference that is None
    return found


def elsewhere(name: str, setting: str) -> str:
    """Say where else than on the command line a setting goes."""
    variable = f"DESTINATION__{name}__{setting}".upper()
    return f"set it in the environment, such as {variable}, or as dlt's documentation says"
