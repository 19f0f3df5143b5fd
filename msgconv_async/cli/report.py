"""``msgconv report``: shows the collected history, as a table with charts or as a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, tzinfo
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from msgconv_async.cli import show
from msgconv_async.cli.captions import marked, notes, period, skill_name
from msgconv_async.cli.console import FAILED, OK, complain
from msgconv_async.cli.figures import HEADINGS, Figures, duration
from msgconv_async.cli.output import Output
from msgconv_async.cli.page import page
from msgconv_async.cli.streams import visible
from msgconv_async.export.destination import StoreFailed
from msgconv_async.export.history import Day, History, read, total
from msgconv_async.export.store import Store

_CHARTS = 4
"""How many skills a terminal shows charts of. The sums over all skills count as one."""


@dataclass(frozen=True)
class Report:
    """The settings of the command line.

    Args:
        store: The store that holds the history.
        days: How many days, up to the newest.
        zone: The time zone of the days.
    """

    store: Store
    days: int
    zone: tzinfo = UTC

    def run(self, html: Path | None) -> int:
        """Read, show, and return the exit code.

        Args:
            html: The file to write a page to; None shows tables on stdout.
        """
        with Output(html, "--html") as output:
            try:
                history = read(self.store, self.days, self.zone)
            except StoreFailed as error:
                complain(str(error))
                return FAILED
            if html is None:
                written = show.rendered(
                    shown(self.store.dataset, history),
                    encoding=output.encoding,
                    terminal=output.on_screen,
                )
            else:
                written = page(self.store.dataset, history)
            output.write(written)
            output.commit()
        return OK


def shown(dataset: str, history: History) -> RenderableType:
    """Show a history: a table, in a terminal with charts, and notes on the figures."""
    return Group(_table(dataset, history), _Charts(history), *notes(history))


def _table(dataset: str, history: History) -> Table:
    table = show.grid(
        escape(visible(f"{dataset}: {period(history)}")),
        *("day", "skill", *HEADINGS),
        left=2,
    )
    totals = {day.day: day for day in history.by_skill.get(None, ())}
    skills: dict[date, list[Day]] = {}
    for day in history.days:
        if day.skill_id is not None:
            skills.setdefault(day.day, []).append(day)
    for calendar_day in sorted(totals.keys() | skills.keys()):
        for day in skills.get(calendar_day, ()):
            table.add_row(*_cells(day, history))
        if calendar_day in totals:
            style = "bold" if skills else None
            cells = _cells(totals[calendar_day], history)
            table.add_row(*cells, style=style, end_section=bool(skills))
    return table


def _cells(day: Day, history: History) -> list[str]:
    return [
        marked(day.day, history).ljust(len("2026-03-04*")),
        skill_name(day.skill_id),
        *Figures.of_day(day).written(),
    ]


@dataclass(frozen=True)
class _Charts:
    """Two charts for each skill, in a terminal: conversations by resolver, and handling time."""

    history: History

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        if not console.is_terminal:
            return
        skills = self.history.by_skill
        busiest = sorted(skills, key=lambda id_: -sum(day.total or 0 for day in skills[id_]))
        width = options.max_width // 2 - 1
        for skill in busiest[:_CHARTS]:
            yield Columns(self._pair(skill, console, width), width=width)
        if len(skills) > _CHARTS:
            yield f"Charts of the busiest skills; --html draws all {len(skills) - 1}."

    def _pair(self, skill: int | None, console: Console, width: int) -> list[RenderableType]:
        from msgconv_async.cli.chart import bars  # noqa: PLC0415 - only charts need it

        told = {day.day: day for day in self.history.by_skill[skill]}
        days = [told.get(day) or total((), day) for day in self.history.calendar]
        labels = [f"{day.day:%d}{marked(day.day, self.history)[10:]}" for day in days]
        sides = ("by_agent", "by_consumer", "by_system")
        name = skill_name(skill)
        return [
            bars(
                f"{name}: █ agent ▒ consumer ░ system",
                [[getattr(day, side) or 0 for day in days] for side in sides],
                labels,
                console,
                width=width,
            ),
            bars(
                f"{name}: average handling time",
                [[day.average or 0 for day in days]],
                labels,
                console,
                width=width,
                written=duration,
            ),
        ]
