from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean, median
from typing import Any

import msgspec
import pytest

from msgconv_async.errors import ConfigurationError
from msgconv_async.sandbox import Conversation, Recorded, Sandbox, Synthetic

DAY = datetime(2026, 3, 4, tzinfo=UTC)
NEXT = DAY + timedelta(days=1)


def test_synthetic_conversations_depend_on_seed_and_account_alone() -> None:
    told = Synthetic(1)("10000001", DAY, NEXT)
    assert told == Synthetic(1)("10000001", DAY, NEXT)
    assert told != Synthetic(2)("10000001", DAY, NEXT)
    assert told != Synthetic(1)("10000002", DAY, NEXT)


def test_the_order_and_the_size_of_questions_change_nothing() -> None:
    whole = list(Synthetic()("1", DAY, NEXT))
    source = Synthetic()
    list(source("2", NEXT, NEXT + timedelta(hours=3)))
    minutes = [DAY + timedelta(minutes=7 * step) for step in range(206)]
    pieces = [list(source("1", at, min(at + timedelta(minutes=7), NEXT))) for at in minutes[::-1]]
    assert whole == [each for piece in pieces[::-1] for each in piece]


def test_a_synthetic_day_is_busy_by_day_quiet_by_night_and_quieter_at_weekends() -> None:
    source = Synthetic(conversations_per_day=2000)
    hours = Counter(each.resolved_at.hour for each in source("1", DAY, NEXT))
    assert 1600 < hours.total() < 2400
    assert hours[14] > 3 * hours[2]
    saturday = DAY + timedelta(days=3)
    assert 0.7 * hours.total() > len(list(source("1", saturday, saturday + timedelta(days=1))))


def test_synthetic_handling_times_have_a_long_tail_in_milliseconds() -> None:
    times = [each.handling_time_ms for each in Synthetic()("1", DAY, NEXT)]
    assert 60_000 < median(times) < mean(times) < 3_600_000
    assert max(times) > 10 * median(times)


def test_a_synthetic_account_has_the_sizes_asked_for() -> None:
    source = Synthetic(skills=4, agents=5, groups=2, conversations_per_day=5000)
    told = list(source("1", DAY, NEXT))
    assert {-1, 1, 2, 3} >= {each.skill for each in told}
    assert -1 in {each.skill for each in told}
    assert 5 == len({each.agent for each in told})
    assert {each.agent: each.group for each in told}.items() == {
        (each.agent, each.group) for each in told
    }
    assert {"CCP", "consumer", "system"} == {each.resolved_by for each in told}


@pytest.mark.parametrize("name", ["skills", "agents", "groups", "conversations_per_day"])
def test_a_synthetic_size_below_1_is_refused(name: str) -> None:
    sizes: dict[str, Any] = {name: 0}
    with pytest.raises(ConfigurationError, match=f"{name}=0: it must be 1 or more"):
        Synthetic(**sizes)


LINE = {
    "account": "12345678",
    "resolved_at": "2026-03-04T09:00:00+01:00",
    "skill": 3,
    "agent": 2,
    "group": 7,
    "resolved_by": "CCP",
    "handling_time_ms": 426,
}


def test_a_file_is_one_json_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "day.ndjson"
    instant = datetime(2026, 3, 4, 8, tzinfo=UTC)
    milliseconds = round(instant.timestamp() * 1000) + 1
    short = {key: LINE[key] for key in ("agent", "resolved_by", "handling_time_ms")}
    short |= {"account": 12345678, "resolved_at": milliseconds}
    path.write_text(f"{json.dumps(short)}\n\n{json.dumps(LINE | {'from': 'a bot'})}\n")
    recorded = Recorded.from_file(path)
    assert ("12345678",) == recorded.account_ids
    assert [
        Conversation("12345678", instant, 2, "CCP", 426, 3, 7),
        Conversation("12345678", instant + timedelta(milliseconds=1), 2, "CCP", 426, -1, None),
    ] == list(recorded("12345678", DAY, NEXT))


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [
        ("resolved_by", "nobody", "nobody"),
        ("handling_time_ms", -1, "handling_time_ms"),
        ("handling_time_ms", 1.5, "handling_time_ms"),
        ("resolved_at", "2026-03-04T09:00:00", "offset"),
        ("resolved_at", "yesterday", "resolved_at"),
        ("resolved_at", 10**17, "years"),
        ("skill", "three", "skill"),
        ("agent", 2**63, "agent"),
        ("account", None, "account"),
    ],
)
def test_a_bad_line_is_reported_with_its_number(
    tmp_path: Path, member: str, value: Any, reason: str
) -> None:
    path = tmp_path / "day.ndjson"
    path.write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE | {member: value})}\n")
    with pytest.raises(ConfigurationError, match=rf"day\.ndjson, line 2: .*{reason}"):
        Recorded.from_file(path)


@pytest.mark.parametrize("line", ["{", "[]", "null", '{"account": "1"}', "\xff"])
def test_a_line_that_is_no_conversation_is_reported_with_its_number(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "day.ndjson"
    path.write_bytes(line.encode("latin-1"))
    with pytest.raises(ConfigurationError, match="line 1: "):
        Recorded.from_file(path)


def test_conversations_encoded_one_a_line_are_read_back_as_they_were(tmp_path: Path) -> None:
    told = Synthetic()("10000001", DAY, NEXT)
    path = tmp_path / "day.ndjson"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, told)))
    assert told == Recorded.from_file(path)("10000001", DAY, NEXT)


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Sandbox(events=tmp_path / "none.ndjson")
    (tmp_path / "empty.ndjson").write_text("\n")
    with pytest.raises(ConfigurationError, match="at least one"):
        Sandbox(events=tmp_path / "empty.ndjson")


async def test_a_recorded_day_is_replayed_from_where_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "day.ndjson"
    path.write_text(json.dumps(LINE))
    async with Sandbox(events=path) as sandbox:
        assert ("12345678",) == sandbox.account_ids
        ended = sandbox.clock() - DAY
        assert timedelta(hours=8, minutes=5) <= ended < timedelta(hours=8, minutes=6)
        assert 1 == len(sandbox.resolved("12345678", DAY, NEXT))
