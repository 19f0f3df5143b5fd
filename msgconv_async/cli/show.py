"""Output for people: tables, in a terminal or not, in UTF-8 or not."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from io import BytesIO, TextIOWrapper
from typing import Any

from rich import box
from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.table import Table

from msgconv_async.cli.figures import HEADINGS, MILLISECONDS, SENT, written_average
from msgconv_async.export import TABLES, intervals
from msgconv_async.protocol.report import ConversationReport, Interval

_STILL_OPEN = "* Still open when asked: not whole yet."
_PIPE_WIDTH = 100

_LEAST, _MOST = ConsoleDimensions(20, 5), ConsoleDimensions(1000, 1000)
"""In a width of 0, layout never ends; in a width of a thousand millions, it takes all memory."""
_SIZE = re.compile(r"[0-9]{1,9}", re.ASCII)


class Screen(Console):
    """A console of a usable size, even if the terminal or the environment gives another one.

    It raises a broken pipe, for which `msgconv_async.cli.main` returns the exit code.
    """

    def __init__(self, **settings: Any) -> None:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {"COLUMNS", "LINES"} or _SIZE.fullmatch(value)
        }
        super().__init__(_environ=environment, **settings)

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        return ConsoleDimensions(
            *(
                max(least, min(given, most))
                for given, least, most in zip(super().size, _LEAST, _MOST, strict=True)
            )
        )

    @property
    def is_live(self) -> bool:
        """Whether it can redraw what it wrote; forced colour does not make a terminal of a file."""
        return self.is_terminal and self.is_interactive and self.file.isatty()

    def on_broken_pipe(self) -> None:
        """Raise the error; rich would exit."""
        raise BrokenPipeError


def span(interval: Interval, day: str = "%a") -> str:
    """Write an interval, such as ``Sun 08:05-08:10`` or ``Sun 23:00-Mon 01:00``.

    Args:
        interval: The interval.
        day: How a day is written; no more than a day ago, its name is clear.
    """
    start, end = interval.start, interval.end
    ends = "%H:%M" if start.date() == end.date() else f"{day} %H:%M"
    return f"{start:{day} %H:%M}-{end:{ends}}"


def grid(title: str, *columns: str, left: int = 1) -> Table:
    """Return a table without rows. Its columns hold numbers, except for some on the left."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    return table


def tables(reports: Mapping[str, ConversationReport]) -> RenderableType:
    """Show the five figures of reports as the server sent them, in a table for each grain."""
    shown: list[RenderableType] = []
    open_shown = timed = False
    for grain in TABLES:
        ids = [name for name in grain.key if name in {"skill_id", "agent_id"}]
        table = grid(grain.name, "account", "UTC", *(name[:-3] for name in ids), *HEADINGS, left=2)
        table.padding, table.show_edge = 0, False  # the widest of them fits into 80 columns
        places = [grain.columns.index(name) for name in (*ids, *SENT)]
        resolved = len(ids)
        for account_id, report in reports.items():
            for interval in intervals(report):
                when = f"{span(interval)}{' ' if interval.complete else '*'}"
                for row in grain.flatten(account_id, interval):
                    open_shown = open_shown or not interval.complete
                    *numbers, time = (row[place] for place in places)
                    average = written_average(time, numbers[resolved])
                    timed = timed or average not in {"", "-"}
                    table.add_row(
                        account_id,
                        when,
                        *("" if number is None else str(number) for number in numbers),
                        average,
                    )
        if table.row_count:
            shown += [table, ""]
    if not shown:
        shown.append("No data for what was asked.")
    if open_shown:
        shown.append(_STILL_OPEN)
    if timed:
        shown.append(MILLISECONDS)
    return Group(*shown)


def rendered(what: RenderableType, *, encoding: str, terminal: bool) -> bytes:
    """Return the output as bytes: for a terminal, or plain and wide enough for a file."""
    page = BytesIO()
    text = TextIOWrapper(page, encoding=encoding, errors="replace", newline="")
    console = Screen(
        file=text,
        force_terminal=terminal,
        width=None if terminal else _PIPE_WIDTH,
        highlight=False,
    )
    console.print(what)
    text.flush()
    return page.getvalue()
