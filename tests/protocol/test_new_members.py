"""A service may add members any day: answers with them say the same, and are told of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from msgconv_async import ConversationQuery, UnexpectedResponse, decode_report
from msgconv_async.protocol import decoding
from msgconv_async.protocol.new_members import MOST_LEARNT, NewMembers

METRICS = {"resolvedConversations_byCCP": 3, "avgTime_resolvedConversations_byCCP": 2.5}
AGENTS = {"metricsPerAgent": {"7": METRICS, "8": METRICS}, "metricsTotals": METRICS}
SKILLS = {"metricsPerSkill": {"4": AGENTS, "-1": AGENTS}, "metricsTotals": METRICS}
SECTIONS = {"skillsMetricsPerAgent": SKILLS, "agentsMetrics": AGENTS, "metricsTotals": METRICS}
END = 1_772_625_600_000
DOCUMENT = {
    **SECTIONS,
    "metricsByIntervals": [
        {"timestamp": END, "metricsData": SECTIONS},
        {"timestamp": END + 300_000, **SECTIONS},
    ],
}
PLACES = (
    "$",
    "$.skillsMetricsPerAgent",
    "$.skillsMetricsPerAgent.metricsPerSkill[*]",
    "$.skillsMetricsPerAgent.metricsPerSkill[*].metricsPerAgent[*]",
    "$.skillsMetricsPerAgent.metricsTotals",
    "$.agentsMetrics",
    "$.agentsMetrics.metricsPerAgent[*]",
    "$.metricsTotals",
    "$.metricsByIntervals[*]",
    "$.metricsByIntervals[*].metricsData",
    "$.metricsByIntervals[*].metricsData.metricsTotals",
    "$.metricsByIntervals[*].skillsMetricsPerAgent.metricsPerSkill[*].metricsTotals",
)


@pytest.fixture(autouse=True)
def nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> NewMembers:
    new = NewMembers()
    monkeypatch.setattr(decoding, "_NEW", new)
    return new


def _objects(document: Any, path: str = "$") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(document, list):
        for element in document:
            yield from _objects(element, f"{path}[*]")
    elif isinstance(document, dict):
        of_ids = all(key.lstrip("-").isdigit() for key in document)
        if not of_ids:
            yield path, document
        for key, inner in document.items():
            yield from _objects(inner, f"{path}[*]" if of_ids else f"{path}.{key}")


def _with(is_chosen: Callable[[str], bool], **members: Any) -> bytes:
    document = json.loads(json.dumps(DOCUMENT))
    for path, found in list(_objects(document)):
        if is_chosen(path):
            found.update(members)
    return json.dumps(document).encode()


@pytest.mark.parametrize("place", PLACES)
def test_a_new_member_anywhere_changes_nothing_and_is_told(place: str) -> None:
    """The first time, when it is learnt, and from then on."""
    plain = decode_report(json.dumps(DOCUMENT).encode())
    body = _with(lambda path: path == place, newMember={"of": ["anything", 1.5]})
    for _ in range(3):
        told: list[str] = []
        assert plain == decode_report(body, on_unknown=told.append)
        assert {f"{place}.newMember"} == set(told)


def test_new_members_everywhere_are_all_told(nothing_learnt: NewMembers) -> None:
    plain = decode_report(json.dumps(DOCUMENT).encode())
    places = {path for path, _ in _objects(DOCUMENT)}
    body = _with(lambda _: True, one=1, other=None)
    for _ in range(2):
        told: list[str] = []
        assert plain == decode_report(body, on_unknown=told.append)
        assert {f"{path}.{name}" for path in places for name in ("one", "other")} == set(told)
    assert nothing_learnt.expected


def test_what_has_no_new_members_any_more_is_read_the_short_way_again(
    nothing_learnt: NewMembers,
) -> None:
    decode_report(_with(lambda _: True, one=1))
    decode_report(json.dumps(DOCUMENT).encode())
    assert not nothing_learnt.expected


def test_names_without_end_are_read_and_not_learnt(nothing_learnt: NewMembers) -> None:
    plain = decode_report(json.dumps(DOCUMENT).encode())
    for number in range(3 * MOST_LEARNT):
        told: list[str] = []
        body = _with(lambda path: path == "$.metricsTotals", **{f"made_up_{number}": number})
        assert plain == decode_report(body, on_unknown=told.append)
        assert {f"$.metricsTotals.made_up_{number}"} == set(told)
    assert MOST_LEARNT == max(map(len, nothing_learnt._learnt.values()))


@pytest.mark.parametrize("name", ['a "quoted" one', "back\\slash", "new\nline", "", "ü", "$.a[0]"])
def test_a_name_may_be_anything(name: str) -> None:
    plain = decode_report(json.dumps(DOCUMENT).encode())
    for _ in range(2):
        assert plain == decode_report(_with(lambda path: path == "$.metricsTotals", **{name: 1}))


@pytest.mark.parametrize("section", ["skillsMetricsPerAgent", "agentsMetrics", "metricsTotals"])
def test_an_error_in_the_place_of_a_section_is_none_also_when_it_was_learnt(section: str) -> None:
    decode_report(_with(lambda _: True, error="some"))
    query = ConversationQuery(
        60,
        skill_ids="all" if section.startswith("skills") else None,
        agent_ids="all" if section.startswith("agents") else None,
    )
    body = json.dumps(SECTIONS | {section: {"error": "no data"}}).encode()
    with pytest.raises(UnexpectedResponse, match=f"{section} was asked for and is absent"):
        decode_report(body, query)


def test_the_second_spelling_is_understood_beside_a_new_member() -> None:
    plain = decode_report(json.dumps(DOCUMENT).encode())
    for _ in range(2):
        body = _with(lambda path: path == "$.agentsMetrics", new=1)
        spelt = body.replace(b'"skillsMetricsPerAgent"', b'"skillsMetrics"')
        assert spelt != body
        assert plain == decode_report(spelt)


def test_what_is_skipped_must_be_text() -> None:
    body = _with(lambda path: path == "$.metricsTotals", new="text")
    for _ in range(2):
        decode_report(body)
        with pytest.raises(UnexpectedResponse, match="UTF-8"):
            decode_report(body.replace(b'"text"', b'"\xff"'))
