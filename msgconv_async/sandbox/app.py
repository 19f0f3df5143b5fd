"""The routes: metrics, Domain API, tokens, login, OpenAPI. Every refusal comes with a reason."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError

from msgconv_async.sandbox.aggregate import Aggregates
from msgconv_async.sandbox.credentials import SESSION_LIFETIME, CredentialStore, Refused, Session
from msgconv_async.sandbox.openapi import SERVICES, SESSION_COOKIE, document
from msgconv_async.sandbox.parameters import MalformedRequest, Parameters, parameters
from msgconv_async.sandbox.throttle import Throttle, Throttled

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""Answers a request in place of the sandbox, or returns None to leave it to the sandbox.

It sees every request first. Raising `ConnectionError` in it drops the connection without an answer.
"""

_METRICS = "/operations/api/account/{account}/msgconversation"
_ACCOUNT = "/api/account/{account}"
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_TOO_MANY = 429
_LARGEST_FORM = 64 * 1024
"""The most bytes of a login or a similar request. Such requests take some hundred bytes."""
_LARGEST_QUESTION = 1024 * 1024
"""The most bytes of a question: some fifty thousand ids."""
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RetryAfter(msgspec.Struct, frozen=True):
    """The wait that a 429 asks for: seconds, sent as a number or as a date."""

    seconds: float
    as_date: bool

    def header(self, now: datetime) -> str:
        """Return the header's value (RFC 9110, section 10.2.3), rounded up to whole seconds."""
        if not self.as_date:
            return str(math.ceil(self.seconds))
        date = now + timedelta(seconds=self.seconds)
        if date.microsecond:
            date = date.replace(microsecond=0) + timedelta(seconds=1)
        return format_datetime(date, usegmt=True)


class Failure(msgspec.Struct, frozen=True):
    """What to answer a metrics request with, in place of an answer."""

    status: int
    retry_after: RetryAfter | None


class Service:
    """The API of some accounts, without a socket.

    Attributes:
        fault: A function that may answer a request in place of the sandbox, or None.
        failures: What to answer the next metrics requests with, by account; under None, those of
            any account.
        requests: How many metrics requests came, by account, refused ones included.
        throttled: How many of them a limit refused, by account.
        tokens: How many tokens were given out, logins included, by account.
    """

    def __init__(
        self,
        account_ids: Sequence[str],
        aggregates: Aggregates,
        credentials: CredentialStore,
        throttle: Throttle,
        *,
        clock: Callable[[], datetime],
        latency: float,
        retry_after: RetryAfter | None,
        fault: Fault | None,
    ) -> None:
        self._account_ids = frozenset(account_ids)
        self._document = msgspec.json.encode(document(account_ids))
        self._aggregates = aggregates
        self._credentials = credentials
        self._throttle = throttle
        self._clock = clock
        self._latency = latency
        self._retry_after = retry_after
        self.fault = fault
        self.failures: defaultdict[str | None, deque[Failure]] = defaultdict(deque)
        self.requests: Counter[str] = Counter()
        self.throttled: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()

    def application(self) -> web.Application:
        """Return the routes as an aiohttp application."""
        app = web.Application(middlewares=[self._inject, self._explain])
        app.add_routes(
            [
                web.get(_METRICS, self._metrics, allow_head=False),
                web.post(_METRICS, self._metrics),
                web.get(f"{_ACCOUNT}/service/baseURI.json", self._hosts, allow_head=False),
                web.get(
                    f"{_ACCOUNT}/service/{{service}}/baseURI.json", self._host, allow_head=False
                ),
                web.post("/sentinel/api/v2/account/{account}/app/token", self._token),
                web.post(f"{_ACCOUNT}/login", self._login),
                web.post(f"{_ACCOUNT}/refresh", self._refresh),
                web.post(f"{_ACCOUNT}/logout", self._logout),
                web.get("/openapi.json", self._openapi, allow_head=False),
            ]
        )
        app.on_response_prepare.append(self._date)
        return app

    async def _date(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = format_datetime(self._clock(), usegmt=True)

    @web.middleware
    async def _inject(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        account_id = request.match_info.get("account")
        if request.match_info.handler == self._metrics and account_id in self._account_ids:
            self.requests[account_id] += 1
        try:
            answer = await self.fault(request) if self.fault is not None else None
        except ConnectionError:
            answer = web.Response()
            if request.transport is not None:
                request.transport.abort()
        return answer if answer is not None else await handler(request)

    @web.middleware
    async def _explain(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        account_id = request.match_info.get("account")
        if account_id is not None and account_id not in self._account_ids:
            return _refusal(401, f"there is no account {account_id}", _CHALLENGE)
        try:
            return await handler(request)
        except MalformedRequest as refusal:
            return _refusal(400, refusal)
        except Refused as refusal:
            return _refusal(401, refusal, _CHALLENGE)
        except Throttled as refusal:
            return _refusal(_TOO_MANY, refusal, self._come_back(self._retry_after))
        except web.HTTPClientError as refusal:
            allow = refusal.headers.get("Allow")
            return _refusal(refusal.status, refusal.reason, {"Allow": allow} if allow else {})

    def _come_back(self, wait: RetryAfter | None) -> dict[str, str]:
        """The header that asks to wait, if there is to be one."""
        return {"Retry-After": wait.header(self._clock())} if wait else {}

    async def _metrics(self, request: web.Request) -> web.Response:
        account_id = request.match_info["account"]
        failures = self.failures[account_id] or self.failures[None]
        if failures:
            failure = failures.popleft()
            return _refusal(
                failure.status, "this failure was asked for", self._come_back(failure.retry_after)
            )
        try:
            with self._throttle.slot(account_id):
                self._credentials.check(
                    account_id,
                    request.method,
                    f"http://{request.host}{request.raw_path}",
                    request.headers.get("Authorization", ""),
                )
                question = Parameters.parse(
                    request.query
                    if request.method == "GET"
                    else parameters(await _body(request, _LARGEST_QUESTION))
                )
                await asyncio.sleep(self._latency)
                body = self._aggregates.answer(account_id, question, self._clock())
                return web.Response(body=body, content_type="application/json")
        except Throttled:
            self.throttled[account_id] += 1
            raise

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    async def _hosts(self, request: web.Request) -> web.Response:
        _check_version(request, "version", "1.0")
        return web.json_response({"baseURIs": [_home(request, service) for service in SERVICES]})

    async def _host(self, request: web.Request) -> web.Response:
        _check_version(request, "version", "1.0")
        service = request.match_info["service"]
        if service not in SERVICES:
            raise MalformedRequest(
                f"there is no service {service}; known are {', '.join(SERVICES)}"
            )
        return web.json_response(_home(request, service))

    async def _token(self, request: web.Request) -> web.Response:
        account_id = request.match_info["account"]
        form = dict(parse_qsl((await _body(request)).decode(errors="replace")))
        token = self._credentials.token(account_id, form)
        self.tokens[account_id] += 1
        lifetime = self._credentials.token_lifetime.total_seconds()
        return web.json_response(
            {"access_token": token, "token_type": "Bearer", "expires_in": int(lifetime)}
        )

    async def _login(self, request: web.Request) -> web.Response:
        _check_version(request, "v", "1.3")
        account_id = request.match_info["account"]
        session = self._credentials.login(account_id, await _json(request))
        self.tokens[account_id] += 1
        response = _session_response(session)
        path = f"/api/account/{account_id}"
        response.set_cookie(SESSION_COOKIE, session.id, path=path, httponly=True)
        return response

    async def _refresh(self, request: web.Request) -> web.Response:
        cookie, csrf = request.cookies.get(SESSION_COOKIE), (await _json(request)).get("csrf")
        return _session_response(
            self._credentials.refresh(request.match_info["account"], cookie, csrf)
        )

    async def _logout(self, request: web.Request) -> web.Response:
        cookie, csrf = request.cookies.get(SESSION_COOKIE), (await _json(request)).get("csrf")
        self._credentials.logout(request.match_info["account"], cookie, csrf)
        return web.json_response({})


def _check_version(request: web.Request, name: str, version: str) -> None:
    if request.query.get(name) != version:
        raise MalformedRequest(f"{name} must be {version}")


def _home(request: web.Request, service: str) -> dict[str, str]:
    return {
        "service": service,
        "account": request.match_info["account"],
        "baseURI": request.host,
    }


def _session_response(session: Session) -> web.Response:
    lifetime = SESSION_LIFETIME // timedelta(milliseconds=1)
    return web.json_response(
        # The spelling is the service's.
        {"csrf": session.csrf, "sessionTTl": str(lifetime), "bearer": session.bearer}
    )


async def _body(request: web.Request, most: int = _LARGEST_FORM) -> bytes:
    """Read a body, up to the allowed number of bytes."""
    body = bytearray()
    try:
        async for piece in request.content.iter_any():
            body += piece
            if len(body) > most:
                raise web.HTTPRequestEntityTooLarge(most, len(body))
    except (PayloadEncodingError, web.RequestPayloadError) as error:
        raise MalformedRequest(f"the body cannot be read: {error}") from None
    return bytes(body)


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        return msgspec.json.decode(await _body(request), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body must be a JSON object: {error}") from None


def _refusal(status: int, reason: object, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(
        {"status": status, "reason": str(reason)}, status=status, headers=headers
    )
