"""One owner for an account: worker processes with their own pacers, and the same through a gateway.

Real nginx is the limited service; it keys its limits by the account in the path. Forty-eight
askers, spread over the workers, each ask again as soon as they have an answer, a question of their
own each, so that nothing is shared. All begin cold, and at the same moment.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import uvloop
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import nginx
from msgconv_async import (
    Account,
    BearerToken,
    ConversationQuery,
    ConversationSession,
    MsgConvError,
)

ASKERS = 48
WORKERS = (1, 2, 4, 8)
ANSWER = json.dumps({"metricsTotals": {"totalResolvedConversations": 1}}).encode()
PATH = "/operations/api/account/{account}/msgconversation?timeframe={minutes}&v=1"
BY_ACCOUNT = {"key": "$account", "location": "~ /account/(?<account>[0-9]+)/"}
FREE = "    server {{ listen 127.0.0.1:{free_port}; location / {{ {answer} }} }}\n"


class Limit(NamedTuple):
    """A limited service, and what is to be reached there through a gateway."""

    name: str
    origin: str
    capacity: float
    used: float
    refused: float


class Services(NamedTuple):
    """The limited services, and one without a limit."""

    limits: tuple[Limit, Limit]
    free: str


class Told(NamedTuple):
    """What one worker did: documents had, calls that failed, requests sent and refused."""

    answered: int
    failed: int
    sent: int
    throttled: int


# -- A worker, in a process of its own ------------------------------------------------------------


async def work(origin: str, account_id: str, first: int, askers: int, seconds: float) -> Told:
    """Ask until the time is over; each asker its own question."""
    account = Account(account_id, BearerToken("none"))
    answered = failed = 0
    async with ConversationSession(base_url=origin) as session:

        async def ask(minutes: int) -> None:
            nonlocal answered, failed
            while True:
                try:
                    await session.fetch_document(account, ConversationQuery(minutes))
                    answered += 1
                except MsgConvError as error:
                    failed += 1
                    print(error, file=sys.stderr)

        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        tasks = [asyncio.create_task(ask(first + number)) for number in range(askers)]
        await asyncio.sleep(seconds)
        stats = session.stats(account)
        told = Told(answered, failed, stats.sent, stats.throttled)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return told


async def start_worker(*arguments: object) -> asyncio.subprocess.Process:
    """Start a worker, and wait until it is ready."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.gateway",
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert worker.stdout is not None  # noqa: S101 - for the type checker
    await worker.stdout.readline()
    return worker


async def result(worker: asyncio.subprocess.Process) -> Told:
    """Let a worker begin, and wait for what it did."""
    said, _ = await worker.communicate(b"\n")
    return Told(*json.loads(said))


# -- A gateway, in a process of its own -----------------------------------------------------------


class Gateway:
    """The command, at work.

    Args:
        arguments: What it is started with, without the port.
    """

    def __init__(self, *arguments: object) -> None:
        self._arguments = arguments
        self.port = nginx.free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "msgconv_async",
            "gateway",
            *map(str, self._arguments),
            "--port",
            str(self.port),
            env={**os.environ, "MSGCONV_TOKEN": "none"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self.process.stdout is not None  # noqa: S101
        if not await self.process.stdout.readline():
            raise RuntimeError("the gateway did not start")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        await self.process.communicate()

    async def counts(self, account_id: str) -> dict[str, float]:
        """Return its metrics of one account."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/metrics") as response:
            text = await response.text()
        return {
            sample.name.removeprefix("msgconv_gateway_"): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("account") == account_id
        }

    def resident(self) -> int:
        """Return its resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024

    def cpu(self) -> float:
        """Return the CPU seconds that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def gateway(*arguments: object) -> AsyncIterator[Gateway]:
    """Run a gateway while inside."""
    one = Gateway(*arguments)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


@contextlib.asynccontextmanager
async def services() -> AsyncIterator[Services]:
    """Run nginx with both limits."""

    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(nginx.SERVICE)
        return web.Response(body=ANSWER, content_type="application/json")

    application = web.Application()
    application.router.add_get("/{path:.*}", slow)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    slow_port = runner.addresses[0][1]
    ports = {name: nginx.free_port() for name in ("rate_port", "slots_port", "free_port")}
    limits = {"rate": nginx.RATE, "burst": nginx.BURST, "slots": nginx.SLOTS, "slow": slow_port}
    limits |= BY_ACCOUNT
    try:
        async with nginx.serving(ANSWER, nginx.LIMITS + FREE, **ports, **limits):
            rate, slots, free = (f"http://127.0.0.1:{port}" for port in ports.values())
            await _round_trip(free)
            took = await _round_trip(slots)
            yield Services(
                (
                    Limit(f"bucket {nginx.RATE}/s", rate, nginx.RATE, 98.0, 0.6),
                    Limit(
                        f"{nginx.SLOTS} slots of {nginx.SERVICE} s",
                        slots,
                        nginx.SLOTS / took,
                        95.0,
                        0.8,
                    ),
                ),
                free,
            )
    finally:
        await runner.cleanup()


async def _round_trip(origin: str) -> float:
    """Wait until it answers, and return the seconds that one request then takes."""
    async with aiohttp.ClientSession() as http:
        for _ in range(100):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                took = await _times(http, origin, "99", 3)
                return statistics.mean(took)
            await asyncio.sleep(0.05)
    raise RuntimeError("nginx does not answer")


async def _times(http: aiohttp.ClientSession, origin: str, account: str, count: int) -> list[float]:
    took = []
    for _ in range(count):
        began = time.perf_counter()
        async with http.get(origin + PATH.format(account=account, minutes=60)) as response:
            await response.read()
        response.raise_for_status()
        took.append(time.perf_counter() - began)
    return took


# -- Parts ----------------------------------------------------------------------------------------


def verdict(name: str, value: str, *, met: bool, goal: str) -> None:
    """Print a goal beside what was measured."""
    print(f"  {name:52}{value:>14}   goal {goal:18}{'met' if met else 'MISSED'}", flush=True)


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 if all have the same."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


async def _contend(origin: str, account: str, workers: int, seconds: float) -> list[Told]:
    each = ASKERS // workers
    started = await asyncio.gather(
        *(
            start_worker(origin, account, 1 + number * each, each, seconds)
            for number in range(workers)
        )
    )
    return await asyncio.gather(*map(result, started))


def _accounts() -> Iterator[str]:
    return map(str, range(10_000_001, 10_001_000))


async def contention(seconds: float) -> None:
    """Workers with their own pacers, and through a gateway."""
    print(
        f"{'':22}{'':9}   own pacers: used  refused failed  Jain"
        "     gateway: used  refused failed  Jain"
    )
    fresh = _accounts()
    async with services() as there:
        for workers in WORKERS:
            for limit in there.limits:
                own, shared = next(fresh), next(fresh)
                async with gateway(shared, "--base-url", limit.origin) as one:
                    alone, through = await asyncio.gather(
                        _contend(limit.origin, own, workers, seconds),
                        _contend(one.url, shared, workers, seconds),
                    )
                    counts = await one.counts(shared)
                whole = limit.capacity * seconds
                sent = sum(told.sent for told in alone)
                ours = (
                    100 * sum(told.answered for told in alone) / whole,
                    100 * sum(told.throttled for told in alone) / max(1, sent),
                    sum(told.failed for told in alone),
                    jain([told.answered for told in alone]),
                )
                theirs = (
                    100 * sum(told.answered for told in through) / whole,
                    100 * counts["requests_throttled_total"] / counts["requests_sent_total"],
                    sum(told.failed for told in through),
                    jain([told.answered for told in through]),
                )
                met = (
                    theirs[0] >= limit.used
                    and theirs[1] <= limit.refused
                    and theirs[2] == 0
                    and theirs[3] >= 0.95
                )
                said = "" if workers < 4 else "  met" if met else "  MISSED"
                row = "{:11.1f} % {:6.2f} %{:7}{:6.2f}"
                print(
                    f"{limit.name:22}{workers:2} workers  ",
                    row.format(*ours),
                    "   ",
                    row.format(*theirs),
                    said,
                    flush=True,
                )
    print(
        "  goal, 4 and 8 workers: bucket 98 % used, 0.6 % refused; slots 95 %, 0.8 %;"
        " none failed; Jain 0.95"
    )


async def _warm(origin: str, account: str) -> None:
    """Let a pacer find out that there is no limit."""
    worker = await start_worker(origin, account, 1, ASKERS, 3)
    await result(worker)


async def hop(_: float) -> None:
    """What a gateway adds to a request that needs no wait."""
    async with (
        services() as there,
        gateway("1", "--base-url", there.free) as one,
        _forwarder(there.free) as bare,
        aiohttp.ClientSession() as http,
    ):
        await _warm(one.url, "1")
        took: dict[str, list[float]] = {there.free: [], bare: [], one.url: []}
        for _round in range(20):
            for origin, times in took.items():
                times.extend(await _times(http, origin, "1", 100))
        direct, least, through = (1000 * statistics.median(times) for times in took.values())
        added = through - direct
        detail = f"{added:.2f} ms"
        verdict("the hop adds, at the median", detail, met=added <= 0.5, goal="<= 0.5 ms")
        print(f"  (aiohttp, which only passes requests on, adds {least - direct:.2f} ms)")


@contextlib.asynccontextmanager
async def _forwarder(origin: str) -> AsyncIterator[str]:
    """Run what no gateway on aiohttp can be below: it passes each request on, and no more."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.gateway", "forward", origin),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None  # noqa: S101 - for the type checker
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


async def forward(origin: str) -> None:
    """Pass on what is asked, for ever."""
    async with aiohttp.ClientSession() as http:

        async def passed(request: web.Request) -> web.Response:
            async with http.get(origin + request.raw_path) as response:
                body = await response.read()
            return web.Response(body=body, content_type="application/json")

        application = web.Application()
        application.router.add_get("/{path:.*}", passed)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()


class _Loader(asyncio.Protocol):
    """Asks one target again and again on one connection."""

    def __init__(self, ask: Callable[[], bytes], answered: Callable[[], None]) -> None:
        self._ask = ask
        self._answered = answered
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101
        self._transport = transport
        transport.write(self._ask())

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found or len(body) < len(ANSWER):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        self._got = b""
        self._answered()
        self._transport.write(self._ask())


async def load(origin: str, account: str, count: int, *, connections: int, distinct: bool) -> float:
    """Ask so often, and return the seconds that it took."""
    parts, done, number = urlsplit(origin), asyncio.Event(), 0
    left = count

    def ask() -> bytes:
        nonlocal number
        number += 1
        minutes = 1 + number % 1440 if distinct else 60
        target = PATH.format(account=account, minutes=minutes)
        return f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()

    def answered() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            done.set()

    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    transports = []
    for _ in range(connections):
        transport, _protocol = await loop.create_connection(
            lambda: _Loader(ask, answered), parts.hostname or "", parts.port or 0
        )
        transports.append(transport)
    await done.wait()
    took = time.perf_counter() - began
    for transport in transports:
        transport.abort()
    return took


async def memory(_: float) -> None:
    """Answers given again, and what is left of a hundred thousand requests."""
    async with services() as there:
        async with gateway("1", "--base-url", there.free, "--fresh-for", 290) as one:
            await load(one.url, "1", 2000, connections=1, distinct=False)
            cpu = one.cpu()
            took = await load(one.url, "1", 20_000, connections=16, distinct=False)
            cpu = one.cpu() - cpu
            verdict(
                "answers from memory a second, of one core",
                f"{20_000 / cpu:,.0f}",
                met=20_000 / cpu >= 4000,
                goal=">= 4,000",
            )
            print(f"  ({20_000 / took:,.0f}/s by the clock, beside what asks)")
        async with gateway("1", "--base-url", there.free) as one:
            await load(one.url, "1", 20_000, connections=16, distinct=True)
            before = one.resident()
            await load(one.url, "1", 100_000, connections=16, distinct=True)
            grown = (one.resident() - before) / 1e6
            verdict(
                "100,000 requests later, more resident",
                f"{grown:.1f} MB",
                met=grown < 2,
                goal="flat: < 2 MB",
            )


async def waiting(_: float) -> None:
    """What a thousand clients weigh that wait."""
    async with (
        services() as there,
        gateway("1", "--base-url", there.limits[1].origin, "--max-wait", 100) as one,
    ):
        await _times_slow(one)
        before = one.resident()
        connections = []
        for number in range(1000):
            target = PATH.format(account="1", minutes=1 + number)
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            connections.append((reader, writer))
        await asyncio.sleep(1)
        waits = (await one.counts("1"))["requests_waiting"]
        grown = (one.resident() - before) / 1e6
        for _reader, writer in connections:
            writer.close()
        verdict(
            f"1,000 clients, {waits:.0f} of them in the queue, weigh",
            f"{grown:.1f} MB",
            met=grown < 50 and waits > 900,
            goal="< 50 MB",
        )


async def _times_slow(one: Gateway) -> None:
    async with aiohttp.ClientSession() as http:
        await _times(http, one.url, "1", 1)


async def killed(_: float) -> None:
    """Killed and restarted ten times under load."""
    async with services() as there:
        one = Gateway("1", "--base-url", there.limits[0].origin)
        await one.start()
        worker = await start_worker(one.url, "1", 1, ASKERS, 75)
        told = asyncio.create_task(result(worker))
        for _kill in range(10):
            await asyncio.sleep(6)
            await one.stop(signal.SIGKILL)
            await one.start()
        did = await told
        await one.stop()
    verdict(
        f"killed ten times: of {did.answered + did.failed:,} requests, lost",
        str(did.failed),
        met=did.failed == 0,
        goal="0",
    )


async def restarted(seconds: float) -> None:
    """Refusals of the first minute after a restart, with what was learnt and without."""
    async with services() as there:
        for limit in there.limits:
            account, told = "1" if "bucket" in limit.name else "2", []
            with tempfile.TemporaryDirectory() as folder:
                state = Path(folder) / "state.json"
                for _start in range(2):
                    where = (account, "--base-url", limit.origin, "--state", state)
                    async with gateway(*where) as one:
                        worker = await start_worker(one.url, account, 1, ASKERS, seconds)
                        await result(worker)
                        counts = await one.counts(account)
                        told.append(counts["requests_throttled_total"])
                    await asyncio.sleep(2)
            cold, warm = told
            verdict(
                f"{limit.name}: refused from cold {cold:.0f}, with --state",
                f"{warm:.0f}",
                met=3 * warm <= cold,
                goal="<= a third",
            )


PARTS: dict[str, Callable[[float], Coroutine[Any, Any, None]]] = {
    "contention": contention,
    "hop": hop,
    "memory": memory,
    "waiting": waiting,
    "killed": killed,
    "restarted": restarted,
}


def main(arguments: Sequence[str]) -> None:
    """Measure, and print each goal beside what was measured."""
    parser = argparse.ArgumentParser("python -m benchmarks gateway", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=60, help="of each run from cold")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    if nginx.executable() is None:
        print(nginx.MISSING)
        return
    for name in options.parts or PARTS:
        print(f"{name} ({(PARTS[name].__doc__ or '').rstrip('.')})", flush=True)
        asyncio.run(PARTS[name](options.seconds))


if __name__ == "__main__":
    if sys.argv[1] == "forward":
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(forward(sys.argv[2]))
    origin, account, *numbers = sys.argv[1:]
    first, askers, seconds = numbers
    print(json.dumps(asyncio.run(work(origin, account, int(first), int(askers), float(seconds)))))
