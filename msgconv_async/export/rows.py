"""Flattens a report into four tables, one for each grain. Their keys have no empty part.

With totals and details in one table, analysts count twice. So each grain has a table of its own,
and a row belongs to one interval. The sections over the whole window sum the intervals once more,
and are left out. A report without intervals is one interval, its window.

A row stands for metrics that the server sent, and nothing is made up: a skill or an agent without
data has no row. ``account_metrics`` holds account totals only, which the server sends when neither
skills nor agents are asked for. The totals of a skill or agent section cover the skills or agents
asked for ("all" are those active in the time frame). They may differ from the account's totals, so
no table holds them. ``skill_metrics`` holds each skill's totals, over all of its agents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import astuple

from msgconv_async import checks
from msgconv_async.errors import ConfigurationError
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationMetrics, ConversationReport, Interval

Value: TypeAlias = str | int | float | datetime | None
Row: TypeAlias = tuple[Value, ...]

METRICS = ConversationMetrics.__struct_fields__
"""The twelve metrics, in the order of their columns."""

COMPLETE = "complete"
"""The last column of files and of Dask's frames: whether the row's interval was complete when it
was asked for."""

TYPES: MappingProxyType[str, type] = MappingProxyType(
    {
        "account_id": str,
        "interval_end": datetime,
        "skill_id": int,
        "agent_id": int,
        "interval_start": datetime,
        **{name: float if name.startswith("avg_") else int for name in METRICS},
    }
)
"""Types of the columns: aware UTC datetimes, 64-bit integers, floats. Only a metric may be None."""

NOT_SENT = ConversationMetrics()
"""Totals that the server left out."""


class Table(msgspec.Struct, frozen=True):
    """One grain.

    Attributes:
        name: Such as ``"skill_metrics"``.
        key: The columns that identify a row; they come first, and are never None.
        flatten: Yields the rows of one interval of an account.
    """

    name: str
    key: tuple[str, ...]
    flatten: Callable[[str, Interval], Iterator[Row]]

    @property
    def columns(self) -> tuple[str, ...]:
        """The key, ``interval_start``, and the twelve metrics as the API sent them."""
        return (*self.key, "interval_start", *METRICS)

    def rows(self, account_id: str, report: ConversationReport) -> Iterator[Row]:
        """Return a report's rows of this grain, oldest interval first.

        Args:
            account_id: The account of the report.
            report: The report. Its newest interval may still have been open: `Interval.complete`
                tells.

        Returns:
            An iterator of tuples in the order of `columns`.

        Raises:
            ConfigurationError: An argument is of another type, or the report has no intervals and
                does not know its window.
        """
        checks.text("account_id", account_id, "the id of the report's account, as a string")
        parts = intervals(report)
        return (row for interval in parts for row in self.flatten(account_id, interval))


def intervals(report: ConversationReport) -> Iterable[Interval]:
    """Return a report's intervals or, where it has none, its whole window as the only one.

    Raises:
        ConfigurationError: The report has neither, or is no report.
    """
    checks.instance("report", report, ConversationReport, "a ConversationReport")
    if report.intervals:
        return report.intervals
    if report.window is None:
        raise ConfigurationError(
            "the report has neither intervals nor a window: decode it with its query and the"
            " instant of asking"
        )
    covered = report.window.intervals
    return (
        Interval(
            start=covered[0].start,
            end=covered[-1].end,
            complete=covered[-1].complete,
            skills=report.skills,
            agents=report.agents,
            totals=report.totals,
        ),
    )


def complete_part(report: ConversationReport) -> ConversationReport:
    """Return the part of a report that was complete when it was asked for, without the rest.

    Raises:
        ConfigurationError: The report has no intervals and does not know its window.
    """
    whole = tuple(interval for interval in intervals(report) if interval.complete)
    return ConversationReport(intervals=whole, query=report.query, at=report.at)


def _account(account_id: str, interval: Interval) -> Iterator[Row]:
    if interval.totals is not None:
        yield (account_id, interval.end, interval.start, *astuple(interval.totals))


def _skills(account_id: str, interval: Interval) -> Iterator[Row]:
    start, end = interval.start, interval.end
    for skill_id, skill in interval.skills.per_skill.items() if interval.skills else ():
        if skill.totals != NOT_SENT:
            yield (account_id, end, skill_id, start, *astuple(skill.totals))


def _agents(account_id: str, interval: Interval) -> Iterator[Row]:
    start, end = interval.start, interval.end
    for agent_id, metrics in interval.agents.per_agent.items() if interval.agents else ():
        yield (account_id, end, agent_id, start, *astuple(metrics))


def _skill_agents(account_id: str, interval: Interval) -> Iterator[Row]:
    start, end = interval.start, interval.end
    for skill_id, skill in interval.skills.per_skill.items() if interval.skills else ():
        for agent_id, metrics in skill.per_agent.items():
            yield (account_id, end, skill_id, agent_id, start, *astuple(metrics))


_KEY = ("account_id", "interval_end")

ACCOUNT_METRICS = Table("account_metrics", _KEY, _account)
SKILL_METRICS = Table("skill_metrics", (*_KEY, "skill_id"), _skills)
AGENT_METRICS = Table("agent_metrics", (*_KEY, "agent_id"), _agents)
SKILL_AGENT_METRICS = Table("skill_agent_metrics", (*_KEY, "skill_id", "agent_id"), _skill_agents)

By: TypeAlias = Literal["account", "skill", "agent"]
"""What sums are told apart by; skills and agents within their account."""

TABLES = (ACCOUNT_METRICS, SKILL_METRICS, AGENT_METRICS, SKILL_AGENT_METRICS)


def tables_of(query: ConversationQuery) -> tuple[Table, ...]:
    """Return the tables that have rows for the answers to a question.

    Raises:
        ConfigurationError: It is no question.
    """
    checks.instance("query", query, ConversationQuery, "a ConversationQuery")
    if query.skill_ids is None and query.agent_ids is None:
        return (ACCOUNT_METRICS,)
    skills = () if query.skill_ids is None else (SKILL_METRICS, SKILL_AGENT_METRICS)
    return skills if query.agent_ids is None else (*skills, AGENT_METRICS)
