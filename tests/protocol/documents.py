"""Response bodies as plain objects: the API's names, strategies, and reports turned back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from msgconv_async.protocol.report import (
    AgentBreakdown,
    ConversationMetrics,
    ConversationReport,
    Interval,
    SkillBreakdown,
)

Json = dict[str, Any]

PAGE_EXAMPLE = (Path(__file__).parent / "page_example.json").read_bytes()
"""The response of the API page, character by character."""

COUNTS = {
    "resolvedConversations_byCCP": "resolved_conversations_by_ccp",
    "resolvedConversations_byConsumer": "resolved_conversations_by_consumer",
    "resolvedConversations_bySystem": "resolved_conversations_by_system",
    "totalResolvedConversations": "total_resolved_conversations",
    "totalHandlingTime_resolvedConversations_byCCP": (
        "total_handling_time_resolved_conversations_by_ccp"
    ),
    "totalHandlingTime_resolvedConversations_byConsumer": (
        "total_handling_time_resolved_conversations_by_consumer"
    ),
    "totalHandlingTime_resolvedConversations_bySystem": (
        "total_handling_time_resolved_conversations_by_system"
    ),
    "totalHandlingTime_resolvedConversations": "total_handling_time_resolved_conversations",
}
AVERAGES = {
    "avgTime_resolvedConversations_byCCP": "avg_time_resolved_conversations_by_ccp",
    "avgTime_resolvedConversations_byConsumer": "avg_time_resolved_conversations_by_consumer",
    "avgTime_resolvedConversations_bySystem": "avg_time_resolved_conversations_by_system",
    "avgTime_resolvedConversations": "avg_time_resolved_conversations",
}
METRICS = COUNTS | AVERAGES
"""The twelve metrics: the name on the wire and the attribute."""

OTHER_SPELLINGS = {
    "skillsMetricsPerAgent": "skillsMetrics",
    "metricsTotals": "metricsTotal",
    "totalHandlingTime_resolvedConversations_byCCP": (
        "totalHandlingTime_resolvedConversationsThetotalbyCCP"
    ),
    "totalHandlingTime_resolvedConversations_byConsumer": (
        "totalHandlingTime_resolvedConversationsThetotalbyConsumer"
    ),
    "totalHandlingTime_resolvedConversations_bySystem": (
        "totalHandlingTime_resolvedConversationsThetotalbySystem"
    ),
}
"""Names that the page spells two ways: as servers send them, and the other way."""


def encode(document: Any) -> bytes:
    return json.dumps(document).encode()


def respelled(value: Any, spellings: dict[str, str]) -> Any:
    """Return a document with its members renamed, at every level."""
    if isinstance(value, dict):
        return {
            spellings.get(name, name): respelled(each, spellings) for name, each in value.items()
        }
    if isinstance(value, list):
        return [respelled(each, spellings) for each in value]
    return value


# -- A report back as the document it came from ---------------------------------------------------


def plain(report: ConversationReport) -> Json:
    """Return what a report says under the API's names, intervals newest first."""
    document = _sections(report)
    if report.intervals:
        document["metricsByIntervals"] = [
            {"timestamp": round(each.end.timestamp() * 1000), "metricsData": _sections(each)}
            for each in reversed(report.intervals)
        ]
    return document


def _sections(holder: ConversationReport | Interval) -> Json:
    sections: Json = {}
    if holder.skills is not None:
        sections["skillsMetricsPerAgent"] = _skills(holder.skills)
    if holder.agents is not None:
        sections["agentsMetrics"] = _agents(holder.agents)
    if holder.totals is not None:
        sections["metricsTotals"] = _metrics(holder.totals)
    return sections


def _skills(skills: SkillBreakdown) -> Json:
    return {
        "metricsPerSkill": {str(key): _agents(each) for key, each in skills.per_skill.items()},
        "metricsTotals": _metrics(skills.totals),
    }


def _agents(agents: AgentBreakdown) -> Json:
    return {
        "metricsPerAgent": {str(key): _metrics(each) for key, each in agents.per_agent.items()},
        "metricsTotals": _metrics(agents.totals),
    }


def _metrics(metrics: ConversationMetrics) -> Json:
    held = {name: getattr(metrics, attribute) for name, attribute in METRICS.items()}
    return {name: value for name, value in held.items() if value is not None}


# -- Strategies -----------------------------------------------------------------------------------

_ids = st.integers(-(2**63), 2**63 - 1).map(str)
_counts = st.integers() | st.integers(2**53, 2**70)
_averages = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)

metrics = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(COUNTS, _counts) | dict.fromkeys(AVERAGES, _averages)
)
agents = st.fixed_dictionaries(
    {
        "metricsPerAgent": st.dictionaries(_ids, metrics, max_size=2),
        "metricsTotals": metrics,
    }
)
skills = st.fixed_dictionaries(
    {
        "metricsPerSkill": st.dictionaries(_ids, agents, max_size=2),
        "metricsTotals": metrics,
    }
)
sections = st.fixed_dictionaries(
    {},
    optional={"skillsMetricsPerAgent": skills, "agentsMetrics": agents, "metricsTotals": metrics},
)


def _end(interval: Json) -> int:
    return int(interval["timestamp"])


_ends = st.integers(0, 10**7).map(lambda bucket: bucket * 300_000)
_intervals = st.lists(
    st.fixed_dictionaries({"timestamp": _ends, "metricsData": sections}),
    min_size=1,
    max_size=3,
    unique_by=_end,
).map(lambda intervals: sorted(intervals, key=_end, reverse=True))

documents = st.builds(
    lambda whole, intervals: whole | intervals,
    sections,
    st.fixed_dictionaries({}, optional={"metricsByIntervals": _intervals}),
)
"""Response bodies in the service's own spelling, as plain objects."""

_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "4", "all", "Ω"])
)
_names = st.sampled_from(
    [
        *METRICS,
        *OTHER_SPELLINGS,
        *OTHER_SPELLINGS.values(),
        "metricsByIntervals",
        "metricsData",
        "timestamp",
        "metricsPerSkill",
        "metricsPerAgent",
        "agentsMetrics",
        "4",
        "-1",
        "unknown",
    ]
)
nearly_documents = st.dictionaries(
    _names,
    st.recursive(
        _scalars,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_names, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)
"""JSON objects that use the API's names in ways that it does not."""
