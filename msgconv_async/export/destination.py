"""Where collected tables are kept: anywhere that dlt writes to, by a short name.

See https://dlthub.com/docs/dlt-ecosystem/destinations for what each can do and how it is let in.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import dlt
from dlt.common.destination import Destination as DltDestination
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.runtime.telemetry import stop_telemetry

from msgconv_async.errors import ConfigurationError

Destination: TypeAlias = DltDestination[Any, Any]

DUCKDB_FILE = "msgconv.duckdb"
"""In the working directory, where no other is named."""

_LOCATED = {"duckdb": "credentials", "filesystem": "bucket_url"}
"""Which of a destination's arguments says where it is, if that is no secret."""


def set_defaults() -> None:
    """Let dlt report nothing of its use, and log errors alone, unless its user configured it."""
    context = dlt.current.run_context()
    config = context.runtime_config
    if dlt.config.get("runtime.dlthub_telemetry") is None:
        config.dlthub_telemetry = False
    if dlt.config.get("runtime.log_level") is None:
        config.log_level = "ERROR"
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
    name, _, where = text.partition(":")
    if name == "duckdb":
        where = where or DUCKDB_FILE
    if where and name not in _LOCATED:
        raise ConfigurationError(
            f"destination {name!r} takes no location on the command line, where everybody sees it:"
            f" {elsewhere(name, 'credentials')}"
        )
    try:
        found = DltDestination.from_reference(name, **({_LOCATED[name]: where} if where else {}))
    except UnknownDestinationModule:
        raise ConfigurationError(
            f"destination {name!r}: dlt has none of that name, such as duckdb, postgres or"
            " filesystem"
        ) from None
    assert found is not None  # noqa: S101 - only for a reference that is None
    return found


def elsewhere(name: str, setting: str) -> str:
    """Say where else than on the command line a setting goes."""
    variable = f"DESTINATION__{name}__{setting}".upper()
    return f"set it in the environment, such as {variable}, or as dlt's documentation says"
