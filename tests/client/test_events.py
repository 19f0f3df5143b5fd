"""What a session tells while it works: calls, attempts, retries, queueing and sharing."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ConnectionFailed,
    ConversationQuery,
    ConversationSession,
    DeadlineExceeded,
    Pacer,
    RetryPolicy,
    ServerError,
    Unauthorized,
    UnexpectedResponse,
)
from msgconv_async.events import Attempt, CallBegan, CallEnded, Event, Retry
from msgconv_async.sandbox import Sandbox
from tests.client.support import (
    API,
    BEARER,
    CLIENT,
    EVEN,
    HOSTS,
    QUERY,
    account,
    answering,
    liveperson,
    serving,
)

pytestmark = pytest.mark.looptime

WHO = Account("12345678", BEARER)


class Listener:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def attempts(self) -> list[Attempt]:
        return [each for each in self.events if isinstance(each, Attempt)]

    def ended(self) -> list[CallEnded]:
        return [each for each in self.events if isinstance(each, CallEnded)]


async def test_a_call_tells_its_steps_in_order() -> None:
    """It begins, finds the hosts, logs in, asks and ends; each request with its host."""
    heard = Listener()
    async with liveperson() as world:
        world.delay = 2.0
        async with ConversationSession(http=world.http, on_event=heard) as session:
            who = account(world.sandbox)
            await session.fetch(who, QUERY)

    began, *attempts, ended = heard.events
    assert CallBegan(who.id) == began
    assert [
        ("lookup", "GET", API, 443),
        ("lookup", "GET", API, 443),
        ("login", "POST", HOSTS["sentinel"], 443),
        ("question", "GET", HOSTS["leDataReporting"], 443),
    ] == [(each.purpose, each.method, each.host, each.port) for each in heard.attempts()]
    assert 4 == len(attempts)
    for each in heard.attempts():
        assert (1, 200, None, 0.0) == (each.number, each.status, each.error, each.queued)
        assert pytest.approx(2, abs=0.1) == each.seconds
        assert not each.cancelled
    assert isinstance(ended, CallEnded)
    assert CallEnded(who.id, ended.seconds) == ended
    assert pytest.approx(8, abs=0.2) == ended.seconds


async def test_a_retry_tells_what_failed_and_how_long_it_waits() -> None:
    heard = Listener()
    async with Sandbox(accounts=1) as sandbox:
        sandbox.fail_next(503, times=2)
        who = Account(sandbox.account_ids[0], BEARER)
        async with ConversationSession(base_url=sandbox.url, retry=EVEN, on_event=heard) as session:
            with pytest.raises(Unauthorized):  # the sandbox does not know the token
                await session.fetch(who, QUERY)

    _, first, waits, second, again, third, ended = heard.events
    assert [(1, 503), (2, 503), (3, 401)] == [
        (each.number, each.status) for each in (first, second, third) if isinstance(each, Attempt)
    ]
    assert isinstance(waits, Retry)
    assert (who.id, 1, 5.0) == (waits.account_id, waits.number, waits.wait)
    assert isinstance(waits.error, ServerError)
    assert isinstance(again, Retry)
    assert (2, 10.0) == (again.number, again.wait)
    assert isinstance(ended, CallEnded)
    assert isinstance(ended.error, Unauthorized)
    assert pytest.approx(15, abs=0.1) == ended.seconds


async def test_a_wait_for_a_turn_is_told() -> None:
    """Of the request that waited; not of one that started at once."""
    heard = Listener()
    async with serving(answering()) as url:
        async with ConversationSession(
            base_url=url, pacer=lambda: Pacer(rate=0.5, concurrency=9), on_event=heard
        ) as session:
            queries = [ConversationQuery(minutes) for minutes in (60, 120, 180)]
            await asyncio.gather(*(session.fetch(WHO, query) for query in queries))

    assert pytest.approx([0, 2, 4], abs=0.1) == [each.queued for each in heard.attempts()]
    assert pytest.approx([0, 2, 4], abs=0.1) == [each.seconds for each in heard.ended()]


async def test_sharing_is_told() -> None:
    """Of three that ask the same, one has a request; a later one gets what was kept."""
    heard = Listener()
    async with serving(answering()) as url:
        async with ConversationSession(base_url=url, fresh_for=30, on_event=heard) as session:
            await asyncio.gather(*(session.fetch(WHO, QUERY) for _ in range(3)))
            await session.fetch(WHO, QUERY)
            await session.fetch_shared(WHO, QUERY)

    assert 1 == len(heard.attempts())
    sources = [each.source for each in heard.ended()]
    assert ["fetched", "hit", "hit", "shared", "shared"] == sorted(sources)


async def test_every_way_to_ask_tells() -> None:
    """A document, many accounts, and following."""
    heard = Listener()
    async with Sandbox(accounts=3) as sandbox:
        accounts = [account(sandbox, number) for number in range(3)]
        async with ConversationSession(base_url=sandbox.url, on_event=heard) as session:
            await session.fetch_document(accounts[0], QUERY)
            async with session.fetch_many(accounts, QUERY) as outcomes:
                assert 3 == len([each async for each in outcomes])
            async with session.follow(accounts[:1], QUERY) as closed:
                await anext(closed)

    assert 5 == sum(isinstance(each, CallBegan) for each in heard.events) == len(heard.ended())
    assert {None} == {each.error for each in heard.ended()}


async def test_new_credentials_after_a_401_are_a_retry_without_a_wait() -> None:
    heard = Listener()
    async with Sandbox(accounts=1) as sandbox:
        async with ConversationSession(base_url=sandbox.url, on_event=heard) as session:
            await session.fetch(account(sandbox), QUERY)
            heard.events.clear()
            sandbox.fail_next(401)
            await session.fetch(account(sandbox), QUERY)

    kinds = [
        (type(each).__name__, getattr(each, "purpose", getattr(each, "wait", None)))
        for each in heard.events
    ]
    assert [
        ("CallBegan", None),
        ("Attempt", "question"),
        ("Retry", 0.0),
        ("Attempt", "login"),
        ("Attempt", "question"),
        ("CallEnded", None),
    ] == kinds


async def never(_: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


async def test_a_call_that_ends_early_says_how() -> None:
    """Its caller gave up, its time ran out, one try's time ran out, or its answer is strange."""
    heard = Listener()
    policy = RetryPolicy(waits=(), attempt_timeout=9)
    async with serving(never) as url:
        async with ConversationSession(base_url=url, retry=policy, on_event=heard) as session:
            call = asyncio.create_task(session.fetch(WHO, QUERY))
            await asyncio.sleep(3)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            with pytest.raises(DeadlineExceeded):
                await session.fetch(WHO, QUERY, timeout=5)
            with pytest.raises(ConnectionFailed):
                await session.fetch(WHO, QUERY)
    async with serving(answering(b"[]")) as url:
        async with ConversationSession(base_url=url, on_event=heard) as session:
            with pytest.raises(UnexpectedResponse):
                await session.fetch(WHO, QUERY)

    assert [
        (3, None, True),
        (5, DeadlineExceeded, False),
        (9, ConnectionFailed, False),
        (0, UnexpectedResponse, False),
    ] == [
        (round(each.seconds), each.error and type(each.error), each.cancelled)
        for each in heard.ended()
    ]
    assert [(None, True), (None, True), (None, False), (200, False)] == [
        (each.status, each.cancelled) for each in heard.attempts()
    ]


async def test_a_hook_that_raises_harms_no_call(caplog: pytest.LogCaptureFixture) -> None:
    """And is told once."""
    caplog.set_level(logging.ERROR)

    def broken(event: Event) -> None:
        raise RuntimeError(f"no room for {type(event).__name__}")

    async with serving(answering()) as url:
        async with ConversationSession(base_url=url, on_event=broken) as session:
            for _ in range(3):
                await session.fetch(WHO, QUERY)

    [record] = [each for each in caplog.records if each.name == "msgconv_async"]
    assert "on_event raised an exception" in record.message
    assert "no room for CallBegan" in caplog.text


async def test_no_event_holds_a_secret_or_the_frames_that_hold_one() -> None:
    """Though the service repeats what it was sent."""
    heard = Listener()

    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        said = f"{dict(request.headers)} {await request.text()}"
        echoed = {"X-Request-Id": request.headers.get("Authorization", "none")}
        return web.Response(status=500, text=said, headers=echoed)

    async with serving(echo) as url:
        async with ConversationSession(base_url=url, retry=EVEN, on_event=heard) as session:
            for credentials in (BEARER, CLIENT):
                with pytest.raises(ServerError):
                    await session.fetch(Account("1", credentials), QUERY)

    errors: list[Any] = [getattr(each, "error", None) for each in heard.events]
    errors = [error for error in errors if error is not None]
    assert 16 == len(errors)  # of four attempts, three retries and an end, twice
    for error in errors:
        assert (None, None, None) == (error.__traceback__, error.__cause__, error.__context__)
    assert BEARER.token not in repr(heard.events)
    assert CLIENT.client_secret not in repr(heard.events)
