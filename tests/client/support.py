"""What the client's tests stand on: accounts, small servers, and LivePerson's hosts over TLS."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from msgconv_async import (
    Account,
    BearerToken,
    ClientCredentials,
    ConversationQuery,
    RetryPolicy,
    UserLogin,
)
from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET, PASSWORD, USERNAME, Sandbox

QUERY = ConversationQuery(60)
NOTHING = b'{"metricsTotals":{}}'
"""An answer to it."""
ANY = b'{"metricsTotals":{},"agentsMetrics":{}}'
"""An answer to `QUERY` and to `LONG_QUERY`."""

LONG_QUERY = ConversationQuery(60, agent_ids=range(10**6, 10**6 + 300))
"""Too long for a URL: sent as a POST."""

CLIENT = ClientCredentials(CLIENT_ID, CLIENT_SECRET)
USER = UserLogin(USERNAME, PASSWORD)
BEARER = BearerToken("a-bearer-of-your-own")
EVEN = RetryPolicy(jitter=0)
"""The default policy, its waits to the second."""

API = "api.liveperson.net"
HOSTS = {
    "leDataReporting": "va.data.example.net",
    "sentinel": "va.sentinel.example.net",
    "agentVep": "va.agentvep.example.net",
}

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def account(sandbox: Sandbox, number: int = 0) -> Account:
    """Return one of the sandbox's accounts, with the usual credentials."""
    return Account(sandbox.account_ids[number], CLIENT)


def now() -> float:
    """Return the event loop's time, in seconds."""
    return asyncio.get_running_loop().time()


async def turns(count: int = 20) -> None:
    """Let whatever is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def client_tasks() -> set[str]:
    """Return the names of what the client, and not the test or a server, has running."""
    coroutines: list[Any] = [task.get_coro() for task in asyncio.all_tasks()]
    return {
        each.__qualname__
        for each in coroutines
        if "/msgconv_async/client/" in each.cr_code.co_filename
    }


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Answer every request in one way; yields the origin."""
    server = web.Server(handler, access_log=None, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def answering(
    body: bytes = NOTHING, status: int = 200, headers: Mapping[str, str] | None = None
) -> Handler:
    """Return a handler that always says the same."""

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return handler


@asynccontextmanager
async def speaking(answer: bytes) -> AsyncIterator[str]:
    """Send these bytes to whoever asks, then hang up; yields the origin."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class World:
    """LivePerson's hosts, on loopback and over TLS, as an aiohttp session reaches them.

    Attributes:
        sandbox: What answers behind every name. It is not entered itself.
        http: The session.
        asked: Host and path of each request, in order.
        hosts: What the Domain API says, by service.
    """

    def __init__(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.http = http
        self.asked: list[tuple[str, str]] = []
        self.hosts: dict[str, object] = dict(HOSTS)
        self.delay = 0.0
        sandbox.fault = self._answer

    def lookups(self) -> list[str]:
        """Return the services that the Domain API was asked for, in order."""
        return [path.split("/")[-2] for host, path in self.asked if host == API]

    async def _answer(self, request: web.Request) -> web.StreamResponse | None:
        self.asked.append((request.host, request.path))
        await asyncio.sleep(self.delay)
        if request.host != API:
            return None
        document: Any = {"baseURI": self.hosts[request.match_info["service"]]}
        return web.Response(body=json.dumps(document).encode(), content_type="application/json")


@asynccontextmanager
async def liveperson(**connector: Any) -> AsyncIterator[World]:
    """Run the sandbox behind LivePerson's own host names."""
    async with (
        liveperson_server() as (sandbox, port),
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_Here(port), ssl=trusting(), **connector),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        ) as http,
    ):
        yield World(sandbox, http)


@asynccontextmanager
async def liveperson_server() -> AsyncIterator[tuple[Sandbox, int]]:
    """Serve the sandbox over TLS, with LivePerson's names; yields it, and its port on loopback."""
    sandbox = Sandbox(accounts=3)
    runner = web.AppRunner(
        sandbox._service.application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=0.1,
    )
    await runner.setup()
    serving_names = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate().configure_cert(serving_names)
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving_names).start()
        yield sandbox, runner.addresses[0][1]
    finally:
        await runner.cleanup()


class _Here(AbstractResolver):
    """Finds every name on this machine, at one port."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        assert port == 443
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=self._port,
                family=family or socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


@functools.cache
def authority() -> trustme.CA:
    """Return the authority that vouches for the names, which nobody else knows."""
    return trustme.CA()


@functools.cache
def certificate() -> trustme.LeafCert:
    """Return its word for LivePerson's hosts, and for a proxy."""
    return authority().issue_cert(API, *HOSTS.values(), "localhost")


@functools.cache
def trusting() -> ssl.SSLContext:
    """Return the context of a client that trusts that authority."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context
