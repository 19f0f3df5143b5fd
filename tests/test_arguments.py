"""Every public function refuses a wrong argument with one sentence that names it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

from msgconv_async import (
    Account,
    ApiKey,
    BearerToken,
    Checkpoint,
    CheckpointStore,
    ClientCredentials,
    ConfigurationError,
    ConversationQuery,
    ConversationReport,
    ConversationSession,
    Following,
    Interval,
    InvalidQuery,
    Move,
    Pacer,
    RetryPolicy,
    UserLogin,
    decode_report,
    read_accounts,
)
from msgconv_async.export import (
    ACCOUNT_METRICS,
    TABLES,
    intervals,
    roll_up,
    table_files,
    tables_of,
)
from msgconv_async.export.arrow import report_tables, to_tables
from msgconv_async.export.dask import read_metrics
from msgconv_async.export.destination import destination
from msgconv_async.export.files import FileFormat, WholeFile
from msgconv_async.export.files.text import CsvFiles
from msgconv_async.export.frames import to_pandas, to_polars
from msgconv_async.export.pipeline import Reader, conversation_metrics
from msgconv_async.export.store import Store
from msgconv_async.gateway import gateway
from msgconv_async.names import Names, read_names
from msgconv_async.otel import OpenTelemetry
from msgconv_async.pacing.pacer import Turn
from msgconv_async.sandbox import Clock, Conversation, Recorded, Sandbox, Synthetic

WHO = Account("1", BearerToken("t"))
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = ConversationQuery(60)
NAIVE = datetime(2026, 3, 4)  # noqa: DTZ001
BUCKET = Interval(NOW - timedelta(minutes=5), NOW, complete=True)
REPORT = ConversationReport((BUCKET,))
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
    yield "Account", "id: account id", lambda it: Account(it, BearerToken("t")), [*bad_text, "a/b"]
    yield "Account", "credentials", lambda it: Account("1", it), [None, "secret", 5]
    yield "Account", "host", lambda it: Account("1", BearerToken("t"), host=it), [5, "", "a/b"]
    yield "BearerToken", "token", BearerToken, [*bad_text, "a b"]
    for kind, count in ((ClientCredentials, 2), (UserLogin, 2), (ApiKey, 4)):
        for place in range(count):
            fill = ["x"] * count

            made = partial(_with, kind, fill, place)
            yield (
                kind.__name__,
                f"{kind.__match_args__[place]}: {kind.__name__}",
                made,
                [*bad_text, "x\n"],
            )


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
    turn, bad = Pacer().turn(), [*NO_NUMBER[:-1], -1.5]
    yield "Turn.throttled", "retry_after", turn.throttled, bad
    yield "Pacer.believe", "belief", Pacer().believe, [None, 5, (1, 2)]
    for name in ("rate", "concurrency"):
        yield "Pacer", name, keyword(Pacer, name), [None, "5", True, 0, [1, 2], (2, 1), (1, 2, 3)]


async def _awaits(event: object) -> None:
    """Would be called and never run."""


class _Awaits:
    async def __call__(self, event: object) -> None:
        """As `_awaits`."""


def session_settings() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield the same of sessions, and of what reads."""
    make = ConversationSession
    yield "ConversationSession", "http", keyword(make, "http"), [5, "x", object()]
    yield "ConversationSession", "base_url", keyword(make, "base_url"), [5, "x", "ftp://x", b"x"]
    yield "ConversationSession", "retry", keyword(make, "retry"), [5, "x", RetryPolicy]
    yield "ConversationSession", "pacer", keyword(make, "pacer"), [None, 5, Pacer()]
    yield "ConversationSession", "coalesce", keyword(make, "coalesce"), [None, 1, "no"]
    yield "ConversationSession", "fresh_for", keyword(make, "fresh_for"), [None, *NO_NUMBER]
    hook = keyword(make, "on_event")
    yield "ConversationSession", "on_event", hook, [5, "x", _awaits, _Awaits()]
    yield "ConversationSession", "max_body", keyword(make, "max_body"), [*NO_WHOLE, 0]

    yield (
        "Checkpoint.from_json",
        "text: checkpoint",
        Checkpoint.from_json,
        [None, 5, "", b"[]", "{"],
    )
    yield "Checkpoint.of", "moves", Checkpoint.of, [None, 5, "x", [None]]
    for name, bad in (("accounts", [None, 5, "1", ["1"]]), ("query", [None, 5])):
        yield "Checkpoint", name, keyword(Checkpoint, name), bad
    yield "Checkpoint", "clocks", keyword(Checkpoint, "clocks"), [None, 5, "1"]
    yield "Move", "account_id", lambda it: Move(it, ""), [None, 5]
    yield "Move", "query", lambda it: Move("1", it), [None, 2]
    for name in ("position", "clock"):
        yield "Move", name, keyword(Move, name, "1", ""), [5, "x"]
    moves = object.__new__(Following).moves  # it looks at its argument before anything else
    yield "Following.moves", "after", moves, [*NO_WHOLE, -1]
    yield "Following.add", "account", object.__new__(Following).add, [None, 5, "1"]
    yield "Following.remove", "account_id", object.__new__(Following).remove, [None, 5, WHO]
    yield "Move.from_json", "text: move", Move.from_json, [None, 5, "", b"[]", "{"]
    yield "CheckpointStore", "path", CheckpointStore, [None, 5, "", b"x", "a\0b"]
    yield "read_accounts", "path:", read_accounts, [None, 5, "/no/such/file", "a\0b"]
    environment = keyword(read_accounts, "environment", "/no/such/file")
    yield "read_accounts", "environment", environment, [None, 5, "x"]
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
    change = partial(setattr, Sandbox(), "fault")
    yield "Sandbox", "fault", change, [5, "x"]
    yield "Sandbox", "seed", keyword(Sandbox, "seed"), ["x", 1.5, None, True]
    yield "Sandbox", "events", keyword(Sandbox, "events"), [5, "", "a\0b", b"x", []]
    yield "Sandbox", "host", keyword(Sandbox, "host"), [None, 5, "", " ", b"x"]
    date = keyword(Sandbox, "retry_after_date")
    yield "Sandbox", "retry_after_date", date, [None, 1, "x", datetime.now(UTC)]
    yield "Sandbox.add", "conversations", Sandbox().add, [None, 5, "x", SAID, *ODD]
    fail = Sandbox().fail_next
    yield "Sandbox.fail_next", "status", fail, [*NO_WHOLE, 200, 600]
    yield "Sandbox.fail_next", "times", keyword(fail, "times"), [*NO_WHOLE, 0]
    yield "Sandbox.fail_next", "retry_after", keyword(fail, "retry_after"), NO_NUMBER
    yield "Sandbox.fail_next", "account_id", keyword(fail, "account_id"), [5, "5", []]
    known = Sandbox().account_ids[0]
    resolved = Sandbox().resolved
    yield "Sandbox.resolved", "account_id", lambda it: resolved(it, NOW, NOW), [None, 5, "5", []]
    yield "Sandbox.resolved", "start", lambda it: resolved(known, it, NOW), [None, 5, NAIVE]
    yield "Sandbox.resolved", "end", lambda it: resolved(known, NOW, it), [None, 5, NAIVE]
    yield "Clock", "start", Clock, [NAIVE, 5, "now"]
    yield "Clock.advance", "by", Clock().advance, [None, 5, "5", 1.5]
    yield "Synthetic", "seed", Synthetic, ["x", 1.5, None, True, -1]
    yield "Recorded", "conversations: conversation", Recorded, [None, 5, "x", [], [5], ["x"], SAID]
    yield "Recorded", "conversations", Recorded, [[odd] for odd in ODD]
    for name in ("skills", "agents", "groups", "conversations_per_day"):
        yield "Synthetic", name, keyword(Synthetic, name), [*NO_WHOLE, 0]
    bad: list[Any] = [None, 5, b"x", "", "a\0b", [], Path("/no/such/file")]
    yield "Recorded.from_file", "path:", Recorded.from_file, bad


def export_cases() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield the same of tables, files, and what is collected."""
    bad_id: list[Any] = [None, 5, b"1", "", " "]
    bad_path: list[Any] = [None, 5, b"x", "", "a\0b", []]
    yield "intervals", "report", intervals, [None, 5, "x", [], ConversationReport]
    yield "intervals", "report", intervals, [ConversationReport()]
    yield "tables_of", "query", tables_of, [None, 5, "all", [HOUR]]
    yield "roll_up", "intervals", lambda it: roll_up(it, 60), [None, 5, "x", [5], [None], iter("x")]
    yield "roll_up", "intervals: interval", lambda it: roll_up(it, 60), [[BUCKET, BUCKET]]
    bad_minutes = [*NO_WHOLE, 0, -5, 7, 35, 10**400, 36526 * 1440, math.inf]
    yield "roll_up", "minutes", lambda it: roll_up([], it), bad_minutes
    zones: list[Any] = [None, 5, "Europe/Berlin", timedelta()]
    yield "roll_up", "zone", lambda it: roll_up([], 60, zone=it), zones
    rows = ACCOUNT_METRICS.rows
    yield "Table.rows", "account_id", lambda it: rows(it, REPORT), bad_id
    yield "Table.rows", "report", lambda it: rows("1", it), [None, 5, "x", ConversationReport()]
    yield "report_tables", "account_id", lambda it: report_tables(it, REPORT), bad_id
    yield "report_tables", "report", lambda it: report_tables("1", it), [None, 5, "x"]
    bad_buckets = [None, 5, "x", [5], [("1",)], [("1", 5)], [(1, BUCKET)], {"1": BUCKET}]
    yield "to_tables", "buckets", to_tables, bad_buckets
    for made in (to_pandas, to_polars):
        frames: list[Any] = [None, 5, "x", [5], [REPORT], ConversationReport]
        yield made.__name__, "answers", made, frames
        yield made.__name__, "table", partial(made, []), [5, "account_metrics", TABLES, None]
        yield made.__name__, "table", made, [[], REPORT]
    for make in (table_files, CsvFiles):
        what = "table_files" if make is table_files else "TableFiles"
        yield what, "folder", partial(_made, make, 0), bad_path
        yield what, "format", partial(_made, make, 1), [None, 5, "xml", "", "CSV", [], b"csv"]
        yield what, "tables", partial(_made, make, 2), [None, 5, "x", [5], ["skill_metrics"]]
    for form in ("csv", "ndjson", "parquet"):
        yield "TableFiles.add", "account_id", partial(_added, form, report=REPORT), bad_id
        bad_report: list[Any] = [None, 5, "x", ConversationReport()]
        yield "TableFiles.add", "report", partial(_added, form, "1"), bad_report
    yield "WholeFile", "path", WholeFile, bad_path


def _made(make: Any, place: int, it: Any) -> object:
    given = ["/no/such", "csv", TABLES]
    return make(*given[:place], it, *given[place + 1 :])


def _added(form: FileFormat, account_id: Any, report: Any) -> object:
    with TemporaryDirectory() as folder, table_files(folder, form) as files:
        return files.add(account_id, report)


def collection_cases() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield the same of collecting."""

    def source(name: str) -> Call:
        return keyword(conversation_metrics, name, [WHO])

    bad_accounts = [None, 5, "1", [], ["1"], [None], iter(["1"]), [WHO, WHO]]
    bad_ids: list[Any] = ["", "some", 1.5, True, [], [None], b"1", [2**63]]
    bad_shards: list[Any] = [5, "2/8", (1,), (0, 8), (9, 8), (1, 0), (1, 2, 3), (1.0, 8), (1, "8")]
    what = "conversation_metrics"
    yield what, "accounts: account", conversation_metrics, bad_accounts
    for name in ("skills", "agents", "groups"):
        yield what, f"{name}: {name[:-1]}_ids", source(name), bad_ids
    yield what, "settle", source("settle"), [*NO_WHOLE, -1, 289]
    yield what, "append", source("append"), [None, 1, "x"]
    yield what, "over", source("over"), [None, 5, "x", timedelta(seconds=-1), timedelta.min]
    yield what, "shard", source("shard"), [*bad_shards, [1, 2], (True, 8), (1, 1001)]
    yield what, "reader", source("reader"), [5, "x", Reader]
    yield what, "watch", source("watch"), [5, "x", []]
    yield "Reader", "session", Reader, [None, 5, "x"]
    yield "destination", "text: destination", destination, [None, 5, b"duckdb", "", " ", "nowhere"]
    place = destination("duckdb:x.duckdb")
    yield "Store", "destination", Store, [None, 5, "duckdb"]
    yield "Store", "dataset", lambda it: Store(place, it), [None, 5, "", "A b", b"x", "x" * 64]
    yield "Store", "shard", lambda it: Store(place, shard=it), [*bad_shards, (1, 1001)]
    unmade = object.__new__(Store)  # it looks at its arguments before it does anything
    yield "Store.load", "source", unmade.load, [None, 5, "x", [BUCKET]]
    made = conversation_metrics([WHO])
    yield "Store.load", "emptied", lambda it: unmade.load(made, it), [None, 5, iter([])]


def dask_cases() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield the same of what Dask reads."""

    def read(name: str) -> Call:
        return lambda it: read_metrics([WHO], HOUR, **{"table": "account_metrics", name: it})

    what = "read_metrics"
    bad_accounts = [None, 5, "1", [], ["1"], [None], [WHO, WHO]]
    yield what, "accounts: account", lambda it: read_metrics(it, HOUR), bad_accounts
    yield what, "query", lambda it: read_metrics([WHO], it), [None, 5, "all", [HOUR]]
    yield what, "table", read("table"), [None, 5, "", "metrics", "skill_metrics", ACCOUNT_METRICS]
    yield what, "partitions", read("partitions"), [*NO_WHOLE[1:], 0, -1]
    yield what, "failures", read("failures"), [None, 5, "", "row", True]
    yield what, "base_url", read("base_url"), [5, "x", "ftp://x", b"x"]
    yield what, "timeout", read("timeout"), [0, -1, "5", True, math.nan]
    yield what, "max_in_flight", read("max_in_flight"), [*NO_WHOLE, 0]


def gateway_cases() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield the same of the gateway."""

    def made(name: str) -> Call:
        return keyword(gateway, name, [WHO])

    bad_accounts = [None, 5, "1", [], ["1"], [None], [WHO, WHO]]
    yield "gateway", "accounts: account", gateway, bad_accounts
    yield "gateway", "base_url", made("base_url"), [5, "x", "ftp://x", b"x"]
    yield "gateway", "fresh_for", made("fresh_for"), [None, *NO_NUMBER]
    yield "gateway", "max_wait", made("max_wait"), [None, *NO_NUMBER, 0]
    yield "gateway", "token", made("token"), [5, "", " ", b"secret", ["secret"]]
    yield "gateway", "state", made("state"), [5, "", "a\0b", b"x", []]
    yield "gateway", "page", made("page"), [None, 1, "no"]
    yield "gateway", "pacer", made("pacer"), [None, 5, Pacer()]
    for name in ("tracer_provider", "meter_provider"):
        yield "OpenTelemetry", name, keyword(OpenTelemetry, name), [5, "x", OpenTelemetry]
    yield "gateway", "names", made("names"), [5, "names.toml", {"skills": {}}]


def name_cases() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield the same of names."""
    for name, wrong in (("accounts", 4), ("skills", "4"), ("agents", True)):
        bad: list[Any] = [None, 5, "x", {wrong: "x"}]
        yield "Names", name, keyword(Names, name), [*bad, {"4": ""}, {"4": 5}]
    yield "read_names", "path:", read_names, [None, 5, "/no/such/file.toml", "a\0b"]


def cases() -> Iterator[tuple[str, str, Call, list[Any]]]:
    """Yield all of them."""
    yield from account_cases()
    yield from setting_cases()
    yield from session_settings()
    yield from sandbox_cases()
    yield from export_cases()
    yield from collection_cases()
    yield from dask_cases()
    yield from gateway_cases()
    yield from name_cases()


def session_cases() -> Iterator[tuple[str, str, Callable[[ConversationSession, Any], Any], Any]]:
    """Yield the same of the methods of a session that is open."""

    def follow(name: str) -> Callable[[ConversationSession, Any], Any]:
        return lambda session, it: session.follow([WHO], HOUR, **{name: it})

    yield (
        "follow",
        "accounts: account",
        lambda session, it: session.follow(it, HOUR),
        [5, ["1"], [], None],
    )
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


def question_cases() -> Iterator[tuple[str, str, Callable[[ConversationSession, Any], Any], Any]]:
    """Yield the same of what is awaited."""

    def ask(name: str) -> Callable[[Any, Any, Any, Any], Any]:
        return lambda session, account, query, timeout: getattr(session, name)(
            account, query, timeout=timeout
        )

    for name in ("fetch", "fetch_document", "fetch_shared"):
        call = ask(name)
        yield name, "account", partial(_asked, call, 0), [None, "1", []]
        yield name, "query", partial(_asked, call, 1), [None, 60, []]
        yield name, "timeout", partial(_asked, call, 2), [0, -1, "5", True, math.nan]
    yield (
        "fetch_shared",
        "max_wait",
        lambda session, it: session.fetch_shared(WHO, HOUR, max_wait=it),
        [0, -1, "5", True, math.nan],
    )
    store = CheckpointStore("x")
    yield "CheckpointStore.save", "following", lambda _, it: store.save(it), [None, 5]


def _asked(call: Any, place: int, session: ConversationSession, it: Any) -> Any:
    given = [WHO, HOUR, 1.0]
    return call(session, *given[:place], it, *given[place + 1 :])


def _parameters(cases: Any) -> list[Any]:
    return [
        pytest.param(*name, call, value, id=f"{'.'.join(name)}, {place}: {type(value).__name__}")
        for *name, call, values in cases
        for place, value in enumerate(values)
    ]


def told(error: Exception, name: str) -> None:
    """See that an error names an argument: the words after a colon, or the argument itself."""
    text = str(error)
    argument, colon, words = name.partition(":")
    name = words.strip() if colon else argument
    assert name.replace("_", "") in text.replace("_", ""), text
    assert "\n" not in text.strip()
    assert len(text) < 300


@pytest.mark.parametrize(("what", "name", "call", "value"), _parameters(cases()))
def test_a_wrong_argument_is_one_sentence(what: str, name: str, call: Call, value: Any) -> None:
    """Of the library's own error, whatever the type or the value."""
    with pytest.raises((ConfigurationError, InvalidQuery)) as caught:
        call(value)
    told(caught.value, name)
    assert what


@pytest.mark.parametrize(("what", "name", "call", "value"), _parameters(session_cases()))
async def test_a_wrong_argument_of_a_session_is_one_sentence(
    what: str, name: str, call: Any, value: Any
) -> None:
    """It is told at once, and not when something is awaited."""
    async with ConversationSession(base_url="http://127.0.0.1:1") as session:
        with pytest.raises((ConfigurationError, InvalidQuery)) as caught:
            call(session, value)
    told(caught.value, name)
    assert what


@pytest.mark.parametrize(("what", "name", "call", "value"), _parameters(question_cases()))
async def test_a_wrong_argument_of_a_question_is_one_sentence(
    what: str, name: str, call: Any, value: Any
) -> None:
    """Nothing is sent."""
    async with ConversationSession(base_url="http://127.0.0.1:1") as session:
        with pytest.raises((ConfigurationError, InvalidQuery)) as caught:
            await call(session, value)
    told(caught.value, name)
    assert what


MODULES = (
    *("msgconv_async", "msgconv_async.export", "msgconv_async.export.pipeline"),
    *("msgconv_async.export.store", "msgconv_async.export.destination"),
    *("msgconv_async.export.arrow", "msgconv_async.export.files", "msgconv_async.export.frames"),
    *(
        "msgconv_async.export.dask",
        "msgconv_async.blocking",
        "msgconv_async.names",
        "msgconv_async.otel",
    ),
    *("msgconv_async.gateway", "msgconv_async.sandbox"),
)
HANDED_OUT = (Turn,)
"""Classes that are not in a module's list, and whose objects a user is given."""

MADE = "made by the library, of what was checked or decoded"
CALLED = "called by the session, for each request or wait, with values of its own"
PART = "a part of the commands and of `Store`, which check what they are given"

EXEMPT = {
    **dict.fromkeys(("AgentBreakdown", "ConversationMetrics", "ConversationReport"), MADE),
    **dict.fromkeys(("Interval", "SkillBreakdown", "Outcome", "PacerStats", "Turn"), MADE),
    **dict.fromkeys(("ClosedBucket", "Failure", "Gap", "Following"), MADE),
    **dict.fromkeys(("Table", "Batch", "Emptied"), MADE),
    **dict.fromkeys(("ApiKey.headers", "BearerToken.headers", "RetryPolicy.lengthened"), CALLED),
    **dict.fromkeys(("ClientCredentials.login", "ClientCredentials.parse"), CALLED),
    **dict.fromkeys(("UserLogin.login", "UserLogin.parse"), CALLED),
    **dict.fromkeys(("ApiKey.referring", "BearerToken.referring"), CALLED),
    **dict.fromkeys(("ClientCredentials.referring", "UserLogin.referring"), CALLED),
    **dict.fromkeys(("ConversationQuery.http_request", "Pacer.eta", "Pacer.finish"), CALLED),
    **dict.fromkeys(("Pacer.start_in_turn", "Pacer.start_in_time"), CALLED),
    **dict.fromkeys(("Names.account", "Names.skill", "Names.agent"), "an id has a name or not"),
    **dict.fromkeys(("fetch", "fetch_many"), "hands everything to a ConversationSession"),
    **dict.fromkeys(("complete_schema", "with_complete"), "given what report_tables has made"),
    "Reader.follow": "hands everything to ConversationSession.follow, which checks it",
    "Reader.pacers": "hands everything to ConversationSession.pacer, which checks it",
    **dict.fromkeys(("client_of", "first_line", "where_to_set"), PART),
    "Conversation": "invented and decoded in large numbers; what takes them checks their members",
}
"""The functions, methods and constructors whose parameters are not in the table, and why not.

Exceptions are not here: only the library raises its own.
"""


def public_names(module: ModuleType) -> list[str]:
    """Return the names of a module for its users: those it lists, or else those it defines."""
    defined = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    listed: list[str] = getattr(module, "__all__", defined)
    return listed


def public_calls() -> dict[str, list[str]]:
    """Return the parameters of every public function, method and constructor, by its name."""
    found: dict[str, Any] = {kind.__name__: kind for kind in HANDED_OUT}
    for module in map(import_module, MODULES):
        found |= {name: getattr(module, name) for name in public_names(module)}
    calls: dict[str, Any] = {}
    for name, value in found.items():
        if inspect.isfunction(value):
            calls[name] = value
        elif inspect.isclass(value) and not issubclass(value, Exception):
            calls[name] = value
            for kind in value.__mro__:
                if kind.__module__.startswith("msgconv_async"):
                    calls |= {f"{name}.{method}": call for method, call in methods(value, kind)}
    return {
        name: [parameter for parameter in inspect.signature(call).parameters if parameter != "self"]
        for name, call in calls.items()
    }


def methods(value: type, kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods of a class that one of its bases, or itself, defines."""
    for name, member in vars(kind).items():
        if not name.startswith("_") and (
            inspect.isfunction(member) or isinstance(member, classmethod | staticmethod)
        ):
            yield name, getattr(value, name)


def test_every_public_parameter_is_walked() -> None:
    """Each is in the table, or in the list of those that need not be, with the reason."""
    of_sessions = {what: f"ConversationSession.{what}" for what in vars(ConversationSession)}
    walked = {
        (of_sessions.get(what, what), name.partition(":")[0])
        for what, name, *_ in [*cases(), *session_cases(), *question_cases()]
    }
    there = {
        (name, parameter) for name, parameters in public_calls().items() for parameter in parameters
    }
    exempt = {(name, parameter) for name, parameter in there if name in EXEMPT}
    assert set() == there - walked - exempt
    assert set() == walked - there
    assert set() == walked & exempt
    assert {name for name, _ in exempt} == set(EXEMPT)


def test_the_walk_sees_what_it_is_to_see() -> None:
    """Constructors, class methods, functions, keywords, and methods of bases."""
    calls = public_calls()
    assert ["path"] == calls["CheckpointStore"]
    assert ["text"] == calls["Checkpoint.from_json"]
    assert ["body", "query", "at", "on_unknown"] == calls["decode_report"]
    assert "max_in_flight" in calls["ConversationSession.follow"]
    assert ["retry_after"] == calls["Turn.throttled"]
    assert ["account_id", "report"] == calls["TableFiles.add"]


async def test_right_arguments_are_taken() -> None:
    """Among them the bounds of what is refused."""
    RetryPolicy(waits=(), throttle_wait=0, jitter=0, attempt_timeout=None)
    async with ConversationSession(
        base_url="http://127.0.0.1:1", fresh_for=0, max_body=1
    ) as session:
        session.follow([WHO], [HOUR, HOUR], since=NOW, settle=0, over=timedelta(), timeout=None)
        session.follow((WHO,), HOUR, settle=288, max_in_flight=1, timeout=math.inf)
        session.fetch_many(iter([WHO]), None, timeout=0.1, max_in_flight=1)
        session.follow(iter([WHO]), HOUR, since=timedelta(days=1))
        assert not session.at_hand(WHO, HOUR)
    conversation_metrics(iter([WHO]), over=timedelta(), settle=0, shard=(8, 8), watch=print)
    gateway(iter([WHO]), state="state.json", token="t", max_wait=0.1)
    Sandbox(events=Recorded(iter([SAID])), retry_after_date=True, fault=None)
    assert 1 == len(roll_up(iter([BUCKET]), 36525 * 1440))
    assert {"account_metrics"} <= to_tables(iter([("1", BUCKET)])).keys()
    assert decode_report(bytearray(b"{}")) == decode_report(memoryview(b"{}"))
