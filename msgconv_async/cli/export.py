"""``msgconv export``: accounts asked, and what they answered as one file for each table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from msgconv_async.cli import FAILED, OK, complain, show
from msgconv_async.cli.progress import Progress
from msgconv_async.client.access.account import Account
from msgconv_async.client.session import ConversationSession
from msgconv_async.errors import UnexpectedResponse
from msgconv_async.export import tables_of
from msgconv_async.export.files import FileFormat, TableFiles, table_files
from msgconv_async.export.rows import complete_part
from msgconv_async.protocol.query import ConversationQuery


@dataclass(frozen=True)
class Export:
    """What was asked for on the command line.

    Args:
        accounts: Each of them once.
        query: The question.
        timeout: Seconds for each account.
        format: Of the files.
        note: Said before anything is asked, if there is anything to say.
        complete_only: Leave out intervals that were still open.
    """

    accounts: Sequence[Account]
    query: ConversationQuery
    _: KW_ONLY
    timeout: float
    format: FileFormat
    note: str = ""
    complete_only: bool = False

    async def run(self, session: ConversationSession, folder: Path) -> int:
        """Ask, write what is answered, and return the exit code.

        Args:
            session: Not entered yet.
            folder: Where the files go.
        """
        with table_files(folder, self.format, tables_of(self.query)) as files:
            if self.note:
                complain(self.note)
            still_open: set[str] = set()
            with Progress(len(self.accounts)) as progress:
                answered = await self._ask(session, files, progress, still_open)
                if answered:
                    files.commit()
            complain(progress.summary())
        show.say_still_open(still_open, left_out=self.complete_only)
        return OK if answered == len(self.accounts) else FAILED

    async def _ask(
        self,
        session: ConversationSession,
        files: TableFiles,
        progress: Progress,
        still_open: set[str],
    ) -> int:
        """Write what each account answers, and return how many did."""
        answered = 0
        async with (
            session,
            session.fetch_many(self.accounts, self.query, timeout=self.timeout) as outcomes,
        ):
            async for outcome in outcomes:
                rows, error, report = 0, outcome.error, outcome.report
                if report is not None:
                    try:
                        rows = files.add(
                            outcome.account.id,
                            complete_part(report) if self.complete_only else report,
                        )
                        still_open |= show.still_open(report)
                    except UnexpectedResponse as misfit:
                        error = misfit
                if error is None:
                    answered += 1
                else:
                    complain(str(error))
                progress.done(rows=rows, failed=error is not None)
        return answered
