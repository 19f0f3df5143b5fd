"""How much of the rate asked for is delivered, in what order, at what cost.

Each contender paces the same waiters, all queued at once, in turn in one process: smooth starts,
no burst. Delivered is (starts - 1) / (last start - first start) over the rate asked for; an
inversion is a caller who starts before one who came earlier.
"""

from __future__ import annotations

import asyncio
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import NamedTuple

from aiolimiter import AsyncLimiter
from throttled.asyncio import MemoryStore, Throttled, per_sec

from msgconv_async.pacing.concurrency import ConcurrencyLimit
from msgconv_async.pacing.queue import Queue
from msgconv_async.pacing.schedule import Schedule
from msgconv_async.pacing.token_bucket import TokenBucket

LOADS = ((200, 2000), (1000, 5000), (2000, 10_000))
"""Starts per second asked for, and waiters."""

Acquire = Callable[[], Awaitable[object]]


class Delivered(NamedTuple):
    """What one contender made of one load."""

    percent: float
    inversions: int
    cpu: float


def token_bucket(rate: int) -> Acquire:
    """Return this library's way."""
    return Queue(Schedule(TokenBucket(rate), ConcurrencyLimit())).acquire


def aiolimiter(rate: int) -> Acquire:
    """Return aiolimiter's, without a burst."""
    return AsyncLimiter(1, 1 / rate).acquire


def throttled_py(rate: int) -> Acquire:
    """Return throttled-py's, without a burst."""
    limiter = Throttled(
        key="key", using="gcra", quota=per_sec(rate, burst=1), store=MemoryStore(), timeout=600
    )
    return lambda: limiter.limit("key")


CONTENDERS: dict[str, Callable[[int], Acquire]] = {
    "msgconv_async TokenBucket": token_bucket,
    "aiolimiter": aiolimiter,
    "throttled-py": throttled_py,
}


async def deliver(acquire: Acquire, rate: int, waiters: int) -> Delivered:
    """Pace so many waiters and say what came of it."""
    starts: list[tuple[float, int]] = []

    async def caller(number: int) -> None:
        await acquire()
        starts.append((time.perf_counter(), number))

    cpu = time.process_time()
    await asyncio.gather(*map(caller, range(waiters)))
    cpu = time.process_time() - cpu
    took = starts[-1][0] - starts[0][0]
    inversions = sum(a[1] > b[1] for a, b in pairwise(starts))
    return Delivered(100 * (waiters - 1) / took / rate, inversions, cpu)


async def free_acquisition() -> float:
    """Return the median nanoseconds of an acquisition that need not wait."""
    queue = Queue(Schedule(TokenBucket(1e9, 1e9), ConcurrencyLimit(10**9)))
    rounds = []
    for _ in range(200):
        began = time.perf_counter_ns()
        for _ in range(1000):
            await queue.acquire()
        rounds.append((time.perf_counter_ns() - began) / 1000)
    return statistics.median(rounds)


async def waiter_bytes(waiters: int = 10_000) -> float:
    """Return what a waiter weighs in bytes, its task apart."""

    async def weigh(wait: Acquire) -> float:
        tracemalloc.start()
        tasks = [asyncio.ensure_future(wait()) for _ in range(waiters)]
        await asyncio.sleep(0)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return size / waiters

    queue = Queue(Schedule(TokenBucket(0.001), ConcurrencyLimit()))
    await queue.acquire()
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task_alone = await weigh(lambda: asyncio.shield(never))
    never.cancel()
    return await weigh(queue.acquire) - task_alone


async def measure() -> dict[tuple[str, int], Delivered]:
    """Run every contender under every load, print as it goes, and return the figures."""
    results = {}
    print(f"{'delivered of the rate asked for':34} rate   waiters  delivered  inversions  CPU s")
    for rate, waiters in LOADS:
        for name, make in CONTENDERS.items():
            one = results[name, rate] = await deliver(make(rate), rate, waiters)
            print(
                f"{name:34} {rate:>5}/s {waiters:>6} {one.percent:>9.2f} %"
                f" {one.inversions:>11} {one.cpu:>6.2f}",
                flush=True,
            )
    print(f"an acquisition that need not wait: {await free_acquisition():.0f} ns (median)")
    print(f"a waiter weighs {await waiter_bytes():.0f} bytes, its task apart")
    return results
