"""``msgconv watch``: follows accounts, in a table that is redrawn in place or line by line."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Never

import anyio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from msgconv_async.cli import show
from msgconv_async.cli.console import complain
from msgconv_async.cli.figures import MILLISECONDS, SHORT_HEADINGS, Figures, duration
from msgconv_async.cli.parameters import log_to_stderr
from msgconv_async.cli.streams import visible
from msgconv_async.client.access.account import Account
from msgconv_async.client.many.checkpoint import ClosedBucket, Failure, Gap, Item
from msgconv_async.client.many.follow import Following
from msgconv_async.client.session import ConversationSession
from msgconv_async.errors import ApiError
from msgconv_async.pacing.pacer import Pacer
from msgconv_async.protocol.buckets import BUCKET
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationMetrics

HOURS = 3
"""The hours of an account that are kept and drawn."""

_QUERY = ConversationQuery(5)
_KEPT = HOURS * timedelta(hours=1) // BUCKET
_NARROW = 12
"""Characters of a line of bars in a narrow terminal. A wide one has one for each kept bucket."""
_WIDE = 110
_REDRAW = 0.25
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-:=+*#"
_NOTES = 3
_AROUND = 6
"""Lines above and below the rows of a table, and one for the cursor."""


class Watch:
    """The settings of the command line.

    Args:
        accounts: The accounts; none of them may be given twice.
        note: A note to say before anything is asked, or an empty text.
    """

    def __init__(self, accounts: Sequence[Account], note: str = "") -> None:
        self._accounts = accounts
        self._note = note

    async def run(self, session: ConversationSession) -> Never:
        """Watch until something stops it, such as Ctrl-C.

        Args:
            session: The session, not entered yet.
        """
        for note in filter(None, (self._note, MILLISECONDS)):
            complain(note)
        log_to_stderr(logging.WARNING)
        console = show.Screen(highlight=False)
        since = HOURS * timedelta(hours=1) if console.is_live else BUCKET
        async with session, session.follow(self._accounts, _QUERY, since=since) as closed:
            if console.is_live:
                await self._draw(session, closed, console)
            async for item in closed:
                _say(item)
        raise AssertionError("following has no end")

    async def _draw(
        self, session: ConversationSession, closed: Following, console: Console
    ) -> Never:
        rows = [AccountRow(account.id, session.pacer(account)) for account in self._accounts]
        by_account = {row.account_id: row for row in rows}
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(table(rows, console), refresh=True)
                with anyio.move_on_after(_REDRAW):
                    async for item in closed:
                        by_account[item.account.id].add(item)


@dataclass
class AccountRow:
    """The items of one account, and how its row in the table shows them."""

    account_id: str
    pacer: Pacer
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


def table(rows: Sequence[AccountRow], console: Console) -> Group:
    """Draw the accounts; where they do not all fit, those that fail come first."""
    wide = console.width >= _WIDE
    width = _KEPT if wide else _NARROW
    levels = _BARS if console.encoding.startswith("utf") else _ASCII_BARS
    failing = [row for row in rows if row.failure is not None]
    notes = list(_notes(rows))
    shown, room = rows, console.height - _AROUND - len(notes)
    if len(rows) > room:
        others = [row for row in rows if row.failure is None]
        shown = [*failing, *others][: max(1, room)]
    drawn = show.grid(
        "",
        *("account", "until", *SHORT_HEADINGS, f"last {HOURS} hours", "pace"),
    )
    drawn.title = None
    drawn.padding = (0, 1 if wide else 0, 0, 0)
    drawn.columns[-1].justify = "left"
    for row in shown:
        bars = Text(row.bars(width, levels), style="cyan")
        drawn.add_row(row.account_id, *row.cells(), bars, row.state)
    hidden = f", {len(rows) - len(shown)} not shown" if len(shown) < len(rows) else ""
    summary = (
        f"{len(rows)} accounts{hidden}, {len(failing)} failing;"
        " 5 minutes until the time shown, UTC; Ctrl-C stops"
    )
    lines = [*(Text(note, style="red") for note in notes), Text(summary, style="dim")]
    for line in lines:
        line.truncate(console.width, overflow="ellipsis")
    return Group(drawn, *lines)


def _notes(rows: Iterable[AccountRow]) -> list[str]:
    """Return the lines below the table, with notes on a few accounts."""
    said = [str(row.failure.error) for row in rows if row.failure is not None]
    said += [str(row.gap) for row in rows if row.gap is not None]
    return [visible(note) for note in said[:_NOTES]]


def _say(item: Item) -> None:
    """Write a closed bucket as a line on stdout, and a failure or a gap on stderr."""
    match item:
        case Failure(_, error):
            complain(str(error))
        case Gap():
            complain(str(item))
        case ClosedBucket(account, interval, revised):
            newest = Figures.of_metrics(interval.totals or ConversationMetrics())
            time = newest.average
            print(  # noqa: T201 - it is what a command does
                f"{show.span(interval, '%Y-%m-%d')} UTC  {account.id}"
                f"  {newest.total} resolved: {newest.by_agent} by agent,"
                f" {newest.by_consumer} by consumer, {newest.by_system} by system"
                f"{'' if time is None else f'; {duration(time)} on average'}"
                f"{' (revised)' if revised else ''}",
                flush=True,
            )
