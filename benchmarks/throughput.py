"""Requests per second and CPU per request, beside what else could ask and read the answers.

nginx on loopback serves the API page's own example to everybody. In each round every contender
makes the same number of requests in this one process, in a new order; a ratio is taken to bare
aiohttp in the same round (its answers are read and thrown away), and the median over the rounds
counts. This library paces, retries and decodes as always; its pace is fixed far above what the
machine can do, so that it is the work that is measured and not the waiting. Niquests takes part
where it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import httpx
import httpx2
import requests

from benchmarks.decode import pydantic_models
from benchmarks.nginx import MISSING, executable, free_port, serving
from msgconv_async import (
    Account,
    BearerToken,
    ConversationQuery,
    ConversationSession,
    Pacer,
    decode_report,
)

EXAMPLE = Path(__file__).parents[1] / "tests" / "protocol" / "page_example.json"
SERVER = "server {{ listen 127.0.0.1:{port}; location / {{ open_file_cache max=9; {answer} }} }}"
PATH = "/operations/api/account/10000001/msgconversation?timeframe=60&v=1&skillIds=all&agentIds=2"
ACCOUNT = Account("10000001", BearerToken("none"))
QUERY = ConversationQuery(60, skill_ids="all", agent_ids=2)
HEADERS = {"Authorization": "Bearer none"}
CONCURRENCY = (10, 50)

Run = Callable[[int, int], Awaitable[None]]
"""``(requests, concurrency)``: asks so often, so many at a time."""


class Taken(NamedTuple):
    """Seconds that one request took: of the clock, and of this process's CPU."""

    wall: float
    cpu: float


def workers(ask: Callable[[], Awaitable[object]]) -> Run:
    """Return a run of something that asks once."""

    async def run(count: int, concurrency: int) -> None:
        left = iter(range(count))

        async def worker() -> None:
            for _ in left:
                await ask()

        await asyncio.gather(*(worker() for _ in range(concurrency)))

    return run


@contextlib.asynccontextmanager
async def bare(origin: str, read: Callable[[bytes], object]) -> AsyncIterator[Run]:
    """Bare aiohttp, and what is done with the bytes."""
    url = origin + PATH
    async with aiohttp.ClientSession(headers=HEADERS) as http:

        async def ask() -> None:
            async with http.get(url) as response:
                read(await response.read())

        yield workers(ask)


@contextlib.asynccontextmanager
async def fetch(origin: str) -> AsyncIterator[Run]:
    """Return this library's fetch."""
    async with ConversationSession(base_url=origin, pacer=unbounded, coalesce=False) as session:
        yield workers(lambda: session.fetch(ACCOUNT, QUERY))


@contextlib.asynccontextmanager
async def fetch_many(origin: str) -> AsyncIterator[Run]:
    """Return this library's fetch_many."""
    async with ConversationSession(base_url=origin, pacer=unbounded, coalesce=False) as session:

        async def run(count: int, concurrency: int) -> None:
            async with session.fetch_many(
                repeat(ACCOUNT, count), QUERY, max_in_flight=concurrency
            ) as outcomes:
                async for outcome in outcomes:
                    if outcome.error is not None:
                        raise outcome.error

        yield run


@contextlib.asynccontextmanager
async def httpx_pydantic(library: Any, origin: str) -> AsyncIterator[Run]:
    """Httpx or its successor httpx2, and pydantic models."""
    url, adapter = origin + PATH, pydantic_models()
    limits = library.Limits(max_connections=100, max_keepalive_connections=100)
    async with library.AsyncClient(headers=HEADERS, limits=limits) as http:

        async def ask() -> None:
            adapter.validate_json((await http.get(url)).content)

        yield workers(ask)


@contextlib.asynccontextmanager
async def niquests_pydantic(origin: str) -> AsyncIterator[Run]:
    """Niquests and pydantic models."""
    url, adapter = origin + PATH, pydantic_models()
    niquests = import_module("niquests")  # see the extra `peers`
    async with niquests.AsyncSession(headers=HEADERS, pool_maxsize=100) as http:

        async def ask() -> None:
            adapter.validate_json((await http.get(url)).content)

        yield workers(ask)


@contextlib.asynccontextmanager
async def synchronous(origin: str) -> AsyncIterator[Run]:
    """Requests, in threads, with a connection for each call: as synchronous wrappers do."""
    url, loop = origin + PATH, asyncio.get_running_loop()

    def ask() -> None:
        requests.get(url, headers=HEADERS, timeout=30).json()

    with ThreadPoolExecutor(max(CONCURRENCY)) as pool:
        yield workers(lambda: loop.run_in_executor(pool, ask))


def unbounded() -> Pacer:
    """Pace, but far above what the machine can do."""
    return Pacer(rate=1e12, concurrency=1000)


CONTENDERS: dict[str, Callable[[str], contextlib.AbstractAsyncContextManager[Run]]] = {
    "aiohttp, read": lambda origin: bare(origin, len),
    "aiohttp, json.loads": lambda origin: bare(origin, json.loads),
    "aiohttp, decode_report": lambda origin: bare(origin, decode_report),
    "msgconv_async fetch": fetch,
    "msgconv_async fetch_many": fetch_many,
    "httpx, pydantic models": partial(httpx_pydantic, httpx),
    "httpx2, pydantic models": partial(httpx_pydantic, httpx2),
    "niquests, pydantic models": niquests_pydantic,
    "requests, connection per call": synchronous,
}
if find_spec("niquests") is None:
    del CONTENDERS["niquests, pydantic models"]


async def measure(rounds: int, count: int) -> None:
    """Measure everybody at every concurrency, and print the tables."""
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    async with (
        serving(EXAMPLE.read_bytes(), SERVER, port=port),
        contextlib.AsyncExitStack() as stack,
    ):
        runs = {
            name: await stack.enter_async_context(make(origin)) for name, make in CONTENDERS.items()
        }
        await _answering(origin)
        for run in runs.values():
            await run(100, 10)
        for concurrency in CONCURRENCY:
            taken: dict[str, list[Taken]] = {name: [] for name in runs}
            for _ in range(rounds):
                for name in random.sample(list(runs), len(runs)):
                    taken[name].append(await _timed(runs[name], count, concurrency))
            _show(taken, concurrency)


async def _answering(origin: str) -> None:
    async with aiohttp.ClientSession() as http:
        for _ in range(100):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with http.get(origin + PATH) as response:
                    response.raise_for_status()
                    return
            await asyncio.sleep(0.05)
    raise RuntimeError("nginx does not answer")


async def _timed(run: Run, count: int, concurrency: int) -> Taken:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await run(count, concurrency)
    return Taken((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count)


def _show(taken: dict[str, list[Taken]], concurrency: int) -> None:
    base, ours = taken["aiohttp, read"], taken["msgconv_async fetch"]
    print(
        f"\n{f'{concurrency} at a time':32}{'us CPU':>8}{'of bare aiohttp':>18}{'ours over it':>15}"
    )
    for name, each in taken.items():
        cpu = statistics.median(one.cpu for one in each) * 1e6
        share = statistics.median(b.wall / one.wall for b, one in zip(base, each, strict=True))
        faster = statistics.median(one.wall / o.wall for o, one in zip(ours, each, strict=True))
        print(f"{name:32}{cpu:8.0f}{100 * share:16.1f} %{faster:13.2f} x", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser("python -m benchmarks throughput", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=1500, help="by each contender in a round")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop instead of asyncio's loop")
    options = parser.parse_args(arguments)
    if executable() is None:
        print(MISSING)
        return
    factory = None
    if options.uvloop:
        import uvloop  # noqa: PLC0415 - only on demand

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(measure(options.rounds, options.requests))
    print("\nof bare aiohttp: requests per second; ours over it: fetch's over that contender's")
