"""Asks many accounts one question, hands out reports, and shows failures and progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

from msgspec.structs import replace

from msgconv_async.cli import show
from msgconv_async.cli.console import FAILED, OK, SOME_FAILED, complain
from msgconv_async.cli.failures import Failures
from msgconv_async.cli.progress import Bar
from msgconv_async.client.access.account import Account
from msgconv_async.client.many.fan_out import MAX_IN_FLIGHT
from msgconv_async.client.session import TIMEOUT, ConversationSession
from msgconv_async.errors import UnexpectedResponse
from msgconv_async.export.rollup import roll_up
from msgconv_async.export.rows import complete_part, intervals
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationReport


class Answered(NamedTuple):
    """The result of asking.

    Attributes:
        accounts: How many accounts answered.
        still_open: The intervals that were not complete when they were asked for, as written.
    """

    accounts: int
    still_open: set[str]


@dataclass(frozen=True)
class Asking:
    """The accounts that a command asks, and the question.

    Args:
        accounts: The accounts. One that is given twice is asked twice.
        query: The question.
        timeout: Seconds for each account.
        max_in_flight: How many accounts are asked at the same time.
        note: A note to say before anything is asked, or an empty text.
        complete_only: Leave out intervals that were still open, or are not covered whole.
        roll_up: Add intervals up to periods of so many minutes; None leaves them as they are.
    """

    accounts: Sequence[Account]
    query: ConversationQuery
    _: KW_ONLY
    timeout: float = TIMEOUT
    max_in_flight: int = MAX_IN_FLIGHT
    note: str = ""
    complete_only: bool = False
    roll_up: int | None = None

    def say_note(self) -> None:
        """Say the note on stderr, if there is one."""
        if self.note:
            complain(self.note)

    async def reports(
        self,
        session: ConversationSession,
        take: Callable[[str, ConversationReport], int | None],
        bar: Bar,
    ) -> Answered:
        """Hand out the report of each account as it comes, and say on stderr which accounts failed.

        Args:
            session: The session, entered already.
            take: Takes an account's id and report, and may return how many rows these are. If it
                raises `UnexpectedResponse`, the account has failed.
            bar: Shows how many accounts are done.
        """
        answered, failures = 0, Failures()
        still_open: set[str] = set()
        async with session.fetch_many(
            self.accounts, self.query, timeout=self.timeout, max_in_flight=self.max_in_flight
        ) as outcomes:
            async for outcome in outcomes:
                rows, error, report = 0, outcome.error, outcome.report
                if report is not None:
                    if self.roll_up is not None:
                        rolled = roll_up(intervals(report), self.roll_up)
                        report = replace(report, intervals=rolled)
                    taken = complete_part(report) if self.complete_only else report
                    try:
                        rows = take(outcome.account.id, taken) or 0
                    except UnexpectedResponse as misfit:
                        error = misfit
                    else:
                        still_open |= {
                            show.span(interval)
                            for interval in intervals(report)
                            if not interval.complete
                        }
                if error is None:
                    answered += 1
                else:
                    failures.add(error)
                bar.done(rows=rows, failed=error is not None)
        failures.sum_up()
        return Answered(answered, still_open)

    def say_still_open(self, spans: set[str]) -> None:
        """Say on stderr which intervals were not complete, if there were any."""
        if spans:
            together = ", ".join(sorted(spans))
            so = "left out" if self.complete_only else "not whole yet"
            if self.roll_up is None:
                complain(f"still open when asked, so {so}: the interval {together} UTC")
            else:
                so = "left out" if self.complete_only else "marked as not complete"
                complain(f"not covered by whole intervals, so {so}: {together} UTC")

    def exit_code(self, answered: int) -> int:
        """Return the exit code of a command, by the number of accounts that answered."""
        if answered == len(self.accounts):
            return OK
        return SOME_FAILED if answered else FAILED
