"""The connections under an exchange: which of them may be used, and when a request is sent again.

HTTP/1.1 pairs answers with questions by their order alone (RFC 9112, section 9.3). So bytes that
arrive on an idle connection would be taken for the answer to the next question, which may be about
another account. aiohttp's pool does not look for them (aio-libs/aiohttp, class ``BaseConnector``);
this module does.
"""

from __future__ import annotations

import asyncio
import functools
import select
import weakref
from collections.abc import Mapping
from http.cookies import SimpleCookie

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.hdrs import COOKIE, METH_GET, SET_COOKIE
from aiohttp.tracing import Trace
from yarl import URL

IDLE = 1.0
"""Seconds. A server that keeps connections open closes none that was idle for less."""

_REQUEST_TIMEOUT = 408


class Connector(aiohttp.TCPConnector):
    """A pool that gives out no connection on which anything arrived while it was idle."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Return a connection, new or clean."""
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or _is_clean(connection.protocol):
                return connection
            connection.close()


class Attempts:
    """A middleware for one call of an aiohttp session: sends a request, again where that is safe.

    It works with any connector, so a session that is not the library's own has most of what
    `Connector` gives: an answer that nobody asked for is dropped with its connection. It also keeps
    the session's cookie jar out, which would carry one account's cookies to another.

    aiohttp repeats a GET once by itself when its connection broke, on new connections as well, and
    has no setting for it (aio-libs/aiohttp#10790). This class repeats a request only if its
    connection was idle for a while, since the server may have been closing it already (RFC 9112,
    section 9.3.1). If any other connection breaks, the service has failed.

    Args:
        used: When the connections that carried a request before became idle, by the loop's clock.
        cookie: The ``Cookie`` header of this request, if it has one.

    Attributes:
        cookies: The cookies of the answer, as the service spelled them.
        proxy: The proxy that the request takes, or None.
    """

    def __init__(
        self, used: weakref.WeakKeyDictionary[ResponseHandler, float], cookie: str | None
    ) -> None:
        self.cookies: Mapping[str, str] = {}
        self.proxy: URL | None = None
        self._used = used
        self._cookie = cookie
        self._only_new = False
        self._kept = False
        self._was_idle = 0.0

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request."""
        self.proxy = request.proxy
        request.headers.popall(COOKIE, None)
        if self._cookie is not None:
            request.headers[COOKIE] = self._cookie
        self._watch(request)
        while True:
            self._kept = False
            try:
                response = await handler(request)
            except _NotUsableError:
                continue  # that connection is closed, so there is one less of them
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
                idle = self._kept and self._was_idle >= IDLE
                if idle and not self._only_new and request.method == METH_GET:
                    self._only_new = True
                    continue
                raise BrokenConnectionError(error) from None
            # A proxy sends 408 on a connection that was idle for too long. The request may have
            # been on its way at that moment (RFC 9110, section 15.5.9).
            if response.status == _REQUEST_TIMEOUT and self._kept and not self._only_new:
                self._only_new = True
                response.close()
                continue
            self._take_cookies(response)
            return response

    def _watch(self, request: aiohttp.ClientRequest) -> None:
        """Look at the connection in the last moment before the request goes out on it."""
        send = request.send

        async def checked(conn: Connection) -> aiohttp.ClientResponse:
            protocol = conn.protocol
            assert protocol is not None  # noqa: S101 - aiohttp has just taken it from its pool
            now = asyncio.get_running_loop().time()
            self._kept = protocol in self._used
            self._was_idle = now - self._used.get(protocol, now)
            if self._kept and (self._only_new or len(protocol) > 0 or _is_readable(conn)):
                raise _NotUsableError
            conn.add_callback(functools.partial(self._note_idle, protocol))
            return await send(conn)

        request.send = checked  # type: ignore[method-assign]

    def _note_idle(self, protocol: ResponseHandler) -> None:
        self._used[protocol] = asyncio.get_running_loop().time()

    def _take_cookies(self, response: aiohttp.ClientResponse) -> None:
        if SET_COOKIE in response.headers:
            found = response.cookies
            self.cookies = {name: morsel.coded_value for name, morsel in found.items()}
            response.cookies = SimpleCookie()  # what aiohttp would put into the jar


class BrokenConnectionError(aiohttp.ClientConnectionError):
    """The connection broke before the head of an answer came. aiohttp does not repeat this error.

    Args:
        error: The error that aiohttp raised.
    """

    def __init__(self, error: aiohttp.ClientError) -> None:
        super().__init__()
        self.error = error


class _NotUsableError(aiohttp.ClientError):
    """This connection is not to be used."""


def _is_clean(protocol: ResponseHandler) -> bool:
    """Tell whether a connection is new, or nothing came on it since its last answer was whole."""
    parser = protocol._parser  # noqa: SLF001 - no public name shows half a head
    if parser is None:
        return True
    try:
        begun = parser.feed_eof()  # what aiohttp itself asks when a connection ends
    except Exception:  # noqa: BLE001 - bytes that it refuses were not asked for
        return False
    return begun is None and not protocol.should_close


def _is_readable(connection: Connection) -> bool:
    """Tell whether there is something that the event loop has not read yet, if only an end."""
    transport = connection.transport
    socket = None if transport is None else transport.get_extra_info("socket")
    if socket is None or socket.fileno() < 0:
        return False
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([socket.fileno()], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))
