"""The texts around the figures of a history, in a terminal and on a page."""

from __future__ import annotations

from datetime import date

from msgconv_async.cli.figures import MILLISECONDS
from msgconv_async.export.history import ALL, History, Part


def id_name(id_: int | None, history: History) -> str:
    """Write a skill or an agent for a reader."""
    if id_ is None:
        return "all"
    if history.by == "agent":
        return history.names.agent(id_)
    return (
        "unassigned" if id_ == -1 and -1 not in history.names.skills else history.names.skill(id_)
    )


def account_name(account_id: str | None, history: History) -> str:
    """Write an account, or all of them, for a reader."""
    return "all" if account_id is None else history.names.account(account_id)


def part_name(part: Part, history: History) -> str:
    """Write a part of a history for a reader, with its account where there are several."""
    if part == ALL:
        return "all"
    if history.by == "account":
        return account_name(part.account_id, history)
    name = id_name(part.id, history)
    many = len(history.accounts) > 1
    return f"{account_name(part.account_id, history)}: {name}" if many else name


def period(history: History) -> str:
    """Say which days and accounts a history covers."""
    match history.accounts:
        case (account_id,):
            whose = f"account {account_name(account_id, history)}"
        case accounts:
            whose = f"{len(accounts):,} accounts"
    return f"{history.first} to {history.last} ({history.zone}), {whose}"


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
    if any(day.average is not None for day in history.days):
        said.append(MILLISECONDS)
    return said
