"""Where results go, and in which form: stdout or a file, rows or documents."""

from __future__ import annotations

import csv
import os
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import cache
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self, TypeAlias

import msgspec

from msgconv_async.cli.show import span
from msgconv_async.errors import ConfigurationError
from msgconv_async.export import SKILL_AGENT_METRICS, TABLES, Value, intervals
from msgconv_async.protocol.report import ConversationReport

Format: TypeAlias = Literal["table", "json", "ndjson", "csv"]

CSV_COLUMNS = ("table", *SKILL_AGENT_METRICS.columns)
"""The same for every table; this one has every key."""

CSV_HEADER = f"{','.join(CSV_COLUMNS)}\n".encode()

_ENCODER = msgspec.json.Encoder()


class Destination:
    """Stdout, or a file that is there whole or not at all.

    The file is written beside its place under another name, and put there by `commit`; without a
    `commit`, whatever stood there before stands there still.

    Args:
        path: The file; None for stdout.
        option: What named it on the command line.

    Raises:
        ConfigurationError: On entering: no file could be written there.
    """

    def __init__(self, path: Path | None, option: str = "--output") -> None:
        self._option = option
        # Behind a symbolic link, it is the file that is replaced.
        self._path = None if path is None else Path(os.path.realpath(path))
        self._stream: BinaryIO = sys.stdout.buffer
        self._beside: Path | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            if self._path.exists() and not self._path.is_file():
                raise ConfigurationError(
                    f"{self._option}={self._path}: not a file that can be replaced"
                )
            beside = self._path.with_name(f".{secrets.token_hex(8)}.msgconv")
            try:
                self._stream = beside.open("xb")
            except OSError as error:
                raise ConfigurationError(
                    f"{self._option}={self._path}: cannot write there: {error.strerror}"
                ) from None
            self._beside = beside
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._beside is not None:
            with suppress(OSError):
                self._stream.close()
            self._beside.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Add to it."""
        self._stream.write(data)

    def commit(self) -> None:
        """Say that this was all."""
        self._stream.flush()
        if self._beside is not None and self._path is not None:
            self._stream.close()
            self._beside.replace(self._path)
            self._beside = None

    @property
    def on_screen(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    @property
    def encoding(self) -> str:
        """How text is written to it."""
        return sys.stdout.encoding if self._beside is None else "utf-8"


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
        self.still_open: set[str] = set()

    def add(self, account_id: str, report: ConversationReport) -> None:
        """Write one account's report."""
        self._destination.write(self._header + self._lines(account_id, report))
        self._header = b""
        self.still_open.update(span(each) for each in intervals(report) if not each.complete)


def csv_lines(account_id: str, report: ConversationReport) -> bytes:
    """Return a report's rows as CSV, in `CSV_COLUMNS`; a key that a table lacks is empty."""
    text = StringIO()
    lines = csv.writer(text, lineterminator="\n")
    cell = cache(_cell)  # the same few edges of intervals stand in all the rows
    for table in TABLES:
        start = len(table.key)
        gaps = [
            CSV_COLUMNS.index(name) for name in SKILL_AGENT_METRICS.key if name not in table.key
        ]
        for row in table.rows(account_id, report):
            cells = [table.name, *map(cell, row[: start + 1]), *row[start + 1 :]]
            for gap in gaps:
                cells.insert(gap, "")
            lines.writerow(cells)
    return text.getvalue().encode()


def ndjson_lines(account_id: str, report: ConversationReport) -> bytes:
    """Return a report's rows as JSON objects, one a line: the table's name, then its columns."""
    return _ENCODER.encode_lines(
        dict(zip(("table", *table.columns), (table.name, *row), strict=True))
        for table in TABLES
        for row in table.rows(account_id, report)
    )


def joined(documents: dict[str, bytes]) -> bytes:
    """Return one JSON object that holds each document, byte for byte, under its name."""
    return _ENCODER.encode({name: msgspec.Raw(each) for name, each in documents.items()})


def _cell(value: Value) -> Value:
    """Write a datetime as the JSON formats do."""
    return f"{value.replace(tzinfo=None).isoformat()}Z" if isinstance(value, datetime) else value
