"""What collecting takes: a first round of 24 hours, and one of five minutes after it.

A collector in a process of its own asks the sandbox in another, and loads into PostgreSQL, started
for this (Debian's package; it does not wait for the disk). Both rounds are of one process, as
`msgconv collect` runs on, and nothing is spread over time, as with ``--once``. An account has 6
skills, 12 agents and 250 conversations a day, and skills and agents are told apart: two requests.

Seconds are those until the last answer was taken, and of the whole round. CPU and memory are the
collector's; memory is the most that was resident during the round. The database's bytes are those
of its log, and those of the tables with their keys after the round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec
import psycopg2

from tests.export.postgres import postgres

SIZES = (500, 1_000, 2_000)
ROUNDS = ("first", "next")
GOAL = 1.10  # the most by which the peak may grow from the fewest to the most accounts
NOON = datetime(2026, 3, 4, 12, 2, tzinfo=UTC)
STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost(msgspec.Struct):
    """What a round took of the collector.

    Attributes:
        turns: Accounts that were asked.
        failures: What those of them were told that failed.
        asked: Seconds until the last answer was taken.
        seconds: Of the whole round.
        cpu: Seconds.
        before: Bytes that were resident before the round.
        peak: Bytes that were resident at the most.
    """

    turns: int
    failures: list[str]
    rows: int
    asked: float
    seconds: float
    cpu: float
    before: int
    peak: int


class Database(msgspec.Struct):
    """Bytes, of the log so far and of the tables."""

    log: int
    tables: int


# -- The server ------------------------------------------------------------------------------------


async def serve(accounts: int) -> None:
    """Serve; for each line, tell how many requests there were, and let a bucket close."""
    from msgconv_async.protocol.buckets import BUCKET  # noqa: PLC0415 - not for the parent
    from msgconv_async.sandbox import Clock, Sandbox, Synthetic  # noqa: PLC0415

    events, clock = Synthetic(skills=6, agents=12, conversations_per_day=250), Clock(NOON)
    async with Sandbox(accounts=accounts, events=events, clock=clock) as sandbox:
        print(sandbox.url, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(sum(sandbox.requests.values()), flush=True)
            clock.advance(0.9 * BUCKET)  # further at once, and no client would believe it


# -- The collector ---------------------------------------------------------------------------------


def resident(name: str) -> int:
    """Return bytes, as Linux tells of this process."""
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(fields[name].split()[0]) * 1024


def collect(url: str, numbers: Sequence[int]) -> None:
    """Collect a round for each line that comes, and tell what it took."""
    from msgconv_async import Account, ClientCredentials, ConversationSession  # noqa: PLC0415
    from msgconv_async.export.destination import destination, set_defaults  # noqa: PLC0415
    from msgconv_async.export.pipeline import (  # noqa: PLC0415
        Batch,
        Emptied,
        Reader,
        conversation_metrics,
    )
    from msgconv_async.export.store import Store  # noqa: PLC0415

    set_defaults()
    store = Store(destination("postgres"))
    credentials = ClientCredentials("sandbox-client", "sandbox-secret")
    accounts = [Account(str(number), credentials) for number in numbers]
    with Reader(lambda: ConversationSession(base_url=url)) as reader:
        for _ in sys.stdin:
            PEAK.write_text("5")  # the peak begins anew
            cost = Cost(0, [], 0, 0.0, 0.0, -time.process_time(), resident("VmRSS"), 0)
            begun, emptied = time.monotonic(), list[Emptied]()

            def watch(batch: Batch, cost: Cost = cost, begun: float = begun) -> None:
                cost.turns += batch.turns
                cost.failures += [str(failure.error) for failure in batch.failures]
                cost.rows += batch.rows
                cost.asked = time.monotonic() - begun

            store.load(conversation_metrics(accounts, reader=reader, watch=watch), emptied)
            cost.seconds = time.monotonic() - begun
            cost.cpu += time.process_time()
            cost.peak = resident("VmHWM")
            print(msgspec.json.encode(cost).decode(), flush=True)


# -- The measurement -------------------------------------------------------------------------------


class Talking:
    """A process of this module that answers each line with a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._to, self._from = _there(process.stdin), _there(process.stdout)

    def heard(self) -> str:
        """Wait for a line."""
        if not (line := self._from.readline()):
            raise RuntimeError("a process ended before its time")
        return line

    def asked(self) -> str:
        """Send a line and wait for another."""
        print(file=self._to, flush=True)
        return self.heard()


def _there(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # noqa: S101 - for the type checker
    return stream


@contextmanager
def process(*arguments: object, **settings: str) -> Iterator[Talking]:
    """Run one of the two in a new process, and end it."""
    command = [sys.executable, "-m", "benchmarks.collect", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - this module
        command, stdin=pipe, stdout=pipe, text=True, env=os.environ | settings
    ) as started:
        try:
            yield Talking(started)
        finally:
            started.kill()


def database(address: str) -> Database:
    """Look at the database."""
    with closing(psycopg2.connect(address)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_current_wal_insert_lsn() - '0/0',"
            " coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = to_regnamespace('conversations')"
        )
        ((log, tables),) = cursor.fetchall()
    return Database(int(log), int(tables))


def measure(accounts: int) -> Iterator[tuple[str, Cost, int, Database]]:
    """Collect the rounds of so many accounts; yield what each took, its requests and its bytes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres() as address,
        process("serve", accounts) as server,
        process(
            "collect",
            server.heard().strip(),
            accounts,
            DLT_DATA_DIR=folder,
            DESTINATION__POSTGRES__CREDENTIALS=address,
        ) as collector,
    ):
        requests, log = 0, database(address).log
        for name in ROUNDS:
            cost = msgspec.json.decode(collector.asked(), type=Cost)
            now = database(address)
            requests, until = int(server.asked()), requests
            yield name, cost, requests - until, Database(now.log - log, now.tables)
            log = now.log


def main(arguments: Sequence[str]) -> None:
    """Measure, and print a table with the goal beside what was measured."""
    parser = argparse.ArgumentParser("python -m benchmarks collect", description=__doc__)
    parser.add_argument("--accounts", type=int, nargs="+", default=SIZES, help="sizes")
    options = parser.parse_args(arguments)
    if not PEAK.exists():
        print(f"{PEAK}: not there, so this part is skipped (it needs Linux)")
        return
    print(
        f"{'accounts':>8} {'round':6}{'failed':>7}{'requests':>10}{'rows':>11}{'asked s':>9}"
        f"{'round s':>9}{'rows/s':>8}{'CPU s':>8}{'before MB':>11}{'peak MB':>9}"
        f"{'log MB':>8}{'tables MB':>11}"
    )
    peaks: dict[str, dict[int, int]] = {name: {} for name in ROUNDS}
    for size in options.accounts:
        for name, cost, requests, stored in measure(size):
            peaks[name][size] = cost.peak
            print(
                f"{size:8,} {name:6}{len(cost.failures):7,}{requests:10,}{cost.rows:11,}"
                f"{cost.asked:9.1f}{cost.seconds:9.1f}{cost.rows / cost.seconds:8,.0f}"
                f"{cost.cpu:8.1f}{cost.before / 1e6:11.1f}{cost.peak / 1e6:9.1f}"
                f"{stored.log / 1e6:8.1f}{stored.tables / 1e6:11.1f}",
                flush=True,
            )
            for failure in sorted(set(cost.failures))[:2]:
                print(f"         such as {failure}")
    print()
    for name, sizes in peaks.items():
        few, many = min(sizes), max(sizes)
        grown = sizes[many] / sizes[few]
        print(
            f"{name} round: the peak of {many:,} over that of {few:,} accounts {grown:.3f},"
            f" goal <= {GOAL:.2f}  {'met' if grown <= GOAL else 'MISSED'}"
            f"  ({(sizes[many] - sizes[few]) / max(1, many - few):,.0f} bytes an account more)"
        )


if __name__ == "__main__":
    role, *given = sys.argv[1:]
    if role == "serve":
        asyncio.run(serve(int(given[0])))
    else:
        collect(given[0], range(10_000_001, 10_000_001 + int(given[1])))
