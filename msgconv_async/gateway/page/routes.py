"""The page's HTTP: files, a stream of events, one account's figures, and the login form."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from html import escape
from importlib.resources import files
from typing import NamedTuple
from urllib.parse import parse_qs

import msgspec
from aiohttp import web
from aiohttp.hdrs import CACHE_CONTROL, LOCATION, RETRY_AFTER

from msgconv_async.gateway.answers import Refusal
from msgconv_async.gateway.page.browser_sessions import (
    BrowserSessions,
    comes_from_elsewhere,
    comes_from_here,
)
from msgconv_async.gateway.page.live import Live

BEAT = 15.0
"""Seconds of silence on a stream at most: a page that hears nothing for longer connects again."""

WRITE = 30.0
"""Seconds that a viewer may take for a message, before it is sent away."""

RECONNECT = 2000
"""Milliseconds after which a browser connects again by itself."""

VERSION = "Msgconv-Page"
"""The header with the version of the page: one that lives on after an upgrade loads itself anew."""

_LONGEST_FORM = 8 * 1024

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",  # with none at all, a form's Origin would be null
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_NO_STORE = {**_HEADERS, CACHE_CONTROL: "no-store"}
_FOR_EVER = {**_HEADERS, CACHE_CONTROL: "public, max-age=31536000, immutable"}

_TYPES = {"js": "text/javascript", "css": "text/css", "html": "text/html", "svg": "image/svg+xml"}


class _File(NamedTuple):
    body: bytes
    content_type: str


class Files:
    """What the browser is sent besides data, read once."""

    def __init__(self) -> None:
        folders = (
            files("msgconv_async.gateway.page") / "static",
            files("msgconv_async") / "vendor",
        )
        found = {
            item.name: item.read_bytes()
            for folder in folders
            for item in folder.iterdir()
            if item.name.rpartition(".")[2] in _TYPES
        }
        digest = hashlib.sha256()
        for name in sorted(found):
            digest.update(found[name])
        # Their address changes with what is in them: so they may be kept for ever.
        self.version = digest.hexdigest()[:12]
        self._pages = {
            name: body.decode().replace("%version%", self.version)
            for name, body in found.items()
            if name.endswith(".html")
        }
        self._files = {
            name: _File(body, _TYPES[name.rpartition(".")[2]])
            for name, body in found.items()
            if name not in self._pages
        }

    def page(self, name: str, message: str = "", root: str = "") -> str:
        """Return a page, with a message to its reader, and the way to the page at ``/``."""
        return self._pages[name].replace("%root%", root).replace("%message%", escape(message))

    def get(self, name: str) -> _File | None:
        """Return a script or a style; None if there is no such one."""
        return self._files.get(name)


class Page:
    """The page's routes.

    Args:
        live: The source of the page's data.
        token: The gateway's; None lets everybody in.
    """

    def __init__(self, live: Live, token: str | None) -> None:
        self._live = live
        self._logins = BrowserSessions(token)
        self._files = Files()

    def routes(self) -> list[web.RouteDef]:
        """Return what an application is to serve."""
        return [
            web.get("/", self._page, allow_head=False),
            web.get(f"/live/static/{self._files.version}/{{name}}", self._static, allow_head=False),
            web.get("/live/events", self._events, allow_head=False),
            web.get("/live/all", self._everything, allow_head=False),
            web.get("/live/account/{account}", self._account, allow_head=False),
            web.post("/live/login", self._log_in),
            web.post("/live/logout", self._log_out),
        ]

    async def _page(self, request: web.Request) -> web.Response:
        if not self._logins.lets_in(request):
            return _html(self._files.page("login.html"))
        return _html(self._files.page("index.html", "token" if self._logins.needed else ""))

    def _may_read(self, request: web.Request) -> bool:
        """Tell whether data may be told: to no page of another site, which would make it follow."""
        return not comes_from_elsewhere(request) and self._logins.lets_in(request)

    async def _static(self, request: web.Request) -> web.Response:
        file = self._files.get(request.match_info["name"])
        if file is None:
            raise web.HTTPNotFound
        return web.Response(
            body=file.body, content_type=file.content_type, charset="utf-8", headers=_FOR_EVER
        )

    async def _account(self, request: web.Request) -> web.Response:
        if not self._may_read(request):
            return _stranger()
        account = self._live.account(request.match_info["account"])
        if account is None:
            return Refusal(404, "account", "this account is not served here").response(_NO_STORE)
        return _json(account)

    async def _everything(self, request: web.Request) -> web.Response:
        if not self._may_read(request):
            return _stranger()
        response = _json(self._live.everything())
        response.headers[VERSION] = self._files.version
        return response

    # ------------------------------------------------------------------ the stream

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if not self._may_read(request):
            return _stranger()
        entered = self._live.enter()
        if entered is None:
            return Refusal(503, "viewers", "too many look at once", 5.0).response(_NO_STORE)
        viewer, message = entered
        response = web.StreamResponse(
            headers={
                **_NO_STORE,
                "Content-Type": "text/event-stream; charset=utf-8",
                "X-Accel-Buffering": "no",  # a proxy is to pass on what it gets
            }
        )
        try:
            await response.prepare(request)
            await _write(request, response, b"retry: %d\n\n" % RECONNECT + message)
            while True:
                try:
                    async with asyncio.timeout(BEAT):
                        told = await viewer.message()
                except TimeoutError:
                    told = self._live.beat()
                if told is None or not self._logins.lets_in(request):
                    return response
                await _write(request, response, told)
        except (TimeoutError, ConnectionError):
            return response
        finally:
            self._live.leave(viewer)

    # ------------------------------------------------------------------ the login

    def _form(self, message: str, status: int) -> web.Response:
        return _html(self._files.page("login.html", message, root="../"), status)

    async def _log_in(self, request: web.Request) -> web.Response:
        if not comes_from_here(request):
            return self._form("This form was sent by another page. Send it from here.", 403)
        given = ""
        if (request.content_length or 0) <= _LONGEST_FORM:
            with suppress(ValueError):
                form = parse_qs((await request.read()).decode(), max_num_fields=10)
                given = form.get("token", [""])[0].strip()
        response = _back()
        match await self._logins.attempt(request, response, given):
            case "in":
                return response
            case "wrong":
                return self._form("This is not the gateway's token.", 403)
            case "busy":
                busy = self._form("Too many attempts at once. Try again in some seconds.", 429)
                busy.headers[RETRY_AFTER] = "5"
                return busy

    async def _log_out(self, request: web.Request) -> web.Response:
        if not comes_from_here(request):
            return self._form("This form was sent by another page. Send it from here.", 403)
        response = _back()
        self._logins.log_out(request, response)
        return response


async def _write(request: web.Request, response: web.StreamResponse, message: bytes) -> None:
    try:
        async with asyncio.timeout(WRITE):
            await response.write(message)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise


def _back() -> web.Response:
    """Lead to the page, wherever a proxy has put it."""
    return web.Response(status=303, headers={**_NO_STORE, LOCATION: ".."})


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, content_type="text/html", status=status, headers=_NO_STORE)


def _json(what: object) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(what), content_type="application/json", headers=_NO_STORE
    )


def _stranger() -> web.Response:
    return Refusal(403, "login", "log in first").response(_NO_STORE)
