"""Real limits: nginx on loopback, serving the metrics under limits that nobody told the client.

Every contender has a bucket and a set of slots of its own (nginx keys its zones by a header), so
all of them run at the same time, on the same machine, for the same minute, from cold. Fifty
workers each ask again as soon as they have an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web
from aiolimiter import AsyncLimiter

from msgconv_async import Account, BearerToken, ConversationQuery, ConversationSession

RATE, BURST = 50, 5
SLOTS, SERVICE = 4, 0.3
WORKERS = 50
PATH = "/operations/api/account/10000001/msgconversation?timeframe=60&v=1"
ANSWER = json.dumps({"metricsTotals": {"totalResolvedConversations": 1}}).encode()

CONFIG = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000; default_type application/json;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    {http}
}}
"""

LIMITS = """
    limit_req_zone {key} zone=rate:1m rate={rate}r/s;
    limit_conn_zone {key} zone=slots:1m;
    limit_req_status 429; limit_conn_status 429;
    upstream slow {{ server 127.0.0.1:{slow}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{rate_port};
        location {location} {{ limit_req zone=rate burst={burst} nodelay; {answer} }}
    }}
    server {{
        listen 127.0.0.1:{slots_port};
        location {location} {{
            limit_conn slots {slots};
            proxy_pass http://slow; proxy_http_version 1.1; proxy_set_header Connection "";
        }}
    }}
"""
"""A rate and a number of slots, limited for each value of a key, at two ports."""

STATIC = "root {folder}; try_files /answer =500;"
"""Serves the answer; a ``return`` would come before the limits are looked at."""

MISSING = "nginx: not installed, so this part is skipped (Debian: apt-get install nginx-light)"


class Tally(NamedTuple):
    """What a contender was answered, over one run."""

    answered: list[float]
    refused: list[float]


class Limit(NamedTuple):
    """One of the two limits."""

    name: str
    capacity: float
    url: str


Client = Callable[[str, str, Tally], Coroutine[Any, Any, None]]
"""``(origin, contender, tally)``: asks until it is cancelled, and keeps the tally."""


async def library(origin: str, contender: str, tally: Tally) -> None:
    """Ask as this library does, told nothing."""
    loop = asyncio.get_running_loop()

    async def count(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
        (tally.answered if params.response.status == 200 else tally.refused).append(loop.time())

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(count)
    headers = {"X-Contender": contender}
    async with (
        aiohttp.ClientSession(headers=headers, trace_configs=[trace]) as http,
        ConversationSession(http=http, base_url=origin, coalesce=False) as session,
    ):
        account, query = Account("10000001", BearerToken("none")), ConversationQuery(60)

        async def worker() -> None:
            while True:
                await session.fetch(account, query, timeout=None)

        await asyncio.gather(*(worker() for _ in range(WORKERS)))


def bare(wait: Callable[[int], float], limiter: AsyncLimiter | None = None) -> Client:
    """Return bare aiohttp with a wait after 429, by how many came in a row, and maybe a limiter."""

    async def client(origin: str, contender: str, tally: Tally) -> None:
        loop = asyncio.get_running_loop()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector, headers={"X-Contender": contender}
        ) as http:

            async def worker() -> None:
                in_a_row = 0
                while True:
                    if limiter is not None:
                        await limiter.acquire()
                    async with http.get(origin + PATH) as response:
                        await response.read()
                    if response.status == 200:
                        tally.answered.append(loop.time())
                        in_a_row = 0
                    else:
                        tally.refused.append(loop.time())
                        in_a_row += 1
                        await asyncio.sleep(wait(in_a_row))

            await asyncio.gather(*(worker() for _ in range(WORKERS)))

    return client


def contenders(capacity: float) -> dict[str, Client]:
    """Return the library and its peers; aiolimiter has to be told a rate, so it is told two."""

    def one_second(_: int) -> float:
        return 1.0

    def exponential(in_a_row: int) -> float:
        return 1.0 + random.random() * (min(30.0, 2.0**in_a_row) - 1.0)

    return {
        "msgconv_async": library,
        "retry after 1 s": bare(one_second),
        "exponential backoff": bare(exponential),
        "aiolimiter, half the rate": bare(one_second, AsyncLimiter(1, 2 / capacity)),
        "aiolimiter, twice the rate": bare(one_second, AsyncLimiter(1, 0.5 / capacity)),
    }


async def measure(seconds: float) -> dict[tuple[str, str], Tally] | None:
    """Run everybody under both limits at once, print the table, and return the tallies."""
    if executable() is None:
        print(MISSING)
        return None
    tallies: dict[tuple[str, str], Tally] = {}
    async with _limits() as limits:
        tasks: list[asyncio.Task[None]] = []
        for limit in limits:
            for name, client in contenders(limit.capacity).items():
                tally = tallies[limit.name, name] = Tally([], [])
                tasks.append(asyncio.create_task(client(limit.url, name, tally)))
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when="FIRST_COMPLETED")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()  # none ends by itself unless it failed
    print(f"{f'real nginx, {seconds:.0f} s from cold':52} goodput      429s")
    for limit in limits:
        for name in contenders(limit.capacity):
            tally = tallies[limit.name, name]
            asked = len(tally.answered) + len(tally.refused)
            goodput = 100 * len(tally.answered) / (limit.capacity * seconds)
            refused = 100 * len(tally.refused) / max(1, asked)
            print(f"{limit.name:24}{name:28}{goodput:7.1f} %{refused:8.2f} %", flush=True)
    return tallies


def executable() -> str | None:
    """Return where nginx is, if it is."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextlib.asynccontextmanager
async def serving(answer: bytes, http: str, **values: object) -> AsyncIterator[None]:
    """Run nginx with an http section in which ``{answer}`` serves the answer."""
    with tempfile.TemporaryDirectory() as folder:
        config = _configure(Path(folder), answer, http, values)
        nginx = await asyncio.create_subprocess_exec(
            executable() or "nginx", "-p", folder, "-c", config
        )
        try:
            yield
        finally:
            nginx.terminate()
            await nginx.wait()


def _configure(folder: Path, answer: bytes, http: str, values: dict[str, object]) -> str:
    folder.chmod(0o755)  # its worker is another user
    (folder / "answer").write_bytes(answer)
    section = http.format(answer=STATIC.format(folder=folder), **values)
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, http=section))
    return str(config)


@contextlib.asynccontextmanager
async def _limits() -> AsyncIterator[list[Limit]]:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(SERVICE)
        return web.Response(body=ANSWER, content_type="application/json")

    application = web.Application()
    application.router.add_get("/{path:.*}", slow)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ports = {"rate_port": free_port(), "slots_port": free_port()}
    limits = {"rate": RATE, "burst": BURST, "slots": SLOTS, "slow": runner.addresses[0][1]}
    limits |= {"key": "$http_x_contender", "location": "/"}
    try:
        async with serving(ANSWER, LIMITS, **ports, **limits):
            origins = [f"http://127.0.0.1:{port}" for port in ports.values()]
            round_trips = [await _round_trip(origin) for origin in origins]
            yield [
                Limit(f"limit_req {RATE}/s burst {BURST}", RATE, origins[0]),
                Limit(f"limit_conn {SLOTS}, {SERVICE} s", SLOTS / round_trips[1], origins[1]),
            ]
    finally:
        await runner.cleanup()


async def _round_trip(origin: str) -> float:
    """Wait until it answers, and return how long one request at a time then takes."""
    async with aiohttp.ClientSession(headers={"X-Contender": "nobody"}) as http:
        deadline = time.monotonic() + 10
        while True:
            try:
                async with http.get(origin + PATH) as response:
                    await response.read()
                break
            except aiohttp.ClientConnectionError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
        began = time.perf_counter()
        for _ in range(3):
            async with http.get(origin + PATH) as response:
                await response.read()
        return (time.perf_counter() - began) / 3


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
