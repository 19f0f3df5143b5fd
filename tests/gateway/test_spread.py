"""Accounts spread over three gateways by real nginx, as the README says; one is killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from aiohttp import web

import msgconv_async
from benchmarks import nginx
from tests.cli.conftest import clean_environment
from tests.gateway.support import path

if nginx.executable() is None and not os.environ.get("CI_REQUIRE_SERVERS"):
    pytest.skip(nginx.MISSING, allow_module_level=True)

ACCOUNTS = [str(10_000_001 + number) for number in range(60)]
SLOTS, TAKES = 3, 0.25
"""The service's limit for each account, and the seconds that an answer takes."""
ASKERS = 2
"""Of each account, each with a question of its own."""


class Asked(NamedTuple):
    """A request that reached the service."""

    at: float
    account: str
    gateway: int


class Service:
    """Limits each account to some requests at once, and knows gateways by the port they ask at."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.refused = 0
        self._at_once = Counter[str]()

    async def answer(self, request: web.Request) -> web.Response:
        account = request.match_info["account"]
        assert request.url.port is not None
        self.asked.append(Asked(asyncio.get_running_loop().time(), account, request.url.port))
        if self._at_once[account] >= SLOTS:
            self.refused += 1
            return web.Response(status=429)
        self._at_once[account] += 1
        try:
            await asyncio.sleep(TAKES)
        finally:
            self._at_once[account] -= 1
        return web.json_response({"metricsTotals": {}})

    def gateways(self, since: float, until: float) -> dict[str, set[int]]:
        """Return which gateways asked about each account in a span of time."""
        seen = defaultdict(set)
        for asked in self.asked:
            if since <= asked.at < until:
                seen[asked.account].add(asked.gateway)
        return seen


@asynccontextmanager
async def _service(service: Service) -> AsyncIterator[list[int]]:
    """Serve at three ports; yields them."""
    app = web.Application()
    app.router.add_get("/operations/api/account/{account}/msgconversation", service.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        for _ in range(3):
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield [address[1] for address in runner.addresses]
    finally:
        await runner.cleanup()


async def _start(port: int, upstream: int) -> asyncio.subprocess.Process:
    gateway = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "msgconv_async", "gateway", *ACCOUNTS),
        *("--port", str(port), "--base-url", f"http://127.0.0.1:{upstream}"),
        env=clean_environment(MSGCONV_TOKEN="none"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert gateway.stdout is not None
    assert (await gateway.stdout.readline()).startswith(b"listening on")
    return gateway


def _configuration(listen: int, gateways: list[int]) -> str:
    """Return the README's configuration of nginx, at other ports."""
    readme = Path(msgconv_async.__file__).with_name("gateway") / "README.md"
    found = re.search(r"```nginx\n(.*?)```", readme.read_text(), re.DOTALL)
    assert found is not None
    ports = dict(zip((8080, 8081, 8082, 8083), (listen, *gateways), strict=True))
    text = re.sub(r":(808\d)", lambda port: f":{ports[int(port[1])]}", found[1])
    return text.replace("{", "{{").replace("}", "}}")


async def test_three_gateways_of_which_one_is_killed_and_comes_back() -> None:
    service, loop = Service(), asyncio.get_running_loop()
    statuses = Counter[int]()
    listen, *ports = (nginx.free_port() for _ in range(4))
    over = asyncio.Event()

    async def ask(http: aiohttp.ClientSession, account: str, minutes: int) -> None:
        target = f"http://127.0.0.1:{listen}{path(account, f'timeframe={minutes}&v=1')}"
        await asyncio.sleep(int(account) % 60 / 60)
        while not over.is_set():
            async with http.get(target) as response:
                await response.read()
                statuses[response.status] += 1
                if response.status == 503:
                    assert response.headers["Msgconv-Gateway"] in {"busy", "throttled"}
            await asyncio.sleep(0.3)

    async with _service(service) as upstreams:
        gateways = await asyncio.gather(*map(_start, ports, upstreams))
        try:
            async with (
                nginx.serving(b"", _configuration(listen, ports)),
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
            ):
                await asyncio.sleep(0.5)
                tasks = [
                    asyncio.create_task(ask(http, account, minutes))
                    for account in ACCOUNTS
                    for minutes in range(1, ASKERS + 1)
                ]
                await asyncio.sleep(3)
                began, killed = loop.time() - 3, loop.time()
                gateways[1].send_signal(signal.SIGKILL)
                await gateways[1].communicate()
                await asyncio.sleep(4)
                back = loop.time()
                gateways[1] = await _start(ports[1], upstreams[1])
                await asyncio.sleep(7)
                ended = loop.time()
                over.set()
                await asyncio.gather(*tasks)
        finally:
            for gateway in gateways:
                if gateway.returncode is None:
                    gateway.terminate()
                await gateway.communicate()

    before = service.gateways(began, killed)
    without = service.gateways(killed + 2, back)
    after = service.gateways(ended - 2, ended)
    for settled in (before, without, after):
        assert set(ACCOUNTS) == settled.keys()
        assert {1} == {len(gateways) for gateways in settled.values()}
    assert before == after
    assert upstreams[1] not in set().union(*without.values())
    stayed = [account for account in ACCOUNTS if before[account] != {upstreams[1]}]
    assert all(before[account] == without[account] for account in stayed)
    assert 10 < len(stayed) < 55
    assert statuses.keys() <= {200, 503}
    assert statuses[503] < 0.01 * statuses[200]
    assert service.refused < 0.01 * len(service.asked)
