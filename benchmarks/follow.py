"""What following costs for each bucket: a thousand accounts, five thousand and ten thousand.

Each size is followed through a session, against the sandbox in a process of its own, and stored
after every item in a `CheckpointStore` on disk. Time runs faster than real for both, and that much
faster for fewer accounts that every size asks as often in a real second; what is measured is as
many rounds of five minutes as give the same number of buckets. The first round, in which accounts
log in and their rows are made, is not measured.
CPU is that of the follower's process alone. Bytes are those that it handed to the file system, and
those that went on to the disk, by Linux's account of the process. Memory is what is resident at
the end.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import msgspec

from benchmarks.soak import run
from msgconv_async import (
    Account,
    CheckpointStore,
    ClientCredentials,
    ClosedBucket,
    ConversationQuery,
    ConversationSession,
    Following,
    RetryPolicy,
)

SIZES = (1_000, 5_000, 10_000)
BUCKETS = 20_000  # measured of each size
RATE = 120.0  # buckets in a real second
GOAL = 1.20  # the most by which sizes may differ
ROUND = 300.0  # seconds
START = datetime(2026, 3, 4, 12, 2, tzinfo=UTC)
QUERY = ConversationQuery(5, skill_ids="all")
IO, STATUS = Path("/proc/self/io"), Path("/proc/self/status")


class Settings(msgspec.Struct):
    """What both processes know.

    Attributes:
        begun: When the run began, by CLOCK_MONOTONIC, which all processes share.
    """

    accounts: int
    buckets: int
    speed: float
    folder: str
    begun: float
    url: str = ""

    def now(self) -> datetime:
        """Return the time of day, which runs faster than real."""
        return START + timedelta(seconds=(time.monotonic() - self.begun) * self.speed)


class Cost(msgspec.Struct):
    """What the rounds took that were measured."""

    buckets: int
    failures: int
    cpu: float
    handed: int
    written: int
    resident: int
    whole: int


# -- The server ------------------------------------------------------------------------------------


async def serve(settings: Settings) -> None:
    """Serve until killed; the address is told on standard output."""
    from msgconv_async.sandbox import Sandbox, Synthetic  # noqa: PLC0415 - not for the follower

    events = Synthetic(1, skills=2, agents=2, groups=1, conversations_per_day=100)
    async with Sandbox(
        accounts=settings.accounts, events=events, clock=settings.now, token_lifetime=1e6
    ) as sandbox:
        print(sandbox.url, flush=True)
        await asyncio.Event().wait()


# -- The follower ----------------------------------------------------------------------------------


def field(file: Path, name: str) -> int:
    """Return a number that Linux tells of this process."""
    fields = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return int(fields[name].split()[0])


async def follow(settings: Settings) -> None:
    """Follow for the first round and those that are measured; tell what those took."""
    credentials = ClientCredentials("sandbox-client", "sandbox-secret")
    numbers = range(10_000_001, 10_000_001 + settings.accounts)
    accounts = [Account(str(number), credentials) for number in numbers]
    since = timedelta(minutes=20)
    retry = RetryPolicy(attempt_timeout=None)  # a real second is a minute here
    async with (
        CheckpointStore(Path(settings.folder) / "checkpoint.db") as store,
        ConversationSession(base_url=settings.url, retry=retry) as session,
        session.follow(accounts, QUERY, since=since, timeout=None, clock=settings.now) as closed,
    ):
        await take(closed, store, ROUND + 30)
        cpu, handed, written = (
            time.process_time(),
            field(IO, "wchar"),
            field(IO, "write_bytes"),
        )
        buckets, failures = await take(closed, store, settings.buckets / settings.accounts * ROUND)
        cost = Cost(
            buckets=buckets,
            failures=failures,
            cpu=time.process_time() - cpu,
            handed=field(IO, "wchar") - handed,
            written=field(IO, "write_bytes") - written,
            resident=field(STATUS, "VmRSS") * 1024,
            whole=len(closed.checkpoint.to_json()),
        )
    print(msgspec.json.encode(cost).decode())


async def take(closed: Following, store: CheckpointStore, seconds: float) -> tuple[int, int]:
    """Take and store what comes for so long; return how many buckets and failures that was."""
    buckets = failures = 0
    with anyio.move_on_after(seconds):
        async for item in closed:
            if isinstance(item, ClosedBucket):
                buckets += 1
            else:
                failures += 1
            await store.save(closed)
    return buckets, failures


# -- The measurement -------------------------------------------------------------------------------


@contextmanager
def process(role: str, settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Run one of the two in a new process, and end it."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.follow",
        role,
        msgspec.json.encode(settings).decode(),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:  # noqa: S603 - this module
        try:
            yield started
        finally:
            started.kill()


def measure(accounts: int, buckets: int, folder: Path) -> Cost:
    """Follow so many accounts."""
    speed = RATE * ROUND / accounts
    settings = Settings(accounts, buckets, speed, str(folder), time.monotonic())
    with process("serve", settings) as server:
        assert server.stdout is not None  # noqa: S101 - for the type checker
        settings.url = server.stdout.readline().strip()
        with process("follow", settings) as follower:
            said, _ = follower.communicate()
            if follower.returncode:
                raise RuntimeError(f"the follower's process ended with {follower.returncode}")
    return msgspec.json.decode(said, type=Cost)


def main(arguments: Sequence[str]) -> None:
    """Measure, and print a table with the goal beside what was measured."""
    parser = argparse.ArgumentParser("python -m benchmarks follow", description=__doc__)
    parser.add_argument("--accounts", type=int, nargs="+", default=SIZES, help="sizes")
    parser.add_argument("--buckets", type=int, default=BUCKETS, help="measured of each size")
    parser.add_argument("--folder", type=Path, help="where the stores are, on the disk to measure")
    options = parser.parse_args(arguments)
    if not IO.exists():
        print(f"{IO}: not there, so this part is skipped (it needs Linux)")
        return
    costs: dict[int, Cost] = {}
    print(f"each item stored by itself, {RATE:.0f} buckets in a real second\n")
    print(
        f"{'accounts':>8}{'buckets':>9}{'others':>8}{'CPU ms':>9}{'bytes':>8}{'to disk':>9}"
        f"{'resident MB':>13}{'whole checkpoint':>18}"
    )
    for size in options.accounts:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            costs[size] = cost = measure(size, options.buckets, Path(folder))
        print(
            f"{size:8,}{cost.buckets:9,}{cost.failures:8,}{cost.cpu / cost.buckets * 1e3:9.2f}"
            f"{cost.handed / cost.buckets:8,.0f}{cost.written / cost.buckets:9,.0f}"
            f"{cost.resident / 1e6:13.1f}{cost.whole:18,}",
            flush=True,
        )
    print("\nCPU, bytes handed to the file system and bytes to the disk are for each bucket\n")
    judge(costs)


def judge(costs: dict[int, Cost]) -> None:
    """Print how far the sizes are apart, and what an account takes in memory."""
    for what, figures in {
        "CPU": [cost.cpu / cost.buckets for cost in costs.values()],
        "bytes": [cost.handed / cost.buckets for cost in costs.values()],
        "bytes to disk": [cost.written / cost.buckets for cost in costs.values()],
    }.items():
        apart = max(figures) / max(min(figures), 1e-9)
        verdict = "met" if apart <= GOAL else "MISSED"
        print(f"{what}: the most over the least {apart:.3f}, goal <= {GOAL:.2f}  {verdict}")
    (few, one), *_, (many, other) = costs.items()
    if many > few:
        print(f"memory: {(other.resident - one.resident) / (many - few):,.0f} bytes an account")


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[2], type=Settings)
    if sys.argv[1] == "serve":
        asyncio.run(serve(given))
    else:
        run(follow(given), given.speed)
