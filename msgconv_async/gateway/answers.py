"""The answers of the gateway: documents, and refusals where there is no document.

Every answer of its own, except those of health and metrics, has the header `GATEWAY`. With a
document it is ``hit``, ``shared`` or ``fetched``. Otherwise it is the kind of failure, which the
JSON body names as well. Nothing in a body comes from credentials: an error's text carries no
secret.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import format_datetime
from typing import NamedTuple

from aiohttp import web
from aiohttp.hdrs import AGE, DATE, RETRY_AFTER, WWW_AUTHENTICATE

from msgconv_async.client.http.deadlines import TurnTooLate
from msgconv_async.client.http.transport import GATEWAY
from msgconv_async.client.session import Shared
from msgconv_async.errors import (
    ApiError,
    BadRequest,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    MsgConvError,
    RateLimited,
    ServerError,
    Unauthorized,
    UnexpectedResponse,
)

UPSTREAM_WAIT = 5.0
"""Seconds that a failure of the service asks to wait: LivePerson's first wait after a 5xx."""

LONGEST_WAIT = 120.0
"""Seconds: the longest wait that is asked for, so that a client does not take it for a hang."""


_FAILURES: tuple[tuple[type[MsgConvError], int, str, float | None], ...] = (
    (RateLimited, 503, "throttled", 1.0),
    (Unauthorized, 502, "credentials", None),
    (ServerError, 502, "service", UPSTREAM_WAIT),
    (ApiError, 502, "status", None),
    (ConnectionFailed, 502, "connection", UPSTREAM_WAIT),
    (UnexpectedResponse, 502, "unexpected", None),
    (ConfigurationError, 502, "configuration", None),
)
"""Status, kind and seconds to wait, by the error that the session raised."""


class Refusal(NamedTuple):
    """An answer without a document.

    Attributes:
        status: The HTTP status.
        kind: What went wrong, in one word.
        reason: What went wrong, in a sentence.
        retry_after: Seconds to wait before asking again, or None.
    """

    status: int
    kind: str
    reason: str
    retry_after: float | None = None

    def response(self, headers: Mapping[str, str] | None = None) -> web.Response:
        """Return it as a response."""
        told = {GATEWAY: self.kind, **(headers or {})}
        if self.retry_after is not None:
            wait = min(max(1, math.ceil(self.retry_after)), LONGEST_WAIT)
            told[RETRY_AFTER] = f"{wait:.0f}"
        if self.status == web.HTTPUnauthorized.status_code:
            told[WWW_AUTHENTICATE] = "Bearer"
        body = {"status": self.status, "kind": self.kind, "reason": self.reason}
        return web.json_response(body, status=self.status, headers=told)


def document(shared: Shared) -> web.Response:
    """Return a document byte for byte, with the service's own time for it."""
    return web.Response(
        body=shared.body,
        content_type="application/json",
        headers={
            GATEWAY: shared.source,
            AGE: str(int(shared.age)),
            DATE: format_datetime(shared.at, usegmt=True),
        },
    )


def refusal(error: MsgConvError) -> Refusal:
    """Return the refusal that an error of the session becomes."""
    text = str(error)
    if isinstance(error, BadRequest):
        return Refusal(400, "question", error.excerpt or text)
    if isinstance(error, TurnTooLate):
        return Refusal(503, "busy", text, 1.0)
    if isinstance(error, DeadlineExceeded):
        if isinstance(error.__cause__, RateLimited):
            return Refusal(503, "throttled", text, 1.0)
        return Refusal(504, "deadline", text, 1.0)
    asked = error.retry_after if isinstance(error, ApiError) else None
    for raised, status, kind, wait in _FAILURES:
        if isinstance(error, raised):
            return Refusal(status, kind, text, wait and max(wait, asked or 0.0))
    return Refusal(503, "closing", text, 1.0)  # the session is being closed
