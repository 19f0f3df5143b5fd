from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp
import pytest

from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox

NOW = datetime(2026, 3, 4, 8, 7, tzinfo=UTC)

CREDENTIALS = {
    "grant_type": "client_credentials",
    "client_id": CLIENT_ID,
    "client_secret": CLIENT_SECRET,
}


class Answer(NamedTuple):
    """An answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body decoded."""
        return json.loads(self.body)


Ask = Callable[..., Awaitable[Answer]]


def metrics_url(sandbox: Sandbox, account_id: str | None = None) -> str:
    account_id = account_id or sandbox.account_ids[0]
    return f"{sandbox.url}/operations/api/account/{account_id}/msgconversation"


def token_url(sandbox: Sandbox, account_id: str | None = None) -> str:
    account_id = account_id or sandbox.account_ids[0]
    return f"{sandbox.url}/sentinel/api/v2/account/{account_id}/app/token"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.fixture
def bearer(client: aiohttp.ClientSession) -> Callable[..., Awaitable[dict[str, str]]]:
    """Return a function that gets the headers of a fresh token."""

    async def get(sandbox: Sandbox, account_id: str | None = None) -> dict[str, str]:
        async with client.post(token_url(sandbox, account_id), data=CREDENTIALS) as response:
            return {"Authorization": f"Bearer {(await response.json())['access_token']}"}

    return get


@pytest.fixture
def ask(client: aiohttp.ClientSession, bearer: Callable[..., Awaitable[dict[str, str]]]) -> Ask:
    """Return a function that asks an account a question and reads the answer."""

    async def get(sandbox: Sandbox, account_id: str | None = None, **parameters: Any) -> Answer:
        headers = await bearer(sandbox, account_id)
        given = {"v": "1", "timeframe": "60"} | parameters
        query = {name: value for name, value in given.items() if value is not None}
        async with client.get(
            metrics_url(sandbox, account_id), params=query, headers=headers
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    return get
