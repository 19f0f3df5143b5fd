"""Logins to the page: a cookie lets a browser in for some hours after it sent the token.

The cookie is a random name of a session that is kept here, never the token: it opens the page and
nothing else, and is worth nothing after a restart. Wrong tokens are answered late, and one
address may have four attempts open. The API answers wrong tokens at once: only a token that is
long and random cannot be guessed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import Counter
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.hdrs import ORIGIN

COOKIE = "msgconv-live"
"""The beginning of the cookie's name. Its end is the port, since cookies know no ports."""

LIFETIME = 12 * 3600.0
"""Seconds that a login is good for."""

SESSIONS = 1000
"""Sessions at most; a new one takes the place of the oldest."""

SLOW = 1.0
"""Seconds after which a wrong token is answered."""

AT_ONCE = 4
"""Attempts of one address that are dealt with at once."""

ALL_AT_ONCE = 64
"""Attempts of all addresses together."""

Attempt = Literal["in", "wrong", "busy"]


class BrowserSessions:
    """Sessions of browsers, in memory.

    Args:
        token: The gateway's; None lets everybody in.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._ends: dict[bytes, float] = {}  # by a digest of the name, oldest first
        self._trying: Counter[str] = Counter()

    @property
    def needed(self) -> bool:
        """Whether there is a token to be shown."""
        return self._token is not None

    def lets_in(self, request: web.Request) -> bool:
        """Tell whether a request comes from a browser that has logged in."""
        if self._token is None:
            return True
        ends = self._ends.get(_digest(request.cookies.get(cookie(request), "")))
        return ends is not None and asyncio.get_running_loop().time() < ends

    async def attempt(self, request: web.Request, response: web.Response, given: str) -> Attempt:
        """Log in with a token; where it is right, the response sets the cookie."""
        address = request.remote or ""
        if self._trying[address] >= AT_ONCE or self._trying.total() >= ALL_AT_ONCE:
            return "busy"
        self._trying[address] += 1
        try:
            if not self._is_right(given):
                await asyncio.sleep(SLOW)
                return "wrong"
        finally:
            self._trying -= Counter({address: 1})  # and forget an address that tries no more
        self._admit(request, response)
        return "in"

    def log_out(self, request: web.Request, response: web.Response) -> None:
        """End a session, and take its cookie back."""
        name = cookie(request)
        self._ends.pop(_digest(request.cookies.get(name, "")), None)
        response.del_cookie(name, path="/", secure=request.secure, httponly=True, samesite="Strict")

    def _is_right(self, given: str) -> bool:
        """Compare in a time that tells nothing about the token."""
        token = "" if self._token is None else self._token
        return hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode())

    def _admit(self, request: web.Request, response: web.Response) -> None:
        now = asyncio.get_running_loop().time()
        for over in [known for known, ends in self._ends.items() if ends <= now]:
            del self._ends[over]
        while len(self._ends) >= SESSIONS:
            del self._ends[next(iter(self._ends))]
        name = secrets.token_urlsafe(32)
        self._ends[_digest(name)] = now + LIFETIME
        response.set_cookie(
            cookie(request),
            name,
            max_age=int(LIFETIME),
            path="/",
            secure=request.secure,
            httponly=True,
            samesite="Strict",
        )


def cookie(request: web.Request) -> str:
    """Return the name of the cookie, which differs from that of a gateway at another port."""
    return f"{COOKIE}-{request.url.port}"


def comes_from_here(request: web.Request) -> bool:
    """Tell whether a form was sent by a page of this very origin.

    The scheme is not compared: a proxy in front may speak TLS for the gateway.
    """
    return urlsplit(request.headers.get(ORIGIN, "")).netloc == request.host != ""


def comes_from_elsewhere(request: web.Request) -> bool:
    """Tell whether a browser says that a page of another site has sent a request."""
    return request.headers.get("Sec-Fetch-Site", "none") not in {"same-origin", "none"}


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()
