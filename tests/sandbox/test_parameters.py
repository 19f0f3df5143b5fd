from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgconv_async.sandbox.parameters import MalformedRequest, Parameters

GOOD = {"timeframe": "60", "v": "1"}


@pytest.mark.parametrize("timeframe", ["1", "7", "60", "1440", 60])
def test_a_timeframe_of_1_to_1440_minutes_is_answered(timeframe: Any) -> None:
    assert int(timeframe) == Parameters.parse(GOOD | {"timeframe": timeframe}).timeframe


@pytest.mark.parametrize(
    "timeframe",
    [None, "", "0", "1441", "-5", "60.0", "1e2", " 60", "60 ", "abc", "٦٠", 60.0, True, [60], {}],
)
def test_any_other_timeframe_is_a_bad_request(timeframe: Any) -> None:
    with pytest.raises(MalformedRequest, match="timeframe"):
        Parameters.parse(GOOD | {"timeframe": timeframe})


@pytest.mark.parametrize("version", [None, "", "0", "2", "one", "1.0", True])
def test_a_version_other_than_1_is_a_bad_request(version: Any) -> None:
    with pytest.raises(MalformedRequest, match="v must be"):
        Parameters.parse(GOOD | {"v": version})


def test_both_required_parameters_must_be_there() -> None:
    with pytest.raises(MalformedRequest, match="v must be"):
        Parameters.parse({"timeframe": "60"})
    with pytest.raises(MalformedRequest, match="timeframe"):
        Parameters.parse({"v": "1"})


@pytest.mark.parametrize(("timeframe", "interval"), [("60", "30"), ("60", "60"), ("14", "7")])
def test_an_interval_that_divides_the_timeframe_is_answered(timeframe: str, interval: str) -> None:
    question = Parameters.parse({"timeframe": timeframe, "interval": interval, "v": "1"})
    assert int(interval) == question.interval


@pytest.mark.parametrize("interval", ["61", "31", "120", "0", "4", "-5", "", "x", 7.5, False])
def test_an_interval_below_5_or_that_does_not_divide_the_timeframe_is_a_bad_request(
    interval: Any,
) -> None:
    with pytest.raises(MalformedRequest, match="interval"):
        Parameters.parse(GOOD | {"interval": interval})


@pytest.mark.parametrize("name", ["skillIds", "agentIds", "groupIds"])
@pytest.mark.parametrize(
    "ids", ["", ",", "1,", "1,,2", "1 ,2", "x", "1,x", "ALL", "all,1", "1.5", "9" * 19, [1], True]
)
def test_ids_that_are_not_numbers_are_a_bad_request(name: str, ids: Any) -> None:
    with pytest.raises(MalformedRequest, match=name):
        Parameters.parse(GOOD | {name: ids})


def test_ids_are_numbers_separated_by_commas_or_the_word_all() -> None:
    question = Parameters.parse(GOOD | {"skillIds": "4,-1,4", "agentIds": "all", "groupIds": 7})
    assert frozenset({4, -1}) == question.skills
    assert question.agents is not None
    assert 12345 in question.agents
    assert frozenset({7}) == question.groups


def test_without_ids_nothing_is_grouped_and_every_group_counts() -> None:
    question = Parameters.parse(GOOD | {"skillIds": None, "unknown": ["ignored"]})
    assert (None, None) == (question.skills, question.agents)
    assert None in question.groups


TEXT = st.text("0159-,.al \u0660\n", max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=3,
)
NAMES = st.sampled_from(["v", "timeframe", "interval", "skillIds", "agentIds", "groupIds", "?"])


@given(st.dictionaries(NAMES, JSON))
def test_whatever_is_sent_is_a_question_or_a_bad_request(parameters: dict[str, Any]) -> None:
    with contextlib.suppress(MalformedRequest):
        assert 1 <= Parameters.parse(GOOD | parameters).timeframe <= 1440


def test_the_page_s_post_example_is_understood() -> None:
    question = Parameters.parse(
        {
            "timeframe": "1440",
            "v": "1",
            "agentIds": "2152260212,2152260212",
            "interval": "1440",
            "skillIds": "1,2",
        }
    )
    assert (1440, 1440) == (question.timeframe, question.interval)
    assert frozenset({2152260212}) == question.agents
