"""Shows how far a job over many accounts is, on stderr: a bar in a terminal, otherwise lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from rich import progress

from msgconv_async.cli import show
from msgconv_async.cli.console import complain
from msgconv_async.cli.figures import duration

EVERY = 10.0
"""Seconds between two lines, where there is no terminal."""


class Bar:
    """Counts accounts done, and shows a bar while inside, which goes away at the end.

    Args:
        text: What the bar says.
        accounts: How many accounts there are.
        columns: The parts that are drawn side by side.
        shown: False for no bar. There is none without a terminal either.

    Attributes:
        failed: How many of them failed.
        rows: How many rows the accounts brought.
        shown: Whether there is a bar.
    """

    def __init__(
        self, text: str, accounts: int, *columns: progress.ProgressColumn, shown: bool = True
    ) -> None:
        self.failed = 0
        self._accounts = accounts
        self._done = self.rows = 0
        console = show.Screen(stderr=True)
        self.shown = shown and console.is_live
        self._bar = progress.Progress(
            *columns,
            console=console,
            transient=True,
            redirect_stdout=False,  # results must not end up on stderr
            disable=not self.shown,
        )
        self._task = self._bar.add_task(text, total=accounts)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def done(self, accounts: int = 1, *, rows: int = 0, failed: int = 0) -> None:
        """Count accounts, and show how far it is now.

        Args:
            accounts: How many were done since the last time.
            rows: How many rows they brought.
            failed: How many of them failed.
        """
        self._done += accounts
        self.rows += rows
        self.failed += failed
        self._bar.update(self._task, completed=self._done)


class Ticker(Bar):
    """Shows how many of several requests are done.

    Args:
        task: The name of the job.
        total: How many there are to do.
        shown: False while the results go to the screen.
        announced: Say the name of the job in a line, if there is no bar.
    """

    def __init__(
        self, task: str, total: int, *, shown: bool = True, announced: bool = False
    ) -> None:
        super().__init__(
            task,
            total,
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            shown=shown and total > 1,
        )
        if announced and not self.shown:
            complain(f"{task}: {total} requests")


class Progress(Bar):
    """Shows accounts done, and rows, with the pace and the time left.

    Where there is no terminal, a line is written every ten seconds, as accounts are done.

    Args:
        accounts: How many accounts there are.
        then: The work after the last account, to be named while it goes on.
        clock: Returns seconds.
    """

    def __init__(
        self, accounts: int, *, then: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(
            "",
            accounts,
            progress.BarColumn(complete_style="cyan", finished_style="green"),
            progress.TextColumn("{task.description}"),
        )
        self._then = then
        self._clock = clock
        self._started = self._said = clock()
        self._bar.update(self._task, description=self._state(0))

    def done(self, accounts: int = 1, *, rows: int = 0, failed: int = 0) -> None:
        """Count accounts, and show how far it is now; see `Bar.done`."""
        super().done(accounts, rows=rows, failed=failed)
        now = self._clock()
        state = self._state(now - self._started)
        self._bar.update(self._task, description=state)
        if not self.shown and now - self._said >= EVERY and self._done < self._accounts:
            self._said = now
            complain(state)

    def summary(self) -> str:
        """Return the result in a line."""
        took = duration(1000 * (self._clock() - self._started))
        return f"{self._counts(self._done - self.failed)} in {took}"

    def _counts(self, accounts: int) -> str:
        failed = f" ({self.failed:,} failed)" if self.failed else ""
        of = f"{self._accounts:,} account{'' if self._accounts == 1 else 's'}"
        return f"{accounts:,} of {of}{failed}, {self.rows:,} row{'' if self.rows == 1 else 's'}"

    def _state(self, seconds: float) -> str:
        counts = self._counts(self._done)
        if self._done == self._accounts and self._then:
            return f"{counts}, {self._then}"
        if not (self._done and seconds):
            return counts
        left = seconds / self._done * (self._accounts - self._done)
        return f"{counts}, {self._done / seconds:.1f} accounts/s, {duration(1000 * left)} left"
