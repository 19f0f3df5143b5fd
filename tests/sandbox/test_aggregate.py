from __future__ import annotations

import json
import random
import struct
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from msgconv_async.protocol import query as client_query
from msgconv_async.protocol.buckets import BUCKET, floor, window
from msgconv_async.protocol.decoding import decode_report
from msgconv_async.sandbox import Conversation, Recorded, Synthetic
from msgconv_async.sandbox.aggregate import Aggregates, shortest_float32
from msgconv_async.sandbox.events import ResolvedBy, Source
from msgconv_async.sandbox.parameters import Parameters

NOW = datetime(2026, 3, 4, 8, 7, tzinfo=UTC)
PAGE_EXAMPLE = Path(__file__).parents[1] / "protocol" / "page_example.json"

COUNT = "totalResolvedConversations"
TIME = "totalHandlingTime_resolvedConversations"
AVERAGE = "avgTime_resolvedConversations"
ZERO = {
    f"{kind}{by}": 0
    for kind in ("resolvedConversations", TIME, AVERAGE)
    for by in ("_byCCP", "_byConsumer", "_bySystem")
} | {COUNT: 0, TIME: 0, AVERAGE: 0}


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-04T{clock}+00:00")


def resolved(
    *instants: str, skill: int = 3, agent: int = 2, group: int | None = None, ms: int = 1000
) -> list[Conversation]:
    return [Conversation("1", at(each), agent, "CCP", ms, skill, group) for each in instants]


def ask(source: Source | Iterable[Conversation], now: datetime = NOW, **parameters: Any) -> Any:
    if not callable(source):
        source = Recorded(source)
    question = Parameters.parse({"v": "1", "timeframe": "60"} | parameters)
    return json.loads(Aggregates(source).answer("1", question, now))


def ends(answer: Any) -> list[str]:
    return [
        datetime.fromtimestamp(each["timestamp"] / 1000, UTC).strftime("%H:%M")
        for each in answer["metricsByIntervals"]
    ]


def counts(answer: Any) -> list[int]:
    return [each["metricsData"]["metricsTotals"][COUNT] for each in answer["metricsByIntervals"]]


# ---------------------------------------------------------------- the page's response


def spread(agent: int, by: ResolvedBy, count: int, total: int) -> Iterator[Conversation]:
    for number in range(count):
        share = total // count + (number < total % count)
        yield Conversation("1", NOW - timedelta(minutes=1), agent, by, share, 3, None)


PAGE_EVENTS = [
    *spread(2, "CCP", 21, 426),
    *spread(2, "consumer", 41, 1411),
    *spread(2, "system", 11, 215),
    *spread(6, "system", 215, 0),
]


def page_example() -> Any:
    """Return the page's example with the totals that do not add up replaced by the true sums."""

    def mend(node: Any) -> Any:
        if COUNT not in node:
            return {name: mend(inner) for name, inner in node.items()}
        true = sum(node[f"resolvedConversations_by{by}"] for by in ("CCP", "Consumer", "System"))
        ms = sum(node[f"{TIME}_by{by}"] for by in ("CCP", "Consumer", "System"))
        return node | {COUNT: true, TIME: ms, AVERAGE: shortest_float32(ms / true) if ms else 0}

    return mend(json.loads(PAGE_EXAMPLE.read_bytes()))


def test_the_page_s_example_is_answered_member_for_member() -> None:
    assert page_example() == ask(PAGE_EVENTS, skillIds="all", agentIds="2")


def test_members_stand_in_the_page_s_order() -> None:
    body = json.dumps(ask(PAGE_EVENTS, skillIds="all", agentIds="2"))
    assert [part.split(":")[0] for part in json.dumps(page_example()).split(', "')] == [
        part.split(":")[0] for part in body.split(', "')
    ]


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("total", "count", "printed"),
    [
        (426, 21, "20.285715"),
        (1411, 41, "34.414635"),
        (215, 11, "19.545454"),
        (3248, 103, "31.533981"),
        (215, 226, "0.95132744"),
        (40, 2, "20.0"),
        (2**31, 1, "2147483600.0"),
    ],
)
def test_an_average_is_a_32_bit_float_in_its_shortest_form(
    total: int, count: int, printed: str
) -> None:
    assert printed == repr(shortest_float32(total / count))


@given(st.floats(2.0**-50, 2.0**50, width=32))
@example(8589973504.0)
@example(16777215.0)
def test_no_shorter_number_is_the_same_32_bit_float(value: float) -> None:
    shortest = shortest_float32(value)
    assert value == struct.unpack("f", struct.pack("f", shortest))[0]
    digits = len(repr(shortest).split("e")[0].replace(".", "").strip("0"))
    for fewer in range(1, digits):
        assert value != struct.unpack("f", struct.pack("f", float(f"{value:.{fewer}g}")))[0]


def test_an_average_over_nothing_is_an_integer_zero() -> None:
    totals = ask(resolved("08:01"))["metricsTotals"]
    assert ("1000.0", "0") == (
        repr(totals[f"{AVERAGE}_byCCP"]),
        repr(totals[f"{AVERAGE}_bySystem"]),
    )


# ---------------------------------------------------------------- time


def test_a_time_frame_of_7_minutes_at_13_29_covers_13_20_to_13_29() -> None:
    events = resolved("13:19:59.999", "13:20", "13:24", "13:28:59.999", "13:29")
    answer = ask(events, at("13:29"), timeframe="7")
    assert 3 == answer["metricsTotals"][COUNT]


def test_20_minutes_in_tens_at_8_07_give_the_page_s_three_intervals() -> None:
    events = resolved("07:44:59", "07:45", "07:49:59", "07:50", "08:00", "08:06")
    answer = ask(events, at("08:07"), timeframe="20", interval="10")
    assert ["08:10", "08:00", "07:50"] == ends(answer)
    assert [2, 1, 2] == counts(answer)
    assert 5 == answer["metricsTotals"][COUNT]


def test_a_timestamp_is_the_interval_s_end_in_epoch_milliseconds() -> None:
    now = datetime(2014, 3, 26, 8, 0, tzinfo=UTC)
    answer = ask(resolved("08:00"), now, timeframe="30", interval="30")
    # The page's example says 1395820800000, which is 08:00 at UTC.
    assert [1395820800000] == [each["timestamp"] for each in answer["metricsByIntervals"]]


def test_1200_minutes_by_600_give_three_intervals() -> None:
    assert 3 == len(ask(resolved("08:00"), timeframe="1200", interval="600")["metricsByIntervals"])


def test_asked_on_an_exact_edge_every_interval_is_whole() -> None:
    answer = ask(resolved("07:40", "08:00"), at("08:00"), timeframe="20", interval="10")
    assert ["08:00", "07:50"] == ends(answer)
    assert [0, 1] == counts(answer)


def test_a_single_interval_as_long_as_the_time_frame_stands_beside_the_remainder() -> None:
    answer = ask(resolved("07:04", "08:01"), timeframe="60", interval="60")
    assert ["08:10", "07:10"] == ends(answer)
    assert [1, 0] == counts(answer)


def test_an_interval_that_is_no_multiple_of_5_has_its_edges_rounded_up() -> None:
    # Back from 08:10 by sevens: 08:03 -> 08:05, 07:56 -> 08:00; from 07:50 on.
    answer = ask(resolved("07:50", "07:59", "08:04", "08:05"), timeframe="14", interval="7")
    assert ["08:10", "08:05", "08:00"] == ends(answer)
    assert [1, 1, 2] == counts(answer)


def test_the_future_is_not_told() -> None:
    assert 1 == ask(resolved("08:06", "08:07", "08:09"))["metricsTotals"][COUNT]


# ---------------------------------------------------------------- sections and filters

EVENTS = [
    *resolved("08:00", skill=3, agent=2, group=7),
    *resolved("08:01", "08:02", skill=3, agent=6, group=8),
    *resolved("08:03", skill=-1, agent=2, group=7),
    *resolved("08:04", skill=5, agent=9, group=None),
]


def table(breakdown: Any) -> Any:
    """Reduce every metrics map of a section to its count."""
    if COUNT in breakdown:
        return breakdown[COUNT]
    return {name: table(inner) for name, inner in breakdown.items()}


def test_without_ids_the_account_s_totals_stand_alone() -> None:
    answer = ask(EVENTS, interval="60")
    assert {"metricsByIntervals", "metricsTotals"} == answer.keys()
    assert 5 == answer["metricsTotals"][COUNT]
    for each in answer["metricsByIntervals"]:
        assert {"timestamp", "metricsData"} == each.keys()
        assert {"metricsTotals"} == each["metricsData"].keys()


def test_skills_are_grouped_by_agent_with_totals_for_each_skill_and_for_all_asked() -> None:
    answer = ask(EVENTS, skillIds="3,-1,404")
    assert {
        "skillsMetricsPerAgent": {
            "metricsPerSkill": {
                "3": {"metricsPerAgent": {"2": 1, "6": 2}, "metricsTotals": 3},
                "-1": {"metricsPerAgent": {"2": 1}, "metricsTotals": 1},
            },
            "metricsTotals": 4,
        }
    } == table(answer)


def test_agents_asked_for_are_counted_over_every_skill() -> None:
    assert {"agentsMetrics": {"metricsPerAgent": {"2": 2, "9": 1}, "metricsTotals": 3}} == table(
        ask(EVENTS, agentIds="2,9,404")
    )


def test_the_skill_section_lists_every_agent_whichever_agents_are_asked_for() -> None:
    answer = table(ask(EVENTS, skillIds="3", agentIds="2"))
    assert {"2": 1, "6": 2} == answer["skillsMetricsPerAgent"]["metricsPerSkill"]["3"][
        "metricsPerAgent"
    ]
    assert {"metricsPerAgent": {"2": 2}, "metricsTotals": 2} == answer["agentsMetrics"]


def test_all_names_every_skill_and_agent_with_data() -> None:
    answer = table(ask(EVENTS, skillIds="all", agentIds="all"))
    assert {"3", "-1", "5"} == answer["skillsMetricsPerAgent"]["metricsPerSkill"].keys()
    assert {"2": 2, "6": 2, "9": 1} == answer["agentsMetrics"]["metricsPerAgent"]


@pytest.mark.parametrize(("groups", "total"), [("7", 2), ("7,8", 4), ("all", 5), ("404", 0)])
def test_groups_filter_every_section(groups: str, total: int) -> None:
    assert total == ask(EVENTS, groupIds=groups)["metricsTotals"][COUNT]
    answer = table(ask(EVENTS, groupIds=groups, skillIds="all", agentIds="all"))
    assert total == answer["skillsMetricsPerAgent"]["metricsTotals"]
    assert total == answer["agentsMetrics"]["metricsTotals"]


def test_no_data_is_an_empty_map_and_twelve_zeros() -> None:
    assert {
        "skillsMetricsPerAgent": {"metricsPerSkill": {}, "metricsTotals": ZERO},
        "agentsMetrics": {"metricsPerAgent": {}, "metricsTotals": ZERO},
    } == ask(EVENTS, skillIds="404", agentIds="404")
    assert {"metricsTotals": ZERO} == ask(EVENTS, at("23:00"))


def test_an_interval_without_data_is_there_with_zeros() -> None:
    answer = ask(EVENTS, interval="30", agentIds="all")
    assert [{"agentsMetrics": {"metricsPerAgent": {}, "metricsTotals": ZERO}}] * 2 == [
        each["metricsData"] for each in answer["metricsByIntervals"][1:]
    ]


# ---------------------------------------------------------------- truth

FRAMES = st.sampled_from([(60, 5), (60, 60), (14, 7), (240, 20), (7, None), (90, 45)])


@given(
    FRAMES,
    st.integers(0, 86_400_000),
    st.sampled_from([None, "all", "-1,1,2"]),
    st.sampled_from([None, "all", "101,103"]),
    st.sampled_from([None, "11"]),
)
def test_intervals_add_up_to_the_whole_and_the_whole_to_the_truth(
    frame: tuple[int, int | None],
    offset: int,
    skills: str | None,
    agents: str | None,
    groups: str | None,
) -> None:
    timeframe, interval = frame
    now = NOW + timedelta(milliseconds=offset)
    question = Parameters.parse(
        {
            "v": 1,
            "timeframe": timeframe,
            "interval": interval,
            "skillIds": skills,
            "agentIds": agents,
            "groupIds": groups,
        }
    )
    report = decode_report(Aggregates(Synthetic()).answer("1", question, now))
    covered = window(now, timeframe, interval)
    events = [
        each for each in Synthetic()("1", covered.start, now) if groups is None or each.group == 11
    ]
    if report.skills is not None:
        chosen = [each for each in events if skills == "all" or str(each.skill) in str(skills)]
        assert len(chosen) == report.skills.totals.total_resolved_conversations
        assert {each.skill for each in chosen} == report.skills.per_skill.keys()
    if report.agents is not None:
        chosen = [each for each in events if agents == "all" or str(each.agent) in str(agents)]
        assert len(chosen) == report.agents.totals.total_resolved_conversations
        assert {each.agent for each in chosen} == report.agents.per_agent.keys()
    if report.totals is not None:
        assert len(events) == report.totals.total_resolved_conversations
        assert (
            sum(each.handling_time_ms for each in events)
            == report.totals.total_handling_time_resolved_conversations
        )
    for section in ("skills", "agents", "totals"):
        whole, parts = getattr(report, section), [getattr(i, section) for i in report.intervals]
        if whole is not None and interval is not None:
            figures = [getattr(each, "totals", each) for each in [whole, *parts]]
            summed = [each.total_handling_time_resolved_conversations for each in figures]
            assert summed[0] == sum(summed[1:])


@pytest.mark.parametrize(("timeframe", "interval"), [(60, 5), (1440, 5), (1200, 600), (60, None)])
@pytest.mark.parametrize("minute", ["08:07", "08:05"])
def test_an_answer_decodes_to_the_window_that_the_client_expects(
    timeframe: int, interval: int | None, minute: str
) -> None:
    query = client_query.ConversationQuery(
        timeframe, interval=interval, skill_ids="all", agent_ids=[101]
    )
    body = Aggregates(Synthetic()).answer("1", Parameters.parse(query.parameters()), at(minute))
    report = decode_report(body, query, at=at(minute))
    assert report.window is not None
    if interval is not None:
        assert [(each.start, each.end, each.complete) for each in report.window.intervals] == [
            (each.start, each.end, each.complete) for each in report.intervals
        ]


def test_closed_buckets_never_change_and_the_open_one_only_grows() -> None:
    aggregates = Aggregates(Synthetic(conversations_per_day=5000))
    question = Parameters.parse({"v": 1, "timeframe": 60, "interval": 5, "skillIds": "all"})
    told: dict[int, Any] = {}
    newest = (0, 0)
    for seconds in range(0, 3600, 97):
        now = NOW + timedelta(seconds=seconds)
        answer = json.loads(aggregates.answer("1", question, now))
        for each in answer["metricsByIntervals"]:
            if each["timestamp"] <= now.timestamp() * 1000:
                assert told.setdefault(each["timestamp"], each) == each
        latest = answer["metricsByIntervals"][0]
        total = latest["metricsData"]["skillsMetricsPerAgent"]["metricsTotals"][COUNT]
        assert newest <= (latest["timestamp"], total)
        newest = (latest["timestamp"], total)


def test_the_source_is_asked_for_closed_buckets_once_and_never_about_the_future() -> None:
    asked: list[tuple[datetime, datetime]] = []
    synthetic = Synthetic()

    def source(account_id: str, start: datetime, end: datetime) -> Iterable[Conversation]:
        asked.append((start, end))
        return synthetic(account_id, start, end)

    aggregates = Aggregates(source)
    question = Parameters.parse({"v": 1, "timeframe": 1440, "interval": 5})
    aggregates.answer("1", question, NOW)
    aggregates.answer("1", question, NOW)
    aggregates.answer("1", question, NOW + BUCKET)
    edge = floor(NOW)
    assert [
        (floor(NOW - timedelta(days=1)), edge),
        (edge, NOW),
        (edge, NOW),
        (edge, edge + BUCKET),
        (edge + BUCKET, NOW + BUCKET),
    ] == asked


def test_a_clock_moved_back_sees_the_past_again() -> None:
    aggregates = Aggregates(Synthetic())
    question = Parameters.parse({"v": 1, "timeframe": 60, "interval": 5})
    before = aggregates.answer("1", question, NOW)
    aggregates.answer("1", question, NOW + timedelta(days=3))
    assert before == aggregates.answer("1", question, NOW)


def test_what_is_kept_is_bounded_in_accounts_and_in_buckets() -> None:
    aggregates = Aggregates(lambda *_: ())
    question = Parameters.parse({"v": 1, "timeframe": 1440})
    for number in range(100):
        aggregates.answer(str(number), question, NOW)
    for day in range(5):
        aggregates.answer("99", question, NOW + timedelta(days=day))
    assert 64 == len(aggregates._kept)
    assert 600 >= len(aggregates._kept["99"])


# ---------------------------------------------------------------- speed


def test_a_day_of_67_000_metric_maps_is_answered_in_under_a_second() -> None:
    random_ = random.Random(0)
    start = floor(NOW - timedelta(days=1))
    resolvers: tuple[ResolvedBy, ...] = ("CCP", "consumer", "system")
    source = Recorded(
        Conversation("1", start + n * BUCKET, agent, by, random_.randrange(10**6), skill)
        for n in range(289)
        for agent in range(20)
        for skill in range(10)
        for by in random_.choices(resolvers, k=2)
    )
    aggregates = Aggregates(source)
    parameters = {"v": "1", "timeframe": "1440", "interval": "5"}
    question = Parameters.parse(parameters | {"skillIds": "all", "agentIds": "all"})
    began = time.process_time()
    body = aggregates.answer("1", question, NOW)
    assert 1 > time.process_time() - began
    assert 290 * (10 * 21 + 1 + 21) == body.count(b'"totalResolvedConversations"')
