"""The response as typed, immutable values."""

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import msgspec

from msgconv_async.errors import UnexpectedResponse
from msgconv_async.protocol.buckets import Span, Window, window
from msgconv_async.protocol.query import ConversationQuery

Id: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""The id of a skill or an agent: the API's "long". Longer ones could be made to collide in a dict,
which then takes a time that grows with the square of their number."""


class ConversationMetrics(
    msgspec.Struct,
    frozen=True,
    gc=False,
    forbid_unknown_fields=True,
    rename={
        "resolved_conversations_by_ccp": "resolvedConversations_byCCP",
        "resolved_conversations_by_consumer": "resolvedConversations_byConsumer",
        "resolved_conversations_by_system": "resolvedConversations_bySystem",
        "total_resolved_conversations": "totalResolvedConversations",
        "total_handling_time_resolved_conversations_by_ccp": (
            "totalHandlingTime_resolvedConversations_byCCP"
        ),
        "total_handling_time_resolved_conversations_by_consumer": (
            "totalHandlingTime_resolvedConversations_byConsumer"
        ),
        "total_handling_time_resolved_conversations_by_system": (
            "totalHandlingTime_resolvedConversations_bySystem"
        ),
        "total_handling_time_resolved_conversations": "totalHandlingTime_resolvedConversations",
        "avg_time_resolved_conversations_by_ccp": "avgTime_resolvedConversations_byCCP",
        "avg_time_resolved_conversations_by_consumer": "avgTime_resolvedConversations_byConsumer",
        "avg_time_resolved_conversations_by_system": "avgTime_resolvedConversations_bySystem",
        "avg_time_resolved_conversations": "avgTime_resolvedConversations",
    },
):
    """The API's twelve metrics, as the server sent them; None where it sent none.

    Counts are conversations. Handling times are read as milliseconds: the API page names no unit,
    and LivePerson's own demo dashboard divides them by 1000 to get seconds. "CCP" is the agent's
    side (the contact-centre person). Totals may not add up, and numbers may be negative: the
    server's figures are never corrected.
    """

    resolved_conversations_by_ccp: int | None = None
    resolved_conversations_by_consumer: int | None = None
    resolved_conversations_by_system: int | None = None
    total_resolved_conversations: int | None = None
    total_handling_time_resolved_conversations_by_ccp: int | None = None
    total_handling_time_resolved_conversations_by_consumer: int | None = None
    total_handling_time_resolved_conversations_by_system: int | None = None
    total_handling_time_resolved_conversations: int | None = None
    avg_time_resolved_conversations_by_ccp: float | None = None
    avg_time_resolved_conversations_by_consumer: float | None = None
    avg_time_resolved_conversations_by_system: float | None = None
    avg_time_resolved_conversations: float | None = None


def average_time(count: int | None, total_time: int | None) -> float | None:
    """Return the average handling time of conversations: their total time over their count.

    Averages of several periods or accounts cannot be averaged again. Add up counts and total times
    instead, and work out the average of the sums.

    Args:
        count: How many conversations there were; None where it is not known.
        total_time: Their total handling time; None where it is not known.

    Returns:
        The average, in the unit of the total; None if the count is 0, or one of the two is None.
    """
    return total_time / count if count and total_time is not None else None


class AgentBreakdown(
    msgspec.Struct,
    frozen=True,
    gc=False,
    forbid_unknown_fields=True,
    rename={"per_agent": "metricsPerAgent", "totals": "metricsTotals"},
):
    """Metrics by agent.

    Attributes:
        per_agent: Metrics by agent id; an agent without data is not in it.
        totals: The server's totals over the agents (or, under a skill, over the skill).
    """

    per_agent: dict[Id, ConversationMetrics] = {}
    totals: ConversationMetrics = ConversationMetrics()


class SkillBreakdown(
    msgspec.Struct,
    frozen=True,
    gc=False,
    forbid_unknown_fields=True,
    rename={"per_skill": "metricsPerSkill", "totals": "metricsTotals"},
):
    """Metrics by skill, and within each skill by agent.

    Attributes:
        per_skill: The skill's agents and totals by skill id (-1 is "unassigned"); a skill without
            data is not in it.
        totals: The server's totals over the skills asked for.
    """

    per_skill: dict[Id, AgentBreakdown] = {}
    totals: ConversationMetrics = ConversationMetrics()


class Interval(msgspec.Struct, frozen=True):
    """One interval of a report: a stretch of time and the sections asked for.

    Attributes:
        start: The first instant covered, aware UTC.
        end: The first instant no longer covered, aware UTC (the server's ``timestamp``).
        complete: False for the newest interval while the server was still filling it. Known only
            where the query is known; without it, the newest interval is taken as incomplete.
        skills: By skill; None if skills were not asked for.
        agents: By agent; None if agents were not asked for.
        totals: For the account; None if skills or agents were asked for.
    """

    start: datetime
    end: datetime
    complete: bool
    skills: SkillBreakdown | None = None
    agents: AgentBreakdown | None = None
    totals: ConversationMetrics | None = None


class Unreadable(msgspec.Struct, frozen=True):
    """An interval of an answer that cannot be taken.

    A section that was asked for is absent, a value is not what the API describes, the interval came
    twice with different figures, or it was left out between others.

    Attributes:
        start: As `Interval` has it.
        end: As `Interval` has it.
        complete: As `Interval` has it.
        error: What is wrong, and where in the document.
    """

    start: datetime
    end: datetime
    complete: bool
    error: UnexpectedResponse


class ConversationReport(msgspec.Struct, frozen=True):
    """An answer to one question.

    Attributes:
        intervals: Oldest first; empty if no interval size was asked for.
        skills: By skill over the whole window; None if skills were not asked for.
        agents: By agent over the whole window; None if agents were not asked for.
        totals: For the account over the whole window; None if skills or agents were asked for.
        query: The question; None if the report was decoded without it.
        at: The instant of asking by the server's clock, aware; None if it was not given.
    """

    intervals: tuple[Interval, ...] = ()
    skills: SkillBreakdown | None = None
    agents: AgentBreakdown | None = None
    totals: ConversationMetrics | None = None
    query: ConversationQuery | None = None
    at: datetime | None = None

    @property
    def window(self) -> Window | None:
        """The time really covered: wider than asked for, since answers are of whole buckets.

        It follows from the intervals, by the server's own clock. Without intervals, it follows from
        the query and the instant of asking, and is None if one of them is not known.
        """
        if self.intervals:
            spans = tuple(
                Span(interval.start, interval.end, interval.complete) for interval in self.intervals
            )
            end = min(self.at or spans[-1].end, spans[-1].end)
            return Window(spans[0].start, end.astimezone(UTC), spans)
        return window(self.at, self.query.timeframe) if self.at and self.query else None
