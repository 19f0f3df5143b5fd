import copy
import dataclasses
import json
import operator
import pickle
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgconv_async.errors import InvalidQuery
from msgconv_async.protocol.query import ConversationQuery, HttpRequest

ORIGIN = "https://va.data.example.net"
PATH = "/operations/api/account/12345678/msgconversation"

ids = st.integers(-(2**63), 2**63 - 1)


class Number:
    """A whole number of somebody else's making, such as NumPy's."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def refusal(parameter: str, **arguments: Any) -> InvalidQuery:
    with pytest.raises(InvalidQuery) as caught:
        ConversationQuery(**{"timeframe": 60, **arguments})
    assert parameter == caught.value.parameter
    assert f"{parameter}=" in str(caught.value)
    return caught.value


# -- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "timeframe", [0, -1, 1441, 10**30, 10**5000], ids=["0", "-1", "1441", "huge", "unprintable"]
)
def test_timeframe_outside_a_day_is_refused(timeframe: int) -> None:
    """The service keeps 1440 minutes, and the message says so."""
    error = refusal("timeframe", timeframe=timeframe)

    assert timeframe == error.value
    assert "1 to 1440 minutes" in str(error)


@pytest.mark.parametrize("timeframe", [1, 7, 1440, Number(60)])
def test_timeframe_within_a_day_is_taken(timeframe: Any) -> None:
    """Every whole number of minutes up to a day may be asked, on a bucket's edge or not."""
    assert operator.index(timeframe) == ConversationQuery(timeframe).timeframe


not_whole = pytest.mark.parametrize(
    "value",
    [True, False, 60.0, float("nan"), float("inf"), "60", "60 ", "sixty", b"60", [60], Decimal(60)],
    ids=repr,
)


@not_whole
@pytest.mark.parametrize(
    ("name", "parameter"),
    [("timeframe", "timeframe"), ("interval", "interval"), ("version", "version")],
)
def test_what_is_not_a_whole_number_is_refused(name: str, parameter: str, value: object) -> None:
    """Minutes and versions are ints: no truth value, float or text is read as one."""
    error = refusal(name, **{name: value})

    assert value is error.value
    assert "whole number" in str(error)


def test_a_timeframe_is_required() -> None:
    """None is no time frame."""
    assert refusal("timeframe", timeframe=None).value is None


@pytest.mark.parametrize(
    ("timeframe", "interval"), [(60, 61), (60, 31), (60, 65), (60, 25), (60, 120), (7, 5)]
)
def test_interval_that_does_not_divide_the_timeframe_is_refused(
    timeframe: int, interval: int
) -> None:
    """The page's own bad requests, and others like them, are never sent."""
    assert interval == refusal("interval", timeframe=timeframe, interval=interval).value


def test_interval_that_does_not_divide_says_which_timeframe() -> None:
    """The rule names the other number that it depends on."""
    error = refusal("interval", timeframe=60, interval=25)

    assert "interval=25: it must divide the timeframe of 60 minutes" == str(error)


@pytest.mark.parametrize(
    ("timeframe", "interval"), [(60, 0), (60, -5), (60, 1), (60, 4), (14, 7), (60, 6), (60, 12)]
)
def test_interval_that_is_not_whole_buckets_is_refused(timeframe: int, interval: int) -> None:
    """An interval that no number of five-minute buckets fills would not hold what it names."""
    error = refusal("interval", timeframe=timeframe, interval=interval)

    assert "multiple of 5" in str(error)


@given(st.integers(-10, 1500), st.integers(-10, 1500))
def test_an_interval_is_taken_exactly_where_the_rules_allow_it(
    timeframe: int, interval: int
) -> None:
    """Whole buckets that divide a time frame of at most a day: no more and no less."""
    allowed = (
        1 <= timeframe <= 1440
        and 5 <= interval <= timeframe
        and interval % 5 == 0
        and timeframe % interval == 0
    )
    try:
        query = ConversationQuery(timeframe, interval=interval)
    except InvalidQuery:
        assert not allowed
    else:
        assert allowed
        assert (timeframe, interval) == (query.timeframe, query.interval)


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_below_one_is_refused(version: int) -> None:
    """The API counts its versions from 1."""
    assert version == refusal("version", version=version).value


id_parameters = pytest.mark.parametrize(
    ("name", "parameter"),
    [("skill_ids", "skillIds"), ("agent_ids", "agentIds"), ("group_ids", "groupIds")],
)


@id_parameters
@pytest.mark.parametrize("empty", [(), [], set(), iter(())])
def test_no_ids_at_all_are_refused(name: str, parameter: str, empty: Iterable[int]) -> None:
    """An empty list is more likely a mistake than a wish for everything; the message says both."""
    error = refusal(name, **{name: empty})

    assert '"all"' in str(error)


BAD_IDS: dict[str, Any] = {
    "empty": "",
    "space before": " 4",
    "space after": "4 ",
    "newline": "4\n",
    "two in one": "4,15",
    "semicolon": "4;15",
    "plus": "+4",
    "two signs": "--4",
    "fraction": "4.0",
    "exponent": "4e3",
    "hexadecimal": "0x4",
    "underscore": "1_000",
    "not ASCII": "\N{ARABIC-INDIC DIGIT FOUR}",
    "word": "four",
    "shouted": "ALL",
    "20 digits": "9" * 20,
    "5000 digits": "9" * 5000,
    "text over a long": str(2**63),
    "over a long": 2**63,
    "under a long": -(2**63) - 1,
    "unprintable": 10**5000,
    "bool": True,
    "float": 4.0,
    "NaN": float("nan"),
    "Decimal": Decimal(4),
    "Fraction": Fraction(4),
    "bytes": b"4",
    "bytearray": bytearray(b"4"),
    "memoryview": memoryview(b"4"),
}


@id_parameters
@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
def test_what_is_not_an_id_is_refused(name: str, parameter: str, bad: object) -> None:
    """Alone or among good ones, what the service would not read as a long is named and refused."""
    alone = refusal(name, **{name: bad})
    among = refusal(name, **{name: [4, bad, 15]})

    assert bad is alone.value
    assert bad is among.value
    assert "64-bit integer" in str(alone)


@pytest.mark.parametrize("bad", [None, {}, [4], "all", object()])
def test_what_is_not_an_id_is_refused_among_ids(bad: object) -> None:
    """What would be understood alone, or nowhere, is no id in a list of ids."""
    assert bad is refusal("skill_ids", skill_ids=[4, bad]).value


# -- What is taken --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_ids", "expected"),
    [
        (4, (4,)),
        (-1, (-1,)),
        (0, (0,)),
        ("4", (4,)),
        ("-1", (-1,)),
        (2**63 - 1, (2**63 - 1,)),
        (-(2**63), (-(2**63),)),
        (Number(4), (4,)),
        ([4, 15, 3], (4, 15, 3)),
        (("4", 15, Number(3)), (4, 15, 3)),
        ({4}, (4,)),
        (range(3), (0, 1, 2)),
        ((each for each in (4, 15, 3)), (4, 15, 3)),
        ({4: "sales", 15: "service"}.keys(), (4, 15)),
        ([3, 15, 3, "3", 4, 15], (3, 15, 4)),
    ],
)
def test_ids_are_taken_in_any_iterable_once_and_in_order(
    given_ids: Any, expected: tuple[int, ...]
) -> None:
    """One id or many, as numbers or digits: each is kept once, in its first place."""
    assert expected == ConversationQuery(60, skill_ids=given_ids).skill_ids


@id_parameters
def test_each_kind_of_id_is_taken_alike(name: str, parameter: str) -> None:
    """Skills, agents and groups are given in the same way."""
    query = ConversationQuery(60, **{name: [4, "15", 4]})  # type: ignore[arg-type]

    assert (4, 15) == getattr(query, name)
    assert {"timeframe": "60", "v": "1", parameter: "4,15"} == query.parameters()


def test_a_generator_of_ids_is_read_once() -> None:
    """What can be read only once is read once."""
    query = ConversationQuery(60, skill_ids=(each for each in (4, 15, 3)))

    assert (4, 15, 3) == query.skill_ids
    assert "4,15,3" == query.parameters()["skillIds"]


@given(st.lists(ids, min_size=1))
def test_duplicates_go_once_and_order_stays(given_ids: list[int]) -> None:
    """Whatever ids are given, the order of first mention is the order sent."""
    sent = ConversationQuery(60, agent_ids=given_ids).parameters()["agentIds"].split(",")

    assert list(dict.fromkeys(map(str, given_ids))) == sent


def test_all_is_a_word_and_none_is_left_out() -> None:
    """The word "all" goes as it is; what was not asked for is not sent."""
    query = ConversationQuery(60, skill_ids="all")

    assert "all" == query.skill_ids
    assert {"timeframe": "60", "v": "1", "skillIds": "all"} == query.parameters()


# -- A value among values -------------------------------------------------------------------------


def test_queries_that_ask_the_same_are_equal() -> None:
    """However it was put, the same question is one key in a set or a cache."""
    one = ConversationQuery(60, interval=30, skill_ids=[4, 15], agent_ids=2)
    same = ConversationQuery(
        Number(60),  # type: ignore[arg-type]
        interval=Number(30),  # type: ignore[arg-type]
        skill_ids=(str(each) for each in (4, 15, 4)),
        agent_ids={2},
    )

    assert one == same
    assert 1 == len({one, same})


@pytest.mark.parametrize(
    "other",
    [
        ConversationQuery(30, interval=30, skill_ids=4),
        ConversationQuery(60, skill_ids=4),
        ConversationQuery(60, interval=30, skill_ids="all"),
        ConversationQuery(60, interval=30, agent_ids=4),
        ConversationQuery(60, interval=30, skill_ids=4, group_ids=1),
        ConversationQuery(60, interval=30, skill_ids=4, version=2),
    ],
)
def test_queries_that_ask_something_else_are_not_equal(other: ConversationQuery) -> None:
    """Each part of the question counts."""
    assert ConversationQuery(60, interval=30, skill_ids=4) != other


def test_a_query_does_not_change() -> None:
    """A query checked once stays valid, since nothing can be assigned to it."""
    query = ConversationQuery(60)

    with pytest.raises(dataclasses.FrozenInstanceError):
        query.timeframe = 0  # type: ignore[misc]


def test_a_query_survives_pickle_copy_and_replace() -> None:
    """A query crosses a process pool, and a changed copy is checked again."""
    query = ConversationQuery(60, interval=30, skill_ids=[4, 15])

    assert query == pickle.loads(pickle.dumps(query)) == copy.deepcopy(query)
    assert ConversationQuery(60, skill_ids=[4, 15]) == dataclasses.replace(query, interval=None)
    with pytest.raises(InvalidQuery):
        dataclasses.replace(query, interval=31)


# -- On the wire ----------------------------------------------------------------------------------


def sent(request: HttpRequest) -> dict[str, str]:
    """What the service would read."""
    if request.method == "GET":
        assert request.body is None
        return dict(parse_qsl(urlsplit(request.url).query, strict_parsing=True))
    assert request.body is not None
    assert "?" not in request.url
    read = json.loads(request.body)
    assert isinstance(read, dict)
    return read


def test_a_question_is_a_get_with_the_pages_parameters() -> None:
    """Every parameter goes under the page's name, lists separated by commas."""
    query = ConversationQuery(
        60, interval=30, skill_ids=[4, 15, 3], agent_ids="all", group_ids=[123, 124]
    )

    request = query.http_request(ORIGIN, "12345678")

    assert "GET" == request.method
    assert f"{ORIGIN}{PATH}" == request.url.partition("?")[0]
    assert {
        "timeframe": "60",
        "v": "1",
        "skillIds": "4,15,3",
        "agentIds": "all",
        "interval": "30",
        "groupIds": "123,124",
    } == sent(request)


def test_the_smallest_question_sends_the_two_required_parameters() -> None:
    """The account's totals need a time frame and a version."""
    request = ConversationQuery(60).http_request(ORIGIN, "12345678")

    assert {"timeframe": "60", "v": "1"} == sent(request)


def test_fifty_thousand_agents_are_a_post_with_the_pages_body() -> None:
    """A list that no URL holds goes as JSON, all values strings, as in the page's example."""
    agents = range(2_152_260_212, 2_152_260_212 + 50_000)
    query = ConversationQuery(
        1440, interval=1440, skill_ids=[1, 2], agent_ids=agents, group_ids=[123, 124]
    )

    request = query.http_request(ORIGIN, "12345678")

    assert "POST" == request.method
    assert f"{ORIGIN}{PATH}" == request.url
    assert {
        "timeframe": "1440",
        "v": "1",
        "agentIds": ",".join(map(str, agents)),
        "interval": "1440",
        "skillIds": "1,2",
        "groupIds": "123,124",
    } == sent(request)


@pytest.mark.parametrize(("length", "method"), [(1999, "GET"), (2000, "POST"), (2001, "POST")])
def test_the_url_stays_below_two_thousand_characters(length: int, method: str) -> None:
    """1,999 characters are a URL; 2,000 are a body."""
    query = ConversationQuery(60, agent_ids=[4, 15, 3])
    spare = length - len(query.http_request("https://", "12345678").url)

    request = query.http_request(f"https://{'h' * spare}", "12345678")

    assert method == request.method
    assert query.parameters() == sent(request)
    if method == "GET":
        assert length == len(request.url)


@given(st.lists(ids, min_size=1, max_size=300), st.lists(ids, min_size=1, max_size=20))
def test_a_get_and_a_post_say_the_same(agents: list[int], groups: list[int]) -> None:
    """Whichever way it goes, the service reads the parameters of the query and no others."""
    query = ConversationQuery(60, interval=5, agent_ids=agents, group_ids=groups)

    request = query.http_request(ORIGIN, "12345678")

    assert query.parameters() == sent(request)
    assert len(request.url) < 2000
