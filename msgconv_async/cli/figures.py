"""The five figures that commands show: their names, their units, and how they are written.

Four of them count resolved conversations: all, and those that were resolved by an agent, by the
consumer and by the system. The fifth is the average handling time of all, in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgconv_async.protocol.report import ConversationMetrics, average_time

if TYPE_CHECKING:
    from msgconv_async.export.history import Day

MILLISECONDS = (
    "Handling times are read as milliseconds: the API names no unit, and LivePerson's own"
    " demo dashboard divides them by 1000 to get seconds."
)

COUNTS = (
    "total_resolved_conversations",
    "resolved_conversations_by_ccp",
    "resolved_conversations_by_consumer",
    "resolved_conversations_by_system",
)
"""The metrics that are counts."""

TOTAL_TIME = "total_handling_time_resolved_conversations"
"""The metric that is divided by the first of the counts for an average."""

SENT = (*COUNTS, "avg_time_resolved_conversations")
"""The metrics of the five figures, with the server's own average."""

HEADINGS = ("resolved", "by agent", "consumer", "system", "average")
"""The columns of a table, in the order of `Figures`."""

SHORT_HEADINGS = ("total", "agent", "consumer", "system", "average")
"""The same where there is little room."""

LONG_HEADINGS = ("resolved", "by agent", "by consumer", "by system", "average handling time")
"""The same where there is much room."""


class Figures(NamedTuple):
    """The five figures of a period; None stands for a figure that the server did not send.

    Attributes:
        total: All resolved conversations, as the server counted; it need not be the sum of the
            others.
        by_agent: Those that agents resolved.
        by_consumer: Those that consumers resolved.
        by_system: Those that the system resolved.
        average: The average handling time of all, in milliseconds.
    """

    total: int | None
    by_agent: int | None
    by_consumer: int | None
    by_system: int | None
    average: float | None

    @classmethod
    def of_metrics(cls, metrics: ConversationMetrics) -> Figures:
        """Return the figures of the server's metrics, with the average computed from the totals."""
        return cls(
            metrics.total_resolved_conversations,
            metrics.resolved_conversations_by_ccp,
            metrics.resolved_conversations_by_consumer,
            metrics.resolved_conversations_by_system,
            average(metrics),
        )

    @classmethod
    def of_day(cls, day: Day) -> Figures:
        """Return the figures of a collected day."""
        return cls(day.total, day.by_agent, day.by_consumer, day.by_system, day.average)

    def written(self) -> list[str]:
        """Write the figures for a reader."""
        *counts, time = self
        return [*map(written_count, counts), written_average(time, self.total)]


def average(metrics: ConversationMetrics) -> float | None:
    """Return the average handling time in milliseconds, from the count and the total time."""
    return average_time(
        metrics.total_resolved_conversations, metrics.total_handling_time_resolved_conversations
    )


def written_count(count: int | None) -> str:
    """Write a count for a reader: ``1,234``; one that was not sent is empty."""
    return "" if count is None else f"{count:,}"


def written_average(milliseconds: object, count: object) -> str:
    """Write an average handling time for a reader; without conversations, it is a dash."""
    return "-" if count == 0 else duration(milliseconds)


def duration(milliseconds: object) -> str:
    """Write a handling time for a reader: ``8.4s``, ``12m 05s``, ``1h 02m``."""
    if not isinstance(milliseconds, int | float):
        return ""
    seconds = milliseconds / 1000
    if abs(seconds) < 59.95:  # noqa: PLR2004 - what is written as less than a minute
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02}m"  # noqa: PLR2004
