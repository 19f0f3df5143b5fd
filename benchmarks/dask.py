"""One worker process of Dask, and two: many accounts' day to sums by skill and agent.

Nginx serves every account the document of ``python -m benchmarks decode``: a day in five-minute
buckets, of ten skills and twenty agents. So the work is reading and decoding. Each cluster is a
`LocalCluster` of processes of one thread, warmed up by one account for each worker. Before, the
same is done in one process without Dask, and the sums must be equal to the last digit.

The server, the scheduler and the client need the processors as well, and the CPU seconds of each
are printed. Of two cores, two workers cannot have more than the others leave.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import psutil  # type: ignore[import-untyped]
import pyarrow as pa  # type: ignore[import-untyped]
from distributed import Client, LocalCluster

from benchmarks import nginx
from benchmarks.decode import document
from msgconv_async import Account, ConversationQuery, ConversationSession, read_accounts
from msgconv_async.export import METRICS
from msgconv_async.export.arrow import report_tables
from msgconv_async.export.dask import GROUP, read_metrics

DAY = ConversationQuery(1440, interval=5, skill_ids="all", agent_ids="all")
TABLE = "skill_agent_metrics"
KEY = ["skill_id", "agent_id"]
SUMMED = [name for name in METRICS if not name.startswith("avg_")]
FASTER = 1.7
"""Goal: times as fast with two workers."""

SERVER = """
    sendfile on;
    server {{ listen 127.0.0.1:{port}; location / {{ {answer} }} }}
"""
VARIABLE = "BENCHMARK_TOKEN"

Sums: TypeAlias = dict[tuple[int, ...], tuple[int, ...]]


class Run(NamedTuple):
    """One way to the sums: seconds, and the CPU seconds of workers, of nginx and of the rest."""

    seconds: float
    workers: float
    server: float
    rest: float


def accounts(count: int) -> list[Account]:
    """Return as many accounts, from a file that names a variable."""
    os.environ[VARIABLE] = "none"
    text = f'[credentials.main]\nkind = "bearer"\ntoken_env = "{VARIABLE}"\n'
    for number in range(count):
        text += f'[[accounts]]\nid = "{10_000_001 + number}"\ncredentials = "main"\n'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "accounts.toml"
        path.write_text(text, encoding="utf-8")
        return read_accounts(path)


# -- The two ways ---------------------------------------------------------------------------------


async def in_one_process(asked: Sequence[Account], origin: str) -> Sums:
    """Ask, decode and add up in this process."""
    tables = []
    async with (
        ConversationSession(base_url=origin) as session,
        session.fetch_many(asked, DAY, max_in_flight=GROUP) as outcomes,
    ):
        async for outcome in outcomes:
            if outcome.report is None:
                sys.exit(f"{outcome.error}")
            tables.append(report_tables(outcome.account.id, outcome.report)[TABLE])
    summed = pa.concat_tables(tables).group_by(KEY).aggregate([(each, "sum") for each in SUMMED])
    columns = [summed[name].to_pylist() for name in (*KEY, *(f"{each}_sum" for each in SUMMED))]
    return {row[:2]: row[2:] for row in zip(*columns, strict=True)}


def on_workers(asked: Sequence[Account], origin: str, partitions: int) -> Sums:
    """Let the workers of the present client do it."""
    frame = read_metrics(asked, DAY, TABLE, partitions=partitions, base_url=origin)
    summed = frame.groupby(KEY)[SUMMED].sum(split_out=1).compute()
    return {tuple(map(int, key)): tuple(map(int, row)) for key, row in summed.T.items()}


# -- The measurement ------------------------------------------------------------------------------


class Processes(NamedTuple):
    """The CPU seconds of processes up to a moment."""

    workers: float
    server: float
    own: float

    @classmethod
    def now(cls, workers: Sequence[int] = ()) -> Processes:
        """Read them."""
        children = psutil.Process().children(recursive=True)
        servers = [each.pid for each in children if each.name() == "nginx"]
        return cls(_spent(workers), _spent(servers), _spent([os.getpid()]))


def _spent(pids: Sequence[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(each.user + each.system for each in times))


@contextmanager
def cluster(workers: int) -> Iterator[list[int]]:
    """Start a cluster with warm workers, and yield their process ids."""
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as made,
        Client(made) as client,
    ):
        yield list(client.run(os.getpid).values())


def measure(workers: int, asked: Sequence[Account], origin: str, expected: Sums) -> Run:
    """Return what a cluster took, or end the program if it added up to anything else."""
    with cluster(workers) as pids:
        on_workers(asked[:workers], origin, workers)
        before, began = Processes.now(pids), time.perf_counter()
        summed = on_workers(asked, origin, len(asked) // GROUP * 2)
        seconds, after = time.perf_counter() - began, Processes.now(pids)
    if summed != expected:
        sys.exit(f"{workers} workers: not the sums of one process")
    spent = (late - early for early, late in zip(before, after, strict=True))
    return Run(seconds, *spent)


async def compare(count: int, rounds: int) -> None:
    """Print what each way took, and the goal beside it."""
    body, port = document(288), nginx.free_port()
    asked, origin = accounts(count), f"http://127.0.0.1:{port}"
    print(f"{count} accounts, {len(body) / 1e6:.1f} MB each, {os.cpu_count()} cores,", end=" ")
    print(f"which others gave a load of {os.getloadavg()[0]:.1f} before\n")
    print(f"{'':24}{'seconds':>9}{'CPU: workers':>14}{'nginx':>8}{'client, scheduler':>19}")
    async with nginx.serving(body, SERVER, port=port):
        await asyncio.sleep(1)
        before, began = Processes.now(), time.perf_counter()
        expected = await in_one_process(asked, origin)
        after, seconds = Processes.now(), time.perf_counter() - began
        alone = Run(seconds, 0, after.server - before.server, after.own - before.own)
        _print("one process, no Dask", alone)
        ratios, possible = [], []
        for _ in range(rounds):
            runs = {}
            for workers in (1, 2):
                runs[workers] = await asyncio.to_thread(measure, workers, asked, origin, expected)
                _print(f"{workers} worker{'s' if workers > 1 else ''}", runs[workers])
            ratios.append(runs[1].seconds / runs[2].seconds)
            possible.append(_possible(runs[1], runs[2]))
    ratio = statistics.median(ratios)
    verdict = "met" if ratio >= FASTER else "MISSED"
    print(f"\n{len(expected)} sums of {len(SUMMED)} metrics: equal to the last digit")
    print(f"2 workers: {ratio:.2f} times as fast as one; goal >= {FASTER}  {verdict}")
    print(f"by the CPU seconds, on cores that nobody else uses: {statistics.median(possible):.2f}")


def _possible(one: Run, two: Run) -> float:
    """Return the ratio if nothing but the CPU seconds counted: the longest of them, or all."""
    everybody = (two.workers + two.server + two.rest) / (os.cpu_count() or 1)
    return one.workers / max(two.workers / 2, everybody)


def _print(name: str, run: Run) -> None:
    print(
        f"{name:24}{run.seconds:9.1f}{run.workers:14.1f}{run.server:8.1f}{run.rest:19.1f}",
        flush=True,
    )


def main(arguments: Sequence[str]) -> None:
    """Measure, and print a table and the goal beside what was measured."""
    parser = argparse.ArgumentParser("python -m benchmarks dask", description=__doc__)
    parser.add_argument("--accounts", type=int, default=200, help="a multiple of ten")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of clusters")
    options = parser.parse_args(arguments)
    if nginx.executable() is None:
        print(nginx.MISSING)
        return
    asyncio.run(compare(options.accounts, options.rounds))
