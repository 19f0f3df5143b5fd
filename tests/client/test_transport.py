import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from msgconv_async import (
    Account,
    ApiError,
    BadRequest,
    ConnectionFailed,
    ConversationQuery,
    ConversationSession,
    MsgConvError,
    RateLimited,
    RetryPolicy,
    ServerError,
    Unauthorized,
    UnexpectedResponse,
)
from tests.client.support import (
    BEARER,
    CLIENT,
    HOSTS,
    LONG_QUERY,
    NOTHING,
    QUERY,
    USER,
    account,
    answering,
    liveperson,
    now,
    serving,
    speaking,
)

WHO = Account("12345678", BEARER)
NEVER = RetryPolicy(waits=())
MiB = 1024 * 1024

STATUSES: list[tuple[int, type[ApiError]]] = [
    (201, ApiError),
    (204, ApiError),
    (206, ApiError),
    (300, ApiError),
    (301, ApiError),
    (302, ApiError),
    (303, ApiError),
    (304, ApiError),
    (307, ApiError),
    (308, ApiError),
    (400, BadRequest),
    (401, Unauthorized),
    (402, ApiError),
    (403, Unauthorized),
    (404, ApiError),
    (405, ApiError),
    (418, ApiError),
    (429, RateLimited),
    (451, ApiError),
    (500, ServerError),
    (502, ServerError),
    (503, ServerError),
    (504, ServerError),
    (599, ServerError),
]


@pytest.mark.parametrize(("status", "error"), STATUSES)
async def test_each_status_is_an_error_of_its_own_kind(
    status: int, error: type[ApiError], answers: Callable[..., None]
) -> None:
    """The kind, the status, the account and the service's own words are there."""
    origin = "http://localhost"
    answers(
        QUERY.http_request(origin, WHO.id).url,
        status=status,
        body='{"reason":\r\n  "because"}',
        headers={"Retry-After": "3600"},
    )
    async with ConversationSession(base_url=origin, retry=NEVER) as session:
        with pytest.raises(ApiError) as caught:
            await session.fetch(WHO, QUERY)

    assert error is type(caught.value)
    assert (status, WHO.id) == (caught.value.status, caught.value.account_id)
    assert '{"reason": "because"}' == caught.value.excerpt
    assert 3600 == caught.value.retry_after
    assert f"HTTP {status}" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "byte 0"),
        (b"<html>Welcome to the captive portal", "byte 0"),
        (b'{"metricsTotals": {', "byte 19"),
        (b'{"metricsTotals": {"totalResolvedConversations": "many"}}', "$.metricsTotals"),
        (b'{"metricsByIntervals": [{}]}', "$.metricsByIntervals[0]"),
        (b"[" * 100_000, ""),
        (b"\xff\xfe", "byte 0"),
        (b"[]", "$"),
    ],
)
async def test_garbage_with_status_200_is_unexpected(
    body: bytes, where: str, answers: Callable[..., None]
) -> None:
    """The account is named, and where in the document the fault is."""
    answers(QUERY.http_request("http://localhost", WHO.id).url, body=body)
    async with ConversationSession(base_url="http://localhost") as session:
        with pytest.raises(UnexpectedResponse) as caught:
            await session.fetch(WHO, QUERY)

    assert WHO.id == caught.value.account_id
    assert caught.value.where.startswith(where)
    assert f"account {WHO.id}: " in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("query", [QUERY, LONG_QUERY], ids=["GET", "POST"])
async def test_a_redirect_is_not_followed(status: int, query: ConversationQuery) -> None:
    """Its target gets no request, and so no credentials."""
    reached: list[web.BaseRequest] = []

    async def target(request: web.BaseRequest) -> web.StreamResponse:
        reached.append(request)
        return web.Response(body=NOTHING)

    async with (
        serving(target) as elsewhere,
        serving(answering(b"", status, {"Location": f"{elsewhere}/x"})) as url,
        ConversationSession(base_url=url) as session,
    ):
        with pytest.raises(ApiError) as caught:
            await session.fetch(WHO, query)

    assert status == caught.value.status
    assert [] == reached


@pytest.mark.looptime
@pytest.mark.parametrize("part", ["baseURI.json", "token", "msgconversation"])
async def test_no_step_of_a_call_follows_a_redirect(part: str) -> None:
    """Neither the Domain API nor a login sends a secret elsewhere."""
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        usual = world.sandbox.fault
        assert usual is not None

        async def fault(request: web.Request) -> web.StreamResponse | None:
            answer = await usual(request)
            if request.path.endswith(part):
                target = f"https://{HOSTS['agentVep']}{request.path}"
                return web.Response(status=307, headers={"Location": target})
            return answer

        world.sandbox.fault = fault
        with pytest.raises(ApiError) as caught:
            await session.fetch(account(world.sandbox), QUERY)

        assert 307 == caught.value.status
        assert HOSTS["agentVep"] not in {host for host, _ in world.asked}


def padded(size: int) -> bytes:
    return NOTHING + b" " * (size - len(NOTHING))


def deflated(size: int, kind: str) -> tuple[bytes, Mapping[str, str]]:
    if kind == "identity":
        return padded(size), {}
    body = gzip.compress(padded(size), 9) if kind == "gzip" else zlib.compress(padded(size), 9)
    return body, {"Content-Encoding": kind}


@pytest.mark.parametrize("kind", ["identity", "gzip", "deflate"])
async def test_a_body_at_the_limit_is_read_and_one_over_it_is_not(kind: str) -> None:
    """The limit counts decoded bytes."""
    for size in (MiB, MiB + 1):
        body, headers = deflated(size, kind)
        async with (
            serving(answering(body, 200, headers)) as url,
            ConversationSession(base_url=url, max_body=MiB) as session,
        ):
            if size == MiB:
                assert MiB == len(await session.fetch_document(WHO, QUERY))
            else:
                with pytest.raises(UnexpectedResponse, match="limit of 1048576 bytes") as caught:
                    await session.fetch(WHO, QUERY)
                assert WHO.id == caught.value.account_id


async def test_a_body_without_end_is_read_to_the_limit_and_no_further() -> None:
    """The connection is closed on a service that never stops."""
    sent = 0
    stopped = asyncio.Event()

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * 65536)
                sent += 65536
        finally:
            stopped.set()

    async with serving(endless) as url, ConversationSession(base_url=url, max_body=MiB) as session:
        with pytest.raises(UnexpectedResponse, match="larger than the limit"):
            await session.fetch(WHO, QUERY)
        await asyncio.wait_for(stopped.wait(), 5)

    assert sent < 32 * MiB


@pytest.mark.parametrize("status", [200, 400])
async def test_a_bomb_is_not_unpacked(status: int) -> None:
    """A quarter of a megabyte that stands for 256 of them costs neither the time nor the memory."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(MiB)) for _ in range(256)) + packer.flush()
    assert len(bomb) < MiB
    async with (
        serving(answering(bomb, status, {"Content-Encoding": "gzip"})) as url,
        ConversationSession(base_url=url, max_body=4 * MiB) as session,
    ):
        tracemalloc.start()
        try:
            with pytest.raises((UnexpectedResponse, BadRequest)):
                await session.fetch(WHO, QUERY)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 32 * MiB


async def test_a_large_answer_is_held_once() -> None:
    """Reading takes the size of the body and little more, though its size is not known before."""
    size = 64 * MiB

    async def large(__: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + NOTHING)
        for _ in range(size // MiB):
            writer.write(b" " * (MiB - 1) + b"\n")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(large, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with ConversationSession(base_url=url, max_body=size + len(NOTHING)) as session:
            tracemalloc.start()
            try:
                await session.fetch(WHO, QUERY)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()

    assert size < peak < size + 32 * MiB


FALSE_GZIP: dict[str, tuple[str, bytes]] = {
    "plain": ("gzip", b"{}"),
    "zeros behind it": ("gzip", gzip.compress(b"{}") + bytes(100)),
    "text behind it": ("gzip", gzip.compress(b"{}") + b"<!-- proxy -->"),
    "not asked for": ("br", b"{}"),
}


@pytest.mark.parametrize(("encoding", "body"), FALSE_GZIP.values(), ids=FALSE_GZIP)
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "in parts"])
async def test_a_body_that_is_not_encoded_as_it_claims_is_told_once(
    encoding: str, body: bytes, *, cut: bool
) -> None:
    """It is no broken connection, and asking again would bring the same."""
    asked = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        response = web.StreamResponse(headers={"Content-Encoding": encoding})
        await response.prepare(request)
        for part in (body[:5], body[5:]) if cut else (body,):
            await response.write(part)
            await asyncio.sleep(0.001)
        return response

    async with serving(answer) as url, ConversationSession(base_url=url) as session:
        with pytest.raises(UnexpectedResponse, match="Content-Encoding") as caught:
            await session.fetch(WHO, QUERY)

    assert WHO.id == caught.value.account_id
    assert 1 == asked


async def test_a_refusal_is_told_by_its_status_though_its_body_cannot_be_read() -> None:
    """What the body would have said is missing, and nothing else."""
    for rest in (
        b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"Content-Length: 9\r\n\r\n{",
    ):
        async with (
            speaking(b"HTTP/1.1 400 Bad Request\r\n" + rest) as url,
            ConversationSession(base_url=url, retry=NEVER) as session,
        ):
            with pytest.raises(BadRequest) as caught:
                await session.fetch(WHO, QUERY)

        assert "" == caught.value.excerpt


CUT = zlib.compress(padded(100))[1:-6]
MALFORMED: dict[str, tuple[str, bytes]] = {
    "no size": ("identity", b"zz\r\n"),
    "an endless size": ("identity", b"ffffffffffffffffffff\r\n"),
    "a control": ("identity", b"2 \x00\r\n{}"),
    "a cut within": ("deflate", b"%x\r\n%b\r\n0\r\n\r\n" % (len(CUT), CUT)),
}


@pytest.mark.parametrize(("encoding", "rest"), MALFORMED.values(), ids=MALFORMED)
async def test_a_body_that_goes_on_malformed_ends_at_once(encoding: str, rest: bytes) -> None:
    """By itself, aiohttp closes such a connection and leaves whoever reads the body to wait."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n")
        writer.write(b"Content-Encoding: %b\r\n\r\n1\r\nx\r\n" % encoding.encode())
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(rest)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with ConversationSession(base_url=url, retry=NEVER) as session:
            with pytest.raises(ConnectionFailed, match="before the answer was whole"):
                await session.fetch(WHO, QUERY, timeout=5)


async def test_what_still_is_to_be_inflated_when_the_connection_ends_is_read() -> None:
    """A few bytes stand for many, and all of them have come."""
    body = gzip.compress(padded(8 * MiB))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
    async with speaking(head + body) as url, ConversationSession(base_url=url) as session:
        assert 8 * MiB == len(await session.fetch_document(WHO, QUERY))


MARK = b"\xef\xbb\xbf"


@pytest.mark.looptime
async def test_a_byte_order_mark_is_ignored() -> None:
    """RFC 8259, section 8.1: before a report, a token, a login and a Domain API answer."""
    documents: dict[str, Any] = {
        "token": {"access_token": "t", "expires_in": 3600},
        "login": {"bearer": "b", "csrf": "c"},
        "msgconversation": {"metricsTotals": {"totalResolvedConversations": 3}},
    }
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        usual = world.sandbox.fault
        assert usual is not None

        async def fault(request: web.Request) -> web.StreamResponse | None:
            answer = await usual(request)
            if isinstance(answer, web.Response):
                assert isinstance(answer.body, bytes)
                return web.Response(body=MARK + answer.body)
            document = documents[request.path.rpartition("/")[2]]
            return web.Response(body=MARK + msgspec.json.encode(document))

        world.sandbox.fault = fault
        for who in (account(world.sandbox), Account(world.sandbox.account_ids[1], USER)):
            report = await session.fetch(who, QUERY)
            assert report.totals is not None
            assert 3 == report.totals.total_resolved_conversations
            assert b"{" == (await session.fetch_document(who, QUERY))[:1]

        world.sandbox.fault = usual  # which ends the logins


async def test_a_byte_order_mark_in_pieces_is_ignored_too() -> None:
    """However the bytes arrive."""

    async def pieces(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in (*MARK, *NOTHING):
            await response.write(bytes([byte]))
            await asyncio.sleep(0.001)
        return response

    async with serving(pieces) as url, ConversationSession(base_url=url) as session:
        assert NOTHING == await session.fetch_document(WHO, QUERY)


@pytest.mark.looptime
@pytest.mark.parametrize("part", ["baseURI.json", "token", "login"])
async def test_a_login_or_a_look_up_is_read_to_kilobytes_only(part: str) -> None:
    """However large a report may be: what these say is short."""
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        usual = world.sandbox.fault
        assert usual is not None

        async def fault(request: web.Request) -> web.StreamResponse | None:
            answer = await usual(request)
            return web.Response(body=padded(100_000)) if request.path.endswith(part) else answer

        world.sandbox.fault = fault
        who = Account(world.sandbox.account_ids[0], USER if part == "login" else CLIENT)
        with pytest.raises(UnexpectedResponse, match="limit of 65536 bytes") as caught:
            await session.fetch(who, QUERY)

        assert who.id == caught.value.account_id


ABSURD = [
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2300",
    "Mon, 01 Jan 0001 00:00:00 +2300",
    "Sun, 06 Nov 1994 08:49:37 +99999999999999999999",
    "9" * 400,
    "\udcff",
]


@pytest.mark.parametrize("date", [date for date in ABSURD if "0001" not in date])
async def test_an_absurd_date_is_not_believed(date: str) -> None:
    """The answer is as good as one without; so is one that is to be given again for a while."""
    before = datetime.now(UTC)
    head = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {len(NOTHING)}\r\n\r\n"
    async with (
        speaking(head.encode(errors="surrogateescape") + NOTHING) as url,
        ConversationSession(base_url=url, retry=NEVER, fresh_for=60) as session,
    ):
        report = await session.fetch(WHO, QUERY)

    assert report.at is not None
    assert before <= report.at <= datetime.now(UTC)


@pytest.mark.parametrize("date", [None, *ABSURD])
@pytest.mark.parametrize("after", ["9" * 400, *ABSURD])
async def test_an_absurd_retry_after_ends_in_an_error_of_the_library(
    date: str | None, after: str
) -> None:
    """Beside a sane Date or an absurd one: it is a number, or none was asked for."""
    headers = f"Retry-After: {after}\r\n" + (f"Date: {date}\r\n" if date else "")
    head = f"HTTP/1.1 503 No\r\n{headers}Content-Length: 0\r\n\r\n"
    async with (
        speaking(head.encode(errors="surrogateescape")) as url,
        ConversationSession(base_url=url, retry=RetryPolicy(waits=(0,))) as session,
    ):
        with pytest.raises(ServerError) as caught:
            await session.fetch(WHO, QUERY)

    assert caught.value.retry_after is None or caught.value.retry_after >= 0


async def test_a_flood_of_headers_is_not_read_to_its_end() -> None:
    """Neither many of them nor a long one."""
    for flood in (b"X: y\r\n" * 100_000, b"X: " + b"y" * 1_000_000 + b"\r\n"):
        async with (
            speaking(b"HTTP/1.1 200 OK\r\n" + flood + b"\r\n") as url,
            ConversationSession(base_url=url, retry=NEVER) as session,
        ):
            with pytest.raises(ConnectionFailed):
                await session.fetch(WHO, QUERY)


async def test_invisible_characters_of_a_service_are_not_shown() -> None:
    """Neither those that turn the direction of writing around, nor those that draw nothing."""
    body = "no\u202egnirts\u2069 \u200b\ufeffto\u2028be\ufe0f \u3164shown\x9b31m\x1b[0m"
    async with (
        serving(answering(body.encode(), 400)) as url,
        ConversationSession(base_url=url) as session,
    ):
        with pytest.raises(BadRequest) as caught:
            await session.fetch(WHO, QUERY)

    assert "nognirts to be shown 31m [0m" == caught.value.excerpt


async def test_a_long_error_page_is_cut_short() -> None:
    """The beginning of the page is kept, however long it is."""
    async with (
        serving(answering(b"<html>\x00\x1b[31m no\n\n" + b"x" * MiB, 400)) as url,
        ConversationSession(base_url=url) as session,
    ):
        with pytest.raises(BadRequest) as caught:
            await session.fetch(WHO, QUERY)

    assert caught.value.excerpt.startswith("<html> [31m no xxx")
    assert 201 == len(caught.value.excerpt)


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "the server disconnected"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "the server disconnected"),
        (HALF, "the connection broke before the answer was whole"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "broke before"),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "the answer was not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", "the answer was not HTTP"),
    ],
)
async def test_an_answer_that_is_not_whole_is_a_failed_connection(
    answer: bytes, message: str
) -> None:
    """It says what happened in a sentence, and names the account."""
    async with (
        speaking(answer) as url,
        ConversationSession(base_url=url, retry=NEVER) as session,
    ):
        with pytest.raises(ConnectionFailed, match=message) as caught:
            await session.fetch(WHO, QUERY)

    assert WHO.id == caught.value.account_id


@pytest.mark.looptime
async def test_a_host_without_the_right_certificate_is_not_talked_to() -> None:
    """A server that cannot prove its name gets no request."""
    async with liveperson() as world, ConversationSession(http=world.http, retry=NEVER) as session:
        who = Account(world.sandbox.account_ids[0], BEARER, host="elsewhere.example.net")

        with pytest.raises(ConnectionFailed, match="certificate"):
            await session.fetch(who, QUERY)

        assert [] == world.asked


@pytest.mark.looptime
async def test_a_given_session_s_timeouts_are_named_as_such() -> None:
    """An answer that does not come in its time is no missing connection."""

    async def never(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    for timeout in (aiohttp.ClientTimeout(sock_read=2), aiohttp.ClientTimeout(total=2)):
        async with serving(never) as url, aiohttp.ClientSession(timeout=timeout) as http:
            async with ConversationSession(base_url=url, http=http, retry=NEVER) as session:
                began = now()
                with pytest.raises(ConnectionFailed, match="in time"):
                    await session.fetch(WHO, QUERY)
                assert now() - began == pytest.approx(2, abs=0.01)


async def test_every_request_says_what_it_accepts() -> None:
    """Compressed answers are asked for, and the account's credentials go with the question only."""
    headers: list[Any] = []

    async def note(request: web.BaseRequest) -> web.StreamResponse:
        headers.append(request.headers)
        return web.Response(body=NOTHING)

    async with serving(note) as url, ConversationSession(base_url=url) as session:
        await session.fetch(WHO, QUERY)

    assert "gzip" in headers[0]["Accept-Encoding"]
    assert "Cookie" not in headers[0]


async def test_an_error_keeps_the_headers_that_help_support() -> None:
    """And of these nothing that is a secret, or unseen; any other header stays out."""
    headers = {
        "X-Request-Id": "7f3c-9a2e",
        "CF-Ray": f"x{BEARER.token}x",
        "Via": "1.1 cache\u200b",
        "Set-Cookie": "session=1",
        "X-Other": "a",
    }
    async with (
        serving(answering(b"no", 400, headers)) as url,
        ConversationSession(base_url=url) as session,
    ):
        with pytest.raises(BadRequest) as caught:
            await session.fetch(WHO, QUERY)

    error = caught.value
    assert "7f3c-9a2e" == error.request_id
    assert "(HTTP 400, request 7f3c-9a2e): no" in str(error)
    assert {"x-request-id", "cf-ray", "via", "date", "server"} == set(error.headers)
    assert "***" in error.headers["cf-ray"]
    assert BEARER.token not in repr(error.headers)
    assert "1.1 cache" == error.headers["via"]


async def test_errors_of_the_library_are_what_comes_out() -> None:
    """Whatever a server does, the caller needs one except clause."""
    for answer in (b"", HALF, b"\r\n\r\n", b"HTTP/1.1 99999 X\r\n\r\n", bytes(range(256))):
        async with (
            speaking(answer) as url,
            ConversationSession(base_url=url, retry=NEVER) as session,
        ):
            with pytest.raises(MsgConvError):
                await session.fetch(WHO, QUERY, timeout=5)


def pieces(*choices: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from(choices) | st.binary(max_size=20)


HEADER_LINES = st.lists(
    st.tuples(
        pieces(b"Date", b"Retry-After", b"Content-Encoding", b"Transfer-Encoding", b"Set-Cookie",
               b"Content-Length", b"Connection", b"Upgrade"),
        pieces(*(date.encode(errors="surrogateescape") for date in ABSURD), b"gzip", b"deflate",
               b"chunked", b"close", b"2", b"a=b", b"[]=\xff", b"9" * 400, b"websocket"),
    ).map(b": ".join),
    max_size=6,
)  # fmt: skip
ANSWERS = (
    st.builds(
        lambda status, lines, body: b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", body]),
        pieces(
            b"200 OK", b"200 OK", b"204 No", b"100 Go on", b"101 Switch", b"429 \xff", b"503 No"
        ),
        HEADER_LINES,
        pieces(
            b"", NOTHING, gzip.compress(NOTHING), gzip.compress(NOTHING) + b"\0", b"2\r\n{}\r\n"
        ),
    )
    | st.binary()
)


@settings(deadline=None, max_examples=100)
@given(st.lists(ANSWERS, min_size=3, max_size=3), st.sampled_from([BEARER, CLIENT, USER]))
def test_whatever_a_server_sends_is_a_value_or_an_error_of_the_library(
    answers: list[bytes], credentials: Any
) -> None:
    """Any bytes as head, headers and body, for a question and for a login."""
    sent = iter(answers * 9)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(next(sent))
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            policy = RetryPolicy(waits=(0,), throttle_wait=0, login_throttle_wait=0, jitter=0)
            async with ConversationSession(base_url=url, retry=policy, fresh_for=9) as session:
                for _ in range(2):
                    with suppress(MsgConvError):
                        await session.fetch(Account("1", credentials), QUERY, timeout=0.5)

    asyncio.run(ask())
