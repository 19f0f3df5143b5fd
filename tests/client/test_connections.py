"""Whose answer is whose, and when a request is sent again: on real sockets."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    ConversationQuery,
    ConversationSession,
    RetryPolicy,
    SessionUnusable,
)
from tests.client.support import (
    ANY,
    BEARER,
    CLIENT,
    LONG_QUERY,
    QUERY,
    answering,
    liveperson,
    now,
    serving,
)

NEVER = RetryPolicy(waits=())
LATE = b"HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Write = Callable[[bytes], Awaitable[None]]
Serve = Callable[[int, Write], Awaitable[bool]]


def answer(number: int) -> bytes:
    body = b'{"metricsTotals":{"totalResolvedConversations":%d},"agentsMetrics":{}}' % number
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[tuple[str, list[list[int]]]]:
    """Serve each question by a function, which gets its account and tells whether to go on.

    Yields the origin, and for each connection the accounts that were asked about on it.
    """
    connections: list[list[int]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked: list[int] = []
        connections.append(asked)

        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if length := re.search(rb"Content-Length: (\d+)", head):
                    await reader.readexactly(int(length[1]))
                found = re.search(rb"/account/(\d+)/", head)
                assert found is not None
                asked.append(int(found[1]))
                if not await serve(asked[-1], write):
                    break
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", connections


async def resolved(
    session: ConversationSession, who: int, query: ConversationQuery = QUERY
) -> int | None:
    report = await session.fetch(Account(str(who), BEARER), query, timeout=5)
    assert report.totals is not None
    return report.totals.total_resolved_conversations


async def later(write: Write, data: bytes) -> None:
    await asyncio.sleep(0.01)
    await write(data)


UNASKED: dict[str, tuple[bytes, bytes]] = {
    "in the same packet": (answer(666), b""),
    "a byte in the same packet": (b"H", b""),
    "half a head in the same packet": (answer(666)[:20], b""),
    "while idle": (b"", answer(666)),
    "a byte while idle": (b"", b"H"),
    "half an answer while idle": (b"", answer(666)[:-5]),
    "half in the same packet, half while idle": (answer(666)[:20], answer(666)[20:]),
}


@pytest.mark.parametrize(("at_once", "idle"), UNASKED.values(), ids=UNASKED)
async def test_a_connection_on_which_anything_came_unasked_is_not_used(
    at_once: bytes, idle: bytes
) -> None:
    """The next account has the answer to its own question, from a connection of its own."""
    unasked = asyncio.Event()

    async def serve(who: int, write: Write) -> bool:
        await write(answer(who) + (at_once if who == 1 else b""))
        if who == 1:
            await later(write, idle)
            unasked.set()
        return True

    async with (
        server(serve) as (url, connections),
        ConversationSession(base_url=url, retry=NEVER) as session,
    ):
        found = [await resolved(session, 1)]
        await unasked.wait()
        await asyncio.sleep(0.02)
        found += [await resolved(session, who) for who in (2, 3, 4)]

    assert [1, 2, 3, 4] == found
    assert [[1], [2, 3, 4]] == connections


@pytest.mark.parametrize(("at_once", "idle"), UNASKED.values(), ids=UNASKED)
async def test_a_given_session_hands_no_answer_to_the_next_account(
    at_once: bytes, idle: bytes
) -> None:
    """Its pool is not the library's, yet what it holds is looked at before a question goes out."""
    unasked = asyncio.Event()

    async def serve(who: int, write: Write) -> bool:
        await write(answer(who) + (at_once if who == 1 else b""))
        if who == 1:
            await later(write, idle)
            unasked.set()
        return True

    async with server(serve) as (url, _), aiohttp.ClientSession() as http:
        async with ConversationSession(http=http, base_url=url, retry=NEVER) as session:
            found = [await resolved(session, 1)]
            await unasked.wait()
            await asyncio.sleep(0.02)
            found += [await resolved(session, who) for who in (2, 3, 4)]

    assert [1, 2, 3, 4] == found


async def test_what_the_event_loop_has_not_read_yet_is_looked_at_as_well() -> None:
    """A busy loop would find it in the socket only after it has sent the next question."""
    writes: list[Write] = []

    async def serve(who: int, write: Write) -> bool:
        writes.append(write)
        await write(answer(who))
        return True

    async with (
        server(serve) as (url, connections),
        ConversationSession(base_url=url, retry=NEVER) as session,
    ):
        await resolved(session, 1)
        await asyncio.sleep(0.01)
        await writes[0](answer(666))  # sent, and the loop has no turn before the next line

        assert 2 == await resolved(session, 2)

    assert [[1], [2]] == connections


@pytest.mark.parametrize("query", [QUERY, LONG_QUERY], ids=["GET", "POST"])
@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
async def test_a_408_that_crossed_the_question_is_asked_anew(
    query: ConversationQuery, *, given: bool
) -> None:
    """RFC 9110, section 15.5.9: on a new connection, though another kept one is at hand."""
    both = asyncio.Barrier(2)
    late = False

    async def serve(who: int, write: Write) -> bool:
        if who in {1, 2}:
            await both.wait()  # so that there are two connections
        if late and who == 3 and len(connections) == 2:
            await write(LATE)
            return False
        await write(answer(who))
        return True

    async with server(serve) as (url, connections), aiohttp.ClientSession() as http:
        async with ConversationSession(
            base_url=url, retry=NEVER, http=http if given else None
        ) as session:
            await asyncio.gather(resolved(session, 1), resolved(session, 2))
            late = True

            assert 3 == await resolved(session, 3, query)

    assert [3] == connections[2]


async def test_a_408_on_a_new_connection_is_the_answer() -> None:
    """There it means what it says, and is told."""

    async def serve(_: int, write: Write) -> bool:
        await write(LATE)
        return False

    async with (
        server(serve) as (url, connections),
        ConversationSession(base_url=url) as session,
    ):
        with pytest.raises(ApiError, match="HTTP 408"):
            await resolved(session, 1)

    assert [[1]] == connections


@pytest.mark.looptime
async def test_a_certificate_that_is_not_accepted_is_no_outage() -> None:
    """It is told at once, rather than tried three times more."""
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        who = Account(world.sandbox.account_ids[0], BEARER, host="elsewhere.example.net")
        began = now()

        with pytest.raises(ConnectionFailed, match="is not accepted: Hostname") as caught:
            await session.fetch(who, QUERY)

        assert not caught.value.repeatable
        assert now() == began


async def test_a_given_session_of_another_loop_is_said_to_be() -> None:
    """Before anything is asked, and not in the words of asyncio."""

    def elsewhere() -> aiohttp.ClientSession:
        async def make() -> aiohttp.ClientSession:
            return aiohttp.ClientSession()

        return asyncio.run(make())

    http = await asyncio.to_thread(elsewhere)
    try:
        with pytest.raises(SessionUnusable, match="another event loop"):
            async with ConversationSession(http=http):
                pass
    finally:
        await http.close()


async def test_a_given_session_with_credentials_is_refused() -> None:
    """They would go to LivePerson with the logins, or stand against the account's own."""
    with pytest.warns(DeprecationWarning, match="auth"):
        http = aiohttp.ClientSession(auth=aiohttp.BasicAuth("me", "mine"))
    async with http:
        with pytest.raises(ConfigurationError, match="auth="):
            async with ConversationSession(http=http):
                pass


async def test_a_netrc_entry_against_the_account_s_credentials_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence says where it comes from."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with serving(answering()) as url, aiohttp.ClientSession(trust_env=True) as http:
        async with ConversationSession(http=http, base_url=url) as session:
            with pytest.raises(ConfigurationError, match=r"account 1: .*\.netrc") as caught:
                await session.fetch(Account("1", BEARER), QUERY)

    assert caught.value.__context__ is None


async def raising(request: aiohttp.ClientRequest, _: aiohttp.ClientHandlerType) -> Any:
    raise KeyError(request.headers["Authorization"])


async def test_what_a_given_session_s_middleware_raises_is_a_failed_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its kind and place are told and logged; its text may hold anything."""
    async with serving(answering()) as url, aiohttp.ClientSession(middlewares=(raising,)) as http:
        async with ConversationSession(http=http, base_url=url, retry=NEVER) as session:
            with pytest.raises(ConnectionFailed, match="raised KeyError"):
                await session.fetch(Account("1", BEARER), QUERY)

    assert "in raising" in caplog.text
    assert BEARER.token not in caplog.text


GIVEN: dict[str, dict[str, Any]] = {
    "raise_for_status": {"raise_for_status": True},
    "no decompression": {"auto_decompress": False},
    "a large buffer": {"read_bufsize": 2**30},
    "a base_url": {"base_url": "https://elsewhere.example.net/"},
    "no content type": {"skip_auto_headers": ["Content-Type", "User-Agent"]},
    "HTTP/1.0": {"version": aiohttp.HttpVersion10},
    "cookies": {"cookies": {"Session": "of-nobody"}},
    "headers": {"headers": {"Authorization": "Bearer another", "Cookie": "Session=of-nobody"}},
}


@pytest.mark.parametrize("settings", GIVEN.values(), ids=GIVEN)
async def test_a_given_session_s_settings_change_no_answer(settings: dict[str, Any]) -> None:
    """Whatever it was made for: the account's own credentials go out, and the answer is read."""
    sent: list[tuple[str | None, str | None]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        sent.append((request.headers.get("Authorization"), request.headers.get("Cookie")))
        if request.path.endswith("token"):
            return web.json_response({"access_token": "t", "expires_in": 3600})
        response = web.Response(status=200 if len(sent) < 4 else 404, body=ANY)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with serving(handler) as url, aiohttp.ClientSession(**settings) as http:
        async with ConversationSession(http=http, base_url=url, coalesce=False) as session:
            for query in (QUERY, LONG_QUERY):
                assert ANY == await session.fetch_document(Account("1", CLIENT), query)
            with pytest.raises(ApiError, match="HTTP 404"):
                await session.fetch(Account("1", CLIENT), QUERY)

    assert [("Bearer t", None)] * 3 == sent[1:]
    assert sent[0][1] is None


async def test_a_given_session_s_middlewares_work_on() -> None:
    """Those of one request take the place of the session's, so they must be handed on."""
    seen: list[str] = []

    async def note(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        seen.append(request.url.path.rpartition("/")[2])
        return await handler(request)

    async with serving(answering()) as url, aiohttp.ClientSession(middlewares=(note,)) as http:
        async with ConversationSession(http=http, base_url=url) as session:
            await session.fetch(Account("1", BEARER), QUERY)

    assert ["msgconversation"] == seen
