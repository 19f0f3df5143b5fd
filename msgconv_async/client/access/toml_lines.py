"""Finds the line of each table and key of a TOML document, in one pass over it.

``tomllib`` keeps no lines. This module reads a document that ``tomllib`` has accepted, so it does
not look for mistakes, only for headers, keys, and where each value ends (TOML 1.0: keys may be
dotted and quoted; inline tables and arrays nest; strings come in four kinds).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys, and places in arrays, from the document's root."""

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(
    r"""(?P<bare>[A-Za-z0-9_-]+) | "(?P<basic>(?:[^"\\]|\\.)*)" | '(?P<literal>[^']*)'""",
    re.VERBOSE,
)
_SCALAR = re.compile(
    r"""
    \"{3} (?:[^"\\] | \\. | "{1,2}(?!"))* "{3,5}
    | '{3} (?:[^'] | '{1,2}(?!'))* '{3,5}
    | "(?:[^"\\]|\\.)*"
    | '[^']*'
    | [^,\]}\n\#]+
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)")
_CONTROLS = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def lines(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, in which each table, key and element of an array first stands.

    Args:
        text: A document that `tomllib` accepts, its lines ended by line feeds.
    """
    return _Reading(text).lines()


class _Reading:
    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._line = 1
        self._counted = 0
        self._found: dict[KeyPath, int] = {}
        self._tables: Counter[KeyPath] = Counter()
        """How many tables each array has that is written with ``[[...]]``."""

    def lines(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text.startswith("[", self._place):
                table = self._header()
            else:
                self._pair(table)
        return self._found

    def _header(self) -> KeyPath:
        brackets = 2 if self._text.startswith("[[", self._place) else 1
        self._place += brackets
        *outer, last = self._key()
        self._skip(_SPACE)
        self._place += brackets
        table: KeyPath = ()
        for part in outer:
            table = self._newest(self._note((*table, part)))
        table = self._note((*table, last))
        if brackets == 1:
            return table
        self._tables[table] += 1
        return self._note(self._newest(table))

    def _newest(self, table: KeyPath) -> KeyPath:
        """Return the last table of an array of tables; a table itself is the only one."""
        count = self._tables.get(table)
        return (*table, count - 1) if count else table

    def _pair(self, table: KeyPath) -> None:
        """Read a key and its value, with all that nests in it, however deep."""
        # An open container: the path of its contents, and the number of the next element, which is
        # None for a table.
        opened: list[tuple[KeyPath, int | None]] = []
        self._value(self._named(table), opened)
        while opened:
            self._skip(_BLANK)
            within, number = opened[-1]
            if self._text[self._place] in "]}":
                self._place += 1
                opened.pop()
            elif self._text[self._place] == ",":
                self._place += 1
            elif number is None:
                self._value(self._named(within), opened)
            else:
                opened[-1] = within, number + 1
                self._value(self._note((*within, number)), opened)

    def _value(self, path: KeyPath, opened: list[tuple[KeyPath, int | None]]) -> None:
        """Read a scalar, or enter a container."""
        match self._text[self._place]:
            case "[":
                self._place += 1
                opened.append((path, 0))
            case "{":
                self._place += 1
                opened.append((path, None))
            case _:
                self._skip(_SCALAR)

    def _named(self, table: KeyPath) -> KeyPath:
        """Read a key and the sign of equality, and return the path of its value."""
        for part in self._key():
            table = self._note((*table, part))
        self._skip(_SPACE)
        self._place += 1
        self._skip(_SPACE)
        return table

    def _key(self) -> list[str]:
        """Read the parts of a key."""
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            found = _KEY.match(self._text, self._place)
            if found is None:
                raise ValueError("this is not TOML")
            self._place = found.end()
            bare, basic, literal = found.groups()
            parts.append(bare or literal or _ESCAPE.sub(_escaped, basic or ""))
            after = self._place
            self._skip(_SPACE)
            if not self._text.startswith(".", self._place):
                self._place = after
                return parts
            self._place += 1

    def _skip(self, what: re.Pattern[str]) -> int:
        found = what.match(self._text, self._place)
        if found is None:
            raise ValueError("this is not TOML")
        self._place = found.end()
        return self._place

    def _note(self, path: KeyPath) -> KeyPath:
        """Note the line that is being read for a path, if the path is new."""
        self._line += self._text.count("\n", self._counted, self._place)
        self._counted = self._place
        self._found.setdefault(path, self._line)
        return path


def _escaped(found: re.Match[str]) -> str:
    escape = found[1]
    return chr(int(escape[1:], 16)) if len(escape) > 1 else _CONTROLS.get(escape, escape)
