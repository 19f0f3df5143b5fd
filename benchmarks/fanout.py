"""How much memory `fetch_many` takes, for a thousand accounts and for ten thousand.

Each run is a process of its own that does nothing but ask: accounts are made as they are drawn, and
each outcome is dropped as soon as it is taken. Accounts bring a token, or client credentials that
are traded for one, which is held for as long as it is valid. The server (nginx, or a few lines of
asyncio where there is none) runs elsewhere and answers three hours of five-minute intervals, 20 kB,
to everybody.
What counts is the most memory that the client's process ever had resident (VmHWM of Linux), the
interpreter and all its modules included; the median over the rounds is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from msgconv_async import (
    Account,
    BearerToken,
    ClientCredentials,
    ConversationQuery,
    ConversationSession,
)

SIZES = (1_000, 10_000)
GOAL = 1.10  # the most that the larger size may take, in times the smaller one
BUCKET, INTERVALS = 5, 36  # minutes, and how many of them: 20 kB
QUERY = ConversationQuery(BUCKET * INTERVALS, interval=BUCKET)
STATUS = Path("/proc/self/status")
TOKEN = json.dumps({"access_token": "0123456789" * 50, "expires_in": 3600})  # as long as a JWT
SERVER = """
    server {{
        listen 127.0.0.1:{port};
        location / {{ open_file_cache max=9; {answer} }}
        location ~ /app/token$ {{ return 200 '{token}'; }}
    }}
"""
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

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


CLIENT = ClientCredentials("client", "secret")
CREDENTIALS: dict[str, Callable[[int], BearerToken | ClientCredentials]] = {
    "token": lambda number: BearerToken(f"token-of-{number}"),
    "client": lambda _: CLIENT,
}
"""What each account brings, by its number."""


def accounts(count: int, kind: str) -> Iterator[Account]:
    """Make accounts as they are drawn."""
    for number in range(10_000_001, 10_000_001 + count):
        yield Account(str(number), CREDENTIALS[kind](number))


async def ask(origin: str, count: int, kind: str) -> Run:
    """Ask so many accounts, and keep nothing but the number of outcomes."""
    outcomes = Counter[str]()
    async with ConversationSession(base_url=origin) as session:
        before, began = peak(), time.perf_counter()
        async with session.fetch_many(accounts(count, kind), QUERY) as results:
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
    """Answers every GET in one way and every POST in another, and keeps the connection."""

    def __init__(self, answer: bytes, token: bytes) -> None:
        self._answer = answer
        self._token = token
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note where to write."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._tail += data
        while b"\r\n\r\n" in self._tail:
            head, _, rest = self._tail.partition(b"\r\n\r\n")
            length = LENGTH.search(head)
            size = int(length[1]) if length else 0
            if len(rest) < size:
                return
            self._tail = rest[size:]
            self._transport.write(self._token if head.startswith(b"POST") else self._answer)


def whole(body: bytes) -> bytes:
    """Return a whole answer with this body."""
    return HEAD.format(length=len(body)).encode() + body


@contextlib.asynccontextmanager
async def serving(answer: bytes, *, nginx: bool) -> AsyncIterator[str]:
    """Serve the answer to everybody; yields the origin."""
    from benchmarks import nginx as with_nginx  # noqa: PLC0415 - as above

    if nginx:
        port = with_nginx.free_port()
        async with with_nginx.serving(answer, SERVER, port=port, token=TOKEN):
            await _listening(port)
            yield f"http://127.0.0.1:{port}"
    else:
        loop, answers = asyncio.get_running_loop(), (whole(answer), whole(TOKEN.encode()))
        async with await loop.create_server(lambda: Static(*answers), "127.0.0.1", 0) as server:
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


async def run(origin: str, count: int, kind: str) -> Run:
    """Ask so many accounts in a new process."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.fanout",
        origin,
        str(count),
        kind,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"the client's process ended with {child.returncode}")
    return Run(*json.loads(said))


async def measure(
    answer: bytes, sizes: Sequence[int], rounds: int, *, nginx: bool
) -> dict[tuple[str, int], list[Run]]:
    """Return the runs with each kind of credentials and of each size, taken in turn."""
    runs: dict[tuple[str, int], list[Run]] = {
        (kind, size): [] for kind in CREDENTIALS for size in sizes
    }
    async with serving(answer, nginx=nginx) as origin:
        for _ in range(rounds):
            for (kind, size), each in runs.items():
                each.append(await run(origin, size, kind))
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
    print(
        f"{'credentials':12}{'accounts':>8}{'peak MB':>10}{'before':>9}{'seconds':>9}"
        f"{'accounts/s':>12}  outcomes"
    )
    for (kind, size), each in runs.items():
        most, before, seconds = (
            statistics.median(values)
            for values in zip(*((one.peak, one.before, one.seconds) for one in each), strict=True)
        )
        outcomes = sum((Counter(one.outcomes) for one in each), Counter[str]())
        told = ", ".join(f"{count // len(each):,} {name}" for name, count in outcomes.items())
        print(
            f"{kind:12}{size:8,}{most / 1e6:10.1f}{before / 1e6:9.1f}{seconds:9.2f}"
            f"{size / seconds:12,.0f}  {told}"
        )
    print()
    first, *others = options.accounts
    for kind in CREDENTIALS:
        base = statistics.median(one.peak for one in runs[kind, first])
        for size in others:
            most = statistics.median(one.peak for one in runs[kind, size])
            verdict = "met" if most <= GOAL * base else "MISSED"
            cost = (most - base) / (size - first)
            print(
                f"{kind}: {size:,} over {first:,}: {most / base:.3f}, goal <= {GOAL:.2f}"
                f"  {verdict}  ({cost:,.0f} bytes for each account more)"
            )
    print("\nbefore: resident at the most when the session was open and nothing asked yet")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], int(sys.argv[2]), sys.argv[3]))))
