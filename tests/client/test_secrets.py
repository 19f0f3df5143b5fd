import asyncio
import base64
import copy
import dataclasses
import html
import json
import logging
import pickle
import quopri
import re
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import orjson
import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ApiKey,
    BearerToken,
    ClientCredentials,
    ConfigurationError,
    ConversationSession,
    MsgConvError,
    RetryPolicy,
    UserLogin,
)
from msgconv_async.client.access.credentials import Credentials
from msgconv_async.client.http.redaction import excerpt
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


def frames(error: BaseException) -> Iterator[FrameType]:
    """Every frame that an error reporter finds."""
    for each in chain(error):
        trace = each.__traceback__
        while trace is not None:
            yield trace.tb_frame
            trace = trace.tb_next


def held(value: object) -> list[object]:
    """What an object holds, in whatever way."""
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    return [
        *getattr(value, "__dict__", {}).values(),
        *(getattr(value, name, None) for name in slots if isinstance(name, str)),
        *(value.values() if isinstance(value, Mapping) else ()),
        *(value if isinstance(value, (list, tuple, set)) else ()),
    ]


def reported(error: BaseException) -> str:
    """What an error reporter shows of the locals of frames, one level into objects.

    The frames of this file are left out, and so are the credentials themselves: their attributes
    have to be what they are.
    """
    parts: list[str] = []
    for frame in frames(error):
        if frame.f_code.co_filename == __file__:
            continue
        for value in frame.f_locals.values():
            parts.append(repr(value))
            if not isinstance(value, Credentials):
                parts += map(repr, held(value))
    return "\n".join(parts)


BROKEN: dict[str, bytes | int] = {
    "refused": 400,
    "failed": 503,
    "hung up": b"",
    "broken": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
    "no JSON": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
    "too large": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b" " * 9999,
    "no gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n{",
    "never": b"wait",
}


@asynccontextmanager
async def breaking(how: bytes | int, *, login: bool) -> AsyncIterator[str]:
    """Answer logins, and break the question; or break the login if that is asked for."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if length := re.search(rb"Content-Length: (\d+)", head):
                    await reader.readexactly(int(length[1]))
                is_login = head.startswith(b"POST")
                body = json.dumps({"access_token": TOKEN, "bearer": TOKEN, "csrf": CSRF}).encode()
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                if is_login == login and how == b"wait":
                    await reader.read()
                    break
                if is_login == login and isinstance(how, int):
                    answer = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % how
                elif is_login == login:
                    assert isinstance(how, bytes)
                    writer.write(how)
                    break
                writer.write(answer)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("how", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize(
    ("credentials", "login"),
    [(each, False) for each in EACH] + [(each, True) for each in EACH[:2]],
    ids=[f"question-{number}" for number in range(4)] + ["login-0", "login-1"],
)
async def test_no_secret_in_the_frames_that_an_error_came_through(
    credentials: Any, how: bytes | int, *, login: bool
) -> None:
    """Error reporters show the locals of a traceback's frames, aiohttp's as well."""
    found: list[BaseException] = []
    policy = RetryPolicy(waits=(0.1,))
    async with breaking(how, login=login) as url:
        async with ConversationSession(base_url=url, retry=policy, max_body=9000) as session:
            who = whose(credentials)
            for coalesced in (session.fetch, session.fetch_document):
                try:
                    await coalesced(who, QUERY, timeout=3)
                except MsgConvError as error:
                    found.append(error)
            async with session.fetch_many([who], QUERY, timeout=3) as outcomes:
                found += [each.error async for each in outcomes if each.error is not None]
            try:
                async with asyncio.timeout(0.05):
                    await session.fetch(who, QUERY)
            except (TimeoutError, MsgConvError) as late:
                found.append(late)

    assert found
    for failure in found:
        assert_silent(reported(failure))
        assert failure.__traceback__ is not None


async def test_the_frames_of_the_caller_keep_their_locals() -> None:
    """What was being handled when a call began is not the call's to touch."""

    def failing() -> None:
        mine = "kept"
        raise LookupError(mine)

    async with service(question=400) as url, ConversationSession(base_url=url) as session:
        try:
            failing()
        except LookupError:
            with pytest.raises(MsgConvError) as caught:
                await session.fetch(whose(EACH[2]), QUERY)

    mine = [frame.f_locals for frame in frames(caught.value) if frame.f_code.co_name == "failing"]
    assert [{"mine": "kept"}] == mine


WRITERS: dict[str, Callable[[Any], object]] = {
    "msgspec.json": msgspec.json.encode,
    "msgspec.msgpack": msgspec.msgpack.encode,
    "msgspec.to_builtins": msgspec.to_builtins,
    "orjson": orjson.dumps,
    "json": json.dumps,
    "json with repr": lambda value: json.dumps(value, default=repr),
    "asdict": lambda value: repr(dataclasses.asdict(value)),
    "pickle's second protocol, which YAML is written by": lambda value: pickle.dumps(value, 2),
}


@each_way
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("where", ["account", "list"])
def test_no_serialiser_writes_a_secret(
    credentials: Any, write: Callable[[Any], object], where: str
) -> None:
    """It writes none, or refuses; an account that was put into a log is such a case."""
    who = whose(credentials)
    try:
        written = write(who if where == "account" else [who, credentials])
    except TypeError as error:
        written = str(error)
    assert_silent(str(written))


@each_way
def test_credentials_are_values(credentials: Any) -> None:
    """They compare, hash, copy and cross a process pool, and do not change."""
    again = pickle.loads(pickle.dumps(whose(credentials)))

    assert whose(credentials) == again
    assert hash(credentials) == hash(again.credentials)
    assert credentials == copy.deepcopy(credentials)
    assert credentials.secrets() == copy.copy(credentials).secrets()
    assert credentials != BearerToken("another")
    assert_silent(repr(again))
    with pytest.raises(AttributeError):
        credentials.token = "another"
    with pytest.raises(AttributeError):
        del credentials.token


ECHOES: dict[str, Callable[[str], str]] = {
    "folded": lambda secret: "\r\n ".join(re.findall("(?s).{1,5}", secret)),
    "cut at its end": lambda secret: secret[:8],
    "cut at its beginning": lambda secret: secret[-8:],
    "twice in a form": lambda secret: quote(quote(secret)),
    "twice in JSON": lambda secret: json.dumps(json.dumps(secret)),
    "in base64": lambda secret: base64.b64encode(f"id:{secret}".encode()).decode(),
    "in base64, cut": lambda secret: base64.b64encode(secret.encode()).decode()[3:],
    "in base64 for URLs": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
    "in folded base64": lambda secret: base64.encodebytes(secret.encode() * 3).decode(),
    "in hex": lambda secret: secret.encode().hex(),
    "in hex, spaced": lambda secret: secret.encode().hex(" "),
    "in hex of base64": lambda secret: base64.b64encode(secret.encode()).hex(),
    "in quoted-printable": lambda secret: quopri.encodestring(secret.encode()).decode(),
    "in HTML numbers": lambda secret: "".join(f"&#{ord(each)};" for each in secret),
    "in marked-up HTML": lambda secret: "<wbr>".join(re.findall("(?s).{1,5}", secret)),
    "in capitals": str.upper,
    "with invisible characters": "\u200b".join,
    "in UTF-16": lambda secret: secret.encode("utf-16").decode("latin-1"),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("secret", [TOKEN, SECRET], ids=["token", "secret"])
def test_an_echo_in_disguise_is_not_shown(secret: str, echo: Callable[[str], str]) -> None:
    """An excerpt that shares eight characters in a row with a secret, decoded, is dropped."""
    said = f"no entry for {echo(secret)} here"

    assert "***" in excerpt(said.encode(), [secret])
    assert_silent(excerpt(said.encode(), [secret]))


def test_what_has_nothing_of_a_secret_is_shown() -> None:
    """Not everything that looks encoded is one."""
    said = '{"error": "throttled", "id": "9f8e7d6c5b4a3928", "trace": "dGhyb3R0bGVkIGhlcmU="}'

    assert said == excerpt(said.encode(), [SECRET, TOKEN])


@pytest.mark.parametrize("wrong", ["word\n", " word", "word ", "wo\nrd", "word\r", "word\u2028"])
def test_a_secret_with_the_line_end_of_its_file_is_told(wrong: str) -> None:
    """Before the service refuses it, in one sentence that does not show it."""
    for make in (
        lambda: ClientCredentials("an-id", wrong),
        lambda: ClientCredentials(wrong, "word"),
        lambda: UserLogin("a-name", wrong),
        lambda: ApiKey("a-key", "word", wrong, "word"),
        lambda: BearerToken(wrong),
    ):
        with pytest.raises(ConfigurationError, match="line end") as caught:
            make()
        assert repr(wrong) not in str(caught.value)


def test_a_password_may_hold_spaces() -> None:
    """Only at its ends they are a mistake."""
    assert ("pass word\tx",) == UserLogin("a name", "pass word\tx").secrets()


def test_without_configuration_nothing_is_printed() -> None:
    """A program that set up no logging sees nothing of retries and refusals on its screen."""
    program = """
import asyncio, warnings
from msgconv_async import *
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no news
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
