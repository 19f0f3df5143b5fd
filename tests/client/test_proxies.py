"""A company's network: its proxy, and its own certificate authority. On real sockets."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import aiohttp.connector
import pytest
import trustme
from aiohttp import web
from yarl import URL

from msgconv_async import (
    Account,
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    ConversationSession,
    RetryPolicy,
    ServerError,
    __version__,
)
from msgconv_async.cli.app import app
from msgconv_async.client.http.proxies import Proxies, proxies_of
from msgconv_async.sandbox import Sandbox
from tests.client.connect_proxy import ConnectProxy, connect_proxy
from tests.client.support import (
    API,
    BEARER,
    HOSTS,
    NOTHING,
    QUERY,
    World,
    account,
    answering,
    authority,
    certificate,
    liveperson_server,
    serving,
    trusting,
)

QUICKLY = RetryPolicy(waits=(0, 0), jitter=0)
WHO = Account("12345678", BEARER)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Sandbox, int]]:
    """LivePerson's hosts, whose authority this process trusts; only a proxy leads to them."""
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting())
    async with liveperson_server() as (sandbox, port), aiohttp.ClientSession() as http:
        World(sandbox, http)
        yield sandbox, port


@pytest.fixture
async def proxy(
    world: tuple[Sandbox, int], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ConnectProxy]:
    async with connect_proxy(world[1]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        yield proxy


async def failing(session: ConversationSession, who: Account = WHO) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        await session.fetch(who, QUERY, timeout=5)
    return caught.value


async def test_every_service_is_reached_through_the_proxy_and_tunnels_are_kept(
    world: tuple[Sandbox, int], proxy: ConnectProxy
) -> None:
    """The Domain API, the login and the metrics; a second question needs no new tunnel."""
    sandbox, _ = world
    async with ConversationSession() as session:
        for _ in range(3):
            await session.fetch(account(sandbox), QUERY)

    assert [API, HOSTS["leDataReporting"], HOSTS["sentinel"]] == sorted(
        {host.removesuffix(":443") for host in proxy.tunnels}
    )
    assert 3 == len(proxy.tunnels)


async def test_many_questions_at_once_take_as_many_tunnels_and_no_more(
    world: tuple[Sandbox, int], proxy: ConnectProxy
) -> None:
    """What bounds connections bounds tunnels, and each is used again."""
    sandbox, _ = world
    accounts = [
        Account(each, BEARER, host=HOSTS["leDataReporting"]) for each in sandbox.account_ids
    ]
    sandbox.fault = None

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(0.05)
        return web.Response(body=NOTHING)

    sandbox.fault = answer
    async with ConversationSession(coalesce=False) as session:
        for _ in range(3):
            await asyncio.gather(*(session.fetch(who, QUERY) for who in accounts))

    assert 3 == len(proxy.tunnels)


async def test_what_a_tunnel_said_unasked_is_given_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kept tunnel is looked at before the next question goes out, as any connection is."""
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting())
    said = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            number += 1
            body = b'{"metricsTotals":{"totalResolvedConversations":%d}}'
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
            mine, other = body % number, body % 666
            writer.write(head % len(mine) + mine)
            await asyncio.sleep(0.01)
            writer.write(head % len(other) + other)
            await writer.drain()
            said.set()
        writer.close()

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate().configure_cert(tls)
    who = Account("1", BEARER, host=API)
    async with (
        await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls) as server,
        connect_proxy(server.sockets[0].getsockname()[1]) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with ConversationSession(coalesce=False) as session:
            found = []
            for _ in range(3):
                report = await session.fetch(who, QUERY, timeout=5)
                await said.wait()
                await asyncio.sleep(0.02)
                assert report.totals is not None
                found.append(report.totals.total_resolved_conversations)

    assert [1, 1, 1] == found
    assert 3 == len(proxy.tunnels)


async def test_the_name_and_the_password_go_to_the_proxy_alone(
    world: tuple[Sandbox, int], proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the proxy's own header, decoded; the service does not see it."""
    sandbox, _ = world
    seen: list[dict[str, str]] = []

    async def look(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        return web.Response(body=NOTHING)

    sandbox.fault = look
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@{proxy.name}")
    async with ConversationSession() as session:
        await session.fetch(Account("1", BEARER, host=API), QUERY)

    told = base64.b64encode(b"me:p@ss").decode()
    assert f"Proxy-Authorization: Basic {told}" in proxy.heads[0]
    assert told not in str(seen)
    assert BEARER.token not in proxy.heads[0]
    assert f"msgconv-async/{__version__} Python/" in seen[0]["User-Agent"]


async def test_a_host_in_no_proxy_is_asked_directly(
    proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one does not exist, as its failure says."""
    monkeypatch.setenv("NO_PROXY", ".invalid")
    async with ConversationSession(retry=RetryPolicy(waits=())) as session:
        error = await failing(session, Account("1", BEARER, host="data.invalid"))

    assert "data.invalid:443" in str(error)
    assert [] == proxy.tunnels


async def test_a_server_on_this_machine_is_asked_directly(
    proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the environment cannot work: the sandbox needs no proxy."""
    async with serving(answering()) as url, ConversationSession(base_url=url) as session:
        await session.fetch(WHO, QUERY)
    monkeypatch.setenv("HTTPS_PROXY", "socks5://elsewhere:1080")
    async with serving(answering()) as url, ConversationSession(base_url=url) as session:
        await session.fetch(WHO, QUERY)

    assert [] == proxy.tunnels


async def test_a_given_session_has_proxies_of_its_own(proxy: ConnectProxy) -> None:
    """The environment's is not used for it; its own is, and is told as well."""
    proxy.refusal = b"HTTP/1.1 403 Forbidden\r\n\r\n"
    async with aiohttp.ClientSession() as http, ConversationSession(http=http) as session:
        await failing(session, Account("1", BEARER, host="data.invalid"))
    assert [] == proxy.tunnels

    async with aiohttp.ClientSession(proxy=proxy.url) as http:
        async with ConversationSession(http=http) as session:
            error = await failing(session, Account("1", BEARER, host="data.invalid"))
    assert f"the proxy {proxy.name} made no connection to data.invalid" in str(error)


@pytest.mark.parametrize(("status", "tries"), [(407, 1), (403, 1), (502, 3), (503, 3)], ids=str)
async def test_a_proxy_s_refusal_is_told_as_its_own(
    proxy: ConnectProxy, status: int, tries: int
) -> None:
    """By its host, without its words; tried again only where it may yet reach the service."""
    page = b"<html>Access denied for p4ssw0rd</html>"
    proxy.refusal = b"HTTP/1.1 %d No\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (
        *(status, len(page), page),
    )
    async with ConversationSession(retry=QUICKLY) as session:
        error = await failing(session, Account("1", BEARER, host=API))

    assert f"the proxy {proxy.name} " in str(error)
    assert str(status) in str(error)
    assert "p4ssw0rd" not in str(error)
    assert (tries > 1, tries) == (error.repeatable, len(proxy.tunnels))


async def test_a_password_that_the_proxy_does_not_accept_is_not_shown(
    proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says which password is wrong, and which one would be missing."""
    proxy.refusal = b"HTTP/1.1 407 me:p4ssw0rd\r\nProxy-Authenticate: Basic\r\n\r\n"
    async with ConversationSession() as session:
        without = await failing(session)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:p4ssw0rd@{proxy.name}")
    async with ConversationSession() as session:
        wrong = await failing(session)

    assert f"HTTPS_PROXY=http://name:password@{proxy.name}" in str(without)
    assert "does not accept the name and the password in its address" in str(wrong)
    assert "p4ssw0rd" not in f"{without!r} {wrong!r}"


async def test_a_proxy_that_cannot_be_reached_is_named(
    proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the service, which nobody asked yet."""
    monkeypatch.setenv("HTTPS_PROXY", "http://me:p4ssw0rd@localhost:1")
    async with ConversationSession(retry=RetryPolicy(waits=())) as session:
        error = await failing(session)
    assert "cannot connect to the proxy localhost:1: " in str(error)
    assert "p4ssw0rd" not in str(error)

    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http", "https"))
    async with ConversationSession(retry=RetryPolicy(waits=())) as session:
        error = await failing(session)
    assert "does not speak TLS: write its address with http://" in str(error)


async def test_a_proxy_that_speaks_tls_is_one_as_well(
    world: tuple[Sandbox, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, port = world
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate().configure_cert(tls)
    async with connect_proxy(port, tls) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        async with ConversationSession() as session:
            await session.fetch(account(sandbox), QUERY)

    assert 3 == len(proxy.tunnels)


async def test_a_page_in_the_service_s_place_is_told_as_the_proxy_s(
    world: tuple[Sandbox, int], proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that reads what passes speaks for the service; nothing of its password shows."""
    sandbox, _ = world
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:p4ssw0rd@{proxy.name}")

    async def page(_: web.Request) -> web.Response:
        secret = base64.b64encode(b"me:p4ssw0rd").decode()
        return web.Response(status=502, text=f"<p>{secret}</p>", content_type="text/html")

    sandbox.fault = page
    async with ConversationSession(retry=RetryPolicy(waits=())) as session:
        with pytest.raises(ServerError) as caught:
            await session.fetch(Account("1", BEARER, host=API), QUERY)

    assert f"or the proxy {proxy.name} answered in its place (HTTP 502): ***" in str(caught.value)


async def test_a_login_that_a_proxy_on_the_way_asks_for_is_no_account_s() -> None:
    """407 is no 401: the account's credentials are not renewed."""
    async with serving(answering(b"", 407)) as url, ConversationSession(base_url=url) as session:
        with pytest.raises(ApiError, match="a proxy on the way asks for a name") as caught:
            await session.fetch(WHO, QUERY)
    assert ApiError is type(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("socks5://me:p4ssw0rd@proxy:1080", "a proxy of the kind 'socks5', which is not"),
        ("http://me:p4ss#w0rd@proxy:3128", "is not the address of a proxy"),
        ("http://proxy:99999", "is not the address of a proxy"),
        ("http://proxy:3128/path", "is not the address of a proxy"),
        ("http://", "is not the address of a proxy"),
        ("me:p4ssw0rd", "is not the address of a proxy"),
    ],
)
def test_what_is_no_proxy_is_told_when_the_session_is_made(
    given: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence, which says what would be right and shows nothing that may be a secret."""
    monkeypatch.setenv("HTTPS_PROXY", given)
    with pytest.raises(ConfigurationError, match=said) as caught:
        ConversationSession()

    assert "give it as http://host:port" in str(caught.value)
    assert "ss" not in str(caught.value).replace("password", "").replace("address", "")


@pytest.mark.parametrize(
    ("no_proxy", "host", "through"),
    [
        ("", "va.data.example.net", True),
        ("", "localhost", False),
        ("", "127.3.2.1", False),
        ("", "[::1]", False),
        ("*", "va.data.example.net", False),
        ("example.net", "va.data.example.net", False),
        (".example.net, other.net", "va.data.example.net", False),
        ("ample.net", "va.data.example.net", True),
        ("*.Example.net", "VA.data.example.net", False),
        ("10.0.0.1:443", "10.0.0.1", False),
        ("va.data.example.net:8443", "va.data.example.net", True),
        ("va.data.example.net:443", "va.data.example.net", False),
        ("10.0.0.0/8", "10.2.3.4", False),
        ("10.0.0.0/8,192.168.1.1", "192.168.1.1", False),
        ("10.0.0.0/8", "11.2.3.4", True),
        ("fd00::/8", "[fd00::1]", False),
    ],
)
def test_no_proxy_is_read_as_other_programs_read_it(
    no_proxy: str, host: str, *, through: bool
) -> None:
    proxies = proxies_of({"HTTPS_PROXY": "proxy:3128", "NO_PROXY": no_proxy})
    assert (URL("http://proxy:3128") if through else None) == proxies.of(URL(f"https://{host}/a"))


def test_the_variable_in_small_letters_wins_though_it_is_empty() -> None:
    """So the proxy is switched off for one command."""
    url = URL("https://va.data.example.net")
    assert proxies_of({"HTTPS_PROXY": "http://proxy:1", "https_proxy": ""}).of(url) is None
    assert proxies_of({"HTTP_PROXY": "http://proxy:1"}).of(url) is None
    assert Proxies().of(url) is None


async def test_a_command_takes_the_proxy(
    world: tuple[Sandbox, int],
    proxy: ConnectProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sandbox, _ = world
    monkeypatch.setenv("MSGCONV_CLIENT_ID", "sandbox-client")
    monkeypatch.setenv("MSGCONV_CLIENT_SECRET", "sandbox-secret")
    command = ["fetch", sandbox.account_ids[0], "--timeframe", "60"]
    await app.run_async(command, result_action="return_value")

    assert 3 == len(proxy.tunnels)
    assert sandbox.account_ids[0] in capsys.readouterr().out


PROGRAM = """
import asyncio, sys
from msgconv_async import *

async def main():
    account = Account(sys.argv[1], BearerToken("t"), host="va.data.example.net")
    async with ConversationSession() as session:
        try:
            await session.fetch(account, ConversationQuery(60), timeout=20)
        except MsgConvError as error:
            print(error)

asyncio.run(main())
"""


async def test_a_company_s_authority_is_trusted_when_the_environment_names_it(
    world: tuple[Sandbox, int], proxy: ConnectProxy, tmp_path: Path
) -> None:
    """In a program of its own: OpenSSL reads the variable when it starts."""
    sandbox, _ = world
    file, other, absent = (tmp_path / name for name in ("company.pem", "other.pem", "absent.pem"))
    authority().cert_pem.write_to_path(str(file))
    trustme.CA().cert_pem.write_to_path(str(other))

    async def run(**variables: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, sandbox.account_ids[0]),
            env=dict(os.environ) | variables,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)
        return out.decode()

    trusted, unknown, unread, wrong, empty = await asyncio.gather(
        run(SSL_CERT_FILE=str(file)),
        run(),
        run(SSL_CERT_FILE=str(absent)),
        run(SSL_CERT_FILE=str(other)),
        run(SSL_CERT_FILE=str(other), SSL_CERT_DIR=str(tmp_path)),
    )
    assert "the account is unknown or the credentials" in trusted  # it was let in to be refused
    assert "of va.data.example.net:443 is not accepted: unable to get local issuer" in unknown
    assert "let SSL_CERT_FILE name" in unknown
    assert f"SSL_CERT_FILE is {absent}, which is not there" in unread
    said = "; when Python started, the authority that signed this was not in"
    assert f"{said} {other} (SSL_CERT_FILE)" in wrong
    assert f"{said} {other} (SSL_CERT_FILE) nor in {tmp_path} (SSL_CERT_DIR)" in empty
    assert "let SSL_CERT_FILE name" not in wrong + empty
    assert 5 == len(proxy.tunnels)  # no try was repeated
