"""``msgconv report``: what was collected, by day and skill, as a table with charts or a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from msgconv_async.cli import FAILED, OK, complain, show
from msgconv_async.cli.output import Output
from msgconv_async.cli.streams import visible
from msgconv_async.export.destination import StoreFailed
from msgconv_async.export.history import Day, History, read, total
from msgconv_async.export.store import Store

_CHARTS = 4
"""Of how many skills a terminal shows charts, the sums over all of them among these."""


@dataclass(frozen=True)
class Report:
    """What was asked for on the command line.

    Args:
        store: Where the history is.
        days: How many days, up to the newest.
    """

    store: Store
    days: int

    def run(self, html: Path | None) -> int:
        """Read, show, and return the exit code.

        Args:
            html: Where to write a page; None shows tables on stdout.
        """
        with Output(html, "--html") as output:
            try:
                history = read(self.store, self.days)
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
                from msgconv_async.cli.page import page  # noqa: PLC0415 - only here is it needed

                written = page(self.store.dataset, history)
            output.write(written)
            output.commit()
        return OK


def shown(dataset: str, history: History) -> RenderableType:
    """Show a history: a table, in a terminal with charts, and what has to be known of them."""
    return Group(_table(dataset, history), _Charts(history), *notes(history))


def skill_name(skill_id: int | None) -> str:
    """Write a skill for a reader."""
    return {None: "all", -1: "unassigned"}.get(skill_id, f"{skill_id}")


def period(history: History) -> str:
    """Say what a history is of."""
    many = len(history.accounts)
    return f"{history.first} to {history.last} (UTC), {many} account{'s' if many > 1 else ''}"


def marked(day: date, history: History) -> str:
    """Write a day, with an asterisk if it was not collected whole."""
    return f"{day}{'*' if day in history.partial else ''}"


def notes(history: History) -> list[str]:
    """Say what a reader has to know of the figures."""
    spans: list[tuple[date, date, int]] = []
    for day, lacking in history.partial.items():
        match spans:
            case [*_, (first, last, same)] if (day - last).days == 1 and lacking == same:
                spans[-1] = (first, day, lacking)
            case _:
                spans.append((day, day, lacking))
    many = len(history.accounts)
    named = [
        f"{first}{f' to {last}' if last > first else ''}"
        + (f" ({lacking} of {many} accounts)" if many > 1 else "")
        for first, last, lacking in spans
    ]
    said = [f"* Not collected whole: {', '.join(named)}."] if named else []
    if history.ahead:
        rows = f"{history.ahead:,} row{'s lie' if history.ahead > 1 else ' lies'}"
        said.append(f"{rows} in the future by this machine's clock, and none of it is shown.")
    return [*said, show.MILLISECONDS]


def _table(dataset: str, history: History) -> Table:
    table = show.grid(
        escape(visible(f"{dataset}: {period(history)}")),
        *("day", "skill", "resolved", "by agent", "consumer", "system", "average"),
        left=2,
    )
    totals = {each.day: each for each in history.by_skill.get(None, ())}
    skills: dict[date, list[Day]] = {}
    for each in history.days:
        if each.skill_id is not None:
            skills.setdefault(each.day, []).append(each)
    for day in sorted(totals.keys() | skills.keys()):
        for each in skills.get(day, ()):
            table.add_row(*_cells(each, history))
        if day in totals:
            style = "bold" if skills else None
            table.add_row(*_cells(totals[day], history), style=style, end_section=bool(skills))
    return table


def _cells(each: Day, history: History) -> list[str]:
    counts = (each.total, each.by_agent, each.by_consumer, each.by_system)
    return [
        marked(each.day, history).ljust(len("2026-03-04*")),
        skill_name(each.skill_id),
        *("" if count is None else f"{count:,}" for count in counts),
        show.average(each.average, each.total),
    ]


@dataclass(frozen=True)
class _Charts:
    """Charts, where there is a terminal: of each skill, who resolved, and how long it took."""

    history: History

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        if not console.is_terminal:
            return
        skills = self.history.by_skill
        busiest = sorted(skills, key=lambda id_: -sum(each.total or 0 for each in skills[id_]))
        width = options.max_width // 2 - 1
        for skill in busiest[:_CHARTS]:
            yield Columns(self._pair(skill, console, width), width=width)
        if len(skills) > _CHARTS:
            yield f"Charts of the busiest skills; --html draws all {len(skills) - 1}."

    def _pair(self, skill: int | None, console: Console, width: int) -> list[RenderableType]:
        from msgconv_async.cli.chart import bars  # noqa: PLC0415 - only here is it drawn

        told = {each.day: each for each in self.history.by_skill[skill]}
        days = [told.get(day) or total((), day) for day in self.history.calendar]
        labels = [f"{each.day:%d}{marked(each.day, self.history)[10:]}" for each in days]
        who = ("by_agent", "by_consumer", "by_system")
        name = skill_name(skill)
        return [
            bars(
                f"{name}: █ agent ▒ consumer ░ system",
                [[getattr(each, by) or 0 for each in days] for by in who],
                labels,
                console,
                width=width,
            ),
            bars(
                f"{name}: average handling time",
                [[each.average or 0 for each in days]],
                labels,
                console,
                width=width,
                written=show.duration,
            ),
        ]
