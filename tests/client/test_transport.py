import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web

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
    HOSTS,
    LONG_QUERY,
    NOTHING,
    QUERY,
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
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", "broke"),
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


async def test_errors_of_the_library_are_what_comes_out() -> None:
    """Whatever a server does, the caller needs one except clause."""
    for answer in (b"", HALF, b"\r\n\r\n", b"HTTP/1.1 99999 X\r\n\r\n", bytes(range(256))):
        async with (
            speaking(answer) as url,
            ConversationSession(base_url=url, retry=NEVER) as session,
        ):
            with pytest.raises(MsgConvError):
                await session.fetch(WHO, QUERY, timeout=5)
