"""What comes back: the response as typed, immutable values.

`decode_report` has two ways to the same types. The short one decodes straight into structs that
know exactly the names the service sends; it is as fast as the format allows. Whatever departs from
those names (a member spelled the API page's other way, an unknown member, a null section) takes
the long one: decode to plain objects, keep the known members under their usual names, convert.
"""

import functools
from datetime import UTC, datetime, timedelta
from types import UnionType
from typing import Any, get_args, get_origin

import msgspec

from msgconv_async.errors import UnexpectedResponse
from msgconv_async.protocol.buckets import BUCKET, Span, Window, window
from msgconv_async.protocol.query import ConversationQuery

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    side (the contact-centre person). Totals may not add up, and negative numbers are numbers: the
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

    per_agent: dict[int, ConversationMetrics] = {}
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

    per_skill: dict[int, AgentBreakdown] = {}
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

        The intervals tell it by the server's own clock. Without intervals it is worked out from
        the query and the instant of asking, and None if one of them is not known.
        """
        if self.intervals:
            spans = tuple(Span(each.start, each.end, each.complete) for each in self.intervals)
            end = min(self.at or spans[-1].end, spans[-1].end)
            return Window(spans[0].start, end.astimezone(UTC), spans)
        return window(self.at, self.query.timeframe) if self.at and self.query else None


class _Sections(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={
        "skills": "skillsMetricsPerAgent",
        "agents": "agentsMetrics",
        "totals": "metricsTotals",
    },
):
    skills: SkillBreakdown | None = None
    agents: AgentBreakdown | None = None
    totals: ConversationMetrics | None = None


class _Interval(_Sections, frozen=True, kw_only=True, rename={"data": "metricsData"}):
    """Usually ``metricsData`` holds the sections; a sibling page shows them beside it."""

    timestamp: int
    data: _Sections | None = None


class _Document(_Sections, frozen=True, rename={"intervals": "metricsByIntervals"}):
    intervals: list[_Interval] = []


_DECODER = msgspec.json.Decoder(_Document)

_OTHER_NAMES = {
    "skillsMetrics": "skillsMetricsPerAgent",
    "metricsTotal": "metricsTotals",
    **{
        f"totalHandlingTime_resolvedConversationsThetotalby{who}": (
            f"totalHandlingTime_resolvedConversations_by{who}"
        )
        for who in ("CCP", "Consumer", "System")
    },
}
"""The API page's second spelling of a name, and the one that real servers send."""


def decode_report(
    body: bytes, query: ConversationQuery | None = None, *, at: datetime | None = None
) -> ConversationReport:
    """Decode a response body.

    Unknown members are ignored, known ones may be missing or null, and both spellings of the names
    that the API page spells two ways are understood. Numbers are kept as sent.

    Args:
        body: The response body: one JSON document in UTF-8.
        query: The question it answers. It tells where each interval starts, since the service
            sends only ends. Without it, an interval is taken to start where the one before it
            ends, and the earliest to hold just the one bucket that it surely holds.
        at: The instant of asking by the server's clock (its ``Date`` header), aware.

    Returns:
        The report, intervals oldest first.

    Raises:
        UnexpectedResponse: The body is not JSON, or a known member has the wrong type; says where.
        ValueError: ``at`` is naive: its offset from UTC is not known.
    """
    if at is not None and at.utcoffset() is None:
        raise ValueError(f"at={at.isoformat()} is naive: give an aware datetime, such as UTC")
    try:
        document = _DECODER.decode(body)
    except msgspec.ValidationError:
        document = _decode_leniently(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _malformed(body, error) from None
    return ConversationReport(
        _intervals(document.intervals, query, at) if document.intervals else (),
        document.skills,
        document.agents,
        document.totals,
        query,
        at,
    )


def _intervals(
    received: list[_Interval], query: ConversationQuery | None, at: datetime | None
) -> tuple[Interval, ...]:
    """Put the intervals in order and give each its start, from ends alone.

    There are ``timeframe / interval + 1`` intervals, the newest still open and the earliest cut to
    one bucket, a whole time frame before the newest; or, asked on a bucket's edge, exactly
    ``timeframe / interval``, all of them whole.
    """
    try:
        pairs = sorted(
            ((_EPOCH + timedelta(milliseconds=each.timestamp), each) for each in received),
            key=lambda pair: pair[0],
        )
        ends = [end for end, _ in pairs]
        newest = ends[-1]
        if query is not None and query.interval is not None:
            size, frame = timedelta(minutes=query.interval), timedelta(minutes=query.timeframe)
            starts = [end - (size if newest - end < frame else BUCKET) for end in ends]
            on_edge = len(ends) == frame // size and newest - ends[0] == frame - size
            on_edge = on_edge and (at is None or newest <= at)  # else one was left out
        else:
            starts = [ends[0] - BUCKET, *ends[:-1]]
            on_edge = False
    except OverflowError:
        raise UnexpectedResponse(
            "a timestamp lies outside the years 1 to 9999", where="$.metricsByIntervals"
        ) from None
    return tuple(
        Interval(start, end, on_edge or end < newest, inner.skills, inner.agents, inner.totals)
        for start, (end, each) in zip(starts, pairs, strict=True)
        for inner in [each.data or each]
    )


def _decode_leniently(body: bytes) -> _Document:
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(body, error) from None
    tree = _known(tree, _Document)
    try:
        return msgspec.convert(tree, _Document, str_keys=True)
    except msgspec.ValidationError as error:
        raise _misfit(tree, _Document, "$", error) from None


def _known(value: Any, kind: Any) -> Any:
    """Keep what a type knows, under the names it uses; leave the misshapen for `_misfit`."""
    if isinstance(value, dict) and (fields := _fields(kind)):
        if kind is ConversationMetrics and value.keys() <= fields.keys():
            return value
        kept = {}
        for name, inner in value.items():
            usual = _OTHER_NAMES.get(name, name)
            if (
                inner is not None
                and usual in fields
                and (usual == name or value.get(usual) is None)
            ):
                kept[usual] = _known(inner, fields[usual])
        return kept
    if isinstance(value, dict) and get_origin(kind) is dict:
        return {key: _known(inner, get_args(kind)[1]) for key, inner in value.items()}
    if isinstance(value, list) and get_origin(kind) is list:
        return [_known(inner, get_args(kind)[0]) for inner in value]
    return value


def _misfit(value: Any, kind: Any, path: str, error: msgspec.ValidationError) -> UnexpectedResponse:
    """Follow a failed conversion to the innermost value that does not fit its type."""
    inner: list[tuple[str, Any, Any]] = []
    if isinstance(value, dict) and (fields := _fields(kind)):
        inner = [(f".{name}", each, fields[name]) for name, each in value.items()]
    elif isinstance(value, dict) and get_origin(kind) is dict:
        inner = [(f"[{key!r}]", each, get_args(kind)[1]) for key, each in value.items()]
    elif isinstance(value, list) and get_origin(kind) is list:
        inner = [(f"[{i}]", each, get_args(kind)[0]) for i, each in enumerate(value)]
    for step, each, of in inner:
        try:
            msgspec.convert(each, of, str_keys=True)
        except msgspec.ValidationError as cause:
            return _misfit(each, of, path + step, cause)
    return UnexpectedResponse(str(error).split(" - at `$")[0], where=path)


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    """The members of a struct by their name on the wire, each with its type, None taken off."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return {}
    return {
        field.encode_name: next(
            (each for each in get_args(field.type) if get_origin(field.type) is UnionType),
            field.type,
        )
        for field in msgspec.structs.fields(kind)
    }


def _malformed(body: bytes, error: Exception) -> UnexpectedResponse:
    if isinstance(error, RecursionError):
        return UnexpectedResponse("the JSON is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        try:
            body.decode()
        except UnicodeDecodeError as exact:
            return UnexpectedResponse("the body is not UTF-8", where=f"byte {exact.start}")
    if not body:
        return UnexpectedResponse("the body is empty", where="byte 0")
    reason, _, place = str(error).partition(" (")
    reason = reason.split(" - at ")[0]
    return UnexpectedResponse(
        f"the body is not whole JSON: {reason}", where=place.rstrip(")") or f"byte {len(body)}"
    )
