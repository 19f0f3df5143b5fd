from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from msgconv_async import ConversationQuery, ConversationReport, decode_report
from msgconv_async.export import (
    ACCOUNT_METRICS,
    AGENT_METRICS,
    METRICS,
    SKILL_AGENT_METRICS,
    SKILL_METRICS,
    TABLES,
    TYPES,
    Row,
    Table,
)

AT = datetime(2026, 3, 4, 8, 7, tzinfo=UTC)
PAGE_EXAMPLE = Path(__file__).parent.parent / "protocol" / "page_example.json"
END, START = datetime(2026, 3, 4, 8, 10, tzinfo=UTC), datetime(2026, 3, 4, 7, 5, tzinfo=UTC)

WIRE = (
    "resolvedConversations_byCCP",
    "resolvedConversations_byConsumer",
    "resolvedConversations_bySystem",
    "totalResolvedConversations",
    "totalHandlingTime_resolvedConversations_byCCP",
    "totalHandlingTime_resolvedConversations_byConsumer",
    "totalHandlingTime_resolvedConversations_bySystem",
    "totalHandlingTime_resolvedConversations",
    "avgTime_resolvedConversations_byCCP",
    "avgTime_resolvedConversations_byConsumer",
    "avgTime_resolvedConversations_bySystem",
    "avgTime_resolvedConversations",
)


def metrics(first: int) -> dict[str, float]:
    return {name: first + number for number, name in enumerate(WIRE)}


def figures(first: int) -> tuple[float, ...]:
    return tuple(metrics(first).values())


def timestamp(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def report(document: dict[str, Any], **asked: Any) -> ConversationReport:
    query = ConversationQuery(**{"timeframe": 60, **asked})
    return decode_report(json.dumps(document).encode(), query, at=AT)


def rows(table: Table, of: ConversationReport) -> list[Row]:
    return list(table.rows("1", of))


def by_intervals(*sections: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Make a document of ten-minute intervals, oldest first, and the whole window's sections."""
    ends = [END - timedelta(minutes=10) * n for n in range(len(sections))]
    return {
        "metricsByIntervals": [
            {"timestamp": timestamp(end), "metricsData": section}
            for end, section in zip(ends, reversed(sections), strict=True)
        ],
        **whole,
    }


def test_each_table_has_its_key_first_then_the_interval_start_and_the_twelve_metrics() -> None:
    """The columns are those that the design fixes, and every one of them has a type."""
    names = {table.name: table.key for table in TABLES}
    assert names == {
        "account_metrics": ("account_id", "interval_end"),
        "skill_metrics": ("account_id", "interval_end", "skill_id"),
        "agent_metrics": ("account_id", "interval_end", "agent_id"),
        "skill_agent_metrics": ("account_id", "interval_end", "skill_id", "agent_id"),
    }
    assert len(METRICS) == 12
    for table in TABLES:
        assert table.columns == (*table.key, "interval_start", *METRICS)
        assert set(table.columns) <= set(TYPES)


def test_values_have_the_types_of_their_columns() -> None:
    """What a schema made of the types says is what the rows hold."""
    answer = report(json.loads(PAGE_EXAMPLE.read_bytes()), skill_ids="all", agent_ids=2)
    for table in TABLES:
        for row in table.rows("1", answer):
            assert [TYPES[name] for name in table.columns] == [type(value) for value in row]


def test_the_pages_example_becomes_a_row_for_each_thing_it_tells() -> None:
    """One skill, its two agents, and the one agent asked for; no account totals were sent."""
    answer = report(json.loads(PAGE_EXAMPLE.read_bytes()), skill_ids="all", agent_ids=2)
    agent_2 = (21, 41, 11, 103, 426, 1411, 215, 3248, 20.285715, 34.414635, 19.545454, 31.533981)
    skill_3 = (21, 41, 226, 103, 426, 1411, 215, 3248, 20.285715, 34.414635, 0.95132744, 31.533981)
    assert rows(ACCOUNT_METRICS, answer) == []
    assert rows(SKILL_METRICS, answer) == [("1", END, 3, START, *skill_3)]
    assert rows(AGENT_METRICS, answer) == [("1", END, 2, START, *agent_2)]
    assert rows(SKILL_AGENT_METRICS, answer) == [
        ("1", END, 3, 2, START, *agent_2),
        ("1", END, 3, 6, START, 0, 0, 215, *[0] * 9),
    ]


def test_a_report_without_intervals_is_one_interval_from_its_window_to_its_last_buckets_end() -> (
    None
):
    """Asked at 8:07 for 7 minutes, the data is of 8:00 to 8:10."""
    answer = report({"metricsTotals": metrics(1)}, timeframe=7)
    start = datetime(2026, 3, 4, 8, 0, tzinfo=UTC)
    assert rows(ACCOUNT_METRICS, answer) == [("1", END, start, *figures(1))]


def test_rows_are_per_interval_and_the_whole_window_is_not_counted_again() -> None:
    """Three intervals of one agent are three rows, oldest first."""
    document = by_intervals(
        *({"agentsMetrics": {"metricsPerAgent": {"7": metrics(n)}}} for n in (1, 2, 3)),
        whole={"agentsMetrics": {"metricsPerAgent": {"7": metrics(6)}}},
    )
    answer = report(document, timeframe=20, interval=10, agent_ids=7)
    edges = [
        datetime(2026, 3, 4, 7, 45, tzinfo=UTC),
        *(END - timedelta(minutes=m) for m in (20, 10, 0)),
    ]
    assert rows(AGENT_METRICS, answer) == [
        ("1", end, 7, start, *figures(n)) for n, (start, end) in enumerate(pairwise(edges), 1)
    ]


def test_account_totals_are_kept_even_where_they_are_all_zero() -> None:
    """An interval in which nothing happened, but of which the server says so, is a row of zeros."""
    zeros = dict.fromkeys(WIRE, 0)
    document = by_intervals(
        {"metricsTotals": zeros}, {"metricsTotals": metrics(1)}, whole={"metricsTotals": metrics(1)}
    )
    answer = report(document, timeframe=10, interval=10)
    assert [row[3:] for row in rows(ACCOUNT_METRICS, answer)] == [(0,) * 12, figures(1)]


def test_the_totals_of_a_section_are_not_passed_off_as_the_accounts() -> None:
    """What the skills or agents asked for add up to need not be the account."""
    section = {"metricsPerSkill": {}, "metricsTotals": metrics(1)}
    agents = {"metricsPerAgent": {}, "metricsTotals": metrics(1)}
    document = {"skillsMetricsPerAgent": section, "agentsMetrics": agents}
    answer = report(document, skill_ids="all", agent_ids="all")
    assert [rows(table, answer) for table in TABLES] == [[], [], [], []]


def test_a_skill_whose_totals_were_not_sent_has_no_row_of_its_own() -> None:
    """Its agents have theirs; -1 is a skill like any other."""
    section = {"metricsPerSkill": {"-1": {"metricsPerAgent": {"7": metrics(1)}}}}
    answer = report({"skillsMetricsPerAgent": section}, skill_ids="all")
    assert rows(SKILL_METRICS, answer) == []
    assert rows(SKILL_AGENT_METRICS, answer) == [("1", END, -1, 7, START, *figures(1))]


def test_a_metric_that_was_not_sent_is_none() -> None:
    """It is not zero."""
    answer = report({"metricsTotals": {WIRE[3]: 5}})
    assert rows(ACCOUNT_METRICS, answer) == [
        ("1", END, START, *(5 if name == METRICS[3] else None for name in METRICS))
    ]


def test_a_report_that_does_not_know_its_time_is_refused() -> None:
    """A row needs its interval, and nobody may guess it."""
    answer = decode_report(json.dumps({"metricsTotals": metrics(1)}).encode())
    with pytest.raises(ValueError, match="neither intervals nor a window"):
        rows(ACCOUNT_METRICS, answer)
