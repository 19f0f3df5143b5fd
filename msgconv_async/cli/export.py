"""``msgconv export``: asks accounts, and writes the answers as one file for each table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msgconv_async.cli.asking import Asking
from msgconv_async.cli.console import complain
from msgconv_async.cli.progress import Progress
from msgconv_async.client.session import ConversationSession
from msgconv_async.export import tables_of
from msgconv_async.export.files import FileFormat, table_files


@dataclass(frozen=True)
class Export:
    """The settings of the command line.

    Args:
        asking: The accounts and the question.
        format: The format of the files.
    """

    asking: Asking
    format: FileFormat

    async def run(self, session: ConversationSession, folder: Path) -> int:
        """Ask, write the answers, and return the exit code.

        Args:
            session: The session, not entered yet.
            folder: The folder of the files.
        """
        asking = self.asking
        with table_files(folder, self.format, tables_of(asking.query)) as files:
            asking.say_note()
            with Progress(len(asking.accounts)) as progress:
                async with session:
                    answered, still_open = await asking.reports(session, files.add, progress)
                if answered:
                    files.commit()
            complain(progress.summary())
        asking.say_still_open(still_open)
        return asking.exit_code(answered)
