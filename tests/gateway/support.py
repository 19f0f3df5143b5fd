"""What the gateway's tests stand on: a gateway to a sandbox, and ways to ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from msgconv_async import Account, BearerToken
from msgconv_async.gateway import gateway
from msgconv_async.gateway.serve import Address, serving
from msgconv_async.sandbox import Sandbox
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
