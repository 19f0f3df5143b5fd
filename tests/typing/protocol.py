"""Uses that a strict type checker must accept, and the types it must see. Checked, never run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Literal, assert_type

from msgconv_async.errors import (
    ApiError,
    DeadlineExceeded,
    InvalidQuery,
    MsgConvError,
    RateLimited,
    UnexpectedResponse,
)
from msgconv_async.protocol.buckets import Span, Window, window
from msgconv_async.protocol.decoding import decode_report
from msgconv_async.protocol.query import ConversationQuery, HttpRequest
from msgconv_async.protocol.report import (
    AgentBreakdown,
    ConversationMetrics,
    ConversationReport,
    Interval,
    SkillBreakdown,
)


def ids() -> Iterator[int]:
    yield 4


def ask() -> None:
    ConversationQuery(60)
    ConversationQuery(timeframe=60, interval=5, skill_ids="all", agent_ids=2, group_ids=None)
    ConversationQuery(60, skill_ids=[4, 15, 3], agent_ids=("4", 15), group_ids={1, 2})
    ConversationQuery(60, skill_ids=ids(), agent_ids=range(3), group_ids=frozenset({"1"}))
    ConversationQuery(60, agent_ids={2: "Jo"}.keys(), version=1)

    ConversationQuery()  # type: ignore[call-arg]
    ConversationQuery("60")  # type: ignore[arg-type]
    ConversationQuery(60, 5)  # type: ignore[call-arg]
    ConversationQuery(60, skill_ids=4.0)  # type: ignore[arg-type]
    ConversationQuery(60, skill_ids=[None])  # type: ignore[list-item]


def send(query: ConversationQuery) -> None:
    assert_type(query.timeframe, int)
    assert_type(query.interval, int | None)
    assert_type(query.skill_ids, int | str | Iterable[int | str] | None)
    assert_type(query.parameters(), dict[str, str])
    request = query.http_request("https://va.data.example.net", "12345678")
    assert_type(request, HttpRequest)
    assert_type(request.method, Literal["GET", "POST"])
    assert_type(request.url, str)
    assert_type(request.body, bytes | None)
    assert {query: 1}


def read(body: bytes, query: ConversationQuery, at: datetime) -> None:
    decode_report(body)
    decode_report(body, query)
    report = decode_report(body, query, at=at)
    assert_type(report, ConversationReport)
    assert_type(report.intervals, tuple[Interval, ...])
    assert_type(report.skills, SkillBreakdown | None)
    assert_type(report.agents, AgentBreakdown | None)
    assert_type(report.totals, ConversationMetrics | None)
    assert_type(report.window, Window | None)

    for interval in report.intervals:
        assert_type(interval.start, datetime)
        assert_type(interval.end, datetime)
        assert_type(interval.complete, bool)
        assert_type(interval.skills, SkillBreakdown | None)
        assert_type(interval.agents, AgentBreakdown | None)
        assert_type(interval.totals, ConversationMetrics | None)

    if report.skills is not None:
        assert_type(report.skills.totals, ConversationMetrics)
        for skill_id, skill in report.skills.per_skill.items():
            assert_type(skill_id, int)
            assert_type(skill, AgentBreakdown)
            for agent_id, metrics in skill.per_agent.items():
                assert_type(agent_id, int)
                assert_type(metrics, ConversationMetrics)
                assert_type(metrics.total_resolved_conversations, int | None)
                assert_type(metrics.total_handling_time_resolved_conversations, int | None)
                assert_type(metrics.avg_time_resolved_conversations, float | None)

    report.totals = None  # type: ignore[misc]


def cover(at: datetime) -> None:
    covered = window(at, 60, 5)
    assert_type(covered, Window)
    assert_type(covered.start, datetime)
    assert_type(covered.intervals, tuple[Span, ...])
    assert_type(covered.intervals[0].complete, bool)


def fail(body: bytes) -> str:
    try:
        decode_report(body, ConversationQuery(60))
    except InvalidQuery as error:
        assert_type(error.parameter, str)
        assert_type(error.value, object)
    except UnexpectedResponse as error:
        assert_type(error.where, str)
        assert_type(error.account_id, str)
    except RateLimited as error:
        assert_type(error.retry_after, float | None)
    except ApiError as error:
        assert_type(error.status, int)
        assert_type(error.account_id, str)
        assert_type(error.excerpt, str)
    except DeadlineExceeded as error:
        assert_type(error.timeout, float)
    except MsgConvError as error:
        return str(error)
    return ""


def widen(invalid: InvalidQuery, late: DeadlineExceeded) -> tuple[ValueError, TimeoutError]:
    return invalid, late
