"""The simulated client is the real one: on the same server they do the same, request by request.

Chance and the timer's grid are taken out of the simulation, and the real `Pacer` runs in virtual
time, so that the two can be compared. What is left between them is rounding.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import NamedTuple

import pytest

from msgconv_async.pacing.adaptive import AdaptiveLimit
from msgconv_async.pacing.pacer import Ending, Pacer
from msgconv_async.pacing.recent import Start
from msgconv_async.pacing.schedule import Knob
from tests.pacing import simulation
from tests.pacing.simulation import (
    Both,
    FixedWindow,
    LeakyBucket,
    Refuses,
    Scenario,
    SlotLimit,
    Way,
    run,
)
from tests.pacing.virtual import run_virtual

NETWORK, SERVICE = 0.0412345, 0.3012345  # seconds: no multiple of anything, or ties would decide


class Decision(NamedTuple):
    """One request: when it started, what held it, what came of it, and what was then believed."""

    at: float
    held: Knob | None
    outcome: Ending
    rate: float
    concurrency: int
    paused_until: float


class NoChance(random.Random):
    """Every delay is its median; only arrivals are still spread, as the seed says."""

    def random(self) -> float:
        return 0.5

    def lognormvariate(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        return math.exp(mu)


class Arrivals(NoChance):
    """`NoChance`, but for the gaps between arrivals."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._gaps = random.Random(seed)

    def expovariate(self, lambd: float = 1.0) -> float:
        return self._gaps.expovariate(lambd)


class Watched(AdaptiveLimit):
    """A limit that keeps what it decided."""

    __slots__ = ("decisions",)

    def __init__(self) -> None:
        super().__init__()
        self.decisions: list[Decision] = []

    def _keep(self, start: Start, outcome: Ending) -> None:
        state = self.rate, self.concurrency, self.paused_until
        self.decisions.append(Decision(start.at, start.held, outcome, *state))

    def answered(self, start: Start, now: float) -> None:
        super().answered(start, now)
        self._keep(start, "answered")

    def throttled(self, start: Start, now: float, retry_after: float | None) -> None:
        super().throttled(start, now, retry_after)
        self._keep(start, "throttled")


def simulated(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> list[Decision]:
    monkeypatch.setattr(simulation, "TIMER_GRID", 1e-10)
    limit = Watched()
    run(scenario, 1, Way(lambda: limit), Arrivals(1))
    return limit.decisions


async def _real(scenario: Scenario) -> list[Decision]:
    """The same as `simulation.Client`, with tasks: one waits at any time, and one more for each."""
    loop, server, pacer = asyncio.get_running_loop(), scenario.server(), Pacer()
    pacer._limit = limit = Watched()
    one_way = scenario.network / 2
    tasks: set[asyncio.Task[None]] = set()

    def begin(tries: int) -> None:
        task = loop.create_task(request(tries))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def request(tries: int) -> None:
        start = pacer.start_at_once() or await pacer.start_in_turn(again=tries > 0)
        if scenario.demand is None and not tries:
            begin(0)
        await asyncio.sleep(one_way)
        taken = server.offer(loop.time())
        if taken:
            await asyncio.sleep(scenario.service)
            server.release()
            await asyncio.sleep(one_way)
            pacer.finish(start, "answered", None)
            return
        wait = server.retry_after(loop.time())
        await asyncio.sleep(0.0005 + one_way)
        pacer.finish(start, "throttled", wait)
        await asyncio.sleep(max(1.0, wait or 0.0) + 0.125)
        begin(tries + 1)

    async def arrive(demand: float) -> None:
        gaps, at = Arrivals(1), 0.0
        while True:
            begin(0)
            at += gaps.expovariate(demand)
            await asyncio.sleep(at - loop.time())

    if scenario.demand is None:
        begin(0)
    else:
        tasks.add(loop.create_task(arrive(scenario.demand)))
    await asyncio.sleep(scenario.duration)
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return limit.decisions


def _shed() -> Refuses:
    count = iter(range(10**9))
    return Refuses(SlotLimit(20), lambda now: 10 <= now < 20 and next(count) % 4 == 0)


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(lambda: LeakyBucket(50, 5)),
        Scenario(lambda: LeakyBucket(50, 0)),
        Scenario(lambda: SlotLimit(20)),
        Scenario(lambda: Both(LeakyBucket(50, 5), SlotLimit(10))),
        Scenario(lambda: FixedWindow(50, 1)),
        Scenario(lambda: FixedWindow(200, 8, announce=True)),
        Scenario(lambda: FixedWindow(200, 8)),
        Scenario(_shed),
        Scenario(lambda: LeakyBucket(20, 0), demand=18.0),
        Scenario(lambda: LeakyBucket(20, 0), demand=4.0),
    ],
    ids=[
        "bucket",
        "without burst",
        "slots",
        "both",
        "window",
        "announced outages",
        "outages",
        "shedding",
        "demand just below the limit",
        "little demand",
    ],
)
def test_the_simulated_client_does_as_the_real_one(
    monkeypatch: pytest.MonkeyPatch, scenario: Scenario
) -> None:
    """For half a minute: the same starts, held by the same, with the same outcomes and beliefs."""
    scenario.network, scenario.service, scenario.duration = NETWORK, SERVICE, 30.0
    told, real = simulated(scenario, monkeypatch), run_virtual(_real(scenario))
    assert [one[1:3] for one in told] == [one[1:3] for one in real]
    for one, other in zip(told, real, strict=True):
        assert math.isclose(one.at, other.at, abs_tol=1e-5)
        assert math.isclose(one.rate, other.rate, rel_tol=1e-4)
        assert one.concurrency == other.concurrency
        assert math.isclose(one.paused_until, other.paused_until, abs_tol=1e-5)
