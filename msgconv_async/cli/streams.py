"""The output of a command: every byte or an error, and no character that a reader cannot see."""

from __future__ import annotations

import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter, RawIOBase, TextIOWrapper
from typing import TYPE_CHECKING, Any, Protocol

from msgconv_async.client.http.redaction import is_seen

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_BLANK = re.compile(r"[\t\n\v\f\r \x85\u2028\u2029]+")


def visible(text: str) -> str:
    r"""Return text as it may be shown in a terminal: one line, with hidden characters escaped.

    A name or an error that came from a server, a file or an argument may hold control sequences,
    characters that change the direction of writing, or characters without a width. A reader sees
    ``\u202e`` instead.
    """
    text = _BLANK.sub(" ", text)
    return "".join(
        char if is_seen(char) else char.encode("unicode_escape").decode() for char in text
    )


def visible_json(document: bytes) -> bytes:
    """Return a JSON document as it may be shown in a terminal: the same values, partly escaped.

    Hidden characters can stand in its strings only, where an escape means the same.
    """
    text = document.decode()
    return "".join(
        char if is_seen(char) or char in "\t\r\n" else _escape(char) for char in text
    ).encode()


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    pairs = (units[place : place + 2] for place in range(0, len(units), 2))
    return "".join(f"\\u{int.from_bytes(pair):04x}" for pair in pairs)


class _Raw(Protocol):
    def write(self, data: ReadableBuffer, /) -> int | None: ...
    def fileno(self) -> int: ...
    def isatty(self) -> bool: ...


class _Unbroken(RawIOBase):
    """Writes all that it is given, or fails.

    A system call may write less than it was given, and a pipe that does not block may write nothing
    at all. A write that a signal cuts short is not repeated, since it is unknown how much was
    written. The command ends then, and the rest is dropped.
    """

    def __init__(self, raw: _Raw) -> None:
        self._raw = raw
        self._cut_short = False

    def write(self, data: ReadableBuffer, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and not self._cut_short:
                written = self._raw.write(rest)
                if written is None:
                    select.select([], [self._raw], [])
                else:
                    rest = rest[written:]
        except OSError:
            raise
        except BaseException:
            self._cut_short = True
            raise
        return size

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()


@contextmanager
def unbroken_stdout() -> Iterator[None]:
    """Make stdout write all that it is given, or fail, while inside."""
    before = sys.stdout
    if isinstance(before, TextIOWrapper):
        before.flush()
        raw: Any = getattr(before.buffer, "raw", before.buffer)
        sys.stdout = TextIOWrapper(
            BufferedWriter(_Unbroken(raw)),
            encoding=before.encoding,
            errors="replace",  # a terminal shows ? for what it cannot show
            line_buffering=before.line_buffering,
        )
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        sys.stdout = before
