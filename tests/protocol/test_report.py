import copy
import json
import pickle
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from msgconv_async.errors import UnexpectedResponse
from msgconv_async.protocol.buckets import BUCKET, Span, window
from msgconv_async.protocol.decoding import decode_report
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import (
    AgentBreakdown,
    ConversationMetrics,
    ConversationReport,
    Interval,
    SkillBreakdown,
    average_time,
)
from tests.protocol.documents import (
    AVERAGES,
    COUNTS,
    METRICS,
    OTHER_SPELLINGS,
    PAGE_EXAMPLE,
    Json,
    documents,
    encode,
    nearly_documents,
    plain,
    respelled,
    sections,
)
from tests.protocol.test_buckets import instants, valid_questions

ZEROS = dict.fromkeys(METRICS, 0)
NOW = datetime(2014, 3, 26, 8, 7, tzinfo=UTC)
HALF_PAST, EIGHT = 1_395_819_000_000, 1_395_820_800_000  # epoch milliseconds, 26 March 2014


def totals(**members: Any) -> bytes:
    return encode({"metricsTotals": members})


def decoded_totals(body: bytes) -> ConversationMetrics:
    metrics = decode_report(body).totals
    assert metrics is not None
    return metrics


def fault(body: bytes) -> UnexpectedResponse:
    with pytest.raises(UnexpectedResponse) as caught:
        decode_report(body)
    assert caught.value.__cause__ is None
    assert str(caught.value)
    return caught.value


# -- The page's example ---------------------------------------------------------------------------


def test_the_pages_example_says_what_it_says() -> None:
    """Every number of the page's response is in the report, and no other."""
    assert json.loads(PAGE_EXAMPLE) == plain(decode_report(PAGE_EXAMPLE))


def test_the_pages_example_by_attribute() -> None:
    """Who knows the page's names finds the numbers where they belong."""
    report = decode_report(PAGE_EXAMPLE)

    assert report.skills is not None
    assert report.agents is not None
    assert 21 == report.skills.per_skill[3].per_agent[2].resolved_conversations_by_ccp
    assert (
        20.285715 == report.skills.per_skill[3].per_agent[2].avg_time_resolved_conversations_by_ccp
    )
    assert 0.95132744 == report.skills.totals.avg_time_resolved_conversations_by_system
    assert 1411 == (
        report.agents.per_agent[2].total_handling_time_resolved_conversations_by_consumer
    )
    assert report.totals is None
    assert () == report.intervals


def test_numbers_that_do_not_add_up_stay_as_sent() -> None:
    """The page's own totals contradict its details; a report corrects neither."""
    report = decode_report(PAGE_EXAMPLE)

    assert report.skills is not None
    assert 226 == report.skills.totals.resolved_conversations_by_system
    assert 103 == report.skills.totals.total_resolved_conversations
    assert 215 == report.skills.per_skill[3].per_agent[6].resolved_conversations_by_system
    assert 0 == report.skills.per_skill[3].per_agent[6].total_resolved_conversations


def test_agents_not_asked_for_stand_under_their_skill() -> None:
    """A request for agent 2 finds agent 6 under skill 3, and not in the agents' own section."""
    report = decode_report(PAGE_EXAMPLE)

    assert report.skills is not None
    assert report.agents is not None
    assert {2, 6} == report.skills.per_skill[3].per_agent.keys()
    assert {2} == report.agents.per_agent.keys()


# -- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("usual", OTHER_SPELLINGS)
def test_each_other_spelling_is_understood(usual: str) -> None:
    """Where the page spells a name two ways, either may come."""
    spellings = {usual: OTHER_SPELLINGS[usual]}
    body = encode(respelled(json.loads(PAGE_EXAMPLE), spellings))

    assert body != encode(json.loads(PAGE_EXAMPLE))
    assert decode_report(PAGE_EXAMPLE) == decode_report(body)


@given(documents, st.sets(st.sampled_from(sorted(OTHER_SPELLINGS))))
def test_any_mix_of_spellings_is_understood(document: Json, others: set[str]) -> None:
    """Which of the two spellings each name has changes nothing."""
    spellings = {usual: OTHER_SPELLINGS[usual] for usual in others}

    assert document == plain(decode_report(encode(respelled(document, spellings))))


def test_the_usual_spelling_wins_over_the_other() -> None:
    """Where both stand side by side, the one that real servers send counts, wherever it stands."""
    other = {"metricsTotal": {"totalResolvedConversations": 1}}
    usual = {"metricsTotals": {"totalResolvedConversations": 2}}

    assert 2 == decoded_totals(encode(other | usual)).total_resolved_conversations
    assert 2 == decoded_totals(encode(usual | other)).total_resolved_conversations


def test_the_other_spelling_fills_in_for_null() -> None:
    """A null under the usual name does not hide what the other one says."""
    body = encode({"metricsTotals": None, "metricsTotal": {"totalResolvedConversations": 1}})

    assert 1 == decoded_totals(body).total_resolved_conversations


# -- Forms ----------------------------------------------------------------------------------------


def test_account_level() -> None:
    """With neither skill nor agent asked for, the totals stand alone."""
    report = decode_report(totals(totalResolvedConversations=103))

    assert (
        ConversationReport(totals=ConversationMetrics(total_resolved_conversations=103)) == report
    )


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {"skillsMetricsPerAgent": {"metricsPerSkill": {}, "metricsTotals": ZEROS}},
            ConversationReport(skills=SkillBreakdown({}, ConversationMetrics(*[0] * 12))),
        ),
        (
            {"agentsMetrics": {"metricsPerAgent": {}, "metricsTotals": ZEROS}},
            ConversationReport(agents=AgentBreakdown({}, ConversationMetrics(*[0] * 12))),
        ),
        ({}, ConversationReport()),
    ],
    ids=["skills", "agents", "nothing"],
)
def test_no_data(document: Json, expected: ConversationReport) -> None:
    """An answer without data is an empty section with totals of zero, and no error."""
    assert expected == decode_report(encode(document))


def test_intervals_come_oldest_first_with_their_sections() -> None:
    """The service sends the newest first; a report reads in the order of time."""
    body = encode(
        {
            "metricsByIntervals": [
                {"timestamp": EIGHT, "metricsData": {"metricsTotals": {METRIC: 2}}},
                {"timestamp": HALF_PAST, "metricsData": {"metricsTotals": {METRIC: 1}}},
            ],
            "metricsTotals": {METRIC: 3},
        }
    )

    report = decode_report(body, ConversationQuery(60, interval=30))

    clock = NOW.replace(minute=0)
    assert (
        Interval(
            clock - timedelta(hours=1),
            clock - timedelta(minutes=30),
            complete=True,
            totals=ConversationMetrics(total_resolved_conversations=1),
        ),
        Interval(
            clock - timedelta(minutes=30),
            clock,
            complete=True,
            totals=ConversationMetrics(total_resolved_conversations=2),
        ),
    ) == report.intervals
    assert ConversationMetrics(total_resolved_conversations=3) == report.totals


METRIC = "totalResolvedConversations"


@given(sections)
def test_sections_beside_the_timestamp(section: Json) -> None:
    """An interval may hold its sections itself, as a sibling method's page shows."""
    within = {"metricsByIntervals": [{"timestamp": EIGHT, "metricsData": section}]}
    beside = {"metricsByIntervals": [{"timestamp": EIGHT, **section}]}

    assert decode_report(encode(within)) == decode_report(encode(beside))
    assert within == plain(decode_report(encode(beside)))


def test_the_unassigned_skill() -> None:
    """Skill -1 is a skill like any other."""
    agents = {"metricsPerAgent": {"2": ZEROS}, "metricsTotals": ZEROS}
    document = {
        "skillsMetricsPerAgent": {"metricsPerSkill": {"-1": agents}, "metricsTotals": ZEROS}
    }

    report = decode_report(encode(document))

    assert report.skills is not None
    assert {2} == report.skills.per_skill[-1].per_agent.keys()


# -- Numbers --------------------------------------------------------------------------------------


@pytest.fixture(params=["as sent", "with an unknown member"])
def unknown(request: pytest.FixtureRequest) -> Json:
    """Members to add, so that a test holds however the document is decoded."""
    return {} if request.param == "as sent" else {"unknown": 0}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("count", [-1, 0, 2**53 + 1, 2**63 - 1, 2**63, 2**64 + 1, 10**30])
def test_counts_are_exact(name: str, count: int, unknown: Json) -> None:
    """No count passes through a float, whatever its size or sign."""
    assert count == getattr(decoded_totals(totals(**{name: count}, **unknown)), METRICS[name])


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("average", ["20.285715", "0", "-1", "1.2345678E7", "0.1", "5e-324"])
def test_averages_are_the_nearest_float(name: str, average: str, unknown: Json) -> None:
    """An average is the double that its digits name; an integer may stand for one."""
    members = ",".join([f'"{name}":{average}', *[f'"{each}":0' for each in unknown]])
    metrics = decoded_totals(f'{{"metricsTotals":{{{members}}}}}'.encode())

    assert float(average) == getattr(metrics, METRICS[name])
    assert isinstance(getattr(metrics, METRICS[name]), float)


# -- What is left out, and what is new ------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_missing_or_null_is_none(name: str) -> None:
    """A number that was not sent is not zero."""
    expected = decoded_totals(totals(**{each: 0 for each in METRICS if each != name}))

    assert getattr(expected, METRICS[name]) is None
    assert expected == decoded_totals(totals(**ZEROS | {name: None}))
    assert expected == decoded_totals(totals(**ZEROS | {name: None}, unknown=1))


@pytest.mark.parametrize(
    "document",
    [
        {"skillsMetricsPerAgent": None, "agentsMetrics": None, "metricsTotals": None},
        {"metricsByIntervals": None},
        {"metricsByIntervals": []},
    ],
    ids=str,
)
def test_a_section_null_or_empty_is_as_good_as_missing(document: Json) -> None:
    """Null says no more than silence."""
    assert ConversationReport() == decode_report(encode(document))


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"skillsMetricsPerAgent": {}}, ConversationReport(skills=SkillBreakdown())),
        (
            {"skillsMetricsPerAgent": {"metricsPerSkill": None, "metricsTotals": None}},
            ConversationReport(skills=SkillBreakdown()),
        ),
        (
            {"skillsMetricsPerAgent": {"metricsPerSkill": {"3": {"metricsPerAgent": None}}}},
            ConversationReport(skills=SkillBreakdown({3: AgentBreakdown()})),
        ),
        ({"agentsMetrics": {"metricsTotals": None}}, ConversationReport(agents=AgentBreakdown())),
        ({"agentsMetrics": {"metricsPerAgent": None}}, ConversationReport(agents=AgentBreakdown())),
    ],
    ids=str,
)
def test_a_section_without_its_members_is_empty(
    section: Json, expected: ConversationReport
) -> None:
    """Members of a section may be missing or null."""
    assert expected == decode_report(encode(section))


@pytest.mark.parametrize("data", [{"metricsData": None}, {"metricsData": {}}, {}], ids=str)
def test_an_interval_without_data_keeps_its_place(data: Json) -> None:
    """Time that was covered is in the report even if nothing was said about it."""
    (interval,) = decode_report(
        encode({"metricsByIntervals": [{"timestamp": EIGHT, **data}]})
    ).intervals

    assert NOW.replace(minute=0) == interval.end
    assert (None, None, None) == (interval.skills, interval.agents, interval.totals)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every object of a document that has members of its own, those keyed by id left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    by_id = path and path[-1] in ("metricsPerSkill", "metricsPerAgent")
    found = [path] if isinstance(value, dict) and not by_id else []
    for key, each in inner:
        if isinstance(each, dict | list):
            found += places(each, (*path, key))
    return found


@given(documents, st.randoms(use_true_random=False), st.sampled_from([0, None, {"a": [1]}, "x"]))
def test_an_unknown_member_changes_nothing(
    document: Json, chance: random.Random, member: object
) -> None:
    """Whatever the service adds, at whatever level, the report stays the same."""
    extended = copy.deepcopy(document)
    target = extended
    path = chance.choice(places(document))
    for step in path:
        target = target[step]
    # With nothing else in it, a section that holds what nobody knows is told for an error.
    assume(target or not path or path[-1] not in OTHER_SPELLINGS)
    target["metricsOfTomorrow"] = member

    assert decode_report(encode(document)) == decode_report(encode(extended))


@given(nearly_documents)
def test_an_unknown_member_saves_and_breaks_nothing(document: Json) -> None:
    """What is refused without an unknown member is refused with one, for the same reason."""

    def outcome(body: bytes) -> object:
        try:
            return decode_report(body)
        except UnexpectedResponse as error:
            return str(error)

    assert outcome(encode(document)) == outcome(encode(document | {"metricsOfTomorrow": 0}))


# -- What the API does not describe ---------------------------------------------------------------

SMALL = encode(
    {
        "metricsByIntervals": [
            {"timestamp": EIGHT, "metricsData": {"agentsMetrics": {"metricsPerAgent": {"2": {}}}}}
        ],
        "skillsMetrics": {"metricsPerSkill": {"-1": {"metricsTotal": {METRIC: 103}}}},
        "unknown": [1.5e3, True, None, "\N{SNOWMAN} \\ /"],
    }
)


@pytest.mark.parametrize(
    "body",
    [SMALL, b'{"metricsTotals":{"avgTime_resolvedConversations":20.285715}}'],
    ids=["lenient", "strict"],
)
def test_every_truncation_is_told(body: bytes) -> None:
    """A body cut anywhere is an error that says at which byte, never half a report."""
    decode_report(body)

    for length in range(len(body)):
        assert fault(body[:length]).where.startswith("byte "), body[:length]


@pytest.mark.parametrize("body", [SMALL + b"}", SMALL + SMALL, SMALL + b"\0", b"\xff\xfe{}"])
def test_anything_around_the_document_is_told(body: bytes) -> None:
    """One JSON document is all that a body holds."""
    assert fault(body).where.startswith("byte ")


def test_a_byte_order_mark_is_ignored() -> None:
    """RFC 8259, section 8.1, lets a reader do so, and some servers send one."""
    assert decode_report(PAGE_EXAMPLE) == decode_report(b"\xef\xbb\xbf" + PAGE_EXAMPLE)
    assert decode_report(SMALL) == decode_report(b"\xef\xbb\xbf" + SMALL)


def test_white_space_is_no_difference() -> None:
    """However the document is laid out, it says the same."""
    document = json.loads(SMALL)

    assert decode_report(SMALL) == decode_report(json.dumps(document, indent=1).encode() + b"\r\n")
    assert decode_report(SMALL) == decode_report(
        b" \t" + json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"<html><body>Bad Gateway</body></html>",
        b"OK",
        b"{'metricsTotals': {}}",
        b'{"metricsTotals":{},}',
        b'{"metricsTotals":{"avgTime_resolvedConversations":NaN}}',
        b'{"metricsTotals":{"avgTime_resolvedConversations":Infinity}}',
        b'{"metricsTotals":{"totalResolvedConversations":007}}',
        '{"metricsTotals":{}}'.encode("utf-16"),
        b"\x1f\x8b\x08\x00",
    ],
)
def test_what_is_not_json_is_told(body: bytes) -> None:
    """A proxy's page, another encoding or a loose dialect: the error says at which byte."""
    assert fault(body).where.startswith("byte ")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"unknown":"\xff"}', "byte 12"),
        (b'{"\xff":1}', "byte 2"),
        (b'{"metricsTotals":{"\xc3(":1}}', "byte 19"),
        (b'{"unknown":"\xed\xa0\x80"}', "byte 12"),
    ],
)
def test_invalid_utf8_is_told(body: bytes, where: str) -> None:
    """Bytes that are no UTF-8 are found even where nobody would have looked."""
    error = fault(body)

    assert where == error.where
    assert "UTF-8" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"metricsTotals":' * 100_000 + b"{}" + b"}" * 100_000,
        b'{"metricsByIntervals":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["open arrays", "open objects", "unknown", "known", "intervals"],
)
def test_deep_nesting_is_told(body: bytes) -> None:
    """A document made to exhaust the stack is an error like any other."""
    fault(body)


WRONG: dict[str, tuple[Any, str]] = {
    "array for the document": ([], "$"),
    "number for the document": (1, "$"),
    "null for the document": (None, "$"),
    "text for a count": ({"metricsTotals": {METRIC: "103"}}, f"$.metricsTotals.{METRIC}"),
    "truth for a count": ({"metricsTotals": {METRIC: True}}, f"$.metricsTotals.{METRIC}"),
    "fraction for a count": ({"metricsTotals": {METRIC: 1.5}}, f"$.metricsTotals.{METRIC}"),
    "object for a count": ({"metricsTotals": {METRIC: {}}}, f"$.metricsTotals.{METRIC}"),
    "text for an average": (
        {"agentsMetrics": {"metricsPerAgent": {"2": {"avgTime_resolvedConversations": "1.5"}}}},
        "$.agentsMetrics.metricsPerAgent['2'].avgTime_resolvedConversations",
    ),
    "array for totals": ({"metricsTotals": []}, "$.metricsTotals"),
    "text for a section": ({"agentsMetrics": "none"}, "$.agentsMetrics"),
    "array for a map": (
        {"agentsMetrics": {"metricsPerAgent": []}},
        "$.agentsMetrics.metricsPerAgent",
    ),
    "name for an id": (
        {"agentsMetrics": {"metricsPerAgent": {"Jo": {}}}},
        "$.agentsMetrics.metricsPerAgent",
    ),
    "number for metrics under a skill": (
        {"skillsMetricsPerAgent": {"metricsPerSkill": {"3": {"metricsPerAgent": {"2": 7}}}}},
        "$.skillsMetricsPerAgent.metricsPerSkill['3'].metricsPerAgent['2']",
    ),
    "object for intervals": ({"metricsByIntervals": {}}, "$.metricsByIntervals"),
    "number for an interval": ({"metricsByIntervals": [7]}, "$.metricsByIntervals[0]"),
    "no timestamp": (
        {"metricsByIntervals": [{"timestamp": EIGHT}, {"metricsData": {}}]},
        "$.metricsByIntervals[1]",
    ),
    "null for a timestamp": (
        {"metricsByIntervals": [{"timestamp": None}]},
        "$.metricsByIntervals[0]",
    ),
    "text for a timestamp": (
        {"metricsByIntervals": [{"timestamp": "1395820800000"}]},
        "$.metricsByIntervals[0].timestamp",
    ),
    "array for an interval's data": (
        {"metricsByIntervals": [{"timestamp": EIGHT, "metricsData": []}]},
        "$.metricsByIntervals[0].metricsData",
    ),
    "text deep in an interval": (
        {"metricsByIntervals": [{"timestamp": 0, "metricsData": {"metricsTotals": {METRIC: ""}}}]},
        f"$.metricsByIntervals[0].metricsData.metricsTotals.{METRIC}",
    ),
}


@pytest.mark.parametrize(("document", "where"), WRONG.values(), ids=WRONG)
def test_a_wrong_type_is_told_with_its_place(document: Any, where: str) -> None:
    """The error points at the member, through every level, by the document's own names."""
    error = fault(encode(document))

    assert where == error.where
    assert f"(at {where})" in str(error)


@pytest.mark.parametrize("timestamp", [10**30, -(10**30), 2**63, -62_135_596_800_001])
def test_a_timestamp_beyond_the_calendar_is_told(timestamp: int) -> None:
    """An instant that no datetime holds is the service's fault, not an overflow here."""
    body = encode({"metricsByIntervals": [{"timestamp": timestamp}]})

    assert fault(body).where.startswith("$.metricsByIntervals")


def test_an_interval_that_begins_before_the_calendar_is_told() -> None:
    """The first instant of the year 1 ends no interval whose start could be named."""
    body = encode({"metricsByIntervals": [{"timestamp": -62_135_596_800_000}]})

    assert fault(body).where.startswith("$.metricsByIntervals")
    with pytest.raises(UnexpectedResponse):
        decode_report(body, ConversationQuery(60, interval=30))


def test_a_number_of_five_thousand_digits_is_told() -> None:
    """A number that Python refuses to read is an error that says where."""
    body = b'{"metricsTotals":{"totalResolvedConversations":' + b"9" * 5000 + b"}}"

    fault(body)
    fault(body[:-1] + b',"unknown":0}')


def test_an_error_holds_no_body() -> None:
    """What a misplaced text said stays out of the message, whatever it was."""
    assert "hunter2" not in repr(fault(totals(**{METRIC: "hunter2"})))


# -- Anything at all ------------------------------------------------------------------------------


@given(documents)
def test_what_was_put_in_comes_out(document: Json) -> None:
    """Every member, id, number and instant of a document is in the report, unchanged."""
    assert document == plain(decode_report(encode(document)))


@given(documents)
def test_a_report_pickles_and_equals_its_like(document: Json) -> None:
    """A report crosses a process pool whole."""
    report = decode_report(encode(document))

    assert report == pickle.loads(pickle.dumps(report))
    assert report == decode_report(encode(document))


@given(st.binary())
@example(b'{"\\ud800":1}')
@example(b'{"metricsTotals":1e999}')
def test_arbitrary_bytes_raise_nothing_else(body: bytes) -> None:
    """Whatever arrives is a report or an UnexpectedResponse."""
    try:
        decode_report(body)
    except UnexpectedResponse as error:
        assert str(error)  # noqa: PT017


@given(st.data())
def test_damaged_documents_raise_nothing_else(data: st.DataObject) -> None:
    """A real document with bytes overwritten is a report or an UnexpectedResponse."""
    body = bytearray(data.draw(st.sampled_from([PAGE_EXAMPLE, SMALL])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        decode_report(bytes(body))
    except UnexpectedResponse as error:
        assert str(error)  # noqa: PT017


# -- Time -----------------------------------------------------------------------------------------


def answer(spans: tuple[Span, ...]) -> Json:
    """What the service would send: intervals newest first, with their ends and without starts."""
    return {
        "metricsByIntervals": [
            {
                "timestamp": round(span.end.timestamp() * 1000),
                "metricsData": {"metricsTotals": ZEROS},
            }
            for span in reversed(spans)
        ],
        "metricsTotals": ZEROS,
    }


@given(instants, valid_questions(), st.randoms(use_true_random=False))
def test_spans_are_found_from_ends_alone(
    at: datetime, question: tuple[int, int], chance: random.Random
) -> None:
    """Without the service's clock, starts and what is still open come out as the buckets say."""
    timeframe, interval = question
    expected = window(at, timeframe, interval).intervals
    document = answer(expected)
    chance.shuffle(document["metricsByIntervals"])

    report = decode_report(encode(document), ConversationQuery(timeframe, interval=interval))

    spans = tuple(Span(each.start, each.end, each.complete) for each in report.intervals)
    assert expected == spans


def test_twelve_hundred_minutes_in_halves_are_three_intervals() -> None:
    """The earliest of the three is the one bucket that was cut off."""
    covered = window(NOW, 1200, 600)
    report = decode_report(encode(answer(covered.intervals)), ConversationQuery(1200, interval=600))

    hours = timedelta(hours=10)
    assert [BUCKET, hours, hours] == [each.end - each.start for each in report.intervals]
    assert [True, True, False] == [each.complete for each in report.intervals]


def test_without_the_query_an_interval_starts_where_the_last_one_ended() -> None:
    """Nothing is claimed that the ends do not show: one bucket first, and the newest open."""
    intervals = decode_report(encode(answer(window(NOW, 20, 10).intervals))).intervals

    assert ["07:45-07:50", "07:50-08:00", "08:00-08:10"] == [
        f"{each.start:%H:%M}-{each.end:%H:%M}" for each in intervals
    ]
    assert [True, True, False] == [each.complete for each in intervals]


def test_times_are_aware_utc() -> None:
    """No instant of a report is naive."""
    (interval,) = decode_report(encode({"metricsByIntervals": [{"timestamp": EIGHT}]})).intervals

    assert UTC is interval.start.tzinfo
    assert UTC is interval.end.tzinfo


@given(instants, valid_questions())
def test_a_report_says_which_time_it_covers(at: datetime, question: tuple[int, int]) -> None:
    """The window is that of the buckets, its end the instant of asking, in UTC."""
    zone = timezone(timedelta(hours=5, minutes=45))
    timeframe, interval = question
    query = ConversationQuery(timeframe, interval=interval)
    expected = window(at, timeframe, interval)
    body = encode(answer(expected.intervals))

    assert expected == decode_report(body, query, at=at).window
    elsewhere = decode_report(body, query, at=at.astimezone(zone)).window
    assert elsewhere is not None
    assert expected == elsewhere
    assert UTC is elsewhere.end.tzinfo
    assert (
        window(at, timeframe) == decode_report(totals(), ConversationQuery(timeframe), at=at).window
    )


def test_intervals_tell_the_window_by_the_services_own_clock() -> None:
    """A caller's clock that is ahead does not stretch what the intervals show."""
    expected = window(NOW, 20, 10)
    body = encode(answer(expected.intervals))

    late = decode_report(body, ConversationQuery(20, interval=10), at=NOW + timedelta(hours=1))
    unknown = decode_report(body, ConversationQuery(20, interval=10))

    assert late.window == unknown.window
    assert late.window is not None
    assert (expected.start, expected.intervals[-1].end) == (late.window.start, late.window.end)
    assert expected.intervals == late.window.intervals


def test_without_intervals_and_instant_no_window_is_known() -> None:
    """A report does not guess when it was asked, or for how long."""
    assert decode_report(totals(), ConversationQuery(60)).window is None
    assert decode_report(b"{}", at=NOW).window is None


def test_an_interval_that_was_left_out_does_not_close_the_newest() -> None:
    """As many as on a bucket's edge, but asked off it: the newest still fills."""
    document = answer(window(NOW, 20, 10).intervals)
    del document["metricsByIntervals"][2:]
    report = decode_report(encode(document), ConversationQuery(20, interval=10), at=NOW)

    assert [True, False] == [each.complete for each in report.intervals]


@pytest.mark.parametrize(
    ("count", "total_time", "expected"),
    [(4, 10, 2.5), (4, 0, 0), (-2, 5, -2.5), (0, 10, None), (None, 10, None), (4, None, None)],
)
def test_an_average_is_the_total_time_over_the_count(
    count: int | None, total_time: int | None, expected: float | None
) -> None:
    """There is none of nothing, nor of what is not known."""
    assert expected == average_time(count, total_time)
