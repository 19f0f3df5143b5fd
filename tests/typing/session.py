"""Uses of the session that a strict type checker must accept. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_never, assert_type

import aiohttp
import polars as pl

from msgconv_async import (
    Account,
    ApiError,
    ApiKey,
    BearerToken,
    Checkpoint,
    CheckpointStore,
    ClientCredentials,
    ClosedBucket,
    ConversationQuery,
    ConversationReport,
    ConversationSession,
    Failure,
    Following,
    Gap,
    Interval,
    Move,
    MsgConvError,
    Outcome,
    Pacer,
    RateLimited,
    RetryPolicy,
    UserLogin,
    blocking,
)
from msgconv_async.events import Attempt, CallBegan, CallEnded, Event, Retry
from msgconv_async.export import SKILL_METRICS
from msgconv_async.export.frames import to_polars
from msgconv_async.otel import OpenTelemetry


def identify() -> list[Account]:
    accounts = [
        Account("1", ClientCredentials("id", "secret")),
        Account("2", UserLogin("name", "password")),
        Account("3", BearerToken("token"), host="va.data.example.net"),
        Account(id="4", credentials=ApiKey("key", "secret", "token", "secret")),
    ]
    assert_type(accounts, list[Account])
    assert_type(accounts[0].id, str)
    assert_type(accounts[0].host, str | None)
    assert {accounts[0]: 1}

    Account("1")  # type: ignore[call-arg]
    Account(1, BearerToken("token"))  # type: ignore[arg-type]
    Account("1", "secret")  # type: ignore[arg-type]
    Account("1", BearerToken("token"), "va.data.example.net")  # type: ignore[call-arg]
    ClientCredentials("id")  # type: ignore[call-arg]
    return accounts


def configure(http: aiohttp.ClientSession) -> None:
    ConversationSession()
    ConversationSession(http=http, base_url="http://127.0.0.1:8080", retry=None, max_body=2**20)
    ConversationSession(retry=RetryPolicy(waits=(1, 2.5), jitter=0), pacer=lambda: Pacer())  # noqa: PLW0108
    ConversationSession(pacer=Pacer)
    ConversationSession(on_event=listen)
    ConversationSession(on_event=OpenTelemetry())
    RetryPolicy(waits=[5], throttle_wait=2, login_throttle_wait=6.0, retry_after_ceiling=60)

    ConversationSession(http)  # type: ignore[call-arg]
    ConversationSession(retry=3)  # type: ignore[arg-type]
    ConversationSession(pacer=Pacer())  # type: ignore[arg-type]
    ConversationSession(on_event=len)  # type: ignore[arg-type]
    RetryPolicy((1, 2))  # type: ignore[call-arg]


def listen(event: Event) -> None:
    match event:
        case Attempt():
            assert_type((event.status, event.error), tuple[int | None, MsgConvError | None])
        case Retry():
            assert_type(event.wait, float)
        case CallBegan() | CallEnded():
            assert_type(event.account_id, str)
        case _:
            assert_never(event)


async def ask(account: Account, query: ConversationQuery) -> None:
    async with ConversationSession() as session:
        assert_type(session, ConversationSession)
        assert_type(await session.fetch(account, query), ConversationReport)
        assert_type(await session.fetch(account, query, timeout=5), ConversationReport)
        assert_type(await session.fetch(account, query, timeout=None), ConversationReport)
        assert_type(await session.fetch_document(account, query, timeout=1.5), bytes)
        assert_type(session.pacer(account), Pacer)
        assert_type(session.pacer(account).rate, float)
        assert_type(session.pacer(account).in_flight, int)
        await session.close()

        await session.fetch("12345678", query)  # type: ignore[arg-type]
        await session.fetch(account, query, 5)  # type: ignore[call-arg]
        await session.fetch(account, 60)  # type: ignore[arg-type]


def lazily() -> Iterator[Account]:
    yield from identify()


async def later() -> AsyncIterator[Account]:
    for account in identify():
        yield account


async def ask_many(session: ConversationSession, query: ConversationQuery) -> None:
    async with session.fetch_many(identify(), query) as outcomes:
        assert_type(outcomes, AsyncIterator[Outcome])
        async for outcome in outcomes:
            assert_type(outcome, Outcome)
            assert_type(outcome.account, Account)
            assert_type(outcome.report, ConversationReport | None)
            assert_type(outcome.error, MsgConvError | None)
    async with session.fetch_many(lazily(), query, timeout=None, max_in_flight=7) as outcomes:
        assert_type(await anext(outcomes), Outcome)
    async with session.fetch_many(later(), query, timeout=30) as outcomes:
        assert_type([each async for each in outcomes], list[Outcome])

    session.fetch_many(["12345678"], query)  # type: ignore[list-item]


async def follow(session: ConversationSession, query: ConversationQuery) -> Checkpoint:
    async with session.follow(identify(), query) as closed:
        assert_type(closed, Following)
        async for item in closed:
            assert_type(item, ClosedBucket | Gap | Failure)
            match item:
                case ClosedBucket(account, interval, revised):
                    assert_type((account, interval, revised), tuple[Account, Interval, bool])
                case Gap(account, start, end):
                    assert_type((account, start, end), tuple[Account, datetime, datetime])
                case Failure(account, error):
                    assert_type((account, error), tuple[Account, MsgConvError])
                case _:
                    assert_never(item)
    async with session.follow(
        identify(),
        [query, ConversationQuery(5, skill_ids="all")],
        since=closed.checkpoint,
        settle=2,
        revise=False,
        over=timedelta(minutes=1),
    ) as closed:
        assert_type(closed.turns, int)
        assert_type(closed.moved, Move | None)
        assert_type(closed.accounts, tuple[Account, ...])
        closed.add(identify()[0])
        closed.remove("1")
        closed.add("1")  # type: ignore[arg-type]
    async with (
        CheckpointStore(Path("checkpoint.db")) as store,
        session.follow(
            identify(), query, since=assert_type(await store.load(), Checkpoint | None)
        ) as closed,
    ):
        assert_type(await store.save(closed), None)
        assert_type(Checkpoint.of(closed.moves().moves), Checkpoint)
    session.follow(identify(), query, since=datetime.now(UTC), clock=lambda: datetime.now(UTC))

    session.follow(identify(), query, over=60)  # type: ignore[arg-type]
    session.follow(identify(), 60)  # type: ignore[arg-type]
    return closed.checkpoint


async def fail(session: ConversationSession, account: Account) -> float | None:
    try:
        await session.fetch(account, ConversationQuery(60))
    except RateLimited as error:
        assert_type(error.retry_after, float | None)
        return error.retry_after
    except ApiError as error:
        assert_type(error.status, int)
        assert_type(error.account_id, str)
    return None


def without_await(account: Account, query: ConversationQuery) -> None:
    report = blocking.fetch(account, query, timeout=5)
    assert_type(report, ConversationReport)
    outcomes = blocking.fetch_many([account, (account, query)], query, max_in_flight=5)
    assert_type(outcomes, list[Outcome])
    assert_type(to_polars(report), pl.DataFrame)
    assert_type(to_polars(outcomes, SKILL_METRICS), pl.DataFrame)

    blocking.fetch(account)  # type: ignore[call-arg]
    blocking.fetch_many(account, query)  # type: ignore[arg-type]
    to_polars([account])  # type: ignore[list-item]
