"""What a person sees: tables and progress; in a terminal or not, in UTF-8 or not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO, TextIOWrapper

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from msgconv_async.cli import complain
from msgconv_async.export import TABLES, intervals
from msgconv_async.protocol.report import ConversationReport, Interval

MILLISECONDS = (
    "Handling times are read as milliseconds: the API names no unit, and LivePerson's own"
    " demo dashboard divides them by 1000 to get seconds."
)
_STILL_OPEN = "* Still open when asked: not whole yet."
_PIPE_WIDTH = 100
_FIGURES = {
    "resolved": "total_resolved_conversations",
    "by agent": "resolved_conversations_by_ccp",
    "consumer": "resolved_conversations_by_consumer",
    "system": "resolved_conversations_by_system",
    "average": "avg_time_resolved_conversations",
}


class Screen(Console):
    """A console that leaves a broken pipe to `msgconv_async.cli.main`, which ends as others do."""

    def on_broken_pipe(self) -> None:
        """Let it be seen."""
        raise BrokenPipeError


def duration(milliseconds: object) -> str:
    """Write a handling time for a reader: ``8.4s``, ``12m 05s``, ``1h 02m``."""
    if not isinstance(milliseconds, int | float):
        return ""
    seconds = milliseconds / 1000
    if abs(seconds) < 59.95:  # noqa: PLR2004 - what is written as less than a minute
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02}m"  # noqa: PLR2004


def span(interval: Interval) -> str:
    """Write an interval, such as ``Sun 08:05-08:10``; no more than a day ago, that is clear."""
    return f"{interval.start:%a %H:%M}-{interval.end:%H:%M}"


def still_open(report: ConversationReport) -> set[str]:
    """Write the intervals of a report that were not complete when it was asked for."""
    return {span(each) for each in intervals(report) if not each.complete}


def say_still_open(spans: Collection[str]) -> None:
    """Say on stderr which intervals were not complete, if there were any."""
    if spans:
        together = ", ".join(sorted(spans))
        complain(f"still open when asked, so not whole yet: the interval {together} UTC")


def grid(title: str, *columns: str, left: int = 1) -> Table:
    """Return a table without rows, its columns numbers but for some on the left."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    return table


def tables(reports: Mapping[str, ConversationReport]) -> RenderableType:
    """Show the main figures of reports by account, as the server sent them, each grain apart."""
    shown: list[RenderableType] = []
    for each in TABLES:
        ids = [name for name in each.key if name in {"skill_id", "agent_id"}]
        table = grid(each.name, "account", "UTC", *(name[:-3] for name in ids), *_FIGURES, left=2)
        table.padding, table.show_edge = 0, False  # the widest of them fits into 80 columns
        places = [each.columns.index(name) for name in (*ids, *_FIGURES.values())]
        for account_id, report in reports.items():
            for interval in intervals(report):
                when = f"{span(interval)}{' ' if interval.complete else '*'}"
                for row in each.flatten(account_id, interval):
                    *numbers, average = (row[place] for place in places)
                    table.add_row(
                        account_id,
                        when,
                        *("" if number is None else str(number) for number in numbers),
                        duration(average),
                    )
        if table.row_count:
            shown += [table, ""]
    if not shown:
        shown.append("No data for what was asked.")
    if not all(each.complete for report in reports.values() for each in intervals(report)):
        shown.append(_STILL_OPEN)
    return Group(*shown, MILLISECONDS)


def rendered(what: RenderableType, *, encoding: str, terminal: bool) -> bytes:
    """Return what is shown as the bytes of a terminal, or of a file: plain, and wide enough."""
    page = BytesIO()
    text = TextIOWrapper(page, encoding=encoding, errors="replace", newline="")
    console = Console(
        file=text,
        force_terminal=terminal,
        width=None if terminal else _PIPE_WIDTH,
        highlight=False,
    )
    console.print(what)
    text.flush()
    return page.getvalue()


@contextmanager
def ticker(
    task: str, total: int, *, shown: bool = True, announced: bool = False
) -> Iterator[Callable[[], None]]:
    """Show progress on stderr while inside, where that is a terminal and there is any.

    Args:
        task: What is going on.
        total: How many there are to do.
        shown: False where the results go to the screen meanwhile.
        announced: Say in a line what is going on, where progress is not shown.

    Yields:
        What is to be called once for each that is done.
    """
    console = Console(stderr=True)
    shown = shown and console.is_terminal and total > 1
    if announced and not shown:
        complain(f"{task}: {total} requests")
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # results must not end up on stderr
        disable=not shown,
    ) as progress:
        number = progress.add_task(task, total=total)
        yield lambda: progress.advance(number)
