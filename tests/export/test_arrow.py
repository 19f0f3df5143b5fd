from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from msgconv_async import (
    AgentBreakdown,
    ConversationMetrics,
    ConversationQuery,
    ConversationReport,
    Interval,
    SkillBreakdown,
    UnexpectedResponse,
    decode_report,
)
from msgconv_async.export import METRICS, TABLES, Row, intervals
from msgconv_async.export.arrow import SCHEMAS, report_tables, to_tables
from tests.protocol.documents import PAGE_EXAMPLE, documents, encode

AT = datetime(2026, 3, 4, 8, 7, tzinfo=UTC)
QUERY = ConversationQuery(60)
LARGEST, SMALLEST = 2**63 - 1, -(2**63)


def rows(table: pa.Table) -> list[Row]:
    return [tuple(row.values()) for row in table.to_pylist()]


def bucket(number: int = 0, **sections: Any) -> Interval:
    start = AT.replace(minute=0) + number * timedelta(minutes=5)
    return Interval(start, start + timedelta(minutes=5), complete=True, **sections)


def figures(of: Interval) -> Iterator[int]:
    """Yield every whole number that a table would hold."""
    for table in TABLES:
        for row in table.flatten("1", of):
            yield from (value for value in row if isinstance(value, int))


def test_a_schema_has_its_tables_columns_and_only_metrics_may_be_null() -> None:
    """Ids and counts are 64 bits wide, times are UTC to the millisecond."""
    types = {
        "account_id": pa.string(),
        "interval_end": pa.timestamp("ms", tz="UTC"),
        "skill_id": pa.int64(),
        "agent_id": pa.int64(),
        "interval_start": pa.timestamp("ms", tz="UTC"),
        **dict.fromkeys(METRICS[:8], pa.int64()),
        **dict.fromkeys(METRICS[8:], pa.float64()),
    }
    assert [table.name for table in TABLES] == list(SCHEMAS)
    for table in TABLES:
        assert SCHEMAS[table.name] == pa.schema(
            [pa.field(name, types[name], nullable=name in METRICS) for name in table.columns]
        )


def test_the_pages_example_has_the_rows_of_rows() -> None:
    """Among them floats and zeros, and no row of account totals that were not sent."""
    report = decode_report(PAGE_EXAMPLE, replace(QUERY, skill_ids="all", agent_ids=2), at=AT)
    tables = report_tables("71", report)
    assert {"account_metrics": 0, "skill_metrics": 1, "agent_metrics": 1} | {
        "skill_agent_metrics": 2
    } == {name: table.num_rows for name, table in tables.items()}
    for table in TABLES:
        assert list(table.rows("71", report)) == rows(tables[table.name])


@given(document=documents)
def test_whatever_is_sent_has_the_rows_of_rows_or_does_not_fit(document: dict[str, Any]) -> None:
    """In their order, with nothing made up, and nothing cut to 64 bits in silence."""
    report = structs.replace(decode_report(encode(document), at=AT), query=QUERY)
    if all(SMALLEST <= value <= LARGEST for each in intervals(report) for value in figures(each)):
        tables = report_tables("71", report)
        for table in TABLES:
            assert SCHEMAS[table.name] == tables[table.name].schema
            assert list(table.rows("71", report)) == rows(tables[table.name])
    else:
        with pytest.raises(UnexpectedResponse, match=r"^account 71: .* does not fit into 64 bits$"):
            report_tables("71", report)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["71", "72"]),
            st.dictionaries(st.integers(1, 9), st.integers(0, 9), max_size=3),
        ),
        max_size=5,
    )
)
def test_intervals_of_many_accounts_stand_in_the_order_given(
    given_: list[tuple[str, dict[int, int]]],
) -> None:
    """Each row under the account of its interval, an interval without rows among others."""
    buckets = []
    for number, (account_id, counts) in enumerate(given_):
        per_agent = {
            agent: ConversationMetrics(total_resolved_conversations=count)
            for agent, count in counts.items()
        }
        buckets.append((account_id, bucket(number, agents=AgentBreakdown(per_agent))))
    [_, _, by_agent, _] = TABLES
    expected = [row for account_id, each in buckets for row in by_agent.flatten(account_id, each)]
    assert expected == rows(to_tables(iter(buckets))["agent_metrics"])


def test_nothing_is_four_empty_tables() -> None:
    """Each still has its schema."""
    tables = to_tables([])
    assert dict(SCHEMAS) == {name: table.schema for name, table in tables.items()}
    assert {0} == {table.num_rows for table in tables.values()}


def crowded(number: int, agents: int, **last: Any) -> Interval:
    """Make a bucket of one skill and very many agents."""
    per_agent = {
        agent: ConversationMetrics(total_resolved_conversations=agent) for agent in range(agents)
    }
    per_agent[agents] = ConversationMetrics(**last)
    return bucket(number, skills=SkillBreakdown({3: AgentBreakdown(per_agent)}))


def test_very_many_rows_keep_their_order() -> None:
    """More than are taken apart at once."""
    buckets = [("71", crowded(0, 3000)), ("72", crowded(1, 3000)), ("71", crowded(2, 3000))]
    [*_, by_both] = TABLES
    expected = [row for account_id, each in buckets for row in by_both.flatten(account_id, each)]
    assert expected == rows(to_tables(buckets)["skill_agent_metrics"])


@pytest.mark.parametrize("value", [LARGEST + 1, SMALLEST - 1, 2**64, 2**70])
def test_a_number_that_does_not_fit_is_named_with_its_account(value: int) -> None:
    """Also where very many rows came before it."""
    buckets = [
        ("71", crowded(0, 5000)),
        ("72", crowded(1, 9, total_resolved_conversations=value)),
        ("73", crowded(2, 9)),
    ]
    with pytest.raises(UnexpectedResponse) as caught:
        to_tables(buckets)
    assert (
        "account 72: skill_agent_metrics cannot hold"
        f" total_resolved_conversations={value}: it does not fit into 64 bits"
    ) == str(caught.value)


def test_an_id_that_does_not_fit_is_named() -> None:
    """Ids are no better than counts."""
    section = AgentBreakdown({2**63: ConversationMetrics(total_resolved_conversations=1)})
    with pytest.raises(UnexpectedResponse, match=rf"account 71: .* agent_id={2**63}: "):
        to_tables([("71", bucket(agents=section))])


@pytest.mark.parametrize("value", [LARGEST, SMALLEST])
def test_the_outermost_numbers_that_fit_are_kept(value: int) -> None:
    """To the last digit."""
    totals = ConversationMetrics(total_handling_time_resolved_conversations=value)
    [row] = to_tables([("71", bucket(totals=totals))])["account_metrics"].to_pylist()
    assert value == row["total_handling_time_resolved_conversations"]


def test_a_report_that_does_not_know_its_time_is_refused() -> None:
    """As it is for rows."""
    with pytest.raises(ValueError, match="neither intervals nor a window"):
        report_tables("71", ConversationReport(totals=ConversationMetrics()))
