"""An answer must have what was asked for, and what is wrong in it costs as little as can be."""

from __future__ import annotations

import json
import time
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgconv_async import ConversationQuery, Interval, UnexpectedResponse
from msgconv_async.protocol.decoding import FREE, decode_intervals, decode_report
from msgconv_async.protocol.report import Unreadable
from tests.protocol.documents import METRICS, PAGE_EXAMPLE, Json, encode

EDGE = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
TOTAL = "totalResolvedConversations"
SECTIONS: dict[str, Json] = {
    "skillsMetricsPerAgent": {"metricsPerSkill": {}, "metricsTotals": {}},
    "agentsMetrics": {"metricsPerAgent": {}, "metricsTotals": {}},
    "metricsTotals": {},
}
ASKED = {
    "skillsMetricsPerAgent": ConversationQuery(20, interval=5, skill_ids="all"),
    "agentsMetrics": ConversationQuery(20, interval=5, agent_ids=[1, 2]),
    "metricsTotals": ConversationQuery(20, interval=5),
}
TOTALS = ASKED["metricsTotals"]


def stamp(minutes: int) -> int:
    """An interval's timestamp, so many minutes after noon."""
    return round((EDGE + timedelta(minutes=minutes)).timestamp() * 1000)


def told(*ends: int, **figures: Any) -> Json:
    """An answer to `TOTALS` whose intervals end so many minutes after noon."""
    return {
        "metricsByIntervals": [
            {"timestamp": stamp(end), "metricsData": {"metricsTotals": {TOTAL: end, **figures}}}
            for end in ends
        ],
        "metricsTotals": {TOTAL: 0},
    }


def fault(document: Any, query: ConversationQuery = TOTALS) -> UnexpectedResponse:
    with pytest.raises(UnexpectedResponse) as caught:
        decode_report(encode(document), query)
    return caught.value


def unreadable(document: Json, query: ConversationQuery = TOTALS) -> dict[int, str]:
    """The intervals that cannot be taken: minutes after noon of their end, and why."""
    return {
        (each.end - EDGE) // timedelta(minutes=1): str(each.error)
        for each in decode_intervals(encode(document), query)
        if isinstance(each, Unreadable)
    }


# -- What was asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (asked, sent)
        for asked in ASKED
        for sent in (
            {},
            None,
            {"error": "internal"},
            *({name: section} for name, section in SECTIONS.items() if name != asked),
        )
    ],
    ids=lambda value: value if isinstance(value, str) else str(value and list(value)),
)
def test_a_section_that_was_asked_for_and_is_absent_is_named(asked: str, sent: Json | None) -> None:
    """Absent, null, or another section in its place: each is no answer, and never an empty one."""
    document = told(0, 5, 10, 15, 20)
    whole = document | {"metricsTotals": None, asked: SECTIONS[asked]}
    for interval in whole["metricsByIntervals"]:
        interval["metricsData"] = {asked: SECTIONS[asked]}
    decode_report(encode(whole), ASKED[asked])

    holed = json.loads(encode(whole))
    holed["metricsByIntervals"][2]["metricsData"] = sent
    error = fault(holed, ASKED[asked])
    assert f"{asked} was asked for and is absent" in str(error)
    assert "$.metricsByIntervals[2]" == error.where
    assert {10} == unreadable(holed, ASKED[asked]).keys()

    error = fault(whole | {asked: None} | (sent or {}), ASKED[asked])
    assert f"account: {asked} was asked for and is absent" in f"account: {error}"
    assert "$" == error.where


@pytest.mark.parametrize(
    "document", [{}, {"error": "internal"}, {"metricsByIntervals": []}], ids=str
)
def test_an_answer_without_intervals_is_none_to_a_question_with_them(document: Json) -> None:
    """Neither to `fetch` nor to following."""
    assert "metricsByIntervals was asked for and is absent" in str(fault(document))
    with pytest.raises(UnexpectedResponse, match="metricsByIntervals was asked for"):
        decode_intervals(encode(document), TOTALS)


@pytest.mark.parametrize("asked", ASKED)
def test_a_section_that_is_there_and_empty_is_an_answer(asked: str) -> None:
    """It says that there is no data."""
    query = ConversationQuery(
        20, skill_ids=ASKED[asked].skill_ids, agent_ids=ASKED[asked].agent_ids
    )
    for section in ({}, SECTIONS[asked]):
        decode_report(encode({asked: section}), query)


@pytest.mark.parametrize("asked", ASKED)
def test_a_section_that_holds_an_error_is_absent(asked: str) -> None:
    """What has members, and none that is known, says nothing of what was asked for."""
    document = told(0, 5, 10, 15, 20)
    whole = document | {"metricsTotals": None, asked: SECTIONS[asked]}
    for interval in whole["metricsByIntervals"]:
        interval["metricsData"] = {asked: SECTIONS[asked]}
    holed = json.loads(encode(whole))
    holed["metricsByIntervals"][2]["metricsData"] = {asked: {"error": "down"}}

    assert {10} == unreadable(holed, ASKED[asked]).keys()
    assert f"{asked} was asked for and is absent" in str(fault(holed, ASKED[asked]))
    assert "absent (at $)" in str(fault(whole | {asked: {"error": "down"}}, ASKED[asked]))


def test_both_sections_are_needed_where_both_were_asked_for() -> None:
    """Skills alone are half of an answer."""
    query = ConversationQuery(60, skill_ids="all", agent_ids="all")
    decode_report(PAGE_EXAMPLE, query)
    half = {"skillsMetricsPerAgent": json.loads(PAGE_EXAMPLE)["skillsMetricsPerAgent"]}

    assert "agentsMetrics was asked for and is absent" in str(fault(half, query))


# -- Intervals ------------------------------------------------------------------------------------


def test_an_interval_that_comes_twice_is_one() -> None:
    """The same figures under the same end are told once."""
    once, twice = told(20, 15, 10, 5, 0), told(20, 15, 15, 10, 5, 0)

    assert decode_report(encode(once), TOTALS) == decode_report(encode(twice), TOTALS)
    assert decode_intervals(encode(once), TOTALS) == decode_intervals(encode(twice), TOTALS)


def test_a_whole_day_may_hold_one_interval_twice() -> None:
    """The bound on intervals leaves room for it."""
    query = ConversationQuery(1440, interval=5)
    ends = [*range(0, 1445, 5)]

    assert 289 == len(decode_report(encode(told(*ends, 700)), query).intervals)


def test_an_interval_that_comes_twice_with_other_figures_is_not_taken() -> None:
    """Nobody can tell which of the two is right; the others are not in doubt."""
    document = told(20, 15, 10, 5, 0)
    document["metricsByIntervals"] += told(10, **{TOTAL: 7})["metricsByIntervals"]

    assert "came twice, with different figures" in str(fault(document))
    assert {10} == unreadable(document).keys()


def test_an_interval_that_was_left_out_in_the_middle_is_told() -> None:
    """`fetch` refuses the answer; following goes on without that interval."""
    document = told(20, 15, 5, 0)

    assert "2026-03-04 12:10 UTC was left out" in str(fault(document))
    assert {10} == unreadable(document).keys()
    assert 5 == len(decode_intervals(encode(document), TOTALS))


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (told(20, 15, 10, 5, 0, -5), "not intervals of 5 minutes in a time frame of 20"),
        (told(20, 15, 10, 5, -1440), "not intervals of 5 minutes in a time frame of 20"),
        (told(21, 16, 11, 6, 1), "not on a five-minute edge"),
        (told(20, 15, 12, 10, 5, 0), "not on a five-minute edge"),
    ],
    ids=["too many", "far apart", "out of step", "overlapping"],
)
def test_intervals_of_no_answer_are_refused_whole(document: Json, why: str) -> None:
    """Their ends cannot be trusted, so none of them is taken."""
    assert why in str(fault(document))
    with pytest.raises(UnexpectedResponse, match=why):
        decode_intervals(encode(document), TOTALS)


def test_intervals_of_another_size_are_refused() -> None:
    """Half hours that overlap are no half hours."""
    query = ConversationQuery(120, interval=30)
    decode_report(encode(told(120, 90, 60, 30, 0)), query)

    assert "not intervals of 30 minutes" in str(fault(told(120, 90, 65, 30, 0), query))


def test_fewer_intervals_than_the_time_frame_has_are_refused() -> None:
    """Some were left out at an end, where no neighbour shows it."""
    assert "3 of at least 4 intervals" in str(fault(told(20, 15, 10)))


# -- Numbers of other writers ---------------------------------------------------------------------


def test_an_integral_float_is_a_count_and_nan_is_no_value() -> None:
    """As some writers of JSON put them."""
    report = decode_report(
        encode({"metricsTotals": {TOTAL: 21.0, "avgTime_resolvedConversations": "NaN"}})
    )

    assert report.totals is not None
    assert 21 == report.totals.total_resolved_conversations
    assert isinstance(report.totals.total_resolved_conversations, int)
    assert report.totals.avg_time_resolved_conversations is None


@pytest.mark.parametrize("value", [21.5, "21", "Infinity", True, [], 1e30])
def test_another_odd_value_costs_its_own_interval_alone(value: object) -> None:
    """The others are read as if nothing had been; `fetch` says where it stands."""
    document = told(20, 15, 10, 5, 0)
    sound = decode_intervals(encode(document), TOTALS)
    document["metricsByIntervals"][1]["metricsData"]["metricsTotals"][TOTAL] = value

    read = decode_intervals(encode(document), TOTALS)
    assert isinstance(read[3], Unreadable)
    assert [*sound[:3], sound[4]] == [*read[:3], read[4]]
    where = f"$.metricsByIntervals[1].metricsData.metricsTotals.{TOTAL}"
    assert where == read[3].error.where == fault(document).where


def test_an_odd_value_beside_the_intervals_costs_none_of_them() -> None:
    """Following has no use for the sections over the whole time frame."""
    document = told(20, 15, 10, 5, 0) | {"metricsTotals": {TOTAL: "many"}}

    assert all(isinstance(each, Interval) for each in decode_intervals(encode(document), TOTALS))
    fault(document)


# -- Members that nobody knows --------------------------------------------------------------------


def test_every_kind_of_unknown_member_is_told() -> None:
    """By its place, whatever the interval or the id that it stands under."""
    document = told(20, 15, 10, 5, 0, abandoned=1, transferred=2) | {"note": "x"}
    document["metricsByIntervals"][0]["metricsData"]["regions"] = {}
    agents = {"metricsPerAgent": {"4": {"newMetric": 0}, "5": {"newMetric": 0}}, "extra": {}}
    document["agentsMetrics"] = agents
    found: list[str] = []

    decode_report(encode(document), TOTALS, on_unknown=found.append)

    assert {
        "$.note",
        "$.agentsMetrics.extra",
        "$.agentsMetrics.metricsPerAgent[*].newMetric",
        "$.metricsByIntervals[*].metricsData.metricsTotals.abandoned",
        "$.metricsByIntervals[*].metricsData.metricsTotals.transferred",
        "$.metricsByIntervals[*].metricsData.regions",
    } == set(found)


def test_a_large_answer_tells_of_at_least_one_unknown_member() -> None:
    """It is not searched for others, which would take as long again as to decode it."""
    totals = dict.fromkeys(METRICS, 0) | {"newMetric": 2}
    agents = {str(agent): totals for agent in range(5_000)}
    found: list[str] = []

    decode_report(encode({"agentsMetrics": {"metricsPerAgent": agents}}), on_unknown=found.append)

    assert ["$.agentsMetrics.metricsPerAgent[*].newMetric"] == found


def test_known_members_are_told_of_in_no_spelling() -> None:
    """Neither of the page's two."""
    found: list[str] = []
    document = {"metricsTotal": dict.fromkeys(METRICS, 1), "skillsMetrics": {}}

    decode_report(encode(document), on_unknown=found.append)

    assert [] == found


# -- Bounds ---------------------------------------------------------------------------------------


def cost(body: bytes, query: ConversationQuery | None = None) -> tuple[float, int]:
    """Decode, and return the seconds and the most bytes that it took."""
    tracemalloc.start()
    with suppress(UnexpectedResponse):
        decode_report(body, query)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    began = time.process_time()
    with suppress(UnexpectedResponse):
        decode_report(body, query)
    return time.process_time() - began, peak


def unknown_objects(count: int) -> bytes:
    inner = b",".join([b'{"y":"' + b"." * 64 + b'"}'] * count)
    return b'{"unknown":[' + inner + b'],"metricsTotals":{}}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"metricsByIntervals":[' + b",".join([b'{"timestamp":0}'] * 500_000) + b"]}",
        b'{"metricsByIntervals":[' + b",".join([b"0"] * 4_000_000) + b"]}",
        b'{"metricsByIntervals":[' + b",".join([b"{}"] * 2_000_000) + b"]}",
        b'{"unknown":[' + b",".join([b'{"y":1}'] * 1_000_000) + b'],"metricsTotals":{}}',
        unknown_objects(100_000),
        b'{"agentsMetrics":{"metricsPerAgent":{'
        + b",".join(b'"%d":{}' % agent for agent in range(600_000))
        + b"}}}",
        b'{"agentsMetrics":{"metricsPerAgent":{'
        + b",".join(b'"%d":{}' % (agent * (2**61 - 1)) for agent in range(19_000))
        + b"}}}",
        b'{"metricsTotals":{' + b",".join(b'"m%d":1' % place for place in range(500_000)) + b"}}",
        b'{"metricsByIntervals":['
        + b",".join(
            b'{"timestamp":0,"metricsData":{'
            + b",".join(b'"m%d":1' % place for place in range(20_000))
            + b"}}"
            for _ in range(30)
        )
        + b"]}",
    ],
    ids=[
        "intervals",
        "numbers for intervals",
        "empty intervals",
        "unknown objects",
        "unknown objects of some size",
        "agents without a metric",
        "ids that collide",
        "unknown metrics",
        "unknown members of many intervals",
    ],
)
def test_no_answer_takes_much_more_than_its_bytes(body: bytes) -> None:
    """Whatever was put into a few megabytes is refused or skipped before it is built."""
    seconds, peak = cost(body)

    assert seconds < 1
    assert peak < len(body) + 4 * 1024 * 1024


def test_a_flood_is_found_wherever_it_stands_in_a_large_answer() -> None:
    """What surrounds it is as long as metrics are."""
    usual = (
        b'{"agentsMetrics":{"metricsPerAgent":{"1":%s}}}'
        % json.dumps(dict.fromkeys(METRICS, 0)).encode()
    )
    padding = b'"x":[' + b",".join([usual] * 15_000) + b"]"
    flood = b",".join(b'"%d":{}' % agent for agent in range(800_000))
    body = b'{%s,"agentsMetrics":{"metricsPerAgent":{%s}},%s}' % (padding, flood, padding)
    sound = b'{%s,"agentsMetrics":{},%s}' % (padding, padding)

    assert len(body) > 8 * 1024 * 1024
    assert decode_report(sound).agents is not None
    with pytest.raises(UnexpectedResponse, match="no metrics"):
        decode_report(body)


def test_small_answers_may_have_as_many_objects_as_they_like() -> None:
    """The bound on objects is no business of an answer that nobody would call large."""
    agents = ",".join(f'"{agent}":{{}}' for agent in range(90_000))
    body = f'{{"agentsMetrics":{{"metricsPerAgent":{{{agents}}}}}}}'.encode()
    report = decode_report(body)

    assert FREE * 0.9 < len(body) <= FREE
    assert report.agents is not None
    assert 90_000 == len(report.agents.per_agent)
    seconds, peak = cost(body)
    assert seconds < 1
    assert peak < 40 * 1024 * 1024


def test_intervals_and_skills_without_data_are_no_flood() -> None:
    """However many there are: they are the smallest that the service sends."""
    nobody = {"metricsPerAgent": {}, "metricsTotals": dict.fromkeys(METRICS, 0)}
    skills = {str(skill): nobody for skill in range(40)}
    section = {"metricsPerSkill": skills, "metricsTotals": nobody["metricsTotals"]}
    data = {"skillsMetricsPerAgent": section, "agentsMetrics": nobody}
    ends = [{"timestamp": stamp(5 * place), "metricsData": data} for place in range(289)]
    body = encode({"metricsByIntervals": ends, **data})
    query = ConversationQuery(1440, interval=5, skill_ids="all", agent_ids="all")

    assert len(body) > 4 * FREE
    for _ in range(20):
        assert 289 == len(decode_report(body, query).intervals)


@given(st.integers(2**63) | st.integers(max_value=-(2**63) - 1))
def test_an_id_beyond_64_bits_is_refused(number: int) -> None:
    """The API's ids are longs, and longer ones can be made to collide in a dict."""
    with pytest.raises(UnexpectedResponse):
        decode_report(encode({"agentsMetrics": {"metricsPerAgent": {str(number): {}}}}))


@pytest.mark.parametrize("minutes", [-5, -1_035_592_260])
def test_intervals_before_1970_are_refused(minutes: int) -> None:
    interval = {"timestamp": minutes * 60_000, "metricsData": {"metricsTotals": {}}}
    document = json.dumps({"metricsByIntervals": [interval], "metricsTotals": {}}).encode()
    with pytest.raises(UnexpectedResponse, match="before the year 1970"):
        decode_intervals(document, ConversationQuery(5, interval=5))
