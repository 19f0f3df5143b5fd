import asyncio
import html
import json
import logging
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ApiKey,
    BearerToken,
    ClientCredentials,
    ConversationSession,
    MsgConvError,
    RetryPolicy,
    UserLogin,
)
from tests.client.support import EVEN, QUERY, serving, speaking

pytestmark = pytest.mark.looptime

SECRET = 'S3cr3t +/="é\\&;key'
TOKEN = "T0k3n.that-nobody/must+see=="
CSRF = "C5rf-that-nobody-must-see"
COOKIE = "C00kie-that-nobody-must-see"
FRAGMENTS = ["S3cr3t", "T0k3n", "C5rf", "C00kie"]

EACH: list[Any] = [
    ClientCredentials("an-id", SECRET),
    UserLogin("a-name", SECRET),
    BearerToken(TOKEN),
    ApiKey("a-key", SECRET, TOKEN, SECRET),
]
each_way = pytest.mark.parametrize("credentials", EACH, ids=lambda each: type(each).__name__)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Hear every logger, from the lowest level on."""
    with caplog.at_level(logging.DEBUG):
        for name in ["asyncio", "aiohttp", "msgconv_async", *logging.root.manager.loggerDict]:
            logging.getLogger(name).setLevel(logging.NOTSET)
        yield caplog


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Every exception that can be reached from one."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or any(each is other for other in seen):
            continue
        seen.append(each)
        yield each
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions


def told(error: BaseException) -> str:
    """All that an error says, to whoever asks in whatever way."""
    parts = traceback.format_exception(error)
    for each in chain(error):
        each.__suppress_context__ = False
        parts += [str(each), repr(each), repr(vars(each)), repr(each.args)]
        parts += traceback.format_exception(each)
    if isinstance(error, MsgConvError):
        parts.append(repr(pickle.dumps(error)))
        parts.append(repr(vars(pickle.loads(pickle.dumps(error)))))
    return "\n".join(parts)


def assert_silent(text: str) -> None:
    leaked = [fragment for fragment in FRAGMENTS if fragment in text]
    assert [] == leaked, text


def spellings(secret: str) -> list[str]:
    """A secret as forms, JSON, HTML and people write it."""
    return [
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
        json.dumps(secret).replace("/", r"\/"),
        html.escape(secret),
        re.sub("%..", lambda match: match[0].lower(), quote(secret, safe="")),
    ]


@asynccontextmanager
async def service(*, login: int = 200, question: int = 200) -> AsyncIterator[str]:
    """Answer logins and questions with a status, and with all that it knows as the reason."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        *_, who, action = request.path.replace("/app", "").split("/")
        status = question if action == "msgconversation" else login
        if action in {"token", "login"} and login == 200:
            document = {"access_token": TOKEN, "bearer": TOKEN, "csrf": CSRF}
            response = web.json_response(document)
            response.headers["Set-Cookie"] = f"Session={COOKIE}; Path=/"
            return response
        if action in {"refresh", "logout"}:
            status = 500
        said = [(await request.read()).decode()]
        said += [f"{name}: {value}" for name, value in request.headers.items()]
        known = [
            *EACH[int(who)].secrets(),
            *([TOKEN] if "Authorization" in request.headers else []),
        ]
        said += [spelled for secret in known for spelled in spellings(secret)]
        said = [each for each in said if any(part in each for part in FRAGMENTS)]
        return web.Response(status=status, text=" ".join(said))

    async with serving(answer) as url:
        yield url


def whose(credentials: Any) -> Account:
    return Account(str(EACH.index(credentials)), credentials)


@each_way
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 302])
async def test_no_secret_in_an_error_or_a_log(
    credentials: Any, status: int, logged: pytest.LogCaptureFixture
) -> None:
    """Whatever a service echoes of a question, no secret is in what comes of it."""
    async with service(login=200, question=status) as url:
        async with ConversationSession(base_url=url, retry=EVEN) as session:
            with pytest.raises(MsgConvError) as caught:
                await session.fetch(whose(credentials), QUERY, timeout=20)
            await asyncio.sleep(300)

    assert_silent(told(caught.value))
    assert_silent(logged.text + "".join(str(record.__dict__) for record in logged.records))
    assert "***" in str(caught.value)


@pytest.mark.parametrize("credentials", EACH[:2], ids=["token", "login"])
@pytest.mark.parametrize("status", [400, 401, 429, 451, 500])
async def test_no_secret_in_a_failed_login(
    credentials: Any, status: int, logged: pytest.LogCaptureFixture
) -> None:
    """Nor in what comes of a login that the service echoes; each waiter's copy included."""
    async with service(login=status, question=200) as url:
        async with ConversationSession(base_url=url, retry=EVEN) as session:
            who = whose(credentials)
            errors = await asyncio.gather(
                *(session.fetch(who, QUERY, timeout=20) for _ in range(3)), return_exceptions=True
            )

    for error in errors:
        assert isinstance(error, MsgConvError)
        assert_silent(told(error))
        assert "***" in str(error)
    assert_silent(logged.text)


@each_way
async def test_no_secret_in_what_a_broken_connection_leaves(
    credentials: Any, logged: pytest.LogCaptureFixture
) -> None:
    """The exceptions of aiohttp hold the request's headers; none of them is in the chain."""
    answers = [
        b"",
        f"HTTP/1.1 200 OK\r\nSet-Cookie: Session={COOKIE}\r\nContent-Ty".encode(),
        f"HTTP/1.1 200 OK\r\nSet-Cookie: Session={COOKIE}\r\nContent-Length: 9\r\n\r\n{{".encode(),
        f"HTTP/1.1 200 {TOKEN}\r\nno header\r\n\r\n".encode(),
        f"garbage {TOKEN}\r\n\r\n".encode(),
    ]
    for answer in answers:
        async with speaking(answer) as url:
            policy = RetryPolicy(waits=(1,))
            async with ConversationSession(base_url=url, retry=policy) as session:
                with pytest.raises(MsgConvError) as caught:
                    await session.fetch(whose(credentials), QUERY)

        assert_silent(told(caught.value))
        kinds = {type(each).__module__.split(".")[0] for each in chain(caught.value)}
        assert "aiohttp" not in kinds
    assert_silent(logged.text)


@each_way
async def test_no_secret_in_a_timeout(credentials: Any) -> None:
    """What a call was doing when its time ran out is not in the chain, nor what failed before."""
    asked = 0

    async def never(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked == 1:
            echoed = f"{dict(request.headers)} {await request.text()}"
            return web.Response(status=503, text=f"overloaded: {echoed}")
        await asyncio.sleep(3600)
        return web.Response()

    async with (
        serving(never) as url,
        ConversationSession(base_url=url, retry=RetryPolicy(waits=[0.01])) as session,
    ):
        with pytest.raises(TimeoutError, match="overloaded: ") as caught:
            await session.fetch(whose(credentials), QUERY, timeout=1)

    assert_silent(told(caught.value))


@pytest.mark.parametrize(
    "document",
    [
        {"access_token": [TOKEN]},
        {"access_token": f"{TOKEN}\n"},
        {"access_token": TOKEN, "expires_in": TOKEN},
        TOKEN,
    ],
)
async def test_no_secret_in_a_login_that_is_not_understood(document: Any) -> None:
    """A token of the wrong shape is not shown in the complaint about it."""

    async def login(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(document)

    async with serving(login) as url, ConversationSession(base_url=url) as session:
        with pytest.raises(MsgConvError) as caught:
            await session.fetch(whose(EACH[0]), QUERY)

    assert_silent(told(caught.value))


async def test_no_secret_in_outcomes() -> None:
    """An outcome can be printed, its account included."""
    async with service(login=200, question=400) as url:
        async with ConversationSession(base_url=url) as session:
            accounts = [whose(each) for each in EACH]
            async with session.fetch_many(accounts, QUERY) as outcomes:
                shown = [repr(outcome) async for outcome in outcomes]

    assert 4 == len(shown)
    assert_silent("".join(shown))


async def test_retries_are_logged_through_the_standard_library(
    logged: pytest.LogCaptureFixture,
) -> None:
    """Each wait is a line, with the account, the reason and the seconds."""
    async with service(login=200, question=503) as url:
        async with ConversationSession(base_url=url, retry=EVEN) as session:
            with pytest.raises(MsgConvError):
                await session.fetch(Account("2", EACH[2]), QUERY)

    lines = [each.getMessage() for each in logged.records if each.name == "msgconv_async"]
    assert 3 == len(lines)
    assert "account 2: the service failed (HTTP 503)" in lines[0]
    assert lines[0].endswith("again in 5.0 s")


def test_without_configuration_nothing_is_printed() -> None:
    """A program that set up no logging sees nothing of retries and refusals on its screen."""
    program = """
import asyncio, warnings
from msgconv_async import *
async def main():
    policy = RetryPolicy(waits=(0, 0))
    async with ConversationSession(base_url="http://127.0.0.1:9", retry=policy) as session:
        try:
            await session.fetch(Account("1", UserLogin("name", "word")), ConversationQuery(60))
        except ConnectionFailed:
            print("failed")
asyncio.run(main())
"""
    said = subprocess.run(  # noqa: S603
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, check=True
    )

    assert ("failed\n", "") == (said.stdout, said.stderr)
