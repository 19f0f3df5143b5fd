"""``msgconv fetch``: asks accounts, writes the answers, and reports the failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio

from msgconv_async.cli import show
from msgconv_async.cli.asking import Asking
from msgconv_async.cli.console import complain
from msgconv_async.cli.failures import Failures
from msgconv_async.cli.output import (
    CSV_HEADER,
    Format,
    Lines,
    Output,
    joined,
    report_csv,
    report_ndjson,
)
from msgconv_async.cli.progress import Ticker
from msgconv_async.cli.streams import visible_json
from msgconv_async.client.access.account import Account
from msgconv_async.client.session import ConversationSession
from msgconv_async.errors import MsgConvError
from msgconv_async.protocol.report import ConversationReport

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Fetch:
    """The settings of the command line.

    Args:
        asking: The accounts and the question. A document keeps all of its intervals.
        format: The format of the output.
    """

    asking: Asking
    format: Format

    async def run(self, session: ConversationSession, path: Path | None) -> int:
        """Ask, write the answers, and return the exit code.

        Args:
            session: The session, not entered yet.
            path: The file to write; None for stdout.
        """
        with Output(path) as output:
            self.asking.say_note()
            async with session:
                if self.format == "json":
                    answered = await self._documents(session, output)
                elif self.format == "table":
                    answered = await self._table(session, output)
                else:
                    answered = await self._lines(session, output)
            if answered:
                output.commit()
        return self.asking.exit_code(answered)

    async def _lines(self, session: ConversationSession, output: Output) -> int:
        lines = (
            Lines(output, report_csv, CSV_HEADER)
            if self.format == "csv"
            else Lines(output, report_ndjson)
        )
        with self._ticker(shown=not output.on_screen) as ticker:
            answered, still_open = await self.asking.reports(session, lines.add, ticker)
        self.asking.say_still_open(still_open)
        return answered

    async def _table(self, session: ConversationSession, output: Output) -> int:
        reports: dict[str, ConversationReport] = {}
        with self._ticker() as ticker:
            answered, still_open = await self.asking.reports(session, reports.__setitem__, ticker)
        if self.asking.complete_only:  # otherwise, the table marks its rows
            self.asking.say_still_open(still_open)
        if answered:
            page = show.tables(self._in_order(reports))
            output.write(show.rendered(page, encoding=output.encoding, terminal=output.on_screen))
        return answered

    async def _documents(self, session: ConversationSession, output: Output) -> int:
        documents: dict[str, bytes] = {}
        at_once = anyio.CapacityLimiter(self.asking.max_in_flight)

        async def ask(account: Account) -> None:
            async with at_once:
                try:
                    documents[account.id] = await session.fetch_document(
                        account, self.asking.query, timeout=self.asking.timeout
                    )
                except MsgConvError as error:
                    failures.add(error)
            ticker.done()

        failures = Failures()

        with self._ticker() as ticker:
            async with anyio.create_task_group() as group:
                for account in self.asking.accounts:
                    group.start_soon(ask, account)
        failures.sum_up()
        if documents:
            match self.asking.accounts:
                case [account]:
                    written = documents[account.id]
                case _:
                    written = joined(self._in_order(documents))
            if output.on_screen:
                written = visible_json(written) + b"\n"  # the prompt gets a line of its own
            output.write(written)
            complain("the newest five-minute bucket may have been open still: it is not whole yet")
        return len(documents)

    def _ticker(self, *, shown: bool = True) -> Ticker:
        return Ticker("asking", len(self.asking.accounts), shown=shown)

    def _in_order(self, by_account: Mapping[str, _Answer]) -> dict[str, _Answer]:
        """Return the answers, which came in any order, in the order of the command line."""
        ids = [account.id for account in self.asking.accounts]
        return {id_: by_account[id_] for id_ in ids if id_ in by_account}
