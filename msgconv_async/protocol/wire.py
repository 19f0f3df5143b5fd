"""The types of an answer on the wire: exactly the names that the service sends, and no others.

A document of these types is decoded as fast as the format allows. A member that they do not know is
refused, and so noticed.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import astuple, fields

from msgconv_async.protocol.query import MAX_TIMEFRAME, MIN_INTERVAL
from msgconv_async.protocol.report import AgentBreakdown, ConversationMetrics, SkillBreakdown

MOST_INTERVALS = 2 * (MAX_TIMEFRAME // MIN_INTERVAL + 1)
"""Twice as many as the longest time frame has, since each may come twice."""

OTHER_NAMES = {
    "skillsMetrics": "skillsMetricsPerAgent",
    "metricsTotal": "metricsTotals",
    **{
        f"totalHandlingTime_resolvedConversationsThetotalby{side}": (
            f"totalHandlingTime_resolvedConversations_by{side}"
        )
        for side in ("CCP", "Consumer", "System")
    },
}
"""The API page's second spelling of a name, and the one that real servers send."""


class Sections(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={
        "skills": "skillsMetricsPerAgent",
        "agents": "agentsMetrics",
        "totals": "metricsTotals",
    },
):
    """The sections of an answer, or of one of its intervals."""

    skills: SkillBreakdown | None = None
    agents: AgentBreakdown | None = None
    totals: ConversationMetrics | None = None


class WireInterval(Sections, frozen=True, kw_only=True, rename={"data": "metricsData"}):
    """Usually ``metricsData`` holds the sections; a sibling page shows them beside it."""

    timestamp: int
    data: Sections | None = None


def array(element: Any, absent: Any) -> Any:
    """Return the type of an array of intervals that is refused at its first element too many."""
    places = [(f"_{place}", element, absent) for place in range(MOST_INTERVALS)]
    return msgspec.defstruct("Intervals", places, array_like=True, forbid_unknown_fields=True)


Document = msgspec.defstruct(
    "Document",
    [("intervals", array(WireInterval | msgspec.UnsetType, UNSET) | None, None)],
    bases=(Sections,),
    frozen=True,
    rename={"intervals": "metricsByIntervals"},
)
DOCUMENT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Document)


def elements(array: Any, absent: Any) -> tuple[Any, ...]:
    """Return what came in an array of intervals."""
    places = () if array is None else astuple(array)
    return places[: places.index(absent)] if absent in places else places


@functools.cache
def names(kind: Any) -> dict[str, str]:
    """Return the names that a struct's members have on the wire, by their attribute."""
    return {member.name: member.encode_name for member in fields(kind)}
