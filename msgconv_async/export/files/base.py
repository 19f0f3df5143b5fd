"""The common part of all formats: one file for each table, put in their places together."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Literal, Self, TypeAlias, get_args

from msgconv_async import checks
from msgconv_async.errors import ConfigurationError
from msgconv_async.export.files.whole_file import WholeFile
from msgconv_async.export.rows import Table
from msgconv_async.protocol.report import ConversationReport

FileFormat: TypeAlias = Literal["parquet", "csv", "ndjson"]


class TableFiles(ABC):
    """Files of the tables of reports, such as ``skill_metrics.csv``, in one folder.

    Use it as a context manager. `commit` puts every file in its place, in one step each, and
    replaces a file of the same name. Without `commit`, nothing changes. See `WholeFile`.

    Args:
        folder: The folder of the files; it is made if it is missing.
        format: The ending of their names.
        tables: Which of the tables to write. A table without rows is a file as well.

    Raises:
        ConfigurationError: A setting cannot work. On entering: no file could be written there.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        format: FileFormat,  # noqa: A002 - the usual name
        tables: Sequence[Table],
    ) -> None:
        checks.path("folder", folder, "the path of a folder")
        checks.one_of("format", format, get_args(FileFormat))
        what = "several tables, such as those of `tables_of`"
        tables = checks.members("tables", tables, Table, "a Table", what)
        self._folder = Path(folder)
        self._files = {
            table: WholeFile(self._folder / f"{table.name}.{format}") for table in tables
        }
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{self._folder}: no folder can be made there: {error.strerror}"
            ) from None
        with ExitStack() as entered:
            for file in self._files.values():
                entered.enter_context(file)
            self._begin({table: file.stream for table, file in self._files.items()})
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.close()

    @abstractmethod
    def _begin(self, streams: Mapping[Table, BinaryIO]) -> None:
        """Take note of the streams to write to."""

    @abstractmethod
    def add(self, account_id: str, report: ConversationReport) -> int:
        """Write a report's rows.

        Args:
            account_id: The account of the report.
            report: The report. Its newest interval may still have been open.

        Returns:
            How many rows there were.

        Raises:
            ConfigurationError: An argument is of another type, or the report has no intervals and
                does not know its window.
            UnexpectedResponse: For Parquet, a number does not fit into 64 bits. Nothing of the
                report is written, and others may follow.
            OSError: It cannot be written: a disk is full, perhaps.
        """

    def commit(self) -> None:
        """Finish the files, and put them in their places.

        Raises:
            OSError: It cannot be written: a disk is full, perhaps. Nothing has changed.
        """
        for file in self._files.values():
            file.store()
        for file in self._files.values():
            file.commit()
