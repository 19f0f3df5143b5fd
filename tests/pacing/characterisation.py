"""Every decision of the adaptive limit, as a digest: what a change must not change by accident.

A digest covers, of one run in simulation, each start (its instant, what was in flight, what it had
waited for) and each outcome, with the rate, the concurrency, the pause and the steered knob that
followed from it, to the last bit. Beside the situations with goals there are some that lead into
the rarer branches: outages, shedding, quotas, failures, little demand, fixed knobs.

`tests/pacing/decisions.json` holds the digests of several seeds. The suite compares the first seed;
``python -m tests.pacing.characterisation`` compares them all, and with ``--write`` keeps what it
finds: for a commit that means to change decisions, and says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import struct
import sys
from functools import partial
from pathlib import Path

from msgconv_async.pacing.adaptive import AdaptiveLimit
from msgconv_async.pacing.recent import Start
from msgconv_async.pacing.schedule import Knob
from tests.pacing.simulation import (
    FixedWindow,
    LeakyBucket,
    Refuses,
    Scenario,
    Server,
    SlotLimit,
    Way,
    run,
)
from tests.pacing.situations import SITUATIONS

PATH = Path(__file__).with_name("decisions.json")
SEEDS = range(1, 7)


def _outage(*times: tuple[float, float]) -> Server:
    return Refuses(LeakyBucket(50, 5), lambda now: any(begin <= now < end for begin, end in times))


def _shedding(server: Server) -> Server:
    chance = random.Random(1)
    return Refuses(server, lambda now: 60 <= now < 120 and chance.random() < 0.3)


SCENARIOS: dict[str, tuple[Scenario, Way]] = {
    name: (situation.scenario, Way()) for name, situation in SITUATIONS.items()
} | {
    "an outage of ten minutes": (
        Scenario(partial(_outage, (60, 660)), duration=760),
        Way(),
    ),
    "three short outages": (
        Scenario(partial(_outage, (100, 105), (112, 117), (124, 129)), duration=190),
        Way(),
    ),
    "a bucket sheds for a minute": (
        Scenario(lambda: _shedding(LeakyBucket(50, 5)), duration=240),
        Way(),
    ),
    "slots shed for a minute": (Scenario(lambda: _shedding(SlotLimit(20)), duration=240), Way()),
    "60 in each minute": (Scenario(lambda: FixedWindow(60, 60), duration=900), Way()),
    "200 in each minute, slots fixed": (
        Scenario(lambda: FixedWindow(200, 60), duration=900),
        Way(lambda: AdaptiveLimit(concurrency=(40, 40))),
    ),
    "600 in each minute, rate fixed": (
        Scenario(lambda: FixedWindow(600, 60), duration=600),
        Way(lambda: AdaptiveLimit(rate=(100.0, 100.0))),
    ),
    "8 slots, bounded": (
        Scenario(lambda: SlotLimit(8)),
        Way(lambda: AdaptiveLimit(rate=(8.0, 20.0), concurrency=(2, 12))),
    ),
    "a tenth fails": (Scenario(lambda: LeakyBucket(50, 5), failures=0.1), Way()),
    "demand of a fifth": (Scenario(lambda: LeakyBucket(20, 0), demand=4.0), Way()),
    "demand of nine tenths": (Scenario(lambda: LeakyBucket(20, 0), demand=18.0), Way()),
    "idle for an hour": (
        Scenario(lambda: LeakyBucket(50, 5), idle=(60.0, 3660.0), duration=3720),
        Way(),
    ),
}


class Recorded:
    """A limit whose every call, and what followed from it, goes into a digest."""

    def __init__(self, limit: AdaptiveLimit, digest: hashlib._Hash) -> None:
        self._limit = limit
        self._digest = digest

    @property
    def rate(self) -> float:
        return self._limit.rate

    @property
    def concurrency(self) -> int:
        return self._limit.concurrency

    @property
    def paused_until(self) -> float:
        return self._limit.paused_until

    def _note(self, call: str, start: Start, now: float) -> None:
        limit = self._limit
        told = struct.pack(
            "<ddddd", start.at, now, limit.rate, limit.concurrency, self.paused_until
        )
        words = f"{call} {start.seq} {start.in_flight} {start.held} {limit.steered}"
        self._digest.update(told + words.encode())

    def started(self, now: float, in_flight: int, held: Knob | None) -> Start:
        start = self._limit.started(now, in_flight, held)
        self._note("started", start, now)
        return start

    def answered(self, start: Start, now: float) -> None:
        self._limit.answered(start, now)
        self._note("answered", start, now)

    def neutral(self, start: Start, now: float) -> None:
        self._limit.neutral(start, now)
        self._note("neutral", start, now)

    def throttled(self, start: Start, now: float, retry_after: float | None) -> None:
        self._limit.throttled(start, now, retry_after)
        self._note(f"throttled {retry_after}", start, now)


def digest(name: str, seed: int) -> str:
    """The digest of all decisions in one run."""
    scenario, way = SCENARIOS[name]
    digest = hashlib.sha256()

    def recorded() -> Recorded:
        limit = way.limit()
        assert isinstance(limit, AdaptiveLimit)
        return Recorded(limit, digest)

    run(scenario, seed, Way(recorded, way.retry, way.sleeps))
    return digest.hexdigest()[:16]


def arithmetic() -> str:
    """The digest of what the mathematics library makes of some numbers.

    Decisions follow from logarithms and roots, whose last bit differs between libraries: digests
    from one are no use with another.
    """
    rng = random.Random(1)
    digest = hashlib.sha256()
    for _ in range(10_000):
        value = rng.lognormvariate(0.0, 1.0)
        parts = value, rng.expovariate(1.0), math.sqrt(value), math.log(value), math.exp(-value)
        digest.update(struct.pack("<ddddd", *parts))
    return digest.hexdigest()[:16]


def kept() -> dict[str, list[str]]:
    """The digests on file: by scenario, one for each seed."""
    digests: dict[str, list[str]] = json.loads(PATH.read_text())["decisions"]
    return digests


def same_arithmetic() -> bool:
    """Whether the digests on file were made with a mathematics library like this one."""
    return bool(json.loads(PATH.read_text())["arithmetic"] == arithmetic())


def main() -> None:
    """Compare, or write, the digests of all seeds."""
    parser = argparse.ArgumentParser("python -m tests.pacing.characterisation")
    parser.add_argument("--write", action="store_true", help="keep the decisions as they are now")
    options = parser.parse_args()
    now = {name: [digest(name, seed) for seed in SEEDS] for name in SCENARIOS}
    if options.write:
        document = {"arithmetic": arithmetic(), "decisions": now}
        PATH.write_text(json.dumps(document, indent=1) + "\n")
        return
    before = kept()
    changed = [name for name in SCENARIOS if now[name] != before.get(name)]
    sys.exit("decisions changed in: " + ", ".join(changed) if changed else 0)


if __name__ == "__main__":
    main()
