"""Files, in a folder or in the cloud: rows can only be added, so half a load must be removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dlt

from msgconv_async.errors import ConfigurationError, MsgConvError
from msgconv_async.export.backends.base import Backend
from msgconv_async.export.backends.partial_loads import remove_partial_loads
from msgconv_async.export.pipeline import Emptied


class Filesystem(Backend):
    """A dataset of Parquet files."""

    file_format = "parquet"
    shared = False  # one would take the files of another's load for those of half a load

    def _configure(self, config: Any) -> None:
        super()._configure(config)
        if "{load_id}" not in config.layout.rpartition("/")[2]:
            raise ConfigurationError(
                f"destination 'filesystem': its layout {config.layout!r} must have {{load_id}} in"
                " the names of files, which shows the files of half a load"
            )

    def _lock_folder(self, where: Path) -> Path:
        return where

    @contextmanager
    def without_partial_loads(self, tables: Iterable[str]) -> Iterator[None]:
        """Remove the files of interrupted loads: on entering, and if this load fails.

        Args:
            tables: The names of the tables that are loaded.

        Raises:
            StoreFailed: It is not known which loads are complete.
        """
        client = self.connect()
        remove_partial_loads(client, tables)
        try:
            yield
        except BaseException:
            with suppress(OSError, MsgConvError):
                remove_partial_loads(client, tables)
            raise

    def prepare(self, pipeline: dlt.Pipeline, emptied: Sequence[Emptied]) -> None:
        """Do nothing: files need no tables, and their rows are never replaced."""
