"""The texts around the figures of a history, in a terminal and on a page."""

from __future__ import annotations

from datetime import date

from msgconv_async.cli.figures import MILLISECONDS
from msgconv_async.export.history import History


def skill_name(skill_id: int | None) -> str:
    """Write a skill for a reader."""
    return {None: "all", -1: "unassigned"}.get(skill_id, f"{skill_id}")


def period(history: History) -> str:
    """Say which days and accounts a history covers."""
    many = len(history.accounts)
    accounts = f"{many} account{'s' if many > 1 else ''}"
    return f"{history.first} to {history.last} ({history.zone}), {accounts}"


def marked(day: date, history: History) -> str:
    """Write a day, with an asterisk if it was not collected whole."""
    return f"{day}{'*' if day in history.partial else ''}"


def notes(history: History) -> list[str]:
    """Return the notes that a reader of the figures needs."""
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
        said.append(f"{rows} in the future by this machine's clock, and not shown.")
    return [*said, MILLISECONDS]
