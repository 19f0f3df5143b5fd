"""The tables as Parquet files; needs the extra ``arrow``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import BinaryIO

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import parquet

from msgconv_async.export.arrow import complete_schema, report_tables, with_complete
from msgconv_async.export.files.base import TableFiles
from msgconv_async.export.rows import Table
from msgconv_async.protocol.report import ConversationReport

_GROUP = 65_536
"""Rows that are kept until they are written together: many small groups would read slowly."""


class ParquetFiles(TableFiles):
    """Parquet files, written a row group at a time; see `TableFiles`."""

    def _begin(self, streams: Mapping[Table, BinaryIO]) -> None:
        self._groups = {
            table.name: _RowGroups(table.name, stream) for table, stream in streams.items()
        }

    def __exit__(self, *_: object) -> None:
        for groups in self._groups.values():
            groups.close()
        super().__exit__()

    def add(self, account_id: str, report: ConversationReport) -> int:
        """Write a report's rows, and return how many there were."""
        tables = report_tables(account_id, report)
        return sum(
            groups.add(with_complete(tables[name], report)) for name, groups in self._groups.items()
        )

    def commit(self) -> None:
        """Finish the files, and put them in their places."""
        for groups in self._groups.values():
            groups.finish()
        super().commit()


class _RowGroups:
    """One file's row groups; rows wait until there are enough for one."""

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self._writer = parquet.ParquetWriter(stream, complete_schema(name))
        self._waiting: list[pa.Table] = []
        self._count = 0

    def add(self, rows: pa.Table) -> int:
        self._waiting.append(rows)
        self._count += rows.num_rows
        if self._count >= _GROUP:
            self._write()
        return int(rows.num_rows)

    def finish(self) -> None:
        if self._count:
            self._write()
        self._writer.close()

    def close(self) -> None:
        with suppress(OSError):  # the error of a full disk was raised before
            self._writer.close()
        self._writer.is_open = False  # else it would try again in garbage collection

    def _write(self) -> None:
        self._writer.write_table(pa.concat_tables(self._waiting))
        self._waiting.clear()
        self._count = 0
