"""The place and the form of results: stdout or a file, rows or documents."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Literal, Self, TypeAlias

import msgspec

from msgconv_async.errors import ConfigurationError
from msgconv_async.export import SKILL_AGENT_METRICS, TABLES
from msgconv_async.export.files import COMPLETE, WholeFile
from msgconv_async.export.files.lines import csv_header, csv_lines, file_rows, ndjson_lines
from msgconv_async.export.rows import Row
from msgconv_async.protocol.report import ConversationReport

Format: TypeAlias = Literal["table", "json", "ndjson", "csv"]
ReportFormat: TypeAlias = Literal["table", "csv", "json"]

CSV_COLUMNS = ("table", *SKILL_AGENT_METRICS.columns, COMPLETE)
"""The columns of every table: those of the table that has every key."""

CSV_HEADER = csv_header(CSV_COLUMNS)

_ENCODER = msgspec.json.Encoder()


class Output:
    """Stdout, or a file that is there whole or not at all.

    Args:
        path: The file, which `commit` puts in its place; None for stdout.
        option: The option of the command line that named it.

    Raises:
        ConfigurationError: On entering: no file could be written there.
    """

    def __init__(self, path: Path | None, option: str = "--output") -> None:
        self._option = option
        self._file = None if path is None else WholeFile(path)
        self._stream: BinaryIO = sys.stdout.buffer

    def __enter__(self) -> Self:
        if self._file is not None:
            try:
                self._stream = self._file.__enter__().stream
            except ConfigurationError as error:
                raise ConfigurationError(f"{self._option}={error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.__exit__()

    def write(self, data: bytes) -> None:
        """Add data to the output."""
        self._stream.write(data)

    def commit(self) -> None:
        """Finish the output."""
        if self._file is None:
            self._stream.flush()
        else:
            self._file.commit()

    @property
    def on_screen(self) -> bool:
        """Whether it is a terminal."""
        return self._file is None and self._stream.isatty()

    @property
    def encoding(self) -> str:
        """The encoding of text in it."""
        return sys.stdout.encoding if self._file is None else "utf-8"


class Lines:
    """Writes the rows of reports, a line each, as the reports come.

    Args:
        output: The output that they are written to.
        lines: Makes a report's lines.
        header: The bytes before the first of them.
    """

    def __init__(
        self,
        output: Output,
        lines: Callable[[str, ConversationReport], bytes],
        header: bytes = b"",
    ) -> None:
        self._output = output
        self._lines = lines
        self._header = header

    def add(self, account_id: str, report: ConversationReport) -> None:
        """Write one account's report."""
        self._output.write(self._header + self._lines(account_id, report))
        self._header = b""


def report_csv(account_id: str, report: ConversationReport) -> bytes:
    """Return a report's rows as CSV, in `CSV_COLUMNS`; a key that a table lacks is empty."""
    return csv_lines(_wide_rows(account_id, report))


def _wide_rows(account_id: str, report: ConversationReport) -> Iterator[Row]:
    for table in TABLES:
        columns = ("table", *table.columns, COMPLETE)
        wide = itemgetter(
            *(columns.index(name) if name in columns else len(columns) for name in CSV_COLUMNS)
        )
        for row in file_rows(table, account_id, report):
            yield wide((table.name, *row, None))


def report_ndjson(account_id: str, report: ConversationReport) -> bytes:
    """Return a report's rows as JSON objects, one a line: the table's name, then its columns."""
    return b"".join(
        ndjson_lines(
            ("table", *table.columns, COMPLETE),
            ((table.name, *row) for row in file_rows(table, account_id, report)),
        )
        for table in TABLES
    )


def joined(documents: dict[str, bytes]) -> bytes:
    """Return one JSON object that holds each document, byte for byte, under its name."""
    return _ENCODER.encode({name: msgspec.Raw(document) for name, document in documents.items()})
