from __future__ import annotations

import asyncio
import logging
import random
import time
from urllib.parse import urlsplit

import pytest

from msgconv_async.sandbox import ACCESS_TOKEN, APP_KEY, Sandbox

METRICS = "/operations/api/account/10000001/msgconversation"
ROUTES = (
    METRICS,
    "/api/account/10000001/service/baseURI.json",
    "/api/account/10000001/service/sentinel/baseURI.json",
    "/sentinel/api/v2/account/10000001/app/token",
    "/api/account/10000001/login",
    "/api/account/10000001/refresh",
    "/api/account/10000001/logout",
)
SIGNED = (
    f'OAuth oauth_consumer_key="{APP_KEY}",oauth_token="{ACCESS_TOKEN}",'
    'oauth_signature_method="HMAC-SHA1",oauth_timestamp="1",oauth_nonce="n",oauth_signature="x"'
)
HOSTS = ["h", "h:abc", "[", "[::1", "", "h:99999", "\xff", "h h", "h:80:80", "a@b", "%zz"]
AUTHORIZATIONS = [SIGNED, 'OAuth "', "OAuth a=b, c", 'OAuth oauth_nonce="%zz"', "Bearer \xff", ""]
ENCODINGS = ["identity", "gzip", "deflate", "br", "zstd", "foo", ""]
COOKIES = ['Session_id="\\777"', ";;=", "Session_id", "\xff=\xff", ""]
BODIES = [
    b"",
    b"nope",
    b"[]",
    b"\xff",
    b"[" * 5000,
    b'{"v":' + b"1" * 5000 + b"}",
    b'{"v":"1","timeframe":"5","skillIds":["4"]}',
    b'{"v":1,"timeframe":1e999,"interval":{"a":1}}',
    b'{"username":"\\ud800","password":{}}',
    b'{"username":"\xff","password":"a"}',
    b"grant_type=client_credentials&client_id=%ff&client_secret=%zz",
]
QUERIES = ["v=1&timeframe=5", "v=1.3", "version=1.0", "%", "a=%ff&%zz=;&&=", "v=" + "1" * 5000, ""]
PIECES = ["%00", "%ff", "\xff", "//", "..", "%", " ", "\x01", "?", "#", "x" * 9000]


async def send(url: str, request: bytes) -> bytes:
    """Return what is answered, to the end."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


def malformed(some: random.Random) -> bytes:
    path = some.choice(ROUTES)
    for _ in range(some.choice([0, 0, 0, 1, 2])):
        place = some.randrange(1, len(path))
        path = path[:place] + some.choice(PIECES) + path[place:]
    body = some.choice(BODIES)
    head = (
        f"{some.choice(['GET', 'POST', 'POST', 'PUT', 'HEAD', 'FOO'])}"
        f" {path}?{some.choice(QUERIES)} HTTP/1.1\r\nHost: {some.choice(HOSTS)}\r\n"
        f"Authorization: {some.choice(AUTHORIZATIONS)}\r\nCookie: {some.choice(COOKIES)}\r\n"
        f"Content-Encoding: {some.choice(ENCODINGS)}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_malformed_is_refused_and_never_an_error_of_the_server(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Path, query, headers, body, of every route: without a traceback in the log."""
    some = random.Random(seed)
    caplog.set_level(logging.WARNING)
    async with Sandbox() as sandbox:
        for _ in range(150):
            request = malformed(some)
            answer = await send(sandbox.url, request)
            assert answer[9:10] in {b"2", b"4"}, (request, answer)
    assert [] == [record.getMessage() for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("host", ["h:abc", "h:99999", "[", "\xff"])
async def test_a_signature_over_a_host_that_is_none_is_refused(host: str) -> None:
    """Nobody could have signed it."""
    head = f"GET {METRICS}?v=1 HTTP/1.1\r\nHost: {host}\r\nAuthorization: {SIGNED}\r\n"
    async with Sandbox() as sandbox:
        answer = await send(sandbox.url, f"{head}Connection: close\r\n\r\n".encode("latin-1"))
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", [*ROUTES[3:], METRICS])
async def test_a_body_of_megabytes_is_refused_before_it_is_read(path: str) -> None:
    """It does not hold up other requests."""
    body = b"{" + b",".join(b'"%d":1' % number for number in range(1_000_000)) + b"}"
    head = f"POST {path}?v=1.3 HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
    async with Sandbox() as sandbox:
        began = time.process_time()
        answer = await send(sandbox.url, f"{head}Connection: close\r\n\r\n".encode() + body)
        took = time.process_time() - began
    # A question is read only of those who were let in.
    assert answer[9:12] == (b"401" if path == METRICS else b"413")
    assert took < 1
