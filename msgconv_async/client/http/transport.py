"""One HTTP exchange: the only place that talks to aiohttp and knows its exceptions."""

from __future__ import annotations

import asyncio
import codecs
import io
import logging
import os
import re
import ssl
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from urllib.parse import unquote

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler
from aiohttp.hdrs import AUTHORIZATION, COOKIE, DATE, RETRY_AFTER, USER_AGENT
from aiohttp.http import SERVER_SOFTWARE
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from msgconv_async import errors
from msgconv_async.client.http.connections import Attempts, BrokenConnectionError
from msgconv_async.client.http.proxies import Proxies, name_of
from msgconv_async.client.http.redaction import excerpt, visible
from msgconv_async.client.http.retry import parse_http_date, parse_retry_after
from msgconv_async.protocol.query import HttpRequest
from msgconv_async.version import __version__

MAX_BODY = 256 * 1024 * 1024
"""Bytes, decoded: the default for the largest answer that is read.

The longest question is a day in buckets of five minutes, so its answer has 289 buckets and the
totals. One agent under one skill takes up to 640 bytes in a bucket, and a bucket names the pairs of
skill and agent that resolved something within it: the limit allows 1,440 pairs in every bucket of
the day. A limit on the length of the question would bound nothing, since ``all`` is short."""

SMALL_BODY = 64 * 1024
"""Bytes, decoded: the largest answer of a login or of the Domain API, which take a few thousand."""

JSON: Mapping[str, str] = MappingProxyType({"Content-Type": "application/json"})

AGENT = f"msgconv-async/{__version__} {SERVER_SOFTWARE}"
"""How requests name their sender, unless the aiohttp session that was given names another."""

_OK = 200
_HALF_A_SECOND = timedelta(seconds=0.5)
_YEARS = range(1970, 9999)
"""The years in which a ``Date`` is believed. At the ends of the calendar, arithmetic overflows."""
_ERROR_BODY = 64 * 1024
_READ_SIZE = 256 * 1024
"""Bytes that are inflated and held at once, before they are taken."""
_LOG = logging.getLogger("msgconv_async")
_STATUS: dict[int, tuple[type[errors.ApiError], str]] = {
    400: (errors.BadRequest, "the service refused the question"),
    401: (errors.Unauthorized, "the account is unknown or the credentials are not accepted"),
    403: (errors.Unauthorized, "the credentials do not allow this"),
    407: (errors.ApiError, "a proxy on the way asks for a name and a password"),
    429: (errors.RateLimited, "throttled"),
}
_LOGIN_STATUS: dict[int, tuple[type[errors.ApiError], str]] = {
    **_STATUS,
    400: (errors.Unauthorized, "the login was refused"),
    401: (errors.Unauthorized, "the login was refused"),
    429: (errors.RateLimited, "the login was throttled"),
    451: (errors.Unauthorized, "the login is blocked"),
}


_IDS = (
    *("x-request-id", "request-id", "x-correlation-id", "x-trace-id", "x-amzn-requestid"),
    *("x-amzn-trace-id", "x-amz-cf-id", "cf-ray"),
)
_TELLING = (
    *(*_IDS, "date", "server", "via", "retry-after"),
    *("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    *("ratelimit", "ratelimit-policy"),
)
"""The headers of a response that an error keeps; in any other a secret may stand."""

GATEWAY = "Msgconv-Gateway"
"""The header by which a gateway (`msgconv_async.gateway`) is known. It says where an answer comes
from, or which kind of failure it is. A client that sees it leaves the pace to the gateway."""

_GATEWAY_KINDS: dict[str, tuple[type[errors.ApiError], str]] = {
    "busy": (errors.RateLimited, "the gateway's queue is too long"),
    "throttled": (errors.RateLimited, "the service throttled the gateway for too long"),
    "credentials": (errors.Unauthorized, "the service does not accept the gateway's credentials"),
    "configuration": (errors.ApiError, "the gateway is set up in a way that cannot work"),
    "unexpected": (errors.ApiError, "the gateway had an answer that the API does not describe"),
    "status": (errors.ApiError, "the gateway had an answer that the API does not describe"),
}


class Answer(msgspec.Struct, frozen=True):
    """A successful answer, read to its end; a login's cookies as the service spelled them.

    Attributes:
        body: Decoded, and JSON without a byte order mark, which a reader may ignore (RFC 8259,
            section 8.1).
        at: The instant of asking: by the service's ``Date``, or by our clock if it sent none that
            can be believed.
        cookies: By name.
        dated: Whether the service sent such a ``Date``.
        by_gateway: Whether a gateway gave it, which keeps to the account's pace by itself.
        sent: When the request was sent, in seconds of the event loop's clock.
        arrived: When the head of the answer was there, by the same clock.
    """

    body: bytes
    at: datetime
    cookies: Mapping[str, str]
    dated: bool = True
    by_gateway: bool = False
    sent: float = 0.0
    arrived: float = 0.0

    def __repr__(self) -> str:
        return f"<Answer of {len(self.body)} bytes at {self.at}>"  # it may hold a token


class Transport:
    """Sends requests through an aiohttp session.

    Args:
        http: The session. Its cookie jar, its redirects, its ``raise_for_status``, its own repeats
            and its ways to decode and buffer have no effect.
        max_body: The most bytes of an answer, decoded, that are read.
        proxies: Knows the proxy of each request; where it knows none, the session may.
    """

    def __init__(self, http: aiohttp.ClientSession, max_body: int, proxies: Proxies) -> None:
        self._http = http
        self._max_body = max_body
        self._proxies = proxies
        named = USER_AGENT in http.headers or USER_AGENT in http.skip_auto_headers
        self._headers: dict[str, str] = {} if named else {USER_AGENT: AGENT}
        # The middlewares of a request replace those of the session, so these are handed on.
        self._middlewares = tuple(http._middlewares)  # noqa: SLF001
        self._used = weakref.WeakKeyDictionary[ResponseHandler, float]()

    async def send(
        self,
        request: HttpRequest,
        headers: Mapping[str, str],
        account_id: str,
        *,
        secrets: Callable[[], Iterable[str]] = tuple,
        login: bool = False,
        limit: int | None = None,
    ) -> Answer:
        """Make one exchange.

        Args:
            request: Method, URL and body.
            headers: Further headers.
            account_id: The account that an error names.
            secrets: Returns the secrets to blank out of an error's excerpt, besides those in
                `headers`.
            login: Whether this asks for a token or a session, where a refusal means credentials.
            limit: The most bytes that the answer may have, if that is less than ``max_body``;
                None takes `SMALL_BODY` for a login.

        Raises:
            ApiError: The status was not 200.
            UnexpectedResponse: The body was over the limit, or not encoded as it claims.
            ConnectionFailed: Anything else that went wrong on the way.
            ConfigurationError: The aiohttp session brings credentials of its own.
            SessionUnusable: The aiohttp session was closed.
        """
        if limit is None:
            limit = SMALL_BODY if login else self._max_body
        limit = min(limit, self._max_body)
        attempts = Attempts(self._used, headers.get(COOKIE))
        # Raised outside the handler: aiohttp's exceptions carry the request's headers. As
        # __context__, they would show the Authorization header wherever the chain is printed.
        failure: errors.MsgConvError
        loop = asyncio.get_running_loop()
        sent = loop.time()
        url = URL(request.url, encoded=True)
        try:
            response = await self._http.request(
                request.method,
                url,
                data=request.body,
                headers={**self._headers, **headers},
                proxy=self._proxies.of(url),
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=True,
                read_bufsize=_READ_SIZE,
                middlewares=(*self._middlewares, attempts),
            )
            times = sent, loop.time()
            if response.status == _OK and response.content.is_eof():
                # The whole body came with its head, as a short one does, and the connection is
                # free again: there is nothing to wait for, and nothing to close.
                body = response.content.read_nowait()
                return _answer(
                    response, _without_mark(body), limit, attempts.cookies, account_id, times=times
                )
            async with response:
                if response.status == _OK:
                    body = await _read(response, limit)
                    return _answer(response, body, limit, attempts.cookies, account_id, times=times)
                hidden = (*secrets(), *_secrets(headers, attempts.proxy))
                failure = await _refusal(
                    response, account_id, hidden, login=login, proxy=attempts.proxy
                )
        except errors.MsgConvError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a stranger's bytes may cause any exception
            failure = self._failure(error, account_id, url, attempts.proxy)
        raise failure

    def _failure(
        self, error: Exception, account_id: str, url: URL, proxy: URL | None
    ) -> errors.MsgConvError:
        """Say what went wrong in an exchange."""
        if isinstance(error, BrokenConnectionError):
            error = error.error
        if isinstance(error, RuntimeError) and self._http.closed:
            return errors.SessionUnusable("the aiohttp session is closed")
        if any(isinstance(cause, ContentEncodingError) for cause in _causes(error)):
            return errors.UnexpectedResponse(
                "the answer is not encoded as its Content-Encoding says", account_id=account_id
            )
        if isinstance(error, ValueError) and "Cannot combine AUTHORIZATION" in str(error):
            return errors.ConfigurationError(
                f"account {account_id}: the aiohttp session has credentials of its own for this"
                " host, from auth= or, with trust_env=True, from a .netrc file; a request can"
                " carry only the account's"
            )
        if isinstance(error, aiohttp.ClientHttpProxyError) and proxy is not None:
            return errors.ConnectionFailed(
                _refused_by(proxy, error.status, url),
                account_id=account_id,
                repeatable=error.status in _PASSING,
            )
        if not isinstance(error, (aiohttp.ClientError, TimeoutError, OSError)):
            # Its text and its frames' locals are unknown: they may hold the headers.
            where = "".join(traceback.format_tb(error.__traceback__))
            kind = type(error).__name__
            _LOG.error("account %s: aiohttp raised %s\n%s", account_id, kind, where)
            return errors.ConnectionFailed(
                f"aiohttp raised {kind} in the middle of the exchange", account_id=account_id
            )
        return errors.ConnectionFailed(
            _describe(error, proxy),
            account_id=account_id,
            repeatable=not isinstance(error, _CERTIFICATE),
        )


def _answer(
    response: aiohttp.ClientResponse,
    body: bytes,
    limit: int,
    cookies: Mapping[str, str],
    account_id: str,
    *,
    times: tuple[float, float],
) -> Answer:
    if len(body) > limit:
        raise errors.UnexpectedResponse(
            f"the answer is larger than the limit of {limit} bytes", account_id=account_id
        )
    at = _asked_at(response)
    return Answer(
        body,
        at or datetime.now(UTC),
        cookies,
        dated=at is not None,
        by_gateway=GATEWAY in response.headers,
        sent=times[0],
        arrived=times[1],
    )


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a decoded body. Of a body over the limit, read just enough to know.

    It is never held twice: `io.BytesIO` hands out the very object that it wrote into.
    """
    _end_with_connection(response)
    buffer = io.BytesIO()
    head = b""
    async for chunk in response.content.iter_any():
        if buffer.tell() == 0:
            head += chunk
            if len(head) >= len(codecs.BOM_UTF8):
                buffer.write(_without_mark(head))
        else:
            buffer.write(chunk)
        if buffer.tell() > limit:
            response.close()
            break
    return buffer.getvalue() or _without_mark(head)


def _end_with_connection(response: aiohttp.ClientResponse) -> None:
    """End a body that aiohttp would leave open for ever.

    When the later bytes of a body are malformed, aiohttp closes the connection. It tells only a
    reader of the next head; a reader of the body goes on waiting.
    """
    content = response.content
    protocol = None if response.connection is None else response.connection.protocol

    def end(closed: asyncio.Future[None] | None = None) -> None:
        if closed is not None and not closed.cancelled():
            closed.exception()  # asyncio complains of an exception that was not read
        if protocol is not None and not content.is_eof() and content.exception() is None:
            cause = protocol.exception()
            error = aiohttp.ClientPayloadError()
            error.__cause__ = cause
            content.set_exception(error)

    if protocol is not None:
        if (closed := protocol.closed) is None:
            end()
        else:
            closed.add_done_callback(end)


def _without_mark(body: bytes) -> bytes:
    return body.removeprefix(codecs.BOM_UTF8)


async def _refusal(
    response: aiohttp.ClientResponse,
    account_id: str,
    secrets: Iterable[str],
    *,
    login: bool,
    proxy: URL | None,
) -> errors.ApiError:
    status = response.status
    try:
        body = await _read(response, _ERROR_BODY)
    except (aiohttp.ClientError, OSError):
        body = b""  # the status is known, and says more than a body that did not come
    secrets = tuple(secrets)
    kinds = _LOGIN_STATUS if login else _STATUS
    other = (
        (errors.ServerError, "the service failed")
        if status >= 500  # noqa: PLR2004 - RFC 9110, section 15.6
        else (errors.ApiError, "an answer that the API does not describe")
    )
    told = _GATEWAY_KINDS.get(response.headers.get(GATEWAY, ""))
    kind, message = told or kinds.get(status, other)
    if proxy is not None and response.content_type == "text/html":
        # A proxy that reads what passes answers in the service's place; the service sends JSON.
        message = f"{message}, or the proxy {name_of(proxy)} answered in its place"
    headers = dict(_telling(response.headers, secrets))
    return kind(
        message,
        status=status,
        account_id=account_id,
        request_id=next((headers[name] for name in _IDS if name in headers), ""),
        headers=headers,
        excerpt=excerpt(body, secrets),
        retry_after=parse_retry_after(
            response.headers.get(RETRY_AFTER),
            parse_http_date(response.headers.get(DATE)) or datetime.now(UTC),
        ),
    )


def _telling(headers: Mapping[str, str], secrets: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the headers of a response that help a service's support, fit to be shown."""
    for name in _TELLING:
        if value := headers.get(name):
            yield name, excerpt(value.encode(errors="replace"), secrets)


def _secrets(headers: Mapping[str, str], proxy: URL | None) -> Iterator[str]:
    """Yield the secrets that headers and the address of a proxy hold."""
    if proxy is not None and proxy.password:
        yield proxy.password
    scheme, _, value = headers.get(AUTHORIZATION, "").partition(" ")
    if scheme == "OAuth":  # RFC 5849, section 3.5.1; of its parameters only this one is a secret
        yield from map(unquote, re.findall('oauth_signature="([^"]*)"', value))
    else:
        yield value
    for pair in headers.get(COOKIE, "").split("; "):
        yield pair.partition("=")[2]


def _asked_at(response: aiohttp.ClientResponse) -> datetime | None:
    # A Date is cut to whole seconds. On a bucket's edge that would place an instant of the new
    # bucket's first second in the old one.
    date = parse_http_date(response.headers.get(DATE))
    return None if date is None or date.year not in _YEARS else date + _HALF_A_SECOND


_CERTIFICATE = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    ssl.SSLCertVerificationError,
)
# X509_V_ERR_CERT_NOT_YET_VALID and the like, of OpenSSL's x509_vfy.h.
_WRONG_TIME = frozenset({9, 10})
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
_PROXY_LOGIN = 407
_PASSING = frozenset({408, 429, *range(500, 600)})
"""What a proxy answers when a later try may succeed."""
_FAULTS: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ServerDisconnectedError, "the server disconnected"),
    (aiohttp.SocketTimeoutError, "no answer in time"),
    (aiohttp.ConnectionTimeoutError, "no connection in time"),
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientPayloadError, "the connection broke before the answer was whole"),
    (aiohttp.ServerFingerprintMismatch, "the certificate is not the one that was expected"),
    (aiohttp.ClientResponseError, "the answer was not HTTP"),
)
"""Not all of aiohttp's texts are fit to be shown: a server that hangs up in the middle of its
headers is described by these headers, cookies included."""


def _describe(error: BaseException, proxy: URL | None) -> str:
    way = "" if proxy is None else f", through the proxy {name_of(proxy)}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return visible(f"{_certificate(error)}{way}")
    for kind, text in _FAULTS:
        if isinstance(error, kind):
            return f"{text}{way}"
    if isinstance(error, aiohttp.ClientConnectorError):
        place = f"{error.host}:{error.port}"
        if proxy is not None and place == name_of(proxy):
            place, way = f"the proxy {place}", ""
            if isinstance(error, aiohttp.ClientConnectorSSLError):
                return f"{place} does not speak TLS: write its address with http:// before it"
        if error.os_error.strerror:
            return visible(f"cannot connect to {place}: {error.os_error.strerror}{way}")
    return visible(f"{str(error) or type(error).__name__}{way}")


def _refused_by(proxy: URL, status: int, url: URL) -> str:
    """Say that a proxy made no connection. Its own words are not shown, nor what was sent to it."""
    name = name_of(proxy)
    if status != _PROXY_LOGIN:
        return f"the proxy {name} made no connection to {url.host}: it answered {status}"
    if proxy.user is None:
        return (
            f"the proxy {name} asks for a name and a password (407): write them into its address,"
            f" as HTTPS_PROXY={proxy.scheme}://name:password@{name}"
        )
    return f"the proxy {name} does not accept the name and the password in its address (407)"


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    """Say why a certificate is not accepted, and what may help."""
    cause = error.certificate_error
    why, code = getattr(cause, "verify_message", str(cause)), getattr(cause, "verify_code", 0)
    text = f"the certificate of {error.host}:{error.port} is not accepted: {why}"
    if code in _WRONG_TIME:
        return f"{text}; is the clock of this machine right?"
    if code not in _UNKNOWN_AUTHORITY:
        return text
    given = [(each, os.environ.get(each, "")) for each in ("SSL_CERT_FILE", "SSL_CERT_DIR")]
    given = [(variable, path) for variable, path in given if path]
    for variable, path in given:
        if not os.access(path.partition(os.pathsep)[0], os.R_OK):
            return f"{text}; {variable} is {path}, which is not there or cannot be read"
    if given:
        named = " nor ".join(f"in {path} ({variable})" for variable, path in given)
        return f"{text}; when Python started, the authority that signed this was not {named}"
    return (
        f"{text}; if your network has a certificate authority of its own, let SSL_CERT_FILE name"
        " the file with its certificate before Python starts"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
