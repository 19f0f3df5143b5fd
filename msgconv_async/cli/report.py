"""``msgconv report``: shows the collected history, as a table with charts, as rows or as a page."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, date, tzinfo
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from msgconv_async.cli import show
from msgconv_async.cli.captions import account_name, id_name, marked, notes, part_name, period
from msgconv_async.cli.console import FAILED, OK, complain
from msgconv_async.cli.figures import HEADINGS, Figures, duration
from msgconv_async.cli.output import Output, ReportFormat
from msgconv_async.cli.page import page
from msgconv_async.cli.streams import visible, visible_json
from msgconv_async.export.destination import StoreFailed
from msgconv_async.export.history import ALL, Day, History, Part, read, total
from msgconv_async.export.rows import By
from msgconv_async.export.store import Store
from msgconv_async.names import NOBODY, Names

_CHARTS = 4
"""How many parts a terminal shows charts of. The sums over all of them count as one."""


@dataclass(frozen=True)
class Report:
    """The settings of the command line.

    Args:
        store: The store that holds the history.
        days: How many days, up to the newest.
        accounts: The ids of the accounts; of none, all are shown.
        by: What to tell apart; see `read`.
        hourly: Show hours instead of days.
        zone: The time zone of the days.
        names: What is shown beside ids; in rows, in columns of their own.
        format: The format of what goes to stdout.
    """

    store: Store
    days: int
    _: KW_ONLY
    accounts: Sequence[str] = ()
    by: By | None = None
    hourly: bool = False
    zone: tzinfo = UTC
    names: Names = NOBODY
    format: ReportFormat = "table"

    def run(self, html: Path | None) -> int:
        """Read, show, and return the exit code.

        Args:
            html: The file to write a page to; None writes to stdout.
        """
        with Output(html, "--html") as output:
            try:
                history = read(
                    self.store,
                    self.days,
                    accounts=self.accounts,
                    by=self.by,
                    hourly=self.hourly,
                    zone=self.zone,
                )
            except StoreFailed as error:
                complain(str(error), "error")
                return FAILED
            history = msgspec.structs.replace(history, names=self.names)
            if html is not None:
                written = page(history)
            elif self.format == "table":
                written = show.rendered(
                    shown(history), encoding=output.encoding, terminal=output.on_screen
                )
            else:
                written = (as_csv if self.format == "csv" else as_json)(history)
            output.write(written)
            output.commit()
        return OK


def shown(history: History) -> RenderableType:
    """Show a history: a table, in a terminal with charts, and notes on the figures."""
    return Group(_table(history), _Charts(history), *notes(history))


def as_csv(history: History) -> bytes:
    """Return the rows of what is told apart as CSV, without sums over them."""
    text = StringIO()
    table = csv.DictWriter(text, _columns(history), lineterminator="\n")
    table.writeheader()
    for row in _rows(history):
        shown = {key: visible(cell) for key, cell in row.items() if isinstance(cell, str)}
        table.writerow(row | shown | {"whole_day": "true" if row["whole_day"] else "false"})
    return text.getvalue().encode()


def as_json(history: History) -> bytes:
    """Return the same rows as a JSON array of objects."""
    document = msgspec.json.format(msgspec.json.encode(list(_rows(history))), indent=2)
    return visible_json(document) + b"\n"


def _columns(history: History) -> list[str]:
    hour = ["hour"] if history.hourly else []
    kinds = ["account"] if history.by == "account" else ["account", history.by]
    with_names = ("id",) if history.names is NOBODY else ("id", "name")
    ids = [f"{kind}_{each}" for kind in kinds for each in with_names]
    figures = ["resolved", "by_agent", "by_consumer", "by_system", "average_handling_time_ms"]
    return ["day", *hour, *ids, *figures, "whole_day"]


def _rows(history: History) -> Iterator[dict[str, Any]]:
    columns = _columns(history)
    for day in history.days:
        if (day.part.id is None) == (history.by == "account"):
            hour = [day.hour] if history.hourly else []
            ids = _named(day.part.account_id, history.names.accounts, history)
            if history.by != "account":
                names = history.names.skills if history.by == "skill" else history.names.agents
                ids += _named(day.part.id, names, history)
            cells = [day.day.isoformat(), *hour, *ids, *Figures.of_day(day)]
            yield dict(zip(columns, [*cells, day.day not in history.partial], strict=True))


def _named(id_: Any, names: Mapping[Any, str], history: History) -> list[Any]:
    """Return the cells of an id: where names were given, its name as well, or None."""
    return [id_] if history.names is NOBODY else [id_, names.get(id_)]


def _table(history: History) -> Table:
    many, parts = len(history.accounts) > 1, history.by != "account"
    account = ["account"] if many or not parts else []
    names = ["hour" if history.hourly else "day", *account, *([history.by] if parts else [])]
    table = show.grid(
        f"Resolved conversations, {escape(visible(period(history)))}",
        *names,
        *HEADINGS,
        left=len(names),
    )
    periods: dict[tuple[date, int | None], dict[Part, Day]] = {}
    for part, days in history.by_part.items():
        for day in days:
            periods.setdefault(day.period, {})[part] = day
    for when in sorted(periods, key=lambda when: (when[0], when[1] or 0)):
        rows = periods[when]
        for part in sorted(rows, key=_in_table):
            label = [_when(rows[part], history)]
            if account:
                label.append(escape(visible(account_name(part.account_id, history))))
            if parts:
                label.append(escape(visible(id_name(part.id, history))))
            is_sum = part == ALL or (parts and part.id is None)
            cells = [*label, *Figures.of_day(rows[part]).written()]
            last = len(rows) > 1 and part == (ALL if many else Part(part.account_id))
            table.add_row(*cells, style="bold" if is_sum and len(rows) > 1 else None)
            if last:
                table.add_section()
    return table


def _in_table(part: Part) -> tuple[bool, str, bool, int]:
    """Order the rows of a day: sums come after what they add up."""
    return part == ALL, part.account_id or "", part.id is None, part.id or 0


def _when(day: Day, history: History) -> str:
    hour = "" if day.hour is None else f" {day.hour:02}:00"
    marks = "*" if day.day in history.partial else " "
    return f"{day.day}{hour}{marks}"


@dataclass(frozen=True)
class _Charts:
    """Two charts of each part, in a terminal: conversations by resolver, and handling time."""

    history: History

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        if not console.is_terminal:
            return
        parts = self.history.by_part
        busiest = sorted(parts, key=lambda part: -sum(day.total or 0 for day in parts[part]))
        width = options.max_width // 2 - 1
        for part in busiest[:_CHARTS]:
            yield Columns(self._pair(part, console, width), width=width)
        if len(parts) > _CHARTS:
            of = "" if self.history.hourly else f"; --html draws all {len(parts)}"
            yield f"Charts of the {_CHARTS} busiest{of}."

    def _pair(self, part: Part, console: Console, width: int) -> list[RenderableType]:
        from msgconv_async.cli.chart import bars  # noqa: PLC0415 - only charts need it

        told = {day.period: day for day in self.history.by_part[part]}
        days = [
            told.get((day, hour)) or total((), day, part, hour)
            for day, hour in self.history.periods
        ]
        labels = [
            f"{day.day:%d}{marked(day.day, self.history)[10:]}"
            if day.hour is None
            else f"{day.hour:02}"
            for day in days
        ]
        sides = ("by_agent", "by_consumer", "by_system")
        name = visible(part_name(part, self.history))
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
