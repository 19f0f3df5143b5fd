"""Every public function refuses a wrong argument with one sentence that names it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import msgconv_async
from msgconv_async import (
    Account,
    ApiKey,
    BearerToken,
    Checkpoint,
    CheckpointStore,
    ClientCredentials,
    ConfigurationError,
    ConversationQuery,
    ConversationSession,
    InvalidQuery,
    Move,
    Pacer,
    RetryPolicy,
    UserLogin,
    decode_report,
    read_accounts,
)
from msgconv_async.sandbox import Clock, Conversation, Recorded, Sandbox, Synthetic

WHO = Account("1", BearerToken("t"))
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = ConversationQuery(60)
NAIVE = datetime(2026, 3, 4)  # noqa: DTZ001
SAID = Conversation("1", NOW, 1, "CCP", 1)
ODD: list[Any] = [
    replace(SAID, **{name: value})
    for name, value in (
        *(("account", 5), ("resolved_at", NAIVE), ("resolved_at", "now"), ("agent", 2**64)),
        *(("agent", "x"), ("resolved_by", "me"), ("handling_time_ms", -1), ("skill", "x")),
        ("group", "x"),
    )
]
NO_WHOLE: list[Any] = [None, "5", 1.5, True, [], math.nan]
NO_NUMBER: list[Any] = ["5", True, [], math.nan, -1, math.inf]

Call = Callable[[Any], object]


def keyword(function: Callable[..., object], name: str, *arguments: Any) -> Call:
    """Return what calls a function with one of its keywords."""
    return lambda value: function(*arguments, **{name: value})


def _with(kind: Any, fill: list[str], place: int, it: Any) -> object:
    return kind(*fill[:place], it, *fill[place + 1 :])


def account_cases() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield what is called, the name that must be told, how, and what is wrong there."""
    bad_text: list[Any] = [None, 5, b"x", "", [], True]
    yield "Account", "account id", lambda it: Account(it, BearerToken("t")), [*bad_text, "a/b"]
    yield "Account", "credentials", lambda it: Account("1", it), [None, "secret", 5]
    yield "Account", "host", lambda it: Account("1", BearerToken("t"), host=it), [5, "", "a/b"]
    yield "BearerToken", "token", BearerToken, [*bad_text, "a b"]
    for kind, count in ((ClientCredentials, 2), (UserLogin, 2), (ApiKey, 4)):
        for place in range(count):
            fill = ["x"] * count

            made = partial(_with, kind, fill, place)
            yield kind.__name__, kind.__name__, made, [*bad_text, "x\n"]


def setting_cases() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield the same of queries, policies and pacers."""
    for name in ("timeframe", "interval", "version"):
        bad = ["5", 1.5, True, [], -5, 10**400]
        made = keyword(ConversationQuery, name, *(() if name == "timeframe" else (60,)))
        yield "ConversationQuery", name, made, bad
    for name in ("skill_ids", "agent_ids", "group_ids"):
        made = keyword(ConversationQuery, name, 60)
        yield "ConversationQuery", name, made, ["", "some", 1.5, True, [], [None], b"1", [2**63]]

    for name in ("throttle_wait", "login_throttle_wait", "retry_after_ceiling", "jitter"):
        yield "RetryPolicy", name, keyword(RetryPolicy, name), [*NO_NUMBER, None]
    yield "RetryPolicy", "attempt_timeout", keyword(RetryPolicy, "attempt_timeout"), [0, "5", True]
    yield (
        "RetryPolicy",
        "waits",
        keyword(RetryPolicy, "waits"),
        [None, 5, "5", b"12", {1: 2}, {1}, [-1], ["x"], [True]],
    )
    for name in ("rate", "concurrency"):
        yield "Pacer", name, keyword(Pacer, name), [None, "5", True, 0, [1, 2], (2, 1), (1, 2, 3)]


def session_settings() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield the same of sessions, and of what reads."""
    make = ConversationSession
    yield "ConversationSession", "http", keyword(make, "http"), [5, "x", object()]
    yield "ConversationSession", "base_url", keyword(make, "base_url"), [5, "x", "ftp://x", b"x"]
    yield "ConversationSession", "retry", keyword(make, "retry"), [5, "x", RetryPolicy]
    yield "ConversationSession", "pacer", keyword(make, "pacer"), [None, 5, Pacer()]
    yield "ConversationSession", "coalesce", keyword(make, "coalesce"), [None, 1, "no"]
    yield "ConversationSession", "fresh_for", keyword(make, "fresh_for"), [None, *NO_NUMBER]
    yield "ConversationSession", "max_body", keyword(make, "max_body"), [*NO_WHOLE, 0]

    yield "Checkpoint.from_json", "checkpoint", Checkpoint.from_json, [None, 5, "", b"[]", "{"]
    yield "Checkpoint.of", "moves", Checkpoint.of, [None, 5, "x", [None]]
    for name, bad in (("accounts", [None, 5, "1", ["1"]]), ("query", [None, 5])):
        yield "Checkpoint", name, keyword(Checkpoint, name), bad
    yield "Checkpoint", "clocks", keyword(Checkpoint, "clocks"), [None, 5, "1"]
    yield "Move", "account_id", lambda it: Move(it, ""), [None, 5]
    yield "Move", "query", lambda it: Move("1", it), [None, 2]
    for name in ("position", "clock"):
        yield "Move", name, keyword(Move, name, "1", ""), [5, "x"]
    yield "Move.from_json", "move", Move.from_json, [None, 5, "", b"[]", "{"]
    yield "CheckpointStore", "path", CheckpointStore, [None, 5, "", b"x", "a\0b"]
    yield "read_accounts", "", read_accounts, [None, 5, "/no/such/file", "a\0b"]
    yield "decode_report", "body", decode_report, [None, 5, "{}", "", [], object()]
    yield "decode_report", "on_unknown", keyword(decode_report, "on_unknown", b"{}"), [5, "x", True]
    yield "decode_report", "query", lambda it: decode_report(b"{}", it), [60, "all"]
    yield "decode_report", "at", lambda it: decode_report(b"{}", at=it), [NAIVE, 5]


def sandbox_cases() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield the same of the local server."""
    for name in ("accounts", "burst", "port"):
        yield "Sandbox", name, keyword(Sandbox, name), [*NO_WHOLE, -1]
    for name in ("latency", "token_lifetime"):
        yield "Sandbox", name, keyword(Sandbox, name), [None, *NO_NUMBER]
    for name in ("rate", "retry_after"):
        yield "Sandbox", name, keyword(Sandbox, name), NO_NUMBER
    yield "Sandbox", "concurrency", keyword(Sandbox, "concurrency"), ["5", 1.5, True, 0]
    yield "Sandbox", "clock", keyword(Sandbox, "clock"), [5, NAIVE]
    yield "Sandbox", "fault", keyword(Sandbox, "fault"), [5, "x"]
    yield "Sandbox", "seed", keyword(Sandbox, "seed"), ["x", 1.5, None, True]
    yield "Sandbox", "events", keyword(Sandbox, "events"), [5, "", "a\0b", b"x", []]
    yield "Sandbox", "host", keyword(Sandbox, "host"), [None, 5, "", " ", b"x"]
    date = keyword(Sandbox, "retry_after_date")
    yield "Sandbox", "retry_after_date", date, [None, 1, "x", datetime.now(UTC)]
    yield "Sandbox.add", "conversation", Sandbox().add, [None, 5, "x", SAID, *ODD]
    fail = Sandbox().fail_next
    yield "Sandbox.fail_next", "times", fail, [*NO_WHOLE, 0]
    yield "Sandbox.fail_next", "status", keyword(fail, "status"), [*NO_WHOLE, 200, 600]
    yield "Sandbox.fail_next", "account_id", keyword(fail, "account_id"), [5, "5", []]
    known = Sandbox().account_ids[0]
    resolved = Sandbox().resolved
    yield "Sandbox.resolved", "account_id", lambda it: resolved(it, NOW, NOW), [None, 5, "5", []]
    yield "Sandbox.resolved", "start", lambda it: resolved(known, it, NOW), [None, 5, NAIVE]
    yield "Sandbox.resolved", "end", lambda it: resolved(known, NOW, it), [None, 5, NAIVE]
    yield "Clock", "start", Clock, [NAIVE, 5, "now"]
    yield "Clock.advance", "by", Clock().advance, [None, 5, "5", 1.5]
    yield "Synthetic", "seed", Synthetic, ["x", 1.5, None, True, -1]
    yield "Recorded", "conversation", Recorded, [None, 5, "x", [], [5], ["x"], SAID]
    yield "Recorded", "conversation", Recorded, [[odd] for odd in ODD]
    for name in ("skills", "agents", "groups", "conversations_per_day"):
        yield "Synthetic", name, keyword(Synthetic, name), [*NO_WHOLE, 0]
    bad: list[Any] = [None, 5, b"x", "", "a\0b", [], Path("/no/such/file")]
    yield "Recorded.from_file", "", Recorded.from_file, bad


def cases() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield all of them."""
    yield from account_cases()
    yield from setting_cases()
    yield from session_settings()
    yield from sandbox_cases()


def session_cases() -> Iterator[tuple[str, str, Callable[[ConversationSession, Any], Any], Any]]:
    """Yield the same of the methods of a session that is open."""

    def follow(name: str) -> Callable[[ConversationSession, Any], Any]:
        return lambda session, it: session.follow([WHO], HOUR, **{name: it})

    yield "follow", "account", lambda session, it: session.follow(it, HOUR), [5, ["1"], [], None]
    yield "follow", "query", lambda session, it: session.follow([WHO], it), [5, [5], [], None]
    yield (
        "follow",
        "since",
        follow("since"),
        [
            *(5, "x", NAIVE, timedelta(), timedelta(days=2), timedelta.min),
            *(Checkpoint({"1": 5}), Checkpoint({1: 5}), Checkpoint(clocks={"1": 5})),  # type: ignore[dict-item]
        ],
    )
    yield "follow", "settle", follow("settle"), [*NO_WHOLE, -1, 289]
    yield "follow", "revise", follow("revise"), [None, 1, "no"]
    yield "follow", "over", follow("over"), [5, "x", timedelta(seconds=-1)]
    yield "follow", "timeout", follow("timeout"), [0, -1, "5", True, math.nan]
    yield "follow", "max_in_flight", follow("max_in_flight"), [*NO_WHOLE, 0]
    yield "follow", "clock", follow("clock"), [None, 5, lambda: NAIVE, lambda: 5]
    many = "fetch_many"
    yield many, "accounts", lambda session, it: session.fetch_many(it, HOUR), [5, None]
    yield many, "query", lambda session, it: session.fetch_many([WHO], it), [5, "all"]
    for name, bad in (("timeout", [0, -1, "5", True]), ("max_in_flight", [*NO_WHOLE, 0])):

        def fetch_many(session: ConversationSession, it: Any, name: str = name) -> Any:
            return session.fetch_many([WHO], HOUR, **{name: it})

        yield many, name, fetch_many, bad
    yield "at_hand", "account", lambda session, it: session.at_hand(it, HOUR), [None, 5, "1", []]
    yield "at_hand", "query", lambda session, it: session.at_hand(WHO, it), [None, 5, []]
    yield "pacer", "account", lambda session, it: session.pacer(it), [None, "1"]
    yield "stats", "account", lambda session, it: session.stats(it), [None, "1"]


async_cases = [
    ("account", lambda session, it: session.fetch(it, HOUR), [None, "1"]),
    ("query", lambda session, it: session.fetch(WHO, it), [None, 60]),
    ("timeout", lambda session, it: session.fetch(WHO, HOUR, timeout=it), [0, -1, "5", True]),
    ("account", lambda session, it: session.fetch_document(it, HOUR), [None, "1"]),
    ("query", lambda session, it: session.fetch_document(WHO, it), [None, 60]),
    ("timeout", lambda session, it: session.fetch_document(WHO, HOUR, timeout=it), [0, "5"]),
    ("account", lambda session, it: session.fetch_shared(it, HOUR), [None, "1", []]),
    ("query", lambda session, it: session.fetch_shared(WHO, it), [None, 60, []]),
    ("timeout", lambda session, it: session.fetch_shared(WHO, HOUR, timeout=it), [0, "5"]),
]


def _each(cases: Any) -> list[Any]:
    return [
        pytest.param(*name, call, value, id=f"{'.'.join(name)}, {place}: {type(value).__name__}")
        for *name, call, values in cases
        for place, value in enumerate(values)
    ]


def told(error: Exception, name: str) -> None:
    text = str(error)
    assert name.replace("_", "") in text.replace("_", ""), text
    assert "\n" not in text.strip()
    assert len(text) < 300


@pytest.mark.parametrize(("what", "name", "call", "value"), _each(cases()))
def test_a_wrong_argument_is_one_sentence(what: str, name: str, call: Call, value: Any) -> None:
    """Of the library's own error, whatever the type or the value."""
    with pytest.raises((ConfigurationError, InvalidQuery)) as caught:
        call(value)
    told(caught.value, name)
    assert what


@pytest.mark.parametrize(("what", "name", "call", "value"), _each(session_cases()))
async def test_a_wrong_argument_of_a_session_is_one_sentence(
    what: str, name: str, call: Any, value: Any
) -> None:
    """It is told at once, and not when something is awaited."""
    async with ConversationSession(base_url="http://127.0.0.1:1") as session:
        with pytest.raises((ConfigurationError, InvalidQuery)) as caught:
            call(session, value)
    told(caught.value, name)
    assert what


@pytest.mark.parametrize(("name", "call", "value"), _each(async_cases))
async def test_a_wrong_argument_of_a_question_is_one_sentence(
    name: str, call: Any, value: Any
) -> None:
    """Nothing is sent."""
    async with ConversationSession(base_url="http://127.0.0.1:1") as session:
        with pytest.raises((ConfigurationError, InvalidQuery)) as caught:
            await call(session, value)
    told(caught.value, name)


def test_everything_public_that_takes_arguments_is_walked() -> None:
    """A new name is either in the table or only ever made by the library."""
    walked = {what.partition(".")[0] for what, *_ in cases()}
    made_by_the_library = {
        *("AgentBreakdown", "ConversationMetrics", "ConversationReport", "Interval", "Outcome"),
        *("SkillBreakdown", "ClosedBucket", "Failure", "Gap", "Following", "PacerStats"),
        *(
            name
            for name in msgconv_async.__all__
            if name[0].isupper() and issubclass(getattr(msgconv_async, name), Exception)
        ),
    }
    assert set(msgconv_async.__all__) == (walked & set(msgconv_async.__all__)) | made_by_the_library


async def test_right_arguments_are_taken() -> None:
    """Among them the bounds of what is refused."""
    RetryPolicy(waits=(), throttle_wait=0, jitter=0, attempt_timeout=None)
    async with ConversationSession(
        base_url="http://127.0.0.1:1", fresh_for=0, max_body=1
    ) as session:
        session.follow([WHO], [HOUR, HOUR], since=NOW, settle=0, over=timedelta(), timeout=None)
        session.follow((WHO,), HOUR, settle=288, max_in_flight=1, timeout=math.inf)
        session.fetch_many(iter([WHO]), None, timeout=0.1, max_in_flight=1)
