"""What LivePerson's retry page asks for, row by row.

Each row is an answer, what it answered (a question, a token, or a login), and the instants at which
the request came again, to the second: the page's own words stand beside it. What it asks for in
longer outages, 2, 4 and 8 minutes, is a matter of rounds: see the tests of `follow`.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ApiError,
    BadRequest,
    ConversationSession,
    MsgConvError,
    ServerError,
    Unauthorized,
)
from msgconv_async.client.access.credentials import Credentials
from msgconv_async.sandbox import Sandbox
from tests.client.support import CLIENT, EVEN, QUERY, USER, account, now

pytestmark = pytest.mark.looptime

ALMOST = 0.5
"""Seconds: what pacing and the network may add."""

QUESTION = ("/msgconversation", CLIENT)
TOKEN = ("/app/token", CLIENT)
LOGIN = ("/login", USER)


class Row(NamedTuple):
    """One row of the table.

    Attributes:
        page: What LivePerson asks for.
        request: The request that is answered so, and the credentials that lead to it.
        status: The answer's status, each time.
        times: How many times it is given before all is well; None for ever.
        came: Seconds after the first try at which the request comes again.
        error: What comes of the call; None: the answer.
    """

    page: str
    request: tuple[str, Credentials]
    status: int
    times: int | None
    came: tuple[float, ...]
    error: type[MsgConvError] | None


AFTER_429 = "429: at least 1 second before that request is tried again"
AFTER_429_LOGIN = "429 on a login or token request: at least 5 seconds"
OTHER_4XX = "other 4xx: do not retry: the request is wrong"
AFTER_5XX = "5xx: 3 retries, after 5, 10 and 15 seconds"
BLOCKED = "451 on login: account blocked: do not retry"

TABLE = [
    Row(AFTER_429, QUESTION, 429, 1, (1,), None),
    Row(AFTER_429_LOGIN, TOKEN, 429, 1, (5,), None),
    Row(AFTER_429_LOGIN, LOGIN, 429, 1, (5,), None),
    Row(AFTER_429_LOGIN, TOKEN, 429, 3, (5, 10, 15), None),
    *(
        Row(OTHER_4XX, request, status, None, (), error)
        for request in (QUESTION, TOKEN, LOGIN)
        for status, error in [
            (400, BadRequest if request is QUESTION else Unauthorized),
            (403, Unauthorized),
            (404, ApiError),
            (405, ApiError),
            (409, ApiError),
            (410, ApiError),
            (413, ApiError),
            (415, ApiError),
            (422, ApiError),
        ]
    ),
    *(Row(OTHER_4XX, request, 401, None, (), Unauthorized) for request in (TOKEN, LOGIN)),
    *(
        Row(AFTER_5XX, request, status, times, (5, 15, 30)[:times], None)
        for request in (QUESTION, TOKEN, LOGIN)
        for status in (500, 502, 503, 504)
        for times in (1, 2, 3)
    ),
    *(
        Row(AFTER_5XX, request, status, None, (5, 15, 30), ServerError)
        for request in (QUESTION, TOKEN, LOGIN)
        for status in (500, 501, 502, 503, 504, 599)
    ),
    Row(BLOCKED, TOKEN, 451, None, (), Unauthorized),
    Row(BLOCKED, LOGIN, 451, None, (), Unauthorized),
]


def _name(row: Row) -> str:
    part, _ = row.request
    times = "always" if row.times is None else f"{row.times} times"
    return f"{row.status} to {part.rpartition('/')[2]} {times}"


@pytest.mark.parametrize("row", TABLE, ids=_name)
async def test_a_request_is_tried_again_as_the_page_asks(row: Row) -> None:
    """It comes again at these instants and at no other; then it is answered, or has failed."""
    part, credentials = row.request
    came: list[float] = []

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(part):
            return None
        came.append(now())
        failing = row.times is None or len(came) <= row.times
        return web.Response(status=row.status) if failing else None

    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(base_url=sandbox.url, retry=EVEN) as session:
            call = session.fetch(Account(sandbox.account_ids[0], credentials), QUERY)
            if row.error is None:
                await call
            else:
                with pytest.raises(row.error) as caught:
                    await call
                assert type(caught.value) is row.error

    first, *again = came
    assert len(row.came) == len(again)
    for expected, at in zip(row.came, again, strict=True):
        assert expected <= at - first < expected + ALMOST


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("request_", [QUESTION, TOKEN, LOGIN], ids=["question", "token", "login"])
async def test_retry_after_wins_where_it_asks_for_longer(
    request_: tuple[str, Credentials], status: int
) -> None:
    """The header may stand beside any of these, whatever the request was."""
    part, credentials = request_
    came: list[float] = []

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(part):
            return None
        came.append(now())
        if len(came) > 2:
            return None
        asked = "20" if len(came) == 1 else "0"
        return web.Response(status=status, headers={"Retry-After": asked})

    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(base_url=sandbox.url, retry=EVEN) as session:
            await session.fetch(Account(sandbox.account_ids[0], credentials), QUERY)

    first, second, third = came
    assert 20 <= second - first < 20 + ALMOST
    least = {429: 1 if request_ is QUESTION else 5}.get(status, 10)
    assert least <= third - second


async def test_no_bursts_follow_a_429() -> None:
    """Fifty questions of one account, refused for two seconds: they come back one by one."""
    came: list[float] = []
    began = now()

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith("/msgconversation"):
            return None
        came.append(now())
        return web.Response(status=429) if now() - began < 2 else None

    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(base_url=sandbox.url, coalesce=False) as session:
            await asyncio.gather(*(session.fetch(account(sandbox), QUERY) for _ in range(50)))

    after = [at for at in came if at - began >= 2]
    assert max(sum(at <= other < at + 0.1 for other in after) for at in after) <= 10
