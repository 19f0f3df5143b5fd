"""The tables as files of text: CSV, or JSON objects, one a line."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from msgconv_async.export.files.base import TableFiles
from msgconv_async.export.files.lines import (
    csv_header,
    csv_lines,
    file_rows,
    ndjson_lines,
)
from msgconv_async.export.rows import COMPLETE, Row, Table
from msgconv_async.protocol.report import ConversationReport


class _TextFiles(TableFiles):
    """Files of lines, one for each row; see `TableFiles`."""

    def _begin(self, streams: Mapping[Table, BinaryIO]) -> None:
        self._streams = streams

    def add(self, account_id: str, report: ConversationReport) -> int:
        count = 0
        for table, stream in self._streams.items():
            rows = list(file_rows(table, account_id, report))
            stream.write(self._lines(table, rows))
            count += len(rows)
        return count

    @abstractmethod
    def _lines(self, table: Table, rows: Sequence[Row]) -> bytes:
        """Return rows as lines."""


class CsvFiles(_TextFiles):
    """CSV files, which begin with the names of the columns."""

    def _begin(self, streams: Mapping[Table, BinaryIO]) -> None:
        super()._begin(streams)
        for table, stream in streams.items():
            stream.write(csv_header((*table.columns, COMPLETE)))

    def _lines(self, table: Table, rows: Sequence[Row]) -> bytes:  # noqa: ARG002
        return csv_lines(rows)


class NdjsonFiles(_TextFiles):
    """Files of JSON objects, one a line."""

    def _lines(self, table: Table, rows: Sequence[Row]) -> bytes:
        return ndjson_lines((*table.columns, COMPLETE), rows)
