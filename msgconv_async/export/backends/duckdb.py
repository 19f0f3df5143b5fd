"""DuckDB: one file. While one program writes it, no other program can read it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dlt
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

from msgconv_async.errors import ConfigurationError
from msgconv_async.export.backends.base import Backend
from msgconv_async.export.destination import Destination


class OpenedByDuckDb(Backend):
    """A dataset that DuckDB opens: in a file of its own, or in another catalog."""

    def _reason(self, reason: str) -> str:
        if "Could not set lock on file" not in reason:
            return reason
        program = re.search(r"\(PID \d+\)", reason)
        return f"it is open in another program{f' {program.group()}' if program else ''}"


class DuckDb(OpenedByDuckDb):
    """A dataset in a file of DuckDB's."""

    def _configure(self, config: Any) -> None:
        super()._configure(config)
        if Path(self.where).stem == self.dataset:
            raise ConfigurationError(
                f"dataset {self.dataset!r}: DuckDB cannot tell it from its file {self.where}: give"
                " one of them another name"
            )

    def read_only(self) -> Destination:
        """Return the destination, opened so that it neither makes the file nor keeps others off.

        Raises:
            ConfigurationError: There is no file.
        """
        file = self.destination.config_params.get("credentials")
        if not isinstance(file, str):
            return self.destination
        if not Path(file).is_file():
            raise ConfigurationError(f"there is no file {file}: nothing was collected")
        return dlt.destinations.duckdb(DuckDbCredentials(file, read_only=True))
