"""``msgconv watch``: follows accounts, in a table that is redrawn in place or line by line."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.to_thread
from rich.console import Console
from rich.live import Live

from msgconv_async.cli import show
from msgconv_async.cli.accounts import hears_sighup, read_again
from msgconv_async.cli.alive import Life, Telling
from msgconv_async.cli.console import OK, complain
from msgconv_async.cli.failures import Failures, log_to_stderr
from msgconv_async.cli.figures import MILLISECONDS, Figures, duration
from msgconv_async.cli.keys import pressed
from msgconv_async.cli.streams import visible
from msgconv_async.cli.watch_table import HOURS, AccountRow, View, table
from msgconv_async.client.access.account import Account
from msgconv_async.client.many.checkpoint import ClosedBucket, Failure, Gap, Item
from msgconv_async.client.many.fan_out import background
from msgconv_async.client.many.follow import Following
from msgconv_async.client.session import ConversationSession
from msgconv_async.names import NOBODY, Names
from msgconv_async.protocol.buckets import BUCKET
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationMetrics

_LOG = logging.getLogger("msgconv_async")
_QUERY = ConversationQuery(5)
_REDRAW = 0.25
_SUM_UP = 60.0
"""Seconds after which equal failures are summed up."""
_TELL = 5.0
"""Seconds between two writings of the status file."""
_PATIENCE = 3 * BUCKET
"""A watch to which nothing came for so long is not healthy."""
_NOWHERE = Telling()


class Watch:
    """The settings of the command line.

    Args:
        accounts: The accounts; none of them may be given twice.
        note: A note to say before anything is asked, or an empty text.
        file: The accounts file, to be read again at SIGHUP; None if there is none.
        telling: Where to tell how it goes.
        names: What is shown beside the accounts' ids.
    """

    def __init__(
        self,
        accounts: Sequence[Account],
        note: str = "",
        *,
        file: Path | None = None,
        telling: Telling = _NOWHERE,
        names: Names = NOBODY,
    ) -> None:
        self._accounts = accounts
        self._note = note
        self._names = names
        self._file = file
        self._hung_up = False
        self._pause = anyio.CancelScope()
        self._telling = telling
        self._life = Life("watch", telling, _PATIENCE)

    async def run(self, session: ConversationSession) -> int:
        """Watch until something stops it, such as Ctrl-C or, in a terminal, the key q.

        Args:
            session: The session, not entered yet.
        """
        console = show.Screen(highlight=False)
        since = HOURS * timedelta(hours=1) if console.is_live else BUCKET
        self._life.has(account.id for account in self._accounts)
        async with (
            session,
            self._life.telling(),
            session.follow(self._accounts, _QUERY, since=since) as closed,
            background() as group,
        ):
            self._life.pacers = {each.id: session.pacer(each) for each in self._accounts}
            group.start_soon(self._keep_telling)
            if console.is_live:
                await self._draw(closed, console)
            else:
                await self._write(session, closed)
        return OK

    async def _keep_telling(self) -> None:
        while self._telling.file is not None:
            await anyio.to_thread.run_sync(self._life.save)
            await anyio.sleep(_TELL)

    def _count(self, item: Item) -> None:
        match item:
            case Failure(account):
                self._life.failed(account.id)
            case ClosedBucket(account):
                self._life.read(account.id, rows=1)

    async def _write(self, session: ConversationSession, closed: Following) -> None:
        """Write a line for each closed bucket; this has no end."""
        failures = Failures()
        log_to_stderr(logging.WARNING, failures)
        if self._note:
            complain(self._note)
        if hears_sighup():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        lines = _Lines(failures, self._names)
        while True:
            with anyio.move_on_after(_SUM_UP) as self._pause:
                async for item in closed:
                    self._count(item)
                    lines.say(item)
            failures.sum_up()
            self._read_again(session, closed)

    def _hang_up(self) -> None:
        self._hung_up = True
        self._pause.cancel()

    def _read_again(self, session: ConversationSession, closed: Following) -> None:
        """Follow the accounts that the file has now, if that was asked for."""
        if not self._hung_up:
            return
        self._hung_up = False
        if (accounts := read_again(self._file, self._accounts)) is None:
            return
        old, new = (
            {account.id: account for account in each} for each in (self._accounts, accounts)
        )
        for account in self._accounts:
            if new.get(account.id) != account:
                closed.remove(account.id)
        for account in accounts:
            if old.get(account.id) != account:
                closed.add(account)
        self._accounts = accounts
        self._life.has(new)
        self._life.pacers = {each.id: session.pacer(each) for each in accounts}

    async def _draw(self, closed: Following, console: Console) -> None:
        """Draw the accounts as a table, until a key says to end."""
        view = View(self._note)
        log_to = _ToView(view)
        _LOG.addHandler(log_to)
        by_account = {
            id_: AccountRow(id_, pacer, self._names.accounts.get(id_, ""))
            for id_, pacer in self._life.pacers.items()
        }
        rows = list(by_account.values())

        def press(key: str) -> None:
            view.press(key)
            self._pause.cancel()

        try:
            with (
                pressed(press) as view.has_keys,
                Live(console=console, auto_refresh=False) as live,
            ):
                while not view.ended:
                    live.update(table(rows, console, view), refresh=True)
                    with anyio.move_on_after(_REDRAW) as self._pause:
                        async for item in closed:
                            self._count(item)
                            by_account[item.account.id].add(item)
        finally:
            _LOG.removeHandler(log_to)


class _ToView(logging.Handler):
    """Shows the library's log below the table; anywhere else it would tear that."""

    def __init__(self, view: View) -> None:
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.note = self.format(record).partition("\n")[0]


class _Lines:
    """Writes closed buckets as lines on stdout, and failures and gaps on stderr."""

    def __init__(self, failures: Failures, names: Names = NOBODY) -> None:
        self._failures = failures
        self._names = names
        self._has_said = False

    def say(self, item: Item) -> None:
        """Write an item."""
        match item:
            case Failure(_, error):
                self._failures.add(error)
            case Gap():
                self._failures.add(item)
            case ClosedBucket(account, interval, revised):
                newest = Figures.of_metrics(interval.totals or ConversationMetrics())
                named = visible(self._names.account(account.id))
                time = newest.average
                if time is not None and not self._has_said:
                    self._has_said = True
                    complain(MILLISECONDS)
                print(  # noqa: T201 - it is what a command does
                    f"{show.span(interval, '%Y-%m-%d')} UTC  {named}"
                    f"  {newest.total} resolved: {newest.by_agent} by agent,"
                    f" {newest.by_consumer} by consumer, {newest.by_system} by system"
                    f"{'' if time is None else f'; {duration(time)} on average'}"
                    f"{' (revised)' if revised else ''}",
                    flush=True,
                )
