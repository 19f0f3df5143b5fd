"""One HTTP exchange: the only place that talks to aiohttp and knows its exceptions."""

from __future__ import annotations

import asyncio
import html
import json
import math
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from urllib.parse import quote, quote_plus

import aiohttp
import msgspec
from aiohttp.hdrs import DATE, RETRY_AFTER
from yarl import URL

from msgconv_async import errors
from msgconv_async.client.retry import parse_http_date, parse_retry_after
from msgconv_async.protocol.query import HttpRequest

MAX_BODY = 256 * 1024 * 1024
"""Bytes, decoded: the default for the largest answer that is read. A day of five-minute intervals
of 10 skills and 20 agents is 40 MB."""

JSON: Mapping[str, str] = MappingProxyType({"Content-Type": "application/json"})

KEPT = 1.0
"""Seconds: while no connection was made for so long, a request goes out on one kept from before,
and no server that keeps connections at all gives them up sooner."""

_OK = 200
_EXCERPT = 200
_SHORT = 4
_HALF_A_SECOND = timedelta(seconds=0.5)
_ERROR_BODY = 64 * 1024
_STATUS: dict[int, tuple[type[errors.ApiError], str]] = {
    400: (errors.BadRequest, "the service refused the question"),
    401: (errors.Unauthorized, "the account is unknown or the credentials are not accepted"),
    403: (errors.Unauthorized, "the credentials do not allow this"),
    429: (errors.RateLimited, "throttled"),
}
_LOGIN_STATUS: dict[int, tuple[type[errors.ApiError], str]] = {
    **_STATUS,
    400: (errors.Unauthorized, "the login was refused"),
    401: (errors.Unauthorized, "the login was refused"),
    429: (errors.RateLimited, "the login was throttled"),
    451: (errors.Unauthorized, "the login is blocked"),
}


class Answer(msgspec.Struct, frozen=True):
    """A successful answer, read to its end; a login's cookies as the service spelled them.

    Attributes:
        body: Decoded.
        at: The instant of asking: by the service's ``Date``, or by our clock if it sent none.
        cookies: By name.
        dated: Whether the service sent a ``Date``.
    """

    body: bytes
    at: datetime
    cookies: Mapping[str, str]
    dated: bool = True


class Transport:
    """Sends requests through an aiohttp session.

    Args:
        http: The session. Its cookie jar and its redirects play no part; what it repeats by itself
            is the business of who makes it (`Repeats`).
        max_body: The most bytes of an answer, decoded, that are read.
    """

    def __init__(self, http: aiohttp.ClientSession, max_body: int) -> None:
        self._http = http
        self._max_body = max_body

    async def send(
        self,
        request: HttpRequest,
        headers: Mapping[str, str],
        account_id: str,
        *,
        secrets: Callable[[], Iterable[str]] = tuple,
        login: bool = False,
    ) -> Answer:
        """Make one exchange.

        Args:
            request: Method, URL and body.
            headers: Further headers.
            account_id: Whom an error names.
            secrets: Tells what is blanked out of an error's excerpt.
            login: Whether this asks for a token or a session, where a refusal means credentials.

        Raises:
            ApiError: The status was not 200.
            UnexpectedResponse: The body was over the limit.
            ConnectionFailed: Anything else that went wrong on the way.
            SessionUnusable: The aiohttp session was closed.
        """
        # Raised outside the handler: aiohttp's exceptions carry the request's headers, and as
        # __context__ they would hand the Authorization header to whoever prints the chain.
        failure: errors.MsgConvError
        try:
            response = await self._http.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body,
                headers=headers,
                allow_redirects=False,
                raise_for_status=False,
            )
            if response.status == _OK and response.content.is_eof():
                # All of it came with its head, as a short one does, and left the connection to
                # others: there is nothing to wait for, and nothing to close.
                body = response.content.read_nowait()
                return self._answer(response, body, account_id, login=login)
            async with response:
                if response.status == _OK:
                    body = await _read(response, self._max_body)
                    return self._answer(response, body, account_id, login=login)
                failure = await _refusal(response, account_id, secrets(), login=login)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = errors.ConnectionFailed(_describe(error), account_id=account_id)
        except RuntimeError:
            if not self._http.closed:
                raise
            failure = errors.SessionUnusable("the aiohttp session is closed")
        raise failure

    def _answer(
        self, response: aiohttp.ClientResponse, body: bytes, account_id: str, *, login: bool
    ) -> Answer:
        if len(body) > self._max_body:
            raise errors.UnexpectedResponse(
                f"the answer is larger than the limit of {self._max_body} bytes",
                account_id=account_id,
            )
        cookies: dict[str, str] = {}
        if login:
            cookies = {name: morsel.coded_value for name, morsel in response.cookies.items()}
        at = _asked_at(response)
        return Answer(body, at or datetime.now(UTC), cookies, dated=at is not None)


class Repeats:
    """Decides which GETs aiohttp repeats by itself: at once, and past any pacing.

    It repeats one whose connection broke before the answer's head had come, once, and has no
    setting for it (aio-libs/aiohttp#10790). That is right where the request went out on a
    connection kept from before, which the server may have been closing already (RFC 9112, section
    9.3.1). A connection made for the request is another matter: there the service has failed.
    """

    def __init__(self) -> None:
        self._connected_at = -math.inf

    def socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Make a socket: the connector's ``socket_factory``."""
        self._connected_at = asyncio.get_running_loop().time()
        family, kind, protocol, *_ = address
        return socket.socket(family, kind, protocol)

    async def middleware(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Let aiohttp see what broke if it is to repeat it: a middleware for the session."""
        began = asyncio.get_running_loop().time()
        try:
            return await handler(request)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            if self._connected_at < began - KEPT:
                raise
            raise aiohttp.ClientConnectionError(_describe(error)) from None


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a decoded body; of one over the limit, enough to tell."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        chunks.append(chunk)
        if size > limit:
            response.close()
            break
    return b"".join(chunks)


async def _refusal(
    response: aiohttp.ClientResponse, account_id: str, secrets: Iterable[str], *, login: bool
) -> errors.ApiError:
    status = response.status
    body = await _read(response, _ERROR_BODY)
    kinds = _LOGIN_STATUS if login else _STATUS
    other = (
        (errors.ServerError, "the service failed")
        if status >= 500  # noqa: PLR2004 - RFC 9110, section 15.6
        else (errors.ApiError, "an answer that the API does not describe")
    )
    kind, message = kinds.get(status, other)
    return kind(
        message,
        status=status,
        account_id=account_id,
        excerpt=_excerpt(body, secrets),
        retry_after=parse_retry_after(
            response.headers.get(RETRY_AFTER),
            parse_http_date(response.headers.get(DATE)) or datetime.now(UTC),
        ),
    )


def _excerpt(body: bytes, secrets: Iterable[str]) -> str:
    text = body.decode(errors="replace")
    spellings = {each for secret in secrets for each in _spellings(secret)}
    if any(len(each) < _SHORT and each in text for each in spellings):
        return ""  # to blank out a letter here and there would show it, and spoil the rest
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, "***")
    text = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"


def _spellings(secret: str) -> Iterator[str]:
    """A secret as it stands, and as a service may echo it: from a form, from JSON, in HTML."""
    if secret:
        yield secret
        yield quote(secret, safe="")
        yield quote_plus(secret)
        yield msgspec.json.encode(secret).decode()[1:-1]
        yield json.dumps(secret)[1:-1]
        yield json.dumps(secret)[1:-1].replace("/", "\\/")
        yield html.escape(secret)
        yield re.sub("%..", lambda match: match[0].lower(), quote(secret, safe=""))


def _asked_at(response: aiohttp.ClientResponse) -> datetime | None:
    # A Date is cut to whole seconds. On a bucket's edge that would place an instant of the new
    # bucket's first second in the old one.
    date = parse_http_date(response.headers.get(DATE))
    return None if date is None else date + _HALF_A_SECOND


_FAULTS: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ServerDisconnectedError, "the server disconnected"),
    (aiohttp.SocketTimeoutError, "no answer in time"),
    (aiohttp.ConnectionTimeoutError, "no connection in time"),
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientPayloadError, "the connection broke before the answer was whole"),
    (aiohttp.ClientResponseError, "the answer was not HTTP"),
)
"""Not all of aiohttp's texts are fit to be shown: a server that hangs up in the middle of its
headers is described by these headers, cookies included."""


def _describe(error: BaseException) -> str:
    for kind, text in _FAULTS:
        if isinstance(error, kind):
            return text
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.strerror:
        return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror}"
    return str(error) or type(error).__name__
