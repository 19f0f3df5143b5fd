"""Where results go, and in which form: stdout or a file, rows or documents."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from functools import cache
from io import StringIO
from pathlib import Path
from typing import BinaryIO, Literal, Self, TypeAlias

import msgspec

from msgconv_async.errors import ConfigurationError
from msgconv_async.export import SKILL_AGENT_METRICS, TABLES
from msgconv_async.export.files import COMPLETE, WholeFile, csv_cell, file_rows
from msgconv_async.protocol.report import ConversationReport

Format: TypeAlias = Literal["table", "json", "ndjson", "csv"]

CSV_COLUMNS = ("table", *SKILL_AGENT_METRICS.columns, COMPLETE)
"""The same for every table; this one has every key."""

CSV_HEADER = f"{','.join(CSV_COLUMNS)}\n".encode()

_ENCODER = msgspec.json.Encoder()


class Destination:
    """Stdout, or a file that is there whole or not at all.

    Args:
        path: The file, which `commit` puts in its place; None for stdout.
        option: What named it on the command line.

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
        """Add to it."""
        self._stream.write(data)

    def commit(self) -> None:
        """Say that this was all."""
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
        """How text is written to it."""
        return sys.stdout.encoding if self._file is None else "utf-8"


class Lines:
    """Writes the rows of reports, a line each, as the reports come.

    Args:
        destination: Where to.
        lines: Makes a report's lines.
        header: Goes before the first of them.
    """

    def __init__(
        self,
        destination: Destination,
        lines: Callable[[str, ConversationReport], bytes],
        header: bytes = b"",
    ) -> None:
        self._destination = destination
        self._lines = lines
        self._header = header

    def add(self, account_id: str, report: ConversationReport) -> None:
        """Write one account's report."""
        self._destination.write(self._header + self._lines(account_id, report))
        self._header = b""


def csv_lines(account_id: str, report: ConversationReport) -> bytes:
    """Return a report's rows as CSV, in `CSV_COLUMNS`; a key that a table lacks is empty."""
    text = StringIO()
    lines = csv.writer(text, lineterminator="\n")
    cell = cache(csv_cell)  # the same few edges of intervals stand in all the rows
    for table in TABLES:
        start = len(table.key)
        gaps = [
            CSV_COLUMNS.index(name) for name in SKILL_AGENT_METRICS.key if name not in table.key
        ]
        for row in file_rows(table, account_id, report):
            cells = [table.name, *map(cell, row[: start + 1]), *row[start + 1 : -1], cell(row[-1])]
            for gap in gaps:
                cells.insert(gap, "")
            lines.writerow(cells)
    return text.getvalue().encode()


def ndjson_lines(account_id: str, report: ConversationReport) -> bytes:
    """Return a report's rows as JSON objects, one a line: the table's name, then its columns."""
    return _ENCODER.encode_lines(
        dict(zip(("table", *table.columns, COMPLETE), (table.name, *row), strict=True))
        for table in TABLES
        for row in file_rows(table, account_id, report)
    )


def joined(documents: dict[str, bytes]) -> bytes:
    """Return one JSON object that holds each document, byte for byte, under its name."""
    return _ENCODER.encode({name: msgspec.Raw(each) for name, each in documents.items()})
