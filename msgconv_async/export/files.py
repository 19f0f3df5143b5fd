"""The tables as files, one for each: Parquet (extra ``arrow``), CSV, or JSON objects, one a line.

A file is there whole or not at all: what is written goes to another one beside its place, and takes
that place when it is complete and stored. Rows are written as reports come, so that memory does not
grow with them.

The columns are a table's own and, as the last, ``complete``: False in a row whose interval was
still open when it was asked for.
"""

from __future__ import annotations

import csv
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import cache
from io import StringIO
from pathlib import Path
from typing import BinaryIO, Literal, Self, TypeAlias

import msgspec

from msgconv_async.errors import ConfigurationError
from msgconv_async.export.beside import CAN_REPLACE_OPEN, create_beside
from msgconv_async.export.rows import TABLES, Row, Table, Value, intervals
from msgconv_async.protocol.report import ConversationReport

FileFormat: TypeAlias = Literal["parquet", "csv", "ndjson"]

COMPLETE = "complete"
"""The last column of files: whether the row's interval was complete when it was asked for."""

_ENCODER = msgspec.json.Encoder()


class WholeFile:
    """A file that is there whole or not at all.

    It is written beside its place under another name, and put there by `commit`; without a
    `commit`, whatever stood there before stands there still. A process that is killed may leave
    the other one behind: its name begins with a dot and ends in ``.msgconv``. The next that writes
    a file in the same folder removes it.

    A new file can be read and written by its owner alone; one that is replaced keeps its mode.

    Args:
        path: The file. Behind a symbolic link, it is the file that is replaced.

    Raises:
        ConfigurationError: On entering: no file could be written there.

    Attributes:
        stream: Where to write, once entered.
    """

    stream: BinaryIO

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(os.path.realpath(path))
        self._beside = self._path

    def __enter__(self) -> Self:
        if self._path.exists() and not self._path.is_file():
            raise ConfigurationError(f"{self._path}: not a file that can be replaced")
        try:
            self._beside, self.stream = create_beside(self._path)
        except OSError as error:
            raise ConfigurationError(
                f"{self._path}: cannot write there: {error.strerror}"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.stream.close()
        if self._beside != self._path:
            self._beside.unlink(missing_ok=True)

    def store(self) -> None:
        """See to it that what was written so far would outlast a power cut."""
        self.stream.flush()
        os.fsync(self.stream.fileno())

    def commit(self) -> None:
        """Say that this was all, and put it in its place."""
        self.store()
        if CAN_REPLACE_OPEN:  # closing it gives up what keeps others from removing it
            self._beside.replace(self._path)
            self.stream.close()
        else:
            self.stream.close()
            self._beside.replace(self._path)
        self._beside = self._path


class TableFiles(ABC):
    """Files of the tables of reports, such as ``skill_metrics.csv``, in one folder.

    Use it as a context manager. `commit` puts every file in its place, in one step each, and in the
    place of one that has the same name; without it, nothing has changed. See `WholeFile`.

    Args:
        folder: Where they go; it is made if it is missing.
        format: How their names end.
        tables: Which of the tables to write. One that gets no rows is a file as well.

    Raises:
        ConfigurationError: On entering: no file could be written there.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        format: FileFormat,  # noqa: A002 - the name that everybody looks for
        tables: Sequence[Table],
    ) -> None:
        self._folder = Path(folder)
        self._files = {each: WholeFile(self._folder / f"{each.name}.{format}") for each in tables}
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{self._folder}: no folder can be made there: {error.strerror}"
            ) from None
        with ExitStack() as entered:
            for each in self._files.values():
                entered.enter_context(each)
            self._begin({table: each.stream for table, each in self._files.items()})
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.close()

    @abstractmethod
    def _begin(self, streams: Mapping[Table, BinaryIO]) -> None:
        """Take note of where to write."""

    @abstractmethod
    def add(self, account_id: str, report: ConversationReport) -> int:
        """Write a report's rows.

        Args:
            account_id: Whose report it is.
            report: The report. Its newest interval may still have been open.

        Returns:
            How many rows there were.

        Raises:
            ValueError: The report has no intervals and does not know its window.
            UnexpectedResponse: For Parquet, a number does not fit into 64 bits. Nothing of the
                report is written, and others may follow.
            OSError: It cannot be written: a disk is full, perhaps.
        """

    def commit(self) -> None:
        """Say that these were all, and put the files in their places.

        Raises:
            OSError: It cannot be written: a disk is full, perhaps. Nothing has changed.
        """
        for each in self._files.values():
            each.store()
        for each in self._files.values():
            each.commit()


class _Lines(TableFiles):
    """CSV, which begins with the names of the columns, or JSON objects."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        format: Literal["csv", "ndjson"],  # noqa: A002
        tables: Sequence[Table],
    ) -> None:
        super().__init__(folder, format, tables)
        self._header = format == "csv"
        self._lines = csv_lines if format == "csv" else ndjson_lines

    def _begin(self, streams: Mapping[Table, BinaryIO]) -> None:
        self._streams = streams
        if self._header:
            for table, stream in streams.items():
                stream.write(f"{','.join((*table.columns, COMPLETE))}\n".encode())

    def add(self, account_id: str, report: ConversationReport) -> int:
        count = 0
        for table, stream in self._streams.items():
            rows = list(file_rows(table, account_id, report))
            stream.write(self._lines(table, rows))
            count += len(rows)
        return count


def table_files(
    folder: str | os.PathLike[str],
    format: FileFormat,  # noqa: A002
    tables: Sequence[Table] = TABLES,
) -> TableFiles:
    """Return the files of tables in a format.

    Args:
        folder: Where they go; it is made if it is missing.
        format: ``"parquet"``, ``"csv"`` or ``"ndjson"``, which is also how their names end.
        tables: Which of the tables to write.

    Raises:
        ModuleNotFoundError: Parquet needs pyarrow, which the extra ``arrow`` brings.
    """
    if format != "parquet":
        return _Lines(folder, format, tables)
    from msgconv_async.export.parquet import ParquetFiles  # noqa: PLC0415 - an extra

    return ParquetFiles(folder, format, tables)


def file_rows(table: Table, account_id: str, report: ConversationReport) -> Iterator[Row]:
    """Yield a report's rows as `Table.rows` does, each with `COMPLETE` as its last value."""
    for interval in intervals(report):
        for row in table.flatten(account_id, interval):
            yield (*row, interval.complete)


def csv_lines(table: Table, rows: Iterable[Row]) -> bytes:
    """Return rows as lines of CSV, without a header; None is an empty cell."""
    text = StringIO()
    start = len(table.key) + 1
    cell = cache(csv_cell)  # the same few edges of intervals stand in all the rows
    csv.writer(text, lineterminator="\n").writerows(
        (*map(cell, row[:start]), *row[start:-1], cell(row[-1])) for row in rows
    )
    return text.getvalue().encode()


def csv_cell(value: Value) -> Value:
    """Write a datetime and a truth value as the JSON formats do."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value.replace(tzinfo=None).isoformat()}Z" if isinstance(value, datetime) else value


def ndjson_lines(table: Table, rows: Iterable[Row]) -> bytes:
    """Return rows as JSON objects, one a line, of the file's columns."""
    columns = (*table.columns, COMPLETE)
    return _ENCODER.encode_lines(dict(zip(columns, row, strict=True)) for row in rows)
