"""Finds a limit that nobody published, from outcomes alone, and stays just under it.

What it promises: no number is needed from the caller; pure logic (no clock, no waiting, no I/O);
about a microsecond a request. It learns from 2xx and 429; errors and latency say nothing.

The rules:

1. Two knobs: `rate` (starts per second) and `concurrency` (requests in flight). The first refusal
   decides which one is steered; the other is left loose, at twice what is used.
2. Cold start: each answer to a request that had to wait raises what held it, the rate twofold and
   the concurrency threefold a round trip, so that the smooth knob is the one that holds; never
   far beyond what is used.
3. A refusal marks the ceiling. In flight it is exact: n refused, so n - 1. For a rate: at each
   refusal a bucket is full, so what was accepted between two of them, over the time, IS the rate.
4. Below the ceiling a rest, above it a probe, on one cubic curve: ceiling + r * (x - 1)^3, where
   x counts the answers since the refusal in rests. Probes end about x = 2; what the curve left
   unused before x = 1 it takes after. The reach r grows with the square root of the ceiling, so
   that small clients gain relatively more and the shares of one limit drift together.
5. Every probe costs a refusal, so a rest is at least 40 answers, and longer the longer the ceiling
   has stood; but not below one that stood before, because limits that fell tend to return.
6. Refused before x = 1, not by a probe of ours: the limit is shared, or fell. Give way a little.
7. Steer the knob that stood higher than usual, among recent starts, when one was refused.
8. Three starts refused in a row: nothing starts for as long as Retry-After says, else for half the
   time that the refusals have lasted. From the end of one such outage to the end of the next,
   accepted / elapsed is the rate, however long the server's window.

Sources: CUBIC, RFC 9438 (the curve; here its clock counts answers, not seconds); AIMD, Chiu and
Jain 1989 (why giving way makes shares equal); nginx limit_req, limit_conn; RFC 6585.
"""

from __future__ import annotations

import math
from typing import Final, Literal

Knob = Literal["rate", "concurrency"]
"""What can hold a request back: starts per second, or requests in flight."""

START_RATE: Final = 10.0  # starts per second when cold: few enough to offend nobody
START_SLOTS: Final = 4  # requests in flight when cold
LOOSE: Final = 2.0  # the knob not steered stays at this many times what is used: it must not bind
REST: Final = 40.0  # answers in a rest: a probe ends after two rests, and 1 in 80 is about 1 %
REST_SECONDS: Final = 1.5  # ... and at least this long, for a fast server: probes cost round trips
SHARED_SECONDS: Final = 5.0  # a rest where others share the limit: one for all, to gain alike
CALM: Final = 1 / 8  # a ceiling that stood for s seconds rests s / 8 ...
CALM_SECONDS: Final = 30.0  # ... at most: a raised limit goes unnoticed for twice this
REACH: Final = 0.28  # of the curve: at 50/s, 4 % under the ceiling at x = 0, 4 % over at x = 2
MOVED: Final = 0.25  # a ceiling is another one when it differs by more than this share
GIVE: Final = 0.06  # share given way when refused at rest: makes room for smaller clients
FEW: Final = 8  # this few in flight: suspect the slots; fewer starts than this measure nothing
OUTAGE: Final = 3  # starts refused in a row that mean: everything is refused
WEIGHT: Final = 0.2  # of the newest refusal in the evidence for a knob
VERDICT: Final = 0.1  # evidence that changes the steered knob: two to four clear refusals
OWN: Final = 0.75  # a probe raises its own knob, so its rank says little: between chance and sure
RING: Final = 1024  # starts remembered (a power of two): more than a round trip's worth
LAST: Final = RING - 1
LOOK_BACK: Final = 64  # starts looked at when something is refused


class Start:
    """One request's start, kept by the pacer until its outcome is known."""

    __slots__ = ("at", "held", "in_flight", "seq")

    def __init__(self, at: float, seq: int, in_flight: int, held: Knob | None) -> None:
        self.at = at
        self.seq = seq
        self.in_flight = in_flight
        self.held = held


class AdaptiveLimit:
    """Steers a rate and a concurrency towards a server's unpublished limit.

    Args:
        rate: The least and the most starts per second; equal bounds fix the rate.
        concurrency: The least and the most requests in flight; equal bounds fix it.

    Attributes:
        rate: Starts per second now allowed.
        concurrency: Requests in flight now allowed.
        paused_until: Monotonic seconds before which nothing should start (-inf: not paused).

    Raises:
        ValueError: When a lower bound is not positive or exceeds its upper bound.
    """

    def __init__(
        self,
        *,
        rate: tuple[float, float] = (0.05, 10_000.0),
        concurrency: tuple[int, int] = (1, 1000),
    ) -> None:
        if not 0 < rate[0] <= rate[1] or not 0 < concurrency[0] <= concurrency[1]:
            message = "bounds must be positive and in order"
            raise ValueError(message)
        self._rate_bounds = rate
        self._slot_bounds = concurrency
        self.rate = self._clamp("rate", START_RATE)
        self.concurrency = int(self._clamp("concurrency", START_SLOTS))
        self.paused_until = -math.inf
        self._slots = float(self.concurrency)
        self._steered: Knob | None = None  # None until something is refused
        # The curve: x advances by step with each answer to a request that the steered knob held.
        self._ceiling = 0.0
        self._reach = 0.0
        self._x = 0.0
        self._step = 0.0
        self._rest = REST
        self._tested = False  # the ceiling was found twice in the same place
        self._stood = {"rate": 0.0, "concurrency": 0.0}  # the highest ceiling that was
        self._moved_at = 0.0
        self._window_rest = 0.0  # least rest, in answers, once a long window was met
        # The last starts, and the moment from which accepted / elapsed counts.
        self._seq = 0
        self._at = [0.0] * RING
        self._flights = [0] * RING
        self._bad = [False] * RING
        self._refused = 0
        self._mark = (0, 0.0, 0)  # seq, time and refusals then
        self._full = False  # the mark was a full moment, and demand never paused since
        self._steady = False  # the limit has not evidently moved since the mark
        self._cut_seq = 0  # starts up to this one say nothing new
        self._bad_seq = 0
        self._run = 0
        self._first = 1  # of the starts refused in a row
        self._judged = 0
        self._evidence = 0.0  # above zero: the rate is to blame
        self._shared = 0.0  # share of refusals that came at rest

    def started(self, now: float, in_flight: int, held: Knob | None) -> Start:
        """Notes the start of a request.

        Args:
            now: Monotonic seconds.
            in_flight: Requests in flight, this one included.
            held: What this request last had to wait for, None if it never waited.

        Returns:
            What to hand back with the outcome.
        """
        self._seq = seq = self._seq + 1
        if seq == 1:
            self._mark = (0, now, 0)
            self._moved_at = now
        slot = seq & LAST
        self._at[slot] = now
        self._flights[slot] = in_flight
        self._bad[slot] = False
        if held is None:
            self._full = False
        return Start(now, seq, in_flight, held)

    def answered(self, start: Start, now: float) -> None:  # noqa: ARG002 - one form for all outcomes
        """Notes an answer (2xx, or any other that the limit let through)."""
        if self._run and start.seq > self._bad_seq:
            self._refusals_ended(start)
        held = start.held
        if held is None:
            return
        if held == self._steered:
            if start.seq > self._cut_seq:
                self._x += self._step
                self._apply()
        elif held == "rate":
            # Never far beyond what is used: demand that comes in bunches must not raise it.
            lately = start.at - self._at[(start.seq - FEW) & LAST]
            if start.seq <= FEW or (self.rate - START_RATE) * lately < LOOSE * FEW:
                grown = self.rate * (1.0 + 1.0 / max(start.in_flight, START_SLOTS))
                self.rate = self._clamp("rate", grown)
        else:
            grown = self._slots * (1.0 + LOOSE / max(start.in_flight, START_SLOTS))
            self._slots = self._clamp("concurrency", grown)
            self.concurrency = int(self._slots)

    def neutral(self, start: Start, now: float) -> None:
        """Notes an outcome that says nothing about the limit (5xx, timeout, cancelled)."""

    def throttled(self, start: Start, now: float, retry_after: float | None) -> None:
        """Notes a refusal (429).

        Args:
            start: What `started` returned.
            now: Monotonic seconds.
            retry_after: Seconds the server asked for, None if it did not.
        """
        seq = start.seq
        self._refused += 1
        if self._seq - seq >= RING:
            return
        self._bad[seq & LAST] = True
        self._bad_seq = max(seq, self._bad_seq)
        first, oldest = self._bad_seq, max(1, self._bad_seq - LOOK_BACK)
        while first > oldest and self._bad[(first - 1) & LAST]:
            first -= 1
        if first > oldest or not self._run:
            self._first = first
        self._run = self._bad_seq - self._first + 1
        if self._run >= OUTAGE:
            wait = retry_after or (now - self._at[self._first & LAST]) / 2
            self.paused_until = max(self.paused_until, now + wait)
        if seq <= self._cut_seq:
            return
        new = self._choose_knob(start, self._flights[self._first & LAST])
        early = not new and self._x < 1.0
        if not new and seq > self._judged + FEW:
            self._shared += (early - self._shared) / 4
        self._judged = seq
        speed = self._speed_before(self._first)
        if self._steered == "concurrency":
            self._cut((start.in_flight - 1) * (1.0 - GIVE * early), speed, now, new=new)
            self.rate = self._clamp("rate", max(START_RATE, LOOSE * speed))
        elif self._run < OUTAGE or new:
            self._cut_rate(start, speed, now, new=new, early=early)

    # ------------------------------------------------------------------ which knob

    def _choose_knob(self, start: Start, flights_before: int) -> bool:
        """Whether the steered knob changed with this refusal."""
        old, knob = self._steered, self._steered
        flights = start.in_flight
        if old is None:
            slots = start.held == "concurrency" or flights <= FEW
            knob = "concurrency" if slots else "rate"
        elif flights == 1 or (self._run >= OUTAGE and 2 * flights <= flights_before):
            knob = "rate"  # no limit on requests in flight refuses so few
        elif self._run == 1:
            self._evidence += WEIGHT * (self._testimony(start) - self._evidence)
            if abs(self._evidence) > VERDICT:
                knob = "rate" if self._evidence > 0 else "concurrency"
        if self._slot_bounds[0] == self._slot_bounds[1]:
            knob = "rate"
        elif self._rate_bounds[0] == self._rate_bounds[1]:
            knob = "concurrency"
        self._steered = knob
        if knob != old:
            self._evidence = 0.0
        return knob != old

    def _testimony(self, start: Start) -> float:
        """How much more unusual the pace of a refused start was than its company (-1 to 1)."""
        at, flights, seq = self._at, self._flights, start.seq
        oldest = max(1 + FEW, seq - LOOK_BACK)
        if seq - oldest < FEW:
            others_got_in = self._x < 1.0 and seq > self._cut_seq + 1
            return 0.5 if others_got_in and self._steered == "concurrency" else 0.0
        gap = start.at - at[(seq - FEW) & LAST]
        company = pace = count = 0.0
        for other in range(oldest, seq):
            slot = other & LAST
            if self._bad[slot]:
                continue
            count += 1.0
            other_gap = at[slot] - at[(other - FEW) & LAST]
            company += (flights[slot] < start.in_flight) + 0.5 * (flights[slot] == start.in_flight)
            pace += (other_gap > gap) + 0.5 * (other_gap == gap)
        if not count:
            return 0.0
        if self._steered == "rate" and self._x >= 1.0:
            pace = OWN * count
        return (pace - company) / count

    # ------------------------------------------------------------------ where the ceiling is

    def _accepted(self, start: Start) -> int:
        seq, _, refused = self._mark
        return max(0, start.seq - seq - (self._refused - refused))

    def _speed_before(self, first: int) -> float:
        """Accepted per second just before the start numbered `first`."""
        seq, good, oldest = first - 1, 0, max(1, first - 1 - 2 * FEW)
        newest_at = self._at[seq & LAST]
        while seq > oldest:
            good += not self._bad[seq & LAST]
            seq -= 1
        return good / max(newest_at - self._at[seq & LAST], 0.001)

    def _cut_rate(self, start: Start, speed: float, now: float, *, new: bool, early: bool) -> None:
        accepted = self._accepted(start)
        self._steady = not new and self.rate <= (1.0 + 2.0 * MOVED) * self._ceiling
        if self._steady and not early and self._full and accepted >= FEW:
            ceiling = accepted / max(start.at - self._mark[1], 0.001)
        else:
            ceiling = min(speed, self.rate) * (1.0 - GIVE * early)
        recent = range(max(1, self._seq - LOOK_BACK), self._seq + 1)
        used = [self._flights[seq & LAST] for seq in recent]
        self._slots = self._clamp("concurrency", max(START_SLOTS, LOOSE * sum(used) / len(used)))
        self.concurrency = int(self._slots)
        self._cut(max(ceiling, self.rate / 2), speed, now, new=new)

    def _cut(self, ceiling: float, speed: float, now: float, *, new: bool) -> None:
        """Takes a new ceiling and rests below it."""
        knob = self._steered or "rate"
        near = max(MOVED * self._ceiling, 1.0 if knob == "concurrency" else 0.0)
        self._tested = not new and abs(ceiling - self._ceiling) <= near
        if not self._tested:
            self._moved_at = now
            self._window_rest = 0.0
        alone = max(REST, REST_SECONDS * speed) * (1.0 if self._tested else 0.5)
        rest = alone + self._shared * (SHARED_SECONDS * speed - alone)
        if ceiling >= (1.0 - MOVED) * self._stood[knob]:
            rest = max(rest, min(CALM_SECONDS, CALM * (now - self._moved_at)) * speed)
        if self._tested:
            self._stood[knob] = max(self._stood[knob], ceiling)
        self._rest = max(rest, self._window_rest, 1.0)
        self._begin_rest(ceiling)

    def _begin_rest(self, ceiling: float) -> None:
        self._ceiling = self._clamp(self._steered or "rate", ceiling)
        self._reach = REACH * math.sqrt(self._ceiling)
        self._x = 0.0
        self._step = 1.0 / self._rest
        self._cut_seq = self._seq
        self._apply()

    def _refusals_ended(self, start: Start) -> None:
        """The first answer after refusals: from one such moment to the next the limit is exact."""
        refused_for = start.at - self._at[self._first & LAST]
        elapsed = start.at - self._mark[1]
        accepted = self._accepted(start)
        outage = self._run >= OUTAGE
        exact = self._full and self._steady
        self._run = 0
        self._mark = (start.seq, start.at, self._refused)
        self._full = True
        if not outage or accepted < FEW:
            return
        if refused_for > elapsed / 2 and self._rate_bounds[0] < self._rate_bounds[1]:
            self._steered = "rate"  # a quota of requests, used up: slots would have come free
        elif not exact:
            return
        if self._steered == "rate":
            if refused_for > 1.0:
                self._window_rest = accepted / 2
                self._rest = max(self._rest, self._window_rest)
            self._begin_rest(accepted / elapsed)

    # ------------------------------------------------------------------ the knobs

    def _apply(self) -> None:
        beyond = self._x - 1.0
        value = self._ceiling + self._reach * beyond * beyond * beyond
        if self._steered == "rate":
            low, high = self._rate_bounds
            self.rate = low if value < low else min(value, high)
        else:
            self.concurrency = int(self._clamp("concurrency", value + 0.5))

    def _clamp(self, knob: Knob, value: float) -> float:
        low, high = self._rate_bounds if knob == "rate" else self._slot_bounds
        return min(max(value, low), high)
