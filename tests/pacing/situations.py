"""Servers with a limit that nobody published, by name, with what one would wish for each.

The tests and the benchmark both take them from here. `WAYS` has what others do in its place, in the
same simulator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from msgconv_async.pacing.recent import Start
from msgconv_async.pacing.schedule import Knob
from tests.pacing.simulation import (
    Both,
    FixedWindow,
    LeakyBucket,
    Scenario,
    SlotLimit,
    Way,
    between,
)

HALVED = between(40, 100, 0.5)
ONE, TWO, FOUR = (0.0,), (0.0, 0.5), (0.0, 0.5, 1.0, 1.5)
LATE = (0.0, 30.0)


@dataclass(frozen=True)
class Goals:
    """What one would wish for; a regain and a Jain index only where there is one to measure."""

    goodput: float = 0.95
    refused: float = 0.01
    regain: float = 5.0
    jain: float = 0.0


TWO_ALIKE, FOUR_ALIKE = Goals(jain=0.95), Goals(jain=0.9)


@dataclass(frozen=True)
class Situation:
    """A scenario and its goals, and why a goal is out of reach, if it is."""

    scenario: Scenario
    goals: Goals = Goals()
    bound: str = ""


SITUATIONS: dict[str, Situation] = {
    "bucket 50/s": Situation(Scenario(lambda: LeakyBucket(50, 5))),
    "bucket 50/s, answers 0.05 s": Situation(Scenario(lambda: LeakyBucket(50, 5), service=0.05)),
    "bucket 50/s, answers 1.5 s": Situation(Scenario(lambda: LeakyBucket(50, 5), service=1.5)),
    "bucket 500/s": Situation(Scenario(lambda: LeakyBucket(500, 20), service=0.1, duration=60)),
    "bucket 5/s": Situation(Scenario(lambda: LeakyBucket(5, 2))),
    "one every 2 s": Situation(
        Scenario(lambda: LeakyBucket(0.5, 1), duration=600),
        bound="1 % of 300 answers is 3 refusals; from 20/s, halving takes log2(40) = 5.3 cuts, and "
        "each cut follows a refusal",
    ),
    "4 slots": Situation(Scenario(lambda: SlotLimit(4))),
    "4 slots, answers 1.5 s": Situation(Scenario(lambda: SlotLimit(4), service=1.5)),
    "20 slots": Situation(Scenario(lambda: SlotLimit(20))),
    "20 slots, answers 1.5 s": Situation(Scenario(lambda: SlotLimit(20), service=1.5)),
    "100 slots, answers 0.5 s": Situation(
        Scenario(lambda: SlotLimit(100), service=0.5, duration=60)
    ),
    "50/s and 10 slots": Situation(Scenario(lambda: Both(LeakyBucket(50, 5), SlotLimit(10)))),
    "50 in each second": Situation(Scenario(lambda: FixedWindow(50, 1))),
    "50 in each second, answers 0.05 s": Situation(
        Scenario(lambda: FixedWindow(50, 1), service=0.05)
    ),
    "3,000 in each minute": Situation(
        Scenario(lambda: FixedWindow(3000, 60, phase=0.0), duration=300),
    ),
    "3,000 in each minute, announced": Situation(
        Scenario(lambda: FixedWindow(3000, 60, announce=True, phase=0.0), duration=300)
    ),
    "bucket 50/s halves": Situation(
        Scenario(lambda: LeakyBucket(50, 5, HALVED), duration=140, changes=(40, 100))
    ),
    "bucket 200/s halves": Situation(
        Scenario(lambda: LeakyBucket(200, 10, HALVED), duration=140, changes=(40, 100))
    ),
    "20 slots halve": Situation(
        Scenario(lambda: SlotLimit(20, HALVED), duration=140, changes=(40, 100))
    ),
    "8 slots halve, answers 1 s": Situation(
        Scenario(lambda: SlotLimit(8, HALVED), service=1.0, duration=140, changes=(40, 100)),
        bound="halved it answers 3.6/s, 18 in 5 s: a blind probe in each 5 s costs 1 in 18, 5 %",
    ),
    "50 in each second halves": Situation(
        Scenario(lambda: FixedWindow(50, 1, HALVED), duration=140, changes=(40, 100))
    ),
    "two on 100/s": Situation(Scenario(lambda: LeakyBucket(100, 10), begins=TWO), TWO_ALIKE),
    "two on 100/s, one late": Situation(
        Scenario(lambda: LeakyBucket(100, 10), begins=LATE), TWO_ALIKE
    ),
    "four on 100/s": Situation(Scenario(lambda: LeakyBucket(100, 10), begins=FOUR), FOUR_ALIKE),
    "two on 20 slots": Situation(Scenario(lambda: SlotLimit(20), begins=TWO), TWO_ALIKE),
    "two on 20 slots, one late": Situation(Scenario(lambda: SlotLimit(20), begins=LATE), TWO_ALIKE),
    "four on 40 slots": Situation(Scenario(lambda: SlotLimit(40), begins=FOUR), FOUR_ALIKE),
    "four on 8 slots": Situation(Scenario(lambda: SlotLimit(8), begins=FOUR), FOUR_ALIKE),
    "two on 3,000 a minute, halved": Situation(
        Scenario(
            lambda: LeakyBucket(50, 5, between(420, 480, 0.5)),
            begins=TWO,
            duration=900,
            changes=(420, 480),
        ),
        Goals(goodput=0.9, refused=0.0013, regain=8.0),
    ),
}


class Fixed:
    """So many at once, as fast as they come: no limit of one's own."""

    def __init__(self, concurrency: int = 100) -> None:
        self.rate = 1e6
        self.concurrency = concurrency
        self.paused_until = -math.inf

    def started(self, now: float, in_flight: int, held: Knob | None) -> Start:
        return Start(now, 0, in_flight, held)

    def answered(self, start: Start, now: float) -> None:
        pass

    def neutral(self, start: Start, now: float) -> None:
        pass

    def throttled(self, start: Start, now: float, retry_after: float | None) -> None:
        pass


class HalvingRate(Fixed):
    """AIMD: one more a second each second, half as many once a refusal tells of a new excess."""

    def __init__(self) -> None:
        super().__init__(1000)
        self.rate = 10.0
        self._cut_at = -math.inf

    def answered(self, start: Start, now: float) -> None:
        self.rate += 1.0 / self.rate

    def throttled(self, start: Start, now: float, retry_after: float | None) -> None:
        if start.at > self._cut_at:
            self._cut_at = now
            self.rate = max(0.1, self.rate / 2)


WAYS = {
    "adaptive": Way(),
    "retry after 1 s": Way(Fixed, sleeps=True),
    "backoff": Way(Fixed, lambda tries: min(30.0, 0.5 * 2.0**tries), sleeps=True),
    "AIMD x 0.5": Way(HalvingRate),
}
"""How a limit can be met: ours, and what is common (100 workers that sleep for a second, or for
one second, two, four ... after a refusal; and a rate that is halved)."""
