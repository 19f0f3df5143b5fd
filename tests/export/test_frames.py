"""DataFrames of reports and of outcomes: their types, their rows, and what is told."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pytest
from msgspec.structs import replace

from msgconv_async import (
    Account,
    BearerToken,
    ConfigurationError,
    ConversationMetrics,
    ConversationQuery,
    ConversationReport,
    Interval,
    Outcome,
    ServerError,
    SkillBreakdown,
    decode_report,
)
from msgconv_async.export import (
    AGENT_METRICS,
    METRICS,
    SKILL_AGENT_METRICS,
    SKILL_METRICS,
    TABLES,
    Table,
    intervals,
)
from msgconv_async.export.frames import to_pandas, to_polars
from tests.protocol.documents import PAGE_EXAMPLE

AT = datetime(2026, 3, 4, 8, 7, tzinfo=UTC)
QUERY = ConversationQuery(60, skill_ids="all", agent_ids="all")
REPORT = decode_report(PAGE_EXAMPLE, QUERY, at=AT)
TOTALS = ConversationQuery(60)
MAKES = (to_pandas, to_polars)


def answered(account_id: str, report: ConversationReport = REPORT) -> Outcome:
    return Outcome(Account(account_id, BearerToken("t")), report.query or QUERY, report)


def failed(account_id: str) -> Outcome:
    error = ServerError("it is down", status=503, account_id=account_id)
    return Outcome(Account(account_id, BearerToken("t")), QUERY, None, error)


def records(frame: Any) -> list[tuple[Any, ...]]:
    """Return the rows, with None for whatever stands for nothing."""
    if isinstance(frame, pl.DataFrame):
        return frame.rows()
    return [
        tuple(None if value is pd.NA else value for value in row)
        for row in frame.itertuples(index=False, name=None)
    ]


def test_pandas_has_a_type_for_each_column() -> None:
    """Instants are aware, and no count becomes a float where one is missing."""
    frame = to_pandas([answered("71")], SKILL_AGENT_METRICS)
    assert {
        "account_id": "string",
        "interval_end": "datetime64[ms, UTC]",
        "skill_id": "Int64",
        "agent_id": "Int64",
        "interval_start": "datetime64[ms, UTC]",
        **dict.fromkeys(METRICS[:8], "Int64"),
        **dict.fromkeys(METRICS[8:], "Float64"),
        "complete": "bool",
    } == {name: str(kind) for name, kind in frame.dtypes.items()}


def test_polars_has_a_type_for_each_column() -> None:
    frame = to_polars([answered("71")], SKILL_AGENT_METRICS)
    instant = pl.Datetime("ms", "UTC")
    assert {
        "account_id": pl.String,
        "interval_end": instant,
        "skill_id": pl.Int64,
        "agent_id": pl.Int64,
        "interval_start": instant,
        **dict.fromkeys(METRICS[:8], pl.Int64),
        **dict.fromkeys(METRICS[8:], pl.Float64),
        "complete": pl.Boolean,
    } == dict(frame.schema)


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_rows_are_those_of_the_tables(make: Callable[..., Any], table: Table) -> None:
    """Of one account after the other, and of a lone report without an account."""
    frame = make([answered("71"), answered("72")], table)
    expected = [
        (*row, interval.complete)
        for account_id in ("71", "72")
        for interval in intervals(REPORT)
        for row in table.flatten(account_id, interval)
    ]
    assert [*table.columns, "complete"] == list(frame.columns)
    assert expected == records(frame)
    alone = make(REPORT, table)
    assert [*table.columns[1:], "complete"] == list(alone.columns)
    assert [row[1:] for row in expected[: len(expected) // 2]] == records(alone)


@pytest.mark.parametrize("make", MAKES)
def test_what_is_missing_and_what_is_open_is_told(make: Callable[..., Any]) -> None:
    """A count that was not sent is nothing, not a number."""
    start = AT.replace(minute=0)
    parts = tuple(
        Interval(
            start + number * timedelta(minutes=5),
            start + (number + 1) * timedelta(minutes=5),
            complete=not number,
            totals=ConversationMetrics(total_resolved_conversations=number or None),
        )
        for number in range(2)
    )
    frame = make(ConversationReport(parts, query=TOTALS))
    column = list(frame.columns).index("total_resolved_conversations")
    assert [(None, True), (1, False)] == [(row[column], row[-1]) for row in records(frame)]


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize(
    ("query", "first"),
    [
        (TOTALS, TABLES[0]),
        (QUERY, SKILL_METRICS),
        (ConversationQuery(60, agent_ids="all"), AGENT_METRICS),
    ],
)
def test_without_a_table_it_is_the_questions_first(
    make: Callable[..., Any], query: ConversationQuery, first: Table
) -> None:
    report = replace(REPORT, query=query)
    assert [*first.columns, "complete"] == list(make([answered("71", report)]).columns)
    assert [*first.columns[1:], "complete"] == list(make(report).columns)


@pytest.mark.parametrize("make", MAKES)
def test_questions_for_different_tables_need_one_named(make: Callable[..., Any]) -> None:
    both = [answered("71"), answered("72", ConversationReport(query=TOTALS, at=AT))]
    with pytest.raises(ConfigurationError, match="different tables, so say which of ACCOUNT_METR"):
        make(both)
    with pytest.raises(ConfigurationError, match="no question is known, so say which"):
        make([])
    assert 1 == len(make(both, SKILL_METRICS))
    assert 0 == len(make([], SKILL_METRICS))


@pytest.mark.parametrize("make", MAKES)
def test_accounts_that_failed_have_no_rows_and_one_warning(make: Callable[..., Any]) -> None:
    """It points to the caller's line, and a frame of nothing but failures has its columns."""
    with pytest.warns(
        UserWarning, match=r"^2 of 3 accounts failed .* account 72: it is down \(HTTP"
    ) as w:
        frame = make([answered("71"), failed("72"), failed("73")])
    assert [__file__] == [each.filename for each in w]
    assert {"71"} == {row[0] for row in records(frame)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [*SKILL_METRICS.columns, "complete"] == list(make([failed("72")]).columns)


def test_a_report_without_data_is_a_frame_without_rows() -> None:
    empty = ConversationReport(skills=SkillBreakdown(), query=QUERY, at=AT)
    assert 0 == len(to_pandas(empty))
    assert "interval_end" in to_pandas(empty)


@pytest.mark.parametrize(
    ("make", "missing", "extra"),
    [
        (to_pandas, "pandas", "pandas"),
        (to_pandas, "pyarrow", "pandas"),
        (to_polars, "polars", "polars"),
        (to_polars, "pyarrow", "polars"),
    ],
)
def test_a_missing_extra_is_named(
    make: Callable[..., Any], missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    wanted = rf"^to_{extra} needs {missing}: pip install 'msgconv-async\[{extra}\]'$"
    with pytest.raises(ModuleNotFoundError, match=wanted) as caught:
        make(REPORT)
    assert missing == caught.value.name
