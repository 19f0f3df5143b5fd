"""The ordinary situations, in each of which pacing must do no worse than none.

A cell of the matrix is a number of clients, a limit, a demand and how it comes, a time that answers
take, and a share of requests that is refused for no reason. Each cell is played twice with the same
arrivals: as this library does, and as a client without a pacer does, whose calls each try again a
second after a refusal, with some chance in it. The tests and the benchmark both take it from here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.pacing.simulation import (
    SIGMA,
    Both,
    FixedWindow,
    LeakyBucket,
    Refuses,
    Report,
    Scenario,
    Server,
    SlotLimit,
    Way,
    run,
)
from tests.pacing.situations import Fixed

TIMEOUT = 10.0
"""Seconds that a call has."""

NETWORK = 0.04

CLIENTS = (1, 2, 4, 8)
LIMITS: dict[str, Callable[[], Server]] = {
    "bucket 20/s": lambda: LeakyBucket(20, 0),
    "bucket 20/s, burst 1": lambda: LeakyBucket(20, 1),
    "bucket 20/s, burst 5": lambda: LeakyBucket(20, 5),
    "bucket 20/s, burst 20": lambda: LeakyBucket(20, 20),
    "1 slot": lambda: SlotLimit(1),
    "4 slots": lambda: SlotLimit(4),
    "20 slots": lambda: SlotLimit(20),
    "20 in each second": lambda: FixedWindow(20, 1),
    "bucket 5/s": lambda: LeakyBucket(5, 0),
    "20/s, burst 5, and 4 slots": lambda: Both(LeakyBucket(20, 5), SlotLimit(4)),
}
DEMANDS = (0.2, 0.5, 0.9, 3.0)
BUNCHES = (1, 5)
SERVICES = (0.1, 0.5, 2.0)
STRAYS = (0.0, 0.01, 0.02)

NAIVE = Way(lambda: Fixed(10**6))
"""Each call for itself: again a second after a refusal, and up to a quarter of a second more."""


class Cell(NamedTuple):
    """One situation of the matrix: the demand is a share of the limit, `strays` of the requests."""

    clients: int
    limit: str
    demand: float
    bunch: int
    service: float
    strays: float

    def __str__(self) -> str:
        how = "Poisson" if self.bunch == 1 else f"by {self.bunch}"
        stray = f", {100 * self.strays:g} % strays" if self.strays else ""
        return f"{self.clients} on {self.limit}, {self.demand:g} x {how}, {self.service:g} s{stray}"


def cells() -> Iterator[Cell]:
    """Yield the whole matrix."""
    for clients in CLIENTS:
        for limit in LIMITS:
            for demand in DEMANDS:
                for bunch in BUNCHES:
                    for service in SERVICES:
                        for strays in STRAYS:
                            yield Cell(clients, limit, demand, bunch, service, strays)


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        answered: The share of the calls that were answered in time.
        p95: Seconds in which 95 % of those were answered.
        refused: The share of all answers that were 429.
    """

    answered: float
    p95: float
    refused: float


class Compared(NamedTuple):
    """Both outcomes in one cell."""

    ours: Outcome
    naive: Outcome

    def worse(self, demand: float) -> str:
        """Say in what pacing did worse than none; nothing if it did not."""
        ours, naive = self
        if ours.answered < naive.answered - 0.01:
            return "answered"
        if demand < 1 and ours.p95 > max(1.5 * naive.p95, naive.p95 + 1.0):
            return "p95"
        return ""


def compare(cell: Cell, seed: int, seconds: float = 60.0, way: Way | None = None) -> Compared:
    """Play a cell both ways."""
    return Compared(play(cell, seed, seconds, way or Way()), play(cell, seed, seconds, NAIVE))


def play(cell: Cell, seed: int, seconds: float, way: Way) -> Outcome:
    """Play a cell one way."""
    return measured(report(cell, seed, seconds, way))


def report(cell: Cell, seed: int, seconds: float, way: Way) -> Report:
    """Play a cell one way, and return what came of it."""
    trip = cell.service * math.exp(SIGMA * SIGMA / 2) + NETWORK
    capacity = LIMITS[cell.limit]().capacity(0.0, trip)
    stray = random.Random(seed)

    def server() -> Server:
        limit = LIMITS[cell.limit]()
        return Refuses(limit, lambda _: stray.random() < cell.strays) if cell.strays else limit

    scenario = Scenario(
        server,
        service=cell.service,
        network=NETWORK,
        begins=tuple(0.01 * number for number in range(cell.clients)),
        duration=seconds + TIMEOUT,
        demand=cell.demand * capacity / cell.clients,
        bunch=cell.bunch,
        timeout=TIMEOUT,
    )
    return run(scenario, seed, way)


def measured(report: Report) -> Outcome:
    """Return what came of a run, over all calls whose time was over."""
    end = report.scenario.duration - TIMEOUT
    took = sorted(call.took for client in report.clients for call in client.calls if call.at <= end)
    in_time = [each for each in took if each <= TIMEOUT]
    p95 = in_time[int(0.95 * len(in_time))] if in_time else math.inf
    share = len(in_time) / max(1, len(took))
    return Outcome(share, p95, report.refusal_share())
