import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    ConversationQuery,
    ConversationSession,
    DeadlineExceeded,
    Pacer,
    RateLimited,
    RetryPolicy,
    ServerError,
)
from msgconv_async.sandbox import Clock, Sandbox
from tests.client.support import (
    ANY,
    BEARER,
    CLIENT,
    EVEN,
    LONG_QUERY,
    NOTHING,
    QUERY,
    account,
    now,
    serving,
)

pytestmark = pytest.mark.looptime

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]

ALMOST = 0.5
"""Seconds that pacing and the network may add to a wait, at the most."""


def is_metrics(request: web.Request) -> bool:
    return request.path.endswith("/msgconversation")


def failing(times: int, answer: Callable[[], web.StreamResponse]) -> tuple[Fault, list[float]]:
    """Return a fault that answers so many metrics requests, and when each one came."""
    came: list[float] = []

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not is_metrics(request):
            return None
        came.append(now())
        return answer() if len(came) <= times else None

    return fault, came


def dropped() -> web.StreamResponse:
    raise ConnectionError


def unavailable() -> web.StreamResponse:
    return web.Response(status=503, text="busy")


def gaps(came: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(came)]


def assert_waited(expected: list[float], came: list[float]) -> None:
    waited = gaps(came)
    assert len(expected) == len(waited), waited
    for least, actual in zip(expected, waited, strict=True):
        assert least <= actual < least + ALMOST, waited


@pytest.mark.parametrize("query", [QUERY, LONG_QUERY], ids=["GET", "POST"])
@pytest.mark.parametrize("answer", [unavailable, dropped])
async def test_a_failure_is_repeated_after_5_10_and_15_seconds(
    answer: Callable[[], web.StreamResponse], query: ConversationQuery
) -> None:
    """Three failures of the service or the connection cost thirty seconds, and no error."""
    fault, came = failing(3, answer)
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            await session.fetch(account(sandbox), query)

    assert_waited([5, 10, 15], came)


@pytest.mark.parametrize(
    ("answer", "error"), [(unavailable, ServerError), (dropped, ConnectionFailed)]
)
async def test_the_fourth_failure_is_the_last(
    answer: Callable[[], web.StreamResponse], error: type[Exception]
) -> None:
    """After three retries the call fails, with what happened last."""
    fault, came = failing(99, answer)
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            with pytest.raises(error):
                await session.fetch(account(sandbox), QUERY, timeout=None)

    assert_waited([5, 10, 15], came)


@asynccontextmanager
async def hanging_up(*answered: int) -> AsyncIterator[tuple[str, list[float]]]:
    """Answer so many requests of each connection, then hang up on the next.

    Yields the origin, and the instants at which requests came.
    """
    came: list[float] = []
    left = iter(answered)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            for _ in range(next(left)):
                await reader.readuntil(b"\r\n\r\n")
                came.append(now())
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(ANY) + ANY)
            await reader.readuntil(b"\r\n\r\n")
            came.append(now())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", came


@pytest.mark.parametrize(
    ("idle", "query", "answered", "expected"),
    [
        (2, QUERY, (1, 9), [0]),
        (2, QUERY, (1, 0, 9), [0, 5]),
        (0.5, QUERY, (1, 9), [5]),
        (2, LONG_QUERY, (1, 9), [5]),
    ],
    ids=["kept", "kept, and the new one as well", "new", "a POST"],
)
async def test_a_get_on_a_kept_connection_that_breaks_is_repeated_at_once(
    idle: float, query: ConversationQuery, answered: tuple[int, ...], expected: list[float]
) -> None:
    """Once, since the server may have given up the connection; what is new has failed."""
    who = Account("1", BEARER)
    async with (
        hanging_up(*answered) as (url, came),
        ConversationSession(coalesce=False, base_url=url, retry=EVEN) as session,
    ):
        await session.fetch(who, QUERY)
        await asyncio.sleep(idle)
        await session.fetch(who, query)

    assert_waited([idle, *expected], came)


async def test_what_nobody_listens_on_is_tried_as_often() -> None:
    """A connection refused is a connection fault."""
    async with Sandbox() as sandbox:
        url = sandbox.url
    async with ConversationSession(coalesce=False, base_url=url, retry=EVEN) as session:
        began = now()
        with pytest.raises(ConnectionFailed, match="account 1: "):
            await session.fetch(Account("1", BEARER), QUERY)

        assert 30 <= now() - began < 31


async def test_the_waits_are_yours_to_set() -> None:
    """As many retries as there are waits, each as long as it says."""
    fault, came = failing(99, unavailable)
    async with Sandbox(fault=fault) as sandbox:
        policy = RetryPolicy(waits=(1, 40), jitter=0)
        async with ConversationSession(
            coalesce=False, base_url=sandbox.url, retry=policy
        ) as session:
            with pytest.raises(ServerError):
                await session.fetch(account(sandbox), QUERY, timeout=100)

    assert_waited([1, 40], came)


async def test_no_waits_are_no_retries() -> None:
    """An empty policy leaves retrying to the caller."""
    fault, came = failing(99, unavailable)
    async with Sandbox(fault=fault) as sandbox:
        policy = RetryPolicy(waits=())
        async with ConversationSession(
            coalesce=False, base_url=sandbox.url, retry=policy
        ) as session:
            with pytest.raises(ServerError):
                await session.fetch(account(sandbox), QUERY)

    assert 1 == len(came)


async def test_waits_have_jitter() -> None:
    """By default a wait is up to a tenth longer, and never shorter."""
    fault, came = failing(3, unavailable)
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            await session.fetch(account(sandbox), QUERY)

    for least, actual in zip([5, 10, 15], gaps(came), strict=True):
        assert least < actual < least * 1.1 + ALMOST


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 408, 409, 418, 422, 451])
async def test_any_other_refusal_is_never_repeated(status: int) -> None:
    """What is not 429 or 5xx would be refused again."""
    fault, came = failing(99, lambda: web.Response(status=status))
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            with pytest.raises(ApiError) as caught:
                await session.fetch(Account(sandbox.account_ids[0], BEARER), QUERY)

    assert status == caught.value.status
    assert 1 == len(came)


@pytest.mark.parametrize("query", [QUERY, LONG_QUERY], ids=["GET", "POST"])
async def test_a_throttled_request_waits_a_second_at_least(query: ConversationQuery) -> None:
    """After 429 without Retry-After it is repeated, and not sooner than LivePerson asks."""
    fault, came = failing(2, lambda: web.Response(status=429))
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            await session.fetch(account(sandbox), query)

    assert 2 == len(gaps(came))
    assert 1 <= min(gaps(came))
    assert max(gaps(came)) < 10


async def test_throttling_is_not_counted_as_failure() -> None:
    """More than three 429 are no error while there is time, nor do they use up the retries."""
    statuses = [429, 429, 503, 429, 503, 429, 503, 429]

    async def fault(request: web.Request) -> web.StreamResponse | None:
        failed = is_metrics(request) and statuses
        return web.Response(status=statuses.pop(0)) if failed else None

    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            await session.fetch(account(sandbox), QUERY, timeout=None)

    assert [] == statuses


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
async def test_retry_after_wins_where_it_asks_for_longer(*, as_date: bool) -> None:
    """The sandbox asks for 30 seconds; the request comes again then, and not before."""
    async with Sandbox(rate=0.1, retry_after=30, retry_after_date=as_date) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            who = account(sandbox)
            await session.fetch(who, QUERY)
            began = now()

            await session.fetch(who, QUERY)

            assert 1 == sandbox.throttled[who.id]
            assert 29 <= now() - began < 32


@pytest.mark.parametrize(
    "value",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
async def test_a_date_is_counted_from_the_server_s_date(value: str) -> None:
    """All three forms, however wrong the server's clock is by ours."""
    headers = {"Retry-After": value, "Date": "Sun, 06 Nov 1994 08:49:17 GMT"}
    came: list[float] = []

    async def throttled_once(_: web.BaseRequest) -> web.StreamResponse:
        came.append(now())
        if len(came) == 1:
            return web.Response(status=429, headers=headers)
        return web.Response(body=NOTHING)

    async with (
        serving(throttled_once) as url,
        ConversationSession(coalesce=False, base_url=url, retry=EVEN) as session,
    ):
        await session.fetch(Account("1", BEARER), QUERY)

    assert 20 <= gaps(came)[0] < 21


@pytest.mark.parametrize("value", ["soon", "-5", "1.5", "", "Mon, 99 Foo 2026 00:00:00 GMT"])
async def test_a_retry_after_that_makes_no_sense_is_ignored(value: str) -> None:
    """Garbage and negative numbers leave the wait as it is."""
    fault, came = failing(1, lambda: web.Response(status=429, headers={"Retry-After": value}))
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            await session.fetch(account(sandbox), QUERY)

    assert 1 <= gaps(came)[0] < 5


async def test_a_shorter_retry_after_does_not_shorten_the_wait() -> None:
    """``Retry-After: 0`` is no licence to come back at once."""
    fault, came = failing(1, lambda: web.Response(status=503, headers={"Retry-After": "0"}))
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            await session.fetch(account(sandbox), QUERY)

    assert_waited([5], came)


async def test_a_failing_service_may_ask_for_longer_too() -> None:
    """Retry-After counts after 503 as well."""
    fault, came = failing(1, lambda: web.Response(status=503, headers={"Retry-After": "42"}))
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            await session.fetch(account(sandbox), QUERY)

    assert_waited([42], came)


@pytest.mark.parametrize("asked", ["121", "3600", "9" * 30])
async def test_an_unreasonable_retry_after_ends_the_call_at_once(asked: str) -> None:
    """Above 120 seconds it is the caller's to decide: the error carries the value."""
    fault, came = failing(1, lambda: web.Response(status=429, headers={"Retry-After": asked}))
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            began = now()
            with pytest.raises(RateLimited) as caught:
                await session.fetch(account(sandbox), QUERY, timeout=None)

            assert float(asked) == caught.value.retry_after
            assert now() - began < ALMOST
    assert 1 == len(came)


async def test_an_unreasonable_date_ends_the_call_at_once() -> None:
    """The ceiling holds for dates too."""
    clock = Clock()

    async def fault(request: web.Request) -> web.StreamResponse | None:
        date = format_datetime(clock() + timedelta(hours=1), usegmt=True)
        throttled = web.Response(status=429, headers={"Retry-After": date})
        return throttled if is_metrics(request) else None

    async with Sandbox(fault=fault, clock=clock) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            with pytest.raises(RateLimited) as caught:
                await session.fetch(account(sandbox), QUERY, timeout=None)

    assert caught.value.retry_after == pytest.approx(3600, abs=2)


async def test_the_ceiling_itself_is_waited() -> None:
    """120 seconds are not above 120 seconds."""
    fault, came = failing(1, lambda: web.Response(status=429, headers={"Retry-After": "120"}))
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            await session.fetch(account(sandbox), QUERY, timeout=None)

    assert 120 <= gaps(came)[0]


async def test_a_throttled_account_does_not_slow_the_others() -> None:
    """While one account waits out its Retry-After, another is asked at its usual pace."""
    async with Sandbox(accounts=2) as sandbox:
        slow, free = account(sandbox, 0), account(sandbox, 1)

        async def fault(request: web.Request) -> web.StreamResponse | None:
            throttled = is_metrics(request) and slow.id in request.path and now() - began < 30
            return web.Response(status=429, headers={"Retry-After": "30"}) if throttled else None

        began = now()
        sandbox.fault = fault
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            waiting = asyncio.create_task(session.fetch(slow, QUERY))
            for _ in range(5):
                await session.fetch(free, QUERY)

            assert now() - began < 1
            assert not waiting.done()
            await waiting
            assert 30 <= now() - began < 40
            assert session.pacer(slow) is not session.pacer(free)
            assert (1, 0) == (session.pacer(slow).throttled, session.pacer(free).throttled)
            assert (1, 5) == (session.pacer(slow).answered, session.pacer(free).answered)


async def test_one_pacer_serves_an_account_however_it_is_written() -> None:
    """Two Account objects with one id share the account's pace, since the service counts so."""
    session = ConversationSession(coalesce=False, base_url="http://localhost")

    assert session.pacer(Account("1", CLIENT)) is session.pacer(Account("1", BEARER, host="h"))
    assert session.pacer(Account("1", CLIENT)) is not session.pacer(Account("2", CLIENT))


@pytest.mark.parametrize(
    ("answer", "timeout", "error", "tries", "passed"),
    [
        (unavailable, 4.9, ServerError, 1, 0),
        (unavailable, 5, ServerError, 1, 0),
        (unavailable, 14, ServerError, 2, 5),
        (unavailable, 29, ServerError, 3, 15),
        (dropped, 4.9, ConnectionFailed, 1, 0),
        (dropped, 14, ConnectionFailed, 2, 5),
        (lambda: web.Response(status=429), 0.9, RateLimited, 1, 0),
        (lambda: web.Response(status=429, headers={"Retry-After": "50"}), 40, RateLimited, 1, 0),
    ],
)
async def test_a_wait_that_would_overrun_the_timeout_is_not_begun(
    answer: Callable[[], web.StreamResponse],
    timeout: float,
    error: type[Exception],
    tries: int,
    passed: float,
) -> None:
    """The call fails at once with the last error, and not after sleeping."""
    fault, came = failing(99, answer)
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            began = now()
            with pytest.raises(error):
                await session.fetch(account(sandbox), QUERY, timeout=timeout)

            assert passed <= now() - began < passed + ALMOST
    assert tries == len(came)


@pytest.mark.parametrize("part", ["/app/token", "/msgconversation"])
async def test_the_timeout_covers_login_and_request(part: str) -> None:
    """An answer that does not come ends the call when its time is up, and not before."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if request.path.endswith(part):
            await asyncio.sleep(3600)
        return None

    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            began = now()
            with pytest.raises(DeadlineExceeded) as caught:
                await session.fetch(account(sandbox), QUERY, timeout=7)

            assert now() - began == pytest.approx(7, abs=0.01)
            assert (sandbox.account_ids[0], 7) == (caught.value.account_id, caught.value.timeout)


@pytest.mark.parametrize("coalesce", [False, True])
@pytest.mark.parametrize("part", ["/app/token", "/msgconversation"])
async def test_a_timeout_in_a_later_try_names_what_failed_before(
    part: str, *, coalesce: bool
) -> None:
    """Who gave up waiting is told why there was anything to wait for."""
    tries = 0

    async def fault(request: web.Request) -> web.StreamResponse | None:
        nonlocal tries
        if request.path.endswith(part):
            tries += 1
            if tries == 1:
                return unavailable()
            await asyncio.sleep(3600)
        return None

    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=coalesce, base_url=sandbox.url) as session:
            call = asyncio.create_task(session.fetch(account(sandbox), QUERY, timeout=20))
            await asyncio.sleep(8)
            with pytest.raises(DeadlineExceeded) as late:
                await session.fetch(account(sandbox), QUERY, timeout=2)
            with pytest.raises(DeadlineExceeded) as caught:
                await call

    said = "no answer in time since the last try failed: the service failed (HTTP 503): busy"
    assert f"account {sandbox.account_ids[0]}: {said} (timeout 20 s)" == str(caught.value)
    assert isinstance(caught.value.__cause__, ServerError)
    shared = coalesce or part == "/app/token"
    assert (said if shared else "no answer in time (timeout") in str(late.value)


async def test_a_queue_too_long_for_the_timeout_fails_at_once() -> None:
    """Who would wait in vain is told so, and does not stand in the queue."""
    async with Sandbox(latency=5) as sandbox:
        async with ConversationSession(
            coalesce=False, base_url=sandbox.url, pacer=lambda: Pacer(rate=10, concurrency=4)
        ) as session:
            who = account(sandbox)
            await session.fetch(who, QUERY)
            busy = [asyncio.create_task(session.fetch(who, QUERY, timeout=None)) for _ in range(40)]
            await asyncio.sleep(0.01)
            began = now()

            with pytest.raises(DeadlineExceeded, match="its turn would come"):
                await session.fetch(who, QUERY, timeout=0.01)

            assert now() == began
            for task in busy:
                task.cancel()
            await asyncio.wait(busy)


async def test_a_queue_whose_pace_is_not_known_yet_is_waited_in() -> None:
    """A cold account's first numbers are a beginning: nobody is turned away because of them."""
    async with Sandbox() as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            who = account(sandbox)

            await asyncio.gather(*(session.fetch(who, QUERY, timeout=5) for _ in range(300)))

            assert 300 == sandbox.requests[who.id]


async def test_an_unreasonable_retry_after_does_not_stop_the_account() -> None:
    """It ends the calls that were told, each with the value; once the service is well, it works."""
    async with Sandbox(retry_after=86_400) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            who = account(sandbox)
            sandbox.fail_next(429, times=5)
            for _ in range(5):
                with pytest.raises(RateLimited) as refused:
                    await session.fetch(who, QUERY, timeout=600)
                assert 86_400 == refused.value.retry_after

            began = now()
            await session.fetch(who, QUERY, timeout=600)
            assert now() - began < 30


async def test_the_first_to_come_are_not_lost_behind_those_who_came_later() -> None:
    """Refused at the very start, they are asked again before all who still wait for a turn."""
    async with Sandbox(latency=0.1) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            who = account(sandbox)
            sandbox.fail_next(429, times=5)
            done: list[int] = []

            async def fetch(number: int) -> None:
                await session.fetch(who, QUERY, timeout=40)
                done.append(number)

            async with asyncio.TaskGroup() as group:
                for number in range(150):
                    group.create_task(fetch(number))

            assert 5 == session.stats(who).throttled
            assert {0, 1, 2, 3, 4} <= set(done[:40])


async def test_an_account_that_refuses_everything_fails_as_soon_as_waiting_is_in_vain() -> None:
    """When its pace forbids another try in time, the call ends there, with the refusal."""
    fault, _ = failing(10**6, lambda: web.Response(status=429))
    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            for timeout in (20, 20, 1.5):
                began = now()
                with pytest.raises((RateLimited, DeadlineExceeded)) as caught:
                    await session.fetch(account(sandbox), QUERY, timeout=timeout)

                assert now() - began < timeout
                assert isinstance(caught.value, RateLimited) or now() == began


async def test_no_timeout_waits_as_long_as_it_takes() -> None:
    """An hour is not too long for who said None, of the call and of each try."""
    async with Sandbox(latency=3600) as sandbox:
        patient = RetryPolicy(attempt_timeout=None)
        async with ConversationSession(
            coalesce=False, base_url=sandbox.url, retry=patient
        ) as session:
            began = now()
            await session.fetch(account(sandbox), QUERY, timeout=None)

            assert 3600 <= now() - began


async def test_by_default_a_minute_is_allowed() -> None:
    """A call that nobody limited ends all the same."""
    async with Sandbox(latency=3600) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            with pytest.raises(DeadlineExceeded, match=r"timeout 60 s"):
                await session.fetch(account(sandbox), QUERY)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
async def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    """Zero or less seconds cannot be meant."""
    async with ConversationSession(coalesce=False, base_url="http://localhost") as session:
        with pytest.raises(ConfigurationError, match="timeout"):
            await session.fetch(Account("1", BEARER), QUERY, timeout=timeout)


async def test_a_turn_is_not_spent_on_a_call_that_has_no_time_for_an_answer() -> None:
    """Thrice of what the account may send is asked; what is sent is answered in time."""
    async with Sandbox(latency=0.5) as sandbox:
        async with ConversationSession(
            coalesce=False, base_url=sandbox.url, pacer=lambda: Pacer(rate=(1, 10), concurrency=50)
        ) as session:
            who = account(sandbox)
            calls = []
            for _ in range(600):
                calls.append(asyncio.create_task(session.fetch(who, QUERY, timeout=5)))
                await asyncio.sleep(1 / 30)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            answered = [each for each in outcomes if not isinstance(each, Exception)]
            assert session.stats(who).sent == len(answered)
            assert 10 * 20 <= len(answered)
            late = [each for each in outcomes if isinstance(each, Exception)]
            assert all(isinstance(each, DeadlineExceeded) for each in late)
            assert any("its turn came too late" in str(each) for each in late)
            assert 0 == session.stats(who).in_flight
