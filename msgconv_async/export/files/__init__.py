"""The tables as files, one for each: Parquet (extra ``arrow``), CSV, or JSON objects, one a line.

A file is there whole or not at all; see `WholeFile`. Rows are written as reports come, so that
memory does not grow with them.

The columns are those of the table and a last one, ``complete``. It is False in a row whose interval
was still open when it was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import get_args

from msgconv_async import checks
from msgconv_async.export.files.base import FileFormat, TableFiles
from msgconv_async.export.files.text import CsvFiles, NdjsonFiles
from msgconv_async.export.files.whole_file import WholeFile
from msgconv_async.export.rows import COMPLETE, TABLES, Table

__all__ = ["COMPLETE", "FileFormat", "TableFiles", "WholeFile", "table_files"]


def table_files(
    folder: str | os.PathLike[str],
    format: FileFormat,  # noqa: A002
    tables: Sequence[Table] = TABLES,
) -> TableFiles:
    """Return the files of tables in a format.

    Args:
        folder: The folder of the files; it is made if it is missing.
        format: ``"parquet"``, ``"csv"`` or ``"ndjson"``, which is also how their names end.
        tables: Which of the tables to write.

    Raises:
        ConfigurationError: There is no such format, or an argument is of another type.
        ModuleNotFoundError: Parquet needs pyarrow, which the extra ``arrow`` brings.
    """
    checks.one_of("format", format, get_args(FileFormat))
    if format == "csv":
        return CsvFiles(folder, format, tables)
    if format == "ndjson":
        return NdjsonFiles(folder, format, tables)
    from msgconv_async.export.files.parquet import ParquetFiles  # noqa: PLC0415 - an extra

    return ParquetFiles(folder, format, tables)
