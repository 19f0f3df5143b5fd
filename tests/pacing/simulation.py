"""A deterministic simulation, in virtual time, of clients that share a server with a limit.

Nothing sleeps and nothing is threaded: a heap of events, a seeded generator, and the pacer's rules.
A `Server` decides at once whether a request is answered or refused (429); `Client` is the pacer
without an event loop: its own `Schedule`, a queue that only counts, retries after a second or more,
and the algorithm under test; `run` plays a `Scenario` and returns a `Report`.

What is modelled because it decides results: the network (a refusal comes back after one round trip,
an answer after the service time as well), service times that vary (log-normal), timers that fire on
a grid of about a millisecond and therefore release together whatever is due, and a server clock of
whole milliseconds (as nginx has). `test_parity` holds it to the real `Pacer` on an event loop.

Where a scenario has a demand, each arrival is a call. With a timeout, a call ends as those of a
session do: at once if its turn, or its next try, would come too late; or when its time is over.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from msgconv_async.pacing.adaptive import AdaptiveLimit
from msgconv_async.pacing.concurrency import ConcurrencyLimit
from msgconv_async.pacing.recent import Start
from msgconv_async.pacing.schedule import Knob, Schedule
from msgconv_async.pacing.token_bucket import TokenBucket

Scale = Callable[[float], float]
"""The share of the limit in force at an instant (1.0: all of it)."""

SIGMA = 0.4  # spread of the log-normal service times
TIMER_GRID = 0.001  # seconds: what an asyncio timer resolves


def steady(_: float) -> float:
    """The limit does not change."""
    return 1.0


def between(start: float, end: float, share: float) -> Scale:
    """The limit is `share` of itself from `start` to `end` (seconds)."""
    return lambda now: share if start <= now < end else 1.0


class Server(Protocol):
    """A server that answers or refuses."""

    def offer(self, now: float) -> bool:
        """Whether a request that arrives now is answered (False: 429)."""

    def release(self) -> None:
        """An answered request has left."""

    def capacity(self, now: float, round_trip: float) -> float:
        """The most requests a second that can be answered, when each takes `round_trip`."""

    def retry_after(self, now: float) -> float | None:
        """The Retry-After of a refusal now, in seconds."""


@dataclass
class LeakyBucket:
    """nginx limit_req: `rate` a second, `burst` above it, no delay."""

    rate: float
    burst: float
    scale: Scale = steady
    excess: float = 0.0
    last: float = -1.0

    def offer(self, now: float) -> bool:
        now = math.floor(now * 1000) / 1000
        excess = 0.0
        if self.last >= 0:
            drained = self.rate * self.scale(now) * (now - self.last)
            excess = max(0.0, self.excess - drained + 1.0)
        if excess > self.burst + 1e-9:
            return False
        self.excess, self.last = excess, now
        return True

    def release(self) -> None:
        pass

    def capacity(self, now: float, round_trip: float) -> float:
        return self.rate * self.scale(now)

    def retry_after(self, now: float) -> float | None:
        return None


@dataclass
class SlotLimit:
    """nginx limit_conn: `slots` requests at once."""

    slots: int
    scale: Scale = steady
    busy: int = 0

    def offer(self, now: float) -> bool:
        if self.busy >= math.floor(self.slots * self.scale(now) + 1e-9):
            return False
        self.busy += 1
        return True

    def release(self) -> None:
        self.busy -= 1

    def capacity(self, now: float, round_trip: float) -> float:
        return math.floor(self.slots * self.scale(now) + 1e-9) / round_trip

    def retry_after(self, now: float) -> float | None:
        return None


@dataclass
class FixedWindow:
    """`quota` requests in each `period` seconds; everything else is refused until it turns."""

    quota: int
    period: float
    scale: Scale = steady
    announce: bool = False
    phase: float = 0.37
    window: int = -1
    used: int = 0

    def offer(self, now: float) -> bool:
        window = int(now / self.period + self.phase)
        if window != self.window:
            self.window, self.used = window, 0
        if self.used >= self.quota * self.scale(now):
            return False
        self.used += 1
        return True

    def release(self) -> None:
        pass

    def capacity(self, now: float, round_trip: float) -> float:
        return self.quota / self.period * self.scale(now)

    def retry_after(self, now: float) -> float | None:
        if not self.announce:
            return None
        return float(math.ceil((1.0 - (now / self.period + self.phase) % 1.0) * self.period))


@dataclass
class Both:
    """A bucket and a slot limit on one server."""

    bucket: LeakyBucket
    slots: SlotLimit

    def offer(self, now: float) -> bool:
        if self.slots.busy >= self.slots.slots or not self.bucket.offer(now):
            return False
        return self.slots.offer(now)

    def release(self) -> None:
        self.slots.release()

    def capacity(self, now: float, round_trip: float) -> float:
        return min(self.bucket.capacity(now, round_trip), self.slots.capacity(now, round_trip))

    def retry_after(self, now: float) -> float | None:
        return None


@dataclass
class Refuses:
    """A server that refuses everything at times, whatever the limit."""

    server: Server
    at: Callable[[float], bool]

    def offer(self, now: float) -> bool:
        return not self.at(now) and self.server.offer(now)

    def release(self) -> None:
        self.server.release()

    def capacity(self, now: float, round_trip: float) -> float:
        return self.server.capacity(now, round_trip)

    def retry_after(self, now: float) -> float | None:
        return self.server.retry_after(now)


class Limit(Protocol):
    """What a client asks and tells: `AdaptiveLimit`, or another way to go about it."""

    @property
    def rate(self) -> float: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def paused_until(self) -> float: ...

    def started(self, now: float, in_flight: int, held: Knob | None) -> Start: ...
    def answered(self, start: Start, now: float) -> None: ...
    def neutral(self, start: Start, now: float) -> None: ...
    def throttled(self, start: Start, now: float, retry_after: float | None) -> None: ...


@dataclass(frozen=True)
class Way:
    """A way to meet an unknown limit.

    `retry` says after how many seconds a request refused that many times is sent again (a quarter
    of a second of chance is added); with `sleeps`, it keeps its place in flight until then.
    """

    limit: Callable[[], Limit] = AdaptiveLimit
    retry: Callable[[int], float] = lambda _: 1.0
    sleeps: bool = False


class World:
    """Virtual time and its events."""

    def __init__(self, rng: random.Random) -> None:
        self.now = 0.0
        self.rng = rng
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Does `action` at `when` (not before now)."""
        self._order += 1
        heapq.heappush(self._events, (max(when, self.now), self._order, action))

    def run(self, until: float) -> None:
        """Plays all events up to `until`."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, action = heapq.heappop(events)
            action()
        self.now = until


@dataclass(slots=True)
class Call:
    """One call of a client: when it came, how often it was refused, and how long it took."""

    at: float
    refused: int = 0
    took: float = math.inf


class Client:
    """The pacer's rules around one limit; work never ends unless the scenario says so."""

    def __init__(
        self, world: World, server: Server, scenario: Scenario, way: Way, begins: float
    ) -> None:
        self.world, self.server, self.limit = world, server, way.limit()
        self._scenario, self._way, self._mu = scenario, way, math.log(scenario.service)
        self._slots = ConcurrencyLimit(self.limit.concurrency)
        self._schedule = Schedule(TokenBucket(self.limit.rate), self._slots)
        self._arrived: deque[Call] = deque()
        self._retries: deque[Call] = deque()
        self._timer = math.inf  # when it fires
        self.answers: list[float] = []
        self.refusals: list[float] = []
        self.calls: list[Call] = []
        world.at(begins, self._arrive if scenario.demand else self._pump)

    def _arrive(self) -> None:
        now, scenario = self.world.now, self._scenario
        gap = self.world.rng.expovariate((scenario.demand or 1.0) / scenario.bunch)
        self.world.at(now + gap, self._arrive)
        for _ in range(scenario.bunch):
            call = Call(now)
            self.calls.append(call)
            if self._is_in_time(call, len(self._arrived) + len(self._retries)):
                self._arrived.append(call)
            self._pump()

    def _is_in_time(self, call: Call, before: int, pause: float = 0.0) -> bool:
        """Tell whether a call's turn, after so many others, would come in time for an answer."""
        known = getattr(self.limit, "known", None)
        left = call.at + self._scenario.timeout - self.world.now
        if left == math.inf or known is None:
            return pause < left
        wait = self._schedule.eta(self.world.now, before + 1, known())
        return not wait or max(wait, pause) + self._slots.holding <= left

    def _give_up(self) -> None:
        """Let those go whose time would be over before an answer."""
        holding = self._slots.holding if hasattr(self.limit, "known") else 0.0
        oldest = self.world.now - self._scenario.timeout + holding
        while self._arrived and self._arrived[0].at < oldest:
            self._arrived.popleft()
        if self._retries and min(call.at for call in self._retries) < oldest:
            self._retries = deque(call for call in self._retries if call.at >= oldest)

    def _has_work(self) -> bool:
        idle = self._scenario.idle
        if idle and idle[0] <= self.world.now < idle[1]:
            self._wake_at(idle[1])
            return False
        if self._scenario.timeout < math.inf:
            self._give_up()
        return self._scenario.demand is None or bool(self._arrived or self._retries)

    def _wake_at(self, when: float) -> None:
        when = math.ceil(when / TIMER_GRID + self.world.rng.random()) * TIMER_GRID
        if when < self._timer:
            self._timer = when
            self.world.at(when, self._wake)

    def _wake(self) -> None:
        if self._timer <= self.world.now:
            self._timer = math.inf
            self._pump()

    def _pump(self) -> None:
        """As `Queue.replan`: starts all who are due."""
        schedule, now = self._schedule, self.world.now
        schedule.wake(now)
        while self._has_work():
            if not schedule.start_due(now):
                if schedule.due < math.inf:
                    self._wake_at(schedule.due)
                return
            self._send()
        schedule.held_by = None

    def _send(self) -> None:
        world, schedule = self.world, self._schedule
        if self._retries:
            call = self._retries.popleft()
        else:
            call = self._arrived.popleft() if self._arrived else Call(world.now)
        start = self.limit.started(world.now, self._slots.in_flight, schedule.held_by)
        schedule.paused_until = self.limit.paused_until
        world.at(world.now + self._one_way(), lambda: self._reach_server(start, call))

    def _one_way(self) -> float:
        return self._scenario.network / 2 * (0.9 + 0.2 * self.world.rng.random())

    def _reach_server(self, start: Start, call: Call) -> None:
        world = self.world
        if self.server.offer(world.now):
            served = world.now + world.rng.lognormvariate(self._mu, SIGMA)
            world.at(served, lambda: self._leave(start, call))
        else:
            wait = self.server.retry_after(world.now)
            back = world.now + 0.0005 + self._one_way()
            world.at(back, lambda: self._refused(start, wait, call))

    def _leave(self, start: Start, call: Call) -> None:
        self.server.release()
        self.world.at(self.world.now + self._one_way(), lambda: self._answered(start, call))

    def _answered(self, start: Start, call: Call) -> None:
        now = self.world.now
        if self._scenario.failures and self.world.rng.random() < self._scenario.failures:
            self._slots.give_back()
            self.limit.neutral(start, now)
            self._retries.append(call)
        else:
            self._slots.finished(now - start.at)
            self.answers.append(now)
            call.took = now - call.at
            self.limit.answered(start, now)
        self._learnt()

    def _refused(self, start: Start, wait: float | None, call: Call) -> None:
        now = self.world.now
        call.refused += 1
        if not self._way.sleeps:
            self._slots.finished(now - start.at)
        self.refusals.append(now)
        self.limit.throttled(start, now, wait)
        pause = max(self._way.retry(call.refused), wait or 0.0) + 0.25 * self.world.rng.random()
        self._learnt()
        if self._is_in_time(call, len(self._retries), pause):
            self.world.at(now + pause, lambda: self._retry(call))

    def _retry(self, call: Call) -> None:
        if self._way.sleeps:
            self._slots.give_back()
        self._retries.append(call)
        self._pump()

    def _learnt(self) -> None:
        self._schedule.follow(self.limit, self.world.now, self._pump)


@dataclass
class Scenario:
    """A server and those who use it; times in seconds."""

    server: Callable[[], Server]
    service: float = 0.3
    network: float = 0.04
    begins: tuple[float, ...] = (0.0,)
    duration: float = 120.0
    changes: tuple[float, ...] = ()
    demand: float | None = None
    bunch: int = 1  # calls that come together
    timeout: float = math.inf  # of each call
    idle: tuple[float, float] | None = None
    failures: float = 0.0


@dataclass
class Report:
    """What came of a run, with the ways to measure it."""

    scenario: Scenario
    server: Server
    clients: list[Client]

    def capacity(self, start: float, end: float) -> float:
        """Requests that could have been answered in an interval."""
        trip = self.scenario.service * math.exp(SIGMA * SIGMA / 2) + self.scenario.network
        steps = max(1, round((end - start) * 20))
        width = (end - start) / steps
        middles = (start + (step + 0.5) * width for step in range(steps))
        return sum(self.server.capacity(at, trip) for at in middles) * width

    def answered(self, start: float = 0.0, end: float | None = None) -> int:
        """Requests answered in an interval, over all clients."""
        return sum(_within(client.answers, start, end) for client in self.clients)

    def refused(self, start: float = 0.0, end: float | None = None) -> int:
        """Refusals seen in an interval, over all clients."""
        return sum(_within(client.refusals, start, end) for client in self.clients)

    def goodput(self, start: float = 0.0, end: float | None = None) -> float:
        """The share of the capacity that was used."""
        end = self.scenario.duration if end is None else end
        return self.answered(start, end) / self.capacity(start, end)

    def refusal_share(self, start: float = 0.0, end: float | None = None) -> float:
        """The share of all answers that were 429."""
        bad = self.refused(start, end)
        return bad / max(1, bad + self.answered(start, end))

    def fairness(self, start: float = 0.0, end: float | None = None) -> float:
        """Jain's index over the clients: 1.0 when all got the same."""
        got = [_within(client.answers, start, end) for client in self.clients]
        return sum(got) ** 2 / max(1, len(got) * sum(each * each for each in got))

    def regain(self, change: float, horizon: float = 60.0, window: float = 2.0) -> float:
        """Seconds from a change until two seconds reach 90 % of capacity with at most 5 % 429."""
        for step in range(int((horizon - window) * 4) + 1):
            start = change + step / 4
            good = self.answered(start, start + window)
            bad = self.refused(start, start + window)
            enough = good >= 0.9 * self.capacity(start, start + window)
            if enough and bad <= max(0.05 * (good + bad), 0 if good > 40 else 1):
                return step / 4
        return math.inf


def _within(times: list[float], start: float, end: float | None) -> int:
    return (len(times) if end is None else bisect_left(times, end)) - bisect_left(times, start)


def run(
    scenario: Scenario, seed: int, way: Way | None = None, rng: random.Random | None = None
) -> Report:
    """Plays a scenario from cold; the same seed gives the same run."""
    world, server = World(rng or random.Random(seed)), scenario.server()
    way = way or Way()
    clients = [Client(world, server, scenario, way, begins) for begins in scenario.begins]
    world.run(scenario.duration)
    return Report(scenario, server, clients)
