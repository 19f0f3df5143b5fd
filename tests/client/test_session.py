import asyncio
import math
from typing import Any

import aiohttp
import aiohttp.web
import anyio
import pytest

from msgconv_async import (
    Account,
    ConfigurationError,
    ConversationQuery,
    ConversationReport,
    ConversationSession,
    MsgConvError,
    Pacer,
    SessionUnusable,
    decode_report,
)
from msgconv_async.sandbox import Sandbox
from tests.client.support import (
    BEARER,
    LONG_QUERY,
    NOTHING,
    QUERY,
    USER,
    account,
    client_tasks,
    now,
    serving,
    turns,
)

pytestmark = pytest.mark.looptime


async def test_a_report_is_what_the_service_answered() -> None:
    """The answer is decoded with the query and the server's clock in mind."""
    query = ConversationQuery(60, interval=15, skill_ids="all", agent_ids="all")
    async with Sandbox() as sandbox, ConversationSession(base_url=sandbox.url) as session:
        report = await session.fetch(account(sandbox), query)
        document = await session.fetch_document(account(sandbox), query)

        assert decode_report(document, query, at=sandbox.clock()).intervals == report.intervals
        assert 4 <= len(report.intervals) <= 5
        assert report.skills is not None
        assert report.agents is not None
        assert report.window is not None


async def test_without_intervals_the_window_follows_the_server_s_clock() -> None:
    """The client's own clock plays no part."""
    async with Sandbox() as sandbox, ConversationSession(base_url=sandbox.url) as session:
        report = await session.fetch(account(sandbox), QUERY)

        assert report.window is not None
        assert abs((sandbox.clock() - report.window.end).total_seconds()) <= 300
        assert 60 * 60 <= (report.window.end - report.window.start).total_seconds() <= 70 * 60


async def test_a_long_question_is_posted() -> None:
    """Three hundred agents do not fit into a URL; the service is asked all the same."""
    asked: list[tuple[str, str | None]] = []

    async def note(request: Any) -> None:
        asked.append((request.method, request.headers.get("Content-Type")))

    async with Sandbox(fault=note) as sandbox, ConversationSession(base_url=sandbox.url) as session:
        report = await session.fetch(account(sandbox), LONG_QUERY)

    assert ("POST", "application/json") == asked[-1]
    assert isinstance(report, ConversationReport)


async def test_a_session_of_its_own_is_closed() -> None:
    """After leaving, no connection is open."""
    async with Sandbox() as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            await session.fetch(account(sandbox), QUERY)
            assert session._net is not None
            http = session._net.http
            assert not http.closed

        assert http.closed


async def test_a_given_session_is_used_and_left_open() -> None:
    """What is given stays the giver's to close."""
    async with Sandbox() as sandbox, aiohttp.ClientSession() as http:
        async with ConversationSession(http=http, base_url=sandbox.url) as session:
            await session.fetch(account(sandbox), QUERY)

        assert not http.closed
        async with http.get(sandbox.url) as response:
            assert 404 == response.status


async def test_a_given_session_s_own_ways_play_no_part() -> None:
    """That it raises for a status is not taken for a broken connection."""
    async with Sandbox() as sandbox, aiohttp.ClientSession(raise_for_status=True) as http:
        sandbox.fail_next(429)
        async with ConversationSession(http=http, base_url=sandbox.url) as session:
            await session.fetch(account(sandbox), QUERY)

            assert 1 == session.pacer(account(sandbox)).throttled


@pytest.mark.parametrize("pacer", [Pacer(), None])
def test_a_pacer_where_its_maker_belongs_is_told_at_once(pacer: Any) -> None:
    """Each account needs one of its own: a session takes what makes them."""
    with pytest.raises(ConfigurationError, match=r"pacer=.*a function .*lambda: Pacer"):
        ConversationSession(pacer=pacer)


@pytest.mark.parametrize(
    ("mistake", "right"),
    [
        ({"base_url": ""}, "base_url"),
        ({"http": 3}, "http=3: it must be an aiohttp.ClientSession"),
        ({"retry": 5}, "retry=5: it must be a RetryPolicy"),
        ({"fresh_for": "1"}, "fresh_for='1': it must be 0 seconds or more"),
        ({"fresh_for": math.inf}, "fresh_for=inf: it must be 0 seconds or more, and finite"),
        ({"max_body": 0}, "max_body=0: it must be 1 or more, as a whole number"),
    ],
)
def test_a_wrong_setting_is_told_at_once(mistake: dict[str, Any], right: str) -> None:
    """Not with the first request: which value, and what would be right."""
    with pytest.raises(ConfigurationError, match=right):
        ConversationSession(**mistake)


def test_an_account_s_id_is_not_the_account() -> None:
    """And what the recipe makes is a pacer: both are told in a sentence."""
    anybody: Any = "10000001"
    with pytest.raises(ConfigurationError, match="account='10000001': it must be an Account"):
        ConversationSession().stats(anybody)
    wrong: Any = lambda: 5  # noqa: E731
    with pytest.raises(ConfigurationError, match="it made 5, and must make a Pacer"):
        ConversationSession(pacer=wrong).stats(Account("10000001", BEARER))


async def test_stats_tell_what_was_sent_and_what_came_of_it() -> None:
    """A request that is repeated counts as sent twice, and as retried once."""
    async with Sandbox() as sandbox, aiohttp.ClientSession() as http:
        sandbox.fail_next(429)
        async with ConversationSession(http=http, base_url=sandbox.url) as session:
            await session.fetch(account(sandbox), QUERY)
            stats = session.stats(account(sandbox))

    assert (2, 1, 1, 1) == (stats.sent, stats.answered, stats.throttled, stats.retried)
    assert (0, 0) == (stats.waiting, stats.in_flight)
    assert stats.rate > 0
    assert stats.concurrency >= 1


async def test_a_given_session_that_was_closed_is_said_to_be() -> None:
    """The error names the aiohttp session, and is not taken for a fault of the network."""
    async with aiohttp.ClientSession() as http:
        session = ConversationSession(http=http, base_url="http://localhost")
    async with session:
        with pytest.raises(SessionUnusable, match="the aiohttp session is closed"):
            await session.fetch(Account("1", BEARER), QUERY)


async def test_a_given_session_that_was_closed_first_leaves_no_task() -> None:
    """Users cannot be logged out any more, but nothing tries to for ever."""
    jar = aiohttp.DummyCookieJar()
    async with Sandbox() as sandbox, aiohttp.ClientSession(cookie_jar=jar) as http:
        async with ConversationSession(http=http, base_url=sandbox.url) as session:
            await session.fetch(Account(sandbox.account_ids[0], USER), QUERY)
            await turns()
            await http.close()

        assert client_tasks() == set()


def test_a_session_made_outside_of_a_loop_works_inside() -> None:
    """Making one touches no event loop."""
    session = ConversationSession(base_url="http://localhost")

    async def use() -> None:
        async with Sandbox() as sandbox:
            session._origin = sandbox.url
            async with session:
                await session.fetch(account(sandbox), QUERY)

    asyncio.run(use())


async def test_before_it_is_entered_it_says_how_to() -> None:
    """The sentence shows the line to write."""
    session = ConversationSession(base_url="http://localhost")

    with pytest.raises(SessionUnusable, match="async with ConversationSession"):
        await session.fetch(Account("1", BEARER), QUERY)
    with pytest.raises(SessionUnusable, match="async with ConversationSession"):
        session.fetch_many([Account("1", BEARER)], QUERY)


async def test_after_it_is_closed_it_says_so() -> None:
    """A closed session is not mistaken for one that was never opened."""
    async with ConversationSession(base_url="http://localhost") as session:
        pass

    with pytest.raises(SessionUnusable, match="is closed"):
        await session.fetch(Account("1", BEARER), QUERY)
    with pytest.raises(SessionUnusable, match="is closed"):
        await session.fetch_document(Account("1", BEARER), QUERY)


async def test_entered_twice_it_says_to_make_another() -> None:
    """While it is open, and after."""
    session = ConversationSession(base_url="http://localhost")
    async with session:
        with pytest.raises(SessionUnusable, match="make a new one"):
            await session.__aenter__()
    with pytest.raises(SessionUnusable, match="make a new one"):
        await session.__aenter__()


def test_in_another_loop_it_says_to_make_one_in_each() -> None:
    """Not "Event loop is closed", and no hang."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    session = ConversationSession(base_url="http://localhost")
    first.run_until_complete(session.__aenter__())

    with pytest.raises(SessionUnusable, match="another event loop"):
        second.run_until_complete(session.fetch(Account("1", BEARER), QUERY))

    first.run_until_complete(session.close())
    first.close()
    second.close()


async def test_closing_may_be_repeated() -> None:
    """Also before it was ever opened."""
    session = ConversationSession(base_url="http://localhost")
    await session.close()
    async with ConversationSession(base_url="http://localhost") as session:
        await session.close()
        await session.close()
    await session.close()


@pytest.mark.parametrize("part", ["", "queue", "wait", "token"])
async def test_what_is_still_asked_when_it_closes_fails_at_once(part: str) -> None:
    """In the queue, in a retry's wait, at login or in the request: no call outlives its session."""

    async def fault(request: Any) -> None:
        if request.path.endswith(part):
            await asyncio.sleep(3600)

    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            who = account(sandbox)
            if part == "wait":
                sandbox.fail_next()
            turn = session.pacer(who).turn()
            await turn.__aenter__()
            call = asyncio.create_task(session.fetch(who, QUERY, timeout=None))
            await asyncio.sleep(0.01 if part == "queue" else 2)
            began = now()

        assert now() == began
        with pytest.raises(SessionUnusable, match="was closed"):
            await call
        assert client_tasks() == set()
        await turn.__aexit__()
        assert (0, 0) == (session.pacer(who).waiting, session.pacer(who).in_flight)


async def test_closing_in_the_moment_a_timeout_runs_out() -> None:
    """A call that is on its way out is let go, and closing waits for it."""

    async def hang(_: Any) -> None:
        await asyncio.sleep(3600)

    async with Sandbox(fault=hang) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            call = asyncio.create_task(session.fetch(account(sandbox), QUERY, timeout=1))
            await turns()
            await asyncio.sleep(1)
        with pytest.raises(MsgConvError):
            await call
        assert client_tasks() == set()


async def test_with_a_given_session_what_is_still_asked_fails_too() -> None:
    """The connections stay, the calls do not."""
    jar = aiohttp.DummyCookieJar()
    async with Sandbox(latency=60) as sandbox, aiohttp.ClientSession(cookie_jar=jar) as http:
        async with ConversationSession(http=http, base_url=sandbox.url) as session:
            call = asyncio.create_task(
                session.fetch(Account(sandbox.account_ids[0], USER), QUERY, timeout=None)
            )
            await asyncio.sleep(1)

        with pytest.raises(SessionUnusable):
            await call
        await turns()
        assert client_tasks() == set()


async def test_closing_that_is_cancelled_closes_all_the_same() -> None:
    """A user's logout is given up, the connections are not left open."""
    async with Sandbox() as sandbox:
        session = ConversationSession(base_url=sandbox.url)
        await session.__aenter__()
        await session.fetch(Account(sandbox.account_ids[0], USER), QUERY)
        assert session._net is not None
        http = session._net.http

        async def hang(_: Any) -> None:
            await asyncio.sleep(3600)

        sandbox.fault = hang
        closing = asyncio.create_task(session.close())
        await asyncio.sleep(0.1)
        closing.cancel()

        await asyncio.wait([closing])
        assert closing.cancelled()
        assert http.closed
        assert client_tasks() == set()


async def test_a_cancel_scope_that_ends_it_lets_it_close() -> None:
    """Users are logged out and connections closed, although every await is cancelled by then."""
    asked: list[str] = []

    async def note(request: Any) -> None:
        asked.append(request.path.split("/")[-1])

    async with Sandbox(fault=note) as sandbox:
        with anyio.move_on_after(5) as scope:
            async with ConversationSession(base_url=sandbox.url) as session:
                await session.fetch(Account(sandbox.account_ids[0], USER), QUERY)
                await anyio.sleep(60)

        assert scope.cancelled_caught
        assert ["login", "msgconversation", "logout"] == asked
        assert client_tasks() == set()


async def test_an_error_inside_comes_out_as_itself() -> None:
    """Leaving by an exception closes the session and changes nothing about it."""
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with ConversationSession(base_url="http://localhost") as session:
            raise error

    assert error is caught.value
    assert session._net is None


async def test_each_account_s_pacer_is_made_by_the_caller_s_recipe() -> None:
    """One Pacer per account, and the one that the session was given a maker of."""
    made: list[Pacer] = []

    def make() -> Pacer:
        made.append(Pacer())
        return made[-1]

    async with (
        Sandbox(accounts=2) as sandbox,
        ConversationSession(base_url=sandbox.url, pacer=make) as session,
    ):
        for number in (0, 1, 0, 1):
            await session.fetch(account(sandbox, number), QUERY)

    assert [2, 2] == [each.sent for each in made]
    assert [2, 2] == [each.answered for each in made]


def test_memory_does_not_grow_with_accounts() -> None:
    """Pacers are forgotten, but none that is in use or was throttled."""
    session = ConversationSession(base_url="http://localhost")
    held, throttled, idle = (Account(each, BEARER) for each in ("1", "2", "3"))
    pacer = session.pacer(held)
    session.pacer(throttled).throttled += 1
    session.pacer(idle).sent += 1

    for number in range(10, 5010):
        session.pacer(Account(str(number), BEARER))

    assert 1002 == len(session._pacers)
    assert pacer is session.pacer(held)
    assert 1 == session.stats(throttled).throttled
    assert 0 == session.stats(idle).sent


async def test_connections_are_used_again() -> None:
    """Ten calls in a row, login included, need one connection."""
    peers: set[Any] = set()

    async def note(request: Any) -> None:
        peers.add(request.transport.get_extra_info("peername"))

    async with Sandbox(fault=note) as sandbox, ConversationSession(base_url=sandbox.url) as session:
        for _ in range(10):
            await session.fetch(account(sandbox), QUERY)

    assert 1 == len(peers)


async def test_a_connection_that_the_service_closed_is_not_used_again() -> None:
    """A keep-alive that ended between two calls costs no error and no wait."""

    async def last(_: Any) -> aiohttp.web.StreamResponse:
        response = aiohttp.web.Response(body=NOTHING)
        response.force_close()
        return response

    async with serving(last) as url, ConversationSession(base_url=url) as session:
        began = now()
        for _ in range(3):
            await session.fetch(Account("1", BEARER), QUERY)

        assert now() - began < 1
