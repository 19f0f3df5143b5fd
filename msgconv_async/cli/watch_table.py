"""The table of ``msgconv watch``: accounts, drawn again and again, as a reader wants it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from msgconv_async.cli import keys, show
from msgconv_async.cli.figures import SHORT_HEADINGS, Figures, average
from msgconv_async.cli.streams import visible
from msgconv_async.client.many.checkpoint import ClosedBucket, Failure, Gap, Item
from msgconv_async.errors import ApiError
from msgconv_async.pacing.pacer import Pacer
from msgconv_async.protocol.buckets import BUCKET
from msgconv_async.protocol.report import ConversationMetrics

HOURS = 3
"""The hours of an account that are kept and drawn."""
_KEPT = HOURS * timedelta(hours=1) // BUCKET
_NARROW = 12
"""Characters of a line of bars in a narrow terminal. A wide one has one for each kept bucket."""
_WIDE = 110
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-:=+*#"
_NOTES = 3
_AROUND = 7
"""Lines above and below the rows of a table, and one for the cursor."""
_MILLISECONDS = "average: handling time, read as milliseconds, since the API names no unit"


@dataclass
class AccountRow:
    """The items of one account, and how its row in the table shows them."""

    account_id: str
    pacer: Pacer
    name: str = ""
    closed: dict[datetime, ConversationMetrics] = field(default_factory=dict)
    failure: Failure | None = None
    gap: Gap | None = None

    def add(self, item: Item) -> None:
        """Take note of an item."""
        match item:
            case Failure():
                self.failure = item
            case Gap():
                self.gap = item
            case ClosedBucket(_, interval):
                self.failure = None
                self.closed[interval.end] = interval.totals or ConversationMetrics()
                oldest = self.last - (_KEPT - 1) * BUCKET
                for end in [end for end in self.closed if end < oldest]:
                    del self.closed[end]

    @property
    def last(self) -> datetime:
        """The end of the newest bucket."""
        return max(self.closed)

    @property
    def texts(self) -> tuple[str, str, str]:
        """What of it a reader may look for."""
        return self.account_id, self.name, self.state.plain

    @property
    def state(self) -> Text:
        """The present pace, or the reason why there is none."""
        if self.failure is not None:
            error = self.failure.error
            return Text(
                f"HTTP {error.status}" if isinstance(error, ApiError) else "failed", style="red"
            )
        if not self.closed:
            return Text("waiting", style="dim")
        stats = self.pacer.stats()
        if stats.limited_by == "rate":
            return Text(f"{stats.rate:.3g} a second")
        return Text(f"{stats.concurrency} at once")

    def cells(self) -> list[str]:
        """Return the figures of the newest bucket."""
        if not self.closed:
            return [""] * 6
        newest = Figures.of_metrics(self.closed[self.last])
        return [f"{self.last:%H:%M}", *newest.written()]

    @property
    def resolved(self) -> int:
        """The conversations of the newest bucket."""
        return self.closed[self.last].total_resolved_conversations or 0 if self.closed else 0

    @property
    def average(self) -> float:
        """The average handling time of the newest bucket, in milliseconds."""
        return average(self.closed[self.last]) or 0.0 if self.closed else 0.0

    def bars(self, width: int, levels: str) -> str:
        """Draw the resolved conversations, the newest bucket last; a blank is an unknown number."""
        if not self.closed:
            return ""
        size = _KEPT // width
        groups: list[int | None] = [None] * width
        for end, totals in self.closed.items():
            place = width - 1 - (self.last - end) // BUCKET // size
            groups[place] = (groups[place] or 0) + (totals.total_resolved_conversations or 0)
        peak = max((count or 0 for count in groups), default=0) or 1
        top = len(levels) - 1
        return "".join(" " if count is None else levels[count * top // peak] for count in groups)


_STEPS = {
    **dict.fromkeys((keys.UP, "k"), (-1, 0)),
    **dict.fromkeys((keys.DOWN, "j"), (1, 0)),
    keys.PAGE_UP: (0, -1),
    **dict.fromkeys((keys.PAGE_DOWN, " "), (0, 1)),
    **dict.fromkeys((keys.HOME, "g"), (-sys.maxsize, 0)),
    **dict.fromkeys((keys.END, "G"), (sys.maxsize, 0)),
}
"""By how many lines, and how many pages, keys move."""


class View:
    """What of the accounts a reader wants to see, and in which order.

    Attributes:
        first: The number of the first row that is shown, from 0.
        room: How many rows are shown.
        wanted: The text that is looked for, in an account's id, its name or its pace.
        sorting: The number of the order.
        typing: Whether keys are letters of that text.
        note: Something to say below the table.
        has_keys: Whether keys are heeded.
        ended: Whether the reader has seen enough.
    """

    def __init__(self, note: str = "") -> None:
        self.first, self.room = 0, 1
        self.wanted, self.typing = "", False
        self.sorting = 0
        self.note = note
        self.has_keys = self.ended = False

    def press(self, key: str) -> None:
        """Do what a key says."""
        if self.typing:
            self._type(key)
            return
        match key:
            case "s":
                self.sorting = (self.sorting + 1) % len(_ORDERS)
                self.first = 0
            case "/":
                self.typing, self.wanted = True, ""
            case keys.ESCAPE:
                self.wanted = ""
            case "q":
                self.ended = True
            case _:
                lines, pages = _STEPS.get(key, (0, 0))
                self.first = max(0, self.first + lines + pages * max(1, self.room - 1))

    def _type(self, key: str) -> None:
        match key:
            case keys.ENTER:
                self.typing = False
            case keys.ESCAPE:
                self.typing, self.wanted = False, ""
            case keys.BACKSPACE:
                self.wanted = self.wanted[:-1]
            case _ if len(key) == 1:
                self.wanted += key
        self.first = 0

    def of(self, rows: Sequence[AccountRow], room: int) -> tuple[list[AccountRow], int]:
        """Return the rows to show, at most so many, and how many there are to choose from."""
        wanted = self.wanted.lower()
        found = (
            [row for row in rows if any(wanted in text.lower() for text in row.texts)]
            if wanted
            else list(rows)
        )
        found.sort(key=_ORDERS[self.sorting][1])
        self.room = max(1, room)
        self.first = max(0, min(self.first, len(found) - self.room))
        return found[self.first : self.first + self.room], len(found)

    def __str__(self) -> str:
        if self.typing:
            return f"filter: {self.wanted}_  (Enter keeps it, Esc ends it)"
        chosen = f" {self.wanted!r}, Esc ends it" if self.wanted else ""
        order = _ORDERS[self.sorting][0]
        return f"arrows scroll; / filter{chosen}; s sort: {order}; q quits"


_ORDERS: tuple[tuple[str, Callable[[AccountRow], Any]], ...] = (
    ("failing first", lambda row: row.failure is None),
    ("account", lambda row: (len(row.account_id), row.account_id)),
    ("most resolved", lambda row: -row.resolved),
    ("longest average", lambda row: -row.average),
)
"""The orders of the rows; rows that are equal stay in the order of the command line."""


def table(rows: Sequence[AccountRow], console: Console, view: View) -> Group:
    """Draw the accounts that a reader wants to see, and what there is to say of them."""
    failing = sum(row.failure is not None for row in rows)
    said = [Text(note, style="red") for note in _notes(rows)]
    if view.note:
        said.append(Text(visible(view.note), style="yellow"))
    lines = [*said, *([Text(str(view), style="dim")] if view.has_keys else ())]
    shown, found = view.of(rows, console.height - _AROUND - len(lines))
    span = f", {view.first + 1} to {view.first + len(shown)} shown" if len(shown) < found else ""
    chosen = f", {found} found" if found < len(rows) else ""
    summary = (
        f"{len(rows)} accounts{chosen}{span}, {failing} failing; 5 minutes until the time shown,"
        f" UTC{'' if view.has_keys else '; Ctrl-C stops'}"
    )
    lines += [Text(summary, style="dim"), Text(_MILLISECONDS, style="dim")]
    for line in lines:
        line.truncate(console.width, overflow="ellipsis")
    return Group(_fitting(shown, console), *lines)


def _fitting(rows: Sequence[AccountRow], console: Console) -> Table:
    """Draw rows with as many columns as fit: ids stay whole."""
    wide = console.width >= _WIDE
    levels = _BARS if console.encoding.startswith("utf") else _ASCII_BARS
    has_names = any(row.name for row in rows)
    columns: dict[str, list[str | Text]] = {
        "account": [row.account_id for row in rows],
        **({"name": [Text(visible(row.name)) for row in rows]} if has_names else {}),
        **{
            heading: [row.cells()[number] for row in rows]
            for number, heading in enumerate(("until", *SHORT_HEADINGS))
        },
        f"last {HOURS} hours": [
            Text(row.bars(_KEPT if wide else _NARROW, levels), style="cyan") for row in rows
        ],
        "pace": [row.state for row in rows],
    }
    endless = console.options.update(width=sys.maxsize)
    names = ("name",) if has_names else ()
    bars = f"last {HOURS} hours"
    leaving = iter((bars, *names, "system", "consumer", "agent", "until", "average"))
    while True:
        drawn = show.grid("", *columns)
        drawn.title = None
        drawn.padding = (0, 1 if wide else 0, 0, 0)
        for column in drawn.columns[: 1 + len(names)]:
            column.no_wrap, column.justify = True, "left"
        drawn.columns[-1].justify = "left"
        for cells in zip(*columns.values(), strict=True):
            drawn.add_row(*cells)
        needed = console.measure(drawn, options=endless).maximum
        if needed <= console.width or (least := next(leaving, None)) is None:
            return drawn
        del columns[least]


def _notes(rows: Iterable[AccountRow]) -> list[str]:
    """Return the lines below the table, with notes on a few accounts."""
    said = [str(row.failure.error) for row in rows if row.failure is not None]
    said += [str(row.gap) for row in rows if row.gap is not None]
    return [visible(note) for note in said[:_NOTES]]
