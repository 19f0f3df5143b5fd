"""What the gateway's tests stand on: a gateway to a sandbox, and ways to ask it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from msgconv_async import Account, BearerToken
from msgconv_async.client.many import follow
from msgconv_async.gateway import gateway
from msgconv_async.gateway.page import live
from msgconv_async.gateway.serve import Address, serving
from msgconv_async.protocol.buckets import BUCKET
from msgconv_async.sandbox import Clock, Sandbox
from tests.client.support import CLIENT

NOBODY = BearerToken("not-a-secret")
"""What a client of a gateway brings where no token is asked for."""

QUESTION = "timeframe=60&v=1"


def path(account_id: str, question: str = QUESTION) -> str:
    """Return the path of a question."""
    return f"/operations/api/account/{account_id}/msgconversation?{question}"


@asynccontextmanager
async def running(
    sandbox: Sandbox, grace: float = 1.0, unix: Path | None = None, **settings: Any
) -> AsyncIterator[str]:
    """Run a gateway to all accounts of a sandbox; yields where it listens."""
    accounts = [Account(account_id, CLIENT) for account_id in sandbox.account_ids]
    settings = {"base_url": sandbox.url} | settings
    app = gateway(accounts, **settings)
    async with serving(app, Address(port=0, unix=unix), grace) as url:
        yield url


async def get(url: str, **headers: str) -> tuple[int, Any, bytes]:
    """Ask with bare aiohttp; return the status, the headers and the body."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(url, headers=headers) as response,
    ):
        return response.status, response.headers, await response.read()


async def post(url: str, body: bytes, **headers: str) -> tuple[int, Any, bytes]:
    """Post with bare aiohttp; return the status, the headers and the body."""
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, data=body, headers=headers) as response,
    ):
        return response.status, response.headers, await response.read()


@dataclass
class Event:
    """A server-sent event."""

    id: int
    kind: str
    data: dict[str, Any]


class Stream:
    """What a browser hears of the live page."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def event(self, kind: str | None = None) -> Event:
        """Wait for the next event, of this kind."""
        while True:
            lines = []
            async with asyncio.timeout(10):
                while line := (await self._response.content.readline()).decode():
                    if line == "\n":
                        break
                    lines.append(line.rstrip("\n").split(": ", 1))
            if not line:
                raise EOFError
            fields = dict(lines)
            if kind in {None, fields.get("event")} and "event" in fields:
                return Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))

    async def rows(self, holds: Callable[[dict[str, Any]], bool], accounts: int = 1) -> list[Any]:
        """Wait until the rows of so many accounts are as they should be; return them."""
        found: dict[str, Any] = {}
        while len(found) < accounts:
            for row in (await self.event()).data.get("rows", ()):
                if holds(row):
                    found[row["id"]] = row
        return list(found.values())


@asynccontextmanager
async def looking(url: str, cookie: str = "") -> AsyncIterator[Stream]:
    """Look at the live page, as a browser does."""
    headers = {"Cookie": cookie} if cookie else {}
    connector = aiohttp.TCPConnector()
    async with (
        aiohttp.ClientSession(connector=connector, read_bufsize=2**22) as http,
        http.get(f"{url}/live/events", headers=headers) as response,
    ):
        assert 200 == response.status, await response.text()
        assert "text/event-stream" == response.content_type
        yield Stream(response)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let accounts have their turns each half second; return the clock of all that is asked."""
    clock = Clock(datetime(2026, 3, 4, 12, 2, tzinfo=UTC))
    monkeypatch.setattr(live, "utc_now", clock)
    monkeypatch.setattr(follow, "_PERIOD", 0.5)
    monkeypatch.setattr(follow, "_APART", 0.1)
    monkeypatch.setattr(follow, "_BACKOFF", (0.0,))
    return clock


def truth(sandbox: Sandbox, account_id: str, end: datetime) -> list[float]:
    """Return the five figures of the bucket that ends at an instant, as they really were."""
    found = sandbox.resolved(account_id, end - BUCKET, end)
    by = Counter(conversation.resolved_by for conversation in found)
    time = sum(conversation.handling_time_ms for conversation in found)
    return [len(found), by["CCP"], by["consumer"], by["system"], time]
