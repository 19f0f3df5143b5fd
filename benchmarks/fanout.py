"""How much memory `fetch_many` takes, for a thousand accounts and for ten thousand.

Each run is a process of its own that does nothing but ask: accounts are made as they are drawn, and
each outcome is dropped as soon as it is taken. The server (nginx, or a few lines of asyncio where
there is none) runs elsewhere and answers three hours of five-minute intervals, 20 kB, to everybody.
What counts is the most memory that the client's process ever had resident (VmHWM of Linux), the
interpreter and all its modules included; the median over the rounds is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from msgconv_async import Account, BearerToken, ConversationQuery, ConversationSession

SIZES = (1_000, 10_000)
GOAL = 1.10  # the most that the larger size may take, in times the smaller one
BUCKET, INTERVALS = 5, 36  # minutes, and how many of them: 20 kB
QUERY = ConversationQuery(BUCKET * INTERVALS, interval=BUCKET)
STATUS = Path("/proc/self/status")
SERVER = "server {{ listen 127.0.0.1:{port}; location / {{ open_file_cache max=9; {answer} }} }}"
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"

# -- The client, in a process of its own ----------------------------------------------------------


class Run(NamedTuple):
    """What one run took: resident bytes, before it and at the most; seconds; what came of it."""

    before: int
    peak: int
    seconds: float
    outcomes: dict[str, int]


def peak() -> int:
    """Return the most bytes that this process ever had resident.

    Not ``ru_maxrss``: that one is inherited from whoever started the process.
    """
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def accounts(count: int) -> Iterator[Account]:
    """Make accounts as they are drawn, each with a token of its own."""
    for number in range(10_000_001, 10_000_001 + count):
        yield Account(str(number), BearerToken(f"token-of-{number}"))


async def ask(origin: str, count: int) -> Run:
    """Ask so many accounts, and keep nothing but the number of outcomes."""
    outcomes = Counter[str]()
    async with ConversationSession(base_url=origin) as session:
        before, began = peak(), time.perf_counter()
        async with session.fetch_many(accounts(count), QUERY) as results:
            async for outcome in results:
                outcomes[type(outcome.error or outcome.report).__name__] += 1
        seconds = time.perf_counter() - began
    return Run(before, peak(), seconds, outcomes)


# -- The server, and the measurement --------------------------------------------------------------


def body() -> bytes:
    """Return an answer to the question, its figures as realistic as those of `decode`."""
    # Imported here, for the client's process is not to carry what it does not need.
    from benchmarks.decode import NEWEST, document  # noqa: PLC0415

    agents = json.loads(document(0))["agentsMetrics"]["metricsPerAgent"]
    maps = list(agents.values())
    intervals = [
        {
            "timestamp": NEWEST - place * BUCKET * 60_000,
            "metricsData": {"metricsTotals": maps[place % len(maps)]},
        }
        for place in range(INTERVALS)
    ]
    answer = {"metricsByIntervals": intervals, "metricsTotals": maps[0]}
    return json.dumps(answer, separators=(",", ":")).encode()


class Static(asyncio.Protocol):
    """Answers every request in one way, and keeps the connection."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note where to write."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer as often as the head of a request has ended; none has a body."""
        *whole, self._tail = (self._tail + data).split(b"\r\n\r\n")
        for _ in whole:
            self._transport.write(self._answer)


@contextlib.asynccontextmanager
async def serving(answer: bytes, *, nginx: bool) -> AsyncIterator[str]:
    """Serve the answer to everybody; yields the origin."""
    from benchmarks import nginx as with_nginx  # noqa: PLC0415 - as above

    if nginx:
        port = with_nginx.free_port()
        async with with_nginx.serving(answer, SERVER, port=port):
            await _listening(port)
            yield f"http://127.0.0.1:{port}"
    else:
        whole = HEAD.format(length=len(answer)).encode() + answer
        loop = asyncio.get_running_loop()
        async with await loop.create_server(lambda: Static(whole), "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _listening(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(ConnectionRefusedError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("nginx does not answer")


async def run(origin: str, count: int) -> Run:
    """Ask so many accounts in a new process."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.fanout",
        origin,
        str(count),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"the client's process ended with {child.returncode}")
    return Run(*json.loads(said))


async def measure(
    answer: bytes, sizes: Sequence[int], rounds: int, *, nginx: bool
) -> dict[int, list[Run]]:
    """Return the runs of each size, taken in turn."""
    runs: dict[int, list[Run]] = {size: [] for size in sizes}
    async with serving(answer, nginx=nginx) as origin:
        for _ in range(rounds):
            for size in sizes:
                runs[size].append(await run(origin, size))
    return runs


def main(arguments: Sequence[str]) -> None:
    """Measure, and print a table with the goal beside what was measured."""
    from benchmarks.nginx import executable  # noqa: PLC0415 - as above

    parser = argparse.ArgumentParser("python -m benchmarks fanout", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each size")
    parser.add_argument(
        "--accounts",
        type=int,
        nargs="+",
        default=SIZES,
        help="sizes, the one to compare with first",
    )
    parser.add_argument("--asyncio", action="store_true", help="do without nginx")
    options = parser.parse_args(arguments)
    if not STATUS.exists():
        print(f"{STATUS}: not there, so this part is skipped (it needs Linux)")
        return
    answer, nginx = body(), executable() is not None and not options.asyncio
    runs = asyncio.run(measure(answer, options.accounts, options.rounds, nginx=nginx))

    server = "nginx" if nginx else "asyncio"
    print(f"{len(answer) / 1e3:.1f} kB from {server}, median of {options.rounds} rounds\n")
    print(f"{'accounts':>8}{'peak MB':>10}{'before':>9}{'seconds':>9}{'requests/s':>12}  outcomes")
    for size, each in runs.items():
        most, before, seconds = (
            statistics.median(values)
            for values in zip(*((one.peak, one.before, one.seconds) for one in each), strict=True)
        )
        outcomes = sum((Counter(one.outcomes) for one in each), Counter[str]())
        told = ", ".join(f"{count // len(each):,} {kind}" for kind, count in outcomes.items())
        print(
            f"{size:8,}{most / 1e6:10.1f}{before / 1e6:9.1f}{seconds:9.2f}{size / seconds:12,.0f}"
            f"  {told}"
        )
    base, *others = (statistics.median(one.peak for one in each) for each in runs.values())
    for size, most in zip(options.accounts[1:], others, strict=True):
        verdict = "met" if most <= GOAL * base else "MISSED"
        cost = (most - base) / (size - options.accounts[0])
        print(
            f"\n{size:,} over {options.accounts[0]:,}: {most / base:.3f}, goal <= {GOAL:.2f}"
            f"  {verdict}  ({cost:,.0f} bytes for each account more)"
        )
    print("\nbefore: resident at the most when the session was open and nothing asked yet")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], int(sys.argv[2])))))
