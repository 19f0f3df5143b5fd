"""``msgconv fetch``: accounts asked, what they answered written, what failed said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import anyio

from msgconv_async.cli import FAILED, OK, complain, show
from msgconv_async.cli.output import (
    CSV_HEADER,
    Format,
    Lines,
    Output,
    joined,
    report_csv,
    report_ndjson,
)
from msgconv_async.cli.streams import visible_json
from msgconv_async.client.access.account import Account
from msgconv_async.client.many.fan_out import MAX_IN_FLIGHT
from msgconv_async.client.session import ConversationSession
from msgconv_async.errors import MsgConvError
from msgconv_async.export.rows import complete_part
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationReport


@dataclass(frozen=True)
class Fetch:
    """What was asked for on the command line.

    Args:
        accounts: Each of them once.
        query: The question.
        timeout: Seconds for each account.
        format: Of what is written.
        note: Said before anything is asked, if there is anything to say.
        complete_only: Leave out intervals that were still open; a document is never cut.
    """

    accounts: Sequence[Account]
    query: ConversationQuery
    _: KW_ONLY
    timeout: float
    format: Format
    note: str = ""
    complete_only: bool = False

    async def run(self, session: ConversationSession, output: Path | None) -> int:
        """Ask, write what is answered, and return the exit code.

        Args:
            session: Not entered yet.
            output: The file to write; None for stdout.
        """
        with Output(output) as destination:
            if self.note:
                complain(self.note)
            async with session:
                if self.format == "json":
                    answered = await self._documents(session, destination)
                elif self.format == "table":
                    answered = await self._table(session, destination)
                else:
                    answered = await self._lines(session, destination)
            if answered:
                destination.commit()
        return OK if answered == len(self.accounts) else FAILED

    async def _lines(self, session: ConversationSession, destination: Output) -> int:
        lines = (
            Lines(destination, report_csv, CSV_HEADER)
            if self.format == "csv"
            else Lines(destination, report_ndjson)
        )
        return await self._reports(session, lines.add, shown=not destination.on_screen)

    async def _table(self, session: ConversationSession, destination: Output) -> int:
        reports: dict[str, ConversationReport] = {}
        answered = await self._reports(session, reports.__setitem__)
        if answered:
            page = show.tables({id_: reports[id_] for id_ in self._ids if id_ in reports})
            destination.write(
                show.rendered(page, encoding=destination.encoding, terminal=destination.on_screen)
            )
        return answered

    async def _reports(
        self,
        session: ConversationSession,
        take: Callable[[str, ConversationReport], None],
        *,
        shown: bool = True,
    ) -> int:
        """Hand out each report as it comes; return how many there were."""
        answered = 0
        open_then: set[str] = set()
        with show.ticker("asking", len(self.accounts), shown=shown) as tick:
            async with session.fetch_many(
                self.accounts, self.query, timeout=self.timeout
            ) as outcomes:
                async for outcome in outcomes:
                    tick()
                    if outcome.report is None:
                        complain(str(outcome.error))
                    else:
                        open_then |= show.still_open(outcome.report)
                        report = outcome.report
                        take(
                            outcome.account.id,
                            complete_part(report) if self.complete_only else report,
                        )
                        answered += 1
        if self.complete_only or self.format != "table":  # a table marks its rows
            show.say_still_open(open_then, left_out=self.complete_only)
        return answered

    async def _documents(self, session: ConversationSession, destination: Output) -> int:
        documents: dict[str, bytes] = {}
        at_once = anyio.CapacityLimiter(MAX_IN_FLIGHT)

        async def ask(account: Account) -> None:
            async with at_once:
                try:
                    documents[account.id] = await session.fetch_document(
                        account, self.query, timeout=self.timeout
                    )
                except MsgConvError as error:
                    complain(str(error))
            tick()

        with show.ticker("asking", len(self.accounts)) as tick:
            async with anyio.create_task_group() as group:
                for account in self.accounts:
                    group.start_soon(ask, account)
        if documents:
            in_order = {id_: documents[id_] for id_ in self._ids if id_ in documents}
            one = len(self.accounts) == 1
            written = documents[self._ids[0]] if one else joined(in_order)
            if destination.on_screen:
                written = visible_json(written) + b"\n"  # the prompt gets a line of its own
            destination.write(written)
            complain("the newest five-minute bucket may have been open still: it is not whole yet")
        return len(documents)

    @property
    def _ids(self) -> list[str]:
        return [account.id for account in self.accounts]
